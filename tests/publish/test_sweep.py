"""Sweeps on real clusters: what is stored, what a lost worker costs, what runs again."""

import csv
import json
import os
import signal
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from kempe_nb.__main__ import main
from kempe_nb.notebook import results
from kempe_nb.publish import confirm, select, staleness, sweep as sweeps
from kempe_nb.publish.project import Project, UsageError
from kempe_nb.publish.stage import stored_runs
from kempe_nb.publish.staleness import stale_reason

pytestmark = pytest.mark.slow

PARAMETERS = 'profile = "cpu"\nseed = 0\nrate = 1.0'
IMPORTS = "from kempe_nb.notebook import results"
KEEP = 'results.keep("laws", error=[seed / 3, rate], steps=seed + 1, word="w")'


@pytest.fixture
def write_sweep(project, write):
    """Write a chapter with one table "laws", whose cells are given."""

    def write_sweep(*cells, shared=IMPORTS, unrelated="print('unrelated')"):
        path = write("small", unrelated, parameters=PARAMETERS)
        notebook = nbformat.read(path, 4)
        tagged = [new_code_cell(shared, metadata={"tags": ["sweep"]})]
        tagged += [new_code_cell(cell, metadata={"tags": ["sweep-laws"]}) for cell in cells]
        notebook.cells[3:3] = tagged
        nbformat.write(notebook, path)
        return path

    return write_sweep


def rows(project, name="laws"):
    with (project.results("small") / f"{name}.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def told(project, name="laws"):
    return json.loads((project.results("small") / f"{name}.json").read_text())


def bytes_of(project):
    return (project.results("small") / "laws.csv").read_bytes()


def logged(project):
    """Return the seeds that runs wrote down when they started."""
    log = project.root / "log"
    return sorted(log.read_text().split()) if log.exists() else []


def log_cell(project):
    return f"with open({str(project.root / 'log')!r}, 'a') as log:\n    log.write(f'{{seed}} ')"


def test_a_grid_becomes_one_row_for_each_run_with_its_provenance(project, write_sweep, capfd):
    write_sweep(KEEP)
    assert main(["sweep", "small", "-p", "rate=0.5,2", "-p", "seed=0:2", "--jobs", "2"]) == 0
    out = capfd.readouterr().out
    assert "small/laws: 4 runs, 4 to compute" in out
    assert "small/laws rate=0.5 seed=1: " in out
    found = rows(project)
    assert [(row["rate"], row["seed"]) for row in found] == [
        *[("0.5", "0"), ("0.5", "1"), ("2.0", "0"), ("2.0", "1")]
    ]
    assert [float(row["error[0]"]) for row in found] == [0, 1 / 3, 0, 1 / 3]
    provenance = told(project)
    assert provenance["command"] == (
        "python -m kempe_nb sweep small --table laws --profile cpu -p rate=0.5,2 -p seed=0,1"
    )
    assert provenance["runs"] == 4 and provenance["seconds"] > 0
    assert provenance["versions"][0]["torch"] and provenance["date"] and provenance["commit"]
    # The sweep depends on what it imported to compute, not on what shows the numbers.
    assert "kempe_nb.notebook.results" not in provenance["modules"]
    stored = results.stored("small/laws")
    assert stored["error"].shape == (4, 2) and stored["word"].tolist() == ["w"] * 4
    assert stored.where(rate=2.0)["steps"].tolist() == [1, 2]


def test_a_kernel_of_a_local_cluster_allocates_memory_as_any_other(project, write_sweep):
    write_sweep(
        'limits = [name for name in os.environ if name.startswith("MALLOC_")]',
        'results.keep("laws", limits=" ".join(limits) or "none")',
        shared=f"import os\n{IMPORTS}",
    )
    own = [name for name in os.environ if name.startswith("MALLOC_")]
    assert main(["sweep", "small", "-p", "seed=0", "--jobs", "1"]) == 0
    assert rows(project)[0]["limits"] == (" ".join(own) or "none")


def test_a_killed_worker_costs_a_retry_and_not_the_sweep(project, write_sweep, capfd):
    # The kernel's parent is the worker. Seed 1 kills it, the first time.
    marker = project.root / "killed"
    kill = (
        f"import os, pathlib, signal, time\nmarker = pathlib.Path({str(marker)!r})\n"
        "if seed == 1 and not marker.exists():\n"
        "    marker.write_text(str(os.getppid()))\n"
        "    os.kill(os.getppid(), signal.SIGKILL)\n"
        "    time.sleep(60)"
    )
    write_sweep(log_cell(project), kill, KEEP)
    assert main(["sweep", "small", "-p", "seed=0:4", "--jobs", "2"]) == 0
    assert marker.exists() and not process_lives(int(marker.read_text()))
    assert [row["seed"] for row in rows(project)] == ["0", "1", "2", "3"]
    # Seed 1 was started again; another run may have been on the lost worker's list, not in it.
    assert logged(project).count("1") == 2
    assert {*logged(project)} == {"0", "1", "2", "3"}


def process_lives(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_interrupted_sweep_resumes_with_what_is_missing(
    project, write_sweep, start, scheduler, capfd
):
    reached = project.root / "reached"
    wait = (
        f"import pathlib, time\nreached = pathlib.Path({str(reached)!r})\n"
        "if seed == 2 and not reached.exists():\n    reached.touch()\n    time.sleep(120)"
    )
    write_sweep(log_cell(project), wait, KEEP)
    process = start("sweep", "small", "-p", "seed=0:4", "--jobs", "1", until=reached)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 130, output
    assert not project.results("small").exists()
    before = logged(project)
    assert before == ["0", "1", "2"]
    capfd.readouterr()
    assert main(["sweep", "small", "-p", "seed=0:4", *scheduler]) == 0
    assert "4 runs, 2 to compute" in capfd.readouterr().out
    assert logged(project) == ["0", "1", "2", "2", "3"]
    assert [row["seed"] for row in rows(project)] == ["0", "1", "2", "3"]


def test_the_order_of_arrival_does_not_change_the_file(
    project, write_sweep, scheduler, monkeypatch
):
    write_sweep(KEEP)
    assert main(["sweep", "small", "-p", "seed=0:3", "--jobs", "1"]) == 0
    first = bytes_of(project)
    arrivals = sweeps._arrivals
    monkeypatch.setattr(sweeps, "_arrivals", lambda *given: reversed(list(arrivals(*given))))
    for entry in (project.build / "sweeps").rglob("*.json"):
        entry.unlink()
    assert main(["sweep", "small", "-p", "seed=0:3", *scheduler]) == 0
    assert bytes_of(project) == first


def test_a_scheduler_is_found_by_its_address(project, write_sweep):
    from distributed import LocalCluster

    write_sweep(KEEP)
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        assert main(["sweep", "small", "-p", "seed=0:2", "--scheduler", address]) == 0
    assert len(rows(project)) == 2


def test_a_failing_run_is_named_and_the_others_are_kept(project, write_sweep, scheduler, capfd):
    write_sweep("1 / (seed - 1)  # the culprit", KEEP)
    assert main(["sweep", "small", "-p", "seed=0:3", *scheduler]) == 1
    out = capfd.readouterr().out
    assert "seed=1: FAILED, in '1 / (seed - 1)  # the culprit': ZeroDivisionError" in out
    assert not project.results("small").exists()
    path = write_sweep(KEEP)
    assert path.exists()
    # The cells have changed, so nothing of the journal counts any more.
    assert main(["sweep", "small", "-p", "seed=0:3", *scheduler]) == 0
    assert "3 runs, 3 to compute" in capfd.readouterr().out


def test_only_what_the_numbers_depend_on_makes_a_file_stale(
    project, write_sweep, scheduler, monkeypatch
):
    write_sweep("from kempe_nb.methods import infinite_memory", KEEP)
    assert main(["sweep", "small", "-p", "seed=0:2", *scheduler]) == 0
    file = project.results("small") / "laws.csv"

    def reason():
        return stale_reason(Project(project.root), file)

    assert reason() == ""
    write_sweep("from kempe_nb.methods import infinite_memory", KEEP, unrelated="print('other')")
    assert reason() == ""
    write_sweep("from kempe_nb.methods import infinite_memory  # why", KEEP)
    assert reason() == ""
    now = staleness.code_hashes()
    other = {"kempe_nb.notebook.figures": "other"}
    monkeypatch.setattr(staleness, "code_hashes", lambda: now | other)
    assert reason() == ""
    other = {"kempe_nb.methods.infinite_memory": "other"}
    assert reason() == "kempe_nb.methods.infinite_memory changed"
    monkeypatch.undo()
    write_sweep(
        "from kempe_nb.methods import infinite_memory", KEEP.replace("seed / 3", "seed / 4")
    )
    assert reason() == "the cells that made it have changed"


def test_the_default_of_a_parameter_counts_where_it_is_used(project, write_sweep, scheduler):
    path = write_sweep(KEEP)
    file = project.results("small") / "laws.csv"
    assert main(["sweep", "small", "-p", "seed=0:2", *scheduler]) == 0
    path.write_text(path.read_text().replace("rate = 1.0", "rate = 2.0"))
    assert stale_reason(project, file) == "the cells that made it have changed"
    path.write_text(path.read_text().replace("rate = 2.0", "rate = 1.0\\nunused = 3"))
    assert stale_reason(project, file) == ""


def test_make_results_remakes_what_is_stale_and_nothing_else(
    project, write_sweep, scheduler, capfd
):
    write_sweep(KEEP)
    assert main(["sweep", "small", "-p", "seed=0:2", *scheduler]) == 0
    assert main(["results", "--jobs", "1"]) == 0
    assert "laws.csv: up to date" in capfd.readouterr().out
    write_sweep(KEEP.replace("seed / 3", "seed / 4"))
    assert stored_runs(project)["small/laws"]["stale"] == "the cells that made it have changed"
    assert main(["results", *scheduler]) == 0
    assert [float(row["error[0]"]) for row in rows(project)] == [0, 1 / 4]
    assert stored_runs(project)["small/laws"]["stale"] == ""


def test_another_grid_of_the_same_table_has_a_name_of_its_own(project, write_sweep, scheduler):
    write_sweep(KEEP)
    assert main(["sweep", "small", "-p", "seed=0:2", *scheduler]) == 0
    named = ["--table", "laws", "--name", "long"]
    assert main(["sweep", "small", *named, "-p", "rate=7", *scheduler]) == 0
    assert len(rows(project)) == 2 and rows(project, "long")[0]["rate"] == "7.0"
    again = confirm.stored_sweep(project, project.results("small") / "long.csv")
    assert again.arguments() == [
        *("sweep", "small", "--table", "laws", "--name", "long", "--profile", "cpu"),
        *("-p", "rate=7"),
    ]


def test_a_page_that_reads_a_stored_file_is_executed_again_when_the_file_changes(
    project, write_sweep, scheduler, capfd
):
    write_sweep(KEEP)
    assert main(["sweep", "small", "-p", "seed=0:2", *scheduler]) == 0
    write_sweep(KEEP, unrelated="print(len(results.stored('small/laws')))")
    assert main(["run"]) == 0
    assert main(["run"]) == 0
    assert "up to date" in capfd.readouterr().out
    assert main(["sweep", "small", "-p", "seed=0:3", *scheduler]) == 0
    assert main(["run"]) == 0
    assert "up to date" not in capfd.readouterr().out


def test_a_worker_with_other_code_is_refused(project, write_sweep, scheduler, capfd, monkeypatch):
    write_sweep(KEEP)
    wrong = sweeps.code_hashes() | {"kempe_nb.methods.infinite_memory": "other"}
    monkeypatch.setattr(sweeps, "code_hashes", lambda: wrong)
    assert main(["sweep", "small", "-p", "seed=0:1", *scheduler]) == 1
    assert "another kempe_nb.methods.infinite_memory" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "notebook is 'nowhere'"),
        (["small", "--table", "other"], "tags no cell sweep-other; accepted are laws"),
        (["small", "--name", "other"], "--name needs --table"),
        (["small", "--table", "laws", "--name", "../x"], "name is '../x'"),
        (["small", "-p", "sed=1"], "declares no parameter 'sed'"),
        (["small", "-p", "seed=3:3"], "a grid is '3:3'"),
        (["small", "-p", "seed=1,,2"], "a grid is '1,,2'"),
        (["small", "-p", "seed=1,1"], "holds a point twice"),
        (["small", "-p", "seed=1", "--jobs", "0"], "jobs is 0"),
        (["small", "-p", "seed=1", "--profile", "tpu"], "profile is 'tpu'"),
        (["small", "-p", "seed=1", "--scheduler", "nothing://x"], "scheduler 'nothing://x'"),
    ],
)
def test_what_does_not_exist_is_refused_before_anything_starts(
    project, write_sweep, capfd, arguments, message
):
    write_sweep(log_cell(project), KEEP)
    assert main(["sweep", *arguments]) == 2
    assert message in capfd.readouterr().err
    assert logged(project) == [] and not project.results("small").exists()


def test_two_sweeps_on_one_scheduler_never_exchange_rows(project, write, start, scheduler):
    # Two chapters with a table of one name and one grid; the first run is not over when the second
    # sweep asks the scheduler.
    reached, go = project.root / "reached", project.root / "go"
    wait = (
        f"import pathlib, time\nfrom kempe_nb.notebook import results\n"
        f"pathlib.Path({str(reached)!r}).touch()\n"
        f"for _ in range(600):\n    if not pathlib.Path({str(go)!r}).exists():\n"
        "        time.sleep(0.1)\n"
    )
    for name, body in (
        ("alpha", wait + 'results.keep("laws", who="alpha", x=seed)'),
        ("beta", f'{IMPORTS}\nresults.keep("laws", who="beta", y=seed * 100)'),
    ):
        path = write(name)
        notebook = nbformat.read(path, 4)
        notebook.cells.insert(2, new_code_cell(body, metadata={"tags": ["sweep-laws"]}))
        nbformat.write(notebook, path)
    first = start("sweep", "alpha", "-p", "seed=3", *scheduler, until=reached)
    assert main(["sweep", "beta", "-p", "seed=3", *scheduler]) == 0
    go.touch()
    output, _ = first.communicate(timeout=600)
    assert first.returncode == 0, output
    found = [(project.results(name) / "laws.csv").read_text() for name in ("alpha", "beta")]
    assert found == ["seed,who,x\n3,alpha,3\n", "seed,who,y\n3,beta,300\n"]


@pytest.fixture
def lesson(project, write):
    """Write a lesson with cells that are given as (tag, source)."""

    def lesson(name, *cells):
        path = write(f"paper/{name}", parameters=PARAMETERS)
        notebook = nbformat.read(path, 4)
        notebook.cells[2:2] = [
            new_code_cell(source, metadata={"tags": [tag]}) for tag, source in cells
        ]
        nbformat.write(notebook, path)

    return lesson


def test_a_paper_stands_for_the_tables_of_all_its_lessons(project, lesson, scheduler, capfd):
    # What a table needs stands in tagged cells of its lesson, imports too, and in no other one's.
    lesson(
        "1_first",
        ("sweep", "import math"),
        ("sweep-laws", "from kempe_nb.notebook import results"),
        ("sweep-laws", "def rounded():\n    return math.floor(seed + HALF)"),
        ("sweep-laws", "HALF = 0.5"),
        ("sweep-laws", 'results.keep("laws", x=rounded())'),
    )
    lesson("2_second", ("sweep", IMPORTS), ("sweep-memory", 'results.keep("memory", y=seed * 2)'))
    lesson("3_reads")
    assert main(["sweep", "paper", "-p", "seed=1:3", *scheduler]) == 0
    assert "paper/laws: 2 runs" in capfd.readouterr().out
    files = sorted(file.name for file in project.results("paper").iterdir())
    assert files == ["laws.csv", "laws.json", "memory.csv", "memory.json"]
    provenance = json.loads((project.results("paper") / "memory.json").read_text())
    assert provenance["notebook"] == "paper/2_second" and "chapter" not in provenance
    assert provenance["command"] == (
        "python -m kempe_nb sweep paper/2_second --table memory --profile cpu -p seed=1,2"
    )
    for file in project.results("paper").glob("*.csv"):
        assert stale_reason(project, file) == ""
    # A lesson reads a table of another one from its own folder.
    reads = "results.stored('paper/memory')['y'].tolist() == [2, 4]"
    lesson("3_reads", ("hide-input", f"{IMPORTS}\nassert {reads}"))
    assert main(["run", "paper/3_reads"]) == 0
    recorded = json.loads((project.executed("cpu") / "paper" / "3_reads.json").read_text())
    assert recorded["stored"] == {"paper/memory": provenance["sha256"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["paper"], "table 'laws' is made by paper/1_first and by paper/2_second; accepted is one"),
        (["paper/1_first"], "table 'laws' is made by paper/1_first and by paper/2_second"),
        (["paper/2_second", "--table", "laws"], "table 'laws' is made by paper/1_first"),
        (["paper/3_reads"], "table 'laws' is made by"),
    ],
)
def test_two_lessons_cannot_make_one_table(project, lesson, capfd, arguments, message):
    for name in ("1_first", "2_second"):
        lesson(name, ("sweep", IMPORTS), ("sweep-laws", KEEP))
    lesson("3_reads")
    assert main(["sweep", *arguments, "-p", "seed=1"]) == 2
    assert message in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["paper", "--table", "other"],
            "table is 'other', but paper tags no cell sweep-other; accepted are laws, memory",
        ),
        (["paper/1_first", "--table", "memory"], "paper/1_first tags no cell sweep-memory"),
        (["paper/3_reads"], "paper/3_reads keeps no table: no cell is tagged sweep-TABLE"),
        (
            ["paper/1_first", "--table", "laws", "--name", "memory"],
            "name is 'memory', the table that paper/2_second makes; accepted is another",
        ),
        (["paper", "-p", "rate=1", "-p", "seed=x"], "parameter seed is 'x'"),
    ],
)
def test_a_sweep_of_lessons_is_refused_with_what_is_accepted(
    project, lesson, capfd, arguments, message
):
    lesson("1_first", ("sweep", IMPORTS), ("sweep-laws", KEEP))
    lesson("2_second", ("sweep", IMPORTS), ("sweep-memory", KEEP.replace("laws", "memory")))
    lesson("3_reads")
    assert main(["sweep", *arguments]) == 2
    assert message in capfd.readouterr().err
    assert not project.build.exists()


def test_a_kept_number_cannot_take_the_column_of_a_parameter(
    project, write_sweep, scheduler, capfd
):
    write_sweep('results.keep("laws", seed=0, x=1)')
    assert main(["sweep", "small", "-p", "seed=1", *scheduler]) == 2
    assert "table 'laws' keeps 'seed', which is a parameter" in capfd.readouterr().err
    assert not project.results("small").exists()


def select_cells(*sources):
    """Select the cells of a table "laws" that keeps a number."""
    sources = (f"{IMPORTS}\nresults.keep('laws', x=1)", *sources)
    cells = [new_code_cell(source, metadata={"tags": ["sweep-laws"]}) for source in sources]
    return select.selected_cells(new_notebook(cells=cells), "laws", Path("chapters/small.ipynb"))


@pytest.mark.parametrize(
    "sources",
    [
        ["import os.path, sys as system\nfrom math import pi as half\nos, system, half"],
        ["class Kind:\n    pass\nasync def later(a, *b, **c):\n    return a, b, c\nKind, later"],
        ["def count():\n    global counted\n    counted = 1", "count(), counted"],
        ["def early():\n    return late", "late = 1\nearly()"],
        ["squares = [n * n for n in range(3) if n]\nsorted(squares, key=lambda each: -each)"],
        ["try:\n    pass\nexcept OSError as error:\n    print(error)"],
        ["match 1:\n    case [first, *rest]:\n        first, rest"],
        ["match 1:\n    case str() as text:\n        text"],
        ["match {}:\n    case {'a': 1, **others}:\n        others"],
        ["with open('f') as file, (n := 1):\n    file, n"],
        ["display(get_ipython(), ExceptionGroup, __name__)"],
        ["%timeit n\nfound = !ls\nfound", "%%bash\nls $n", "%%time\ntimed = 1", "timed"],
        [],
    ],
)
def test_names_that_any_statement_binds_are_known_to_the_cells(sources):
    assert len(select_cells(*sources)) == 1 + len(sources)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["x = 1", "", "# y\ny = x\nz = path"], "the cell '# y' uses 'path', which no cell tagged"),
        (["def f():\n    return path"], "the cell 'def f():' uses 'path'"),
        (["x = path", "path = 1"], "the cell 'x = path' uses 'path'"),
        (["path  # noqa"], "the cell 'path  # noqa' uses 'path'"),
        (["%%time\nx = path"], "the cell '%%time' uses 'path'"),
        (["[n for n in (1, 2)]\nn"], "uses 'n'"),
        (["x = 1", ">>> path"], "small: the cell '>>> path': Expected a statement"),
    ],
)
def test_a_cell_that_uses_what_none_defines_is_named(sources, message):
    with pytest.raises(UsageError) as refused:
        select_cells(*sources)
    assert message in str(refused.value)


def no_ruff():
    raise FileNotFoundError("bin/ruff")


@pytest.mark.parametrize(
    ("find", "reason"),
    [(no_ruff, "bin/ruff"), (lambda: sys.executable, "can't open file .*check")],
)
def test_ruff_that_does_not_run_is_said(monkeypatch, find, reason):
    monkeypatch.setattr(select, "find_ruff_bin", find)
    with pytest.raises(UsageError, match=rf"does not run: .*{reason}.*kempe-nb\[book\]"):
        select_cells()


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["x = missing + 1", KEEP], "the cell 'x = missing + 1' uses 'missing'"),
        (["x = 1"], "tagged sweep-laws keeps 'laws'"),
        (["x = = 1", KEEP], "small: the cell 'x = = 1': invalid syntax"),
    ],
)
def test_cells_that_do_not_stand_alone_are_refused(project, write_sweep, capfd, cells, message):
    write_sweep(*cells, unrelated="missing = 1")
    assert main(["sweep", "small", "-p", "seed=1"]) == 2
    assert message in capfd.readouterr().err


def test_runs_that_keep_different_columns_make_no_file(project, write_sweep, scheduler, capfd):
    write_sweep('results.keep("laws", **{f"error_{seed}": 1.0})'.replace("error_", "e"))
    assert main(["sweep", "small", "-p", "seed=0:2", *scheduler]) == 2
    assert "kept other columns than the first: ['e0', 'e1']" in capfd.readouterr().err
    assert not project.results("small").exists()


def test_a_torn_pair_is_refused(project, write_sweep, scheduler, capfd):
    write_sweep(KEEP)
    assert main(["sweep", "small", "-p", "seed=0:2", *scheduler]) == 0
    file = project.results("small") / "laws.csv"
    file.write_text(file.read_text() + "typed,by,hand,0,0\n")
    with pytest.raises(results.ResultsError, match="not the file that laws.json tells of"):
        results.stored("small/laws")
    with pytest.raises(UsageError, match="not the file"):
        stored_runs(project)
    assert main(["results"]) == 1
    assert "laws.csv is not the file" in capfd.readouterr().out


def test_a_table_never_takes_the_file_of_another(project, write_sweep, scheduler, capfd):
    write_sweep(KEEP)
    assert main(["sweep", "small", "-p", "seed=0:2", *scheduler]) == 0
    file = project.results("small") / "laws.csv"
    before = file.read_bytes()
    other = ["--table", "laws", "--name", "laws", "--profile", "gpu", "-p", "seed=0:2"]
    assert main(["sweep", "small", *other]) == 2
    message = "name is 'laws', the file of table 'laws' with profile 'cpu'; accepted is another"
    assert message in capfd.readouterr().err
    assert file.read_bytes() == before


def test_a_parameter_may_have_any_name_of_python(project, write, scheduler):
    path = write("small", parameters='profile = "cpu"\nseed = 0\nN = 1\n_x = 2')
    notebook = nbformat.read(path, 4)
    notebook.cells[2:2] = [
        new_code_cell("from kempe_nb.notebook import results", metadata={"tags": ["sweep"]}),
        new_code_cell('results.keep("laws", error=N + _x)', metadata={"tags": ["sweep-laws"]}),
    ]
    nbformat.write(notebook, path)
    assert main(["sweep", "small", "-p", "N=3,4", "-p", "_x=5", *scheduler]) == 0
    told = results.stored("small/laws", project.book / "chapters")
    assert told["N"].tolist() == [3, 4] and told["error"].tolist() == [8, 9]


def test_another_profile_has_a_file_of_its_own(project, write_sweep):
    write_sweep(KEEP)
    plans = [sweeps.plan_sweep(project, "small", "laws", {}, profile=p) for p in ("cpu", "gpu")]
    assert [plan.file.name for plan in plans] == ["laws.csv", "laws_gpu.csv"]
    assert "--name" not in plans[1].arguments()


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0:3", ["0", "1", "2"]),
        ("-1:1", ["-1", "0"]),
        ("1,2.5", ["1", "2.5"]),
        ("[1,2],[3]", ["[1,2]", "[3]"]),
        ("(1,2)", ["(1,2)"]),
        ("a", ["a"]),
    ],
)
def test_a_grid_is_spelled_out(text, values):
    assert sweeps.spelled_out(text) == values
