"""Lowered thresholds: no point beyond them is near the harmful zone, and the last one is."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, strategies as st
from scipy.spatial.distance import jensenshannon

from kempe_nb.methods.simplex_expansion import RANGES, lowered_threshold, two_point_divergence

between = st.floats(1e-6, 1 - 1e-6)
shares = st.floats(0.0, 1.0)
#: x log x of a number that is off by a rounding of one, with x near that rounding itself.
ROUNDING = 2.0**-52 * 53 * math.log(2)


def divergence_with_50_digits(t, p):
    """Return the Jensen-Shannon divergence of (t, 1 - t) and (p, 1 - p) by its definition."""
    with mpmath.workdps(50):
        total = mpmath.mpf(0)
        for x, y in ((mpmath.mpf(t), mpmath.mpf(p)), (1 - mpmath.mpf(t), 1 - mpmath.mpf(p))):
            middle = (x + y) / 2
            total += sum(z * mpmath.log(z / middle) for z in (x, y) if z) / 2
        return total


def distance_of(name, x, y):
    """Return the distance of two laws by its textbook formula."""
    if name == "jsd":
        return jensenshannon(x, y) ** 2
    difference = np.abs(x - y)
    return {"l1": difference.sum(), "tv": difference.sum() / 2, "l2": math.hypot(*difference)}[name]


def pairs(seed, harmful=3, explanations=8, count=300):
    """Return pairs of points on a simplex, some of them near each other and some near its edge."""
    rng = np.random.default_rng(seed)
    x = rng.dirichlet(np.full(explanations, 0.5), count)
    y = rng.dirichlet(np.full(explanations, 0.5), count)
    mix = rng.random((count, 1)) ** 3
    return x, (1 - mix) * x + mix * y


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("seed", range(3))
def test_a_point_within_epsilon_of_the_harmful_zone_reaches_the_threshold(name, seed):
    for x, y in zip(*pairs(seed), strict=True):
        p = y[:3].sum()
        epsilon = distance_of(name, x, y)
        t = lowered_threshold(p, epsilon, name, harmful=3, explanations=8)
        assert x[:3].sum() >= t - 1e-9


@pytest.mark.parametrize("name", ["l1", "tv", "jsd"])
@pytest.mark.parametrize("seed", range(3))
def test_at_the_threshold_keeping_proportions_reaches_the_zone(name, seed):
    x, _ = pairs(seed)
    for start, share in zip(x, np.random.default_rng(seed).random(len(x)), strict=True):
        s = start[:3].sum()
        p = s + share * (1 - s) * 0.999
        end = np.concatenate([start[:3] * p / s, start[3:] * (1 - p) / (1 - s)])
        t = lowered_threshold(p, distance_of(name, start, end), name)
        assert t == pytest.approx(s, abs=1e-7)


def test_in_the_interior_an_even_step_reaches_the_zone_in_l2():
    start, step = np.full(8, 1 / 8), 0.01
    end = start + np.concatenate([np.full(3, step / 3), np.full(5, -step / 5)])
    t = lowered_threshold(
        end[:3].sum(), math.hypot(*(end - start)), "l2", harmful=3, explanations=8
    )
    assert t == pytest.approx(3 / 8, rel=1e-12)


def test_near_the_boundary_the_threshold_of_l2_holds_points_that_are_farther():
    """All safe mass lies on one explanation; the others have nothing to give."""
    start = np.zeros(8)
    start[0], start[3] = 0.2, 0.8
    epsilon = 0.1
    t = lowered_threshold(0.2 + 0.1, epsilon, "l2", harmful=3, explanations=8)
    assert t < 0.2
    # The shortest step adds a third to each harmful explanation and takes from this one alone.
    assert math.sqrt(0.1**2 / 3 + 0.1**2) > epsilon


@given(between, shares)
def test_total_variation_is_half_of_l1(p, share):
    assert lowered_threshold(p, share, "tv") == lowered_threshold(p, 2 * share, "l1")


@given(between, shares)
def test_the_divergence_of_the_threshold_is_epsilon(p, share):
    reach = two_point_divergence(0.0, p)
    t = lowered_threshold(p, share * reach, "jsd")
    assert 0 <= t <= p
    assert two_point_divergence(t, p) == pytest.approx(share * reach, rel=1e-8, abs=1e-15)
    assert lowered_threshold(p, min(reach * 1.001, math.log(2)), "jsd") == 0


@given(shares, shares)
@example(0.9999999999999999, 0.19698095281936318)
@example(1.0, 0.9999999999999999)
def test_the_divergence_of_two_points_is_symmetric_and_right_to_rounding(t, p):
    """SciPy's own has no digits, or none at all, where the points are close."""
    found = two_point_divergence(t, p)
    assert found == pytest.approx(float(divergence_with_50_digits(t, p)), rel=1e-9, abs=ROUNDING)
    assert found == pytest.approx(two_point_divergence(p, t), rel=1e-9, abs=ROUNDING)


@given(between, st.floats(1e-12, 0.5))
def test_the_divergence_of_near_points_has_its_digits(p, share):
    """No absolute tolerance: away from the edges rounding leaves nine digits of it."""
    t = p * (1 - share)
    exact = float(divergence_with_50_digits(t, p))
    assert two_point_divergence(t, p) == pytest.approx(exact, rel=1e-9, abs=0)


def test_a_tiny_divergence_has_its_digits():
    """JSD is (p - t)^2 / (8 p (1 - p)) to first order."""
    for epsilon in (1e-12, 1e-20, 1e-28):
        drop = 0.3 - lowered_threshold(0.3, epsilon, "jsd")
        assert drop == pytest.approx(math.sqrt(8 * 0.3 * 0.7 * epsilon), rel=1e-4, abs=1e-16)


@pytest.mark.parametrize("name", RANGES)
def test_no_power_lowers_nothing_and_more_power_lowers_more(name):
    steps = np.linspace(0, RANGES[name], 30)
    found = [lowered_threshold(0.4, e, name, harmful=3, explanations=8) for e in steps]
    assert found[0] == 0.4
    assert (np.diff(found) <= 0).all() and found[-1] <= 0
    assert np.diff(found[:5]).max() < 0 or name == "jsd"


def test_values_that_were_worked_out_by_hand():
    assert lowered_threshold(0.5, 0.25, "l1") == 0.375
    assert lowered_threshold(0.5, 0.75, "tv") == -0.25
    # Balanced with n = 100: sqrt(1/50 + 1/50) = 1/5.
    assert lowered_threshold(0.5, 0.02, "l2", harmful=50, explanations=100) == pytest.approx(0.4)
    assert two_point_divergence(0.0, 1.0) == pytest.approx(math.log(2))


@pytest.mark.parametrize("p", [0, 1, -0.1, 1.5, math.nan, math.inf, "a", None, True], ids=repr)
def test_a_threshold_outside_is_refused(p):
    with pytest.raises(ValueError) as error:
        lowered_threshold(p, 0.1, "l1")
    assert str(error.value) == f"p is {p!r}; accepted is a number between 0 and 1"


@pytest.mark.parametrize(
    ("name", "last"), [("l1", "2"), ("tv", "1"), ("jsd", "log 2"), ("l2", "sqrt 2")]
)
def test_an_epsilon_beyond_the_range_of_its_distance_is_refused(name, last):
    lowered_threshold(0.5, RANGES[name], name, harmful=1, explanations=2)
    for epsilon in (-1e-9, RANGES[name] * 1.0001, math.nan, "a", None):
        with pytest.raises(ValueError) as error:
            lowered_threshold(0.5, epsilon, name, harmful=1, explanations=2)
        assert str(error.value) == (
            f"epsilon is {epsilon!r}; accepted is a number from 0 to {last} for {name}"
        )


def test_another_distance_is_refused_with_those_that_exist():
    with pytest.raises(ValueError) as error:
        lowered_threshold(0.5, 0.1, "kl")
    assert str(error.value) == "distance is 'kl'; accepted are 'l1', 'tv', 'jsd', 'l2'"


@pytest.mark.parametrize("harmful", [0, 8, -1, 2.5, None])
@pytest.mark.parametrize("name", ["l1", "l2"])
def test_a_side_without_explanations_is_refused(harmful, name):
    with pytest.raises(ValueError) as error:
        lowered_threshold(0.5, 0.1, name, harmful=harmful, explanations=8)
    assert str(error.value) == f"harmful is {harmful!r}; accepted is an integer from 1 to 7"


@pytest.mark.parametrize("explanations", [None, 1, 0, 2.0])
def test_l2_needs_the_number_of_explanations(explanations):
    with pytest.raises(ValueError, match=r"^explanations is .*; accepted is an integer from 2 up$"):
        lowered_threshold(0.5, 0.1, "l2", harmful=1, explanations=explanations)
