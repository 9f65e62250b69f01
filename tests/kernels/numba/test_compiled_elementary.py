"""Elementary functions of compiled code, on many numbers between the ends of what they take."""

import numpy as np
import pytest

from kempe_nb import dispatch

if dispatch.numba_version():
    import numba

    from kempe_nb.kernels.numba import elementary

    NAMES = elementary.exp_minus, elementary.log_1p, elementary.log_below

pytestmark = pytest.mark.numba


def over_all(function, points):
    """Call what only compiled code can call at each of the points."""

    @numba.njit(error_model="numpy")
    def loop(points):
        found = np.empty_like(points)
        for i in range(len(points)):
            found[i] = function(points[i])
        return found

    return loop(points)


def worst_ulps(function, reference, points):
    """Return the largest error in units of the last place of the float32 that would be right."""
    truth = reference(points.astype(np.float64))
    units = np.spacing(np.abs(truth).astype(np.float32)).astype(np.float64)
    return (np.abs(over_all(function, points) - truth) / units).max()


def spread_over(low, high):
    """Return float32 numbers that are even in their logarithm, and even in themselves."""
    even = np.linspace(low, high, 300_001, dtype=np.float32)
    return np.concatenate([even, np.geomspace(low, high, 300_001).astype(np.float32)])


def test_exp_minus():
    assert worst_ulps(elementary.exp_minus, lambda x: np.exp(-x), spread_over(1e-38, 87.0)) <= 2
    assert over_all(elementary.exp_minus, np.zeros(1, np.float32)) == 1
    beyond = np.array([88.0, 104.0, 1e30, 3.4e38, np.inf], np.float32)
    assert not over_all(elementary.exp_minus, beyond).any()
    # In between it falls, and is never negative or NaN.
    edge = over_all(elementary.exp_minus, np.linspace(86.9, 88.1, 100_001, dtype=np.float32))
    assert (np.diff(edge) <= 0).all() and edge.min() == 0 and edge.max() < 2e-38


def test_log_1p():
    assert worst_ulps(elementary.log_1p, np.log1p, spread_over(1e-37, 1e6)) <= 4
    assert over_all(elementary.log_1p, np.zeros(1, np.float32)) == 0


def test_log_below():
    assert worst_ulps(elementary.log_below, np.log, spread_over(1.2e-38, 0.75)) <= 3


def test_double_precision_is_that_of_the_mathematics_library():
    points = np.linspace(1e-3, 0.75, 1001)
    references = (lambda x: np.exp(-x), np.log1p, np.log)
    for function, reference in zip(NAMES, references, strict=True):
        np.testing.assert_allclose(over_all(function, points), reference(points), rtol=4e-16)


def test_the_interpreter_of_python_is_told_that_it_cannot_call_them():
    for function in NAMES:
        with pytest.raises(NotImplementedError, match="only for compiled code"):
            function(1.0)
