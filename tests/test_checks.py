"""Checks of arguments: what is accepted comes back as Python's own, the rest is refused by name."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from kempe_nb import checks
from kempe_nb.checks import common_device

NO_NUMBERS = [None, "3", True, [1], np.array([1, 2]), 1j, math.nan, np.bool_(True)]


@given(st.integers(-(2**70), 2**70), st.integers(-(2**64), 2**64), st.integers(0, 2**64))
def test_an_integer_is_accepted_exactly_between_its_ends(value, low, width):
    high = low + width
    if low <= value <= high:
        assert checks.checked_integer(value, "seed", low, high) == value
    else:
        with pytest.raises(ValueError, match="^seed is -?\\d+; accepted is an integer from"):
            checks.checked_integer(value, "seed", low, high)


@pytest.mark.parametrize("kind", [np.int8, np.uint64, np.int64])
def test_an_integer_of_numpy_becomes_one_of_python(kind):
    assert type(checks.checked_integer(kind(3), "seed", 0, 9)) is int


@pytest.mark.parametrize("value", [*NO_NUMBERS, 3.0, math.inf])
def test_what_is_no_integer_is_refused_by_name(value):
    with pytest.raises(ValueError, match="^depth is "):
        checks.checked_integer(value, "depth", 0, 9)


@given(st.floats(allow_nan=False))
def test_a_positive_number_is_finite_and_above_zero(value):
    if 0 < value < math.inf:
        assert checks.checked_positive(value, "eps") == value
    else:
        with pytest.raises(ValueError, match="^eps is .*; accepted is a positive finite number"):
            checks.checked_positive(value, "eps")


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int64, int])
def test_numbers_of_numpy_are_numbers(kind):
    found = checks.checked_positive(kind(2), "temperature")
    assert found == 2.0 and type(found) is float


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize(
    "check", [checks.checked_positive, checks.checked_fraction, checks.checked_not_negative]
)
def test_what_is_no_number_is_refused_by_name(check, value):
    with pytest.raises(ValueError, match="^momentum is "):
        check(value, "momentum")


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (checks.checked_fraction, [0, 0.5, 1 - 2**-53], [1, -1e-300, math.inf]),
        (checks.checked_not_negative, [0, 1e300], [-1e-300, math.inf, -math.inf]),
    ],
)
def test_the_ends_of_ranges(check, good, bad):
    assert [check(value, "x") for value in good] == good
    for value in bad:
        with pytest.raises(ValueError, match="^x is .*; accepted is a "):
            check(value, "x")


def test_a_choice_is_one_of_what_is_accepted():
    assert checks.checked_choice("b", "norm", ["a", "b"]) == "b"
    with pytest.raises(ValueError, match="^norm is 'c'; accepted are 'a', 'b'$"):
        checks.checked_choice("c", "norm", (each for each in "ab"))


@pytest.mark.parametrize(
    ("shape", "sizes"), [(3, (3,)), ((), ()), ([2, np.int64(5)], (2, 5)), ((0, 2**40), (0, 2**40))]
)
def test_a_shape_is_a_tuple_of_integers(shape, sizes):
    found = checks.checked_shape(shape)
    assert found == sizes and all(type(size) is int for size in found)


@pytest.mark.parametrize("shape", [-1, (2, -1), 2.0, True, (3, True), "3", None, ((2,),), 2**63])
def test_what_is_no_shape_is_refused(shape):
    with pytest.raises(ValueError, match="^shape is "):
        checks.checked_shape(shape)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_counted(wrong, dtype):
    tensor = torch.zeros(3, 4, dtype=dtype, requires_grad=True)
    checks.check_finite(tensor, "x")
    message = "^x holds 2 elements that are NaN or infinite; accepted are finite numbers$"
    with pytest.raises(ValueError, match=message):
        checks.check_finite(tensor.detach().index_fill(1, torch.tensor([2]), wrong)[:2], "x")


@pytest.mark.parametrize("value", [0, -3, 2.0, True, "2", None])
def test_an_integer_may_have_no_upper_end(value):
    assert checks.checked_integer(np.int64(10**15), "steps", 1) == 10**15
    with pytest.raises(ValueError, match="^steps is .*; accepted is an integer from 1 up$"):
        checks.checked_integer(value, "steps", 1)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_labels_lie_among_the_classes(dtype):
    checks.check_labels(torch.tensor([0, 2], dtype=dtype), 3)
    checks.check_labels(torch.tensor([], dtype=dtype), 3)
    for wrong in ([0, 3], [-1, 2]):
        message = f"^labels lie from {wrong[0]} to {wrong[1]}; accepted is 0 to 2$"
        with pytest.raises(ValueError, match=message):
            checks.check_labels(torch.tensor(wrong, dtype=dtype), 3)


def test_nothing_and_integers_are_finite():
    checks.check_finite(torch.empty(0, 3), "x")
    checks.check_finite(torch.tensor([2**62]), "x")


def test_a_dtype_is_one_of_those_accepted():
    checks.check_dtype(torch.zeros(1), "x", [torch.float16, torch.float32])
    with pytest.raises(TypeError, match="^x is torch.int64; accepted are float16, float32$"):
        checks.check_dtype(torch.tensor([1]), "x", [torch.float16, torch.float32])


def test_a_law_comes_back_in_double_precision():
    found = checks.checked_probabilities(np.array([0.25, 0.75], np.float32), "p")
    assert found.dtype == np.float64 and found.tolist() == [0.25, 0.75]


@pytest.mark.parametrize(
    ("law", "message"),
    [
        ([], "p has shape"),
        ([[1.0]], "p has shape"),
        ([0.5, math.nan], "p holds NaN"),
        ([1.5, -0.5], "p holds -0.5"),
        ([0.5, 0.4], "p sums to 0.9"),
    ],
)
def test_what_is_no_law_is_refused(law, message):
    with pytest.raises(ValueError, match=message):
        checks.checked_probabilities(law, "p")


@pytest.mark.parametrize(
    ("number", "words"),
    [(2**63, "2**63"), (2**63 - 1, "2**63 - 1"), (10, "10"), (2**20, "1048576"), (2**21, "2**21")],
)
def test_a_large_power_of_two_is_spoken_as_one(number, words):
    assert checks.spoken(number) == words


def test_the_common_device():
    a, b = torch.ones(2), torch.ones(3, dtype=torch.int64)
    assert common_device(a=a) == common_device(a=a, b=b) == torch.device("cpu")
    assert common_device(a=a.to("meta")) == torch.device("meta")


def test_two_devices_are_refused_and_named():
    a, b = torch.ones(2), torch.ones(2, device="meta")
    with pytest.raises(ValueError) as error:
        common_device(logits=a, labels=b, weights=a)
    assert str(error.value) == (
        "logits is on cpu, labels is on meta, weights is on cpu; accepted are tensors on one device"
    )


@pytest.mark.parametrize("value", [[1.0], np.ones(2), None, 3])
def test_what_is_no_tensor_is_refused_by_name(value):
    with pytest.raises(TypeError, match="labels is a .*; accepted is a torch.Tensor"):
        common_device(logits=torch.ones(2), labels=value)
