"""The rooms of the package: arrows point one way, there is no circle, and no file is too long."""

import ast
from pathlib import Path

import kempe_nb

PACKAGE = Path(kempe_nb.__file__).parent
#: What the modules of a room may import from. Publishing reads notebooks as files.
MAY_IMPORT = {
    "checks": set(),
    "dispatch": {"checks"},
    "traffic": set(),
    "kernels": {"checks", "dispatch"},
    "networks": {"checks", "kernels"},
    "methods": {"checks", "kernels", "networks"},
    "data": {"checks"},
    "notebook": set(),
    # The page of speed reads what operations declare.
    "publish": {"dispatch", "kernels", "notebook", ""},
    "__main__": {"publish"},
    "": set(),
}
LONGEST = 450


def modules():
    """Return the file of every module by its name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports():
    """Return the modules of the package that each module imports, anywhere in its code."""
    files = modules()
    found = {name: set() for name in files}
    for name, path in files.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not getattr(node, "level", 0), f"{name} has a relative import"
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kempe_nb"):
                named = (f"{node.module}.{alias.name}" for alias in node.names)
                found[name] |= {each if each in files else node.module for each in named}
            elif isinstance(node, ast.Import):
                found[name] |= {a.name for a in node.names if a.name.startswith("kempe_nb")}
        found[name] -= {name}
    return found


def room(module):
    return (module.split(".") + [""])[1]


def test_arrows_point_one_way():
    wrong = [
        f"{module} imports {other}"
        for module, others in imports().items()
        for other in others
        if room(other) != room(module) and room(other) not in MAY_IMPORT[room(module)]
    ]
    assert wrong == []


def test_device_code_imports_no_operation_that_imports_it():
    edges = imports()
    for module in edges:
        if ".triton." in module:
            assert not [other for other in edges[module] if module in edges[other]], module


def test_there_is_no_circle():
    edges, done = imports(), set()

    def visit(module, path):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for other in sorted(edges.get(module, ())):
                visit(other, [*path, module])
            done.add(module)

    for module in edges:
        visit(module, [])


def test_no_file_is_longer_than_one_can_keep_in_mind():
    lengths = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}
