"""HMC draws from the posterior: closed forms, a joint law, NumPyro's NUTS; and what its terms are.

Means and variances are held to five standard errors, from effective sample sizes or from
independent chains, at fixed seeds.
"""

import math
import warnings

import jax
import numpyro
import pytest
import torch
from densities import DOUBLE, ERRORS, normals, seeded, standard, within_errors
from numpyro import distributions
from numpyro.infer import MCMC, NUTS
from scipy import stats
from torch.nn import functional as F

from kempe_nb.methods import hamiltonian_monte_carlo as hmc
from kempe_nb.methods.chain_diagnostics import effective_sample_size, split_r_hat
from kempe_nb.methods.hamiltonian_monte_carlo import posterior_terms, sample
from kempe_nb.methods.leapfrog import evaluate, log_ratio
from kempe_nb.networks.flat import FlatNetwork
from kempe_nb.networks.perceptron import perceptron


def gaussian(mean, covariance):
    """Return the terms of a normal density; each is of an independent coordinate."""
    root = torch.linalg.inv(torch.linalg.cholesky(covariance))
    return lambda q: ((q - mean) @ root.mT).square() / -2


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_a_correlated_and_badly_scaled_gaussian(dtype):
    mean = torch.tensor([3.0, -1.0, 0.2], dtype=dtype)
    scale = torch.diag(torch.tensor([0.2, 1.0, 2.0], dtype=dtype))
    correlation = torch.tensor([[1, 0.9, 0], [0.9, 1, -0.3], [0, -0.3, 1]], dtype=dtype)
    covariance = scale @ correlation @ scale
    start = 3 * normals(20, 3, dtype=dtype)
    settings = {"warmup": 100, "draws": 300, "steps": 40, "generator": seeded(1)}
    chains = sample(gaussian(mean, covariance), start, **settings)
    assert chains.states.dtype == dtype and not chains.divergences.any()
    assert split_r_hat(chains.states).amax() < 1.02
    draws = chains.states.double()
    assert within_errors(draws, mean)
    centred = draws - mean
    assert within_errors(centred[..., :, None] * centred[..., None, :], covariance)
    assert effective_sample_size(draws).amin() > 1000


# The conjugate model: one chain for each data set, starting at the parameters behind it

DESIGN, NOISE = normals(6, 3, seed=5), 0.7


def standardised_after(transitions, step, replicates=4000):
    """Return draws of posteriors less their means, over their standard deviations, and acceptance.

    Parameters are drawn from N(0, I), and data from their law given these; then the parameters are
    a draw of the posterior, and still are after transitions that leave the posterior as it is. So
    the draws [R, 3] are N(0, I) without any warm-up (Geweke, JASA 99, 2004).
    """
    theta = normals(replicates, 3, seed=6)
    y = theta @ DESIGN.mT + NOISE * normals(replicates, 6, seed=7)

    def terms(q):
        return torch.cat([(y - q @ DESIGN.mT).square() / (-2 * NOISE**2), q.square() / -2], 1)

    precision = torch.eye(3, dtype=DOUBLE) + DESIGN.mT @ DESIGN / NOISE**2
    mean = y @ DESIGN @ torch.linalg.inv(precision) / NOISE**2
    settings = {"warmup": 0, "draws": transitions, "steps": 3, "step_size": step}
    with warnings.catch_warnings():
        # In a few transitions some of 4,000 chains accept nothing.
        warnings.simplefilter("ignore", RuntimeWarning)
        chains = sample(terms, theta, generator=seeded(8), **settings)
    return (chains.states[:, -1] - mean) @ torch.linalg.cholesky(precision), chains.acceptance


def is_standard_normal(z):
    """Whether the moments of independent draws are those of N(0, I), and their law too."""
    count, axes = z.shape
    covariance = z.mT @ z / count
    bound = ERRORS / count**0.5 * (1 + torch.eye(axes, dtype=DOUBLE)).sqrt()
    moments = (z.mean(0).abs() < ERRORS / count**0.5).all()
    moments &= ((covariance - torch.eye(axes)).abs() < bound).all()
    # Five standard errors are a probability of 6e-7.
    return bool(moments) and all(stats.kstest(z[:, k], "norm").pvalue > 6e-7 for k in range(axes))


def test_posteriors_stay_as_they_are():
    z, acceptance = standardised_after(15, step=0.35)
    assert 0.5 < acceptance.mean() < 0.8
    assert is_standard_normal(z)


def without_kinetic(before, after, momentum, flown):
    return after.log_density - before.log_density


def with_kinetic_turned(before, after, momentum, flown):
    return log_ratio(before, after, flown, momentum)


def without_prior(before, after, momentum, flown):
    kinetic = (momentum.square() - flown.square()).sum(1) / 2
    return (after.terms - before.terms)[:, :6].sum(1) + kinetic


def always_accepting(before, after, momentum, flown):
    return torch.zeros(len(momentum), dtype=DOUBLE) - 0.4


@pytest.mark.parametrize(
    "wrong",
    [
        without_kinetic,
        with_kinetic_turned,
        without_prior,
        always_accepting,
    ],
)
def test_a_wrong_ratio_would_be_seen(monkeypatch, wrong):
    """The control of the test above."""
    monkeypatch.setattr(hmc, "log_ratio", wrong)
    assert not is_standard_normal(standardised_after(15, step=0.35)[0])


# A classifier: logistic regression, by NumPyro's NUTS


def two_classes():
    x = torch.cat([torch.ones(100, 1), normals(100, 2, seed=9) * torch.tensor([1.0, 0.3])], 1)
    odds = x @ torch.tensor([0.5, -1.5, 2.0], dtype=DOUBLE)
    return x, (torch.rand(100, generator=seeded(10)) < odds.sigmoid()).long()


def linear_logits(theta, x):
    odds = theta @ x.mT
    return torch.stack([torch.zeros_like(odds), odds], 2)


def nuts(x, labels, scale):
    """Return NumPyro's draws of the posterior, float64 [4, 1500, 3]."""

    def model():
        prior = distributions.Normal(0, scale.numpy()).to_event(1)
        theta = numpyro.sample("theta", prior)
        numpyro.sample("y", distributions.Bernoulli(logits=x.numpy() @ theta), obs=labels.numpy())

    how = {"num_chains": 4, "chain_method": "vectorized", "progress_bar": False}
    chains = MCMC(NUTS(model), num_warmup=500, num_samples=1500, **how)
    chains.run(jax.random.PRNGKey(0))
    drawn = chains.get_samples(group_by_chain=True)["theta"]
    return torch.tensor(drawn.__array__(), dtype=DOUBLE)


def test_logistic_regression_as_numpyro():
    (x, labels), scale = two_classes(), torch.tensor([2.0, 1.0, 4.0], dtype=DOUBLE)
    terms = posterior_terms(linear_logits, x, labels, scale)
    settings = {"warmup": 200, "draws": 500, "steps": 8, "generator": seeded()}
    chains = sample(terms, normals(16, 3), **settings)
    assert chains.acceptance.mean() == pytest.approx(0.8, abs=0.1)
    both = [chains.states * scale, nuts(x, labels, scale)]
    moments, errors = [], []
    for draws in both:
        centred = draws - draws.mean((0, 1))
        values = torch.cat([draws, centred.square()], 2)
        assert split_r_hat(values).amax() < 1.02
        moments.append(values.mean((0, 1)))
        errors.append((values.var((0, 1)) / effective_sample_size(values)).sqrt())
    assert ((moments[0] - moments[1]).abs() < ERRORS * torch.hypot(*errors)).all()
    # The errors are small beside what they are errors of: the standard deviations, the variances.
    spread = torch.cat([moments[1][3:].sqrt(), moments[1][3:]])
    assert (torch.hypot(*errors) < 0.05 * spread).all()


def test_terms_of_a_posterior_by_hand():
    x, labels = two_classes()
    q, scale = normals(4, 3), torch.tensor([2.0, 1.0, 4.0], dtype=DOUBLE)
    terms = posterior_terms(linear_logits, x, labels, scale, temperature=0.5)(q)
    assert terms.shape == (4, 103)
    sign = (2 * labels - 1).double()
    likelihood = stats.logistic.logcdf((sign * ((q * scale) @ x.mT)).numpy())
    torch.testing.assert_close(terms[:, :100], torch.from_numpy(2 * likelihood))
    torch.testing.assert_close(terms[:, 100:], standard(q))
    single = posterior_terms(linear_logits, x, labels, 3.0)(q)
    tripled = posterior_terms(linear_logits, x, labels, 1.0)(3 * q)
    torch.testing.assert_close(single[:, :100], tripled[:, :100])


@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_saturated_logits_have_their_log_densities(size):
    """In float32 the softmax of these is 0 or 1, and its logarithm infinite."""
    x, labels = torch.tensor([[1.0], [-1.0], [0.0]]), torch.tensor([0, 0, 1])
    terms = posterior_terms(linear_logits, x, labels, size)
    point = evaluate(terms, torch.tensor([[1.0], [-1.0]]))
    expected = torch.tensor([[-size, 0, -math.log(2), -0.5], [0, -size, -math.log(2), -0.5]])
    torch.testing.assert_close(point.terms, expected)
    torch.testing.assert_close(point.gradient, torch.tensor([[-size - 1], [size + 1]]))


def test_a_network_under_vmap():
    """Float32, one step size for all layers, and the gradient of `F.cross_entropy`."""
    network = FlatNetwork(perceptron([5, 4, 3]))
    x, labels = normals(30, 5).float(), torch.randint(3, (30,), generator=seeded())
    terms = posterior_terms(torch.func.vmap(network, (0, None)), x, labels, 0.5)
    q = normals(2, network.size, dtype=torch.float32)
    point = evaluate(terms, q)
    for c in range(2):
        ahead = q[c].clone().requires_grad_()
        loss = F.cross_entropy(network(0.5 * ahead, x), labels, reduction="sum")
        (loss + ahead.square().sum() / 2).backward()
        torch.testing.assert_close(point.gradient[c], -ahead.grad)
    chains = sample(terms, q, warmup=50, draws=20, steps=5, generator=seeded())
    assert chains.states.shape == (2, 20, network.size) and chains.acceptance.mean() > 0.4


# Arguments


X, LABELS = torch.ones(5, 3), torch.zeros(5, dtype=torch.int64)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"scale": 0.0}, ValueError, "scale is 0.0; accepted is a positive finite number"),
        ({"scale": torch.tensor([1.0, 0.0, 1.0])}, ValueError, "scale holds 0; accepted are pos"),
        ({"scale": torch.tensor([1.0, math.inf])}, ValueError, "scale holds 1 elements"),
        ({"scale": torch.ones(3).long()}, ValueError, r"scale is torch.int64 \(3,\)"),
        ({"scale": torch.ones(2, 3)}, ValueError, r"scale is torch.float32 \(2, 3\)"),
        ({"scale": torch.ones(3, device="meta")}, ValueError, "scale is on meta, images on cpu"),
        ({"temperature": 0.0}, ValueError, "temperature is 0.0; accepted is a positive finite"),
        ({"temperature": -1.0}, ValueError, "temperature is -1.0"),
        ({"labels": LABELS[:4]}, ValueError, r"labels is torch.int64 \(4,\); accepted is int64 "),
        ({"labels": LABELS.float()}, ValueError, "labels is torch.float32"),
        ({"labels": LABELS.to("meta")}, ValueError, "images is on cpu, labels is on meta"),
        ({"images": [1.0]}, TypeError, "images is a list"),
    ],
)
def test_bad_posteriors_are_named(change, error, message):
    good = {"images": X, "labels": LABELS, "scale": 1.0}
    with pytest.raises(error, match=message):
        posterior_terms(linear_logits, **{**good, **change})


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (linear_logits, LABELS + 2, "labels lie from 2 to 2; accepted is 0 to 1"),
        (linear_logits, LABELS - 1, "labels lie from -1 to -1"),
        (lambda theta, x: theta @ x.mT, LABELS, r"network_logits returns shape \(2, 5\); acc"),
        (lambda theta, x: theta.new_zeros(5, 2, 3), LABELS, r"\(5, 2, 3\); accepted is \[2, 5, K"),
    ],
)
def test_bad_logits_are_named(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        evaluate(posterior_terms(logits, X, labels, 1.0), torch.zeros(2, 3))
