"""Without a browser or Triton the tests say loudly what they left out; CI leaves none out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run_tests(*arguments, environment):
    """Run pytest in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *arguments],
        cwd=Path(__file__).parent.parent,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["", "workers"])
@pytest.mark.parametrize(("ci", "status"), [("false", 0), ("true", 4)])
def test_a_missing_browser(ci, status, workers):
    environment = {k: v for k, v in os.environ.items() if k != "KEMPE_NB_BROWSER"}
    environment |= {"PATH": str(Path(sys.executable).parent), "CI": ci}
    ran = run_tests("tests/site", "-k", "search_finds", *workers, environment=environment)
    assert ran.returncode == status, ran.stdout + ran.stderr
    if ci == "true":
        assert "CI=true, but no browser" in ran.stderr
    else:
        assert "LEFT OUT: NO BROWSER" in ran.stdout
        assert "test_the_search_finds_a_chapter" in ran.stdout


@pytest.mark.parametrize(("ci", "status"), [("false", 0), ("true", 4)])
def test_a_missing_triton(ci, status, tmp_path):
    (tmp_path / "triton.py").write_text("raise ImportError('left out')")
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "CI": ci}
    ran = run_tests("tests/kernels/test_interpreter_processes.py", environment=environment)
    assert ran.returncode == status, ran.stdout + ran.stderr
    if ci == "true":
        assert "CI=true, but no Triton" in ran.stderr
    else:
        assert "LEFT OUT: NO TRITON" in ran.stdout
        assert "test_guard.py" in ran.stdout


@pytest.mark.parametrize(("ci", "status"), [("false", 0), ("true", 4)])
def test_a_missing_numba(ci, status, tmp_path):
    """Its version is read from what is installed, and this process finds nothing there."""
    (tmp_path / "sitecustomize.py").write_text(
        "from importlib import metadata\n"
        "found = metadata.version\n"
        "def version(name):\n"
        "    if name == 'numba':\n"
        "        raise metadata.PackageNotFoundError(name)\n"
        "    return found(name)\n"
        "metadata.version = version\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "CI": ci}
    ran = run_tests("tests/kernels/numba", environment=environment)
    assert ran.returncode == status, ran.stdout + ran.stderr
    if ci == "true":
        assert "CI=true, but no Numba" in ran.stderr
    else:
        assert "LEFT OUT: NO NUMBA" in ran.stdout
        assert "test_compiled_code.py" in ran.stdout
