"""Run a notebook many times on Dask and store one row for each run, with its provenance.

A sweep executes the cells that a table needs (`select`). Every finished run is kept at once in a
journal below _build, and a sweep that was interrupted computes only what the journal lacks. The
file is written when all runs are there, in the order of the grid, whatever the order in which they
came back.
"""

import hashlib
import itertools
import json
import os
import re
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import nbformat
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from kempe_nb.notebook import cache
from kempe_nb.publish.checkout import commit, write_atomically
from kempe_nb.publish.environment import environment
from kempe_nb.publish.execute import papermill_run, read_facts, refuse_another_kernel
from kempe_nb.publish.parameters import checked_parameters, declared_parameters
from kempe_nb.publish.project import Project, UsageError, chapter_of, read_notebook
from kempe_nb.publish.select import cut_notebook, selected_cells, tables_of
from kempe_nb.publish.staleness import cells_hash, code_hashes, computing, versions
from kempe_nb.publish.sweep_file import told, write_file

#: A table that was written a minute ago is no part of what a run computes from.
RESULTS = tuple(f"book/chapters/*/results/*.{end}" for end in ("csv", "json"))
_WORKER_VARIABLES = "distributed.nanny.pre-spawn-environ"

#: Facts of a run travel by an environment variable: one run at a time in each process, whatever the
#: threads of a worker. Python's parser does not like threads either.
_one_run = threading.Lock()


@dataclass(frozen=True)
class Sweep:
    """One table of a notebook over a grid of parameters.

    Attributes
    ----------
    notebook, table, name : str
        `name` is that of the file, by default `default_name`.
    source : Path
        The notebook.
    grid : mapping of str to list of str
        The values of each parameter as they were given, in the order of the command.
    runs : tuple of mappings
        The parameters of each run, in the order of the grid, the last parameter fastest.
    profile : str
    """

    project: Project
    notebook: str
    table: str
    name: str
    source: Path
    grid: Mapping[str, list[str]]
    runs: tuple[Mapping, ...]
    profile: str

    @property
    def chapter(self) -> str:
        """The chapter whose folder of results holds the file."""
        return chapter_of(self.notebook)

    @property
    def file(self) -> Path:
        """Where the rows go."""
        return self.project.results(self.chapter) / f"{self.name}.csv"

    @property
    def journal(self) -> Path:
        """The folder of the finished runs."""
        return self.project.build / "sweeps" / self.chapter / self.name

    def arguments(self) -> list[str]:
        """Return the arguments that make this file again."""
        usual = default_name(self.table, self.profile)
        named = [] if self.name == usual else ["--name", self.name]
        points = [part for k, v in self.grid.items() for part in ("-p", f"{k}={','.join(v)}")]
        return [
            *("sweep", self.notebook, "--table", self.table, *named),
            *("--profile", self.profile, *points),
        ]


def default_name(table: str, profile: str) -> str:
    """Return the name of a table's file: its own, and with that of the profile if it is not cpu."""
    return table if profile == "cpu" else f"{table}_{profile}"


def plan_sweeps(
    project: Project,
    name: str,
    grid: Mapping[str, str],
    *,
    table: str | None = None,
    profile: str = "cpu",
    file_name: str | None = None,
) -> list[Sweep]:
    """Return the sweeps of a command: of one table, or of all tables of a notebook or a chapter."""
    if file_name and not table:
        raise UsageError("--name needs --table: it is the name of one file")
    chosen = project.select([name])
    # A table of another lesson has the same folder, so all names of the chapter have to differ.
    known = homes_of_tables(project, project.select([chapter_of(name)]))
    homes = {each: home for each, home in known.items() if home in chosen}
    if not homes:
        raise UsageError(f"{name} keeps no table: no cell is tagged sweep-TABLE")
    if table and table not in homes:
        raise UsageError(
            f"table is {table!r}, but {name} tags no cell sweep-{table}; accepted are "
            f"{', '.join(sorted(homes))}"
        )
    if file_name and file_name != table and file_name in known:
        raise UsageError(
            f"name is {file_name!r}, the table that {known[file_name]} makes; accepted is another"
        )
    sweeps = [
        plan_sweep(project, homes[each], each, grid, profile=profile, name=file_name)
        for each in ([table] if table else sorted(homes))
    ]
    for sweep in sweeps:
        told = read_facts(sweep.file.with_suffix(".json"))
        if told and (told.get("table"), told.get("profile")) != (sweep.table, profile):
            raise UsageError(
                f"name is {sweep.name!r}, the file of table {told.get('table')!r} with profile "
                f"{told.get('profile')!r}; accepted is another"
            )
    return sweeps


def homes_of_tables(project: Project, names: Iterable[str]) -> dict[str, str]:
    """Return the notebook that makes each table of a chapter; refuse one that two make."""
    homes: dict[str, str] = {}
    for name in names:
        for table in sorted(tables_of(read_notebook(project.notebooks()[name]))):
            if homes.setdefault(table, name) != name:
                raise UsageError(
                    f"table {table!r} is made by {homes[table]} and by {name}; accepted is one "
                    "notebook, as the tables of a chapter share a folder"
                )
    return homes


def plan_sweep(
    project: Project,
    notebook: str,
    table: str,
    grid: Mapping[str, str],
    *,
    profile: str = "cpu",
    name: str | None = None,
) -> Sweep:
    """Return the sweep of a table; refuse what the notebook does not have before anything runs.

    Parameters
    ----------
    grid : mapping of str to str
        "v1,v2" or "low:high" (integers, the last excluded) for each parameter.
    """
    source = project.notebooks()[notebook]
    name = default_name(table, profile) if name is None else name
    for what, text in (("table", table), ("name", name)):
        if not re.fullmatch(r"[a-z][a-z0-9_]*", text):
            raise UsageError(f"{what} is {text!r}; accepted are lower-case letters, digits and _")
    selected_cells(read_notebook(source), table, source)
    values = {parameter: spelled_out(text) for parameter, text in grid.items()}
    runs = tuple(
        checked_parameters(source, profile, dict(zip(values, point, strict=True)))
        for point in itertools.product(*values.values())
    )
    if len({repr(run) for run in runs}) < len(runs):
        raise UsageError(f"the grid {dict(grid)} holds a point twice")
    return Sweep(project, notebook, table, name, source, values, runs, profile)


def spelled_out(text: str) -> list[str]:
    """Return the values that "v1,v2" or "low:high" stands for.

    Raises
    ------
    UsageError
        For an empty value or an empty range.
    """
    span = re.fullmatch(r"(-?\d+):(-?\d+)", text)
    if span:
        values = [str(number) for number in range(int(span[1]), int(span[2]))]
    else:
        # A comma inside brackets belongs to a value.
        values = [part.strip() for part in re.split(r",(?![^\[(]*[\])])", text)]
    if not values or not all(values):
        raise UsageError(f"a grid is {text!r}; accepted is v1,v2,... or low:high with low < high")
    return values


def run_sweep(sweep: Sweep, *, scheduler: str | None = None, jobs: int | None = None) -> bool:
    """Compute what is missing, print a line for each run, and write the file when all are there.

    Parameters
    ----------
    scheduler : str, optional
        Address of a Dask scheduler; by default a local cluster of `jobs` processes is started.
    jobs : int, optional
        Processes of the local cluster; by default one for each core, and one on a GPU.
    """
    if jobs is not None and (jobs < 1 or scheduler):
        raise UsageError(f"jobs is {jobs}; accepted is a positive integer, without --scheduler")
    cells = selected_cells(read_notebook(sweep.source), sweep.table, sweep.source)
    code = cells_hash(cells, declared_parameters(sweep.source), sweep.grid)
    hashes = code_hashes()
    entries = _journal_entries(sweep, code, hashes)
    missing = [run for run in sweep.runs if _key(run) not in entries]
    print(f"{_title(sweep)}: {len(sweep.runs)} runs, {len(missing)} to compute", flush=True)
    if missing and commit(sweep.source.parent, without=RESULTS).endswith("-dirty"):
        print(f"{_title(sweep)}: the checkout differs from its commit; commit first, or this table")
        print("  can never be confirmed by a row: it has to be made again when its code changes")
    good = True
    if missing:
        notebook = cut_notebook(read_notebook(sweep.source), cells)
        with _client(scheduler, _workers(sweep, jobs), sweep.project.build) as client:
            for run, entry, reason in _arrivals(client, sweep, notebook, missing, hashes):
                if entry is None:
                    good = False
                    print(f"{_title(sweep)} {told(run)}: FAILED, {reason}", flush=True)
                    continue
                entry |= {"code": code, "parameters": dict(run)}
                write_atomically(_journal_file(sweep, run), json.dumps(entry, indent=1).encode())
                entries[_key(run)] = entry
                print(f"{_title(sweep)} {told(run)}: {entry['seconds']:.0f} s", flush=True)
    if not good:
        print(f"{_title(sweep)}: the runs that succeeded are kept; start again for the others")
        return False
    write_file(sweep, [entries[_key(run)] for run in sweep.runs], code)
    print(f"{_title(sweep)}: {sweep.file.relative_to(sweep.project.root)}", flush=True)
    return True


def execute_run(notebook: str, parameters: Mapping, table: str, cwd: str, hashes: Mapping) -> dict:
    """Execute one run on a worker and return its row and its facts.

    Raises
    ------
    RuntimeError
        With the reason in one line: the worker has other code, a cell failed, or the kernel died.
    """
    with _one_run, tempfile.TemporaryDirectory(prefix="kempe-sweep-") as folder:
        present = code_hashes()
        different = [name for name in computing(hashes) if present.get(name) != hashes[name]]
        if different:
            raise RuntimeError(f"this worker has another {different[0]}; install the same checkout")
        started = time.perf_counter()
        facts_file = Path(folder) / "facts.json"
        try:
            # A row is computed by the commit that it names, not by an earlier one.
            with environment(**{cache.VARIABLE: ""}):
                papermill_run(
                    nbformat.reads(notebook, as_version=4),
                    Path(folder) / "run.ipynb",
                    parameters,
                    facts_file,
                    cwd=cwd if os.path.isdir(cwd) else folder,
                )
        except PapermillExecutionError as error:
            cell = error.source.strip().splitlines()[0]
            raise RuntimeError(f"in '{cell}': {error.ename}: {error.evalue}") from None
        except DeadKernelError:
            raise RuntimeError("the kernel died") from None
        facts = read_facts(facts_file)
    if facts is not None:
        try:
            refuse_another_kernel(facts)
        except ValueError as error:
            raise RuntimeError(str(error)) from None
    if facts is None or table not in facts.get("tables", {}):
        raise RuntimeError(f"it kept no row of {table!r}")
    return {
        "row": facts["tables"][table],
        "modules": {name: hashes[name] for name in computing(facts["modules"])},
        "seconds": round(time.perf_counter() - started, 1),
        "device": facts.get("device", "unknown"),
        "cores": os.cpu_count(),
        "versions": versions(),
        "commit": commit(Path(cwd), without=RESULTS) if os.path.isdir(cwd) else "unknown",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def compute_first(sweep: Sweep, hashes: Mapping) -> dict:
    """Compute the first run of a sweep on this machine, as a sweep does, past the journal.

    Raises
    ------
    UsageError
        When the run fails.
    """
    notebook = read_notebook(sweep.source)
    cut = cut_notebook(notebook, selected_cells(notebook, sweep.table, sweep.source))
    with _client(None, 1, sweep.project.build) as client:
        for _, entry, reason in _arrivals(client, sweep, cut, sweep.runs[:1], hashes):
            if entry is None:
                raise UsageError(f"{_title(sweep)}: the present code fails, {reason}")
    return entry


def _workers(sweep: Sweep, jobs: int | None) -> int:
    if sweep.profile == "gpu":
        return 1
    return min(jobs or os.cpu_count() or 1, len(sweep.runs))


@contextmanager
def _client(scheduler: str | None, workers: int, build: Path) -> Iterator:
    """Connect to a scheduler, or to a local cluster that ends with the block."""
    import dask
    from distributed import Client, LocalCluster

    if scheduler:
        try:
            client = Client(scheduler, timeout="20s", set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise UsageError(f"scheduler {scheduler!r} does not answer: {error}") from None
        with client:
            yield client
        return
    # Dask makes its workers hand memory back early, and kernels inherit that: they would ask the
    # system for the same pages again with every tensor, a third of the time of a run of training.
    variables = dict(dask.config.get(_WORKER_VARIABLES))
    variables.pop("MALLOC_TRIM_THRESHOLD_", None)
    build.mkdir(parents=True, exist_ok=True)
    with (
        dask.config.set({_WORKER_VARIABLES: variables}),
        tempfile.TemporaryDirectory(prefix=".dask-", dir=build) as folder,
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            # The work is done by kernels, whose memory Dask does not see.
            memory_limit=0,
            # Any free port: the usual one may be that of another sweep, and Dask would warn.
            dashboard_address=":0",
            local_directory=folder,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def _arrivals(client, sweep: Sweep, notebook, missing, hashes) -> Iterator[tuple]:
    """Yield parameters, entry and reason of failure of each run as it comes back.

    Dask starts the run of a lost worker on another one; it gives up after the fourth loss.
    """
    from distributed import as_completed

    text = nbformat.writes(notebook)
    # Dask gives the result of a key to everybody who asks for it: a table of the same name in
    # another chapter, or another checkout on the same scheduler, must never ask for ours.
    own = uuid.uuid4().hex
    futures = {
        client.submit(
            execute_run,
            text,
            dict(run),
            sweep.table,
            str(sweep.source.parent),
            hashes,
            key=f"{own}-{sweep.name}-{_key(run)}",
            pure=False,
        ): run
        for run in missing
    }
    for future in as_completed(futures, loop=client.loop):
        error = future.exception()
        yield futures[future], None if error else future.result(), error


def _journal_file(sweep: Sweep, run: Mapping) -> Path:
    return sweep.journal / f"{_key(run)}.json"


def _journal_entries(sweep: Sweep, code: str, hashes: Mapping) -> dict[str, dict]:
    """Return the finished runs that the present code would give again."""
    found = {}
    for run in sweep.runs:
        entry = read_facts(_journal_file(sweep, run))
        if entry is not None and entry.get("code") == code and entry["parameters"] == dict(run):
            unchanged = all(hashes.get(n) == digest for n, digest in entry["modules"].items())
            if unchanged:
                found[_key(run)] = entry
    return found


def _key(run: Mapping) -> str:
    return hashlib.sha256(json.dumps(dict(run), sort_keys=True).encode()).hexdigest()[:20]


def _title(sweep: Sweep) -> str:
    return f"{sweep.chapter}/{sweep.name}"
