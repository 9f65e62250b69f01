"""The Triton code of philox in the interpreter: the bits of the definition, the fewest bytes."""

import functools

import pytest
import torch
from guard import guarded

from kempe_nb import dispatch
from kempe_nb.kernels.philox import integers, random_bits, uniform
from kempe_nb.kernels.triton.philox import CONFIG

uniform_64 = functools.partial(uniform, dtype=torch.float64)
#: The last one accepts about half of all proposals.
OPERATIONS = {
    "bits": random_bits,
    "float32": uniform,
    "float64": uniform_64,
    "small integers": functools.partial(integers, low=-3, high=7),
    "all integers": functools.partial(integers, low=-(2**63), high=2**63),
    "rejected integers": functools.partial(integers, high=2**62 + 1),
}
#: Bytes of one number.
WIDTHS = {"bits": 8, "float32": 4, "float64": 8}
SEEDS = (0, 1, 2**31, 2**32 - 1, 2**40 + 5, 2**63 - 1, 2**63, 2**64 - 2**31, 2**64 - 1)
OFFSETS = (1, 2, 3, 2**31, 2**33 + 1, 2**63 - 1, 2**64 - 80)


def check_equal(draw, *args, **kwargs):
    """Check a draw bit for bit against the definition, and its addresses; return what it moved."""
    with guarded() as moved:
        found = draw(*args, impl="triton", **kwargs)
    expected = draw(*args, impl="definition", **kwargs)
    assert found.dtype == expected.dtype and torch.equal(found, expected)
    return moved


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("size", [0, 1, CONFIG["BLOCK"], CONFIG["BLOCK"] + 1, 2053, (3, 0), (5, 7)])
def test_shapes(name, size):
    moved = check_equal(OPERATIONS[name], size, 2**40 + 5, offset=3, stream=9)
    assert not moved.read and not moved.atomics


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("seed", SEEDS)
def test_seeds(name, seed):
    check_equal(OPERATIONS[name], 19, seed, offset=1)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("stream", [1, 2**32 - 1])
def test_offsets_and_streams(name, offset, stream):
    check_equal(OPERATIONS[name], 37, 7, offset=offset, stream=stream)


@pytest.mark.parametrize("name", WIDTHS)
@pytest.mark.parametrize("size", [1, 1024, 2053])
def test_every_number_is_written_once_and_nothing_is_read(name, size):
    moved = check_equal(OPERATIONS[name], size, 3)
    assert (moved.read, moved.written) == ({}, {"out": WIDTHS[name] * size})


def test_integers_are_written_once_however_often_they_are_rejected():
    moved = check_equal(OPERATIONS["rejected integers"], 1031, 3)
    assert (moved.read, moved.written) == ({}, {"out": 8 * 1031})


def test_the_context_manager_and_the_variable_choose_triton(monkeypatch):
    with guarded() as moved, dispatch.use("triton"):
        random_bits(5, 1)
    assert moved.written == {"out": 40}
    monkeypatch.setenv(dispatch.VARIABLE, "triton")
    with guarded() as moved:
        random_bits(5, 1)
    assert moved.written == {"out": 40}


def test_nobody_asking_leaves_a_cpu_tensor_to_the_definition():
    with guarded() as moved:
        random_bits(5, 1)
    assert not moved.written
