"""The pages say what a run cost, and where stored runs come from."""

import json

import pytest
from facts_of_a_run import FACTS


def test_the_measured_line_and_the_status_come_from_the_facts(build):
    index = "# Index\n\n```{status}\n```\n\n```{toctree}\nchapters/one\n```\n"
    pages, warnings = build("# One\n\n```{measured}\n```\n\n{claim}`small`\n", index)
    assert warnings == ""
    measured = pages["chapters/one"].select_one(".kempe-measured").get_text()
    for part in ("2.2 min", "512 MiB", "2 CPU cores", "2026-01-02", "abc1234", "torch 2.0"):
        assert part in measured
    status = pages["index"].get_text(" ")
    assert "1 of 1 claims hold; 3 figures" in status and "2.2 min" in status and "3.11" in status


TOLD = {
    "grid": {"scale": ["1"], "seed": ["0", "1", "2", "3"]},
    "runs": 4,
    "profile": "cpu",
    "seconds": 600.0,
    "device": ["x86_64"],
    "cores": [2],
    "date": ["2026-01-03"],
    "commit": ["abc9999"],
    "versions": [{"torch": "2.0"}],
    "stale": "",
}


@pytest.fixture
def build_stored(build_pages):
    """Build a page that tells of stored runs; return its text and the warnings."""

    def build_stored(told, name="laws"):
        page = f"# One\n\n{{claim}}`small`\n\n```{{stored}} {name}\n```\n"
        pages, warnings = build_pages(
            {
                "index.md": "# I\n\n```{status}\n```\n\n```{toctree}\nchapters/one\n```\n",
                "chapters/one.md": page,
                "_records/chapters/one.json": json.dumps(FACTS),
                "_records/stored_runs": json.dumps({"one/laws": told}),
            }
        )
        return pages["chapters/one"].get_text(" "), pages["index"].get_text(" "), warnings

    return build_stored


def test_a_stored_file_says_how_it_was_made_and_whether_it_still_holds(build_stored):
    page, status, warnings = build_stored(TOLD)
    assert warnings == ""
    for text in (page, status):
        assert "4 runs (scale 1, seed 0 to 3), profile cpu, 10.0 min in all on x86_64" in text
        assert "2026-01-03, commit abc9999, torch 2.0" in text
    assert "Out of date" not in page and "as its code is" in status
    page, status, _ = build_stored(TOLD | {"stale": "the cells that made it have changed"})
    assert "Out of date: the cells that made it have changed; make results mends it." in page
    assert "the cells that made it have changed" in status


def test_a_page_that_tells_of_runs_that_are_not_stored_is_a_warning(build_stored):
    assert "no stored runs 'one/other'" in build_stored(TOLD, name="other")[2]
