"""Perturbed logits against weights that are moved, predictions, and what is refused."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from layer_problems import gradient_of, normal, problem, weights

from kempe_nb.methods.frozen_features import perturbed_logits, predictions, with_ones

SAMPLES = problem(8, 3)
UNIFORM = torch.full((8,), 1 / 8, dtype=torch.float64)


@given(st.integers(2, 4), st.integers(1, 12), st.floats(0, 3), st.integers(0, 1000))
@settings(deadline=None)
def test_perturbed_logits_are_those_at_perturbed_weights(classes, dimension, radius, seed):
    features, labels = problem(15, dimension, classes, seed)
    w, context = normal(dimension + 1, classes, seed=seed + 1), weights(15, seed=seed + 2)
    uphill = gradient_of(with_ones(features), labels, context, w)
    expected = with_ones(features) @ (w + radius * uphill / uphill.norm())
    found = perturbed_logits(features, labels, w, context, radius)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"context": UNIFORM[:1]}, "context is"),
        ({"context": UNIFORM[:, None]}, "context is"),
        ({"context": UNIFORM.expand(2, -1)}, "context has shape"),
        ({"context": -UNIFORM}, "context has sums"),
        ({"weight": torch.zeros(4).double()}, "weight is"),
        ({"weight": torch.full((4, 3), math.nan).double()}, "weight holds 12"),
        ({"weight": torch.zeros(4, 2).double()}, "labels lie from 0 to 2"),
        ({"labels": torch.zeros(1, dtype=torch.int64)}, r"labels are .* \(1,\)"),
        ({"radius": -1.0}, "radius is -1.0"),
    ],
)
def test_perturbed_logits_refuse_bad_arguments(changed, said):
    given_ = {"features": SAMPLES[0], "labels": SAMPLES[1], "context": UNIFORM, "radius": 0.1}
    with pytest.raises(ValueError, match=said):
        perturbed_logits(**({"weight": torch.zeros(4, 3).double()} | given_ | changed))


def test_where_the_gradient_is_zero_the_logits_stay():
    features, labels = torch.zeros(4, 2, dtype=torch.float64), torch.tensor([0, 1, 0, 1])
    even = torch.full((4,), 0.25, dtype=torch.float64)
    w = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.5, 0.5]], dtype=torch.float64)
    assert (perturbed_logits(features, labels, w, even, 1.0) == 0.5).all()


def test_predictions_are_the_largest_logits():
    features, labels = problem(9, 4)
    layers = normal(5, 5, 3)
    expected = torch.einsum("sf,gfc->gsc", with_ones(features), layers).argmax(2)
    assert torch.equal(predictions(features, layers), expected)
    assert predictions(features, layers[:0]).shape == (0, 9)
    with pytest.raises(ValueError, match="another length"):
        predictions(features[:, :3], layers)
    with pytest.raises(TypeError, match="weights is torch.float32"):
        predictions(features, layers.float())
    with pytest.raises(ValueError, match="features holds 4 elements"):
        predictions(torch.where(features == features[0], math.nan, features), layers)
    with pytest.raises(ValueError, match="weights holds 1 elements"):
        predictions(features, torch.where(layers == layers.max(), math.nan, layers))
