"""Keep the text of the claim cells in the source notebooks, where nbval compares it."""

import nbformat

from kempe_nb.publish.checkout import write_atomically
from kempe_nb.publish.execute import Task, is_fresh
from kempe_nb.publish.project import UsageError, code_cells, read_notebook, tags_of

#: nbstripout leaves the outputs of the first, nbval compares those of the second.
CLAIM_TAGS = ("keep_output", "nbval-check-output")


def accept(task: Task) -> int:
    """Write the outputs of a fresh executed copy into the claim cells of its source.

    All other cells are emptied. Returns the number of claim cells.
    """
    if not is_fresh(task):
        raise UsageError(f"{task.name} has no up-to-date executed copy; run it first")
    source, executed = read_notebook(task.source), read_notebook(task.copy)
    kept = 0
    for cell, ran in zip(code_cells(source), code_cells(executed), strict=True):
        claim = is_claim_cell(cell)
        cell.outputs = joined(ran.outputs) if claim else []
        # A constant count: nbval skips a cell without one, and a true one would change all over.
        cell.execution_count = 1 if claim else None
        kept += claim
    write_atomically(task.source, (nbformat.writes(source) + "\n").encode())
    return kept


def joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Return outputs with the parts of a stream joined: a busy machine may cut a text in two."""
    found: list[nbformat.NotebookNode] = []
    for output in outputs:
        before = found[-1] if found else {}
        if output.output_type == "stream" and output.name == before.get("name"):
            output = nbformat.from_dict({**before, "text": before["text"] + output.text})
            found.pop()
        found.append(output)
    return found


def is_claim_cell(cell: nbformat.NotebookNode) -> bool:
    """Tell whether the output of a cell is kept and compared."""
    return all(tag in tags_of(cell) for tag in CLAIM_TAGS)
