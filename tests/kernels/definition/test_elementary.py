"""Logarithm and exponential: errors in units of the last place against 40 digits, and exact points.

The bounds are the module's promise, "right to a few units in the last place": 2 for e^-x and
1 - e^-x, 3 for the logarithm.
"""

import math
import warnings

import mpmath
import numpy as np
import pytest

from kempe_nb.kernels import elementary

RNG_SEED = 0
#: Half a unit in the last place of a number just below 1: terms below it are lost in rounding.
HALF_ULP = 2.0**-54
TINY, HUGE = np.finfo(np.float64).tiny, np.finfo(np.float64).max


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def worst_ulps(function, exact, points) -> float:
    """Return the largest error of a function, in units of the last place of the exact value."""
    found = function(points)
    assert found.dtype == np.float64 and found.shape == points.shape
    with mpmath.workdps(40):
        values = [exact(mpmath.mpf(float(x))) for x in points]
        errors = [abs(mpmath.mpf(float(f)) - v) for f, v in zip(found, values, strict=True)]
        units = np.spacing(np.abs([float(v) for v in values]))
        return max(float(e / u) for e, u in zip(errors, units.tolist(), strict=True))


def neighbours(points) -> np.ndarray:
    """Return the points and the numbers just below and above them."""
    points = np.asarray(points, dtype=np.float64)
    return np.concatenate([points, np.nextafter(points, -np.inf), np.nextafter(points, np.inf)])


def test_the_exponential_is_right_to_two_units():
    rng = np.random.default_rng(RNG_SEED)
    # Where the power of two changes, the reduced argument is largest.
    edges = (np.arange(1, 1000, 9) - 0.5) * math.log(2)
    points = np.concatenate(
        [rng.uniform(0, 700, 2000), rng.uniform(0, 2, 1000), 10.0 ** rng.uniform(-20, 0, 500)]
    )
    points = np.concatenate([points, neighbours(edges), [0.0, 700.0]])
    assert worst_ulps(elementary.exp_minus, lambda x: mpmath.exp(-x), points) <= 2


def test_one_minus_the_exponential_is_right_to_two_units_however_small_it_is():
    rng = np.random.default_rng(RNG_SEED)
    points = np.concatenate(
        [rng.uniform(0, 1, 1500), 10.0 ** rng.uniform(-300, 0, 1500), [1e-300, np.nextafter(1, 0)]]
    )
    assert worst_ulps(elementary.one_minus_exp_minus, lambda x: -mpmath.expm1(-x), points) <= 2


def test_the_logarithm_is_right_to_three_units_over_all_normal_numbers():
    rng = np.random.default_rng(RNG_SEED)
    bits = rng.integers(np.array(TINY).view(np.int64), np.array(HUGE).view(np.int64), 2000)
    # The mantissa is halved from sqrt 2 on.
    seams = neighbours(np.sqrt(2.0) * 2.0 ** np.arange(-5, 6))
    points = np.concatenate([bits.view(np.float64), rng.uniform(0.5, 2, 2000), seams])
    points = np.concatenate([points, [TINY, HUGE]])
    assert worst_ulps(elementary.log, mpmath.log, points) <= 3


def test_the_logarithm_is_right_to_three_units_near_one():
    steps = 2.0 ** -np.arange(1, 53)
    points = np.concatenate([1 + steps, 1 - steps / 2, 1 + 3 * steps[2:-1], [1 - 2.0**-53]])
    assert worst_ulps(elementary.log, mpmath.log, points) <= 3


def test_the_rest_of_the_inverse_hyperbolic_tangent_is_right_to_two_units():
    rng = np.random.default_rng(RNG_SEED)
    # Up to the largest square that the logarithm and the Poisson deviance hand over.
    points = np.concatenate([rng.uniform(0, 0.0295, 1000), 10.0 ** rng.uniform(-12, -2, 500)])

    def exact(w):
        with mpmath.workdps(70):
            root = mpmath.sqrt(w)
            return mpmath.atanh(root) / root - 1

    assert worst_ulps(elementary.atanh_rest, exact, points) <= 2


def test_exact_points():
    assert elementary.exp_minus(np.array([0.0])) == 1
    assert elementary.one_minus_exp_minus(np.array([0.0])) == 0
    assert elementary.atanh_rest(np.array([0.0])) == 0
    assert elementary.log(np.array([1.0])) == 0


def test_the_logarithm_of_a_power_of_two_is_the_nearest_number():
    powers = np.arange(-1022, 1024)
    with mpmath.workdps(40):
        expected = [float(int(k) * mpmath.log(2)) for k in powers]
    assert elementary.log(2.0**powers).tolist() == expected


def test_the_two_parts_of_ln_2():
    with mpmath.workdps(40):
        both = mpmath.mpf(elementary.LN2_HIGH) + mpmath.mpf(elementary.LN2_LOW)
        assert abs(both - mpmath.log(2)) < 2.0**-53 * elementary.LN2_LOW
    mantissa = int(math.ldexp(elementary.LN2_HIGH, 53))
    assert mantissa == math.ldexp(elementary.LN2_HIGH, 53)
    assert mantissa % 2**21 == 0 and 1022 < 2**21
    assert abs(elementary.INVERSE_LN2 * math.log(2) - 1) < 2.0**-52
    assert math.sqrt(2) == elementary.SQRT2


def test_the_series_end_where_nothing_would_change():
    # The first term that is left out, relative to a value of at least 1/2.
    radius, n = math.log(2) / 2, elementary.EXP_TERMS + 1
    assert radius**n / math.factorial(n) / 0.5 < HALF_ULP
    # The series of (1 - e^-x)/x ends with x^17/18!; at x = 1 its value is 1 - 1/e.
    assert 1 / math.factorial(elementary.LOSS_TERMS + 1) / 0.5 < HALF_ULP
    n = elementary.ATANH_TERMS + 1
    assert 0.0295**n / (2 * n + 1) / 0.5 < HALF_ULP


def test_the_exponential_is_cut_behind_its_largest_exponent():
    edge = elementary.LARGEST_EXPONENT
    beyond = np.array([np.nextafter(edge, np.inf), 701.0, 745.0, 1e6, HUGE, np.inf])
    assert not elementary.exp_minus(beyond).any()
    assert 0 < elementary.exp_minus(np.array([edge]))[0] < 1e-300


def test_the_functions_keep_order_up_to_their_errors():
    # Neighbours 10 units apart differ by more than the two errors of the results.
    points = np.sort(np.random.default_rng(RNG_SEED).uniform(0, 710, 20_000))
    points = np.concatenate([points[np.diff(points, prepend=-1.0) > 1e-12], [HUGE]])
    assert (np.diff(elementary.exp_minus(points)) <= 0).all()
    small = np.concatenate([10.0 ** np.linspace(-300, -1, 5000), np.linspace(0.1, 0.999, 5000)])
    assert (np.diff(elementary.one_minus_exp_minus(small)) >= 0).all()
    wide = 10.0 ** np.linspace(-300, 300, 20_001)
    assert (np.diff(elementary.log(wide)) > 0).all()


def test_shapes_are_kept():
    grid = np.linspace(0.1, 0.9, 12)
    for call in (elementary.exp_minus, elementary.one_minus_exp_minus, elementary.log):
        for shape in ((), (0,), (3, 4), (2, 1, 6)):
            points = grid[: math.prod(shape)].reshape(shape)
            found = call(points)
            assert np.shape(found) == shape
            assert np.array_equal(np.ravel(found), call(grid)[: math.prod(shape)])
