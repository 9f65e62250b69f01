"""Every kernel compiled for A100 and H100/H200: registers, spills, vectors, exact arithmetic.

With `pytest -s` the tests print one line for each compiled kernel.
"""

import ast
import linecache
import math
import pkgutil
import re
import struct
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from kempe_nb.kernels import triton as kernels
from kempe_nb.publish.project import Project

pytestmark = pytest.mark.triton

#: Compute capabilities of A100 and H100/H200.
CAPABILITIES = 80, 90


def declared(module):
    """Return what a module of device code declares; none where it has no kernels of its own."""
    if find_spec("triton") is None:
        return {}
    return getattr(import_module(f"{kernels.__name__}.{module}"), "COMPILATIONS", {})


#: The declared compilations of every module, by "module: name".
CASES = {
    f"{module}: {name}": (module, case)
    for module in (each.name for each in pkgutil.iter_modules(kernels.__path__))
    for name, case in declared(module).items()
}
#: Integers as Triton types them: large and small ones, and a size that is no multiple of 16.
INTEGER_TYPES = {"i64": {}, "i32": {"i64": "i32", "i64:16": "i32:16"}, "odd": {"i64:16": "i64"}}
ROUND_ONCE = [name for name, (_, case) in CASES.items() if case.rounds_once]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Return a function that compiles a case, each once.

    What an earlier run compiled is taken from the cache in _build. It cannot be stale: Triton names
    an entry by a hash of the compiler's own files, the version of ptxas, the options and types, and
    the source of the kernel with those of all functions and the values of all constants that it
    uses. A test below holds it to that.
    """
    from compiler import compile_kernel

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(Project.find(Path(__file__).parent).build / "triton"))
        folder, made = tmp_path_factory.mktemp("cubin"), {}

        def compile_once(name, capability, integers="i64", ones=()):
            key = name, capability, integers, ones
            if key not in made:
                made[key] = compile_case(compile_kernel, *key, folder)
                print(f"\n{describe(key, made[key])}")
            return made[key]

        yield compile_once


def compile_case(compile_kernel, name, capability, integers, ones, folder):
    """Return a case compiled with its module's configuration; `ones` are arguments equal to 1."""
    module, case = CASES[name]
    module = import_module(f"{kernels.__name__}.{module}")
    config = module.tile_of(*case.shape) if case.shape else module.CONFIG
    names = getattr(module, case.kernel).arg_names
    # What is no argument of the kernel is an option of the compiler.
    options = {key: value for key, value in config.items() if key not in names}
    constants = {key: value for key, value in config.items() if key in names}
    constants |= {key: dtype_of(value) for key, value in case.constants.items()}
    constants |= dict.fromkeys(ones, 1)
    swap = INTEGER_TYPES[integers]
    types = {k: swap.get(t, t) for k, t in case.types.items() if k not in ones}
    return compile_kernel(
        getattr(module, case.kernel), types, constants, options, capability, folder
    )


def dtype_of(value):
    """Return Triton's dtype for a name such as "tl.float32"; anything else as it is."""
    import triton.language

    if isinstance(value, str) and value.startswith("tl."):
        return getattr(triton.language, value.removeprefix("tl."))
    return value


def store_width(found) -> int:
    widths = re.findall(r"st\.global\.(?:v(\d)\.)?b?", found.ptx)
    return max((int(width or 1) for width in widths), default=0)


def constants(found) -> set[str]:
    """Return the float64 constants of the assembly, as it spells them."""
    return set(re.findall(r"\b0d[0-9A-F]{16}\b", found.ptx))


def describe(key, found) -> str:
    name, capability, integers, ones = key
    cost = f"{found.registers} registers, {found.stack} stack, {found.shared} shared"
    return f"{name} sm_{capability} {integers} {ones}: {cost}, stores of {store_width(found)}"


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("integers", INTEGER_TYPES)
@pytest.mark.parametrize("name", CASES)
def test_costs(compiled, name, integers, capability):
    found = compiled(name, capability, integers)
    assert found.stack == 0
    assert found.registers <= CASES[name][1].registers


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("name", CASES)
def test_an_argument_of_one_is_a_constant(compiled, name, capability):
    """Triton turns an argument of 1 into a constant, where the kernel does not forbid it."""
    module, case = CASES[name]
    kernel = getattr(import_module(f"{kernels.__name__}.{module}"), case.kernel)
    forbidden = {each.name for each in kernel.params if each.do_not_specialize}
    integers = {each for each, kind in case.types.items() if kind.startswith("i64")}
    assert compiled(name, capability, "i64", tuple(sorted(integers - forbidden))).stack == 0


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("name", CASES)
def test_width_of_stores(compiled, name, capability):
    # Only a size that is a multiple of 16 lets the mask end between two vectors; the kernels are
    # bound by arithmetic, and other sizes are stored one by one.
    assert store_width(compiled(name, capability)) == CASES[name][1].vector


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("name", ROUND_ONCE)
def test_exact_arithmetic(compiled, name, capability):
    """One rounding for each operation, as IEEE 754 prescribes it."""
    found = compiled(name, capability)
    assert not found.count(r"\bfma\.")
    divisions = re.findall(r"\bdiv\.\w+\.f64", found.ptx)
    assert divisions and set(divisions) == {"div.rn.f64"}
    assert set(re.findall(r"\bsqrt\.\w+\.f64", found.ptx)) <= {"sqrt.rn.f64"}
    # No float32 has a hand in it: a constant that is compared with was rounded to one once.
    assert {"0d3FF6A09E667F3BCD", "0dBFF6A09E667F3BCD"} & constants(found)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_features_are_loaded_sixteen_bytes_at_a_time(compiled, capability):
    assert compiled("class_moments: pieces", capability).count(r"ld\.global\.\S*v4\.b32") >= 8
    assert (
        compiled("class_moments: pieces", capability, "odd").count(r"ld\.global\.\S*v4\.b32") == 0
    )


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("name", [name for name in CASES if "double backward" in name])
def test_planes_are_loaded_sixteen_bytes_at_a_time(compiled, name, capability):
    """Every plane of x and of a, where its width is a power of two or not."""
    found = compiled(name, capability)
    double = "float64" in name
    assert found.count(rf"ld\.global\.\S*v{2 if double else 4}\.b{64 if double else 32}") >= 2


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_relu_keeps_nan(compiled, capability):
    """The plain maximum of a GPU returns the other number."""
    assert compiled("norm_relu_pool: forward 8", capability).count(r"max\.NaN\.f32")


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_eps_is_a_float64_in_float64(compiled, capability):
    """1e-5 has these bits; through float32 it would have others."""
    assert "0d3EE4F8B588E368F1" in constants(
        compiled("norm_relu_pool: double backward 8 float64", capability)
    )
    assert not constants(compiled("norm_relu_pool: double backward 8", capability))


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("simplex")])
def test_draws_from_the_simplex_are_made_in_float64_alone(compiled, name, capability):
    """2 pi, and 1/6 and 1/210 of the series of the sine; no float32 has a hand in anything."""
    found = compiled(name, capability)
    assert not found.count(r"\.f32\b")
    for value in (2 * math.pi, 1 / 6, 1 / 210):
        spelt = {
            f"0d{each.hex().upper()}" for each in map(struct.Struct(">d").pack, (value, -value))
        }
        assert spelt & constants(found), value


EDITED = """
import triton
import triton.language as tl

OFFSET = tl.constexpr(3)

@triton.jit
def moved(x):
    return x * 2.0 + OFFSET

@triton.jit
def edited_kernel(out, size):
    tl.store(out + size, moved(tl.load(out)) + 7.0)
"""


@pytest.mark.parametrize(("before", "after"), [("3", "4"), ("2.0", "5.0"), ("7.0", "9.0")])
def test_an_edit_is_compiled_whatever_is_in_the_cache(tmp_path, monkeypatch, before, after):
    """An edit of the kernel, of a function that it calls, or of a constant of its module."""
    from compiler import compile_kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))

    def assembly(source):
        path = tmp_path / "edited.py"
        path.write_text(source)
        # Triton reads sources through this module, which remembers files.
        linecache.clearcache()
        spec = spec_from_file_location("edited", path)
        module = module_from_spec(spec)
        exec(compile(source, path, "exec"), module.__dict__)
        types = {"out": "*fp32", "size": "i32"}
        return compile_kernel(module.edited_kernel, types, {}, {}, 80, tmp_path).ptx

    first = assembly(EDITED)
    entries = len(list((tmp_path / "cache").iterdir()))
    assert assembly(EDITED) == first
    assert len(list((tmp_path / "cache").iterdir())) == entries
    assert assembly(EDITED.replace(before, after)) != first
    assert assembly(EDITED) == first


def test_what_is_there_for_a_debugger_is_not_read():
    from compiler import without_debug

    body = "\tmov.b64 %rd1, 0d3EE4F8B588E368F1;\n\tret;\n}\n"
    debug = (
        "\t.section\t.debug_info\n\t{\n"
        ".b8 1  // Abbrev [1] 0xb:0x40d DW_TAG_compile_unit\n"
        ".b8 2  // 0d3FF0000000000000 fma.rn.f64\n\t}\n"
    )
    files = '\t.file\t1 "/home/0d3FF0000000000000/fma.rn.f64.py"\n'
    line = "\t.loc\t1 2 3  // fma.rn.f64.py:2:3\n"
    left = without_debug(f"{files}{line}{body}{debug}\t.section\t.debug_macinfo\t{{\t}}\n")
    assert left.split() == body.split()


def test_every_kernel_is_declared():
    folder = Path(kernels.__file__).parent
    found = {(p.stem, name) for p in folder.glob("*.py") for name in kernels_of(p.read_text())}
    assert found == {(module, case.kernel) for module, case in CASES.values()}


def kernels_of(source: str) -> list[str]:
    """Return the functions of a module that are decorated with triton.jit and named as kernels."""
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    return [
        function.name
        for function in functions
        if function.name.endswith("_kernel")
        and any("triton.jit" in ast.unparse(mark) for mark in function.decorator_list)
    ]
