"""What an operation declares in its module is what everybody else finds."""

import inspect
import pkgutil
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
def test_what_draws_random_numbers_has_the_same_bits_everywhere(name):
    operation = kernels.load(name)
    parameters = {
        parameter
        for function in operation.functions
        for parameter in inspect.signature(getattr(kempe_nb, function)).parameters
    }
    assert operation.exact == bool({"seed", "seeds"} & parameters)
    if operation.exact and "triton" in operation.implementations:
        pytest.importorskip("triton")
        module = import_module(f"kempe_nb.kernels.triton.{name}")
        for case in module.COMPILATIONS.values():
            # What computes in float64 is given some; a mere output is made of integers.
            given = {types for argument, types in case.types.items() if argument != "out"}
            assert case.rounds_once == ("*fp64" in given)


def test_a_module_of_the_room_is_an_operation_or_part_of_several():
    found = {each.name for each in pkgutil.iter_modules(kernels.__path__)}
    assert found - set(kernels.names()) == {
        *("elementary", "normal_gamma", "numba", "poisson", "simplex_laws", "triton")
    }


@each_operation
def test_its_code_for_a_cpu_is_there_under_its_name(name):
    source = Path(kernels.__file__).parent / "numba" / f"{name}.py"
    assert source.is_file() == ("numba" in kernels.load(name).implementations)


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
    found = [page for page in pages if page.is_file()]
    assert len(found) == 1, f"book/kernels/{name}.md or {name}.ipynb"
    assert f"{{speed}} {name}" in found[0].read_text(encoding="utf-8")


def test_an_operation_that_does_not_exist_is_answered_with_those_that_do():
    with pytest.raises(ValueError) as error:
        kernels.load("poisson")
    assert str(error.value) == f"operation is 'poisson'; accepted are {', '.join(kernels.names())}"
