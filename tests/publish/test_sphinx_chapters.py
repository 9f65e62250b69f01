"""The opening pages say what the records say: verdicts, times, pictures; nothing is typed twice."""

import json

import pytest
from facts_of_a_run import CLAIM, FACTS

from kempe_nb.notebook import figures

FIGURE = figures.figure_html("<svg><text>x</text></svg>", alt="Rises & stops.", caption="A line.")


def lesson(title, *verdicts, seconds=50.0, **changes):
    """Return the facts of a lesson with the claims a, b, ... of these verdicts."""
    claims = [
        CLAIM | {"id": name, "verdict": verdict, "paper": "p"} | changes
        for name, verdict in zip("abcdef", verdicts, strict=False)
    ]
    figure = {"figure_markup": {"two-slopes": FIGURE}}
    return FACTS | figure | {"title": title, "seconds": seconds, "claims": claims}


RECORDS = {
    "chapters/new/1_first": lesson("The first lesson", "holds", "differs", "holds"),
    "chapters/new/2_second": lesson("The second lesson", "holds", seconds=100.0),
    "chapters/old": lesson("The old chapter", "holds", "fails", seconds=61.0),
}


@pytest.fixture
def build(build_pages):
    """Build a book with a first page and the first page of a paper; return both and warnings."""

    def build(intro="", paper="", records=RECORDS):
        toctree = "```{toctree}\n:glob:\n\nclaims\nchapters/**\n```\n"
        files = {
            "index.md": f"# Book\n\n{intro}\n\n{toctree}",
            "claims.md": "# Claims\n\n```{ledger}\n```\n",
            "chapters/new/index.md": f"# New\n\n{paper}\n",
        }
        for name, facts in records.items():
            roles = " ".join(f"{{claim}}`{claim['id']}`" for claim in facts["claims"])
            files[f"{name}.md"] = f"# {facts['title']}\n\n{roles}\n"
            files[f"_records/{name}.json"] = json.dumps(facts)
        pages, warnings = build_pages(files)
        return pages["index"], pages["chapters/new/index"], warnings

    return build


def cells(page):
    return [
        [" ".join(cell.get_text(" ").split()) for cell in row.find_all("td")]
        for row in page.select("table.kempe-table tbody tr")
    ]


TRUE = """```{is-it-true}
- paper: "*Everything* rises."
  known: abstract
  claims: [1_first/a, 2_second/a]
  found: "It rises, {claim}`1_first/a`."
- paper: Nothing falls.
  known: Theorem 2
  claims: [1_first/b]
  found: It falls.
- paper: Both.
  known: abstract
  claims: [1_first/a, 1_first/b]
  found: Only one.
- paper: Everything falls.
  known: abstract
  against: [1_first/a]
  found: It rises.
- paper: Something falls.
  known: abstract
  claims: [2_second/a]
  against: [1_first/a]
  found: Here it does, there it rises.
- paper: Nothing rises.
  known: abstract
  against: [1_first/b]
  found: Our claim that it does turned out otherwise.
- paper: On a large machine.
  known: Table 3
  verdict: not tested
  found: We have none.
- paper: Never said to be tested.
  known: abstract
  found: Nothing.
```"""


def test_the_verdict_on_the_paper_is_that_of_its_claims(build):
    _, page, warnings = build(paper=TRUE)
    assert warnings == ""
    found = cells(page)
    assert [row[2] for row in found] == [
        *("✓ holds", "≠ differs", "◐ partly", "≠ differs", "◐ partly", "◐ partly"),
        *("○ not tested", "○ not tested"),
    ]
    assert found[0][0] == "Everything rises. Known from: abstract."
    assert found[0][1].startswith("It rises, ✓ holds 1.25 s")
    assert found[0][3] == "The first lesson The second lesson"
    first, second = "The first lesson", "The second lesson"
    assert [row[3] for row in found[1:6]] == [first, first, first, f"{second} {first}", first]
    assert [row[3] for row in found[6:]] == ["", ""]
    links = [a["href"] for a in page.select("td:nth-of-type(4) a")]
    assert links[:2] == ["1_first.html", "2_second.html"]
    assert page.select_one("td em").get_text() == "Everything"
    assert page.select_one("td a.kempe-badge") is not None
    assert "kempe-not-tested" in page.select(".kempe-verdict")[-1]["class"]


def test_a_claim_that_the_table_names_and_nobody_checked_is_a_warning(build):
    _, _, warnings = build(paper=TRUE.replace("2_second/a", "2_second/z"))
    assert "no executed claim 'z' on page 'chapters/new/2_second'" in warnings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- paper: p\n  found: f", "missing ['known'], unknown []"),
        ("- paper: p\n  found: f\n  known: k\n  note: n", "missing [], unknown ['note']"),
        ("paper: p", "needs a list of entries"),
        ("- paper: [", "is-it-true: while parsing"),
        ("- paper: p\n  found: f\n  known: k\n  verdict: holds", "verdict is 'holds'"),
        (
            "- paper: p\n  found: f\n  known: k\n  verdict: not tested\n  claims: [1_first/a]",
            "and no claims beside it",
        ),
        (
            "- paper: p\n  found: f\n  known: k\n  verdict: not tested\n  against: [1_first/a]",
            "and no claims beside it",
        ),
        (
            "- paper: p\n  found: f\n  known: k\n  claims: [1_first/a]\n  against: [1_first/a]",
            "['1_first/a'] in claims and in against",
        ),
    ],
)
def test_a_mistake_in_the_entries_is_named(build, text, message):
    _, _, warnings = build(paper=f"```{{is-it-true}}\n{text}\n```")
    assert "ERROR" in warnings and message in warnings


def test_a_new_verdict_reaches_the_first_page_of_the_paper(build):
    build(paper=TRUE)
    changed = RECORDS | {"chapters/new/2_second": lesson("The second lesson", "differs")}
    _, page, _ = build(paper=TRUE, records=changed)
    assert cells(page)[0][2] == "◐ partly"


LESSONS = """```{lessons}
- lesson: 1_first
  question: Does it *rise*?
  needs: a course
- lesson: 2_second
  question: And then?
```"""


def test_the_lessons_are_listed_with_the_time_that_they_took(build):
    _, page, warnings = build(paper=LESSONS)
    assert warnings == ""
    assert cells(page) == [
        ["The first lesson", "Does it rise ?", "50 s", "a course"],
        ["The second lesson", "And then?", "100 s", "nothing"],
    ]
    assert [a["href"] for a in page.select("td a")] == ["1_first.html", "2_second.html"]


def test_a_lesson_that_was_not_executed_is_a_warning(build):
    _, _, warnings = build(paper=LESSONS.replace("2_second", "3_third"))
    assert "lesson 'chapters/new/3_third' was not executed" in warnings


def test_a_picture_of_a_lesson_stands_on_the_first_page_with_its_texts(build):
    _, page, warnings = build(paper="```{picture} 1_first/two-slopes\n```")
    assert warnings == ""
    assert page.select_one("figure figcaption").get_text() == "A line."
    assert page.select_one("figure [role=img]")["aria-label"] == "Rises & stops."


def test_a_new_picture_reaches_the_first_page(build):
    text = "```{picture} 1_first/two-slopes\n```"
    build(paper=text)
    first = RECORDS["chapters/new/1_first"]
    changed = first | {"figure_markup": {"two-slopes": FIGURE.replace("A line", "A curve")}}
    _, page, _ = build(paper=text, records=RECORDS | {"chapters/new/1_first": changed})
    assert page.select_one("figcaption").get_text() == "A curve."


@pytest.mark.parametrize("name", ["1_first/other", "3_third/two-slopes"])
def test_a_picture_that_nobody_made_is_a_warning(build, name):
    _, _, warnings = build(paper=f"```{{picture}} {name}\n```")
    lesson, figure = name.split("/")
    assert f"no figure '{figure}' on page 'chapters/new/{lesson}'" in warnings


CARDS = """```{chapters}
- chapter: new
  title: The new paper
  question: Does it *rise*?
  picture: 1_first/two-slopes
  paper: Someone, 2024
- chapter: old
  title: The old paper
  question: Did it rise?
  picture: two-slopes
- chapter: later
  title: A later paper
  question: Will it rise?
  picture: not-yet
  planned: true
```"""


def test_a_card_has_picture_title_question_time_and_verdicts(build):
    page, _, warnings = build(CARDS)
    assert warnings == ""
    new, old, later = page.select("ul.kempe-cards > li")
    lines = [p.get_text() for p in new.find_all("p")]
    assert lines == [
        *("The new paper", "Does it rise?", "Someone, 2024"),
        "2 lessons ran in 2.5 min. Of 4 measurements: ✓ 3 hold, ≠ 1 differs.",
    ]
    assert new.select_one(".kempe-card-title a")["href"] == "chapters/new/index.html"
    assert new.select_one("[role=img]")["aria-label"] == "Rises & stops."
    assert new.svg is not None and new.figcaption is None and new.figure is None
    assert old.select_one(".kempe-card-title a")["href"] == "chapters/old.html"
    assert old.find_all("p")[-1].get_text() == (
        "Ran in 61 s. Of 2 measurements: ✓ 1 holds, ✗ 1 fails."
    )
    assert later.a is None and later.select("[role=img]") == []
    assert later.find_all("p")[-1].get_text() == "Planned."


def test_only_measurements_are_counted_unless_no_claim_has_a_kind(build):
    def line(kinds):
        claims = [
            CLAIM | {"id": name, "kind": kind} for name, kind in zip("abc", kinds, strict=True)
        ]
        records = RECORDS | {"chapters/old": RECORDS["chapters/old"] | {"claims": claims}}
        page, _, _ = build(CARDS, records=records)
        return page.select("ul.kempe-cards > li")[1].find_all("p")[-1].get_text()

    assert line(["measurement", "identity", ""]).endswith("Of 1 measurement: ✓ 1 holds.")
    assert line(["", "", ""]).endswith("Of 3 claims: ✓ 3 hold.")


def test_a_chapter_that_was_not_executed_and_a_missing_picture_are_warnings(build):
    _, _, warnings = build(CARDS.replace("chapter: old", "chapter: none"))
    assert "chapter 'none' was not executed" in warnings
    _, _, warnings = build(CARDS.replace("1_first/two", "1_first/no"))
    assert "no figure 'no-slopes' on page 'chapters/new/1_first'; named there: 'two-sl" in warnings
