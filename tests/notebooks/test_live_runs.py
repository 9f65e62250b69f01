"""nbval as the second run of the same seed: kept claim texts, and the numbers of the page again.

nbval starts a live notebook, as a reader does, and that writes the record of its claims. The page
was made by a published one, which draws every frame of its sliders. So equal numbers say two
things: that the notebook gives the same twice, and that a reader gets what the page shows.

The runs of a session share one cache, which begins empty: what lessons share is computed once more
rather than read from what the build has kept.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from kempe_nb.notebook import cache, record
from kempe_nb.publish.accept import CLAIM_TAGS
from kempe_nb.publish.execute import NEVER_STARTED, papermill_run, read_facts
from tests.notebooks.book import NOTEBOOKS, each_notebook, facts_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def empty_cache(tmp_path_factory):
    """A folder for the cache of this session, one for all workers."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    return folder / "cache_of_live_runs"


def nbval(path, record_file, cache_folder):
    """Run nbval on one notebook in a process of its own; return its exit status and its output."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    environment = os.environ | {
        record.VARIABLE: str(record_file),
        record.LIVE: "1",
        cache.VARIABLE: str(cache_folder),
        # As the executor of the book has it.
        "OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", "1"),
    }
    for _ in range(3):
        ran = subprocess.run(
            [*command, "--nbval-lax", "--rootdir", str(path.parent), "-c", "/dev/null", str(path)],
            capture_output=True,
            text=True,
            cwd=path.parent,
            env=environment,
        )
        # A kernel that never started has run nothing: neither a pass nor a failure of the page.
        if NEVER_STARTED not in ran.stdout:
            break
    return ran.returncode, ran.stdout


def differences(page, live):
    """Return the claims whose verdict or measured value differs, with both of its values."""

    def told(facts):
        # As JSON: a NaN is equal to a NaN, and a number to no other one.
        return {c["id"]: (c["verdict"], json.dumps(c["measured"])) for c in facts["claims"]}

    then, now = told(page), told(live)
    return {
        claim: (then.get(claim), now.get(claim))
        for claim in then | now
        if then.get(claim) != now.get(claim)
    }


@each_notebook
def test_a_live_run_keeps_the_claim_texts_and_gives_the_numbers_of_the_page(
    name, tmp_path, empty_cache
):
    page = facts_of(name)
    status, output = nbval(NOTEBOOKS[name], tmp_path / "live.json", empty_cache)
    assert status == 0, output
    live = read_facts(tmp_path / "live.json")
    assert live and differences(page, live) == {}


CHECK = (
    'from kempe_nb.notebook import claims\n_ = claims.check("a", "One.", 1, at_most=2, source="t")'
)


def write_notebook(path, *cells):
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def claim_cell(source, text):
    """Return the cell of a claim with its kept text."""
    cell = new_code_cell(source, metadata={"tags": list(CLAIM_TAGS)}, execution_count=1)
    cell.outputs = [] if text is None else [new_output("stream", name="stdout", text=text)]
    return cell


@pytest.mark.parametrize(
    ("text", "status"),
    [("HOLDS  a\n  One.\n", 0), ("FAILS  a\n  One.\n", 1), ("HOLDS  a\n  Two.\n", 1), (None, 1)],
)
def test_nbval_fails_when_a_kept_text_is_changed_or_removed(tmp_path, text, status):
    path = write_notebook(tmp_path / "chapter.ipynb", claim_cell(CHECK, text))
    found, output = nbval(path, tmp_path / "live.json", tmp_path / "cache")
    assert found == status, output


#: A slider whose frames draw numbers, and a claim about the next number that the page draws.
SLIDER = """
import random
from matplotlib import pyplot as plt
from kempe_nb.notebook import claims, sliders

generator = random.Random(0)


def draw(a):
    {own}
    fig, axes = plt.subplots(figsize=(2, 2))
    _ = axes.plot([a, generator.random()])
    return fig


sliders.explore(draw, alt="A line from {{a}}.", caption="Lines.", a=[1, 2, 3])
"""
NEXT = (
    '_ = claims.check("next", "A share is at most one.", generator.random(), at_most=1, source="t")'
)


@pytest.mark.parametrize(
    ("own", "different"), [("pass", ["next"]), ("generator = random.Random(a)", [])]
)
def test_a_slider_that_draws_from_the_generator_of_the_page_is_found(tmp_path, own, different):
    path = write_notebook(
        tmp_path / "leak.ipynb",
        new_code_cell(SLIDER.format(own=own)),
        claim_cell(NEXT, "HOLDS  next\n  A share is at most one.\n"),
        new_code_cell("claims.close()"),
    )
    papermill_run(str(path), tmp_path / "ran.ipynb", {}, tmp_path / "page.json", cwd=str(tmp_path))
    status, output = nbval(path, tmp_path / "live.json", tmp_path / "cache")
    # The text of the claim is the same, and so is its verdict: nbval alone finds nothing.
    assert status == 0, output
    page, live = (read_facts(Path(tmp_path) / f"{each}.json") for each in ("page", "live"))
    assert list(differences(page, live)) == different
