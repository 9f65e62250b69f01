"""The test of STM is Pearson's, and errs as often as its looks and its noise make it."""

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from scipy.signal import lfilter
from scipy.stats import pearsonr

from kempe_nb.methods.level_up import (
    FALLS,
    NEITHER,
    RISES,
    decision,
    first_decision,
    probes_until_falls,
    trend,
)

SERIES = arrays(np.float64, st.integers(3, 60), elements=st.integers(-50, 50).map(float))


@given(SERIES, st.floats(-1e6, 1e6))
def test_the_trend_is_pearson_s_correlation_in_units_of_sigma(losses, shift):
    found = trend(losses + shift)
    assert found.shape == losses.shape
    for n in range(3, len(losses) + 1):
        own = losses[:n]
        expected = 0.0
        if np.ptp(own):
            expected = pearsonr(own, np.arange(n)).statistic * math.sqrt(n - 2)
        assert abs(found[n - 1] - expected) < 1e-5


@given(SERIES, st.floats(0.1, 10.0))
def test_scale_changes_nothing_and_sign_turns_it_over(losses, scale):
    np.testing.assert_allclose(trend(scale * losses), trend(losses), atol=1e-6)
    np.testing.assert_allclose(trend(-losses), -trend(losses), atol=1e-6)


@pytest.mark.parametrize("scale", [1e-170, 1e-100, 0.1, 0.3, 0.7, 1.0, 1e160, 1e306])
def test_a_perfect_fall_is_minus_one_on_every_scale(scale):
    # Never beyond it by rounding, where 25 = 5^2 would be passed a probe too early.
    falling = -scale * np.arange(100.0)
    np.testing.assert_allclose(trend(falling)[2:], -np.sqrt(np.arange(1, 99)), rtol=1e-12)
    assert first_decision(falling, every=1).probes == 28
    assert first_decision(-falling, every=1).probes == 12


def test_series_are_taken_one_by_one():
    losses = np.random.default_rng(0).normal(size=(3, 2, 40))
    np.testing.assert_allclose(trend(losses)[1, 1], trend(losses[1, 1]))
    looks = first_decision(losses, threshold=1.0, rise=1.0)
    alone = first_decision(losses[2, 0], threshold=1.0, rise=1.0)
    assert looks.probes.shape == (3, 2) and looks.probes[2, 0] == alone.probes


def test_a_fall_without_noise_is_seen_at_the_first_look_that_allows_it():
    # r = -1, so n - 2 has to be above lambda^2: 27 for five sigma, and looks are at tens.
    falling = -np.arange(100.0)
    assert first_decision(falling).probes == 30 and first_decision(falling).falls
    assert first_decision(falling, threshold=2.0).probes == 10
    assert first_decision(falling, every=1).probes == 28
    assert first_decision(-falling).probes == 20 and first_decision(-falling).rises
    never = first_decision(-falling, rise=math.inf)
    assert never.probes == 100 and not never.falls and not never.rises


@given(SERIES.filter(lambda losses: len(losses) % 10 == 0), st.floats(0.5, 4.0))
def test_asked_as_training_goes_on_it_decides_where_it_decides_at_once(losses, threshold):
    said = [
        decision(losses[:n], threshold=threshold, rise=threshold) for n in range(1, len(losses) + 1)
    ]
    whole = first_decision(losses, threshold=threshold, rise=threshold)
    first = next((k for k, each in enumerate(said) if each != NEITHER), None)
    if first is None:
        assert whole.probes == len(losses) and not whole.falls and not whole.rises
    else:
        assert whole.probes == first + 1
        assert (said[first] == FALLS) == whole.falls and (said[first] == RISES) == whole.rises


@pytest.mark.parametrize(("memory", "low", "high"), [(0.0, 0.005, 0.05), (0.9, 0.95, 1.0)])
def test_without_a_trend_false_alarms_come_with_memory(memory, low, high):
    # The shares of a simulation that was made before, 0.02 and 1.00, within generous errors.
    noise = np.random.default_rng(1).normal(size=(1000, 1000))
    found = first_decision(lfilter([1.0], [1.0, -memory], noise))
    assert low < float((found.falls | found.rises).mean()) <= high


@pytest.mark.parametrize(("slope", "noise"), [(0.02, 1.0), (0.002, 1.0), (0.001, 0.02)])
def test_a_fall_takes_about_as_long_as_the_formula_has(slope, noise):
    draws = np.random.default_rng(2).normal(size=(400, 2000))
    found = first_decision(noise * draws - slope * np.arange(2000), rise=math.inf)
    expected = probes_until_falls(slope, noise)
    # Looks come in tens, so a decision is up to ten probes late.
    assert 0.95 * expected <= np.median(found.probes) <= 1.05 * expected + 10


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.floats(0.5, 10.0))
def test_the_formula_has_its_limits(slope, noise, threshold):
    found = probes_until_falls(slope, noise, threshold)
    faint = (math.sqrt(12) * threshold * noise / slope) ** (2 / 3)
    assert max(threshold**2, faint) <= found * (1 + 1e-9) <= (threshold**2 + faint) * 1.01
    share = found**2 * slope**2 / 12 / noise**2
    assert abs(found * share / (1 + share) / threshold**2 - 1) < 1e-6


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: decision([1.0], threshold=-1), "threshold is -1"),
        (lambda: decision([1.0], rise=math.nan), "rise is nan"),
        (lambda: decision([1.0], rise=-math.inf), "rise is -inf"),
        (lambda: trend(["1", "2"]), "losses have dtype"),
        (lambda: trend([True, False]), "losses have dtype bool"),
        (lambda: probes_until_falls(1e-300, 1e300), "probes can be counted"),
        (lambda: trend([]), "losses have shape"),
        (lambda: trend(1.0), "losses have shape"),
        (lambda: trend([1.0, np.nan]), "losses hold values"),
        (lambda: first_decision([1.0], threshold=0), "threshold is 0"),
        (lambda: first_decision([1.0], rise=-1), "rise is -1"),
        (lambda: first_decision([1.0], every=0), "every is 0"),
        (lambda: decision([[1.0]]), "one series"),
        (lambda: probes_until_falls(0.0, 1.0), "slope is 0"),
    ],
)
def test_bad_arguments_are_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()
