"""The commit that a result is said to come from."""

import subprocess

import pytest

from kempe_nb.publish import checkout as module
from kempe_nb.publish.checkout import commit, commit_id


@pytest.fixture
def checkout(tmp_path):
    """A repository with one commit of code and one table."""
    for name in ("code.py", "book/results/table.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


def test_a_changed_file_marks_the_commit_and_a_new_one_does_not(checkout):
    clean = commit(checkout)
    assert len(clean) >= 7 and set(clean) <= set("0123456789abcdef")
    (checkout / "notes.txt").write_text("new")
    assert commit(checkout / "book") == clean
    (checkout / "code.py").write_text("2")
    assert commit(checkout / "book") == f"{clean}-dirty"


def test_paths_that_are_left_out_are_no_difference(checkout):
    clean = commit(checkout)
    (checkout / "book/results/table.csv").write_text("2")
    assert commit(checkout) == f"{clean}-dirty"
    assert commit(checkout / "book/results", without=("book/results",)) == clean
    (checkout / "code.py").write_text("2")
    assert commit(checkout, without=("book/results",)) == f"{clean}-dirty"


def test_a_folder_without_git_has_no_commit(tmp_path):
    assert commit(tmp_path) == commit_id(tmp_path) == "unknown"


def test_a_project_inside_of_another_repository_has_no_commit(checkout):
    # An archive that was unpacked in a course's repository: the course's commit says nothing.
    project = checkout / "archive"
    (project / "book" / "chapters").mkdir(parents=True)
    (project / "_toc.yml").touch()
    assert commit(checkout) == commit_id(checkout)[:7] != "unknown"
    for folder in (project, project / "book" / "chapters"):
        assert commit(folder) == commit_id(folder) == "unknown"
    (checkout / "_toc.yml").touch()
    assert commit(checkout / "book") == commit(checkout)


def test_the_repository_of_a_hook_is_not_taken_for_ours(checkout, tmp_path_factory, monkeypatch):
    clean, whole = commit(checkout), commit_id(checkout)
    other = tmp_path_factory.mktemp("other")
    subprocess.run(["git", "init", "-q"], cwd=other, check=True)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert (commit(checkout), commit_id(checkout)) == (clean, whole)


def test_a_checkout_of_another_user_is_named_once(checkout, monkeypatch, capfd, tmp_path):
    script = tmp_path / "bin" / "git"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\necho 'fatal: detected dubious ownership in it' >&2\nexit 128\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    module._say_once.cache_clear()
    assert commit(checkout) == commit(checkout) == "unknown"
    told = "kempe_nb: the commit is unknown: fatal: detected dubious ownership in it\n"
    assert capfd.readouterr().err == told
