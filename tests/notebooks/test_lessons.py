"""Every lesson: its anatomy, its exercises, its claims and its measure."""

import ast
import re
import statistics

import pytest
import yaml

from kempe_nb.notebook.claims import KINDS
from kempe_nb.publish.project import code_cells, read_notebook, tags_of
from tests.notebooks.book import (
    LESSONS,
    PAPERS,
    PROJECT,
    claims_checked,
    count_words,
    each_lesson,
    each_paper,
    facts_of,
    lines_of_code,
    prose,
    shows_its_code,
    solutions,
    statements,
)

CARDS = "{grid-item-card} You will learn"


def headings(notebook, level):
    return re.findall(rf"^{'#' * level} (.+)$", prose(notebook), re.M)


@each_lesson
def test_a_lesson_opens_with_something_to_look_at(name):
    cells = read_notebook(LESSONS[name]).cells
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
    cards = [i for i, cell in enumerate(cells) if CARDS in cell.source]
    assert len(cards) == 1
    opening = [cell for cell in cells[: cards[0]] if cell.cell_type == "code"]
    shown = [c for c in opening if re.search(r"figures\.show\(|sliders\.explore\(", c.source)]
    assert shown, "a figure or a slider stands before the cards"
    # No section has begun by then, and no claim was checked.
    before = "\n".join(cell.source for cell in cells[: cards[0]])
    assert not re.search(r"^## ", before, re.M) and "claims.check(" not in before


@each_lesson
def test_the_cards_and_the_measured_line_stand_before_the_first_section(name):
    text = prose(read_notebook(LESSONS[name]))
    opening = text[: text.index("\n## ")]
    for piece in (CARDS, "{grid-item-card} You should know", "```{measured}\n```"):
        assert opening.count(piece) == 1, piece


@each_lesson
def test_the_parameters_are_folded_and_few(name):
    notebook = read_notebook(LESSONS[name])
    (cell,) = [cell for cell in code_cells(notebook) if "parameters" in tags_of(cell)]
    assert "hide-input" in tags_of(cell)
    names = [ast.unparse(node.targets[0]) for node in ast.parse(cell.source).body]
    assert names[:2] == ["profile", "seed"] and len(names) <= 5


@each_lesson
def test_the_last_sections_are_the_exercises_and_what_we_saw(name):
    notebook = read_notebook(LESSONS[name])
    assert headings(notebook, 2)[-2:] == ["Exercises", "What we saw"]
    seen = prose(notebook).rpartition("\n## What we saw\n")[2]
    assert 1 <= len(re.findall(r"^[*-] ", seen, re.M)) <= 5
    # Exercises stand in their section and nowhere else.
    exercises = prose(notebook).partition("\n## Exercises\n")[2]
    assert len(re.findall(r"\{exercise\}", exercises)) == len(statements(notebook))


@each_lesson
def test_there_are_three_to_six_exercises_with_folded_executed_solutions(name):
    notebook = read_notebook(LESSONS[name])
    posed, solved = statements(notebook), solutions(notebook)
    assert prose(notebook).count("{exercise}\n") == len(posed)
    assert list(posed) == list(solved) and 3 <= len(posed) <= 6
    number = name.partition("/")[2].partition("_")[0]
    for label, cells in solved.items():
        assert re.fullmatch(rf"[a-z]+{number}-ex-[a-z0-9-]+", label), label
        assert any(cell.cell_type == "code" for cell in cells), label


@each_lesson
def test_an_exercise_asks_to_break_a_claim_or_to_predict(name):
    posed = statements(read_notebook(LESSONS[name])).values()
    assert any(re.search(r"^\*\((Break a claim|Predict first)\.\)\*", text, re.M) for text in posed)


def gradable(notebook):
    """Return the solutions with a cell tagged `answer`, and what is wrong with them."""
    found, problems = [], []
    for label, cells in solutions(notebook).items():
        code = [cell for cell in cells if cell.cell_type == "code"]
        roles = [[t for t in tags_of(c) if t in ("answer", "check", "hidden-check")] for c in code]
        if not any(roles):
            continue
        found.append(label)
        order = " ".join("+".join(each) or "none" for each in roles)
        if not re.search(r"^(none )*answer( check)+( hidden-check)+( none)*$", order):
            problems.append(f"{label}: its cells are tagged {order}")
            continue
        (answer,) = [cell for cell in code if "answer" in tags_of(cell)]
        functions = ast.parse(answer.source).body
        if len(functions) != 1 or not isinstance(functions[0], ast.FunctionDef):
            problems.append(f"{label}: the answer is not exactly one function")
            continue
        head = functions[0]
        if not ast.get_docstring(head):
            problems.append(f"{label}: {head.name} has no docstring")
        call = f"`{head.name}({', '.join(a.arg for a in head.args.args)})`"
        if call not in statements(notebook)[label]:
            problems.append(f"{label}: the statement does not name {call}")
        for cell in code:
            if {"check", "hidden-check"} & set(tags_of(cell)) and head.name not in cell.source:
                problems.append(f"{label}: a check does not call {head.name}")
    inside = {id(cell) for cells in solutions(notebook).values() for cell in cells}
    for cell in code_cells(notebook):
        if {"answer", "check", "hidden-check"} & set(tags_of(cell)) and id(cell) not in inside:
            problems.append(f"a tag of a solution outside of one: {cell.source[:40]!r}")
    return found, problems


@each_lesson
def test_at_least_one_exercise_can_be_graded(name):
    found, problems = gradable(read_notebook(LESSONS[name]))
    assert problems == [] and found


@pytest.mark.parametrize("plant", ["name", "docstring", "order", "call", "second", "outside"])
def test_a_fault_of_a_graded_exercise_is_found(plant):
    notebook = read_notebook(LESSONS["neural_collapse/3_leap_or_drift"])
    cells = {tag: c for c in code_cells(notebook) for tag in tags_of(c)}
    answer, check = cells["answer"], cells["check"]
    if plant == "name":
        answer.source = answer.source.replace("(k, t)", "(k, share)")
    elif plant == "docstring":
        answer.source = re.sub(r'""".*"""', "pass", answer.source)
    elif plant == "order":
        check.metadata["tags"] = ["hidden-check"]
    elif plant == "call":
        check.source = "assert True"
    elif plant == "second":
        answer.source += "\n\n\ndef other():\n    pass"
    else:
        code_cells(notebook)[2].metadata["tags"].append("check")
    assert len(gradable(notebook)[1]) == 1


@each_lesson
def test_a_lesson_has_its_measure_of_cells_and_words(name):
    notebook = read_notebook(LESSONS[name])
    cells, words = len(code_cells(notebook)), count_words(prose(notebook))
    assert 12 <= cells <= 45
    assert 1_000 <= words <= 3_500


@each_lesson
def test_the_cells_that_show_their_code_are_few_and_short(name):
    cells = code_cells(read_notebook(LESSONS[name]))
    lengths = [lines_of_code(cell) for cell in cells if shows_its_code(cell)]
    assert 0 < len(lengths) <= len(cells) / 3
    assert statistics.median(lengths) <= 8
    long = [length for length in lengths if length > 20]
    assert len(long) <= len(lengths) / 10, long


@each_lesson
def test_every_claim_has_a_kind_and_is_said_in_a_sentence_of_its_page(name):
    notebook = read_notebook(LESSONS[name])
    claims = claims_checked(notebook)
    kinds = {
        claim: [ast.literal_eval(k.value) for k in call.keywords if k.arg == "kind"]
        for claim, call in claims.items()
    }
    assert {claim: kind for claim, kind in kinds.items() if not set(kind) & set(KINDS)} == {}
    said = set(re.findall(r"\{claim\}`([^`/]+)`", prose(notebook)))
    assert said == set(claims)


@each_lesson
def test_a_lesson_has_one_to_three_sliders_and_stays_within_its_budget(name):
    facts = facts_of(name)
    assert 1 <= facts.get("sliders", 0) <= 3
    # 40 seconds on two cores, as seconds of the processor: a busy machine adds a quarter, no more.
    assert facts["cpu_seconds"] <= 80


@each_paper
def test_the_lessons_of_a_paper_stay_within_its_budget(paper):
    assert sum(facts_of(name)["cpu_seconds"] for name in PAPERS[paper]) <= 300


@each_paper
def test_a_paper_has_an_opening_page_and_its_lessons_in_order(paper):
    folder = PROJECT.book / "chapters" / paper
    numbers = [int(name.partition("/")[2].partition("_")[0]) for name in PAPERS[paper]]
    assert numbers == list(range(1, len(numbers) + 1))
    pages = [*folder.glob("*.md"), *folder.glob("*/*.md")]
    assert [page.relative_to(folder).as_posix() for page in pages] == ["index.md"]
    toc = yaml.safe_load((PROJECT.root / "_toc.yml").read_text())
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    own = [chapter for chapter in chapters if chapter["file"] == f"chapters/{paper}/index"]
    assert len(own) == 1
    assert [each["file"] for each in own[0]["sections"]] == [
        f"chapters/{name}" for name in PAPERS[paper]
    ]
