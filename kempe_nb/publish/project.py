"""The project's folders, its chapters and the parameters that they declare."""

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

    def chapters(self) -> dict[str, Path]:
        """Return the chapters by name, in alphabetical order."""
        found = {path.stem: path for path in sorted((self.book / "chapters").glob("*.ipynb"))}
        for name in found:
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise UsageError(
                    f"chapter is {name!r}; accepted in its name are letters, digits, _ and -"
                )
        return found

    def select(self, names: list[str]) -> dict[str, Path]:
        """Return the named chapters, all of them for an empty list; refuse an unknown name."""
        known = self.chapters()
        for name in names:
            if name not in known:
                raise UsageError(f"chapter is {name!r}; accepted are {', '.join(known) or 'none'}")
        return {name: known[name] for name in names or known}


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Read a notebook in the current format; a broken file is an error that names it."""
    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, nbformat.reader.NotJSONError) as error:
        raise UsageError(f"{path} is not a notebook: {error}") from None


def declared_parameters(path: Path) -> dict[str, object]:
    """Return the parameters that a chapter declares, with their default values.

    Raises
    ------
    UsageError
        When the notebook has no cell tagged `parameters`, or one that does not declare `profile`.
    """
    tags = [tag for cell in read_notebook(path).cells for tag in cell.metadata.get("tags", [])]
    if "parameters" not in tags:
        raise UsageError(f"{path.name} has no cell tagged 'parameters'")
    try:
        found = papermill.inspect_notebook(str(path))
    except Exception as error:
        raise UsageError(f"papermill cannot read the parameters of {path}: {error}") from error
    parameters = {name: _python_value(entry["default"]) for name, entry in found.items()}
    if "profile" not in parameters:
        raise UsageError(f"{path.name} does not declare 'profile' in its parameters cell")
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
            raise UsageError(f"{path.stem} declares no parameter {name!r}; accepted are {names}")
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
def environment(**variables: str) -> Iterator[None]:
    """Set environment variables for the processes started inside."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
