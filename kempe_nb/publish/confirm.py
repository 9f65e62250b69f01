"""Whether stored tables still hold: a changed hash is a suspicion, and one row decides.

A stored table takes hours. When the code that made it has changed, its first row is computed twice
on this machine: by the commit that made the table, in a worktree of its own, and by the present
code. (The stored numbers themselves are no yardstick: another processor differs in the last bits.)
Equal to the bit, but for the clock in a column `seconds`, the table is confirmed for the present
code, and its provenance says by which row, commit and processor. Otherwise all of its rows are made
again.

Tables that share their cells with a base table, as runs that are longer, take the verdict of its
first row, computed at the commit that made them. A table that two commits made is confirmed when
its row is the same at both.
"""

import contextlib
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from kempe_nb.notebook import cache, record, results
from kempe_nb.publish.checkout import commit, without_git, write_atomically
from kempe_nb.publish.project import Project, UsageError, chapter_of
from kempe_nb.publish.staleness import (
    code_hashes,
    code_of_table,
    provenance,
    stale_reason,
    stored_files,
)
from kempe_nb.publish.sweep import (
    RESULTS,
    Sweep,
    compute_first,
    default_name,
    plan_sweep,
    run_sweep,
)

Row = dict[str, str]

#: The column that tells the clock. No two runs agree on it, so it decides about nothing.
CLOCK = "seconds"


class NotConfirmed(RuntimeError):
    """A row came out otherwise, or cannot be computed again; the message says which."""


def stored_sweep(project: Project, file: Path) -> Sweep:
    """Return the sweep that made a stored file."""
    told = provenance(file)
    if told["notebook"] not in project.notebooks():
        raise UsageError(f"{file.name}: the notebook {told['notebook']} is gone; delete the file")
    grid = {name: ",".join(values) for name, values in told["grid"].items()}
    return plan_sweep(
        project, told["notebook"], told["table"], grid, profile=told["profile"], name=file.stem
    )


def remake(project: Project, *, scheduler: str | None = None, jobs: int | None = None) -> bool:
    """Confirm the stored files whose code has changed, or make them again; tell if all is well.

    A file that can be neither confirmed nor made again is named, and costs the others nothing.
    """
    good = True
    judge = Judge(project)
    suspects = []
    files = []
    for file in stored_files(project):
        try:
            # A base and those that take its verdict together, so that little is lost by a stop.
            files.append((file.with_name(base_name(file)), not is_base(file), file))
        except results.ResultsError as error:
            print(f"{file.relative_to(project.root)}: {error}", flush=True)
            good = False
    for *_, file in sorted(files):
        reason = stale_reason(project, file, judge.hashes)
        print(f"{file.relative_to(project.root)}: {reason or 'up to date'}", flush=True)
        if not reason:
            continue
        try:
            sweep = stored_sweep(project, file)
            # Taken before a row runs: what is edited meanwhile counts as a change.
            suspects.append((sweep, code_of_table(sweep.source, sweep.table, sweep.grid)))
        except UsageError as error:
            print(f"  {error}", flush=True)
            good = False
    for sweep, code in suspects:
        name = sweep.file.relative_to(project.root)
        try:
            reason = _confirm(judge, sweep, code)
            if reason:
                print(f"{name}: {reason}; all rows are made again", flush=True)
                good &= run_sweep(sweep, scheduler=scheduler, jobs=jobs)
            else:
                by = provenance(sweep.file)["confirmed"][-1]["by"]
                print(f"{name}: confirmed by {by}", flush=True)
        except UsageError as error:
            print(f"{name}: {error}", flush=True)
            good = False
    return good


def _confirm(judge: "Judge", sweep: Sweep, code: str) -> str:
    """Confirm a table, or return why it is not."""
    try:
        verdict = judge.confirms(sweep)
    except NotConfirmed as error:
        return str(error)
    stamp(sweep, verdict, code, judge.modules(sweep))
    return ""


def is_base(file: Path) -> bool:
    """Tell whether a file is the base of the tables that share its cells."""
    return file.stem == base_name(file)


def base_name(file: Path) -> str:
    """Return the name of the base of a stored file, which may be its own."""
    told = provenance(file)
    return default_name(told["table"], told["profile"])


def base_of(sweep: Sweep) -> Sweep:
    """Return the sweep of the base table, or this one where no base table is stored."""
    file = sweep.file.with_name(f"{default_name(sweep.table, sweep.profile)}.csv")
    if file.exists():
        base = stored_sweep(sweep.project, file)
        if (base.notebook, base.table) == (sweep.notebook, sweep.table):
            return base
    return sweep


@dataclass
class Judge:
    """Compares the first rows of tables, computing each of them once.

    Attributes
    ----------
    project : Project
    hashes, commit : dict, str
        Those of the present code when the comparison began. Rows run for minutes, and somebody may
        commit meanwhile.
    """

    project: Project
    hashes: dict[str, str] = field(default_factory=code_hashes)
    commit: str = field(init=False)
    _then: dict[tuple, Row | NotConfirmed] = field(default_factory=dict)
    _now: dict[tuple, dict] = field(default_factory=dict)

    def __post_init__(self):
        self.commit = commit(self.project.root, without=RESULTS)

    def confirms(self, sweep: Sweep) -> dict:
        """Return by what a table is confirmed, as its provenance tells it.

        Raises
        ------
        NotConfirmed
            When the row came out otherwise, or cannot be computed by the commit that made it.
        UsageError
            When the present code fails.
        """
        commits = provenance(sweep.file)["commit"]
        for name in commits:
            if name == "unknown" or name.endswith("-dirty"):
                raise NotConfirmed(f"it was made at commit {name}, which cannot be run again")
        base = base_of(sweep)
        with ThreadPoolExecutor(1) as threads:
            past = threads.submit(lambda: [self._row_of_commit(base, name) for name in commits])
            if sweep.profile == "gpu":
                # Two runs at once could ask for more memory than the GPU has.
                past.exception()
            now = _as_stored(self._entry(base)["row"])
        for name, then in zip(commits, past.result(), strict=True):
            columns = [c for c in then | now if then.get(c) != now.get(c) and not _is_clock(c)]
            if columns:
                raise NotConfirmed(
                    f"row 1 of {base.name} is another one at commit {name} and now, in "
                    f"{len(columns)} of {len(then | now)} columns, first {', '.join(columns[:3])}"
                )
        return {
            "by": f"row 1 of {len(base.runs)} of {base.name}",
            "commit": self.commit,
            "device": self._entry(base)["device"],
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        }

    def modules(self, sweep: Sweep) -> dict[str, str]:
        """Return the present hashes of the modules that a table depends on.

        Those that the row computed with now, for code may have moved to another file, and those
        told of before that are still there, for a longer run may use more of them.
        """
        known = {*provenance(sweep.file)["modules"], *self._entry(base_of(sweep))["modules"]}
        return {name: self.hashes[name] for name in sorted(known) if name in self.hashes}

    def _entry(self, base: Sweep) -> dict:
        if base.file not in self._now:
            self._now[base.file] = compute_first(base, self.hashes)
        return self._now[base.file]

    def _row_of_commit(self, base: Sweep, name: str) -> Row:
        key = (base.file, name)
        if key not in self._then:
            try:
                self._then[key] = row_of_commit(base, name)
            except NotConfirmed as error:
                self._then[key] = error
        row = self._then[key]
        if isinstance(row, NotConfirmed):
            raise row
        return row


def _is_clock(column: str) -> bool:
    return column.partition("[")[0] == CLOCK


def _as_stored(row: Mapping) -> Row:
    """Return a row as it reads in a file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(row), lineterminator="\n")
    writer.writeheader()
    writer.writerow(row)
    return next(csv.DictReader(io.StringIO(text.getvalue())))


def row_of_commit(sweep: Sweep, name: str) -> Row:
    """Return the first row of a table as a commit computes it on this machine.

    Raises
    ------
    NotConfirmed
        When the commit is not here, or its code fails.
    """
    first = [part for k, values in sweep.grid.items() for part in ("-p", f"{k}={values[0]}")]
    command = [sys.executable, "-m", "kempe_nb", "sweep", sweep.notebook]
    command += ["--table", sweep.table, "--name", sweep.name, "--profile", sweep.profile]
    with worktree(sweep.project, name) as folder:
        # The folder of the results has moved once. A file that came with the commit is not ours.
        chapter = chapter_of(sweep.notebook)
        places = [folder / "book" / "chapters" / chapter / "results", folder / "book" / "results"]
        made = [places[0] / f"{sweep.name}.csv", places[1] / chapter / f"{sweep.name}.csv"]
        for file in made:
            file.unlink(missing_ok=True)
        ran = subprocess.run(
            [*command, *first, "--jobs", "1"],
            cwd=folder,
            env=_environment_of(folder),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
        fresh = [file for file in made if file.is_file()]
        if ran.returncode or len(fresh) != 1:
            told = [line.strip() for line in (ran.stdout + ran.stderr).splitlines()]
            reason = next((line for line in told if "FAILED" in line), " ".join(told[-1:]))
            raise NotConfirmed(f"the code of commit {name} fails here ({reason})")
        with fresh[0].open(newline="", encoding="utf-8") as lines:
            row = next(csv.DictReader(lines))
    return {column: value for column, value in row.items() if column not in sweep.grid}


def _environment_of(folder: Path) -> dict[str, str]:
    """Return the environment in which a worktree finds its own package before any other."""
    own = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    # An earlier commit may not know that a row is no business of the cache.
    changed = {"PYTHONPATH": os.pathsep.join(own), cache.VARIABLE: ""}
    kept = {k: v for k, v in without_git().items() if k not in (record.VARIABLE, record.LIVE)}
    return kept | changed


@contextlib.contextmanager
def worktree(project: Project, name: str) -> Iterator[Path]:
    """Check out a commit in a folder of its own below _build, and remove it afterwards."""
    import fcntl  # Not everywhere, and only needed here.

    if not re.fullmatch("[0-9a-f]{4,64}", name):
        raise NotConfirmed(f"commit is {name!r}; accepted is a hash")
    home = project.build / "worktrees"
    folder = home / name
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(
                f"another command compares rows in {home}; start again when it has ended"
            ) from None
        try:
            # What a killed command left behind goes first.
            for left in {folder, *home.glob("[!.]*")}:
                _remove_worktree(project, left)
            added = _git(project, "worktree", "add", "--detach", "--force", str(folder), name)
            if added.returncode:
                reason = added.stderr.strip().splitlines()[-1:]
                raise NotConfirmed(f"commit {name} cannot be checked out ({' '.join(reason)})")
            yield folder
        finally:
            _remove_worktree(project, folder)


def _remove_worktree(project: Project, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _git(project, "worktree", "remove", "--force", "--force", str(folder))


def _git(project: Project, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["git", *words],
        cwd=project.root,
        env=without_git(),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )


def stamp(sweep: Sweep, verdict: Mapping, code: str, modules: Mapping[str, str]) -> None:
    """Write the present hashes into the provenance of a table, and what confirmed them."""
    told = provenance(sweep.file)
    told |= {"code": code, "modules": dict(modules)}
    told["confirmed"] = [*told.get("confirmed", []), dict(verdict)]
    content = (json.dumps(told, indent=1) + "\n").encode()
    write_atomically(sweep.file.with_suffix(".json"), content)
