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
TEXT_CALLS = ("figures.show", "sliders.explore")
TEXT_NAMES = ("alt", "caption")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


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
    try:
        tree = parse(source)
    except SyntaxError:
        # Executing the cell will say what is wrong, and where.
        return source
    for keyword in _text_keywords(tree):
        keyword.value = ast.Constant("")
    # IPython shows the value of a last expression unless a semicolon follows.
    return ast.dump(tree) + (";" if source.rstrip().endswith(";") else "")


def parse(source: str) -> ast.Module:
    """Return the syntax tree of a cell, with IPython's magics turned into calls."""
    return ast.parse(TransformerManager().transform_cell(source))


def literal_texts(source: str) -> list[tuple[str, str]]:
    """Return the literal texts of the figures of a cell as (name, text), in order."""
    return [(keyword.arg, keyword.value.value) for keyword in _text_keywords(parse(source))]


def module_files() -> dict[str, Path]:
    """Return the files of the modules of the package, by the names of the modules."""
    package = Path(kempe_nb.__file__).parent
    found = {}
    for file in package.rglob("*.py"):
        parts = file.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def module_hashes() -> dict[str, str]:
    """Return the SHA-256 of every module of the package, and of a script of the same name."""
    found = {}
    for name, file in module_files().items():
        script = file.with_suffix(".js")
        content = file.read_bytes() + (script.read_bytes() if script.exists() else b"")
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def code_hashes() -> dict[str, str]:
    """Return the SHA-256 of what every module of the package computes.

    Comments, docstrings and layout do not count: a stored result costs hours, and stays good when
    only these change.
    """
    return {
        name: hashlib.sha256(ast.dump(_without_docstrings(file.read_text())).encode()).hexdigest()
        for name, file in module_files().items()
    }


def _without_docstrings(source: str) -> ast.Module:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return tree


def _text_keywords(tree: ast.Module) -> Iterator[ast.keyword]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in TEXT_CALLS:
            for keyword in node.keywords:
                literal = isinstance(keyword.value, ast.Constant)
                if keyword.arg in TEXT_NAMES and literal and isinstance(keyword.value.value, str):
                    yield keyword
