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


#: A compiler, what hides it from a process, and tests that need it with one that is named then.
#: The version of Numba is read from what is installed; Triton is imported.
COMPILERS = {
    "Triton": (
        "triton.py",
        "raise ImportError('left out')",
        "tests/kernels/test_interpreter_processes.py",
        "test_guard.py",
    ),
    "Numba": (
        "sitecustomize.py",
        "from importlib import metadata\n"
        "found = metadata.version\n"
        "def version(name):\n"
        "    if name == 'numba':\n"
        "        raise metadata.PackageNotFoundError(name)\n"
        "    return found(name)\n"
        "metadata.version = version\n",
        "tests/kernels/numba",
        "test_compiled_code.py",
    ),
}


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize(("ci", "status"), [("false", 0), ("true", 4)])
def test_a_missing_compiler(ci, status, compiler, tmp_path):
    file, content, tests, one_of_them = COMPILERS[compiler]
    (tmp_path / file).write_text(content)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "CI": ci}
    ran = run_tests(tests, environment=environment)
    assert ran.returncode == status, ran.stdout + ran.stderr
    if ci == "true":
        assert f"CI=true, but no {compiler}" in ran.stderr
    else:
        assert f"LEFT OUT: NO {compiler.upper()}" in ran.stdout
        assert one_of_them in ran.stdout
