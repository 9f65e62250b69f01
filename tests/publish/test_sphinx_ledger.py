"""The ledger lists every claim once, by chapter and lesson, and counts each kind apart."""

import json

import pytest
from facts_of_a_run import CLAIM, FACTS

from kempe_nb.publish.sphinx.ledger import own_code


def claim(name, kind="measurement", **changes):
    return CLAIM | {"id": name, "kind": kind, "sentence": f"Sentence <{name}>."} | changes


BOOK = {
    "chapters/new/1_first": [claim("a"), claim("b", verdict="fails"), claim("c", "identity")],
    "chapters/new/2_second": [claim("a", verdict="differs", paper="more")],
    "chapters/old": [claim("a", ""), claim("b", "consistency")],
    "kernels/sum": [claim("a", "identity")],
}


@pytest.fixture
def ledger(build_pages):
    """Return the page of the ledger of a book."""

    def ledger(book=BOOK):
        files = {
            "index.md": "# I\n\n```{toctree}\n:glob:\n\nclaims\nchapters/**\nkernels/*\n```\n",
            "claims.md": "# Claims\n\n```{ledger}\n```\n",
            "chapters/new/index.md": "# A new chapter\n",
        }
        for name, claims in book.items():
            roles = " ".join(f"{{claim}}`{each['id']}`" for each in claims)
            files[f"{name}.md"] = f"# T\n\n{roles}\n"
            title = {"title": f"Lesson {name[-1]}"}
            files[f"_records/{name}.json"] = json.dumps(FACTS | title | {"claims": claims})
        pages, warnings = build_pages(files)
        assert warnings == ""
        return pages["claims"]

    return ledger


def test_every_claim_is_listed_once_below_its_chapter_and_its_lesson(ledger):
    page = ledger()
    rows = [row["id"] for row in page.select(".kempe-claims tbody tr")]
    assert rows == [
        *("claim-chapters-new-1_first-a", "claim-chapters-new-1_first-b"),
        *("claim-chapters-new-1_first-c", "claim-chapters-new-2_second-a"),
        *("claim-chapters-old-a", "claim-chapters-old-b", "claim-kernels-sum-a"),
    ]
    headings = [(h.name, h.get_text().rstrip("¶#")) for h in page.select(".body h2, .body h3")]
    assert headings == [
        *(("h2", "A new chapter"), ("h3", "Lesson t"), ("h3", "Lesson d")),
        *(("h2", "Lesson d"), ("h2", "Kernels"), ("h3", "Lesson m")),
    ]
    links = [
        h.a["href"] for h in page.select(".body h2, .body h3") if "headerlink" not in h.a["class"]
    ]
    assert links == [
        *("chapters/new/index.html", "chapters/new/1_first.html", "chapters/new/2_second.html"),
        *("chapters/old.html", "kernels/sum.html"),
    ]


def test_a_row_tells_the_whole_claim(ledger):
    row = ledger().find(id="claim-chapters-new-2_second-a")
    assert row.get_text(" ", strip=True) == (
        "a Sentence <a>. Source: a test. Code "
        + CLAIM["code"]
        + " ≠ differs 1.25 s (≤\N{NO-BREAK SPACE}2 s) The paper: more. measurement"
    )
    assert not row.details.has_attr("open")
    data = {name: row[f"data-{name}"] for name in ("chapter", "kind", "verdict")}
    assert data == {"chapter": "new", "kind": "measurement", "verdict": "differs"}


def test_a_row_has_the_code_of_its_own_claim_and_what_that_needs():
    code = """# How far.
gap = 3
_ = claims.check(
    "first",
    "One.",
    gap,
)

for each in range(2):
    gap += each
claims.check("second", "Two.", gap)
print(gap)
"""
    first = own_code(code, "first")
    assert "second" not in first and first.count("claims.check") == 1
    assert first.startswith("# How far.\ngap = 3\n_ = claims.check(\n") and "print(gap)" in first
    second = own_code(code, "second")
    assert second == (
        "# How far.\ngap = 3\nfor each in range(2):\n    gap += each\n"
        'claims.check("second", "Two.", gap)\nprint(gap)'
    )
    assert own_code(code, "made-in-a-loop") == code.strip()


def test_only_measurements_are_counted_as_evidence(ledger):
    rows = [
        [cell.get_text(strip=True) for cell in row.find_all(["td", "th"])]
        for row in ledger().select(".kempe-totals tr")
    ]
    assert rows[0] == ["Claims", "✓ holds", "≠ differs", "✗ fails"]
    assert [[row[0].split(" (")[0], *row[1:]] for row in rows[1:]] == [
        ["Measurements", "1", "1", "1"],
        ["Identities", "2", "0", "0"],
        ["Consistency checks", "1", "0", "0"],
        ["Not yet sorted", "1", "0", "0"],
    ]


def test_the_filter_offers_what_the_rows_have_and_waits_for_its_script(ledger):
    page = ledger()
    form = page.select_one("form.kempe-filter")
    assert form.has_attr("hidden") and page.select_one(".kempe-count").has_attr("hidden")
    for select in form.find_all("select"):
        offered = {option["value"] for option in select.find_all("option")}
        found = {row[f"data-{select['name']}"] for row in page.select(".kempe-claims tbody tr")}
        assert select.find_parent("label").span.get_text() and {"", *found} <= offered
    # Without the script the whole list is shown.
    assert not any(row.has_attr("hidden") for row in page.select(".kempe-claims, tr, section"))
    assert page.select_one(".kempe-count").get_text() == "7 of 7 claims are shown."


def test_a_new_lesson_reaches_the_ledger_of_an_incremental_build(ledger):
    ledger({"kernels/sum": [claim("a")]})
    page = ledger()
    assert len(page.select(".kempe-claims tbody tr")) == 7
