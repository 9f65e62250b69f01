"""What an operation declares in its module is what everybody else finds."""

import inspect
from importlib import import_module
from pathlib import Path

import pytest

import kempe_nb
from kempe_nb import kernels

ROOT = Path(__file__).parent.parent.parent

each_operation = pytest.mark.parametrize("name", kernels.names())


@each_operation
def test_it_has_the_name_of_its_module(name):
    assert kernels.load(name).name == name


@each_operation
def test_its_functions_are_public_and_take_an_implementation(name):
    for function in kernels.load(name).functions:
        public = getattr(kempe_nb, function)
        assert function in kempe_nb.__all__
        assert public.__module__ == f"kempe_nb.kernels.{name}"
        assert inspect.signature(public).parameters["impl"].default is None


@each_operation
def test_its_device_code_declares_how_it_is_compiled(name):
    operation = kernels.load(name)
    source = Path(kernels.__file__).parent / "triton" / f"{name}.py"
    assert source.is_file() == ("triton" in operation.implementations)
    if source.is_file():
        pytest.importorskip("triton")
        module = import_module(f"kempe_nb.kernels.triton.{name}")
        assert module.COMPILATIONS


@each_operation
def test_it_has_tests_a_benchmark_and_a_page(name):
    places = (
        f"tests/kernels/definition/test_{name}.py",
        f"benchmarks/operations/{name}.py",
        f"benchmarks/results/{name}.csv",
    )
    assert [place for place in places if not (ROOT / place).is_file()] == []
    pages = [ROOT / "book" / "kernels" / f"{name}.{kind}" for kind in ("md", "ipynb")]
    (page,) = [page for page in pages if page.is_file()]
    assert f"{{speed}} {name}" in page.read_text(encoding="utf-8")


def test_an_operation_that_does_not_exist_is_answered_with_those_that_do():
    with pytest.raises(ValueError) as error:
        kernels.load("poisson")
    assert str(error.value) == f"operation is 'poisson'; accepted are {', '.join(kernels.names())}"
