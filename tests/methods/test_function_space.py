"""Function-space inference: its laws of functions against draws, and a case with a known answer."""

import math

import pytest
import torch
from hypothesis import given, strategies as st
from torch import distributions, nn

from kempe_nb.methods.function_space import (
    features,
    fit_function_space,
    function_covariances,
    kl_gaussians,
    last_layer,
    prior_covariances,
)
from kempe_nb.methods.posteriors import Gaussian
from kempe_nb.methods.variational import fit_mean_field, kl_diagonal_gaussians
from kempe_nb.networks.flat import FlatNetwork
from kempe_nb.networks.perceptron import perceptron

#: Standard errors that a mean over draws may be off; the seeds are fixed.
ERRORS = 5
NET = FlatNetwork(perceptron([4, 5, 3]))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def covariance(*shape, seed=0):
    root = normal(*shape, shape[-1], seed=seed)
    return root @ root.mT + 0.1 * torch.eye(shape[-1])


def data(count=40, pixels=4, dtype=torch.float64):
    images = normal(count, pixels, dtype=dtype)
    noise = 0.5 * normal(count, 3, seed=2)
    return images, (images.double() @ normal(pixels, 3, seed=1) + noise).argmax(1)


@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 100))
def test_the_divergence_is_that_of_torch(size, batch, seed):
    means = normal(2, batch, size, seed=seed)
    covariances = covariance(2, batch, size, seed=seed + 1)
    factor = torch.linalg.cholesky(covariances[1])
    found = kl_gaussians(means[0], covariances[0], means[1], factor)
    q, p = (
        distributions.MultivariateNormal(mean, covariance)
        for mean, covariance in zip(means, covariances, strict=True)
    )
    torch.testing.assert_close(found, distributions.kl_divergence(q, p), rtol=1e-8, atol=1e-8)
    same = kl_gaussians(means[1], covariances[1], means[1], factor)
    assert found.shape == (batch,) and (found >= 0).all() and (same.abs() < 1e-9).all()


def test_derivatives_of_the_divergence():
    root, means = normal(3, 3).requires_grad_(), normal(2, 3, seed=1).requires_grad_()
    factor = torch.linalg.cholesky(covariance(3, seed=2))

    def of(root, means):
        return kl_gaussians(means[0], root @ root.mT + torch.eye(3), means[1], factor)

    assert torch.autograd.gradcheck(of, (root, means))
    assert torch.autograd.gradgradcheck(of, (root, means))


def test_the_last_layer_of_the_features_is_the_network():
    theta, x = NET.initial(generator(), dtype=torch.float64), normal(7, 4)
    phi = features(NET, theta, x)
    assert phi.shape == (7, 6) and (phi[:, -1] == 1).all()
    torch.testing.assert_close(phi @ last_layer(NET, theta).mT, NET(theta, x))


def test_drawn_functions_have_the_covariance_that_is_claimed():
    theta, x, draws = NET.initial(generator(), dtype=torch.float64), normal(3, 4), 20_000
    scale = torch.zeros(NET.size, dtype=torch.float64)
    for name in ("3.weight", "3.bias"):
        NET.parts(scale)[name].copy_(normal(*NET.parts(scale)[name].shape, seed=3).abs())
    found = Gaussian(NET, theta, scale).logits(x, draws, generator())
    away = found - NET(theta, x)
    assert (away.mean(0).abs() < ERRORS * found.std(0) / math.sqrt(draws)).all()
    products = torch.einsum("snk,smk->sknm", away, away)
    expected = function_covariances(features(NET, theta, x), last_layer(NET, scale))
    error = products.std(0) / math.sqrt(draws)
    assert ((products.mean(0) - expected).abs() < ERRORS * error).all()
    # Classes have weights of their own.
    across = away[:, :, :1] * away[:, :, 1:]
    assert (across.mean(0).abs() < ERRORS * across.std(0) / math.sqrt(draws)).all()


def test_the_prior_over_functions_is_that_of_random_networks():
    scale, x, draws = 0.2 + normal(NET.size).abs(), normal(3, 4, seed=5), 20_000
    found = Gaussian(NET, 0 * scale, scale).logits(x, draws, generator())
    products = torch.einsum("snk,smk->sknm", found, found)
    claimed = prior_covariances(NET, scale, x, 4000, generator(1))
    error = products.std(0) * math.sqrt(1 / draws + 1 / 4000)
    assert ((products.mean(0) - claimed).abs() < ERRORS * error).all()
    assert (found.mean(0).abs() < ERRORS * found.std(0) / math.sqrt(draws)).all()


def test_enough_points_tell_functions_as_well_as_parameters():
    """As many points as features, no jitter: the same divergence as that of the last layer."""
    theta = NET.initial(generator(), dtype=torch.float64)
    phi = normal(6, 6, seed=7)
    mean = last_layer(NET, theta)
    q, p = (0.2 + normal(3, 6, seed=seed).abs() for seed in (8, 9))
    factor = torch.linalg.cholesky(function_covariances(phi, p))
    found = kl_gaussians(mean @ phi.mT, function_covariances(phi, q), torch.zeros(3, 6), factor)
    torch.testing.assert_close(found, kl_diagonal_gaussians(mean, q, torch.zeros(1), p))
    # Fewer points, or noise on both, tell less.
    few, noise = phi[:4], 0.5 * torch.eye(6)
    factor = torch.linalg.cholesky(function_covariances(few, p))
    less = kl_gaussians(mean @ few.mT, function_covariances(few, q), torch.zeros(3, 4), factor)
    factor = torch.linalg.cholesky(function_covariances(phi, p) + noise)
    noisy = function_covariances(phi, q) + noise
    assert (less < found).all()
    assert (kl_gaussians(mean @ phi.mT, noisy, torch.zeros(3, 6), factor) < found).all()


def test_without_hidden_layers_it_is_the_mean_field():
    """A linear classifier at as many context points as it has inputs, the bias included."""
    network, (images, labels) = FlatNetwork(nn.Sequential(nn.Flatten(), nn.Linear(4, 3))), data()
    how = {"steps": 600, "lr": 0.05, "pairs": 8}
    found, path = fit_function_space(
        network,
        images,
        labels,
        1.0,
        normal(5, 4, seed=4),
        points=5,
        prior_draws=1,
        jitter=1e-9,
        generator=generator(1),
        **how,
    )
    other, bound = fit_mean_field(network, images, labels, 1.0, generator=generator(2), **how)
    torch.testing.assert_close(found.mean, other.mean, rtol=0, atol=0.1)
    torch.testing.assert_close(found.scale, other.scale, rtol=0.1, atol=0)
    assert abs(path[-100:].mean() - bound[-100:].mean()) < 0.5


@pytest.mark.parametrize("batch", [None, 7])
def test_a_fit(batch):
    """Random in the last layer alone, right more often than not, and the same bits for a seed."""
    images, labels = data(dtype=torch.float32)
    context, hidden = torch.cat([images[:10], torch.ones(5, 4)]), torch.get_rng_state()
    before = [each.clone() for each in (images, labels, context)]
    how = {"steps": 150, "lr": 0.05, "points": 6, "batch": batch}
    with torch.no_grad():
        laws = [
            fit_function_space(NET, images, labels, 1.5, context, generator=generator(s), **how)
            for s in (1, 1, 2)
        ]
    (found, path), (again, _), (other, _) = laws
    assert torch.equal(found.mean, again.mean) and torch.equal(found.scale, again.scale)
    assert not torch.equal(found.mean, other.mean)
    assert torch.equal(hidden, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip((images, labels, context), before, strict=True))
    assert found.scale.dtype == torch.float32 and not found.mean.requires_grad
    parts = NET.parts(found.scale)
    assert all((part == 0).all() == name.startswith("1.") for name, part in parts.items())
    assert path.shape == (150,) and path[-20:].mean() > path[:20].mean() + 10
    mean = found.logits(images, 50, generator()).log_softmax(-1).logsumexp(0)
    assert (mean.argmax(1) == labels).float().mean() > 0.7


IMAGES, LABELS = data()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"network": FlatNetwork(nn.Linear(4, 3))}, ValueError, "network is of Linear; accepted"),
        (
            {"network": FlatNetwork(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))},
            ValueError,
            "network is of Sequential; accepted is an nn.Sequential that ends in an nn.Linear",
        ),
        ({"network": FlatNetwork(perceptron([4, 3], bias=False))}, ValueError, "with a bias"),
        ({"labels": LABELS + 3}, ValueError, "labels lie from 3 to 5"),
        ({"prior_scale": -1.0}, ValueError, "prior_scale is -1.0"),
        ({"context": IMAGES[:, :2]}, ValueError, r"context has shape \(40, 2\); accepted is \[M"),
        ({"context": IMAGES[:0]}, ValueError, r"context has shape \(0, 4\)"),
        ({"context": IMAGES.float()}, TypeError, "context is torch.float32"),
        ({"context": IMAGES * math.nan}, ValueError, "context holds 160 elements"),
        ({"points": 41}, ValueError, "points is 41; accepted is an integer from 1 to 40"),
        ({"prior_draws": 0}, ValueError, "prior_draws is 0"),
        ({"jitter": 0.0}, ValueError, "jitter is 0.0; accepted is a positive finite number"),
        ({"init_scale": 0.0}, ValueError, "init_scale is 0.0"),
        ({"pairs": 0}, ValueError, "pairs is 0"),
        ({"steps": 0}, ValueError, "steps is 0"),
        ({"generator": None}, TypeError, "generator is None"),
    ],
)
def test_bad_input_is_named(change, error, message):
    good = {"network": NET, "images": IMAGES, "labels": LABELS, "prior_scale": 1.0}
    good |= {"context": IMAGES, "steps": 2, "lr": 0.1, "generator": generator()}
    with pytest.raises(error, match=message):
        fit_function_space(**good | change)
