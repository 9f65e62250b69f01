"""Papers that are still one notebook: the anatomy and measure that they were written by.

They are exempt, by name, from the rules of lessons; this file prints it. A new paper has lessons.
"""

import re
import statistics

import pytest

from kempe_nb.publish.project import chapter_of, code_cells, read_notebook
from tests.notebooks.book import (
    NOTEBOOKS,
    OLD_FORM,
    count_words,
    each_old_form,
    facts_of,
    lines_of_code,
    prose,
    solutions,
    statements,
)

SECTIONS = [
    "Parameters",
    "The theory",
    "The experiments",
    "Play",
    "Make it fast",
    "Beside the paper",
    "What the paper does not show",
    "Exercises",
    "At full scale",
    "Claims of this chapter",
    "References",
]


def test_only_the_named_chapters_have_the_old_form():
    assert tuple(name for name in NOTEBOOKS if chapter_of(name) == name) == OLD_FORM


@each_old_form
def test_the_exemption_is_printed(name):
    if name not in NOTEBOOKS:
        pytest.fail(f"{name} is no notebook any more: take it off OLD_FORM")
    pytest.skip(f"{name} has the old form: EXEMPT from the rules of lessons and from unseen seeds")


@each_old_form
def test_the_cells_are_short_and_there_is_prose_around_them(name):
    notebook = read_notebook(NOTEBOOKS[name])
    lengths = [lines_of_code(cell) for cell in code_cells(notebook)]
    assert statistics.median(lengths) <= 8
    assert statistics.quantiles(lengths, n=10)[-1] <= 20
    assert 8 <= count_words(prose(notebook)) / sum(lengths) <= 15


@each_old_form
def test_the_sections_stand_in_the_order_of_all_chapters(name):
    headings = re.findall(r"^## (.+)$", prose(read_notebook(NOTEBOOKS[name])), re.M)
    assert headings == SECTIONS


@each_old_form
def test_every_exercise_has_a_folded_executed_solution(name):
    notebook = read_notebook(NOTEBOOKS[name])
    solved = solutions(notebook)
    assert list(solved) == list(statements(notebook)) and len(solved) >= 5
    for label, cells in solved.items():
        code = [cell.source for cell in cells if cell.cell_type == "code"]
        assert any(re.search(r"^\s*(assert |np\.testing\.)", text, re.M) for text in code), label


@each_old_form
def test_a_chapter_has_three_sliders_and_stays_within_its_budget(name):
    facts = facts_of(name)
    assert facts["sliders"] >= 3
    # Seconds of the processor, as the clock on the wall depends on what else the machine does.
    assert facts["cpu_seconds"] <= 240
