"""Which notebooks of a submission compute something else than those of its base."""

import json
import os
import subprocess

import pytest

from kempe_nb.publish.changed import base_commit, changed_notebooks
from kempe_nb.publish.execute import plan
from kempe_nb.publish.project import Project, UsageError

HOUR = 3600
NOW = 1_800_000_000


@pytest.fixture(autouse=True)
def _no_base_of_its_own(monkeypatch):
    for name in ("KEMPE_NB_BASE", "GITHUB_BASE_REF"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def commit(project, git):
    """Commit what is there, so many hours before NOW, and return the commit."""
    # The commit that comes with the repository is dated by the clock: it is left out.
    git("update-ref", "-d", "HEAD")

    def commit(hours):
        date = f"{NOW - int(hours * HOUR)} +0000"
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        git("add", ".")
        # The date of the author may lie years back, in a commit that was moved: it does not count.
        subprocess.run(
            ["git", *who, "commit", "-q", "--allow-empty", "-m", "more"],
            cwd=project.root,
            check=True,
            env=os.environ | {"GIT_COMMITTER_DATE": date, "GIT_AUTHOR_DATE": "946684800 +0000"},
        )
        return git("rev-parse", "HEAD")

    return commit


@pytest.fixture
def book(project, write, commit):
    """Two lessons, of which the first imports a module and a package; return their commit."""
    write("paper/1_start", "x = 1")
    write("paper/2_next", "y = 1")
    package = project.root / "kempe_nb" / "methods"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('"""Methods."""\n')
    (package / "toy.py").write_text('"""A toy."""\n\n\ndef toy(x):\n    return x\n')
    (package / "toy.js").write_text("one")
    for task in plan(project, [], "cpu", {}):
        used = ["kempe_nb.methods", "kempe_nb.methods.toy"] if task.name == "paper/1_start" else []
        task.facts.parent.mkdir(parents=True, exist_ok=True)
        task.facts.write_text(json.dumps({"modules": dict.fromkeys(used, "a hash")}))
    return commit(10)


def toy(project):
    return project.root / "kempe_nb" / "methods" / "toy.py"


def test_nothing_has_changed(project, book, commit):
    (project.root / "README").write_text("text")
    commit(0)
    assert changed_notebooks(project, book) == {}


def test_a_changed_cell_counts_and_prose_does_not(project, book, write):
    write("paper/1_start", "x = 1  # a comment", prose="Other prose.")
    assert changed_notebooks(project, book) == {}
    # Committed or not.
    write("paper/1_start", "x = 2")
    assert changed_notebooks(project, book) == {"paper/1_start": "its code cells"}


def test_other_libraries_count_for_every_notebook(project, book):
    (project.root / "requirements.txt").write_text("torch==9\n")
    assert set(changed_notebooks(project, book).values()) == {"requirements.txt"}


def test_a_new_notebook_counts(project, book, write):
    write("paper/3_last")
    (task,) = plan(project, ["paper/3_last"], "cpu", {})
    task.facts.write_text('{"modules": {}}')
    assert changed_notebooks(project, book) == {"paper/3_last": "it is new"}


@pytest.mark.parametrize(
    ("name", "text", "counts"),
    [
        ("toy.py", '"""A toy."""\n\n\ndef toy(x):\n    return 2 * x\n', True),
        (
            "toy.py",
            '"""Another docstring."""\n\n\ndef toy(x):  # and a comment\n    return x',
            False,
        ),
        ("toy.js", "two", True),
        ("__init__.py", "import numpy\n", True),
        ("other.py", "import numpy\n", False),
    ],
)
def test_a_changed_module_counts_for_what_imports_it(project, book, commit, name, text, counts):
    toy(project).with_name(name).write_text(text)
    commit(0)
    found = changed_notebooks(project, book)
    assert list(found) == (["paper/1_start"] if counts else [])
    if counts:
        module = "kempe_nb.methods" if name == "__init__.py" else "kempe_nb.methods.toy"
        assert found["paper/1_start"] == f"it imports {module}"


def test_a_module_that_became_a_package_has_not_changed(project, book):
    for suffix in (".py", ".js"):
        file = toy(project).with_suffix(suffix)
        text = file.read_text()
        file.unlink()
        toy(project).with_suffix("").mkdir(exist_ok=True)
        (toy(project).with_suffix("") / f"__init__{suffix}").write_text(text)
    assert changed_notebooks(project, book) == {}


def test_a_module_that_is_gone_has_changed(project, book):
    toy(project).unlink()
    assert list(changed_notebooks(project, book)) == ["paper/1_start"]


def test_without_a_run_nobody_knows_what_a_notebook_imports(project, book):
    (task,) = plan(project, ["paper/2_next"], "cpu", {})
    task.facts.unlink()
    assert list(changed_notebooks(project, book)) == ["paper/2_next"]


def test_a_project_below_the_top_of_a_repository(project, book, git):
    inner = project.root / "inner"
    inner.mkdir()
    for name in ("book", "kempe_nb", "_toc.yml", "_build"):
        (project.root / name).rename(inner / name)
    git("add", ".")
    git("commit", "-q", "-m", "moved")
    moved = Project(inner)
    assert changed_notebooks(moved, "HEAD") == {}
    toy(moved).write_text("def toy(x):\n    return 3 * x\n")
    assert list(changed_notebooks(moved, "HEAD")) == ["paper/1_start"]


def test_a_submission_is_what_was_committed_within_six_hours(project, book, commit):
    commit(6.5)
    old = commit(6)
    for hours in (5.9, 3, 0):
        commit(hours)
    assert base_commit(project) == old


def test_commits_of_a_merged_branch_are_no_base(project, book, commit, git):
    main = git("branch", "--show-current")
    git("checkout", "-q", "-b", "side")
    commit(7)
    git("checkout", "-q", main)
    commit(1)
    git("merge", "-q", "--no-ff", "--no-commit", "side")
    commit(0)
    assert len(git("log", "-1", "--format=%P").split()) == 2
    assert base_commit(project) == book


def test_with_nothing_older_everything_has_changed(project, book, commit):
    commit(5)
    assert base_commit(project) is None
    assert set(changed_notebooks(project)) == {"paper/1_start", "paper/2_next"}


@pytest.mark.parametrize("text", ["{}", "[]", "no notebook", '{"cells": 1}'])
def test_a_base_that_was_no_notebook_counts_as_changed(project, book, write, commit, text):
    path = project.book / "chapters" / "paper" / "2_next.ipynb"
    now = path.read_text()
    path.write_text(text)
    base = commit(9)
    path.write_text(now)
    assert changed_notebooks(project, base) == {"paper/2_next": "it was no notebook"}


@pytest.mark.parametrize("with_git", [True, False])
def test_without_a_repository_everything_has_changed(project, write, monkeypatch, with_git):
    write("paper/1_start")
    if not with_git:
        monkeypatch.setenv("PATH", str(project.build))
    assert set(changed_notebooks(project)) == {"paper/1_start"}


def test_the_base_that_is_named_comes_first(project, book, commit, write, monkeypatch):
    write("paper/2_next", "y = 2")
    named = commit(8)
    commit(0)
    assert list(changed_notebooks(project, book)) == ["paper/2_next"]
    monkeypatch.setenv("GITHUB_BASE_REF", "main")
    monkeypatch.setenv("KEMPE_NB_BASE", named[:12])
    assert base_commit(project) == named
    assert changed_notebooks(project) == {}
    monkeypatch.setenv("KEMPE_NB_BASE", "nowhere")
    with pytest.raises(UsageError, match="KEMPE_NB_BASE is 'nowhere'; accepted is a commit of"):
        changed_notebooks(project)
    with pytest.raises(UsageError, match="base is 'never'"):
        changed_notebooks(project, "never")


def test_a_pull_request_is_compared_with_where_it_left_its_target(
    project, book, commit, git, monkeypatch
):
    left = commit(3)
    git("checkout", "-q", "-b", "target")
    git("update-ref", "refs/remotes/origin/target", commit(2))
    git("checkout", "-q", "-b", "request", left)
    commit(0)
    monkeypatch.setenv("GITHUB_BASE_REF", "target")
    assert base_commit(project) == left
    # A clone that does not have the branch falls back on the dates.
    monkeypatch.setenv("GITHUB_BASE_REF", "unknown")
    assert base_commit(project) == book
