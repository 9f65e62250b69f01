"""How notebooks are named: lessons of a paper, chapters of the old form, and operations."""

import shutil

import nbformat
import pytest

from kempe_nb.__main__ import main
from kempe_nb.publish.execute import plan
from kempe_nb.publish.project import UsageError


@pytest.fixture
def book(project, write):
    """A chapter of the old form, one of two lessons, and an operation."""
    write("old_form")
    write("paper/1_first")
    write("paper/2_second")
    operation = project.book / "kernels" / "philox.ipynb"
    operation.parent.mkdir()
    shutil.move(write("philox"), operation)
    return project


def test_lessons_chapters_and_operations_stand_side_by_side(book):
    found = {name: str(path.relative_to(book.book)) for name, path in book.notebooks().items()}
    assert found == {
        "old_form": "chapters/old_form.ipynb",
        "paper/1_first": "chapters/paper/1_first.ipynb",
        "paper/2_second": "chapters/paper/2_second.ipynb",
        "kernels/philox": "kernels/philox.ipynb",
    }


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        (["paper"], ["paper/1_first", "paper/2_second"]),
        (["paper/2_second"], ["paper/2_second"]),
        (["paper/2_second", "paper"], ["paper/2_second", "paper/1_first"]),
        (["kernels"], ["kernels/philox"]),
        (["old_form", "kernels/philox"], ["old_form", "kernels/philox"]),
        ([], ["old_form", "paper/1_first", "paper/2_second", "kernels/philox"]),
    ],
)
def test_a_paper_stands_for_its_lessons(book, asked, chosen):
    assert list(book.select(asked)) == chosen


@pytest.mark.parametrize("name", ["papers", "paper/3_third", "1_first", "paper/", "", "../paper"])
def test_an_unknown_name_is_answered_with_those_that_there_are(book, name):
    with pytest.raises(UsageError) as error:
        book.select([name])
    assert str(error.value) == (
        f"notebook is {name!r}; accepted are old_form, paper, kernels, paper/1_first, "
        "paper/2_second, kernels/philox"
    )


def test_a_book_without_notebooks_has_none_to_choose(project, capfd):
    assert main(["run", "paper"]) == 2
    assert "notebook is 'paper'; accepted are none" in capfd.readouterr().err


def test_a_name_that_is_a_notebook_and_a_folder_of_lessons_is_refused(book, write, capfd):
    write("paper")
    assert main(["run", "old_form"]) == 2
    assert "paper is a notebook and has lessons: paper/1_first" in capfd.readouterr().err


def test_a_chapter_with_the_name_of_the_operations_is_refused(book, write, capfd):
    write("kernels/philox")
    assert main(["run", "old_form"]) == 2
    assert "chapter is 'kernels', which stands for" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["one lesson", "one@seed=7", "é"])
def test_a_name_that_could_not_stand_in_a_command_or_a_file_is_refused(book, write, capfd, name):
    write(f"paper/{name}")
    assert main(["run"]) == 2
    assert f"notebook is 'paper/{name}'; accepted in its name are" in capfd.readouterr().err


def test_what_jupyter_keeps_beside_an_open_notebook_is_none_of_the_book(book):
    before = book.notebooks()
    chapters, kernels = book.book / "chapters", book.book / "kernels"
    for folder in (chapters, chapters / "paper", kernels):
        (folder / ".ipynb_checkpoints").mkdir()
        shutil.copy(
            chapters / "old_form.ipynb", folder / ".ipynb_checkpoints" / "1_first-checkpoint.ipynb"
        )
    shutil.copy(chapters / "old_form.ipynb", kernels / ".hidden.ipynb")
    assert book.notebooks() == before


def test_every_notebook_and_every_value_has_a_copy_of_its_own(project, write):
    parameters = 'profile = "cpu"\nname = "a"'
    for notebook in ("one/1_start", "two/1_start", "old_form"):
        write(notebook, parameters=parameters)
    values = ["a", "b", "x/y", "../../x", "x y", "@name=b", "é" * 200, "é" * 201, "f" * 400]
    tasks = [task for value in values for task in plan(project, [], "cpu", {"name": value})]
    tasks += plan(project, [], "cpu", {}) + plan(project, [], "gpu", {})
    copies = {task.copy for task in tasks}
    assert len(copies) == len(tasks) == 3 * len(values) + 6
    for task in tasks:
        executed = project.executed(task.parameters["profile"])
        home = executed if task.name == "old_form" else executed / task.name.split("/")[0]
        assert task.copy.parent == task.facts.parent == home
        assert len(task.copy.name.encode()) < 200
        assert task.copy.resolve().parent == home.resolve()


@pytest.mark.slow
def test_two_lessons_of_one_file_name_do_not_meet(project, write, capfd):
    write("one/1_start", "print('from one')")
    write("two/1_start", "print('from two')", "1 / seed")
    assert main(["run", "-p", "seed=0"]) == 1
    out = capfd.readouterr().out
    assert "one/1_start@seed=0: " in out and "1 of 1 claims hold" in out
    assert "two/1_start@seed=0: FAILED in code cell 5 '1 / seed': ZeroDivisionError" in out
    made = sorted(
        str(path.relative_to(project.executed("cpu")))
        for path in project.executed("cpu").rglob("*")
        if path.is_file()
    )
    assert made == [
        "one/1_start@seed=0.ipynb",
        "one/1_start@seed=0.json",
        "two/1_start@seed=0.failed.ipynb",
    ]
    copy = nbformat.read(project.executed("cpu") / made[0], 4)
    printed = [out.get("text", "") for cell in copy.cells for out in cell.get("outputs", [])]
    assert "from one\n" in printed and "from two\n" not in printed
    assert main(["run", "one", "-p", "seed=0"]) == 0
    assert "one/1_start@seed=0: up to date" in capfd.readouterr().out


def test_a_message_names_the_lesson_and_not_only_its_file(project, write, capfd):
    write("one/1_start")
    write("two/1_start", parameters='profile = "cpu"')
    assert main(["run", "-p", "seed=1"]) == 2
    assert "two/1_start declares no parameter 'seed'; accepted are none" in capfd.readouterr().err
    write("two/1_start", parameters=None)
    assert main(["run"]) == 2
    assert "two/1_start has no cell tagged 'parameters'" in capfd.readouterr().err
