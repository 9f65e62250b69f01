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

from kempe_nb.publish.project import UsageError, code_cells, first_line, tags_of
from kempe_nb.publish.staleness import parse

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
            f"table is {table!r}, but {path.name} tags no cell {SHARED_TAG}-{table}; accepted are "
            f"{', '.join(known) or 'none'}"
        )
    if not any(re.search(rf"results\.keep\(\s*[\"']{table}[\"']", cell.source) for cell in own):
        raise UsageError(f"no cell of {path.name} tagged {SHARED_TAG}-{table} keeps {table!r}")
    missing = undefined_names(cell.source for cell in cells)
    if missing:
        name, line = next(iter(missing.items()))
        raise UsageError(
            f"table {table!r}: the cell '{line}' uses {name!r}, which no cell tagged {SHARED_TAG} "
            f"or {SHARED_TAG}-{table} defines"
        )
    return cells


def tables_of(notebook: nbformat.NotebookNode) -> set[str]:
    """Return the names of the tables that the tags of a notebook speak of."""
    tags = {tag for cell in code_cells(notebook) for tag in tags_of(cell)}
    prefix = f"{SHARED_TAG}-"
    return {tag.removeprefix(prefix) for tag in tags if tag.startswith(prefix)}


def undefined_names(sources: Iterable[str]) -> dict[str, str]:
    """Return names that are used and bound nowhere before, with the first line of their cell."""
    bound, missing = set(dir(builtins)) | {"get_ipython", "display"}, {}
    for source in sources:
        tree = parse(source)
        nodes = list(ast.walk(tree))
        bound |= {n.id for n in nodes if isinstance(n, ast.Name) and not _loads(n)}
        bound |= {n.arg for n in nodes if isinstance(n, ast.arg)}
        bound |= {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        bound |= {n.name for n in nodes if isinstance(n, ast.ExceptHandler) and n.name}
        for node in nodes:
            if isinstance(node, ast.Import | ast.ImportFrom):
                bound |= {(name.asname or name.name).split(".")[0] for name in node.names}
        for node in nodes:
            if isinstance(node, ast.Name) and _loads(node) and node.id not in bound:
                missing.setdefault(node.id, first_line(new_code_cell(source)))
    return missing


def _loads(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Load)


def cut_notebook(
    notebook: nbformat.NotebookNode, cells: list[nbformat.NotebookNode]
) -> nbformat.NotebookNode:
    """Return a notebook of these cells and one that writes the record."""
    closing = "from kempe_nb.notebook import record as _record\n_record.write([])"
    notebook.cells = [*cells, new_code_cell(closing)]
    return notebook
