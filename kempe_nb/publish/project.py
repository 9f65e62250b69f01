"""The project's folders, its notebooks and the parameters that they declare.

A chapter is one paper: the folder book/chapters/PAPER with its lessons N_name.ipynb, or, in the old
form, the one notebook book/chapters/PAPER.ipynb. book/kernels holds one notebook for one operation.
A notebook is named PAPER/N_name, PAPER, or kernels/OPERATION.
"""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

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


def parse(source: str) -> ast.Module:
    """Return the syntax tree of a cell, with IPython's magics turned into calls."""
    return ast.parse(TransformerManager().transform_cell(source))


def title_of(notebook: nbformat.NotebookNode) -> str:
    """Return the first heading of a notebook, or an empty text."""
    for cell in notebook.cells:
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else ():
            if line.startswith("# "):
                return line.removeprefix("# ").strip()
    return ""
