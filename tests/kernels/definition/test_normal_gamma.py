"""Normal and gamma numbers: their laws, their bits against 40 digits, and which blocks they use."""

import itertools
import math

import mpmath
import numpy as np
import pytest
from scipy import stats

from kempe_nb.kernels import normal_gamma
from kempe_nb.kernels.normal_gamma import GammaShape, gamma_pair, normal_pair, propose
from kempe_nb.kernels.philox import last_word, philox_4x32, split_words
from kempe_nb.kernels.simplex_laws import PURPOSE

SIZE = 100_000
#: Fixed seeds make these tests exact; the bounds are what chance exceeds once in 10,000 times.
RARE = 1e-4
SHAPES = [2.0**-31, 0.01, 0.3, 0.999, 1.0, 1.001, 2.5, 30.0, 1e4, 1e9, 2.0**31]


def words(seed=3, count=SIZE, trial=0):
    index = split_words(np.arange(count, dtype=np.uint64))
    counter = (*index, np.uint64(0), last_word(PURPOSE, trial))
    return philox_4x32(counter, split_words(seed))


def numbers(first, second, seed=5, count=SIZE, start=0, stream=0):
    index = np.arange(count, dtype=np.uint64) + np.uint64(start)
    shapes = GammaShape(first), GammaShape(second)
    key = split_words(seed)
    return gamma_pair(*shapes, key, index, np.uint64(stream), PURPOSE)


def law_of_logs(shape):
    """Return the cumulative function of the logarithm of a gamma number."""
    return lambda log: stats.gamma(shape).cdf(np.exp(np.minimum(log, 700.0)))


# Normal numbers


def test_both_numbers_of_a_pair_are_standard_normal_and_independent():
    first, second = normal_pair(words())
    for each in (first, second, (first + second) / math.sqrt(2)):
        assert stats.kstest(each, "norm").pvalue > RARE
        assert abs(np.mean(each**4) - 3) < 4 * math.sqrt(96 / SIZE)
    assert (
        stats.kstest(np.arctan2(second, first), stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > RARE
    )


def test_a_pair_is_that_of_box_and_muller_to_the_last_bits():
    parts = [each[:2000] for each in words()]
    low, high, third, fourth = (each.astype(object) for each in parts)
    with mpmath.workdps(40):
        for i, pair in enumerate(zip(*normal_pair(parts), strict=True)):
            u = 1 - mpmath.mpf(((high[i] << 32) | low[i]) >> 11) / 2**53
            turn = 2 * mpmath.pi * mpmath.mpf(((fourth[i] << 32) | third[i]) >> 11) / 2**53
            radius = mpmath.sqrt(-2 * mpmath.log(u))
            for found, exact in zip(pair, (mpmath.cos(turn), mpmath.sin(turn)), strict=True):
                assert abs(found - radius * exact) <= 4 * 2.0**-53 * max(radius, 1)


def test_the_ends_of_every_quarter_turn():
    """Words of 32 zeros and ones: the radius is 0 or the largest, angles are quarters or nearly."""
    ends = np.array([0, 2**32 - 1, 2**29, 2**30, 2**31, 3 * 2**30, 7 * 2**29], dtype=np.uint64)
    grid = list(itertools.product([0, 2**32 - 1, 2**31], ends, [0, 2**32 - 1], ends))
    low, high, third, fourth = np.array(grid, dtype=np.uint64).T
    first, second = normal_pair((low, high, third, fourth))
    turn = 2 * np.pi * (((fourth << np.uint64(32)) | third) >> np.uint64(11)).astype(float) / 2**53
    radius = np.hypot(first, second)
    assert np.isfinite(radius).all() and radius.max() == pytest.approx(math.sqrt(106 * math.log(2)))
    np.testing.assert_allclose(first, radius * np.cos(turn), atol=4e-15)
    np.testing.assert_allclose(second, radius * np.sin(turn), atol=4e-15)
    assert (radius[(low == 0) & (high == 0)] == 0).all()


def test_the_series_end_where_nothing_would_change():
    n = normal_gamma.TURN_TERMS + 1
    assert (math.pi / 4) ** (2 * n) / math.factorial(2 * n) < 2.0**-54 * math.cos(math.pi / 4)
    assert (math.pi / 4) ** (2 * n) / math.factorial(2 * n + 1) < 2.0**-54
    assert 2 * math.pi == normal_gamma.TWO_PI


# Gamma numbers


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("row", [0, 1])
def test_gamma_numbers_have_their_law(shape, row):
    pair = (shape, 2.0) if row == 0 else (2.0, shape)
    values, logs = (each[row] for each in numbers(*pair))
    found = np.log(values) + logs
    if shape < 1e-6:
        # Nearly all of it is below every float64: -shape log G is an exponential number.
        assert stats.kstest(-shape * found, "expon").pvalue > RARE
    else:
        assert stats.kstest(found, law_of_logs(shape)).pvalue > RARE
        # The law of another shape is noticed.
        assert stats.kstest(found, law_of_logs(shape * 1.05)).pvalue < RARE
    assert (logs == 0).all() == (shape >= 1)


@pytest.mark.parametrize(("first", "second"), list(itertools.product([0.2, 1.0, 50.0], repeat=2)))
def test_the_two_numbers_of_a_lane_are_independent(first, second):
    values, logs = numbers(first, second)
    uniforms = [
        law_of_logs(shape)(np.log(values[row]) + logs[row])
        for row, shape in enumerate((first, second))
    ]
    correlation = float(np.corrcoef(*uniforms)[0, 1]) * math.sqrt(SIZE)
    assert abs(correlation) < stats.norm.isf(RARE / 2)


def test_a_proposal_is_accepted_with_the_probability_of_marsaglia_and_tsang():
    """The squeeze accepts nothing that the logarithms refuse."""
    for shape in (1.0, 1.5, 10.0, 1e6):
        d, c, _ = GammaShape(shape).constants
        x = np.linspace(-1 / c + 1e-9, 8.0, 4001) if c > 0.1 else np.linspace(-8, 8, 4001)
        v = (1 + c * x) ** 3
        log_chance = x**2 / 2 + d * (1 - v + np.log(v))
        chance = np.exp(np.minimum(log_chance, 0))
        for offset, expected in ((-1e-6, True), (1e-6, False)):
            u = chance * (1 + offset)
            kept = (u > 1e-300) & (u <= 1)
            cube, accepted = propose(x[kept], u[kept], d, c)
            np.testing.assert_array_equal(accepted, np.full(kept.sum(), expected))
            np.testing.assert_allclose(cube, v[kept], rtol=1e-9)


def test_a_normal_number_below_the_end_is_refused():
    d, c, _ = GammaShape(1.0).constants
    cube, accepted = propose(np.array([-1 / c, -1 / c - 1e-6, -8.0]), np.full(3, 1e-9), d, c)
    assert not accepted.any() and np.isfinite(cube).all()


def test_the_constants_of_a_shape():
    for shape in (1.0, 7.5):
        assert GammaShape(shape).constants == (
            pytest.approx(shape - 1 / 3),
            pytest.approx(1 / math.sqrt(9 * shape - 3)),
            0.0,
        )
    assert GammaShape(0.25).constants == (
        pytest.approx(1.25 - 1 / 3),
        pytest.approx(1 / math.sqrt(9 * 1.25 - 3)),
        4.0,
    )


def test_a_number_depends_on_its_lane_alone():
    values, logs = numbers(0.5, 3.0, count=500, stream=2)
    for start, stop in ((0, 1), (3, 40), (400, 500)):
        part = numbers(0.5, 3.0, count=stop - start, start=start, stream=2)
        assert np.array_equal(part[0], values[:, start:stop])
        assert np.array_equal(part[1], logs[:, start:stop])
    for other in ({"stream": 3}, {"seed": 6, "stream": 2}):
        assert not np.isin(numbers(0.5, 3.0, count=500, **other)[0], values).any()


def test_a_number_depends_on_its_own_shape_alone():
    first, second = (numbers(7.0, other, count=500)[0] for other in (1.0, 0.2))
    assert np.array_equal(first[0], second[0])


def test_where_every_attempt_fails_the_middle_stands_for_the_number(monkeypatch):
    monkeypatch.setattr(normal_gamma, "ATTEMPTS", 0)
    values, _ = numbers(3.0, 5.0, count=4)
    np.testing.assert_allclose(values, [[3 - 1 / 3] * 4, [5 - 1 / 3] * 4])


@pytest.mark.parametrize("shape", [0, -1.0, 2.0**-32, 2.0**31 * 1.001, math.nan, math.inf, "a"])
def test_a_shape_out_of_range_is_refused(shape):
    with pytest.raises(ValueError) as error:
        GammaShape(shape)
    assert str(error.value) == f"shape is {shape!r}; accepted is a number from 2**-31 to 2**31"
