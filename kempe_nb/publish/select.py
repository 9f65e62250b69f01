"""The cells of a notebook that a table of stored runs needs, cut out as a notebook of their own.

A table needs the parameters, the cells tagged `sweep`, and those tagged `sweep-TABLE`. So a change
elsewhere on the page leaves the stored file as good as it was.
"""

import ast
import builtins
import re
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell

from kempe_nb.publish.project import UsageError, code_cells, first_line, name_of, parse, tags_of

SHARED_TAG = "sweep"


def selected_cells(
    notebook: nbformat.NotebookNode, table: str, path: Path
) -> list[nbformat.NotebookNode]:
    """Return the code cells that a table needs, in order.

    Raises
    ------
    UsageError
        When no cell is tagged for the table, when none of these cells keeps it, or when they use a
        name that none of them defines.
    """
    wanted = {"parameters", SHARED_TAG, f"{SHARED_TAG}-{table}"}
    cells = [c for c in code_cells(notebook) if wanted & set(tags_of(c))]
    own = [c for c in cells if f"{SHARED_TAG}-{table}" in tags_of(c)]
    if not own:
        known = sorted(tables_of(notebook))
        raise UsageError(
            f"table is {table!r}, but {name_of(path)} tags no cell {SHARED_TAG}-{table}; "
            f"accepted are {', '.join(known) or 'none'}"
        )
    if not any(re.search(rf"results\.keep\(\s*[\"']{table}[\"']", cell.source) for cell in own):
        raise UsageError(
            f"no cell of {name_of(path)} tagged {SHARED_TAG}-{table} keeps {table!r}; "
            f"accepted is one with results.keep({table!r}, ...)"
        )
    for cell in cells:
        try:
            parse(cell.source)
        except SyntaxError as error:
            raise UsageError(f"{name_of(path)}: the cell '{first_line(cell)}': {error}") from None
    missing = undefined_names(cell.source for cell in cells)
    if missing:
        name, line = next(iter(missing.items()))
        raise UsageError(
            f"table {table!r} of {name_of(path)}: the cell '{line}' uses {name!r}, which no cell "
            f"tagged {SHARED_TAG} or {SHARED_TAG}-{table} defines"
        )
    return cells


def tables_of(notebook: nbformat.NotebookNode) -> set[str]:
    """Return the names of the tables that the tags of a notebook speak of."""
    tags = {tag for cell in code_cells(notebook) for tag in tags_of(cell)}
    prefix = f"{SHARED_TAG}-"
    return {tag.removeprefix(prefix) for tag in tags if tag.startswith(prefix)}


def undefined_names(sources: Iterable[str]) -> dict[str, str]:
    """Return names that are used and bound nowhere, with the first line of their cell.

    A function may use what a later cell defines, so the order of the cells does not count here.
    """
    bound, used = set(dir(builtins)) | {"get_ipython", "display"}, {}
    for source in sources:
        for node in ast.walk(parse(source)):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                used.setdefault(node.id, first_line(new_code_cell(source)))
            else:
                bound |= _bound_by(node)
    return {name: line for name, line in used.items() if name not in bound}


def _bound_by(node: ast.AST) -> set[str | None]:
    """Return the names that a node binds."""
    match node:
        case ast.Name():
            return {node.id}
        case ast.arg():
            return {node.arg}
        case ast.Import() | ast.ImportFrom():
            return {(name.asname or name.name).split(".")[0] for name in node.names}
        case ast.MatchMapping():
            return {node.rest}
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() | ast.ExceptHandler():
            return {node.name}
        case ast.MatchAs() | ast.MatchStar():
            return {node.name}
    return set()


def cut_notebook(
    notebook: nbformat.NotebookNode, cells: list[nbformat.NotebookNode]
) -> nbformat.NotebookNode:
    """Return a notebook of these cells and one that writes the record."""
    closing = "from kempe_nb.notebook import record as _record\n_record.write([])"
    notebook.cells = [*cells, new_code_cell(closing)]
    return notebook
