"""Prose and claims are held together at build time, in both directions."""

import json

import pytest

CLAIM = {
    "id": "small",
    "sentence": "One is at most two.",
    "shown": "1.25 s",
    "condition": "≤ 2 s",
    "source": "a test",
    "paper": "",
    "verdict": "holds",
    "expected": "holds",
    "measured": 1.25,
}
FACTS = {
    "claims": [CLAIM],
    "seconds": 130.0,
    "peak_mib": 512.4,
    "device": "x86_64",
    "cores": 2,
    "profile": "cpu",
    "date": "2026-01-02",
    "commit": "abc1234",
    "versions": {"torch": "2.0", "python": "3.11"},
    "figures": 3,
    "sliders": 1,
}


@pytest.fixture
def build(build_pages):
    """Build a small site of a chapter and return its pages and its warnings."""

    def build(chapter, index="# Index\n\n```{toctree}\nchapters/one\n```\n", facts=FACTS):
        return build_pages(
            {
                "index.md": index,
                "chapters/one.md": chapter,
                "_records/one.json": json.dumps(facts),
            }
        )

    return build


def test_a_claim_in_prose_shows_verdict_and_value_and_leads_to_its_row(build):
    pages, warnings = build("# One\n\nSee {claim}`small`.\n\n```{claims}\n```\n")
    assert warnings == ""
    badge = pages["chapters/one"].select_one("a.kempe-badge")
    assert badge.get_text(" ", strip=True) == "✓ holds 1.25 s"
    target = pages["chapters/one"].find(id=badge["href"].removeprefix("#"))
    assert "One is at most two." in target.get_text()
    assert target.find_parent("table") is not None


def test_a_claim_that_was_not_executed_is_a_warning(build):
    _, warnings = build("# One\n\n{claim}`small` {claim}`other`\n")
    assert "no executed claim 'other' in chapter 'one'" in warnings


def test_a_claim_that_no_prose_refers_to_is_a_warning(build):
    _, warnings = build("# One\n\nNothing said.\n")
    assert "the claim 'small' is executed but no {claim} role refers to it" in warnings


def test_a_reference_on_another_page_does_not_count_for_the_chapter(build):
    index = "# Index\n\n{claim}`one/small`\n\n```{toctree}\nchapters/one\n```\n"
    pages, warnings = build("# One\n\nNothing said.\n", index)
    assert "no {claim} role refers to it" in warnings
    assert pages["index"].select_one("a.kempe-badge")["href"] == "chapters/one.html#claim-small"


def test_a_new_value_reaches_the_page_of_an_incremental_build(build):
    text = "# One\n\nSee {claim}`small`.\n"
    build(text)
    changed = FACTS | {"claims": [CLAIM | {"shown": "9 s", "verdict": "differs", "paper": "two"}]}
    pages, warnings = build(text, facts=changed)
    assert pages["chapters/one"].select_one("a.kempe-badge").get_text() == "≠ differs 9 s"
    assert warnings == ""


def test_the_measured_line_and_the_status_come_from_the_facts(build):
    index = "# Index\n\n```{status}\n```\n\n```{toctree}\nchapters/one\n```\n"
    pages, warnings = build("# One\n\n```{measured}\n```\n\n{claim}`small`\n", index)
    assert warnings == ""
    measured = pages["chapters/one"].select_one(".kempe-measured").get_text()
    for part in ("2.2 min", "512 MiB", "2 CPU cores", "2026-01-02", "abc1234", "torch 2.0"):
        assert part in measured
    status = pages["index"].get_text(" ")
    assert "1 of 1 claims hold; 3 figures" in status and "2.2 min" in status and "3.11" in status


def test_the_table_shows_what_the_paper_says_where_we_differ(build):
    differs = CLAIM | {"verdict": "differs", "paper": "twenty-fold"}
    pages, _ = build(
        "# One\n\n{claim}`small`\n\n```{claims}\n```\n", facts=FACTS | {"claims": [differs]}
    )
    row = pages["chapters/one"].select_one("table.kempe-table tbody tr").get_text(" ")
    assert "The paper: twenty-fold." in row and "≠ differs" in row


def test_a_claim_that_prose_forgets_is_noticed_in_an_incremental_build(build):
    assert build("# One\n\nSee {claim}`small`.\n")[1] == ""
    _, warnings = build("# One\n\nNo more.\n")
    assert "no {claim} role refers to it" in warnings


@pytest.mark.parametrize("text", ["```{claims} nowhere\n```", "```{measured}\n```"])
def test_a_table_of_a_chapter_that_was_not_executed_is_a_warning(build, text):
    index = f"# Index\n\n{text}\n\n```{{toctree}}\nchapters/one\n```\n"
    _, warnings = build("# One\n\n{claim}`small`\n", index)
    assert "was not executed" in warnings


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
                "_records/one.json": json.dumps(FACTS),
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
