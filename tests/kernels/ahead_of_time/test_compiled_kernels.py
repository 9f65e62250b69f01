"""Every kernel compiled for A100 and H100/H200: registers, spills, vectors, exact arithmetic.

With `pytest -s` the tests print one line for each compiled kernel.
"""

import ast
import importlib.util
import linecache
import re
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import pytest

from kempe_nb.kernels import triton as kernels
from kempe_nb.publish.project import Project

pytestmark = pytest.mark.triton

#: Compute capabilities of A100 and H100/H200.
CAPABILITIES = 80, 90


@dataclass(frozen=True)
class Case:
    """A kernel with the types that its launcher gives it, and what it may cost."""

    module: str
    kernel: str
    types: dict
    #: The measured number of registers, the larger of both targets, and about a tenth more.
    registers: int
    constants: dict = field(default_factory=dict)
    #: Elements of the widest store of a launch whose size is a multiple of 16.
    vector: int = 1
    #: What decides on the tile, where something does.
    shape: tuple = ()


DRAW = {"seed": "i64", "offset": "i64", "stream": "i64", "size": "i64:16"}
ZIPF = {"exponent": "*fp64", "ends": "*i64", "thresholds": "*i64", "bands": "i64"}
CHAIN = {
    **{"law": "*fp64", "ratios": "*fp64", "seeds": "*i64", "thresholds": "*i64"},
    **{"stirling": "*fp64", "sums": "*i64", "atoms": "i64", "generations": "i64"},
}
FEATURES = {"features": "*fp32", "order": "*i64", "shifts": "*fp32", "pieces": "*i64"}
PIECES = {
    **{"out": "*fp32", "squares": "*fp32", **FEATURES},
    **{"row_stride": "i64:16", "dimensions": "i64:16"},
}
DOUBLE_PIECES = PIECES | dict.fromkeys(("out", "squares", "features", "shifts"), "*fp64")
FOLD = {
    **{"out": "*fp64", "class_squares": "*fp64", "partial": "*fp32", "squares": "*fp32"},
    **{"ends": "*i64", "dimensions": "i64:16"},
}
PRODUCT = {
    **{"out": "*fp32", "logits": "*fp32", "vectors": "*fp32", "temperatures": "*fp32"},
    **{"rows": "i64", "classes": "i64:16"},
}
ROWS = PRODUCT | {"count": "i64"}
LOW_ROWS = ROWS | dict.fromkeys(("out", "logits", "vectors"), "*bf16")
DOUBLE_PRODUCT = PRODUCT | dict.fromkeys(("out", "logits", "vectors", "temperatures"), "*fp64")
DOUBLE_ROWS = DOUBLE_PRODUCT | {"count": "i64"}
PLANES = {
    **dict.fromkeys(("out", "of_x", "of_weight", "of_bias", "of_v"), "*fp32"),
    **dict.fromkeys(("x", "weight", "bias", "v", "a", "p", "q"), "*fp32"),
    **{"planes": "i64", "channels": "i64", "stride": "i64:16", "back_stride": "i64:16"},
}
BOUNDS = {"low": "i64", "last": "i64", "mask": "i64"}


def planes_case(order, side, registers, dtype="fp32", vector=4):
    """Return a case of norm_relu_pool for planes of some side; a low dtype computes in float32."""
    names = {
        "forward": "out x weight bias planes channels stride",
        "backward": "of_x of_weight of_bias x weight bias v planes channels stride",
        "double_backward": "of_x of_weight of_v x weight bias v a p q planes channels stride "
        "back_stride",
    }[order].split()
    types = {name: PLANES[name].replace("fp32", dtype) for name in names}
    double = dtype == "fp64"
    constants = {"H": side[0], "W": side[1], "EPS": 1e-5}
    constants["KIND"] = "tl.float64" if double else "tl.float32"
    return Case(
        *("norm_relu_pool", f"{order}_kernel", types, registers, constants),
        vector=2 if double else vector,
        shape=side,
    )


CASES = {
    "bits": Case("philox", "read_kernel", {"out": "*i64", **DRAW}, 64, {"KIND": "bits"}, 2),
    "float32": Case("philox", "read_kernel", {"out": "*fp32", **DRAW}, 64, {"KIND": "float32"}, 4),
    "float64": Case("philox", "read_kernel", {"out": "*fp64", **DRAW}, 64, {"KIND": "float64"}, 2),
    "integers": Case("philox", "integers_kernel", {"out": "*i64", **DRAW, **BOUNDS}, 80, vector=2),
    "samples": Case("zipf", "samples_kernel", {"out": "*i64", **ZIPF, **DRAW}, 80, vector=2),
    "counts": Case(
        "zipf",
        "counts_kernel",
        {"counts": "*i64", **ZIPF, **DRAW, "ranks": "i64"},
        96,
        {"HEAD": 128, "TURNS": 32},
    ),
    "chain float64": Case("resampling_chain", "chain_kernel", CHAIN, 80),
    "chain float32": Case("resampling_chain", "chain_kernel", {**CHAIN, "law": "*fp32"}, 80),
    "pieces": Case("class_moments", "piece_kernel", PIECES, 140, {"STEP": 8}, 4),
    "pieces bfloat16": Case(
        "class_moments", "piece_kernel", {**PIECES, "features": "*bf16"}, 140, {"STEP": 8}, 4
    ),
    "pieces float64": Case("class_moments", "piece_kernel", DOUBLE_PIECES, 245, {"STEP": 8}, 2),
    "fold": Case("class_moments", "fold_kernel", FOLD, 118, {"PIECES": 16}, 2),
    "short rows": Case("softmax_hessian", "rows_kernel", ROWS, 225, vector=4, shape=(10,)),
    "rows": Case("softmax_hessian", "rows_kernel", ROWS, 140, vector=4, shape=(4_096,)),
    "rows bfloat16": Case(
        "softmax_hessian", "rows_kernel", LOW_ROWS, 140, vector=4, shape=(4_096,)
    ),
    "rows float64": Case(
        "softmax_hessian", "rows_kernel", DOUBLE_ROWS, 210, vector=2, shape=(4_096,)
    ),
    "widest rows": Case("softmax_hessian", "rows_kernel", ROWS, 255, vector=4, shape=(8_192,)),
    "long rows": Case("softmax_hessian", "long_rows_kernel", PRODUCT, 140, vector=4),
    "planes forward 8": planes_case("forward", (8, 8), 36, vector=2),
    "planes forward 64": planes_case("forward", (64, 64), 34, vector=2),
    "planes backward 8": planes_case("backward", (8, 8), 47),
    "planes backward 64": planes_case("backward", (64, 64), 36),
    "planes backward 64 float64": planes_case("backward", (64, 64), 80, "fp64"),
    "planes double 8": planes_case("double_backward", (8, 8), 62),
    "planes double 32 bfloat16": planes_case("double_backward", (32, 32), 62, "bf16"),
    "planes double 9 x 12": planes_case("double_backward", (9, 12), 80),
    "planes double 64": planes_case("double_backward", (64, 64), 70),
    "planes double 8 float64": planes_case("double_backward", (8, 8), 180, "fp64"),
    "planes double 64 float64": planes_case("double_backward", (64, 64), 126, "fp64"),
    "long rows float64": Case("softmax_hessian", "long_rows_kernel", DOUBLE_PRODUCT, 208, vector=2),
}
#: Integers as Triton types them: large and small ones, and a size that is no multiple of 16.
INTEGER_TYPES = {"i64": {}, "i32": {"i64": "i32", "i64:16": "i32:16"}, "odd": {"i64:16": "i64"}}
#: Arguments that may be 1.
POSSIBLE_ONES = {
    *("size", "ranks", "atoms", "row_stride", "dimensions", "rows", "count"),
    *("planes", "channels", "stride", "back_stride"),
}
#: Kernels whose float64 arithmetic must have the bits of the definition.
EXACT = ["samples", "counts", "chain float64", "chain float32"]


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
                made[key] = compile_case(compile_kernel, CASES[name], *key[1:], folder)
                print(f"\n{describe(key, made[key])}")
            return made[key]

        yield compile_once


def compile_case(compile_kernel, case, capability, integers, ones, folder):
    """Return a case compiled with its module's configuration; `ones` are arguments equal to 1."""
    module = import_module(f"{kernels.__name__}.{case.module}")
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
    assert found.registers <= CASES[name].registers


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("name", CASES)
def test_an_argument_of_one_is_a_constant(compiled, name, capability):
    """Triton turns an argument of 1 into a constant, where the kernel does not forbid it."""
    ones = tuple(sorted(POSSIBLE_ONES & CASES[name].types.keys()))
    assert compiled(name, capability, "i64", ones).stack == 0


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("name", CASES)
def test_width_of_stores(compiled, name, capability):
    # Only a size that is a multiple of 16 lets the mask end between two vectors; the kernels are
    # bound by arithmetic, and other sizes are stored one by one.
    found = compiled(name, capability)
    stores = {"out", "of_x"} & CASES[name].types.keys()
    assert store_width(found) == (CASES[name].vector if stores else 0)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("name", EXACT)
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
    assert compiled("pieces", capability).count(r"ld\.global\.\S*v4\.b32") >= 8
    assert compiled("pieces", capability, "odd").count(r"ld\.global\.\S*v4\.b32") == 0


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("planes double")])
def test_planes_are_loaded_sixteen_bytes_at_a_time(compiled, name, capability):
    """Every plane of x and of a, where its width is a power of two or not."""
    found = compiled(name, capability)
    double = "float64" in name
    assert found.count(rf"ld\.global\.\S*v{2 if double else 4}\.b{64 if double else 32}") >= 2


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_relu_keeps_nan(compiled, capability):
    """The plain maximum of a GPU returns the other number."""
    assert compiled("planes forward 8", capability).count(r"max\.NaN\.f32")


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_eps_is_a_float64_in_float64(compiled, capability):
    """1e-5 has these bits; through float32 it would have others."""
    assert "0d3EE4F8B588E368F1" in constants(compiled("planes double 8 float64", capability))
    assert not constants(compiled("planes double 8", capability))


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
        spec = importlib.util.spec_from_file_location("edited", path)
        module = importlib.util.module_from_spec(spec)
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


def test_every_kernel_has_a_case():
    folder = Path(kernels.__file__).parent
    found = {(p.stem, name) for p in folder.glob("*.py") for name in kernels_of(p.read_text())}
    assert found == {(case.module, case.kernel) for case in CASES.values()}


def kernels_of(source: str) -> list[str]:
    """Return the functions of a module that are decorated with triton.jit and named as kernels."""
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    return [
        function.name
        for function in functions
        if function.name.endswith("_kernel")
        and any("triton.jit" in ast.unparse(mark) for mark in function.decorator_list)
    ]
