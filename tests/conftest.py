"""Fixtures of all tests, and the rule that CI leaves no test out."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

from kempe_nb import dispatch
from kempe_nb.notebook import claims, record
from kempe_nb.publish.changed import base_commit
from kempe_nb.publish.checkout import commit_id
from kempe_nb.publish.project import Project, UsageError
from kempe_nb.publish.seeds import unseen_seeds

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
    "numba": ("Numba", dispatch.numba_version, "Install the extra cpu: pip install -e .[cpu]"),
}


def pytest_configure(config):
    """Refuse to start workers for tests that CI would have to leave out.

    What a worker refuses is lost among the lines of a crash.
    """
    starts_workers = getattr(config.option, "numprocesses", None)
    if starts_workers and os.environ.get("CI") == "true":
        for need, find, advice in NEEDS.values():
            if not find():
                raise pytest.UsageError(f"CI=true, but no {need}. {advice}")


def pytest_report_header():
    """Say which seed nobody chose, and what a submission is compared with."""
    project = Project.find(Path(__file__).parent)
    (seed,) = unseen_seeds(commit_id(project.root), 1)
    try:
        base = base_commit(project) or "nothing, so every lesson runs"
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    return f"seed of this commit: {seed}, for lessons whose code differs from {base}"


#: Files whose tests are long and share nothing: each goes to the worker that is free. Another file
#: stays in one worker, for the sake of what its tests share.
SPREAD = ("tests/notebooks/test_live_runs.py", "tests/notebooks/test_other_seeds.py")
#: The file whose tests share what they are about, their last parameter.
BY_PAGE = "tests/site/test_pages.py"


def page_of(nodeid):
    """Return the page that a test is about, its last parameter; the whole id of another test."""
    _, bracket, parameters = nodeid.rstrip("]").rpartition("[")
    return parameters.rpartition("-")[2] if bracket else nodeid


def kept_together(nodeid):
    """Return the name of what stays in one worker with a test: its file, its page, or itself."""
    file = nodeid.partition("::")[0]
    if file == BY_PAGE:
        return f"{file}::{page_of(nodeid)}"
    return nodeid if file in SPREAD else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Share out files, and the tests of `SPREAD` one by one, in the order of the folders.

    `--dist loadfile` would give all runs of notebooks to one worker, and all pages to the other;
    `--dist loadgroup` does not see its groups under pytest 9 (xdist 3.8 renames a test by an
    attribute that is gone).
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return kept_together(nodeid)

    # By default what has few tests comes last, and that is what is long here.
    config.option.loadscopereorder = False
    return ByFile(config, log)


def pytest_collection_modifyitems(config, items):
    """Skip the tests whose needs are not met; with CI=true refuse to go on."""
    config.left_out = {}
    for marker, (need, find, advice) in NEEDS.items():
        left_out = [item for item in items if item.get_closest_marker(marker)]
        if not left_out or find():
            continue
        if os.environ.get("CI") == "true":
            raise pytest.UsageError(f"CI=true, but no {need} for {len(left_out)} tests. {advice}")
        config.left_out[marker] = [item.nodeid for item in left_out]
        for item in left_out:
            item.add_marker(pytest.mark.skip(reason=f"no {need} found"))


def pytest_sessionfinish(session):
    """Hand what a worker left out to the process that prints the summary."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.left_out


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Take what a worker left out; all workers collect the same tests."""
    node.config.left_out = getattr(node, "workeroutput", {}).get("left_out", {})


def pytest_terminal_summary(terminalreporter, config):
    """Say loudly which tests were left out."""
    for marker, left_out in getattr(config, "left_out", {}).items():
        need, _, advice = NEEDS[marker]
        terminalreporter.section(f"LEFT OUT: NO {need.upper()}", sep="!", red=True, bold=True)
        terminalreporter.line(advice)
        for name in left_out:
            terminalreporter.line(f"  {name}")


@pytest.fixture(autouse=True)
def _fresh_ledger():
    """Start every test with an empty ledger and an empty record."""
    claims.clear()
    record._facts.clear()
    yield
    claims.clear()
    record._facts.clear()
