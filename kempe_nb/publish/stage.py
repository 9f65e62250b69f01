"""Put together what Sphinx reads: the pages, and the chapters with the outputs of their last run.

A page shows the chapter's present text and code with the outputs of its executed copy. That is
sound because the copy is fresh only while the code computes the same (`fingerprint`), and it lets a
change of prose, of tags or of an alt text through without an execution.
"""

import html
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import nbformat

from kempe_nb.notebook import figures, results
from kempe_nb.publish.checkout import write_if_changed
from kempe_nb.publish.execute import Task, is_fresh
from kempe_nb.publish.fingerprint import code_cells, literal_texts
from kempe_nb.publish.project import Project, UsageError, read_notebook
from kempe_nb.publish.sweep import stale_reason, stored_files

#: Folder of the facts of chapters and benchmarks beside the pages; the Sphinx extension reads it.
RECORDS = "_records"
#: The file there that tells where the stored runs come from.
STORED = "stored_runs"


def stage(project: Project, tasks: list[Task]) -> Path:
    """Write the staged sources and return their folder.

    Raises
    ------
    UsageError
        When a chapter has no fresh executed copy.
    """
    target = project.build / "source"
    wanted: dict[Path, bytes] = {}
    for path in project.book.rglob("*"):
        relative = path.relative_to(project.book)
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.is_file() and not hidden and path.suffix != ".ipynb":
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
        wanted[task.source.relative_to(project.book)] = nbformat.writes(staged).encode()
        wanted[Path(RECORDS) / f"{task.name}.json"] = task.facts.read_bytes()
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
    found = {}
    for file in stored_files(project):
        try:
            _, told = results.read_pair(file)
        except results.ResultsError as error:
            raise UsageError(str(error)) from None
        told["stale"] = stale_reason(project, file)
        found[f"{file.parent.name}/{file.stem}"] = told
    return found


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
