"""The cells of a notebook that a table of stored runs needs, cut out as a notebook of their own.

A table needs the parameters, the cells tagged `sweep`, and those tagged `sweep-TABLE`. So a change
elsewhere on the page leaves the stored file as good as it was.
"""

import builtins
import json
import re
import subprocess
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from ruff.__main__ import find_ruff_bin

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
        name that none of them defines, or only a later line.
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
    for found in undefined_names(cells):
        line = first_line(cells[found["cell"] - 1])
        if found["code"] != "F821":
            # IPython reads a little that ruff does not, such as the prompts of a pasted session.
            raise UsageError(f"{name_of(path)}: the cell '{line}': {found['message']}")
        name = found["message"].split("`")[1]
        raise UsageError(
            f"table {table!r} of {name_of(path)}: the cell '{line}' uses {name!r}, which no cell "
            f"tagged {SHARED_TAG} or {SHARED_TAG}-{table} defines before"
        )
    return cells


def tables_of(notebook: nbformat.NotebookNode) -> set[str]:
    """Return the names of the tables that the tags of a notebook speak of."""
    tags = {tag for cell in code_cells(notebook) for tag in tags_of(cell)}
    prefix = f"{SHARED_TAG}-"
    return {tag.removeprefix(prefix) for tag in tags if tag.startswith(prefix)}


def undefined_names(cells: list[nbformat.NotebookNode]) -> list[dict]:
    """Return what ruff finds: its rule F821, and syntax that it cannot read.

    A function may use what a later cell defines; a line outside of functions may not, even in a
    loop that comes round to it, and no function may use what a later line deletes. After an
    `import *`, every name counts as defined.

    Raises
    ------
    UsageError
        When ruff does not run.
    """
    # The metadata of a notebook or a cell may name another language, which ruff would pass over.
    cut = new_notebook(cells=[new_code_cell(cell.source) for cell in cells])
    # Ruff's own list may be that of another version of Python than the one at hand.
    known = json.dumps([*dir(builtins), "get_ipython", "display"])
    options = ["--isolated", "--ignore-noqa", "--select=F821", f"--config=builtins={known}"]
    output = ["--exit-zero", "--output-format=json", "--stdin-filename=cut.ipynb", "-"]
    try:
        ran = subprocess.run(
            [find_ruff_bin(), "check", *options, *output],
            input=nbformat.writes(cut),
            capture_output=True,
            check=True,
            encoding="utf-8",
        )
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", "") or str(error)).strip()
        raise UsageError(
            f"ruff, which looks for undefined names, does not run: {reason}; "
            'accepted is the one of pip install "kempe-nb[book]"'
        ) from None
    return json.loads(ran.stdout)


def cut_notebook(
    notebook: nbformat.NotebookNode, cells: list[nbformat.NotebookNode]
) -> nbformat.NotebookNode:
    """Return a notebook of these cells and one that writes the record."""
    closing = "from kempe_nb.notebook import record as _record\n_record.write([])"
    notebook.cells = [*cells, new_code_cell(closing)]
    return notebook
