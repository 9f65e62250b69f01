"""Show on the page the source of a function that lives in the package: one text, two readers."""

import ast
import inspect
import pkgutil
from importlib.machinery import PathFinder
from importlib.util import find_spec

from IPython.display import Markdown, display

from kempe_nb.notebook import record


def show_source(*objects) -> None:
    """Display the source of functions, classes or named statements as highlighted Python.

    Parameters
    ----------
    objects : function, class or str
        A string is "package.module:name" and names a function, a class or a variable at the top of
        a module, which is read as text and not imported: so a page can show device code where
        Triton is not installed.

    Raises
    ------
    ValueError
        For a string that names no such statement.
    """
    parts = [_named(item) if isinstance(item, str) else inspect.getsource(item) for item in objects]
    # What a page shows it depends on to the letter, also where it does not import it.
    homes = {i.partition(":")[0] if isinstance(i, str) else i.__module__ for i in objects}
    record.note("shown", sorted({*record.fact("shown", []), *homes}))
    text = "\n\n".join(part.rstrip() for part in parts)
    display(Markdown(f"```python\n{text}\n```"))


def _named(item: str) -> str:
    """Return the statement that "package.module:name" names, with its decorators."""
    module, _, name = item.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise ValueError(f"item is {item!r}; accepted is 'package.module:name'")
    source = _module_source(module)
    # Of two statements with one name the later one is what the module holds.
    found = {key: node for node in ast.parse(source).body for key in _names(node)}
    if name not in found:
        known = ", ".join(found) or "none"
        raise ValueError(f"name is {name!r}; accepted of {module} are {known}")
    node = found[name]
    first = min(each.lineno for each in (node, *getattr(node, "decorator_list", ())))
    return "\n".join(source.split("\n")[first - 1 : node.end_lineno])


def _names(node: ast.stmt) -> list[str]:
    """Return the names that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return []
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    found = [each for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
    return [each.id for each in found if isinstance(each.ctx, ast.Store)]


def _module_source(module: str) -> str:
    """Return the text of a module, found without importing it or the packages above it."""
    top, *below = module.split(".")
    spec = find_spec(top)
    if spec is None:
        raise ValueError(f"module is {module!r}, and no package {top!r} is installed")
    parent = top
    for name in below:
        folders = list(spec.submodule_search_locations or [])
        # Its last name only: under the full one, Python would ask for the package above.
        spec = PathFinder.find_spec(name, folders)
        if spec is None:
            known = ", ".join(each.name for each in pkgutil.iter_modules(folders)) or "none"
            raise ValueError(f"module is {module!r}; accepted in {parent} are {known}")
        parent += f".{name}"
    source = spec.loader.get_source(spec.name) if hasattr(spec.loader, "get_source") else None
    if not source:
        raise ValueError(f"module is {module!r}, which has no Python source")
    return source
