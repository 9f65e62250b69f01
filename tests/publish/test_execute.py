"""The executor: what it runs, what it keeps, and what a fault leaves behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill.engines
import pytest
from jupyter_client.asynchronous import AsyncKernelClient

import kempe_nb
from kempe_nb.__main__ import main
from kempe_nb.notebook import record
from kempe_nb.publish import execute, staleness
from kempe_nb.publish.execute import plan

pytestmark = pytest.mark.slow


def facts(project, name):
    return json.loads((project.executed("cpu") / f"{name}.json").read_text())


def files(project, profile="cpu"):
    return sorted(path.name for path in project.executed(profile).iterdir())


def bytes_of(project, name):
    folder = project.executed("cpu")
    return [(folder / f"{name}{end}").read_bytes() for end in (".ipynb", ".json")]


def test_a_chapter_is_executed_once_and_then_found_up_to_date(project, write, capfd):
    write("small", "print(6 * 7)")
    assert main(["run"]) == 0
    line = capfd.readouterr().out
    assert "small: " in line and "1 of 1 claims hold" in line and "MiB" in line
    before = bytes_of(project, "small")
    recorded = facts(project, "small")
    assert recorded["notebook"] == "small" and recorded["parameters"] == {"profile": "cpu"}
    assert recorded["cells_executed"] == 5 and recorded["seconds"] > 0
    assert recorded["versions"]["python"] and recorded["commit"]
    copy = nbformat.read(project.executed("cpu") / "small.ipynb", 4)
    assert any(
        "42" in out.get("text", "") for cell in copy.cells for out in cell.get("outputs", [])
    )
    assert main(["run"]) == 0
    assert "up to date, not executed" in capfd.readouterr().out
    assert bytes_of(project, "small") == before
    assert files(project) == ["small.ipynb", "small.json"]


@pytest.mark.parametrize("chosen", [None, "3"])
def test_products_run_in_one_thread_unless_the_reader_says_otherwise(
    project, write, monkeypatch, chosen
):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    if chosen:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", chosen)
    write("small", f"import os; assert os.environ['OPENBLAS_NUM_THREADS'] == '{chosen or 1}'")
    assert main(["run"]) == 0
    assert os.environ.get("OPENBLAS_NUM_THREADS") == chosen


@pytest.mark.parametrize("lost", [2, 3])
def test_a_kernel_that_never_started_is_started_again(project, write, capfd, monkeypatch, lost):
    write("small", "print(6 * 7)")
    started, start = [], AsyncKernelClient.wait_for_ready

    async def ready(client, timeout):
        started.append(client)
        if len(started) <= lost:
            raise RuntimeError(execute.NEVER_STARTED)
        await start(client, timeout)

    monkeypatch.setattr(AsyncKernelClient, "wait_for_ready", ready)
    assert main(["run"]) == (lost == 3)
    out, err = capfd.readouterr()
    assert len(started) == 3
    assert ("1 of 1 claims hold" in out) == (lost == 2)
    assert ("the kernel died" in out + err) == (lost == 3)


def test_the_notebook_is_written_a_few_times_however_many_cells_it_has(project, write, monkeypatch):
    written = []
    real = papermill.engines.write_ipynb
    monkeypatch.setattr(
        papermill.engines, "write_ipynb", lambda nb, path: (written.append(path), real(nb, path))
    )
    write("small", *(f"x = {i}" for i in range(20)))
    assert main(["run"]) == 0
    assert len(written) <= 3


def test_only_what_changed_is_executed(project, write, capfd):
    write("first", "x = 1")
    write("second", "x = 1")
    assert main(["run"]) == 0
    capfd.readouterr()
    write("second", "x = 2")
    assert main(["run"]) == 0
    out = capfd.readouterr().out
    assert "first: up to date" in out and "second: up to date" not in out


def test_a_failing_cell_is_named_and_costs_neither_the_good_copy_nor_the_others(
    project, write, capfd
):
    write("a_bad", "x = 1")
    assert main(["run"]) == 0
    good = bytes_of(project, "a_bad")
    write("a_bad", "y = 1", "1 / 0  # the culprit")
    write("b_good")
    capfd.readouterr()
    assert main(["run"]) == 1
    out = capfd.readouterr().out
    assert "a_bad: FAILED in code cell" in out
    assert "1 / 0  # the culprit" in out and "ZeroDivisionError" in out
    assert "b_good: " in out and "1 of 1 claims hold" in out
    assert bytes_of(project, "a_bad") == good
    partial = nbformat.read(project.executed("cpu") / "a_bad.failed.ipynb", 4)
    assert any(o.output_type == "error" for c in partial.cells for o in c.get("outputs", []))
    write("a_bad", "x = 3")
    assert main(["run"]) == 0
    assert "a_bad.failed.ipynb" not in files(project)


def test_a_failing_claim_fails_the_chapter_with_all_of_them(project, write, capfd):
    bad = 'claims.check("small", "Three is at most two.", 3, at_most=2, source="a test")'
    write("chapter", claim=bad)
    assert main(["run"]) == 1
    out = capfd.readouterr().out
    assert "ClaimsError" in out and "small: expected 'holds', found 'fails'" in out


def test_a_killed_kernel_is_reported_and_costs_nothing(project, write, capfd):
    write("chapter", "x = 1")
    assert main(["run"]) == 0
    good = bytes_of(project, "chapter")
    tried = project.root / "tried"
    mark = f"open({str(tried)!r}, 'a').write('x')\n"
    write("chapter", f"import os, signal\n{mark}os.kill(os.getpid(), signal.SIGKILL)")
    capfd.readouterr()
    assert main(["run"]) == 1
    assert "the kernel died in 'import os, signal'; read" in capfd.readouterr().out
    # What killed one kernel is not tried on another.
    assert tried.read_text() == "x"
    assert bytes_of(project, "chapter") == good
    assert not [name for name in files(project) if name.startswith(".run")]


@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)]
)
def test_an_executor_that_is_stopped_starts_again_from_what_is_finished(
    project, write, start, capfd, sent, status
):
    reached = project.root / "reached"
    write("a_done")
    waiting = f"import pathlib, time\npathlib.Path({str(reached)!r}).touch()\n"
    write("b_stopped", waiting + "time.sleep(120)")
    process = start("run", until=reached)
    os.killpg(process.pid, sent) if sent == signal.SIGINT else process.send_signal(sent)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == status, output
    done = bytes_of(project, "a_done")
    finished = [n for n in files(project) if not n.startswith(".run")]
    assert [n for n in finished if not n.endswith(".failed.ipynb")] == [
        "a_done.ipynb",
        "a_done.json",
    ]
    write("b_stopped", waiting)
    assert main(["run"]) == 0
    out = capfd.readouterr().out
    assert "a_done: up to date" in out and "b_stopped: up to date" not in out
    assert bytes_of(project, "a_done") == done
    assert files(project) == ["a_done.ipynb", "a_done.json", "b_stopped.ipynb", "b_stopped.json"]


def test_a_full_disk_keeps_the_last_good_copy(project, write):
    write("chapter", "print('short')")
    assert main(["run"]) == 0
    good = bytes_of(project, "chapter")
    write("chapter", "print('x' * 300_000)")
    # A limit on the size of files is how a disk fills up for one process, without root.
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000));"
        "from kempe_nb.__main__ import main; sys.exit(main(['run']))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", limited], cwd=project.root, capture_output=True, text=True
    )
    assert ran.returncode == 1, ran.stderr
    assert "chapter: FAILED" in ran.stdout and "the last good copy is kept" in ran.stdout
    assert bytes_of(project, "chapter") == good
    assert not [name for name in files(project) if name.startswith(".run")]


def test_a_pair_that_was_torn_apart_counts_as_not_executed(project, write):
    write("chapter")
    assert main(["run"]) == 0
    (task,) = plan(project, [], "cpu", {})
    assert execute.is_fresh(task)
    task.copy.write_text(task.copy.read_text().replace("Prose.", "Prosa."))
    assert not execute.is_fresh(task)
    assert main(["run"]) == 0
    task.facts.write_text(task.facts.read_text()[:-20])
    assert not execute.is_fresh(task)


def test_parameters_reach_the_chapter_and_have_a_copy_of_their_own(project, write):
    write("chapter", "print('seed', seed, profile)")
    assert main(["run", "chapter", "-p", "seed=7"]) == 0
    assert files(project) == ["chapter@seed=7.ipynb", "chapter@seed=7.json"]
    assert "seed 7 cpu" in (project.executed("cpu") / "chapter@seed=7.ipynb").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "notebook is 'nowhere'; accepted are chapter"),
        (["--profile", "tpu"], "profile is 'tpu'; accepted are cpu, gpu"),
        (["-p", "sed=1"], "declares no parameter 'sed'; accepted are seed"),
        (["-p", "seed=many"], "parameter seed is 'many'; accepted is a value of type int"),
        (["-p", "profile=gpu"], "'profile' is set by --profile"),
        (["-p", "seed"], "accepted is name=value"),
        (["--jobs", "0"], "jobs is 0"),
    ],
)
def test_what_does_not_exist_is_refused_before_anything_starts(
    project, write, capfd, arguments, message
):
    write("chapter", "import pathlib\npathlib.Path('started').touch()")
    assert main(["run", *arguments]) == 2
    assert message in capfd.readouterr().err
    assert not list(project.root.rglob("started"))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [(None, "has no cell tagged 'parameters'"), ("seed = 0", "does not declare 'profile'")],
)
def test_a_chapter_without_its_parameters_is_refused(project, write, capfd, parameters, message):
    write("chapter", parameters=parameters)
    assert main(["run"]) == 2
    assert message in capfd.readouterr().err


def test_a_broken_notebook_and_a_missing_project_are_refused(project, capfd, monkeypatch, tmp_path):
    (project.book / "chapters" / "broken.ipynb").write_text("{ not json")
    assert main(["run"]) == 2
    assert "broken.ipynb is not a notebook" in capfd.readouterr().err
    empty = tmp_path / "empty"
    empty.mkdir()
    (project.root / "_toc.yml").unlink()
    monkeypatch.chdir(empty)
    assert main(["run"]) == 2
    assert "no _toc.yml" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "from IPython.display import display\ndisplay({'image/png': 'iVBORw0KGgo='}, raw=True)",
            "shows a picture without alt text",
        ),
        ("claims.clear()", "checked no claim"),
        (
            "import warnings\nwarnings.warn('beware')",
            "the cell 'import warnings' writes to stderr: ",
        ),
        ("from tqdm import tqdm\nfor _ in tqdm([1]):\n    pass", "writes to stderr: "),
        (
            "import ipywidgets\nipywidgets.IntSlider()",
            "the cell 'import ipywidgets' shows a widget, which is dead on a page",
        ),
    ],
)
def test_a_run_that_did_not_do_its_duty_is_refused(project, write, capfd, code, message):
    write("chapter")
    path = project.book / "chapters" / "chapter.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells.insert(-1, nbformat.v4.new_code_cell(code))
    nbformat.write(notebook, path)
    assert main(["run"]) == 1
    assert message in capfd.readouterr().out
    assert files(project) == ["chapter.failed.ipynb", "chapter.failed.json"]


def test_a_chapter_that_does_not_close_its_ledger_is_refused(project, write, capfd):
    path = write("chapter")
    notebook = nbformat.read(path, 4)
    notebook.cells.pop()
    nbformat.write(notebook, path)
    assert main(["run"]) == 1
    assert "has to call claims.close()" in capfd.readouterr().out


def test_a_claim_that_fails_leaves_the_facts_of_its_run(project, write):
    bad = 'claims.check("small", "One is at most zero.", 1, at_most=0, source="a test")'
    write("paper/1_start", claim=bad)
    assert main(["run"]) == 1
    (task,) = plan(project, [], "cpu", {})
    assert task.partial_facts.name == "1_start.failed.json" and not task.facts.exists()
    (claim,) = execute.read_facts(task.partial_facts)["claims"]
    assert (claim["id"], claim["verdict"]) == ("small", "fails")
    # A run that does not come that far leaves none, not those of an earlier one.
    write("paper/1_start", "1 / 0")
    assert main(["run"]) == 1
    assert task.partial.exists() and not task.partial_facts.exists()
    write("paper/1_start")
    assert main(["run"]) == 0
    assert not task.partial.exists() and not task.partial_facts.exists()


def test_a_kernel_with_another_copy_of_the_package_is_refused(project, write, capfd, monkeypatch):
    # As in a checkout that was copied with its environment: the finder holds the old path.
    copy = project.root / "elsewhere" / "kempe_nb"
    package = Path(kempe_nb.__file__).parent
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__", "publish"))
    path = [str(copy.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    write("chapter", "print('ran')")
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path))
        assert main(["run"]) == 1
    out = capfd.readouterr().out
    assert f"FAILED, the kernel imports kempe_nb from {copy.resolve()}; accepted is " in out
    assert str(package.resolve()) in out
    assert main(["run"]) == 0
    # No path of this machine goes into the facts.
    assert "kernel" not in facts(project, "chapter")
    assert str(package) not in (project.executed("cpu") / "chapter.json").read_text()


def test_a_kernel_of_another_environment_or_without_assertions_is_refused():
    ours = record.kernel()
    execute.refuse_another_kernel({"kernel": dict(ours)})
    for name, other, words in (
        ("environment", "/other", "the kernel runs in /other; accepted is "),
        ("package", "/other", "the kernel imports kempe_nb from /other; accepted is "),
        ("optimize", 1, "the kernel leaves out assertions, PYTHONOPTIMIZE is 1; accepted is 0"),
    ):
        with pytest.raises(ValueError, match=words):
            execute.refuse_another_kernel({"kernel": ours | {name: other}})
    with pytest.raises(ValueError, match="another kempe_nb, one that does not say where it is"):
        execute.refuse_another_kernel({})


@pytest.mark.parametrize("command", [["run"], ["sweep", "chapter"], ["results"], ["accept"]])
def test_assertions_are_never_left_out(project, write, capfd, monkeypatch, command):
    write("chapter", "assert 1 == 2")
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    assert main(command) == 2
    assert "PYTHONOPTIMIZE is '1'" in capfd.readouterr().err
    assert not project.build.exists()


def test_assertions_are_there_where_the_variable_says_nothing(project, write, capfd, monkeypatch):
    write("chapter", "assert 1 == 2")
    for harmless in ("", "0"):
        monkeypatch.setenv("PYTHONOPTIMIZE", harmless)
        assert main(["run"]) == 1
        assert "FAILED in code cell 4 'assert 1 == 2'" in capfd.readouterr().out


def test_the_book_is_never_executed_live(project, write, monkeypatch):
    write("chapter", "from kempe_nb.notebook import record\nassert record.is_published()")
    monkeypatch.setenv(record.LIVE, "1")
    assert main(["run"]) == 0
    assert os.environ[record.LIVE] == "1"


def test_what_is_edited_while_it_runs_counts_as_a_change(project, write, monkeypatch):
    write("chapter", "from kempe_nb.notebook.source import show_source\nshow_source(claims.clear)")
    now = staleness.text_hashes(staleness.module_files())
    before = now | {"kempe_nb.notebook.claims": "what it was when the run began"}
    monkeypatch.setattr(execute, "text_hashes", lambda _: before)
    assert main(["run"]) == 0
    (task,) = plan(project, [], "cpu", {})
    assert not execute.is_fresh(task)


def test_a_killed_worker_costs_its_own_chapter_only(project, write, capfd):
    kill = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)"
    write("a_killed", kill)
    write("b_good")
    write("c_good")
    assert main(["run", "--jobs", "2"]) == 1
    out = capfd.readouterr().out
    assert "a_killed: FAILED, its process was killed" in out
    assert {"b_good.json", "c_good.json"} <= set(files(project))


def test_a_chapter_that_is_no_python_fails_alone(project, write, capfd):
    write("a_bad", "x = 1")
    assert main(["run"]) == 0
    write("a_bad", "x = = 1")
    write("b_good")
    assert main(["run"]) == 1
    out = capfd.readouterr().out
    assert "a_bad: FAILED" in out and "SyntaxError" in out and "1 of 1 claims hold" in out


def test_a_module_that_changes_makes_its_chapters_stale(project, write, monkeypatch):
    write("chapter")
    assert main(["run"]) == 0
    (task,) = plan(project, [], "cpu", {})
    used = facts(project, "chapter")["modules"]
    assert "kempe_nb.notebook.claims" in used and "kempe_nb.publish.stage" not in used
    now = staleness.code_hashes()
    monkeypatch.setattr(staleness, "code_hashes", lambda: now | {"kempe_nb.publish.stage": "other"})
    assert execute.is_fresh(task)
    monkeypatch.setattr(staleness, "code_hashes", lambda: now | {"kempe_nb.notebook.claims": "x"})
    assert not execute.is_fresh(task)


@pytest.mark.parametrize(
    ("declared", "given", "value"),
    [
        ("rate = 1e-3", "rate=2e-3", 0.002),
        ("rate = 0.5", "rate=1", 1.0),
        ("name = 'a'", "name=123", "123"),
        ("name = 'a'", "name=x=y/../z", "x=y/../z"),
        ("flag = True", "flag=False", False),
        ("sizes = [1, 2]", "sizes=[3]", [3]),
        ("limit = None", "limit=5", 5),
    ],
)
def test_values_are_python_literals_of_the_declared_type(project, write, declared, given, value):
    write("chapter", parameters=f'profile = "cpu"\n{declared}')
    name, _, text = given.partition("=")
    (task,) = plan(project, [], "cpu", {name: text})
    assert task.parameters[name] == value and type(task.parameters[name]) is type(value)
    assert task.copy.parent == project.executed("cpu")


def test_a_long_value_still_gives_a_file_name(project, write):
    write("chapter", parameters='profile = "cpu"\nname = "a"')
    tasks = [plan(project, [], "cpu", {"name": letter * 400})[0] for letter in "xy"]
    assert all(len(task.copy.name) < 200 for task in tasks)
    assert tasks[0].copy != tasks[1].copy


def test_a_chapter_whose_name_could_be_taken_for_a_copy_is_refused(project, write, capfd):
    write("one@seed=7")
    assert main(["run"]) == 2
    assert "notebook is 'one@seed=7'; accepted in its name" in capfd.readouterr().err


def test_two_jobs_execute_two_chapters(project, write, capfd):
    write("first")
    write("second")
    assert main(["run", "--jobs", "2"]) == 0
    assert files(project) == ["first.ipynb", "first.json", "second.ipynb", "second.json"]


def test_on_a_gpu_chapters_run_one_at_a_time(project, write, monkeypatch):
    write("first")
    write("second")
    asked = []
    monkeypatch.setattr(
        execute, "_outcomes", lambda tasks, jobs, progress: asked.append(jobs) or []
    )
    execute.run(plan(project, [], "gpu", {}), jobs=4)
    execute.run(plan(project, [], "cpu", {}), jobs=4)
    assert asked == [1, 2]
