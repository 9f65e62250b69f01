"""When what was made is still good: executed copies, and the tables of stored runs.

Both depend on what their code computes, on parameters and on data, and on nothing else. Comments,
layout, prose, tags, the docstrings of modules and the literal texts (`alt`, `caption`) of a figure
do not count; these texts are filled in when the book is built. The hashes are the same on every
version of Python that the package runs on.

An executed copy depends on the code of its cells, the parameters, the code of the package modules
that it imported, the bytes of those whose source it shows, the stored files that it read, and the
versions of the libraries. It takes a minute to make, so a changed hash is enough to make it again.

A stored table depends on the cells that made it and on the modules that these compute with. It
takes hours, so a changed hash is a suspicion only; `confirm` tells what becomes of it.
"""

import ast
import functools
import hashlib
import json
import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from unicodedata import ucd_3_2_0

import nbformat

import kempe_nb
from kempe_nb.notebook import results
from kempe_nb.publish.parameters import declared_parameters
from kempe_nb.publish.project import Project, UsageError, code_cells, parse, read_notebook
from kempe_nb.publish.select import selected_cells

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
#: Rooms that only show or publish numbers, and what in them computes all the same. Stored numbers
#: depend on every other module: a new room counts before anybody thinks of it.
SHOWING = ("kempe_nb.notebook", "kempe_nb.publish")
COMPUTING = ("kempe_nb.notebook.data", "kempe_nb.notebook.profile")
#: The calls whose literal texts are filled in at build time, and the names of these texts.
TEXT_CALLS = ("figures.show", "sliders.explore")
TEXT_NAMES = ("alt", "caption")
_ENTRANCES = ("kempe_nb", "kempe_nb.__main__")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


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
    return sha256(payload.encode())


def cells_hash(
    cells: list[nbformat.NotebookNode], declared: Mapping[str, object], grid: Iterable[str]
) -> str:
    """Return the SHA-256 of what the cells of a table compute.

    The default of a parameter counts where the cells use it and the grid does not set it.
    """
    own = [c for c in cells if "parameters" not in c.metadata.get("tags", [])]
    names = {
        node.id for c in own for node in ast.walk(parse(c.source)) if isinstance(node, ast.Name)
    }
    fixed = {k: v for k, v in declared.items() if k in names - {"profile", *grid}}
    payload = json.dumps([[normalised(c.source) for c in own], fixed], sort_keys=True, default=repr)
    return sha256(payload.encode())


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
    return dump(tree) + (";" if source.rstrip().endswith(";") else "")


def dump(node: object) -> str:
    """Return the text of a syntax tree, the same for every version of Python.

    `ast.dump` writes fields that only some versions have, all of them empty in the trees of others,
    and `repr` writes a letter as it is only where its version of Unicode has it. Inside of an
    f-string versions disagree on empty parts and on the mark of u"...", which compute nothing.
    """
    if isinstance(node, ast.JoinedStr):
        parts = [v for v in node.values if not (isinstance(v, ast.Constant) and v.value == "")]
        return f"JoinedStr(values={dump(parts)})"
    if isinstance(node, ast.AST):
        fields = ((name, getattr(node, name, None)) for name in node._fields if name != "kind")
        told = [f"{name}={dump(value)}" for name, value in fields if value not in (None, [])]
        return f"{type(node).__name__}({', '.join(told)})"
    if isinstance(node, list):
        return f"[{', '.join(map(dump, node))}]"
    return "".join(
        c if c.isascii() or ucd_3_2_0.category(c) != "Cn" else c.encode("unicode_escape").decode()
        for c in repr(node)
    )


def literal_texts(source: str) -> list[tuple[str, str]]:
    """Return the literal texts of the figures of a cell as (name, text), in order."""
    return [(keyword.arg, keyword.value.value) for keyword in _text_keywords(parse(source))]


def module_files() -> dict[str, Path]:
    """Return the files of the modules of the package, by the names of the modules."""
    package = Path(kempe_nb.__file__).parent
    found = {}
    for file in package.rglob("*.py"):
        # Editors keep locks and backups of open files under hidden names.
        if file.name.startswith("."):
            continue
        parts = file.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def code_hashes() -> dict[str, str]:
    """Return the SHA-256 of what every module of the package computes, by its name.

    A script of the same name beside a module belongs to it.
    """
    found = {}
    for name, file in module_files().items():
        script = file.with_suffix(".js")
        found[name] = code_hash(
            file.read_text(encoding="utf-8"), script.read_bytes() if script.exists() else b""
        )
    return found


def text_hashes(modules: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of the bytes of the named modules, those of the package only."""
    files = module_files()
    return {name: sha256(files[name].read_bytes()) for name in modules if name in files}


def modules_are_unchanged(facts: Mapping) -> bool:
    """Tell whether the modules that a run used, and those that it shows, are what they were."""
    used, shown = facts.get("modules"), facts.get("shown", {})
    if not isinstance(used, dict) or not isinstance(shown, dict):
        return False
    present = code_hashes()
    same_code = all(present.get(name) == digest for name, digest in used.items())
    return same_code and text_hashes(shown) == shown


def stored_runs_are_unchanged(recorded: Mapping, chapters: Path) -> bool:
    """Tell whether the stored files that a run read, "CHAPTER/TABLE", hold what they held then."""
    for name, digest in recorded.items():
        chapter, _, table = name.partition("/")
        file = chapters / chapter / "results" / f"{table}.csv"
        if not file.is_file() or sha256(file.read_bytes()) != digest:
            return False
    return True


def computing(modules: Iterable[str]) -> list[str]:
    """Return the modules that stored numbers depend on."""
    return [m for m in modules if _is_in(m, COMPUTING) or not _is_in(m, (*_ENTRANCES, *SHOWING))]


def _is_in(module: str, rooms: Iterable[str]) -> bool:
    # The package itself is no room, or everything would be in it.
    return any(module == r or (r != "kempe_nb" and module.startswith(f"{r}.")) for r in rooms)


def sha256(content: bytes) -> str:
    """Return the SHA-256 of some bytes in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


@functools.lru_cache(maxsize=1000)
def code_hash(source: str, script: bytes = b"") -> str:
    """Return the SHA-256 of what a module computes, given by its text and the script beside it."""
    try:
        text = dump(_without_docstrings(source))
    except SyntaxError:
        # Somebody is at work on it; who imports it will be told.
        text = source
    return sha256(text.encode() + script)


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


def stored_files(project: Project) -> list[Path]:
    """Return the stored files of all chapters."""
    return sorted((project.book / "chapters").glob("*/results/*.csv"))


def stale_reason(project: Project, file: Path, present: Mapping[str, str] | None = None) -> str:
    """Return why a stored file may no longer be what its code would give, or an empty string.

    `present` are the hashes of the present code, for a caller that asks about many files.
    """
    told = provenance(file)
    source = project.notebooks().get(told["notebook"])
    if source is None:
        return f"the notebook {told['notebook']} is gone"
    try:
        code = code_of_table(source, told["table"], told["grid"])
    except UsageError as error:
        return str(error)
    if code != told["code"]:
        return "the cells that made it have changed"
    present = code_hashes() if present is None else present
    changed = [name for name, digest in told["modules"].items() if present.get(name) != digest]
    return f"{', '.join(changed)} changed" if changed else ""


def provenance(file: Path) -> dict:
    """Return what is told of a stored file, or refuse what an older version of kempe_nb told."""
    _, told = results.read_pair(file)
    missing = {"notebook", "table", "profile", "grid", "commit", "code", "modules"} - set(told)
    if missing:
        raise results.ResultsError(
            f"{file.with_suffix('.json')} does not tell {', '.join(sorted(missing))}; make the "
            "file again with python -m kempe_nb sweep"
        )
    return told


def code_of_table(source: Path, table: str, grid: Mapping) -> str:
    """Return the hash of the present cells of a table."""
    cells = selected_cells(read_notebook(source), table, source)
    return cells_hash(cells, declared_parameters(source), grid)
