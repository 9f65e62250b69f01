"""The command line where the extra `book` is missing, and what make says about itself."""

import os
import re
import subprocess
import sys

import pytest

from kempe_nb.__main__ import main
from tests.notebooks.book import PROJECT

WITHOUT = """
import sys
sys.modules[{name!r}] = None
from kempe_nb.__main__ import main
sys.exit(main(["run"]))
"""


@pytest.mark.parametrize("name", ["nbformat", "papermill"])
def test_without_the_extra_a_command_says_what_to_install(name):
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(name=name)], capture_output=True, text=True
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"kempe_nb: {name} is not installed")
    assert "kempe-nb[book]" in ran.stderr and "Traceback" not in ran.stderr


def test_a_broken_module_of_our_own_is_no_missing_extra():
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(name="kempe_nb.publish.select")],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1 and "ModuleNotFoundError" in ran.stderr


def test_an_option_is_written_out(capfd):
    with pytest.raises(SystemExit) as refused:
        main(["run", "--seed", "7"])
    assert refused.value.code == 2
    assert "unrecognized arguments: --seed" in capfd.readouterr().err


def test_make_help_lists_every_target():
    # Inside of make its flags would come along, and its remarks on folders.
    own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    ran = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=PROJECT.root,
        env=own,
        capture_output=True,
        text=True,
    )
    targets = re.search(r"^\.PHONY: (.*)$", (PROJECT.root / "Makefile").read_text(), re.M)[1]
    assert sorted(line.split()[0] for line in ran.stdout.splitlines()) == sorted(targets.split())
