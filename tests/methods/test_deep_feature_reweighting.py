"""Sparse last layers against scikit-learn's solvers, and subsamples with equal groups."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from sklearn.linear_model import LogisticRegression

from kempe_nb.methods.deep_feature_reweighting import (
    balanced_subsamples,
    fit_sparse_last_layers,
    optimality_gap,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(samples=60, dimension=5, classes=2, seed=0):
    labels = torch.arange(samples) % classes
    features = torch.randn(samples, dimension, generator=generator(seed), dtype=torch.float64)
    features[:, 0] += labels
    return features, labels


def uniform(samples):
    return torch.full((samples,), 1 / samples, dtype=torch.float64)


@given(st.integers(1, 8), st.floats(-2, 1), st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_two_classes_have_the_coefficients_of_liblinear(dimension, power, seed):
    features, labels = problem(dimension=dimension, seed=seed)
    inverse = 10**power
    layer = fit_sparse_last_layers(features, labels, uniform(60), 1 / (60 * inverse), steps=3000)[0]
    peer = LogisticRegression(C=inverse, l1_ratio=1, solver="liblinear", tol=1e-10, max_iter=10_000)
    peer.fit(features.numpy(), labels.numpy())
    found = (layer[:, 1] - layer[:, 0]).numpy()
    np.testing.assert_allclose(found[:-1], peer.coef_[0], atol=1e-5)
    np.testing.assert_allclose(found[-1], peer.intercept_[0], atol=1e-5)


def test_three_classes_have_the_minimum_of_saga():
    features, labels = problem(classes=3)
    layer = fit_sparse_last_layers(features, labels, uniform(60), 0.02, steps=3000)[0]
    with_ones = np.concatenate([features.numpy(), np.ones((60, 1))], 1)
    peer = LogisticRegression(
        C=1 / (60 * 0.02),
        l1_ratio=1,
        solver="saga",
        fit_intercept=False,
        tol=1e-10,
        max_iter=100_000,
    )
    peer.fit(with_ones, labels.numpy())

    def objective(w):
        z = torch.from_numpy(with_ones) @ w
        return float(torch.nn.functional.cross_entropy(z, labels) + 0.02 * w.abs().sum())

    assert objective(layer) == pytest.approx(objective(torch.from_numpy(peer.coef_.T)), abs=1e-9)


def test_each_configuration_is_solved_as_if_alone():
    features, labels = problem()
    subsamples = balanced_subsamples(labels, 3, generator(), torch.float64)
    penalties = torch.tensor([0.001, 0.01, 0.1])
    together = fit_sparse_last_layers(features, labels, subsamples, penalties, steps=2000)
    for g in range(3):
        kept = subsamples[g] > 0
        alone = fit_sparse_last_layers(
            features[kept], labels[kept], subsamples[g, kept], float(penalties[g]), steps=2000
        )
        torch.testing.assert_close(together[g], alone[0], rtol=0, atol=1e-6)


def test_what_is_on_the_way_does_not_depend_on_the_others():
    # Steps and restarts belong to a configuration: few steps, before all have arrived.
    features, labels = problem()
    drawn = torch.rand(2, 60, generator=generator(), dtype=torch.float64)
    first, second = drawn / drawn.sum(1, keepdim=True)
    likelihood, penalties = (
        torch.stack([first, second, first]),
        torch.tensor([1e-4, 0.05, 0.2]).double(),
    )
    for steps in (1, 20, 60):
        together = fit_sparse_last_layers(features, labels, likelihood, penalties, steps=steps)
        for k in range(3):
            alone = fit_sparse_last_layers(
                features, labels, likelihood[k], float(penalties[k]), steps=steps
            )
            torch.testing.assert_close(together[k], alone[0], rtol=0, atol=1e-12)


def test_the_first_step_has_the_length_of_the_curvature():
    # From zero: 2 / (largest eigenvalue of X^T D X), then the threshold.
    features, labels = problem()
    layer = fit_sparse_last_layers(features, labels, uniform(60), 0.01, steps=1)[0]
    x = torch.cat([features, torch.ones(60, 1)], 1)
    step = 2 / torch.linalg.eigvalsh(x.T @ x / 60)[-1]
    downhill = step * x.T @ (torch.nn.functional.one_hot(labels) - 0.5).double() / 60
    expected = downhill.sign() * (downhill.abs() - 0.01 * step).clamp_min(0)
    torch.testing.assert_close(layer, expected, rtol=1e-10, atol=0)


def test_by_default_the_steps_arrive():
    features, labels = problem(dimension=30)
    layers = fit_sparse_last_layers(features, labels, uniform(60), 0.01)
    assert optimality_gap(features, labels, uniform(60), 0.01, layers) < 1e-9


def test_a_penalty_above_the_gradient_at_zero_leaves_nothing():
    features, labels = problem()
    residual = 0.5 - torch.nn.functional.one_hot(labels).double()
    gradient = torch.cat([features, torch.ones(60, 1)], 1).T @ residual / 60
    largest = float(gradient.abs().max())
    above, below = (
        fit_sparse_last_layers(features, labels, uniform(60), factor * largest)
        for factor in (1.001, 0.9)
    )
    assert (above == 0).all() and (below != 0).any()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 4))
def test_subsamples_have_as_many_of_every_group_as_the_smallest(sizes, refits):
    groups = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    found = balanced_subsamples(groups, refits, generator(), torch.float64)
    assert found.shape == (refits, len(groups))
    for row in found:
        assert torch.bincount(groups[row > 0], minlength=len(sizes)).unique() == min(sizes)
        assert abs(row.sum() - 1) < 1e-12 and len(row[row > 0].unique()) == 1


def test_every_sample_of_a_group_is_drawn_equally_often():
    groups = torch.tensor([0] * 8 + [1] * 2)
    drawn = balanced_subsamples(groups, 4000, generator(), torch.float64) > 0
    often = drawn[:, :8].double().mean(0)
    # Five standard errors of a share of a quarter.
    assert (often - 0.25).abs().max() < 5 * math.sqrt(0.25 * 0.75 / 4000)
    assert drawn[:, 8:].all()


@pytest.mark.parametrize(
    "penalty, said",
    [
        (0, "penalty is 0; accepted is a positive"),
        (math.nan, "penalty is nan"),
        (math.inf, "penalty is inf"),
        (torch.tensor([0.1, -1.0]), r"penalty is \[0.1"),
        (torch.tensor([0.1, math.inf]), r"penalty is \[0.1"),
        (torch.tensor([]), r"penalty is \[\]"),
        (torch.ones(3), "penalty has 3 and likelihood 2 configurations"),
    ],
)
def test_bad_penalties_are_refused(penalty, said):
    features, labels = problem()
    with pytest.raises(ValueError, match=said):
        fit_sparse_last_layers(features, labels, uniform(60).expand(2, -1), penalty)


def test_the_gap_tells_minimisers_from_weights_on_the_way():
    features, labels = problem(classes=3)
    far, near = (
        fit_sparse_last_layers(features, labels, uniform(60), 0.02, steps=steps)
        for steps in (5, 3000)
    )
    gaps = optimality_gap(features, labels, uniform(60), 0.02, torch.cat([far, near]))
    assert gaps[0] > 0.1 and gaps[1] < 1e-6
    # At zero the gap is how far the largest gradient is above the penalty.
    nothing = torch.zeros_like(near)
    assert optimality_gap(features, labels, uniform(60), 10.0, nothing) == 0


def test_features_of_one_scale_get_there_sooner():
    features, labels = problem(dimension=4)
    wide = features * torch.tensor([0.01, 0.1, 1.0, 10.0])
    gaps = [
        optimality_gap(x, labels, uniform(60), 0.01, found)
        for x in (features, wide)
        for found in [fit_sparse_last_layers(x, labels, uniform(60), 0.01, steps=200)]
    ]
    assert 100 * gaps[0] < gaps[1]


def test_samples_that_are_not_accepted_are_refused():
    features, labels = problem()
    for likelihood, said in (
        (2 * uniform(60), "likelihood has sums from 2"),
        (uniform(60)[None][:0], "likelihood has 0 configurations"),
    ):
        with pytest.raises(ValueError, match=said):
            fit_sparse_last_layers(features, labels, likelihood, 0.1)
    with pytest.raises(ValueError, match="features are too large"):
        fit_sparse_last_layers(1e30 * features.float(), labels, uniform(60).float(), 0.1)
    with pytest.raises(ValueError, match="dtype is torch.int64"):
        balanced_subsamples(labels, 1, generator(), torch.int64)


def test_bad_refits_and_groups_are_refused():
    with pytest.raises(ValueError, match="refits is 0"):
        balanced_subsamples(torch.tensor([0, 1]), 0, generator(), torch.float64)
    with pytest.raises(ValueError, match="no samples of group 1"):
        balanced_subsamples(torch.tensor([0, 2]), 1, generator(), torch.float64)
