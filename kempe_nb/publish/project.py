"""The project's folders, its notebooks and the parameters that they declare.

A chapter is one paper: the folder book/chapters/PAPER with its lessons N_name.ipynb, or, in the old
form, the one notebook book/chapters/PAPER.ipynb. book/kernels holds one notebook for one operation.
A notebook is named PAPER/N_name, PAPER, or kernels/OPERATION.
"""

import ast
import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill

from kempe_nb.notebook.profile import PROFILES

#: The folder of the notebooks that are about one operation each, and the chapter that they form.
KERNELS = "kernels"


class UsageError(ValueError):
    """The command was asked for something that the project does not have."""


@dataclass(frozen=True)
class Project:
    """The folders of one checkout."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> "Project":
        """Return the project whose folder holds `start` (by default the current folder)."""
        start = (start or Path.cwd()).resolve()
        for folder in (start, *start.parents):
            if (folder / "_toc.yml").is_file() and (folder / "book").is_dir():
                return cls(folder)
        raise UsageError(f"no _toc.yml with a book folder beside it in {start} or above")

    @property
    def book(self) -> Path:
        """The sources of the pages."""
        return self.root / "book"

    @property
    def build(self) -> Path:
        """Everything made; never committed."""
        return self.root / "_build"

    @property
    def benchmarks(self) -> Path:
        """The results of the benchmarks, one CSV file for each operation."""
        return self.root / "benchmarks" / "results"

    def executed(self, profile: str) -> Path:
        """The folder of the executed copies of a profile."""
        return self.build / "executed" / profile

    def results(self, chapter: str) -> Path:
        """The folder of the stored runs of a chapter."""
        return self.book / "chapters" / chapter / "results"

    def notebooks(self) -> dict[str, Path]:
        """Return the notebooks of the book by name: chapters and lessons, then operations."""
        chapters, kernels = self.book / "chapters", self.book / KERNELS
        found = {}
        for path in (*sorted(chapters.glob("*.ipynb")), *sorted(chapters.glob("*/*.ipynb"))):
            # Jupyter keeps checkpoints in hidden folders beside what is open.
            if not any(part.startswith(".") for part in path.relative_to(chapters).parts):
                found[name_of(path)] = path
        found = dict(sorted(found.items()))
        for name in found:
            if chapter_of(name) == KERNELS:
                raise UsageError(
                    f"chapter is {KERNELS!r}, which stands for the notebooks of book/{KERNELS}; "
                    "accepted is any other name"
                )
        found |= {
            name_of(path): path
            for path in sorted(kernels.glob("*.ipynb"))
            if not path.name.startswith(".")
        }
        for name in found:
            if not re.fullmatch(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)?", name):
                raise UsageError(
                    f"notebook is {name!r}; accepted in its name are letters, digits, _ and -"
                )
            if chapter_of(name) != name and chapter_of(name) in found:
                raise UsageError(f"{chapter_of(name)} is a notebook and has lessons: {name}")
        return found

    def select(self, names: list[str]) -> dict[str, Path]:
        """Return the notebooks that are named, all of them for an empty list.

        A chapter stands for all of its lessons. An unknown name is refused.
        """
        known = self.notebooks()
        chosen: dict[str, Path] = {}
        for name in names:
            own = {n: path for n, path in known.items() if name in (n, chapter_of(n))}
            if not own:
                accepted = ", ".join(dict.fromkeys([*map(chapter_of, known), *known])) or "none"
                raise UsageError(f"notebook is {name!r}; accepted are {accepted}")
            chosen |= own
        return chosen if names else known

    def docname(self, source: Path) -> str:
        """Return how Sphinx names the page of a notebook: its path in the book, without suffix."""
        return source.relative_to(self.book).with_suffix("").as_posix()


def name_of(path: Path) -> str:
    """Return the name of a notebook of the book: its file, and its folder where it has one."""
    return path.stem if path.parent.name == "chapters" else f"{path.parent.name}/{path.stem}"


def chapter_of(name: str) -> str:
    """Return the chapter of a notebook: what stands before the slash, or the name itself."""
    return name.partition("/")[0]


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Read a notebook in the current format; a broken file is an error that names it."""
    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, nbformat.reader.NotJSONError) as error:
        raise UsageError(f"{path} is not a notebook: {error}") from None


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Return the code cells of a notebook, without the one that papermill adds."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell for cell in cells if "injected-parameters" not in tags_of(cell)]


def tags_of(cell: nbformat.NotebookNode) -> list[str]:
    """Return the tags of a cell."""
    return cell.metadata.get("tags", [])


def first_line(cell: nbformat.NotebookNode) -> str:
    """Return the first line of code of a cell, to name it by."""
    lines = [line for line in cell.source.splitlines() if line.strip()]
    return lines[0] if lines else ""


def title_of(notebook: nbformat.NotebookNode) -> str:
    """Return the first heading of a notebook, or an empty text."""
    for cell in notebook.cells:
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else ():
            if line.startswith("# "):
                return line.removeprefix("# ").strip()
    return ""


def declared_parameters(path: Path) -> dict[str, object]:
    """Return the parameters that a chapter declares, with their default values.

    Raises
    ------
    UsageError
        When the notebook has no cell tagged `parameters`, or one that does not declare `profile`.
    """
    tags = [tag for cell in read_notebook(path).cells for tag in tags_of(cell)]
    if "parameters" not in tags:
        raise UsageError(f"{name_of(path)} has no cell tagged 'parameters'")
    try:
        found = papermill.inspect_notebook(str(path))
    except Exception as error:
        raise UsageError(f"papermill cannot read the parameters of {path}: {error}") from error
    parameters = {name: _python_value(entry["default"]) for name, entry in found.items()}
    if "profile" not in parameters:
        raise UsageError(f"{name_of(path)} does not declare 'profile' in its parameters cell")
    return parameters


def checked_parameters(path: Path, profile: str, given: Mapping[str, str]) -> dict[str, object]:
    """Return the parameters of a run; refuse what the chapter does not declare.

    A value is written as in Python, a text without quotes, and must have the type of the declared
    default; an integer is taken for a float, and a default of None takes any value.
    """
    if profile not in PROFILES:
        raise UsageError(f"profile is {profile!r}; accepted are {', '.join(PROFILES)}")
    declared = declared_parameters(path)
    chosen: dict[str, object] = {"profile": profile}
    accepted = sorted(set(declared) - {"profile"})
    for name, text in given.items():
        if name == "profile":
            raise UsageError("parameter 'profile' is set by --profile")
        if name not in declared:
            names = ", ".join(accepted) or "none"
            raise UsageError(
                f"{name_of(path)} declares no parameter {name!r}; accepted are {names}"
            )
        default = declared[name]
        value = text if isinstance(default, str) else _python_value(text)
        if isinstance(default, float) and type(value) is int:
            value = float(value)
        if default is not None and type(value) is not type(default):
            raise UsageError(
                f"parameter {name} is {text!r}; accepted is a value of type "
                f"{type(default).__name__}, like {default!r}"
            )
        chosen[name] = value
    return chosen


def _python_value(text: str) -> object:
    """Return the value of a Python literal; what is none stays text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


@contextlib.contextmanager
def environment(**variables: str | None) -> Iterator[None]:
    """Set environment variables for the processes started inside; None takes one away."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
