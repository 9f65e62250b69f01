"""Whether stored tables still hold: a changed hash is a suspicion, and one row decides.

A stored table takes hours. When the code that made it has changed, its first row is computed twice
on this machine: by the commit that made the table, in a worktree of its own, and by the present
code. (The stored numbers themselves are no yardstick: another processor differs in the last bits.)
Equal to the bit, the table is confirmed for the present code, and its provenance says by which row,
commit and processor. Otherwise all of its rows are made again. Tables that share their cells with a
base table, as runs that are longer, take its verdict.
"""

import contextlib
import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import nbformat

from kempe_nb.notebook import results
from kempe_nb.publish.checkout import commit, write_atomically
from kempe_nb.publish.project import Project, UsageError, declared_parameters, read_notebook
from kempe_nb.publish.select import cut_notebook, selected_cells
from kempe_nb.publish.staleness import cells_hash, code_hashes
from kempe_nb.publish.sweep import (
    RESULTS,
    Sweep,
    default_name,
    execute_run,
    plan_sweep,
    run_sweep,
)

Row = dict[str, str]


class CannotConfirm(RuntimeError):
    """The stored row cannot be computed again; the message says why."""


def stored_files(project: Project) -> list[Path]:
    """Return the stored files of all chapters."""
    return sorted((project.book / "chapters").glob("*/results/*.csv"))


def stale_reason(project: Project, file: Path) -> str:
    """Return why a stored file may no longer be what its code would give, or an empty string."""
    _, told = results.read_pair(file)
    source = project.notebooks().get(told["notebook"])
    if source is None:
        return f"the notebook {told['notebook']} is gone"
    try:
        cells = selected_cells(read_notebook(source), told["table"], source)
    except UsageError as error:
        return str(error)
    if cells_hash(cells, declared_parameters(source), told["grid"]) != told["code"]:
        return "the cells that made it have changed"
    present = code_hashes()
    changed = [name for name, digest in told["modules"].items() if present.get(name) != digest]
    return f"{', '.join(changed)} changed" if changed else ""


def stored_sweep(project: Project, file: Path) -> Sweep:
    """Return the sweep that made a stored file."""
    _, told = results.read_pair(file)
    if told["notebook"] not in project.notebooks():
        raise UsageError(f"{file.name}: the notebook {told['notebook']} is gone; delete the file")
    grid = {name: ",".join(values) for name, values in told["grid"].items()}
    return plan_sweep(
        project, told["notebook"], told["table"], grid, profile=told["profile"], name=file.stem
    )


def remake(project: Project, *, scheduler: str | None = None, jobs: int | None = None) -> bool:
    """Confirm the stored files whose code has changed, or make them again; tell if all is well."""
    good = True
    verdicts: dict[tuple[str, str], dict] = {}
    for file in sorted(stored_files(project), key=lambda f: not is_base(f)):
        reason = stale_reason(project, file)
        name = file.relative_to(project.root)
        print(f"{name}: {reason or 'up to date'}", flush=True)
        if not reason:
            continue
        sweep = stored_sweep(project, file)
        family = (sweep.notebook, sweep.table)
        if family not in verdicts:
            try:
                verdicts[family] = compared(sweep)
            except CannotConfirm as error:
                print(f"{name}: {error}", flush=True)
                verdicts[family] = {}
        if verdicts[family]:
            stamp(sweep, verdicts[family])
            print(f"{name}: confirmed by {verdicts[family]['by']}", flush=True)
        else:
            print(f"{name}: all rows are made again", flush=True)
            good &= run_sweep(sweep, scheduler=scheduler, jobs=jobs)
    return good


def is_base(file: Path) -> bool:
    """Tell whether a file is the base of the tables that share its cells."""
    _, told = results.read_pair(file)
    return file.stem == default_name(told["table"], "cpu")


def compared(sweep: Sweep) -> dict:
    """Return by what the first row of a table is confirmed; nothing where it came out otherwise.

    Raises
    ------
    CannotConfirm
        When the row cannot be computed by the commit that made it.
    """
    with ThreadPoolExecutor(1) as threads:
        then = threads.submit(row_of_commit, sweep)
        now = row_of_present_code(sweep)
        before = then.result()
    if before != now:
        different = [name for name in now if before.get(name) != now[name]]
        print(f"  {len(different)} of {len(now)} columns differ, first {different[:3]}", flush=True)
        return {}
    _, told = results.read_pair(sweep.file)
    return {
        "by": f"row 1 of {told['runs']} of {sweep.name}",
        "commit": commit(sweep.source.parent, without=RESULTS),
        "device": told_device(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def told_device() -> str:
    """Return the processor that confirms; imported here, as only this function needs it."""
    from kempe_nb.notebook.machine import processor

    return processor()


def row_of_present_code(sweep: Sweep) -> Row:
    """Return the first row of a table as the code of this checkout computes it."""
    notebook = read_notebook(sweep.source)
    cut = cut_notebook(notebook, selected_cells(notebook, sweep.table, sweep.source))
    try:
        entry = execute_run(
            nbformat.writes(cut),
            sweep.runs[0],
            sweep.table,
            str(sweep.source.parent),
            code_hashes(),
        )
    except RuntimeError as error:
        raise UsageError(f"{sweep.name}: the present code fails: {error}") from None
    text = io.StringIO()
    writer = csv.DictWriter(text, list(entry["row"]), lineterminator="\n")
    writer.writeheader()
    writer.writerow(entry["row"])
    return next(csv.DictReader(io.StringIO(text.getvalue())))


def row_of_commit(sweep: Sweep) -> Row:
    """Return the first row of a stored table as the commit that made it computes it here."""
    _, told = results.read_pair(sweep.file)
    if len(told["commit"]) != 1 or told["commit"][0].endswith("-dirty"):
        raise CannotConfirm(f"its commit is {', '.join(told['commit'])}, which cannot be run again")
    first = [part for k, values in told["grid"].items() for part in ("-p", f"{k}={values[0]}")]
    command = [sys.executable, "-m", "kempe_nb", "sweep", told["notebook"]]
    command += ["--table", told["table"], "--name", sweep.name, "--profile", told["profile"]]
    with worktree(sweep.project, told["commit"][0]) as folder:
        ran = subprocess.run(
            [*command, *first, "--jobs", "1"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
        )
        # The folder of the results has moved once.
        made = [*folder.glob(f"book/**/results/{sweep.name}.csv")]
        made += folder.glob(f"book/results/{sweep.chapter}/{sweep.name}.csv")
        fresh = [file for file in made if sweep.chapter in file.parts]
        if ran.returncode or len(fresh) != 1:
            reason = (ran.stdout + ran.stderr).strip().splitlines()[-1:]
            raise CannotConfirm(f"its commit {told['commit'][0]} fails here: {' '.join(reason)}")
        with fresh[0].open(newline="", encoding="utf-8") as lines:
            row = next(csv.DictReader(lines))
    return {name: value for name, value in row.items() if name not in told["grid"]}


@contextlib.contextmanager
def worktree(project: Project, name: str) -> Iterator[Path]:
    """Check out a commit in a folder of its own below _build, and remove it afterwards."""
    folder = project.build / "worktrees" / name
    shutil.rmtree(folder, ignore_errors=True)
    _git(project, "worktree", "prune")
    added = _git(project, "worktree", "add", "--detach", "--force", str(folder), name)
    if added.returncode:
        raise CannotConfirm(f"its commit {name} is not in this repository: {added.stderr.strip()}")
    try:
        yield folder
    finally:
        _git(project, "worktree", "remove", "--force", str(folder))


def _git(project: Project, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(["git", *words], cwd=project.root, capture_output=True, text=True)


def stamp(sweep: Sweep, verdict: dict) -> None:
    """Write the present hashes into the provenance of a table, and what confirmed them."""
    _, told = results.read_pair(sweep.file)
    cells = selected_cells(read_notebook(sweep.source), sweep.table, sweep.source)
    present = code_hashes()
    told["code"] = cells_hash(cells, declared_parameters(sweep.source), told["grid"])
    told["modules"] = {name: present[name] for name in told["modules"] if name in present}
    told["confirmed"] = [*told.get("confirmed", []), verdict]
    content = (json.dumps(told, indent=1) + "\n").encode()
    write_atomically(sweep.file.with_suffix(".json"), content)
