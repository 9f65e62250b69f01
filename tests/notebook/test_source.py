"""The source that a page shows: of objects, and by name of modules that are not imported."""

import inspect
import subprocess
import sys
from functools import lru_cache

import pytest

from kempe_nb.notebook import claims, source
from kempe_nb.notebook.source import show_source

MODULE = '''"""A module that cannot be imported."""

import no_such_package
from math import pi

SIZES: dict[str, int] = {
    "small": 1,  # \u00e9
}
first, (second, *others) = 1, (2, 3)
SIZES["large"] = first
bare: int


def twice(x):
    return "an earlier one"


@no_such_package.jit
@no_such_package.tune(
    sizes=SIZES,
)
def twice(x):
    """Return 2 x."""

    def inner():
        return 2

    return inner() * x


class Kernel:
    size = 1

    def twice(self):
        return 2


async def later():
    pass


lower = upper = 4
'''


@pytest.fixture
def shown(monkeypatch):
    """The texts that are displayed."""
    texts = []
    monkeypatch.setattr(source, "display", lambda item: texts.append(item.data))
    return texts


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A package on the path with a module that fails when it is imported."""
    folder = tmp_path / "shown_package"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (folder / "inner" / "code.py").write_text(MODULE, encoding="utf-8")
    (folder / "empty.py").write_text("# Nothing yet.\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "shown_package.inner.code"
    assert not any(name.startswith("shown_package") for name in sys.modules)


def python(text: str) -> str:
    return f"```python\n{text}\n```"


def test_objects_are_shown_in_their_order(shown):
    show_source(claims.clear, test_objects_are_shown_in_their_order)
    first, second = map(inspect.getsource, (claims.clear, test_objects_are_shown_in_their_order))
    assert shown == [python(f"{first.rstrip()}\n\n{second.rstrip()}")]


def test_a_decorated_object_is_shown_with_its_decorators(shown):
    @lru_cache
    def decorated():
        return 1

    show_source(decorated)
    assert "    @lru_cache\n    def decorated():" in shown[0]


def test_nothing_is_shown_for_nothing(shown):
    show_source()
    assert shown == [python("")]


def test_a_named_function_is_shown_with_its_decorators(shown, module):
    show_source(f"{module}:twice")
    text = MODULE[MODULE.index("@no_such_package.jit") : MODULE.index("\n\n\nclass Kernel")]
    assert shown == [python(text)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SIZES", 'SIZES: dict[str, int] = {\n    "small": 1,  # \u00e9\n}'),
        ("second", "first, (second, *others) = 1, (2, 3)"),
        ("others", "first, (second, *others) = 1, (2, 3)"),
        ("first", "first, (second, *others) = 1, (2, 3)"),
        ("bare", "bare: int"),
        ("lower", "lower = upper = 4"),
        ("upper", "lower = upper = 4"),
        ("later", "async def later():\n    pass"),
        ("Kernel", "class Kernel:\n    size = 1\n\n    def twice(self):\n        return 2"),
    ],
)
def test_every_statement_that_defines_a_name_is_found(name, text, shown, module):
    show_source(f"{module}:{name}")
    assert shown == [python(text)]


def test_objects_and_names_mix(shown, module):
    show_source(f"{module}:bare", claims.clear, f"{module}:upper")
    middle = inspect.getsource(claims.clear).rstrip()
    assert shown == [python(f"bare: int\n\n{middle}\n\nlower = upper = 4")]


def test_device_code_is_shown_without_triton():
    code = """
import sys
sys.modules["triton"] = None  # importing it now fails
from kempe_nb.notebook import source
source.display = lambda item: print(item.data)
source.show_source("kempe_nb.kernels.triton.philox:read_kernel")
assert not [name for name in sys.modules if name.startswith("kempe_nb.kernels")]
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    assert lines[1].startswith("@triton.jit")
    assert lines[2].startswith("def read_kernel(")
    assert lines[-2].lstrip().startswith("tl.store(")


@pytest.mark.parametrize(
    "item", ["", ":", "twice", "a:", ":twice", "a..b:c", ".a:b", "a:b.c", "a:b:c", "a b:c", "a/b:c"]
)
def test_what_is_no_name_is_refused(item):
    with pytest.raises(ValueError, match="accepted is 'package.module:name'") as error:
        show_source(item)
    assert repr(item) in str(error.value)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("no_such_package:f", "no package 'no_such_package' is installed"),
        ("no_such_package.module:f", "no package 'no_such_package' is installed"),
        ("shown_package.other:f", "'shown_package.other'; accepted in shown_package are empty$"),
        (
            "shown_package.inner.cod:f",
            "'shown_package.inner.cod'; accepted in shown_package.inner are code$",
        ),
        (
            "shown_package.inner.code.deeper:f",
            "'shown_package.inner.code.deeper'; accepted in shown_package.inner.code are none$",
        ),
        ("shown_package.inner:f", "'shown_package.inner', which has no Python source"),
        ("shown_package.empty:f", "name is 'f'; accepted of shown_package.empty are none$"),
        (
            "shown_package.inner.code:inner",
            "name is 'inner'; accepted of shown_package.inner.code are SIZES, first, second, "
            "others, bare, twice, Kernel, later, lower, upper$",
        ),
        ("shown_package.inner.code:pi", "name is 'pi'; accepted"),
        ("shown_package:f", "name is 'f'; accepted of shown_package are none$"),
        ("sys:path", "'sys', which has no Python source"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(item, message, module):
    with pytest.raises(ValueError, match=message):
        show_source(item)


def test_a_module_is_not_looked_for_on_the_path(module):
    # `json` is a module of the path, but not one inside of a module.
    with pytest.raises(ValueError, match="accepted in shown_package.empty are none"):
        show_source("shown_package.empty.json:loads")
