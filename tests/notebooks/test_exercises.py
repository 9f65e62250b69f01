"""An exercise runs with the page and its own solution alone: students get no other solution."""

import builtins

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from kempe_nb.publish.project import code_cells, read_notebook
from tests.notebooks.book import NOTEBOOKS, each_notebook, names_of, solutions

#: Solutions that lean on another one, and why that stays until their chapter becomes lessons.
KNOWN = {
    ("goldilocks_zone", "gz-ex-adam"): "its loop is the subject of gz-ex-decay, a function of "
    "twelve lines; on the page it would give that solution away",
}


def leaning(notebook):
    """Return, for each solution that needs another one, the names that it takes from there.

    A name that the page binds and an earlier solution binds again counts, too: without the other
    solution it would have another value.
    """
    solved = {
        label: [cell for cell in cells if cell.cell_type == "code"]
        for label, cells in solutions(notebook).items()
    }
    inside = {id(cell) for cells in solved.values() for cell in cells}
    page, _ = names_of(c.source for c in code_cells(notebook) if id(c) not in inside)
    page |= {*dir(builtins), "get_ipython", "display"}
    found, earlier = {}, set()
    for label, cells in solved.items():
        bound, used = names_of(cell.source for cell in cells)
        foreign = (used - bound - page) | ((used - bound) & page & earlier)
        if foreign:
            found[label] = foreign
        earlier |= bound
    return found


@each_notebook
def test_a_solution_needs_the_page_and_no_other_solution(name):
    found = leaning(read_notebook(NOTEBOOKS[name]))
    assert {label: names for label, names in found.items() if (name, label) not in KNOWN} == {}


@pytest.mark.parametrize(("name", "label"), KNOWN)
def test_the_known_ones_are_printed(name, label):
    if label not in leaning(read_notebook(NOTEBOOKS[name])):
        pytest.fail(f"{label} needs no other solution any more: take it off KNOWN")
    pytest.skip(f"{name}, {label} is EXEMPT: {KNOWN[name, label]}")


@pytest.mark.parametrize(
    ("second", "names"),
    [
        ("print(of_page + own)", {"own"}),
        ("print(shared)", {"shared"}),
        ("def f(x):\n    return helper(x) + x", {"helper"}),
        ("own = 1\nprint(of_page + own, shared_not)\nshared_not = 2", set()),
        ("print([x for x in range(3)], sum(y for y in [1]))", set()),
        ("def f(own):\n    helper = own\n    return helper", set()),
    ],
)
def test_a_planted_dependence_is_found(second, names):
    def solution(label, source):
        start = f"```{{solution-start}} {label}\n:class: dropdown\n```"
        end = "```{solution-end}\n```"
        return [new_markdown_cell(start), new_code_cell(source), new_markdown_cell(end)]

    first = "own = 1\nshared = 2\n\n\ndef helper(x):\n    return x"
    cells = [new_code_cell("of_page = 1\nshared = 1")]
    cells += solution("ex-first", first) + solution("ex-second", second)
    assert leaning(new_notebook(cells=cells)) == ({"ex-second": names} if names else {})
