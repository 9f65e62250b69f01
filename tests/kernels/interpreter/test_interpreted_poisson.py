"""The Triton twins of elementary and poisson in the interpreter: the bits of the definitions."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from guard import guarded

from kempe_nb.kernels import elementary, poisson as definition
from kempe_nb.kernels.philox import Purpose, split_words
from kempe_nb.kernels.triton.elementary import atanh_rest, exp_minus, log, one_minus_exp_minus
from kempe_nb.kernels.triton.poisson import poisson, probability_times_root

generator = np.random.default_rng(5)
#: Arguments over the whole range of each function, and its borders.
ARGUMENTS = {
    "exp_minus": np.r_[
        0.0, 5e-324, 1e-300, 699.9999, 700.0, np.nextafter(700.0, 701), 1e300,
        generator.uniform(0, 720, 400), 2.0 ** -generator.uniform(0, 300, 105),
    ],
    "one_minus_exp_minus": np.r_[
        0.0, 5e-324, 1e-300, np.nextafter(1.0, 0), generator.uniform(0, 1, 400),
        2.0 ** -generator.uniform(0, 300, 108),
    ],
    "log": np.r_[
        2.0**-1022, 1.0, np.nextafter(1.0, 0), np.nextafter(1.0, 2), elementary.SQRT2,
        np.nextafter(elementary.SQRT2, 2), np.finfo(float).max,
        2.0 ** generator.uniform(-1000, 1000, 405), generator.uniform(0.5, 2, 100),
    ],
    "atanh_rest": np.r_[0.0, 0.0295, generator.uniform(0, 0.0295, 510)],
}  # fmt: skip
SIZE = 512


@triton.jit
def elementary_kernel(out, x, NAME: tl.constexpr, BLOCK: tl.constexpr):
    place = tl.arange(0, BLOCK)
    value = tl.load(x + place)
    if NAME == "exp_minus":
        value = exp_minus(value)
    elif NAME == "one_minus_exp_minus":
        value = one_minus_exp_minus(value)
    elif NAME == "log":
        value = log(value)
    else:
        value = atanh_rest(value)
    tl.store(out + place, value)


@triton.jit
def poisson_kernel(
    out,
    mean,
    seed,
    offset,
    stream,
    thresholds,
    stirling,
    PURPOSE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    place = tl.arange(0, BLOCK)
    index = place + tl.load(offset)
    drawn = poisson(
        tl.load(mean + place), tl.load(seed), index, stream, thresholds, stirling, PURPOSE
    )
    tl.store(out + place, drawn)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_elementary_functions(name):
    x = ARGUMENTS[name]
    out = torch.empty(SIZE, dtype=torch.float64)
    with guarded():
        elementary_kernel[(1,)](out, torch.from_numpy(x), NAME=name, BLOCK=SIZE)
    expected = getattr(elementary, name)(x)
    np.testing.assert_array_equal(out.numpy().view(np.int64), expected.view(np.int64))


def drawn(mean, seed=3, offset=0, stream=7):
    """Return counts of the Triton code, and what it has moved."""
    tables = definition.table_thresholds(), definition.stirling_table()
    words = (np.array([value], dtype=np.uint64).view(np.int64) for value in (seed, offset))
    arrays = [torch.from_numpy(np.array(part)) for part in (mean, *words, *tables)]
    out = torch.empty(len(mean), dtype=torch.int64)
    fixed = {"PURPOSE": int(Purpose.RESAMPLING_CHAIN), "BLOCK": len(mean)}
    with guarded() as moved:
        poisson_kernel[(1,)](out, *arrays[:3], stream, *arrays[3:], **fixed)
    return out.numpy(), moved


def expected(mean, seed=3, offset=0, stream=7):
    index = np.arange(len(mean), dtype=np.uint64) + np.uint64(offset)
    return definition.poisson(mean, split_words(seed), index, stream, Purpose.RESAMPLING_CHAIN)


def spread(*values):
    """Return `SIZE` means, the values over and over."""
    return np.resize(np.array(values, dtype=np.float64), SIZE)


@triton.jit
def probability_kernel(out, count, mean, stirling, BLOCK: tl.constexpr):
    place = tl.arange(0, BLOCK)
    value = probability_times_root(tl.load(count + place), tl.load(mean + place), stirling)
    tl.store(out + place, value)


def test_the_probability_at_the_radius_of_its_series():
    """(117 - 83) / (117 + 83) is the radius; rounded to float32, 0.17 is above it."""
    count, mean = np.array([[117.0, 83.0, 116.0, 0.0], [83.0, 117.0, 83.0, 83.0]])
    out = torch.empty(4, dtype=torch.float64)
    tensors = map(torch.from_numpy, (count, mean, definition.stirling_table()))
    probability_kernel[(1,)](out, *tensors, BLOCK=4)
    np.testing.assert_array_equal(out.numpy(), definition.probability_times_root(count, mean))


MEANS = {
    "zero": spread(0.0),
    "fraction": np.r_[5e-324, 1e-15, np.nextafter(1.0, 0), generator.uniform(0, 1, SIZE - 3)],
    "table": spread(*range(16)),
    "table and fraction": generator.uniform(0, 16, SIZE),
    "rejection": spread(16, 17, 40, 1000),
    "rejection and fraction": 2.0 ** generator.uniform(4, 31, SIZE),
    "largest": spread(2.0**31, np.nextafter(2.0**31, 0)),
    "all": np.r_[0.0, 0.5, 15.999, 16.0, 2.0 ** generator.uniform(-60, 31, SIZE - 4)],
}


@pytest.mark.parametrize("name", MEANS)
def test_poisson_counts(name):
    found, _ = drawn(MEANS[name])
    np.testing.assert_array_equal(found, expected(MEANS[name]))


@pytest.mark.parametrize("seed", [0, 2**32, 2**63, 2**64 - 1])
@pytest.mark.parametrize("offset", [2**31, 2**40])
def test_poisson_seeds_and_positions(seed, offset):
    mean = MEANS["all"]
    found, _ = drawn(mean, seed, offset, stream=2**24)
    np.testing.assert_array_equal(found, expected(mean, seed, offset, stream=2**24))


def test_only_the_table_reads_thresholds_and_only_the_rejection_reads_stirling():
    read = {name: drawn(MEANS[name])[1].read for name in ("fraction", "table", "rejection")}
    assert read["fraction"].keys() == {"mean", "seed", "offset"}
    assert read["table"]["thresholds"] == 6 * 8 * SIZE and not read["table"]["stirling"]
    assert read["rejection"]["stirling"] and not read["rejection"]["thresholds"]
