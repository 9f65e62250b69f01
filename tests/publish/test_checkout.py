"""The commit that a result is said to come from."""

import subprocess

import pytest

from kempe_nb.publish.checkout import commit


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
    assert commit(tmp_path) == "unknown"
