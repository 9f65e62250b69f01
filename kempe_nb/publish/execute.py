"""Execute notebooks with papermill: what is out of date, nothing else, and never half.

An executed copy is a notebook and a JSON of facts beside it. Both are made in a working folder and
moved to their place only when the whole notebook ran and passed `gate`; the JSON moves last and
holds the hash of the notebook, so a pair that a crash tore apart counts as not executed.
"""

import contextlib
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError

from kempe_nb.notebook import record
from kempe_nb.publish.checkout import commit, write_atomically
from kempe_nb.publish.environment import environment
from kempe_nb.publish.parameters import checked_parameters
from kempe_nb.publish.project import (
    Project,
    UsageError,
    code_cells,
    first_line,
    read_notebook,
    title_of,
)
from kempe_nb.publish.staleness import (
    code_hashes,
    fingerprint,
    module_files,
    modules_are_unchanged,
    sha256,
    stored_runs_are_unchanged,
    text_hashes,
    versions,
)

_WIDGET = "application/vnd.jupyter.widget-view+json"


@dataclass(frozen=True, eq=False)
class Task:
    """One notebook to execute with one set of parameters.

    Attributes
    ----------
    name : str
        PAPER/N_name, PAPER or kernels/OPERATION.
    source : Path
    parameters : mapping
    project : Project
    """

    name: str
    source: Path
    parameters: Mapping[str, object]
    project: Project

    @property
    def title(self) -> str:
        """What to call it in a line of progress: its name, and parameters that are no defaults."""
        extra = [f"{k}={v}" for k, v in sorted(self.parameters.items()) if k != "profile"]
        return "@".join([self.name, *extra])

    @property
    def stem(self) -> str:
        """File name of the executed copy."""
        stem = quote(self.title.removeprefix(self.name.rpartition("/")[0] + "/"), safe="@=, ")
        # A file name has room for some 250 bytes, and for longer ones their hash is name enough.
        return stem if len(stem) <= 150 else f"{self.source.stem}@{sha256(stem.encode())[:16]}"

    @property
    def folder(self) -> Path:
        """The folder of the executed copy: that of its chapter."""
        executed = self.project.executed(self.parameters["profile"])
        return executed / self.name.rpartition("/")[0]

    @property
    def copy(self) -> Path:
        """The executed notebook."""
        return self.folder / f"{self.stem}.ipynb"

    @property
    def facts(self) -> Path:
        """The JSON of facts beside it."""
        return self.folder / f"{self.stem}.json"

    @property
    def partial(self) -> Path:
        """The notebook of a failed run, kept for reading."""
        return self.folder / f"{self.stem}.failed.ipynb"

    @property
    def partial_facts(self) -> Path:
        """The facts of a run that failed at its end, as a claim that turned out otherwise does."""
        return self.folder / f"{self.stem}.failed.json"


@dataclass(frozen=True)
class Outcome:
    """What became of a task: its one line for the reader, and whether it went well."""

    good: bool
    line: str


def plan(
    project: Project, names: list[str], profile: str, parameters: Mapping[str, str]
) -> list[Task]:
    """Return the tasks of a command; refuse anything unknown before a notebook starts."""
    selected = project.select(names)
    if not selected:
        raise UsageError(f"no notebook in {project.book / 'chapters'}")
    return [
        Task(name, path, checked_parameters(path, profile, parameters), project)
        for name, path in selected.items()
    ]


def run(tasks: list[Task], *, jobs: int = 1, force: bool = False, progress: bool = True) -> bool:
    """Execute the tasks that are out of date, print a line for each, and tell whether all is well.

    On a GPU notebooks run one at a time, whatever `jobs` says.
    """
    if jobs < 1:
        raise UsageError(f"jobs is {jobs}; accepted is a positive integer")
    for folder in {task.folder for task in tasks}:
        _clear_leftovers(folder)
    if any(task.parameters["profile"] == "gpu" for task in tasks):
        jobs = 1
    stale = [task for task in tasks if force or not is_fresh(task)]
    for task in tasks:
        if task not in stale:
            print(f"{task.title}: up to date, not executed")
    good = True
    for outcome in _outcomes(stale, min(jobs, max(len(stale), 1)), progress):
        print(outcome.line, flush=True)
        good &= outcome.good
    return good


def is_fresh(task: Task) -> bool:
    """Tell whether the executed copy is what executing the chapter now would give."""
    facts = read_facts(task.facts)
    if facts is None or not task.copy.is_file():
        return False
    return (
        facts.get("notebook_sha256") == sha256(task.copy.read_bytes())
        and facts.get("fingerprint") == fingerprint(read_notebook(task.source), task.parameters)
        and modules_are_unchanged(facts)
        and stored_runs_are_unchanged(facts.get("stored", {}), task.project.book / "chapters")
    )


def read_facts(path: Path) -> dict | None:
    """Return the facts of an executed copy, or None where there are none that can be read."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def gate(notebook: nbformat.NotebookNode, facts: Mapping | None) -> None:
    """Refuse a run that finished but did not do what a chapter has to.

    Raises
    ------
    ValueError
        When a code cell did not run, when a picture has no alt text because it bypassed
        `figures.show`, when a cell shows a warning or a widget, or when the chapter recorded no
        claim.
    """
    for cell in code_cells(notebook):
        if cell.source.strip() and cell.execution_count is None:
            raise ValueError(f"the cell '{first_line(cell)}' was not executed")
        for output in cell.outputs:
            if output.get("name") == "stderr":
                raise ValueError(
                    f"the cell '{first_line(cell)}' writes to stderr: "
                    f"{output.text.strip()[:200]!r}; what a page says it says in print, and a "
                    "warning is answered, or silenced where it is known"
                )
            if _WIDGET in output.get("data", {}):
                raise ValueError(
                    f"the cell '{first_line(cell)}' shows a widget, which is dead on a page; use "
                    "sliders.explore"
                )
            if any(kind.startswith("image/") for kind in output.get("data", {})):
                raise ValueError(
                    f"the cell '{first_line(cell)}' shows a picture without alt text; "
                    "use figures.show(fig, alt=..., caption=...)"
                )
    if facts is None:
        raise ValueError("the chapter wrote no record: its last cell has to call claims.close()")
    if not facts["claims"]:
        raise ValueError("the chapter checked no claim")


def _outcomes(tasks: list[Task], jobs: int, progress: bool):
    if jobs == 1:
        for task in tasks:
            yield execute(task, progress=progress)
        return
    with ThreadPoolExecutor(jobs) as threads:
        futures = [
            threads.submit(_execute_apart, task, progress, number)
            for number, task in enumerate(tasks)
        ]
        try:
            for future in futures:
                yield future.result()
        except BaseException:
            threads.shutdown(wait=True, cancel_futures=True)
            raise


def _execute_apart(task: Task, progress: bool, position: int) -> Outcome:
    """Execute a notebook in a process of its own, whose environment names the file of its facts."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(execute, task, progress=progress, position=position).result()
        except BrokenProcessPool:
            return Outcome(False, f"{task.title}: FAILED, its process was killed; start again")


def execute(task: Task, *, progress: bool = True, position: int = 0) -> Outcome:
    """Execute one notebook; the last good copy is replaced only by a good one."""
    try:
        task.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=task.folder, prefix=f".run-{os.getpid()}-") as folder:
            return _execute_in(Path(folder), task, progress, position)
    except Exception as error:
        # A full disk, a kernel that does not start: whatever it is, the others still run.
        reason = f"{type(error).__name__}: {error}"
        return Outcome(False, f"{task.title}: FAILED, {reason}; the last good copy is kept")


def _execute_in(folder: Path, task: Task, progress: bool, position: int) -> Outcome:
    output, facts_file = folder / "notebook.ipynb", folder / "facts.json"
    # Taken before the run: what is edited meanwhile counts as a change.
    expected = fingerprint(read_notebook(task.source), task.parameters)
    modules, texts = code_hashes(), text_hashes(module_files())
    task.partial_facts.unlink(missing_ok=True)
    started = time.perf_counter()
    try:
        notebook = papermill_run(
            str(task.source),
            output,
            task.parameters,
            facts_file,
            cwd=str(task.source.parent),
            progress_bar={"desc": task.title, "position": position} if progress else False,
        )
    except (PapermillExecutionError, DeadKernelError) as error:
        line = _failure(task, error, output)
        _keep_partial(output, facts_file, task)
        return Outcome(False, line)
    facts = read_facts(facts_file)
    try:
        if facts is not None:
            refuse_another_kernel(facts)
        gate(notebook, facts)
    except ValueError as error:
        _keep_partial(output, facts_file, task)
        return Outcome(False, f"{task.title}: FAILED, {error}")
    facts = facts | _facts_of_run(task, notebook, time.perf_counter() - started)
    facts["fingerprint"] = expected
    facts["modules"] = {name: modules.get(name) for name in facts["modules"]}
    facts["shown"] = {name: texts[name] for name in facts.get("shown", []) if name in texts}
    content = nbformat.writes(notebook).encode()
    facts["notebook_sha256"] = sha256(content)
    write_atomically(task.copy, content, folder)
    write_atomically(task.facts, json.dumps(facts, indent=1).encode(), folder)
    task.partial.unlink(missing_ok=True)
    task.partial_facts.unlink(missing_ok=True)
    return Outcome(True, _summary(task, facts))


def refuse_another_kernel(facts: dict) -> None:
    """Take what the kernel says of itself from the facts of a run, and compare it with our own.

    Raises
    ------
    ValueError
        When the kernel ran in another environment, with another copy of the package or without
        assertions: then the numbers are not those of the code that they would be published for.
    """
    ours, theirs = record.kernel() | {"optimize": 0}, facts.pop("kernel", None)
    if theirs is None:
        raise ValueError("the kernel has another kempe_nb, one that does not say where it is")
    meaning = {
        "environment": "the kernel runs in",
        "package": "the kernel imports kempe_nb from",
        "optimize": "the kernel leaves out assertions, PYTHONOPTIMIZE is",
    }
    for what, words in meaning.items():
        if theirs[what] != ours[what]:
            raise ValueError(
                f"{words} {theirs[what]}; accepted is {ours[what]}, as here: install this checkout "
                "in an environment of its own, as make book does"
            )


class _SparingEngine(NBClientEngine):
    """Papermill's engine, except that the notebook is written when all is over.

    Papermill writes and validates the whole notebook twice for each cell, which takes most of a
    minute for a chapter of four hundred cells. A run that fails is written at its end as well.
    """

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **options):
        output, nb_man.output_path = nb_man.output_path, None
        try:
            return super().execute_managed_notebook(nb_man, kernel_name, **options)
        finally:
            nb_man.output_path = output


papermill_engines.register("sparing", _SparingEngine)

#: What jupyter_client says of a kernel that ends before its first reply. It chooses the ports of a
#: kernel and frees them again until the kernel takes them; another process may be faster.
NEVER_STARTED = "Kernel died before replying to kernel_info"


def papermill_run(
    source: str | nbformat.NotebookNode,
    output: Path,
    parameters: Mapping,
    facts_file: Path,
    *,
    cwd: str,
    progress_bar: Mapping | bool = False,
) -> nbformat.NotebookNode:
    """Execute a notebook, given by its path or as it is, with a file for its facts.

    A kernel that never started has run nothing, so it is started again, twice at most; then, and
    when it dies in a cell, the error is a DeadKernelError.
    """
    # VARIABLE tells the notebook that it is published, and where its facts go. A second thread for
    # products of small matrices makes them several times slower as soon as both cores have work.
    threads = os.environ.get("OPENBLAS_NUM_THREADS", "1")
    variables = {record.VARIABLE: str(facts_file), "OPENBLAS_NUM_THREADS": threads}
    with environment(**variables, **{record.LIVE: None}):
        for _ in range(3):
            try:
                return papermill.execute_notebook(
                    source,
                    str(output),
                    parameters=dict(parameters),
                    kernel_name="python3",
                    engine_name="sparing",
                    cwd=cwd,
                    progress_bar=progress_bar,
                    log_output=False,
                )
            except RuntimeError as error:
                if str(error) != NEVER_STARTED:
                    raise
    raise DeadKernelError("The kernel did not start, three times.")


def _facts_of_run(task: Task, notebook: nbformat.NotebookNode, seconds: float) -> dict:
    cells = code_cells(notebook)
    return {
        "notebook": task.name,
        "title": title_of(notebook),
        "profile": task.parameters["profile"],
        "parameters": dict(task.parameters),
        "seconds": round(seconds, 1),
        "cell_seconds": [c.metadata.get("papermill", {}).get("duration") for c in cells],
        "cells_executed": sum(cell.execution_count is not None for cell in cells),
        "cores": os.cpu_count(),
        "versions": versions(),
        "commit": commit(task.source.parent),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _summary(task: Task, facts: Mapping) -> str:
    claims = facts["claims"]
    verdicts = Counter(claim["verdict"] for claim in claims)
    others = "".join(f", {verdicts[v]} {v}" for v in ("differs", "fails") if verdicts[v])
    return (
        f"{task.title}: {facts['seconds']:.0f} s, peak {facts['peak_mib']:.0f} MiB, "
        f"{facts.get('device', 'unknown device')}, "
        f"{verdicts['holds']} of {len(claims)} claims hold{others}"
    )


def _failure(task: Task, error: Exception, output: Path) -> str:
    where = f"read {task.partial}; the last good copy is kept"
    if isinstance(error, DeadKernelError):
        return f"{task.title}: FAILED, the kernel died in {_running_cell(output)}; {where}"
    cell = f"code cell {error.exec_count} '{error.source.strip().splitlines()[0]}'"
    return f"{task.title}: FAILED in {cell}: {error.ename}: {error.evalue}\n  {where}"


def _running_cell(output: Path) -> str:
    # Papermill calls all cells completed when the kernel is gone; one that began has a time.
    with contextlib.suppress(UsageError, OSError, IndexError):
        cells = read_notebook(output).cells
        begun = [c for c in cells if c.metadata.get("papermill", {}).get("start_time")]
        return f"'{first_line(begun[-1])}'"
    return "an unknown cell"


def _keep_partial(output: Path, facts_file: Path, task: Task) -> None:
    task.partial_facts.unlink(missing_ok=True)
    for made, place in ((output, task.partial), (facts_file, task.partial_facts)):
        if made.is_file():
            os.replace(made, place)


def _clear_leftovers(folder: Path) -> None:
    """Remove the working folders of executors that were killed, and of no other one."""
    for leftover in folder.glob(".run-*"):
        if not _is_alive(int(leftover.name.split("-")[1])):
            shutil.rmtree(leftover, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
