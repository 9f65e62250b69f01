"""Without a browser the tests say loudly what they left out; CI refuses to leave any out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("ci", "status"), [("false", 0), ("true", 4)])
def test_a_missing_browser(ci, status):
    environment = {k: v for k, v in os.environ.items() if k != "KEMPE_NB_BROWSER"}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/site", "-k", "search_finds"],
        cwd=Path(__file__).parent.parent,
        env=environment | {"PATH": str(Path(sys.executable).parent), "CI": ci},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == status, ran.stdout + ran.stderr
    if ci == "true":
        assert "CI=true, but no browser" in ran.stderr
    else:
        assert "LEFT OUT: NO BROWSER" in ran.stdout
        assert "test_the_search_finds_a_chapter" in ran.stdout
