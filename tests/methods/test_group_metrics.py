"""Accuracies of groups against fairlearn, and the bias of a minimum against exact cases."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from kempe_nb.methods.group_metrics import (
    corrected_minimum,
    expected_minimum,
    group_accuracy,
)


def drawn(samples, groups, seed, predictors=()):
    generator = torch.Generator().manual_seed(seed)
    groups = torch.cat(
        [torch.arange(groups), torch.randint(groups, (samples,), generator=generator)]
    )
    labels = torch.randint(3, groups.shape, generator=generator)
    predicted = torch.randint(3, (*predictors, len(groups)), generator=generator)
    return predicted, labels, groups


@given(st.integers(1, 60), st.integers(1, 6), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_accuracies_are_those_of_fairlearn(samples, groups, seed):
    metrics = pytest.importorskip("fairlearn.metrics")
    from sklearn.metrics import accuracy_score

    predicted, labels, groups = drawn(samples, groups, seed)
    found = group_accuracy(predicted, labels, groups)
    frame = metrics.MetricFrame(
        metrics=accuracy_score,
        y_true=labels.numpy(),
        y_pred=predicted.numpy(),
        sensitive_features=groups.numpy(),
    )
    np.testing.assert_allclose(found.by_group, frame.by_group.to_numpy(), atol=1e-15)
    assert found.worst == pytest.approx(frame.group_min())
    assert found.mean(found.counts) == pytest.approx(frame.overall)


@given(st.integers(0, 30), st.integers(1, 4), st.integers(0, 1000))
@settings(deadline=None)
def test_many_predictors_are_counted_as_each_alone(samples, groups, seed):
    predicted, labels, groups = drawn(samples, groups, seed, predictors=(2, 3))
    found = group_accuracy(predicted, labels, groups)
    assert found.right.shape == (2, 3, len(found.counts)) and found.right.dtype == torch.int64
    for i in range(2):
        for j in range(3):
            alone = group_accuracy(predicted[i, j], labels, groups)
            assert torch.equal(alone.right, found.right[i, j])
            assert alone.worst == found.worst[i, j]
            assert alone.worst_standard_error == found.worst_standard_error[i, j]


def test_the_mean_takes_the_proportions_of_the_training():
    predicted = torch.tensor([0, 0, 1, 1])
    labels, groups = torch.tensor([0, 0, 1, 0]), torch.tensor([0, 0, 1, 1])
    found = group_accuracy(predicted, labels, groups)
    assert found.by_group.tolist() == [1.0, 0.5]
    assert found.mean(torch.tensor([90, 10])) == pytest.approx(0.95)
    for wrong in ([1, 2, 3], [0, 0], [3, -1], [1.0, float("inf")]):
        with pytest.raises(ValueError, match="training_counts are"):
            found.mean(torch.tensor(wrong))


def test_the_error_of_the_worst_is_that_of_its_group_and_of_ties_the_larger():
    labels = torch.ones(1002, dtype=torch.int64)
    predicted = labels.clone()
    for groups, right in (((1000, 2), (500, 1)), ((2, 1000), (1, 500))):
        number = torch.arange(2).repeat_interleave(torch.tensor(groups))
        start = 0
        for size, good in zip(groups, right, strict=True):
            predicted[start : start + size] = (torch.arange(size) < good).long()
            start += size
        found = group_accuracy(predicted, labels, number)
        assert found.worst_standard_error == pytest.approx(0.5 / 2**0.5)
        assert found.standard_errors.amin() == pytest.approx(0.5 / 1000**0.5)
    # The group that is smaller is not the worst one.
    better = group_accuracy(
        torch.tensor([1, 0, 1, 0, 1, 1]), torch.ones(6).long(), torch.tensor([0, 0, 0, 0, 1, 1])
    )
    assert better.worst_standard_error == pytest.approx(0.25)


def test_published_test_sets_have_errors_of_one_and_two_points():
    # Accuracies of 93.2, 90.2 and 74.3 percent on 642, 180 and 886 pictures.
    for right, count, points in ((598, 642, 1.0), (162, 180, 2.2), (658, 886, 1.5)):
        predicted = torch.zeros(count, dtype=torch.int64)
        predicted[:right] = 1
        ones = torch.ones(count, dtype=torch.int64)
        error = group_accuracy(predicted, ones, 0 * ones).worst_standard_error
        assert 100 * error == pytest.approx(points, abs=0.05)


@given(st.floats(0, 1), st.integers(1, 30))
def test_one_group_has_no_bias(accuracy, count):
    assert expected_minimum([accuracy], [count]) == pytest.approx(accuracy, abs=1e-12)


@given(
    # Not the smallest of numbers, on which the oracle overflows.
    st.lists(
        st.tuples(st.integers(0, 100).map(lambda k: k / 100), st.integers(1, 6)),
        min_size=2,
        max_size=3,
    ),
)
@settings(max_examples=40, deadline=None)
def test_the_expectation_is_the_sum_over_all_outcomes(groups):
    from itertools import product

    from scipy.stats import binom

    accuracies, counts = (np.array(each) for each in zip(*groups, strict=True))
    expected = sum(
        np.prod([binom.pmf(k, n, a) for k, n, a in zip(each, counts, accuracies, strict=True)])
        * min(k / n for k, n in zip(each, counts, strict=True))
        for each in product(*(range(n + 1) for n in counts))
    )
    assert expected_minimum(accuracies, counts) == pytest.approx(expected, abs=1e-12)


def test_the_bias_grows_with_groups_and_falls_with_samples():
    def bias(groups, count):
        return 0.9 - expected_minimum([0.9] * groups, [count] * groups)

    assert 0 < bias(2, 100) < bias(4, 100) < bias(6, 100)
    assert bias(4, 100) > bias(4, 400) > bias(4, 1600) > 0


def test_a_group_that_is_clearly_the_worst_has_no_bias():
    assert expected_minimum([0.5, 0.99], [200, 200]) == pytest.approx(0.5, abs=1e-6)


def test_the_correction_takes_away_bias_and_not_all_of_it():
    rng, counts, true = np.random.default_rng(0), np.array([90] * 4), np.array([0.8] * 4)
    shown = rng.binomial(counts, true, size=(2000, 4)) / counts
    plain, corrected = shown.min(1).mean(), np.mean([corrected_minimum(a, counts) for a in shown])
    assert plain < corrected < 0.8


def test_the_correction_takes_the_bias_off_once():
    # Two fair coins, one toss each: the smaller is 1/4 on average.
    assert corrected_minimum([0.5, 0.5], [1, 1]) == pytest.approx(2 * 0.5 - 0.25)


def test_the_correction_adds_too_much_where_one_group_is_the_worst():
    from itertools import product

    from scipy.stats import binom

    true, counts = [0.7, 0.85], np.array([30, 30])
    pmf = [binom.pmf(np.arange(31), 30, accuracy) for accuracy in true]
    plain = corrected = 0.0
    for one, two in product(range(31), repeat=2):
        chance = pmf[0][one] * pmf[1][two]
        plain += chance * min(one, two) / 30
        corrected += chance * corrected_minimum(np.array([one, two]) / 30, counts)
    assert plain < 0.7 < corrected


def test_a_corrected_minimum_is_no_more_than_one():
    assert corrected_minimum([1.0, 1.0], [9, 9]) == 1.0
    assert corrected_minimum([0.98] * 12, [50] * 12) == 1.0


@pytest.mark.parametrize(
    "accuracies, counts",
    [([1.2], [3]), ([0.5], [2.5]), ([0.5], [0]), ([0.5, 0.5], [3]), ([], []), ([np.nan], [3])],
)
def test_bad_accuracies_are_refused(accuracies, counts):
    with pytest.raises(ValueError, match="accuracies"):
        expected_minimum(accuracies, counts)


def test_bad_predictions_are_refused():
    labels = torch.tensor([0, 1])
    with pytest.raises(TypeError, match="predicted is torch.float32"):
        group_accuracy(labels.float(), labels, labels)
    with pytest.raises(ValueError, match="predicted has shape"):
        group_accuracy(labels[:1], labels, labels)
    with pytest.raises(ValueError, match="predicted has shape"):
        group_accuracy(labels, labels[:1], labels)
    with pytest.raises(ValueError, match="no samples of group 2"):
        group_accuracy(labels, labels, labels, 3)
