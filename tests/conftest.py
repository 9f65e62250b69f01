"""Fixtures of all tests, and the rule that CI leaves no test out."""

import os
import shutil

import pytest
from hypothesis import settings

from kempe_nb.kernels import dispatch
from kempe_nb.notebook import claims, record

# A deadline of an example is one of the clock on the wall, and a busy machine would miss it.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# A hook of git names its repository in the environment, and a test that commits would commit there.
for _name in [name for name in os.environ if name.startswith("GIT_")]:
    del os.environ[_name]

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_browser() -> str | None:
    """Return the path of a Chromium: `KEMPE_NB_BROWSER`, or the first known name on the path."""
    return os.environ.get("KEMPE_NB_BROWSER") or next(
        filter(None, map(shutil.which, BROWSERS)), None
    )


#: What a marker needs: its name, a function that finds it, and what to do without it.
NEEDS = {
    "browser": (
        "browser",
        find_browser,
        f"Install one of {', '.join(BROWSERS)}, or set KEMPE_NB_BROWSER.",
    ),
    "triton": ("Triton", dispatch.triton_version, "Install the extra gpu: pip install -e .[gpu]"),
}


def pytest_collection_modifyitems(config, items):
    """Skip the tests whose needs are not met; with CI=true refuse to go on."""
    config.left_out = {}
    for marker, (need, find, advice) in NEEDS.items():
        left_out = [item for item in items if item.get_closest_marker(marker)]
        if not left_out or find():
            continue
        if os.environ.get("CI") == "true":
            raise pytest.UsageError(f"CI=true, but no {need} for {len(left_out)} tests. {advice}")
        config.left_out[marker] = left_out
        for item in left_out:
            item.add_marker(pytest.mark.skip(reason=f"no {need} found"))


def pytest_terminal_summary(terminalreporter, config):
    """Say loudly which tests were left out."""
    for marker, left_out in getattr(config, "left_out", {}).items():
        need, _, advice = NEEDS[marker]
        terminalreporter.section(f"LEFT OUT: NO {need.upper()}", sep="!", red=True, bold=True)
        terminalreporter.line(advice)
        for item in left_out:
            terminalreporter.line(f"  {item.nodeid}")


@pytest.fixture(autouse=True)
def _fresh_ledger():
    """Start every test with an empty ledger and an empty record."""
    claims.clear()
    record._facts.clear()
    yield
    claims.clear()
    record._facts.clear()
