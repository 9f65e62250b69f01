"""A new lesson: one command writes what the frame wants of one, and every list that names it."""

import shutil
from pathlib import Path

import nbformat
import pytest
import yaml

from kempe_nb.__main__ import main
from kempe_nb.publish.accept import is_claim_cell
from kempe_nb.publish.project import Project, code_cells, tags_of
from tests.notebooks.book import (
    PROJECT,
    claims_checked,
    lines_of_code,
    prose,
    shows_its_code,
    solutions,
    statements,
)

# What a question may hold: a colon, quotes, a hash, what YAML takes for something else.
TEXT = ["--title", "Does it hold?", "--question", 'Wide: "does" it - or # not? {x} [y] ∞']


@pytest.fixture
def book(project):
    """The lists of the real book, and one of its papers with two lessons."""
    for name in ("_toc.yml", "_config.yml", "book/intro.md", "book/teach.md"):
        shutil.copy(PROJECT.root / name, project.root / name)
    folder = project.book / "chapters" / "neural_collapse"
    shutil.copytree(PROJECT.book / "chapters" / "neural_collapse", folder)
    return project


def texts(project):
    return {
        path: path.read_bytes()
        for path in sorted(project.root.rglob("*"))
        if path.is_file() and "_build" not in path.parts
    }


def sections(project, paper):
    toc = yaml.safe_load((project.root / "_toc.yml").read_text())
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    (own,) = [c for c in chapters if c["file"] == f"chapters/{paper}/index"]
    return [each["file"] for each in own["sections"]]


def yaml_of(path: Path, directive):
    text = path.read_text()
    start = text.index(f"```{{{directive}}}") + len(directive) + 6
    return yaml.safe_load(text[start : text.index("\n```", start)])


def test_a_lesson_comes_last_in_every_list_of_its_paper(book):
    assert main(["new", "neural_collapse/6_width", *TEXT]) == 0
    assert sections(book, "neural_collapse")[-2:] == [
        "chapters/neural_collapse/5_layers",
        "chapters/neural_collapse/6_width",
    ]
    listed = yaml_of(book.book / "chapters" / "neural_collapse" / "index.md", "lessons")
    assert listed[-1] == {"lesson": "6_width", "question": TEXT[3], "needs": "TODO"}
    assert [*Project(book.root).notebooks()][-1] == "neural_collapse/6_width"


def test_a_planned_paper_gets_its_page_its_card_and_its_section(book):
    intro = book.book / "intro.md"
    first = "- chapter: model_collapse\n"
    planned = "".join(
        f"- chapter: {name}\n  title: A title\n  question: How?\n  planned: true\n"
        for name in ("deep_networks", "odd_networks")
    )
    intro.write_text(intro.read_text().replace(first, planned + first))
    assert main(["new", "deep_networks/1_embeddings", *TEXT]) == 0
    assert sections(book, "deep_networks") == ["chapters/deep_networks/1_embeddings"]
    cards = {card["chapter"]: card for card in yaml_of(intro, "chapters")}
    assert "planned" not in cards["deep_networks"] and "planned" in cards["odd_networks"]
    assert "(chapters/deep_networks/index.md)" in (book.book / "teach.md").read_text()
    index = book.book / "chapters" / "deep_networks" / "index.md"
    assert [each["lesson"] for each in yaml_of(index, "lessons")] == ["1_embeddings"]
    assert main(["new", "deep_networks/2_distilled", *TEXT]) == 0
    assert len(sections(book, "deep_networks")) == len(yaml_of(index, "lessons")) == 2


def test_a_paper_that_nobody_planned_gets_a_card(book):
    assert main(["new", "wide_networks/1_limits", *TEXT]) == 0
    card = yaml_of(book.book / "intro.md", "chapters")[-1]
    assert (card["chapter"], card["question"]) == ("wide_networks", TEXT[3])


def test_the_skeleton_has_the_anatomy_of_a_lesson(book):
    assert main(["new", "neural_collapse/6_width", *TEXT]) == 0
    notebook = nbformat.read(book.book / "chapters" / "neural_collapse" / "6_width.ipynb", 4)
    nbformat.validate(notebook)
    assert notebook.cells[0].source.startswith("# Does it hold?\n")
    assert (
        list(statements(notebook)) == list(solutions(notebook)) and len(statements(notebook)) == 3
    )
    assert {f"nc6-{name}" for name in ("first",)} == set(claims_checked(notebook))
    tags = [tag for cell in code_cells(notebook) for tag in tags_of(cell)]
    assert {"parameters", "answer", "check", "hidden-check"} <= set(tags)
    assert sum(map(is_claim_cell, code_cells(notebook))) == 2
    assert prose(notebook).rstrip().endswith("## What we saw\n\n* TODO")
    assert all(lines_of_code(c) <= 8 for c in code_cells(notebook) if shows_its_code(c))


@pytest.mark.slow
def test_the_skeleton_runs(book):
    shutil.rmtree(book.book / "chapters" / "neural_collapse")
    shutil.copytree(PROJECT.root / "book" / "_static", book.book / "_static")
    assert main(["new", "wide_networks/1_limits", *TEXT]) == 0
    assert main(["run", "wide_networks/1_limits"]) == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("6_width", "accepted is PAPER/N_name in small letters"),
        ("neural_collapse/Width", "accepted is PAPER/N_name"),
        ("neural_collapse/../6_x", "accepted is PAPER/N_name"),
        ("neural_collapse/5_layers", "accepted is the next number, 6"),
        ("neural_collapse/8_width", "accepted is the next number, 6"),
        ("neural_collapse/06_width", "accepted is PAPER/N_name"),
        ("new_paper/2_second", "accepted is the next number, 1"),
        ("old_form/1_first", "old_form is still one notebook"),
    ],
)
def test_a_bad_name_is_refused_before_anything_is_written(book, write, capfd, name, message):
    write("old_form")
    before = texts(book)
    assert main(["new", name, *TEXT]) == 2
    assert message in capfd.readouterr().err
    assert texts(book) == before
