"""Attacks on an ensemble: what they ascend, what they leave alone, and what the wrong ones miss."""

import math

import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn
from torch.nn import functional as F

from kempe_nb.kernels.ensemble_moments import ensemble_moments, ensemble_nll
from kempe_nb.methods.attacks import fgsm, log_odds, margin, pgd, prediction, worst_case
from kempe_nb.methods.ensemble_attacks import (
    LOSSES,
    aware_attack,
    certainty,
    double_softmax,
    entropy,
    first_network,
    mean_logit,
    move_entropy,
    strongest,
    wrong_certainty,
)
from kempe_nb.methods.posteriors import Gaussian, Samples
from kempe_nb.networks.flat import FlatNetwork
from kempe_nb.networks.perceptron import perceptron


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def posterior(networks=6, seed=0, dtype=torch.float64, size=1.5):
    network = FlatNetwork(perceptron([5, 8, 3]))
    theta = size * torch.randn(networks, network.size, generator=rng(seed), dtype=dtype)
    return Samples(network, theta)


def data(inputs=20, dtype=torch.float64):
    images = torch.rand(inputs, 5, generator=rng(1), dtype=dtype)
    return images, torch.arange(inputs) % 3


def logits_of(networks=5, inputs=7, classes=4, scale=2.0):
    return scale * torch.randn(networks, inputs, classes, generator=rng(3), dtype=torch.float64)


def gradient_of(loss, logits, labels):
    logits = logits.detach().requires_grad_()
    return torch.autograd.grad(loss(logits, labels).sum(), logits)[0]


# Losses


def test_the_right_gradient_is_that_of_the_kernel_up_to_its_length():
    """log((1 - p) / p) grows with - log p: d/dp of one is 1 / (1 - p) times that of the other."""
    logits, labels = logits_of(), torch.arange(7) % 4
    found = gradient_of(log_odds, logits, labels)
    nll = ensemble_nll(logits, labels)
    p = torch.exp(-nll.values)[None, :, None]
    torch.testing.assert_close(found, nll.gradient / (1 - p), rtol=1e-10, atol=1e-14)


def test_the_responsibilities_weigh_the_networks_own_gradients():
    """Proposition 1 of the chapter, by autograd on each side."""
    model, (x, labels) = posterior(), data()
    x = x.requires_grad_()
    log_p = model.logits(x).log_softmax(2)
    own = log_p.gather(2, labels.expand(len(log_p), -1)[..., None])[..., 0]
    each = torch.stack([torch.autograd.grad(-s.sum(), x, retain_graph=True)[0] for s in own])
    shares = torch.softmax(own.detach(), 0)[..., None]
    total = math.log(len(own)) - torch.logsumexp(own, 0)
    (whole,) = torch.autograd.grad(total.sum(), x)
    torch.testing.assert_close(whole, (shares * each).sum(0), rtol=1e-10, atol=1e-14)
    # The mean of the gradients is another thing.
    assert (whole - each.mean(0)).abs().max() > 0.1 * whole.abs().max()


def test_each_loss_is_what_its_name_says():
    logits, labels = logits_of(), torch.arange(7) % 4
    p = logits.softmax(2)
    of_mean = p.mean(0)
    row = torch.arange(7)
    expected = {
        "log mean": torch.log((1 - of_mean[row, labels]) / of_mean[row, labels]),
        "mean loss": -p[:, row, labels].log().mean(0),
        "log of mean": -of_mean[row, labels].log(),
        "double softmax": F.cross_entropy(of_mean, labels, reduction="none"),
        "first network": torch.log((1 - p[0, row, labels]) / p[0, row, labels]),
    }
    single = logits.mean(0).softmax(1)[row, labels]
    expected["mean logit"] = torch.log((1 - single) / single)
    others = of_mean.scatter(1, labels[:, None], 0.0).amax(1)
    expected["margin of the mean"] = torch.log(others / of_mean[row, labels])
    assert set(expected) == set(LOSSES)
    for name, values in expected.items():
        torch.testing.assert_close(LOSSES[name](logits, labels), values, rtol=1e-9, atol=1e-12)


@given(st.integers(1, 5), st.integers(1, 6), st.integers(2, 12))
def test_one_network_has_one_log_odds(networks, inputs, classes):
    """Copies of a network say what it says alone, by every loss that is not another function."""
    one = logits_of(1, inputs, classes)
    copies, labels = one.expand(networks, -1, -1), torch.arange(inputs) % classes
    for loss in (log_odds, mean_logit, first_network):
        torch.testing.assert_close(loss(copies, labels), log_odds(one[0], labels))
    torch.testing.assert_close(margin(copies, labels), margin(one[0], labels))
    torch.testing.assert_close(entropy(copies, labels), entropy(one, labels))


@given(st.integers(2, 20), st.floats(0.0, 1e4))
def test_a_double_softmax_has_a_range_of_one(classes, scale):
    logits, labels = logits_of(3, 9, classes, scale), torch.arange(9) % classes
    high = math.log(math.e + classes - 1)
    values = double_softmax(logits, labels)
    assert (values >= high - 1 - 1e-12).all() and (values <= high + 1e-12).all()


def test_saturated_networks_hide_from_losses_that_round_and_from_no_other():
    """Float32 knows no probability between 1 - 6e-8 and 1, and none below 1e-45."""
    logits = torch.zeros(4, 6, 10)
    logits[:, :, 2] = 200.0
    labels = torch.full((6,), 2)
    for name, loss in LOSSES.items():
        silent = not gradient_of(loss, logits, labels).any()
        assert silent == (name in ("mean loss", "log of mean", "double softmax")), name


def test_certainty_of_a_wrong_class_does_not_see_the_label():
    logits = torch.tensor([[[5.0, 1.0, 0.0], [5.0, 1.0, 0.0]]])
    p = logits[0, 0].softmax(0)
    found = wrong_certainty(logits, torch.tensor([0, 1]))
    torch.testing.assert_close(found, torch.stack([p[1], p[0]]).log())
    torch.testing.assert_close(certainty(logits, torch.tensor([0, 0])), p[0].log().expand(2))


# Attacks on an ensemble by pgd


@pytest.mark.parametrize("name", LOSSES)
def test_an_attack_stays_in_its_ball_and_is_judged_by_the_mean(name):
    model, (images, labels) = posterior(), data()
    found = pgd(model.logits, images, labels, 0.2, steps=5, loss=LOSSES[name], generator=rng())
    assert (found.images - images).abs().max() <= 0.2 + 1e-12
    assert found.images.min() >= 0 and found.images.max() <= 1
    mean = model.logits(found.images).softmax(2).mean(0)
    torch.testing.assert_close(found.logits, mean.log())
    assert torch.equal(found.fooled, mean.argmax(1) != labels)


def test_an_ensemble_of_one_is_attacked_as_the_network_itself():
    model, (images, labels) = posterior(1), data()
    start = torch.rand(images.shape, generator=rng(4), dtype=images.dtype)
    one = pgd(model.logits, images, labels, 0.1, steps=7, start=start)
    other = pgd(lambda x: model.logits(x)[0], images, labels, 0.1, steps=7, start=start)
    torch.testing.assert_close(one.images, other.images, rtol=0, atol=1e-12)
    assert torch.equal(one.fooled, other.fooled)


def test_the_right_loss_raises_the_loss_of_the_mean_more_than_one_network_does():
    """On networks that disagree; measured by - log mean probability at the end of the path."""
    model, (images, labels) = posterior(12, size=1.0), data(60)

    def reached(loss):
        found = pgd(
            model.logits, images, labels, 0.15, steps=20, start=images, keep="last", loss=loss
        )
        return -found.logits.gather(1, labels[:, None]).mean().item()

    before = -prediction(model.logits(images)).gather(1, labels[:, None]).mean().item()
    assert reached(log_odds) > reached(first_network) > before


def test_attacks_that_take_logits_take_an_ensemble_too():
    model, (images, labels) = posterior(), data()
    step = fgsm(model.logits, images, labels, 0.1)
    moved = (step.images - images).abs()
    assert (moved.amax(1) <= 0.1 + 1e-12).all() and moved.max() > 0.099
    worst = worst_case(model.logits, images, labels, 0.1, steps=4, generator=rng())
    assert worst.accuracy <= pgd(
        model.logits, images, labels, 0.1, steps=4, step=0.05, decay=True, restarts=2,
        generator=rng(),
    ).accuracy  # fmt: skip


def test_the_strongest_is_no_better_for_the_ensemble_than_any_single_loss():
    model, (images, labels) = posterior(), data(40)
    settings = {"steps": 6, "start": images}
    losses = {name: LOSSES[name] for name in ("log mean", "margin of the mean", "mean logit")}
    alone = [
        pgd(model.logits, images, labels, 0.1, loss=loss, **settings) for loss in losses.values()
    ]
    found = strongest(model.logits, images, labels, 0.1, losses, **settings)
    assert torch.equal(found.fooled, torch.stack([each.fooled for each in alone]).any(0))
    again = prediction(model.logits(found.images)).argmax(1) != labels
    assert torch.equal(found.fooled, again)


def test_the_aware_attack_is_surer_where_both_are_wrong():
    model, (images, labels) = posterior(8, size=1.0), data(60)
    plain = pgd(model.logits, images, labels, 0.25, steps=15, generator=rng())
    aware = aware_attack(model.logits, images, labels, 0.25, steps=15, generator=rng())
    assert (aware.images - images).abs().max() <= 0.25 + 1e-12
    # The second stage begins where the first ended, and keeps the best that it has seen.
    before, after = (wrong_certainty(model.logits(each.images), labels) for each in (plain, aware))
    assert plain.fooled.sum() >= 20
    assert aware.fooled[plain.fooled].all()
    assert (after[plain.fooled] >= before[plain.fooled]).all()
    assert (after[plain.fooled] > before[plain.fooled]).double().mean() > 0.5


@pytest.mark.parametrize(("direction", "sign"), [("up", 1), ("down", -1)])
def test_entropy_moves_where_it_is_told_to(direction, sign):
    model, (images, _) = posterior(8, size=1.0), data(60)
    before = ensemble_moments(model.logits(images)).total_entropy
    found = move_entropy(model.logits, images, 0.1, direction, steps=10, start=images)
    after = ensemble_moments(model.logits(found.images)).total_entropy
    assert (found.images - images).abs().max() <= 0.1 + 1e-12
    assert (sign * (after - before) > 0).double().mean() > 0.95
    changed = prediction(model.logits(images)).argmax(1) != found.logits.argmax(1)
    assert torch.equal(found.fooled, changed)


# Networks that are drawn anew


def law():
    network = FlatNetwork(perceptron([5, 8, 3]))
    mean = torch.randn(network.size, generator=rng(2), dtype=torch.float64)
    return Gaussian(network, mean, torch.full_like(mean, 0.5))


def test_an_ensemble_that_draws_anew_has_to_say_so():
    model, (images, labels) = law(), data()
    draws = rng(5)

    def anew(x):
        return model.logits(x, 4, draws)

    with pytest.raises(ValueError, match="model draws other networks at each call; accepted are"):
        pgd(anew, images, labels, 0.1)
    with pytest.raises(ValueError, match="keep is 'best' and restarts 1 with fresh=True"):
        pgd(anew, images, labels, 0.1, fresh=True)
    with pytest.raises(ValueError, match="keep is 'last' and restarts 3 with fresh=True"):
        pgd(anew, images, labels, 0.1, fresh=True, keep="last", restarts=3)
    found = pgd(anew, images, labels, 0.1, fresh=True, keep="last", steps=3)
    assert (found.images - images).abs().max() <= 0.1 + 1e-12
    # Networks that are kept need nothing.
    pgd(model.fixed(4, rng()).logits, images, labels, 0.1, steps=2)


def test_fresh_draws_ascend_the_expected_loss():
    """Two networks anew in each step go further than two fixed ones, and less far than many.

    Judged by 400 independent networks, on the loss of their mean.
    """
    network = FlatNetwork(perceptron([5, 8, 3]))
    mean = torch.randn(network.size, generator=rng(2), dtype=torch.float64)
    model, (images, labels) = Gaussian(network, mean, torch.full_like(mean, 1.0)), data(60)
    judges, draws = model.fixed(400, rng(9)), rng(5)
    settings = {"steps": 60, "step": 0.02, "decay": True, "keep": "last", "start": images}

    def reached(attacked):
        log_mean = prediction(judges.logits(attacked.images))
        return -log_mean.gather(1, labels[:, None]).mean().item()

    few = reached(pgd(model.fixed(2, rng(6)).logits, images, labels, 0.2, **settings))
    anew = reached(
        pgd(lambda x: model.logits(x, 2, draws), images, labels, 0.2, fresh=True, **settings)
    )
    many = reached(pgd(model.fixed(200, rng(7)).logits, images, labels, 0.2, **settings))
    assert few < anew < many


# What is left alone, and what is refused


class Stack(nn.Module):
    """Two networks with dropout, whose logits are stacked."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList(
            nn.Sequential(nn.Linear(5, 6), nn.Dropout(0.5), nn.Linear(6, 3)) for _ in range(2)
        )

    def forward(self, x):
        return torch.stack([part(x) for part in self.parts])


@pytest.mark.parametrize("attack", ["pgd", "strongest", "aware_attack", "up", "down"])
def test_nothing_of_the_callers_is_changed(attack):
    torch.manual_seed(0)
    model, (images, labels) = Stack().train(), data(dtype=torch.float32)
    model.parts[1].eval()
    before = [part.training for part in model.modules()]
    state, kept = torch.get_rng_state(), images.clone()
    calls = {
        "pgd": lambda: pgd(model, images, labels, 0.1, steps=2, generator=rng()),
        "strongest": lambda: strongest(model, images, labels, 0.1, LOSSES, start=images, steps=2),
        "aware_attack": lambda: aware_attack(model, images, labels, 0.1, steps=2, generator=rng()),
        "up": lambda: move_entropy(model, images, 0.1, "up", steps=2, start=images),
        "down": lambda: move_entropy(model, images, 0.1, "down", steps=2, start=images),
    }
    calls[attack]()
    assert [part.training for part in model.modules()] == before
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, kept) and not images.requires_grad


def test_what_cannot_be_attacked_is_refused():
    model, (images, labels) = posterior(), data()
    with pytest.raises(ValueError, match="which look like probabilities"):
        pgd(lambda x: model.logits(x).softmax(2), images, labels, 0.1)
    with pytest.raises(ValueError, match="labels lie from 1 to 3; accepted is 0 to 2"):
        pgd(model.logits, images, labels + 1, 0.1)
    with pytest.raises(ValueError, match="losses is empty"):
        strongest(model.logits, images, labels, 0.1, {})
    with pytest.raises(ValueError, match="direction is 'sideways'; accepted are 'up', 'down'"):
        move_entropy(model.logits, images, 0.1, "sideways")
    with pytest.raises(ValueError, match="steps is 0; accepted is an integer from 1"):
        aware_attack(model.logits, images, labels, 0.1, steps=0)


def test_no_images_are_no_trouble():
    model = posterior()
    found = pgd(model.logits, torch.zeros(0, 5, dtype=torch.float64), torch.zeros(0).long(), 0.1)
    assert found.images.shape == (0, 5) and found.logits.shape == (0, 3)


# What a reviewer broke


def test_a_single_model_is_made_sure_of_its_probability_and_not_of_a_logit():
    """The largest logit may grow while its probability falls."""

    def model(x):
        return torch.cat([10 * x, 10 * x + 3 * (0.9 - x)], 1)

    images = torch.full((1, 1), 0.5, dtype=torch.float64)
    found = move_entropy(model, images, 0.2, "down", steps=10, start=images)
    assert model(found.images).softmax(1).amax() > model(images).softmax(1).amax()


def test_an_image_where_any_attack_was_blind_stays_marked():
    model, (images, labels) = posterior(), data()

    def silent(logits, labels):
        return 0 * logits.sum((0, 2))

    for order in (("silent", "log mean"), ("log mean", "silent")):
        losses = {name: LOSSES.get(name, silent) for name in order}
        found = strongest(model.logits, images, labels, 1e-6, losses, start=images, steps=2)
        assert found.blind[~found.fooled].all()


def test_settings_of_each_image_go_with_the_image():
    model, (images, labels) = posterior(), data()
    radii = torch.linspace(0.01, 0.2, len(images), dtype=images.dtype)
    found = strongest(
        model.logits, images, labels, radii, LOSSES, step=radii / 3, start=images, steps=3
    )
    assert ((found.images - images).abs().amax(1) <= radii + 1e-12).all()
