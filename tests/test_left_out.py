"""Without a browser or Triton the tests say loudly what they left out; CI leaves none out."""

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


@pytest.mark.parametrize(("ci", "status"), [("false", 0), ("true", 4)])
def test_a_missing_triton(ci, status, tmp_path):
    (tmp_path / "triton.py").write_text("raise ImportError('left out')")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/kernels/test_interpreter_processes.py"],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "CI": ci},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == status, ran.stdout + ran.stderr
    if ci == "true":
        assert "CI=true, but no Triton" in ran.stderr
    else:
        assert "LEFT OUT: NO TRITON" in ran.stdout
        assert "test_guard.py" in ran.stdout
