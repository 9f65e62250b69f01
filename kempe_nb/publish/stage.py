"""Put together what Sphinx reads: the pages, and the notebooks with the outputs of their last run.

A page shows the notebook's present text and code with the outputs of its executed copy. That is
sound because the copy is fresh only while the code computes the same (`staleness`), and it lets a
change of prose, of tags or of an alt text through without an execution.

In a lesson the cells of claims are not on the page: their badges stand in its sentences, and the
ledger of the book shows their code.
"""

import html
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import nbformat

from kempe_nb.notebook import figures, results
from kempe_nb.publish.accept import is_claim_cell
from kempe_nb.publish.checkout import write_if_changed
from kempe_nb.publish.execute import Task, is_fresh, read_facts
from kempe_nb.publish.project import (
    Project,
    UsageError,
    chapter_of,
    code_cells,
    read_notebook,
    tags_of,
)
from kempe_nb.publish.staleness import code_hashes, literal_texts, stale_reason, stored_files

#: Folder of the facts beside the pages; the Sphinx extension reads it. It holds a JSON for each
#: notebook, under the name of its page, and a CSV for each benchmark.
RECORDS = "_records"
#: The file there that tells where the stored runs come from.
STORED = "stored_runs"


def stage(project: Project, tasks: list[Task]) -> Path:
    """Write the staged sources and return their folder.

    Raises
    ------
    UsageError
        When a notebook has no fresh executed copy.
    """
    target = project.build / "source"
    wanted: dict[Path, bytes] = {}
    for path in project.book.rglob("*"):
        relative = path.relative_to(project.book)
        hidden = any(part.startswith(".") for part in relative.parts)
        stored = relative.parts[0] == "chapters" and "results" in relative.parts[:-1]
        if path.is_file() and not hidden and not stored and path.suffix != ".ipynb":
            wanted[relative] = path.read_bytes()
    for task in tasks:
        if not is_fresh(task):
            raise UsageError(
                f"{task.name} has no up-to-date executed copy; run python -m kempe_nb run"
            )
        try:
            staged = graft(read_notebook(task.source), read_notebook(task.copy))
        except ValueError as error:
            raise UsageError(f"{task.name}: {error}") from None
        record = record_of(task, staged)
        if chapter_of(task.name) != task.name:
            hide_claims(staged)
            fold_together(staged)
        wanted[task.source.relative_to(project.book)] = nbformat.writes(staged).encode()
        place = Path(RECORDS) / f"{project.docname(task.source)}.json"
        wanted[place] = json.dumps(record, indent=1).encode()
    for measured in project.benchmarks.glob("*.csv"):
        wanted[Path(RECORDS) / measured.name] = measured.read_bytes()
    if told := stored_runs(project):
        wanted[Path(RECORDS) / STORED] = json.dumps(told, indent=1).encode()
    for relative, content in wanted.items():
        write_if_changed(target / relative, content)
    _remove_others(target, set(wanted))
    return target


def stored_runs(project: Project) -> dict[str, dict]:
    """Return the provenance of every stored file by its name, and why it is stale, if it is."""
    found, present = {}, code_hashes()
    for file in stored_files(project):
        try:
            _, told = results.read_pair(file)
        except results.ResultsError as error:
            raise UsageError(str(error)) from None
        told["stale"] = stale_reason(project, file, present)
        found[f"{file.parent.parent.name}/{file.stem}"] = told
    return found


def record_of(task: Task, staged: nbformat.NotebookNode) -> dict:
    """Return the facts of a run, with the code of each claim and the markup of named figures."""
    facts = read_facts(task.facts)
    for claim in facts["claims"]:
        claim["code"] = code_of_claim(staged, claim["id"])
    facts["figure_markup"] = {
        output.metadata["kempe_nb"]["name"]: output.data["text/html"]
        for cell in code_cells(staged)
        for output in cell.outputs
        if output.get("metadata", {}).get("kempe_nb", {}).get("name")
    }
    return facts


def code_of_claim(notebook: nbformat.NotebookNode, claim: str) -> str:
    """Return the cell that checks a claim; an empty text where no cell names it literally.

    Another claim may speak of this one, so a cell counts only where it hands the name to a check.
    """
    call = re.compile(rf"""check\(\s*(?:claim_id=)?["']{re.escape(claim)}["']""")
    for cell in code_cells(notebook):
        if is_claim_cell(cell) and call.search(cell.source):
            return cell.source
    return ""


def hide_claims(notebook: nbformat.NotebookNode) -> None:
    """Take the cells of claims off the page of a lesson."""
    for cell in code_cells(notebook):
        if is_claim_cell(cell):
            cell.metadata["tags"] = [*tags_of(cell), "remove-cell"]


def fold_together(notebook: nbformat.NotebookNode) -> None:
    """Make one cell of the page of folded cells that follow each other: one fold to pass over.

    Cells that are not on the page do not stand between them. The notebook that a reader runs keeps
    its cells.
    """
    page: list[nbformat.NotebookNode] = []
    for cell in notebook.cells:
        tags = tags_of(cell)
        if "remove-cell" in tags or "injected-parameters" in tags:
            continue
        if "remove-output" in tags and cell.cell_type == "code":
            cell.outputs = []
            cell.metadata["tags"] = [tag for tag in tags if tag != "remove-output"]
        before = page[-1] if page else None
        # What a cell shows stands below its fold, and the next fold begins behind it.
        if before is not None and _is_folded(before) and _is_folded(cell) and not before.outputs:
            cell.source = f"{before.source}\n\n\n{cell.source}"
            page.pop()
        page.append(cell)
    notebook.cells = page


def _is_folded(cell: nbformat.NotebookNode) -> bool:
    return cell.cell_type == "code" and "hide-input" in tags_of(cell)


def graft(source: nbformat.NotebookNode, executed: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return the source notebook with the outputs of its executed copy.

    The texts of the figures are filled in from the source's present literals and the values that
    the run recorded.
    """
    pairs = list(zip(code_cells(source), code_cells(executed), strict=True))
    # A figure may be shown by a function of another cell; a cell's own texts come first.
    elsewhere: dict[tuple[str, str], str] = {}
    for cell, ran in pairs:
        elsewhere |= _changed_texts(ran.source, cell.source)
    for cell, ran in pairs:
        changed = elsewhere | _changed_texts(ran.source, cell.source)
        cell.outputs = [_with_texts(output, changed) for output in ran.outputs]
        cell.execution_count = ran.execution_count
    return source


def _changed_texts(ran: str, present: str) -> dict[tuple[str, str], str]:
    """Return the present text of each text that a cell was executed with."""
    changed: dict[tuple[str, str], str] = {}
    for before, (_, after) in zip(literal_texts(ran), literal_texts(present), strict=True):
        if changed.setdefault(before, after) != after:
            raise UsageError(
                f"two figures of one cell had the same {before[0]} {before[1]!r} and now differ; "
                "execute the chapter again with python -m kempe_nb run --force"
            )
    return changed


def _with_texts(
    output: nbformat.NotebookNode, changed: Mapping[tuple[str, str], str]
) -> nbformat.NotebookNode:
    recorded = output.get("metadata", {}).get("kempe_nb")
    if not recorded:
        return output
    markup = output.data["text/html"]
    for name, template in recorded["templates"].items():
        present = changed.get((name, template), template)
        if present == template:
            continue
        frames = recorded["frames"]
        if name == "caption" and len(frames) > 1:
            frames = [{}]  # All frames share one caption, which has no fields.
        # Frame by frame and from left to right: two frames may have had the same text.
        start = 0
        for values in frames:
            before = _slot(name, figures.fill({name: template}, values)[name])
            after = _slot(name, figures.fill({name: present}, values)[name])
            start = markup.index(before, start)
            markup = markup[:start] + after + markup[start + len(before) :]
            start += len(after)
    output.data["text/html"] = markup
    return output


def _slot(name: str, text: str) -> str:
    """Return the markup around a text of a figure, so that nothing else is replaced."""
    escaped = html.escape(text)
    return {
        "alt": f'role="img" aria-label="{escaped}"',
        "caption": f"<figcaption>{escaped}</figcaption>",
    }[name]


def _remove_others(folder: Path, wanted: set[Path]) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(folder) not in wanted:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            shutil.rmtree(path)
