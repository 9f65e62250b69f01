"""When an executed copy is still good: what a chapter's outputs depend on, and nothing else.

Outputs depend on the code of the cells, the parameters, the package modules that the chapter
imported and the versions of the libraries. They do not depend on prose, on tags, on comments, or on
the literal texts (`alt`, `caption`) of a figure, which are filled in when the book is built.
"""

import ast
import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

import kempe_nb

LIBRARIES = (
    "ipywidgets",
    "matplotlib",
    "numpy",
    "papermill",
    "scikit-learn",
    "scipy",
    "torch",
    "torchvision",
)

#: The calls whose literal texts are filled in at build time, and the names of these texts.
TEXT_CALLS = ("show", "explore")
TEXT_NAMES = ("alt", "caption")


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Return the code cells of a notebook, without the one that papermill adds."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell for cell in cells if "injected-parameters" not in cell.metadata.get("tags", [])]


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that results depend on."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            found[library] = "not installed"
    return found


def fingerprint(notebook: nbformat.NotebookNode, parameters: Mapping) -> str:
    """Return the SHA-256 of the code, the parameters and the versions of a run."""
    parts = [normalised(cell.source) for cell in code_cells(notebook)]
    payload = json.dumps([parts, dict(parameters), versions()], sort_keys=True, default=repr)
    return hashlib.sha256(payload.encode()).hexdigest()


def normalised(source: str) -> str:
    """Return a text that is the same for two cells that compute the same."""
    tree = parse(source)
    for keyword in _text_keywords(tree):
        keyword.value = ast.Constant("")
    return ast.dump(tree)


def parse(source: str) -> ast.Module:
    """Return the syntax tree of a cell, with IPython's magics turned into calls."""
    return ast.parse(TransformerManager().transform_cell(source))


def literal_texts(source: str) -> list[tuple[str, str]]:
    """Return the literal texts of the figures of a cell as (name, text), in order."""
    return [(keyword.arg, keyword.value.value) for keyword in _text_keywords(parse(source))]


def modules_are_unchanged(recorded: Mapping[str, str]) -> bool:
    """Tell whether the package modules that a run imported have the sources they had then."""
    package = Path(kempe_nb.__file__).parent
    return all(_module_hash(package, name) == digest for name, digest in recorded.items())


def _module_hash(package: Path, name: str) -> str | None:
    path = package.joinpath(*name.split(".")[1:])
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return hashlib.sha256(file.read_bytes()).hexdigest()
    return None


def _text_keywords(tree: ast.Module) -> Iterator[ast.keyword]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", None) in TEXT_CALLS:
            for keyword in node.keywords:
                literal = isinstance(keyword.value, ast.Constant)
                if keyword.arg in TEXT_NAMES and literal and isinstance(keyword.value.value, str):
                    yield keyword
