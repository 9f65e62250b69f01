"""Features with known laws: exact accuracies against draws, and the best rule against others."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.stats import norm

from kempe_nb.data.spurious_features import (
    bayes_accuracies,
    linear_accuracies,
    skewed_counts,
    spurious_features,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@given(st.lists(st.integers(0, 9), min_size=4, max_size=4), st.integers(2, 6))
def test_groups_have_the_numbers_asked_for(counts, dimension):
    if not sum(counts):
        return
    features, labels, groups = spurious_features(np.array(counts), dimension, generator())
    assert torch.bincount(groups, minlength=4).tolist() == counts
    assert features.shape == (sum(counts), dimension) and features.dtype == torch.float32
    assert torch.equal(labels, groups // 2)


def test_features_have_the_stated_means_and_spreads():
    features, _, groups = spurious_features(
        np.full(4, 20_000), 3, generator(), core_noise=0.5, spurious_noise=2.0
    )
    for group, (y, a) in enumerate([(-1, -1), (-1, 1), (1, -1), (1, 1)]):
        own = features[groups == group]
        scales = torch.tensor([0.5, 2.0, 1.0])
        error = (own.mean(0) - torch.tensor([y, a, 0.0])) / scales
        assert (error.abs() < 5 / math.sqrt(20_000)).all()
        assert ((own.std(0) / scales - 1).abs() < 5 / math.sqrt(2 * 20_000)).all()


@given(
    st.lists(st.floats(-2, 2), min_size=3, max_size=3).filter(lambda w: max(map(abs, w)) > 0.1),
    st.floats(-1, 1),
)
@settings(max_examples=10, deadline=None)
def test_accuracies_of_a_line_are_those_of_many_draws(weight, bias):
    features, labels, groups = spurious_features(np.full(4, 10_000), 3, generator(1))
    right = ((features @ torch.tensor(weight) + bias > 0) == (labels == 1)).double()
    exact = linear_accuracies(np.array(weight), bias)
    for group in range(4):
        error = math.sqrt(exact[group] * (1 - exact[group]) / 10_000) + 1e-6
        assert abs(right[groups == group].mean() - exact[group]) < 5 * error


@pytest.mark.parametrize("counts", [(1, 1, 1, 1), (95, 5, 5, 95), (60, 10, 25, 5)])
def test_the_best_rule_has_its_accuracies_and_beats_lines_on_average(counts):
    counts = np.array(counts)
    found = bayes_accuracies(counts)
    shares = counts / counts.sum()
    rng = np.random.default_rng(0)
    for _ in range(200):
        line = linear_accuracies(rng.normal(size=2), rng.normal())
        assert line @ shares <= found @ shares + 1e-9
    # By draws: the label whose density is higher at each point.
    features, labels, groups = spurious_features(np.full(4, 40_000), 2, generator(2))
    core, spurious = features.double().numpy().T
    law = [
        share * norm.pdf(core, y, 0.6) * norm.pdf(spurious, a, 0.3)
        for share, (y, a) in zip(shares, [(-1, -1), (-1, 1), (1, -1), (1, 1)], strict=True)
    ]
    right = (law[2] + law[3] > law[0] + law[1]) == labels.numpy()
    for group in range(4):
        own = right[groups.numpy() == group].mean()
        assert abs(own - found[group]) < 5 * math.sqrt(0.25 / 40_000)


@pytest.mark.parametrize("core_noise, spurious_noise", [(0.3, 0.1), (1.0, 1.0), (5.0, 0.3)])
def test_the_best_rule_agrees_with_adaptive_integration(core_noise, spurious_noise):
    from scipy.integrate import quad

    noises = {"core_noise": core_noise, "spurious_noise": spurious_noise}
    shares = np.array([60, 10, 25, 5]) / 100
    found = bayes_accuracies(shares, **noises)
    for group, (y, a) in enumerate([(-1, -1), (-1, 1), (1, -1), (1, 1)]):

        def right(s, y=y, a=a):
            log = np.log(shares) + norm.logpdf(s, [-1, 1, -1, 1], spurious_noise)
            ratio = np.logaddexp(*log[2:]) - np.logaddexp(*log[:2])
            core = -(core_noise**2) / 2 * ratio
            return norm.cdf(y * (y - core) / core_noise) * norm.pdf(s, a, spurious_noise)

        pieces = np.linspace(a - 9 * spurious_noise, a + 9 * spurious_noise, 41)
        exact = sum(quad(right, *ends)[0] for ends in zip(pieces[:-1], pieces[1:], strict=True))
        assert found[group] == pytest.approx(exact, abs=1e-7)


def test_lines_are_judged_by_the_noises_that_are_given():
    line = np.array([1.0, 0.0])
    np.testing.assert_allclose(linear_accuracies(line, 0.0, core_noise=2.0), norm.cdf(0.5))
    line = np.array([0.0, 1.0])
    found = linear_accuracies(line, 0.0, spurious_noise=0.5)
    np.testing.assert_allclose(found, norm.cdf([2, -2, -2, 2]))


def test_groups_of_one_attribute_only_have_no_nan():
    found = bayes_accuracies(np.array([1, 0, 1, 0]), spurious_noise=0.1)
    assert np.isfinite(found).all() and found[0] == pytest.approx(norm.cdf(1 / 0.6))


def test_equal_groups_are_judged_by_the_core_alone():
    expected = norm.cdf(1 / 0.6)
    np.testing.assert_allclose(bayes_accuracies(np.ones(4)), expected, atol=1e-12)
    np.testing.assert_allclose(linear_accuracies(np.array([1.0, 0.0]), 0.0), expected)


def test_the_best_rule_on_average_gives_up_the_minority():
    found = bayes_accuracies(skewed_counts(2000, 0.95))
    assert found[1] == pytest.approx(found[2]) and found[0] == pytest.approx(found[3])
    assert found[1] < norm.cdf(1 / 0.6) < found[0]
    # Nobody has the whole of the accuracy in the worst group and the best mean.
    assert bayes_accuracies(skewed_counts(2000, 0.99))[1] < found[1]


def test_skewed_counts_are_symmetric_and_whole():
    assert skewed_counts(1000, 0.95).tolist() == [475, 25, 25, 475]
    with pytest.raises(ValueError, match="which leaves a group of 0"):
        skewed_counts(10, 0.99)
    with pytest.raises(ValueError, match="samples is 101"):
        skewed_counts(101, 0.9)
    for share in (0, 1, math.nan):
        with pytest.raises(ValueError, match="share is"):
            skewed_counts(100, share)


@pytest.mark.parametrize(
    "counts, dimension, changed, said",
    [
        ([1, 2, 3], 2, {}, "counts are"),
        ([1, 2, 3, -1], 2, {}, "counts are"),
        ([0, 0, 0, 0], 2, {}, "counts are"),
        ([1.5, 1, 1, 1], 2, {}, "accepted are whole numbers"),
        ([1, 1, 1, 1], 1, {}, "dimension is 1"),
        ([1, 1, 1, 1], 2, {"core_noise": 0}, "core_noise is 0"),
        ([1, 1, 1, 1], 2, {"spurious_noise": math.nan}, "spurious_noise is nan"),
    ],
)
def test_bad_arguments_are_refused(counts, dimension, changed, said):
    with pytest.raises(ValueError, match=said):
        spurious_features(np.array(counts), dimension, generator(), **changed)


def test_a_line_without_a_direction_is_refused():
    with pytest.raises(ValueError, match="weight is"):
        linear_accuracies(np.zeros(2), 1.0)
    with pytest.raises(ValueError, match="bias is nan"):
        linear_accuracies(np.ones(2), math.nan)


@pytest.mark.parametrize("changed", [{"core_noise": -1.0}, {"spurious_noise": 0.0}])
def test_noises_out_of_range_are_refused(changed):
    (name,) = changed
    with pytest.raises(ValueError, match=f"{name} is"):
        linear_accuracies(np.ones(2), 0.0, **changed)
    with pytest.raises(ValueError, match=f"{name} is"):
        bayes_accuracies(np.ones(4), **changed)
    with pytest.raises(ValueError, match="accepted are groups of both labels"):
        bayes_accuracies(np.array([1, 1, 0, 0]))
