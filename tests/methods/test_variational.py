"""Approximate inference: closed forms, quadrature, other people's fits, and what is refused."""

import math

import pytest
import torch
from hypothesis import given, strategies as st
from sklearn.linear_model import LogisticRegression
from torch import distributions, nn
from torch.nn import functional as F

from kempe_nb.methods import variational
from kempe_nb.methods.posteriors import Dropout, Samples
from kempe_nb.methods.variational import (
    fan_in_scales,
    fit_gaussian,
    fit_mean_field,
    kl_diagonal_gaussians,
    log_likelihood,
    log_prior,
    train_dropout,
    train_map,
)
from kempe_nb.networks.flat import FlatNetwork
from kempe_nb.networks.perceptron import perceptron, perceptron_bn

#: Standard errors that a mean over draws may be off; the seeds are fixed.
ERRORS = 5


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(count=40, pixels=4, classes=3, seed=0, dtype=torch.float64):
    """Images and labels of a noisy linear rule."""
    rng = generator(seed)
    images = torch.randn(count, pixels, generator=rng, dtype=torch.float64)
    rule = torch.randn(pixels, classes, generator=rng, dtype=torch.float64)
    noise = torch.randn(count, classes, generator=rng, dtype=torch.float64)
    return images.to(dtype), (images @ rule + noise).argmax(1)


NET = FlatNetwork(perceptron([4, 5, 3]))
HOW = {"steps": 30, "lr": 0.05}
FITS = {
    "map": lambda *data, **how: train_map(NET, *data, **HOW | how),
    "members": lambda *data, **how: train_map(NET, *data, count=3, **HOW | how),
    "dropout": lambda *data, **how: train_dropout(NET, *data, 0.2, **HOW | how).theta,
    "mean field": lambda *data, **how: torch.stack(
        [*vars(fit_mean_field(NET, *data, **HOW | how)[0]).values()][1:]
    ),
}


# Priors and likelihoods


def test_prior_scales_follow_the_fan_in():
    module = nn.Sequential(nn.Conv2d(2, 3, 5), nn.Flatten(), nn.Linear(12, 4, bias=False))
    scales = fan_in_scales(FlatNetwork(module), 3.0)
    convolution = torch.full((3 * 2 * 25 + 3,), 3 * math.sqrt(2 / 50))
    torch.testing.assert_close(scales, torch.cat([convolution, torch.full((48,), 3 / 6**0.5)]))
    assert fan_in_scales(NET, 1, dtype=torch.float64).dtype == torch.float64
    with pytest.raises(ValueError, match="'0.2.weight' of BatchNorm1d|BatchNorm1d, which has no"):
        fan_in_scales(FlatNetwork(perceptron_bn(4, 3).eval()), 1.0)
    with pytest.raises(ValueError, match="scale is 0; accepted is a positive finite number"):
        fan_in_scales(NET, 0)


def test_log_densities_are_sums():
    images, labels = drawn()
    thetas = NET.initial(generator(), 4, dtype=torch.float64)
    found, prior = log_likelihood(NET, thetas, images, labels), torch.rand(NET.size) + 0.1
    for theta, one in zip(thetas, found, strict=True):
        torch.testing.assert_close(
            one, -F.cross_entropy(NET(theta, images), labels, reduction="sum")
        )
    density = distributions.Normal(torch.zeros(()), prior).log_prob(thetas).sum(1)
    found = log_prior(thetas, prior)
    torch.testing.assert_close(found - found[0], density - density[0])


def test_confident_float32_networks_have_finite_likelihoods():
    images, labels = drawn(dtype=torch.float32)
    thetas = 1e3 * NET.initial(generator(), 2)
    exact = log_likelihood(NET, thetas.double(), images.double(), labels)
    torch.testing.assert_close(
        log_likelihood(NET, thetas, images, labels), exact, rtol=1e-5, atol=0
    )


# What every fit promises


@pytest.mark.parametrize("kind", FITS)
@pytest.mark.parametrize("batch", [None, 7])
def test_a_seed_gives_the_same_bits_and_leaves_the_rest_alone(kind, batch):
    images, labels = drawn(dtype=torch.float32)
    prior, hidden = fan_in_scales(NET, 1.0), torch.get_rng_state()
    given_ones = images, labels, prior, *NET.module.parameters()
    before = [each.detach().clone() for each in given_ones]
    with torch.no_grad():
        found, again, other = (
            FITS[kind](images, labels, prior, generator=generator(seed), batch=batch)
            for seed in (1, 1, 2)
        )
    assert torch.equal(found, again) and not torch.equal(found, other)
    assert found.dtype == torch.float32 and not found.requires_grad
    assert torch.equal(hidden, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(given_ones, before, strict=True))
    assert all(p.grad is None for p in NET.module.parameters())


@pytest.mark.parametrize("kind", FITS)
def test_one_scale_is_the_same_scale_for_all(kind):
    data = drawn()
    fits = [
        FITS[kind](*data, prior, generator=generator())
        for prior in (0.7, torch.full((NET.size,), 0.7, dtype=torch.float64))
    ]
    assert torch.equal(*fits)


def test_a_batch_stands_for_all_images():
    """On average over batches, and exactly when it holds all."""
    images, labels = drawn()
    theta = NET.initial(generator(), 1, dtype=torch.float64)
    whole, rng = log_likelihood(NET, theta, images, labels), generator(3)
    part = variational.Data(NET, images, labels, 8)
    found = torch.cat([part.log_likelihood(theta, rng) for _ in range(2000)])
    assert (found.mean() - whole).abs() < ERRORS * found.std() / math.sqrt(len(found))
    assert found.std() > 0.1
    same = variational.Data(NET, images, labels, len(labels)).log_likelihood(theta, rng)
    torch.testing.assert_close(same, whole)


# MAP and ensembles


@pytest.mark.parametrize("prior", [0.3, 2.0])
def test_map_is_regularised_logistic_regression(prior):
    """As scikit-learn fits it: the sum over the images, and the precision of the prior."""
    images, labels = drawn()
    network = FlatNetwork(nn.Linear(4, 3, bias=False))
    theta = train_map(network, images, labels, prior, steps=2000, lr=0.1, generator=generator())
    peer = LogisticRegression(C=prior**2, fit_intercept=False, tol=1e-10, max_iter=5000)
    expected = torch.from_numpy(peer.fit(images.numpy(), labels.numpy()).coef_)
    torch.testing.assert_close(theta.view(3, 4), expected, rtol=1e-4, atol=1e-5)


def test_members_are_what_they_would_be_alone():
    data, count = drawn(), 3
    found = train_map(NET, *data, 1.0, count=count, generator=generator(), **HOW)
    assert found.shape == (count, NET.size)
    alone = train_map(NET, *data, 1.0, generator=generator(), **HOW)
    assert alone.shape == (NET.size,)
    torch.testing.assert_close(found[0], alone)
    assert len({tuple(theta.tolist()) for theta in found}) == count
    assert Samples(NET, found).logits(data[0]).shape == (count, 40, 3)


# Dropout


def test_dropout_at_rate_zero_is_map():
    data = drawn()
    found = train_dropout(NET, *data, 0.8, 0.0, generator=generator(), **HOW)
    assert isinstance(found, Dropout) and found.rate == 0
    torch.testing.assert_close(
        found.theta, train_map(NET, *data, 0.8, generator=generator(), **HOW)
    )


def test_dropout_climbs_the_mean_over_masks():
    """Against MAP, on masks that neither has seen; and the gradient of that mean is near zero."""
    (images, labels), rate, prior = drawn(200), 0.4, 1.0
    how = {"steps": 600, "lr": 0.05, "generator": generator()}
    found = train_dropout(NET, images, labels, prior, rate, samples=8, **how).theta
    plain = train_map(NET, images, labels, prior, **how)

    def objective(theta):
        masked = Dropout(NET, theta, rate).draw(4000, generator(9))
        prior_of = log_prior(theta, torch.tensor(prior))
        return log_likelihood(NET, masked, images, labels).mean() + prior_of

    assert objective(found) > objective(plain) + 1
    slopes = [
        torch.autograd.grad(objective(theta), theta)[0].norm()
        for theta in (found.requires_grad_(), plain.requires_grad_())
    ]
    assert slopes[0] < slopes[1] / 5


# The divergence of Gaussians

finite = st.floats(-3, 3)
positive = st.floats(0.05, 20)


@given(st.lists(st.tuples(finite, positive, finite, positive), min_size=1, max_size=6))
def test_the_divergence_is_that_of_torch(rows):
    mean_q, scale_q, mean_p, scale_p = torch.tensor(rows, dtype=torch.float64).T
    found = kl_diagonal_gaussians(mean_q, scale_q, mean_p, scale_p)
    q, p = distributions.Normal(mean_q, scale_q), distributions.Normal(mean_p, scale_p)
    torch.testing.assert_close(
        found, distributions.kl_divergence(q, p).sum(), rtol=1e-9, atol=1e-12
    )
    assert found >= 0
    assert kl_diagonal_gaussians(mean_q, scale_q, mean_q, scale_q) == 0


def test_the_divergence_is_a_mean_of_log_ratios():
    mean_q, scale_q = torch.tensor([0.3, -1.0]), torch.tensor([0.5, 2.0])
    mean_p, scale_p = torch.tensor([0.0, 0.5]), torch.tensor([1.5, 1.0])
    q, p = distributions.Normal(mean_q, scale_q), distributions.Normal(mean_p, scale_p)
    theta = mean_q + scale_q * torch.randn(100_000, 2, generator=generator())
    ratios = (q.log_prob(theta) - p.log_prob(theta)).sum(1).double()
    away = ratios.mean() - kl_diagonal_gaussians(mean_q, scale_q, mean_p, scale_p)
    assert away.abs() < ERRORS * ratios.std() / math.sqrt(len(ratios))


def test_the_logarithm_is_whole():
    """With half of it the least value is -0.077, at half the variance of p, and not 0 at p."""
    variances = torch.linspace(0.05, 3, 60, dtype=torch.float64)

    def divergence(variances):
        scale = variances.sqrt()[:, None]
        return kl_diagonal_gaussians(torch.zeros(1), scale, torch.zeros(1), torch.ones(1))

    found = divergence(variances)
    assert (found >= 0).all() and torch.isclose(
        variances[found.argmin()], torch.tensor(1.0).double()
    )
    half = 0.5 * (variances - 1) - 0.25 * variances.log()
    assert half.min() < -0.07 and abs(variances[half.argmin()] - 0.5) < 0.03
    torch.testing.assert_close(found, 0.5 * (variances - 1 - variances.log()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(st.floats(-9, -1), st.sampled_from([-1, 1]), st.floats(0.01, 100))
def test_near_equal_scales_do_not_cancel(dtype, power, sign, scale_p):
    """Against the series in d, the relative difference of the scales as they are stored."""
    scale_p = torch.tensor([scale_p], dtype=dtype)
    scale_q = scale_p * (1 + sign * 10**power)
    d = ((scale_q.double() - scale_p.double()) / scale_p.double()).item()
    series = d**2 / 2 + sum((-d) ** k / k for k in range(2, 30))
    found = kl_diagonal_gaussians(torch.zeros(1), scale_q, torch.zeros(1), scale_p).item()
    assert found >= 0 and abs(found - series) <= 1e-5 * series + 1e-16 * abs(d)


def test_second_derivatives_of_the_divergence():
    rng = generator()
    numbers = [torch.rand(2, 3, generator=rng, dtype=torch.float64) + 0.5 for _ in range(4)]
    numbers = [each.requires_grad_() for each in numbers]
    assert torch.autograd.gradcheck(kl_diagonal_gaussians, numbers)
    assert torch.autograd.gradgradcheck(kl_diagonal_gaussians, numbers)


@pytest.mark.parametrize("name", ["scale_q", "scale_p"])
@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_the_divergence_refuses_scales_that_are_none(name, bad):
    numbers = {"mean_q": 0.0, "scale_q": 1.0, "mean_p": 0.0, "scale_p": 1.0, name: bad}
    with pytest.raises(ValueError, match=f"{name} holds"):
        kl_diagonal_gaussians(**{key: torch.tensor([each]) for key, each in numbers.items()})


# The mean field on targets with a closed form


def fitted(precision, centre, steps=1500):
    """The mean field of a normal density: minus the entropy stands for the divergence."""
    zeros = torch.zeros_like(centre)
    return fit_gaussian(
        lambda theta: -0.5 * (((theta - centre) @ precision) * (theta - centre)).sum(-1),
        lambda mean, scale: -scale.log().sum(),
        zeros,
        zeros + 0.5,
        steps=steps,
        lr=0.1,
        pairs=32,
        generator=generator(),
    )


def test_the_mean_field_of_independent_coordinates_is_exact():
    precisions = torch.tensor([0.1, 1.0, 4.0, 25.0, 100.0], dtype=torch.float64)
    centre = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0], dtype=torch.float64)
    mean, scale, history = fitted(precisions.diag(), centre)
    torch.testing.assert_close(scale, precisions.rsqrt(), rtol=0.03, atol=0)
    assert ((mean - centre).abs() < 0.02 * precisions.rsqrt()).all()
    # The best objective: the log of the normalising constant, less the constant of the entropy.
    best = -0.5 * precisions.log().sum() - 2.5
    assert abs(history[-200:].mean() - best) < 0.1 and history[:20].mean() < best - 1


def test_the_mean_field_of_correlated_coordinates_is_too_narrow():
    """Its scales are 1 / sqrt(Lambda_ii), those given the others, and no marginal ones."""
    covariance = torch.tensor([[1.0, 0.9, 0.0], [0.9, 1.0, 0.3], [0.0, 0.3, 2.0]]).double()
    precision, centre = covariance.inverse(), torch.tensor([1.0, 2.0, -1.0]).double()
    mean, scale, _ = fitted(precision, centre)
    torch.testing.assert_close(scale, precision.diagonal().rsqrt(), rtol=0.03, atol=0)
    torch.testing.assert_close(mean, centre, rtol=0, atol=0.02)
    assert scale[0] < 0.5 * covariance[0, 0].sqrt()


def test_coordinates_that_are_not_random_stay_so():
    mean = torch.zeros(3, dtype=torch.float64)
    found, scale, _ = fit_gaussian(
        lambda theta: -(theta - 1).square().sum(-1),
        lambda mean, scale: -scale[1:].log().sum(),
        mean,
        torch.tensor([0.0, 0.1, 0.1], dtype=torch.float64),
        steps=400,
        lr=0.1,
        pairs=1,
        generator=generator(),
    )
    assert scale[0] == 0 and (scale[1:] > 0.5).all()
    torch.testing.assert_close(found, torch.ones_like(found), rtol=0, atol=0.05)


# The mean field of a logistic regression with two parameters, by quadrature


class Quadrature:
    """Integrals over two parameters: the evidence and the bound of any mean field."""

    def __init__(self, prior):
        self.network, self.prior = FlatNetwork(nn.Linear(1, 2, bias=False)), prior
        self.data = drawn(20, pixels=1, classes=2, seed=2)
        axis = torch.linspace(-8 * prior, 8 * prior, 801, dtype=torch.float64)
        self.points = torch.cartesian_prod(axis, axis)
        self.cell = (axis[1] - axis[0]) ** 2
        self.likelihood = log_likelihood(self.network, self.points, *self.data)

    def normal(self, mean, scale):
        return distributions.Normal(mean, scale).log_prob(self.points).sum(1)

    def log_evidence(self):
        zeros = torch.zeros(2, dtype=torch.float64)
        logs = self.likelihood + self.normal(zeros, zeros + self.prior)
        return (logs.logsumexp(0) + self.cell.log()).item()

    def bound(self, mean, scale, temperature=1.0):
        density = self.normal(mean, scale).exp() * self.cell
        assert abs(density.sum() - 1) < 1e-6
        divergence = kl_diagonal_gaussians(mean, scale, torch.zeros(2), torch.tensor(self.prior))
        return ((density * self.likelihood).sum() - temperature * divergence).item()


@pytest.mark.parametrize("temperature", [1.0, 0.1, 5.0])
def test_the_fit_is_the_best_mean_field(temperature):
    """No other scale or mean nearby has a larger bound, and none is above the evidence."""
    exact = Quadrature(prior=1.5)
    how = {"steps": 1000, "lr": 0.05, "pairs": 8, "generator": generator()}
    law, history = fit_mean_field(
        exact.network, *exact.data, exact.prior, temperature=temperature, **how
    )
    assert history.shape == (1000,) and history.dtype == torch.float64
    best = exact.bound(law.mean, law.scale, temperature)
    if temperature == 1:
        assert exact.log_evidence() - 0.7 < best < exact.log_evidence()
    late = history[-100:]
    assert abs(late.mean() - best) < 5 * late.std() / 10 + 0.01
    for axis in torch.eye(2, dtype=torch.float64):
        for factor in (0.85, 1.15):
            assert exact.bound(law.mean, law.scale * (1 + axis * (factor - 1)), temperature) < best
        for step in (-0.3, 0.3):
            assert exact.bound(law.mean + step * axis * law.scale, law.scale, temperature) < best


def test_a_fit_may_start_anywhere():
    """From a MAP estimate the bound is good at once; both ends are the same."""
    data, how = drawn(100), {"generator": generator(), "lr": 0.05}
    start = train_map(NET, *data, 1.0, steps=300, **how)
    before = start.clone()
    warm, path = fit_mean_field(NET, *data, 1.0, start=start, steps=50, **how)
    assert torch.equal(start, before) and warm.mean.data_ptr() != start.data_ptr()
    cold, other = fit_mean_field(NET, *data, 1.0, steps=50, **how)
    assert path[:5].mean() > other[:5].mean() + 10


# Bad input

IMAGES, LABELS = drawn()
GOOD = {
    "network": NET,
    "images": IMAGES,
    "labels": LABELS,
    "prior_scale": 1.0,
    "steps": 2,
    "lr": 0.1,
    "generator": generator(),
}
PRIOR = torch.ones(NET.size, dtype=torch.float64)
ONE = FlatNetwork(nn.Linear(4, 1))
COMMON = [
    ({"network": NET.module}, TypeError, "network is a Sequential; accepted is a FlatNetwork"),
    ({"network": ONE}, ValueError, r"network returns shape \(1, 1\)"),
    ({"images": IMAGES.int()}, TypeError, "images is torch.int32"),
    ({"images": IMAGES * math.nan}, ValueError, "images holds 160 elements"),
    ({"images": IMAGES.numpy()}, TypeError, "images is a ndarray"),
    ({"labels": LABELS.float()}, ValueError, "labels is torch.float32"),
    ({"labels": LABELS[:3]}, ValueError, r"labels is torch.int64 \(3,\)"),
    ({"images": IMAGES[:0], "labels": LABELS[:0]}, ValueError, "N from 1 up"),
    ({"labels": LABELS + 3}, ValueError, "labels lie from 3 to 5; accepted is 0 to 2"),
    ({"labels": LABELS.to("meta")}, ValueError, "images is on cpu, labels is on meta"),
    ({"prior_scale": 0.0}, ValueError, "prior_scale is 0.0; accepted is a positive finite number"),
    ({"prior_scale": PRIOR[1:]}, ValueError, r"prior_scale has shape \(42,\); accepted is \[43\]"),
    ({"prior_scale": PRIOR - 1}, ValueError, "prior_scale holds 0; accepted are positive"),
    ({"prior_scale": PRIOR * math.inf}, ValueError, "prior_scale holds 43 elements"),
    ({"prior_scale": PRIOR.float()}, TypeError, "prior_scale is torch.float32; accepted are float"),
    ({"steps": 0}, ValueError, "steps is 0"),
    ({"lr": -1.0}, ValueError, "lr is -1.0"),
    ({"batch": 41}, ValueError, "batch is 41; accepted is an integer from 1 to 40"),
    ({"generator": None}, TypeError, "generator is None"),
]
OWN = [
    (train_map, {"count": 0}, ValueError, "count is 0"),
    (train_dropout, {"rate": 1.0}, ValueError, "rate is 1.0"),
    (train_dropout, {"samples": 0}, ValueError, "samples is 0"),
    (fit_mean_field, {"pairs": 0}, ValueError, "pairs is 0"),
    (fit_mean_field, {"init_scale": 0.0}, ValueError, "init_scale is 0.0"),
    (fit_mean_field, {"temperature": -1.0}, ValueError, "temperature is -1.0"),
    (fit_mean_field, {"start": PRIOR[1:]}, ValueError, r"start has shape \(42,\)"),
]


@pytest.mark.parametrize("fit", [train_map, train_dropout, fit_mean_field])
@pytest.mark.parametrize(("change", "error", "message"), COMMON)
def test_bad_input_is_named(fit, change, error, message):
    own = {"rate": 0.2} if fit is train_dropout else {}
    with pytest.raises(error, match=message):
        fit(**GOOD | own | change)


@pytest.mark.parametrize(("fit", "change", "error", "message"), OWN)
def test_bad_settings_are_named(fit, change, error, message):
    own = {"rate": 0.2} if fit is train_dropout else {}
    with pytest.raises(error, match=message):
        fit(**GOOD | own | change)


def test_a_fit_that_leaves_the_finite_numbers_says_so():
    with pytest.raises(ValueError, match="lr is 1e[+]200; the objective was not finite from step"):
        train_map(**GOOD | {"lr": 1e200})
