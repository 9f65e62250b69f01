"""The guard of the interpreter finds what it is there to find."""

import pytest
import torch
import triton
import triton.language as tl
from guard import guarded
from triton.runtime.interpreter import InterpreterBuilder, InterpreterError


@triton.jit
def copy_kernel(out, x, size, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + place, tl.load(x + place, mask=place < size), mask=place < size)


@triton.jit
def count_kernel(counts, x, BLOCK: tl.constexpr):
    place = tl.arange(0, BLOCK)
    tl.atomic_add(counts + tl.load(x + place), place * 0 + 1, mask=place < 5)


def test_a_clean_copy():
    x = torch.rand(1000)
    out = torch.empty_like(x)
    with guarded() as moved:
        copy_kernel[(4,)](out, x, 1000, BLOCK=256)
    assert torch.equal(out, x)
    assert (moved.read, moved.written, moved.atomics) == ({"x": 4000}, {"out": 4000}, {})


def test_atomic_operations_are_counted_apart():
    counts, x = torch.zeros(3, dtype=torch.int32), torch.tensor([0, 2, 2, 1, 2, 0, 0, 0])
    with guarded() as moved:
        count_kernel[(1,)](counts, x, BLOCK=8)
    assert counts.tolist() == [1, 1, 3]
    assert (moved.read, moved.written, moved.atomics) == ({"x": 64}, {}, {"counts": 5})


def test_a_mask_that_is_too_wide():
    x, out = torch.rand(1000), torch.empty(1000)
    with (
        pytest.raises(InterpreterError, match=r"program \(3, 0, 0\) touches .* outside x"),
        guarded(),
    ):
        copy_kernel[(4,)](out, x, 1024, BLOCK=256)


def test_the_neighbour_in_the_same_storage_is_out_of_bounds():
    x, whole = torch.rand(1000), torch.empty(2000)
    with pytest.raises(InterpreterError, match=r"0 bytes outside out"), guarded():
        copy_kernel[(4,)](whole[:999], x, 1000, BLOCK=256)


def test_the_interpreter_is_left_as_it_was():
    before = InterpreterBuilder.create_masked_load
    with guarded():
        assert InterpreterBuilder.create_masked_load is not before
    assert InterpreterBuilder.create_masked_load is before


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_an_element_that_nobody_writes_is_seen(dtype):
    x = torch.zeros(8, dtype=dtype)
    out = torch.empty_like(x)
    copy_kernel[(1,)](out, x, 7, BLOCK=8)
    assert torch.equal(out[:7], x[:7]) and not torch.equal(out, x)
