"""Fixtures of all tests, and the rule that CI leaves no test out."""

import os
import shutil

import pytest

from kempe_nb.notebook import claims, record

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_browser() -> str | None:
    """Return the path of a Chromium: `KEMPE_NB_BROWSER`, or the first known name on the path."""
    return os.environ.get("KEMPE_NB_BROWSER") or next(
        filter(None, map(shutil.which, BROWSERS)), None
    )


def pytest_collection_modifyitems(config, items):
    """Skip the browser tests where there is no browser; with CI=true refuse to go on."""
    left_out = [item for item in items if item.get_closest_marker("browser")]
    if not left_out or find_browser():
        return
    if os.environ.get("CI") == "true":
        raise pytest.UsageError(f"CI=true, but no browser for {len(left_out)} tests: {BROWSERS}")
    config.left_out = left_out
    for item in left_out:
        item.add_marker(pytest.mark.skip(reason="no Chromium found"))


def pytest_terminal_summary(terminalreporter, config):
    """Say loudly which tests were left out."""
    left_out = getattr(config, "left_out", [])
    if left_out:
        terminalreporter.section("LEFT OUT: NO BROWSER", sep="!", red=True, bold=True)
        terminalreporter.line(f"Install one of {', '.join(BROWSERS)}, or set KEMPE_NB_BROWSER.")
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
