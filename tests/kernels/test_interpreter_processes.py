"""Every file of interpreter tests in a process of its own, with the interpreter switched on."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FILES = sorted((ROOT / "tests" / "kernels" / "interpreter").glob("test_*.py"))

pytestmark = pytest.mark.triton


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_in_the_interpreter(file):
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(file)],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    output = ran.stdout + ran.stderr
    assert ran.returncode == 0, output
    assert re.search(r"\b[1-9]\d* passed", ran.stdout) and "skipped" not in ran.stdout, output
