"""What becomes of a stored table whose code has changed: one row decides, and says so."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell

import kempe_nb
from kempe_nb.__main__ import main
from kempe_nb.notebook import results
from kempe_nb.notebook.machine import processor
from kempe_nb.publish import confirm, sweep as sweeps
from kempe_nb.publish.checkout import commit
from kempe_nb.publish.project import UsageError
from kempe_nb.publish.stage import stored_runs
from kempe_nb.publish.staleness import code_of_table, computing, stale_reason
from kempe_nb.publish.sweep_file import write_file

PARAMETERS = 'profile = "cpu"\nseed = 0\nrate = 1.0'
KEEP = 'results.keep("laws", error=[seed / 3, rate])'
SAME = 'results.keep("laws", error=[seed * 1 / 3, rate])'
OTHER = 'results.keep("laws", error=[seed / 3 + 1e-15, rate])'


@pytest.fixture
def lesson(project, write):
    """Write a lesson with the table "laws", every run of which is told in a log."""

    def lesson(*cells, shared="from kempe_nb.notebook import results", name="paper/1_laws"):
        log = f"with open({str(project.root / 'log')!r}, 'a') as log:\n    log.write(f'{{seed}} ')"
        path = write(name, parameters=PARAMETERS)
        notebook = nbformat.read(path, 4)
        tagged = [new_code_cell(s, metadata={"tags": ["sweep"]}) for s in (shared, log)]
        tagged += [new_code_cell(cell, metadata={"tags": ["sweep-laws"]}) for cell in cells]
        notebook.cells[2:2] = tagged
        nbformat.write(notebook, path)

    return lesson


@pytest.fixture
def runs(project):
    """Return the seeds of the runs since the last time it was asked."""
    log = project.root / "log"

    def runs():
        found = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return found

    return runs


def table(project, name="laws"):
    return project.results("paper") / f"{name}.csv"


def told(project, name="laws"):
    return json.loads(table(project, name).with_suffix(".json").read_text())


def no_worktree_is_left(project, git):
    left = [p for p in (project.build / "worktrees").iterdir() if p.name != ".lock"]
    return left == [] and len(git("worktree", "list").splitlines()) == 1


SWEEP = ["sweep", "paper"]


@pytest.mark.slow
def test_code_that_computes_the_same_is_confirmed_by_one_row(
    project, lesson, git, runs, scheduler, capfd, monkeypatch
):
    lesson(KEEP)
    git("add", ".")
    git("commit", "-q", "-m", "lesson")
    long = ["--table", "laws", "--name", "laws_long", "-p", "rate=7"]
    assert main([*SWEEP, *scheduler, "-p", "seed=2:5"]) == 0
    assert main([*SWEEP, *scheduler, *long, "-p", "seed=8:10"]) == 0
    made = commit(project.root, without=sweeps.RESULTS)
    assert told(project)["commit"] == told(project, "laws_long")["commit"] == [made]
    lesson(SAME)
    git("add", ".")
    git("commit", "-q", "-m", "the same otherwise")
    before = [table(project, name).read_bytes() for name in ("laws", "laws_long")]
    runs(), capfd.readouterr()
    # As inside of a hook of another repository.
    monkeypatch.setenv("GIT_DIR", str(project.root / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(project.root / "elsewhere" / "index"))
    assert main(["results"]) == 0
    out = capfd.readouterr().out
    place = "book/chapters/paper/results"
    assert f"{place}/laws.csv: the cells that made it have changed" in out
    assert f"{place}/laws.csv: confirmed by row 1 of 3 of laws" in out
    assert f"{place}/laws_long.csv: confirmed by row 1 of 3 of laws" in out
    # One row, by the commit and by the present code; the long table has no run of its own.
    assert runs() == ["2", "2"]
    for name, content in zip(("laws", "laws_long"), before, strict=True):
        assert table(project, name).read_bytes() == content
        assert told(project, name)["commit"] == [made]
        assert told(project, name)["confirmed"] == [
            {
                "by": "row 1 of 3 of laws",
                "commit": commit(project.root, without=sweeps.RESULTS),
                "device": processor(),
                "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            }
        ]
        assert stale_reason(project, table(project, name)) == ""
    assert stored_runs(project)["paper/laws"]["stale"] == ""
    for name in ("GIT_DIR", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name)
    assert no_worktree_is_left(project, git)
    assert not (project.root / "elsewhere").exists()
    assert main(["results"]) == 0
    assert capfd.readouterr().out.count("up to date") == 2 and runs() == []


@pytest.mark.slow
def test_code_that_computes_something_else_makes_all_rows_again(
    project, lesson, git, runs, scheduler, capfd
):
    lesson(KEEP)
    git("add", ".")
    git("commit", "-q", "-m", "lesson")
    assert main([*SWEEP, *scheduler, "-p", "seed=2:4"]) == 0
    lesson(OTHER)
    runs(), capfd.readouterr()
    assert main(["results", *scheduler]) == 0
    out = capfd.readouterr().out
    assert "row 1 of laws is another one at commit" in out
    assert "in 1 of 2 columns, first error[0]; all rows are made again" in out
    assert sorted(runs()) == ["2", "2", "2", "3"] and "confirmed" not in told(project)
    assert results.stored("paper/laws")["error"][:, 0].tolist() == [2 / 3 + 1e-15, 1 + 1e-15]
    assert stale_reason(project, table(project)) == ""
    assert no_worktree_is_left(project, git)


@pytest.mark.slow
def test_a_commit_whose_code_fails_here_confirms_nothing(
    project, lesson, git, runs, scheduler, capfd
):
    fail = f"import os\nassert not os.path.exists({str(project.root / 'fail')!r})  # an old one"
    lesson(fail, KEEP)
    git("add", ".")
    git("commit", "-q", "-m", "lesson")
    assert main([*SWEEP, *scheduler, "-p", "seed=2:4"]) == 0
    (project.root / "fail").touch()
    lesson(SAME)
    runs(), capfd.readouterr()
    assert main(["results", *scheduler]) == 0
    out = capfd.readouterr().out
    assert "fails here (paper/laws seed=2: FAILED, in 'import os': AssertionError" in out
    assert "all rows are made again" in out
    assert no_worktree_is_left(project, git)


@pytest.mark.slow
def test_a_commit_runs_with_the_package_that_it_holds(project, lesson, git):
    package = Path(kempe_nb.__file__).parent
    shutil.copytree(
        package, project.root / "kempe_nb", ignore=shutil.ignore_patterns("__pycache__")
    )
    lesson(
        'results.keep("laws", home=kempe_nb.__file__, runner=runner)',
        shared="import os\nimport kempe_nb\nfrom kempe_nb.notebook import results\n"
        "with open(f'/proc/{os.getppid()}/environ') as file:\n"
        "    runner = dict(v.partition('=')[::2] for v in file.read().split('\\0'))['PYTHONPATH']\n"
        "runner = runner.split(os.pathsep)[0]",
    )
    git("add", ".")
    git("commit", "-q", "-m", "lesson")
    sweep = sweeps.plan_sweep(project, "paper/1_laws", "laws", {"seed": "0"})
    name = git("rev-parse", "--short", "HEAD")
    row = confirm.row_of_commit(sweep, name)
    folder = project.build / "worktrees" / name
    assert row == {"home": str(folder / "kempe_nb" / "__init__.py"), "runner": str(folder)}
    assert no_worktree_is_left(project, git)


# From here on no notebook runs: rows are made up.


@pytest.fixture
def stored(project, lesson):
    """Store a table of made-up rows as a sweep does that ran at these commits."""

    def stored(name, *commits, grid=None, profile="cpu", modules=()):
        sweep = sweeps.plan_sweep(
            project, "paper/1_laws", "laws", grid or {"seed": "2:4"}, profile=profile, name=name
        )
        code = code_of_table(sweep.source, "laws", sweep.grid)
        known = confirm.code_hashes()
        entries = [
            {
                "row": {"error": 0.5},
                "modules": {m: known.get(m, "gone") for m in modules},
                **{"seconds": 1.0, "device": "a", "cores": 1, "versions": {}, "date": "d"},
                "commit": commits[i % len(commits)],
            }
            for i in range(len(sweep.runs))
        ]
        write_file(sweep, entries, code)
        return sweep.file

    lesson(KEEP)
    return stored


@pytest.fixture
def rows(monkeypatch):
    """Rows by commit, "now" for the present code; what was asked for, and what was made again."""

    class Rows(dict):
        asked = []
        remade = []
        modules = {}

    rows = Rows(now={"error": 0.5})
    rows.asked, rows.remade = [], []

    def row_of_commit(sweep, name):
        rows.asked.append((sweep.name, name))
        return {key: str(value) for key, value in rows[name].items()}

    def compute_first(sweep, hashes):
        rows.asked.append((sweep.name, "now"))
        if isinstance(rows["now"], Exception):
            raise rows["now"]
        return {"row": rows["now"], "modules": rows.modules, "device": "this one"}

    monkeypatch.setattr(confirm, "row_of_commit", row_of_commit)
    monkeypatch.setattr(confirm, "compute_first", compute_first)
    monkeypatch.setattr(
        confirm, "run_sweep", lambda sweep, **_: rows.remade.append(sweep.name) or True
    )
    return rows


@pytest.mark.parametrize("name", ["unknown", "1234567-dirty"])
def test_a_table_of_no_commit_is_made_again_without_a_trial(
    project, lesson, stored, rows, capfd, name
):
    stored("laws", name)
    lesson(SAME)
    assert main(["results"]) == 0
    said = f"laws.csv: it was made at commit {name}, which cannot be run again; all rows are made"
    assert said in capfd.readouterr().out
    assert (rows.asked, rows.remade) == ([], ["laws"])


def test_a_commit_that_is_not_here_is_named(project, lesson, stored, git, monkeypatch, capfd):
    stored("laws", "1234567")
    lesson(SAME)
    remade = []
    now = {"row": {"error": 0.5}, "modules": {}, "device": "a"}
    monkeypatch.setattr(confirm, "compute_first", lambda *_: now)
    monkeypatch.setattr(confirm, "run_sweep", lambda sweep, **_: remade.append(sweep.name) or True)
    assert main(["results"]) == 0
    assert "commit 1234567 cannot be checked out (fatal: " in capfd.readouterr().out
    assert remade == ["laws"] and no_worktree_is_left(project, git)


def test_a_table_that_two_commits_made_has_to_agree_with_both(project, lesson, stored, rows, capfd):
    stored("laws", "aaa", "bbb")
    rows |= {"aaa": {"error": 0.5}, "bbb": {"error": 0.5}}
    lesson(SAME)
    assert main(["results"]) == 0
    assert sorted(rows.asked) == [("laws", "aaa"), ("laws", "bbb"), ("laws", "now")]
    assert rows.remade == [] and told(project)["confirmed"][0]["device"] == "this one"
    lesson(KEEP)
    rows["bbb"] = {"error": 0.25}
    assert main(["results"]) == 0
    assert "another one at commit bbb and now" in capfd.readouterr().out
    assert rows.remade == ["laws"]


def test_a_table_of_another_commit_is_judged_at_that_commit_by_the_row_of_its_base(
    project, lesson, stored, rows
):
    stored("laws", "aaa")
    stored("laws_long", "bbb", grid={"rate": "7", "seed": "0:9"})
    stored("laws_more", "aaa", grid={"rate": "8"})
    rows |= {"aaa": {"error": 0.5}, "bbb": {"error": 0.25}}
    lesson(SAME)
    assert main(["results"]) == 0
    # Every row is computed once.
    assert sorted(rows.asked) == [("laws", "aaa"), ("laws", "bbb"), ("laws", "now")]
    assert rows.remade == ["laws_long"]
    assert [c["by"] for c in told(project, "laws_more")["confirmed"]] == ["row 1 of 2 of laws"]


def test_a_table_without_a_base_is_judged_by_its_own_row(project, lesson, stored, rows):
    stored("laws_long", "aaa", grid={"rate": "7"})
    rows["aaa"] = {"error": 0.5}
    lesson(SAME)
    assert main(["results"]) == 0
    assert sorted(rows.asked) == [("laws_long", "aaa"), ("laws_long", "now")]
    assert told(project, "laws_long")["confirmed"][0]["by"] == "row 1 of 1 of laws_long"


def test_a_table_of_a_gpu_takes_no_verdict_of_a_cpu(project, lesson, stored, rows, capfd):
    # A row of the CPU runs none of the code for GPUs.
    stored("laws", "aaa")
    stored("laws_gpu", "aaa", profile="gpu")
    rows["aaa"] = {"error": 0.5}
    lesson(SAME)
    assert main(["results"]) == 0
    assert {name for name, _ in rows.asked} == {"laws", "laws_gpu"}


def test_a_confirmed_table_depends_on_the_modules_of_now(project, lesson, stored, rows):
    known = confirm.code_hashes()
    before, after = computing(sorted(known))[:2]
    stored("laws", "aaa", modules=[before, "kempe_nb.methods.gone"])
    rows["aaa"] = {"error": 0.5}
    rows.modules = {after: known[after]}
    assert stale_reason(project, table(project)) == "kempe_nb.methods.gone changed"
    lesson(SAME)
    assert main(["results"]) == 0
    assert told(project)["modules"] == {before: known[before], after: known[after]}


def test_present_code_that_fails_costs_no_table(project, lesson, stored, rows, capfd):
    stored("laws", "aaa")
    rows |= {"aaa": {"error": 0.5}, "now": UsageError("the present code fails")}
    lesson(SAME)
    before = table(project).read_bytes(), told(project)
    assert main(["results"]) == 1
    assert "laws.csv: the present code fails" in capfd.readouterr().out
    assert (table(project).read_bytes(), told(project)) == before and rows.remade == []


def test_a_table_whose_notebook_is_gone_is_named_and_costs_the_others_nothing(
    project, lesson, stored, rows, capfd
):
    stored("laws", "aaa")
    rows["aaa"] = {"error": 0.5}
    file = stored("orphan", "aaa").with_suffix(".json")
    file.write_text(file.read_text().replace("paper/1_laws", "paper/0_gone"))
    lesson(SAME)
    assert main(["results"]) == 1
    out = capfd.readouterr().out
    assert "orphan.csv: the notebook paper/0_gone is gone" in out
    assert "laws.csv: confirmed by row 1 of 2 of laws" in out


def test_rows_that_cannot_be_made_again_cost_the_other_tables_nothing(
    project, lesson, stored, rows, monkeypatch, capfd
):
    stored("laws", "aaa-dirty")
    stored("laws_long", "aaa-dirty", grid={"rate": "7"})

    def refuse(sweep, **_):
        rows.remade.append(sweep.name)
        raise UsageError("no row")

    monkeypatch.setattr(confirm, "run_sweep", refuse)
    lesson(SAME)
    assert main(["results"]) == 1
    assert capfd.readouterr().out.count(".csv: no row") == 2
    assert rows.remade == ["laws", "laws_long"]


def test_a_table_of_an_older_version_says_what_it_lacks(project, stored, capfd):
    file = stored("laws", "aaa").with_suffix(".json")
    file.write_text(file.read_text().replace('"notebook"', '"chapter"'))
    assert main(["results"]) == 1
    assert "laws.json does not tell notebook; make the file again" in capfd.readouterr().out


def test_the_clock_decides_about_nothing(project, lesson, stored, rows, capfd):
    stored("laws", "aaa")
    rows["aaa"] = {"error": 0.5, "seconds[0,1]": 1.25}
    rows["now"] = {"error": 0.5, "seconds[0,1]": 1.5}
    lesson(SAME)
    assert main(["results"]) == 0 and rows.remade == []
    rows["aaa"]["seconds_left"] = 1.0
    lesson(KEEP + "\n")
    lesson(OTHER)
    assert main(["results"]) == 0
    assert "another one at commit aaa and now, in 1 of" in capfd.readouterr().out
    assert rows.remade == ["laws"]


def test_a_torn_table_costs_the_others_nothing(project, lesson, stored, rows, capfd):
    torn, sound = stored("laws_torn", "aaa"), stored("laws", "aaa")
    torn.write_text(torn.read_text() + "0,0\n")
    rows["aaa"] = {"error": 0.5}
    lesson(SAME)
    assert main(["results"]) == 1
    out = capfd.readouterr().out
    assert "laws_torn.csv is not the file that laws_torn.json tells of" in out
    assert "laws.csv: confirmed by row 1 of 2 of laws" in out and rows.remade == []
    assert sound.exists()


def test_a_change_while_rows_run_is_a_change(project, lesson, stored, rows, monkeypatch):
    stored("laws", "aaa")

    def edit(sweep, name):
        lesson(OTHER)
        return {"error": "0.5"}

    monkeypatch.setattr(confirm, "row_of_commit", edit)
    lesson(SAME)
    assert main(["results"]) == 0
    assert stale_reason(project, table(project)) == "the cells that made it have changed"


def test_a_commit_while_rows_run_is_not_the_one_that_was_compared(
    project, lesson, stored, rows, git, monkeypatch
):
    stored("laws", "aaa")
    lesson(SAME)
    git("add", "-A")
    git("commit", "-q", "-m", "compared")
    compared = commit(project.root, without=sweeps.RESULTS)

    def commit_more(sweep, name):
        (project.root / "more.txt").write_text("more")
        git("add", "-A")
        git("commit", "-q", "-m", "more")
        return {"error": "0.5"}

    monkeypatch.setattr(confirm, "row_of_commit", commit_more)
    assert main(["results"]) == 0
    assert commit(project.root, without=sweeps.RESULTS) != compared
    assert told(project)["confirmed"][-1]["commit"] == compared


@pytest.mark.parametrize("name", ["../../victim", "", ".", "HEAD"])
def test_a_commit_is_a_hash_and_nothing_else_is_removed(project, name):
    victim = project.root / "victim"
    victim.mkdir()
    with pytest.raises(confirm.NotConfirmed, match="commit is"), confirm.worktree(project, name):
        pass
    assert victim.is_dir()


def test_worktrees_of_others_stay_known_and_leftovers_of_every_commit_go(project, git):
    name = git("rev-parse", "--short", "HEAD")
    elsewhere = project.root.parent / "elsewhere"
    git("worktree", "add", "--detach", str(elsewhere), name)
    # As on a disk that is not mounted just now.
    elsewhere.rename(elsewhere.with_name("away"))
    left = project.build / "worktrees" / "1234567"
    git("worktree", "add", "--detach", str(left), name)
    with confirm.worktree(project, name):
        assert not left.exists()
    elsewhere.with_name("away").rename(elsewhere)
    known = [line.split()[0] for line in git("worktree", "list").splitlines()]
    assert known == [str(project.root), str(elsewhere)]


def test_two_commands_do_not_share_a_worktree(project, git):
    name = git("rev-parse", "--short", "HEAD")
    with confirm.worktree(project, name) as folder:
        assert (folder / "_toc.yml").exists()
        with (
            pytest.raises(UsageError, match="another command compares rows"),
            confirm.worktree(project, name),
        ):
            pass
        assert (folder / "_toc.yml").exists()
    assert no_worktree_is_left(project, git)


def test_a_worktree_goes_when_its_block_fails_and_what_a_killed_command_left_goes_first(
    project, git
):
    name = git("rev-parse", "--short", "HEAD")
    with pytest.raises(RuntimeError), confirm.worktree(project, name):
        raise RuntimeError
    assert no_worktree_is_left(project, git)
    left = project.build / "worktrees" / name
    git("worktree", "add", "--detach", str(left), name)
    (left / "half").touch()
    with confirm.worktree(project, name) as folder:
        assert not (folder / "half").exists()
    assert no_worktree_is_left(project, git)
