"""The notebooks of the book as the tests read them: which there are, and the parts of one."""

import ast
import io
import re
import symtable
import tokenize
from pathlib import Path

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from kempe_nb.publish.accept import is_claim_cell
from kempe_nb.publish.execute import plan, read_facts
from kempe_nb.publish.project import KERNELS, Project, chapter_of, code_cells, parse, tags_of

PROJECT = Project.find(Path(__file__).parent)
#: Papers that are still one notebook. They keep the rules that they were written by, and are exempt
#: from those of lessons until an issue of their own makes lessons of them.
OLD_FORM = ("dataset_distillation", "goldilocks_zone")

NOTEBOOKS = PROJECT.notebooks()
LESSONS = {
    name: path for name, path in NOTEBOOKS.items() if chapter_of(name) not in (name, KERNELS)
}
#: The lessons of each paper, in order.
PAPERS = {
    paper: [name for name in LESSONS if chapter_of(name) == paper]
    for paper in dict.fromkeys(map(chapter_of, LESSONS))
}

each_notebook = pytest.mark.parametrize("name", NOTEBOOKS)
each_old_form = pytest.mark.parametrize("name", OLD_FORM)
each_lesson = pytest.mark.parametrize("name", LESSONS)
each_paper = pytest.mark.parametrize("paper", PAPERS)


def facts_of(name):
    """Return the facts of the executed copy of a notebook; a test without one fails."""
    (task,) = plan(PROJECT, [name], "cpu", {})
    facts = read_facts(task.facts)
    if facts is None:
        pytest.fail(f"{name} has no executed copy: run make book first")
    return facts


def prose(notebook):
    """Return the text cells of a notebook as one text."""
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def count_words(text):
    """Return the number of words of a text, of two letters or more."""
    return len(re.findall(r"[A-Za-z’']{2,}", text))


def first_line_of(cell):
    """Return the first line of a cell that is not empty."""
    return next(line for line in cell.source.splitlines() if line.strip())


#: Names of arguments whose values are prose.
TEXT_NAMES = ("alt", "caption", "source", "paper", "unit")


def lines_of_code(cell):
    """Return how many lines of a cell hold a name, a keyword or a number.

    The sentences of claims and the texts of figures are prose that happens to stand in a cell, and
    where the formatter puts a bracket says nothing about length: neither counts.
    """
    source = TransformerManager().transform_cell(cell.source)
    words = (tokenize.NAME, tokenize.NUMBER)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return len({t.start[0] for t in tokens if t.type in words and t.string not in TEXT_NAMES})


def shows_its_code(cell):
    """Tell whether a reader of the page sees the code of a cell without a click."""
    hidden = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
    return not hidden & set(tags_of(cell)) and not is_claim_cell(cell)


def solutions(notebook):
    """Return the cells of each solution, those between its two gates, by the exercise's label."""
    found, label = {}, None
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and "{solution-end}" in cell.source:
            label = None
        if label is not None:
            found[label].append(cell)
        if start := re.search(r"\{solution-start\} (\S+)\n:class: dropdown\n", cell.source):
            label = start[1]
            found[label] = []
    return found


def statements(notebook):
    """Return the text of each exercise by its label."""
    blocks = re.findall(
        r"^```\{exercise\}\n:label: (\S+)\n(.*?)^```$", prose(notebook), re.M | re.S
    )
    return dict(blocks)


def claims_checked(notebook):
    """Return the calls of `claims.check` by the name of the claim; a name is a literal."""
    found = {}
    for cell in code_cells(notebook):
        for node in ast.walk(parse(cell.source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "claims.check":
                found[ast.literal_eval(node.args[0])] = node
    return found


def names_of(sources):
    """Return the names that cells bind at their top level, and those that they take from there."""
    bound, used = set(), set()

    def walk(table):
        for symbol in table.get_symbols():
            top = table.get_type() == "module"
            binds = symbol.is_assigned() or symbol.is_imported()
            if binds and (top or symbol.is_declared_global()):
                bound.add(symbol.get_name())
            if symbol.is_referenced() and (top or symbol.is_global()):
                used.add(symbol.get_name())
        for child in table.get_children():
            walk(child)

    for source in sources:
        walk(symtable.symtable(TransformerManager().transform_cell(source), "cell", "exec"))
    return bound, used
