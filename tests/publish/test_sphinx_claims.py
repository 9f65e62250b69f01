"""Prose and claims are held together at build time, in both directions."""

import json
import posixpath

import pytest
from facts_of_a_run import CLAIM, FACTS


@pytest.fixture
def build_book(build_pages):
    """Build a ledger and executed pages, given by the prose of each; return pages and warnings."""

    def build_book(pages, claims=None, others=None):
        """Every executed page has the claim `small`, or those given by the name of the page."""
        others = others or {}
        listed = "\n".join([*pages, *(name.removesuffix(".md") for name in others)])
        files = {
            "index.md": f"# Index\n\n```{{toctree}}\nclaims\n{listed}\n```\n",
            "claims.md": "# Claims\n\n```{ledger}\n```\n",
            **others,
        }
        for name, prose in pages.items():
            facts = FACTS | {"claims": (claims or {}).get(name, [CLAIM]), "title": f"Title {name}"}
            files[f"{name}.md"] = f"# Title {name}\n\n{prose}\n"
            files[f"_records/{name}.json"] = json.dumps(facts)
        return build_pages(files)

    return build_book


def led_to(pages, page, badge):
    """Return the element that a badge on a page leads to."""
    name, _, anchor = badge["href"].partition("#")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(page), name or f"{page}.html"))
    return pages[target.removesuffix(".html")].find(id=anchor)


def test_a_claim_in_prose_shows_verdict_and_value_and_leads_to_its_row(build_book):
    pages, warnings = build_book({"chapters/one": "See {claim}`small`.\n\n```{claims}\n```"})
    assert warnings == ""
    badge = pages["chapters/one"].select_one("a.kempe-badge")
    assert badge.get_text(" ", strip=True) == "✓ holds 1.25 s"
    assert badge["href"] == "../claims.html#claim-chapters-one-small"
    target = led_to(pages, "chapters/one", badge)
    assert "One is at most two." in target.get_text()
    assert target.find_parent("table") is not None
    # The chapter has a table of its own, whose rows are no targets.
    row = pages["chapters/one"].select_one("table.kempe-table tbody tr")
    assert "One is at most two." in row.get_text() and row.find(id=True) is None


def test_a_badge_holds_its_details_hidden_and_fit_for_a_paragraph(build_book):
    claim = CLAIM | {"paper": "two < three", "kind": "consistency"}
    pages, warnings = build_book({"chapters/one": "{claim}`small`"}, {"chapters/one": [claim]})
    assert warnings == ""
    details = pages["chapters/one"].select_one("p > span.kempe-claim > span.kempe-details")
    assert details.has_attr("hidden")
    assert {tag.name for tag in details.find_all(True)} <= {"span", "b", "a"}
    assert [
        line.get_text(" ", strip=True) for line in details.find_all("span", recursive=False)
    ] == [
        "One is at most two.",
        "Measured: 1.25 s (required: ≤\N{NO-BREAK SPACE}2 s), ✓ holds",
        "The paper: two < three",
        "Kind: consistency, two computations of ours agree",
        "Source: a test",
        "In the ledger Code",
    ]
    row, code = (led_to(pages, "chapters/one", link) for link in details.find_all("a"))
    assert row.name == "tr" and code.get_text() == CLAIM["code"]
    # A browser opens folded details when a link leads inside them.
    assert code.find_parent("details") is not None and not code.find_parent("details").has_attr(
        "open"
    )


def test_an_old_claim_has_neither_kind_nor_code(build_book):
    old = {name: value for name, value in CLAIM.items() if name not in ("kind", "code")}
    pages, warnings = build_book({"chapters/one": "{claim}`small`"}, {"chapters/one": [old]})
    assert warnings == ""
    text = pages["chapters/one"].select_one(".kempe-details").get_text(" ", strip=True)
    assert "Kind" not in text and "Code" not in text and text.endswith("In the ledger")
    assert pages["claims"].select("details") == []


PLACES = {
    "chapters/new/1_first": "{claim}`small` {claim}`2_second/small` {claim}`old/small`",
    "chapters/new/2_second": "{claim}`small` {claim}`new/1_first/small`",
    "chapters/old": "{claim}`small` {claim}`new/1_first/small` {claim}`kernels/sum/small`",
    "kernels/sum": "{claim}`small` {claim}`old/small`",
}
EXPECTED = {
    "chapters/new/1_first": ["chapters-new-1_first", "chapters-new-2_second", "chapters-old"],
    "chapters/new/2_second": ["chapters-new-2_second", "chapters-new-1_first"],
    "chapters/old": ["chapters-old", "chapters-new-1_first", "kernels-sum"],
    "kernels/sum": ["kernels-sum", "chapters-old"],
    "chapters/new/index": ["chapters-new-1_first", "chapters-new-2_second"],
    "other": ["chapters-new-2_second", "chapters-old", "kernels-sum"],
}


def test_a_claim_is_found_from_every_place(build_book):
    others = {
        "chapters/new/index.md": "# New\n\n{claim}`1_first/small` {claim}`new/2_second/small`\n",
        "other.md": "# O\n\n{claim}`new/2_second/small` {claim}`old/small` "
        "{claim}`kernels/sum/small`\n",
    }
    pages, warnings = build_book(PLACES, others=others)
    assert warnings == ""
    for page, names in EXPECTED.items():
        badges = pages[page].select("a.kempe-badge")
        assert [badge["href"].partition("#claim-")[2] for badge in badges] == [
            f"{name}-small" for name in names
        ]
        assert all(led_to(pages, page, badge).name == "tr" for badge in badges)


def test_a_lesson_is_meant_before_a_paper_of_its_name(build_book):
    names = ("chapters/a/b", "chapters/b")
    pages, warnings = build_book(dict.fromkeys(names, "{claim}`small` {claim}`b/small`"))
    assert warnings == ""
    for page, meant in (("chapters/a/b", "chapters-a-b"), ("chapters/b", "chapters-b")):
        assert pages[page].select("a.kempe-badge")[1]["href"].endswith(f"#claim-{meant}-small")


def test_a_claim_that_was_not_executed_is_a_warning(build):
    _, warnings = build("# One\n\n{claim}`small` {claim}`other`\n")
    assert "no executed claim 'other' on page 'chapters/one'" in warnings


def test_a_claim_that_no_prose_refers_to_is_a_warning(build):
    _, warnings = build("# One\n\nNothing said.\n")
    assert "the claim 'small' is executed but no {claim} role refers to it" in warnings


def test_a_reference_on_another_page_does_not_count_for_the_chapter(build):
    index = "# Index\n\n{claim}`one/small`\n\n```{toctree}\nchapters/one\n```\n"
    pages, warnings = build("# One\n\nNothing said.\n", index)
    assert "no {claim} role refers to it" in warnings
    assert (
        pages["index"].select_one("a.kempe-badge")["href"] == "claims.html#claim-chapters-one-small"
    )


def test_a_new_value_reaches_the_page_of_an_incremental_build(build):
    text = "# One\n\nSee {claim}`small`.\n"
    build(text)
    changed = FACTS | {"claims": [CLAIM | {"shown": "9 s", "verdict": "differs", "paper": "two"}]}
    pages, warnings = build(text, facts=changed)
    assert pages["chapters/one"].select_one("a.kempe-badge").get_text() == "≠ differs 9 s"
    assert warnings == ""


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
