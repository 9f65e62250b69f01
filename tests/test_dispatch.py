"""Which implementation runs: the rule, who may overrule it, and what is said when it cannot be."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

import kempe_nb
from kempe_nb import dispatch
from kempe_nb.dispatch import ImplementationUnavailable, Operation, use, which
from kempe_nb.kernels import philox

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _no_wishes(monkeypatch):
    """Start without what a developer may have set."""
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a GPU and Triton that fit; returns a function that changes either."""

    def change(version="3.7.1", capability=(9, 0)):
        monkeypatch.setattr(dispatch, "triton_version", lambda: version)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)

    change()
    return change


def declared(name="sum", implementations=("definition", "triton")) -> Operation:
    return Operation(name, (torch.float32,), lambda n: 4 * n, implementations=implementations)


ALONE = declared(implementations=("definition",))
TWO_MORE = declared(implementations=("definition", "contraction", "triton"))


def choose(device, impl=None, **options) -> dispatch.Choice:
    return declared().choose(torch.device(device), impl, **options)


def operation(device=CPU, impl=None, **options) -> str:
    """Take the implementation that the rule gives; no tensor is needed for it."""
    found = declared("operation").choose(torch.device(device), impl, **options)
    return found.implementation


# The rule


def test_a_cpu_tensor_takes_the_definition():
    assert str(choose(CPU)) == (
        "sum: definition (the tensors are on cpu; Triton takes CUDA tensors)"
    )


@pytest.mark.parametrize("device", ["meta", "mps", "xpu", "cpu:0"])
def test_so_does_every_device_that_is_not_cuda(device, gpu):
    assert operation(device) == "definition"
    with pytest.raises(ImplementationUnavailable, match=f"the tensors are on {device}"):
        operation(device, "triton")


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:3"])
def test_a_cuda_tensor_takes_triton(device, gpu):
    assert str(choose(device)) == (f"sum: triton (the tensors are on {device})")


def test_the_capability_of_the_tensors_own_device_counts(gpu, monkeypatch):
    found = {torch.device("cuda:0"): (9, 0), torch.device("cuda:1"): (7, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", found.__getitem__)
    assert operation("cuda:0") == "triton"
    assert operation("cuda:1") == "definition"


def test_an_operation_without_device_code_takes_its_definition(gpu):
    choice = ALONE.choose(CUDA)
    assert str(choice) == "sum: definition (it has no other implementation)"
    with pytest.raises(ValueError, match="impl is 'triton'; accepted are definition, or None"):
        ALONE.choose(CUDA, "triton")


def test_arguments_that_the_device_code_cannot_take(gpu):
    choice = choose(CUDA, obstacles={"triton": "a row has 10 entries; Triton takes 16"})
    assert str(choice) == "sum: definition (a row has 10 entries; Triton takes 16)"
    with pytest.raises(ImplementationUnavailable, match="cannot run here: a row has 10 entries"):
        choose(CUDA, "triton", obstacles={"triton": "a row has 10 entries"})
    assert (
        operation(CUDA, "definition", obstacles={"triton": "a row has 10 entries"}) == "definition"
    )


# Several implementations


def test_they_are_tried_in_the_order_in_which_they_are_declared(gpu):
    reasons = {"contraction": "the model is a perceptron"}
    chosen = TWO_MORE.choose(CUDA, reasons=reasons)
    assert str(chosen) == "sum: contraction (the model is a perceptron)"
    obstacles = {"contraction": "the model has convolutions"}
    chosen = TWO_MORE.choose(CUDA, obstacles=obstacles, reasons=reasons)
    assert str(chosen) == "sum: triton (the tensors are on cuda)"
    assert str(TWO_MORE.choose(CPU, obstacles=obstacles)) == (
        "sum: definition (the model has convolutions; "
        "the tensors are on cpu; Triton takes CUDA tensors)"
    )


def test_who_asks_for_one_of_them_hears_its_own_obstacle(gpu):
    obstacles = {"contraction": "the model has convolutions"}
    with pytest.raises(ImplementationUnavailable) as error:
        TWO_MORE.choose(CUDA, "contraction", obstacles=obstacles)
    assert str(error.value) == (
        "sum: impl asks for contraction, which cannot run here: the model has convolutions"
    )
    assert TWO_MORE.choose(CUDA, "triton", obstacles=obstacles).implementation == "triton"


def test_a_wish_for_all_operations_is_for_those_that_have_the_implementation(gpu, monkeypatch):
    monkeypatch.setenv("KEMPE_NB_IMPL", "triton")
    assert str(ALONE.choose(CPU)) == "sum: definition (it has no other implementation)"
    with pytest.raises(ImplementationUnavailable, match="sum: KEMPE_NB_IMPL asks for triton"):
        choose(CPU)
    with use("contraction"):
        assert TWO_MORE.choose(CUDA).implementation == "contraction"
        # The block has nothing to say to this one, and the variable has.
        assert choose(CUDA).reason == "asked for by KEMPE_NB_IMPL"
        assert choose(CUDA, "definition").reason == "asked for by impl"


@pytest.mark.parametrize("options", [{"obstacles": {"tritn": "no"}}, {"reasons": {"tritn": "yes"}}])
def test_an_obstacle_or_a_reason_of_nobody_is_a_mistake(options):
    with pytest.raises(ValueError, match="implementation is 'tritn'; accepted are 'definition', "):
        TWO_MORE.choose(CPU, **options)


@pytest.mark.parametrize(
    ("implementations", "message"),
    [
        (("definition", "cuda"), "implementation is 'cuda'; accepted are 'definition', 'contr"),
        (("triton", "definition"), "accepted is one that begins with 'definition'"),
        (("definition", "triton", "triton"), "accepted is each once"),
        ((), "implementations is (); accepted is one that begins with 'definition'"),
    ],
)
def test_a_declaration_without_a_definition_or_with_an_unknown_name(implementations, message):
    with pytest.raises(ValueError) as error:
        declared(implementations=implementations)
    assert message in str(error.value)


# Triton that is missing, untested, or on an old device


@pytest.mark.parametrize("version", ["3.6.0", "3.7.1", "3.9.9", "3.8.0rc1", "3.7.1+git0123abc"])
def test_tested_versions_of_triton_run(version, gpu):
    gpu(version=version)
    assert operation(CUDA) == "triton"


@pytest.mark.parametrize("version", ["2.3.1", "3.5.1", "3.10.0", "4.0.0", "10.6.0"])
def test_other_versions_do_not_and_the_tested_range_is_named(version, gpu):
    gpu(version=version)
    reason = f"Triton is version {version}; tested are versions 3.6 to 3.9"
    assert str(choose(CUDA)) == f"sum: definition ({reason})"
    with pytest.raises(ImplementationUnavailable, match=reason):
        operation(CUDA, "triton")


def test_a_missing_triton_is_named_with_the_tested_range(gpu):
    gpu(version=None)
    reason = "Triton is not installed; tested are versions 3.6 to 3.9"
    assert str(choose(CUDA)) == f"sum: definition ({reason})"
    with pytest.raises(ImplementationUnavailable, match=f"sum: impl asks for triton.* {reason}"):
        choose(CUDA, "triton")


@pytest.mark.parametrize("capability", [(7, 0), (7, 5), (6, 1)])
def test_an_old_gpu_is_named_with_the_lowest_that_is_tested(capability, gpu):
    gpu(capability=capability)
    choice = choose(CUDA)
    assert choice.implementation == "definition"
    assert choice.reason == (
        f"cuda has compute capability {capability}; tested are (8, 0) and later"
    )
    with pytest.raises(ImplementationUnavailable, match="cuda has compute capability"):
        operation(CUDA, "triton")


@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (9, 0), (10, 0), (12, 0)])
def test_a_newer_gpu_runs_triton(capability, gpu):
    gpu(capability=capability)
    assert operation(CUDA) == "triton"


def test_the_version_is_that_of_the_installed_triton(monkeypatch):
    fake = type(sys)("triton")
    fake.__version__ = "3.7.1"
    monkeypatch.setitem(sys.modules, "triton", fake)
    assert dispatch.triton_version() == "3.7.1"
    monkeypatch.setitem(sys.modules, "triton", None)
    assert dispatch.triton_version() is None


@pytest.mark.parametrize("version", ["main", "", "3"])
def test_a_triton_without_a_version_is_not_tested(version, gpu):
    gpu(version=version)
    assert operation(CUDA) == "definition"
    with pytest.raises(ImplementationUnavailable, match="tested are versions 3.6 to 3.9"):
        operation(CUDA, "triton")


def test_a_folder_named_triton_is_not_triton(monkeypatch, gpu):
    # What `import triton` finds when a program is started in kempe_nb/kernels.
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "triton", type(sys)("triton"))
    assert dispatch.triton_version() is None


def test_the_definition_needs_nothing_of_triton_or_the_gpu(monkeypatch):
    def broken(*args):
        raise OSError("libtriton.so: cannot open shared object file")

    monkeypatch.setattr(dispatch, "triton_version", broken)
    monkeypatch.setattr(torch.cuda, "get_device_capability", broken)
    assert operation(CUDA, "definition") == "definition"
    assert ALONE.choose(CUDA).implementation == "definition"


# Numba


IN_NUMBA = declared(implementations=("definition", "numba", "triton"))


@pytest.fixture
def numba(monkeypatch):
    """A machine with a Numba that fits; returns a function that changes its version."""

    def change(version="0.68.1"):
        monkeypatch.setattr(dispatch, "numba_version", lambda: version)

    change()
    return change


def test_a_cpu_tensor_takes_numba_where_there_is_one_and_a_cuda_tensor_triton(numba, gpu):
    assert str(IN_NUMBA.choose(CPU)) == "sum: numba (the tensors are on cpu)"
    assert str(IN_NUMBA.choose(CUDA)) == "sum: triton (the tensors are on cuda)"
    with pytest.raises(ImplementationUnavailable, match="on cuda; Numba takes CPU tensors"):
        IN_NUMBA.choose(CUDA, "numba")
    with use("numba"):
        assert IN_NUMBA.choose(CPU).reason == "asked for by use()"
        assert choose(CPU).implementation == "definition"


@pytest.mark.parametrize("version", [None, "0.67.2", "0.69.0", "1.0"])
def test_a_missing_or_untested_numba_is_named_with_the_tested_range(version, numba):
    numba(version)
    found = f"is version {version}" if version else "is not installed"
    reason = f"Numba {found}; tested is version 0.68"
    assert IN_NUMBA.choose(CPU).reason.startswith(reason)
    with pytest.raises(ImplementationUnavailable, match=reason):
        IN_NUMBA.choose(CPU, "numba")


def test_nobody_who_looks_at_operations_is_given_code_that_hides_them(numba):
    """A graph, a transform and a count of flops would miss what compiled code does."""
    found = []

    def ask(x):
        found.append(IN_NUMBA.choose(x.device))
        return x

    torch.func.vmap(ask)(torch.zeros(2))
    with FlopCounterMode(display=False):
        ask(torch.zeros(2))
    with FakeTensorMode():
        ask(torch.zeros(2))
    make_fx(ask)(torch.zeros(2))
    ask(torch.zeros(2))
    assert [each.implementation for each in found] == ["definition"] * 4 + ["numba"]
    assert "a transform of torch.func is active, and does not see into Numba" in found[0].reason
    assert all("a dispatch mode of PyTorch is active" in each.reason for each in found[1:4])


# The interpreter


def test_the_interpreter_runs_on_a_cpu_only_when_asked(monkeypatch, gpu):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert operation(CPU) == "definition"
    assert operation(CPU, "triton") == "triton"
    with use("triton"):
        assert operation(CPU) == "triton"
    with pytest.raises(ImplementationUnavailable, match="the tensors are on meta"):
        operation("meta", "triton")
    gpu(version=None)
    with pytest.raises(ImplementationUnavailable, match="Triton is not installed"):
        operation(CPU, "triton")


# Who asks: impl, then use, then the variable


@pytest.mark.parametrize(
    ("impl", "block", "variable", "expected"),
    [
        (None, None, None, "triton"),
        (None, None, "definition", "definition"),
        (None, None, "triton", "triton"),
        (None, None, "", "triton"),
        (None, "definition", "triton", "definition"),
        (None, "triton", "definition", "triton"),
        ("triton", "definition", "definition", "triton"),
        ("definition", "triton", "triton", "definition"),
        ("definition", None, "triton", "definition"),
    ],
)
def test_precedence(impl, block, variable, expected, gpu, monkeypatch):
    if variable is not None:
        monkeypatch.setenv("KEMPE_NB_IMPL", variable)
    with use(block):
        assert operation(CUDA, impl) == expected


def test_the_reason_names_who_asked(gpu, monkeypatch):
    monkeypatch.setenv("KEMPE_NB_IMPL", "definition")
    assert choose(CUDA).reason == "asked for by KEMPE_NB_IMPL"
    with use("definition"):
        assert choose(CUDA).reason == "asked for by use()"
        assert choose(CUDA, "definition").reason == "asked for by impl"


@pytest.mark.parametrize(("asker", "name"), [("impl", "impl"), ("use", r"use\(\)"), ("", "KEMPE")])
def test_triton_on_a_cpu_is_an_error_and_never_the_definition(asker, name, monkeypatch):
    if not asker:
        monkeypatch.setenv("KEMPE_NB_IMPL", "triton")
    impl, block = "triton" if asker == "impl" else None, "triton" if asker == "use" else None
    message = (
        f"random_bits: {name}.* asks for triton, which cannot run here: the tensors are on cpu"
    )
    with use(block), pytest.raises(ImplementationUnavailable, match=message):
        philox.random_bits(3, 0, impl=impl)


@pytest.mark.parametrize(
    "impl", ["torch", "Triton", " triton", "", 1, 0, False, True, (), b"triton"]
)
def test_an_implementation_that_does_not_exist_is_refused(impl, gpu):
    with pytest.raises(ValueError, match="impl is .*; accepted are definition, triton, or None"):
        operation(CUDA, impl)
    message = "accepted are definition, contraction, numba, triton, or None"
    with pytest.raises(ValueError, match=message), use(impl):
        pass


def test_so_is_one_in_the_variable(monkeypatch):
    monkeypatch.setenv("KEMPE_NB_IMPL", "cuda")
    with pytest.raises(ValueError, match="KEMPE_NB_IMPL is 'cuda'; accepted are definition, con"):
        operation()


def test_blocks_nest_and_end():
    with use("triton"):
        with use("definition"):
            assert operation() == "definition"
            with use(None):
                assert choose(CPU).reason.startswith("the tensors are on cpu")
            assert choose(CPU).reason == "asked for by use()"
        with pytest.raises(ImplementationUnavailable):
            operation()
    assert choose(CPU).reason.startswith("the tensors are on cpu")


def test_a_block_ends_with_an_error_too():
    with pytest.raises(KeyError), use("triton"):
        raise KeyError
    assert operation() == "definition"
    with pytest.raises(ImplementationUnavailable), use("triton"):
        operation()
    assert operation() == "definition"


def test_a_block_can_be_a_decorator():
    @use("triton")
    def call():
        return operation()

    for _ in range(2):
        with pytest.raises(ImplementationUnavailable):
            call()
    assert operation() == "definition"


# which


def test_which_prints_one_line_and_returns_nothing(capsys, gpu):
    assert which(operation, CUDA) is None
    assert which(operation, CUDA, impl="definition") is None
    with use("definition"):
        which(operation)
    assert capsys.readouterr().out.splitlines() == [
        "operation: triton (the tensors are on cuda)",
        "operation: definition (asked for by impl)",
        "operation: definition (asked for by use())",
    ]


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (philox.random_bits, {}),
        (philox.uniform, {"dtype": torch.float64}),
        (philox.integers, {"high": 10}),
    ],
)
def test_which_computes_nothing(call, arguments, monkeypatch, capsys):
    monkeypatch.setattr(philox, "philox_4x32", None)
    which(call, 2**40, 7, **arguments)
    name = call.__name__
    assert capsys.readouterr().out == (
        f"{name}: definition (the tensors are on cpu; Triton takes CUDA tensors)\n"
    )


def test_which_checks_the_arguments_and_leaves_nothing_behind(capsys):
    with pytest.raises(ValueError, match="seed is -1"):
        which(philox.random_bits, 3, -1)
    with pytest.raises(ImplementationUnavailable):
        which(philox.random_bits, 3, 0, impl="triton")
    with pytest.raises(TypeError):
        which(philox.random_bits)
    assert capsys.readouterr().out == ""
    assert len(philox.random_bits(3, 0)) == 3


def test_which_of_something_that_is_no_operation():
    for item, name in ((len, "len"), (np.ones, "ones"), (lambda *args: 1, "<lambda>")):
        with pytest.raises(TypeError, match=f"operation is {name}; accepted are the operations"):
            which(item, [1])
    assert len(philox.random_bits(3, 0)) == 3


def test_which_asks_in_its_own_thread_only():
    found = []

    def asked():
        thread = threading.Thread(target=lambda: found.append(operation()))
        thread.start()
        thread.join()
        return operation()

    which(asked)
    assert found == ["definition"]


# What importing the package brings with it


def run(code: str) -> None:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_importing_the_package_imports_neither_torch_nor_numpy():
    run("""
import sys, kempe_nb
dir(kempe_nb), kempe_nb.__all__, kempe_nb.__version__
heavy = {"torch", "triton", "numpy", "scipy", "matplotlib", "IPython"} & set(sys.modules)
assert not heavy, heavy
""")


def test_importing_all_operations_needs_no_triton():
    run("""
import importlib, pkgutil, sys
sys.modules["triton"] = None  # importing it now fails
import kempe_nb.kernels as kernels
names = [module.name for module in pkgutil.iter_modules(kernels.__path__, "kempe_nb.kernels.")]
assert {"kempe_nb.kernels.philox", "kempe_nb.kernels.zipf"} <= set(names)
for name in names:
    importlib.import_module(name)
assert "kempe_nb.kernels.triton" in sys.modules  # the folder, which is empty
found = [name for name in sys.modules if name.startswith("triton.")]
found += [name for name in sys.modules if name.startswith("kempe_nb.kernels.triton.")]
assert not found, found
""")


def test_importing_all_operations_does_not_import_triton():
    run("""
import importlib, pkgutil, sys
import kempe_nb.kernels as kernels
names = [module.name for module in pkgutil.iter_modules(kernels.__path__, "kempe_nb.kernels.")]
assert {"kempe_nb.kernels.philox", "kempe_nb.kernels.zipf"} <= set(names)
for name in names:
    importlib.import_module(name)
assert "kempe_nb.kernels.triton" in sys.modules  # the folder, which is empty
found = [name for name in sys.modules if name.split(".")[0] == "triton"]
found += [name for name in sys.modules if name.startswith("kempe_nb.kernels.triton.")]
assert not found, found
""")


def test_random_numbers_need_torch_and_numpy_only():
    run("""
import sys
absent = ("IPython", "ipywidgets", "matplotlib", "scipy", "sklearn", "torchvision", "triton")
sys.modules.update(dict.fromkeys(absent))  # importing one of them now fails
import kempe_nb
with kempe_nb.use("definition"):
    for draw in (kempe_nb.random_bits, kempe_nb.uniform):
        assert draw((2, 3), 0).shape == (2, 3)
assert kempe_nb.integers(3, 0, high=2).max() < 2
kempe_nb.which(kempe_nb.uniform, 3, 0)
""")


def test_every_public_name_is_there():
    missing = []
    for name in kempe_nb.__all__:
        try:
            assert callable(getattr(kempe_nb, name))
        except ModuleNotFoundError as error:
            missing.append(error.name)
    assert not missing
    assert set(kempe_nb.__all__) <= set(dir(kempe_nb))
    assert kempe_nb.use is use and kempe_nb.which is which


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'kempe_nb' has no attribute 'philox_4x32'"):
        kempe_nb.philox_4x32  # noqa: B018
