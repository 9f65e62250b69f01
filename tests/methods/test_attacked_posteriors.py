"""The posteriors of the lessons on "Attacking Bayes": how many networks, of what, from where."""

import math

import pytest
import torch
from torch import nn

from kempe_nb.methods import attacked_posteriors
from kempe_nb.methods.attacked_posteriors import (
    METHODS,
    RECIPES,
    VOTES,
    attacked_network,
    restored,
    train_posterior,
)
from kempe_nb.methods.hamiltonian_monte_carlo import Chains
from kempe_nb.methods.variational import fan_in_scales, train_map

CLASSES = 3
SHORT = {
    "members": 2,
    "map": {"steps": 3, "lr": 0.01},
    "dropout": {"rate": 0.5, "steps": 3, "lr": 0.01, "samples": 2},
    "mean_field": {"steps": 3, "lr": 0.01},
    "function_space": {"steps": 3, "lr": 0.01, "points": 2, "prior_draws": 2},
    "context": 2,
    "hmc": {"warmup": 30, "draws": 20, "steps": 3},
    "chains": 4,
}


@pytest.fixture
def short(monkeypatch):
    """Recipes of a few steps, and fewer networks for the large ones."""
    monkeypatch.setattr(attacked_posteriors, "RECIPES", dict.fromkeys(RECIPES, SHORT))


def data(channels=1, side=4, count=9, seed=1):
    images = torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed))
    return images, torch.arange(count) % CLASSES


@pytest.mark.parametrize("method", METHODS)
def test_each_method_gives_its_number_of_different_networks(short, method):
    images, labels = data()
    found = train_posterior(method, "cpu", images, labels, images[:2])
    voters = restored(found, "cpu", images, CLASSES)
    expected = {"MAP": 1, "ensemble": SHORT["members"]}.get(method, VOTES)
    assert voters.logits(images).shape == (expected, len(images), CLASSES)
    different = len(voters.theta.unique(dim=0))
    # A chain that rejects a proposal stays, and is drawn again: that is part of its law.
    assert expected * 3 / 4 <= different <= expected if method == "HMC" else different == expected


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_decides_and_nothing_else(short, method):
    """The lessons cache by the arguments, so equal ones have to give equal networks."""
    images, labels = data()
    before = images.clone(), labels.clone()
    first = train_posterior(method, "cpu", images, labels, images[:2], seed=5)
    torch.manual_seed(123)
    again = train_posterior(method, "cpu", images, labels, images[:2], seed=5)
    other = train_posterior(method, "cpu", images, labels, images[:2], seed=6)
    assert torch.equal(first["thetas"], again["thetas"])
    assert not torch.equal(first["thetas"], other["thetas"])
    assert torch.equal(images, before[0]) and torch.equal(labels, before[1])


def test_the_prior_scale_is_that_of_the_fan_in(short):
    """A MAP network is the one that `train_map` finds under the same prior and start."""
    images, labels = data()
    network = attacked_network("cpu", images, CLASSES)
    found = train_posterior("MAP", "cpu", images, labels, images, scale=0.5, seed=3)
    expected = train_map(
        network,
        images,
        labels,
        fan_in_scales(network, 0.5),
        **SHORT["map"],
        generator=torch.Generator().manual_seed(3),
        count=1,
    )
    assert torch.equal(found["thetas"], expected)


def test_the_chains_vote_alike_and_are_judged(short):
    """Each log probability and each weight has its R-hat, and each chain its acceptance."""
    images, labels = data()
    found = train_posterior("HMC", "cpu", images, labels, images[:2])
    size = attacked_network("cpu", images, CLASSES).size
    assert found["acceptance"].shape == found["divergences"].shape == (SHORT["chains"],)
    assert found["r_hat_functions"].shape == found["sizes_functions"].shape == (2 * CLASSES,)
    assert found["r_hat_weights"].shape == (size,)


def test_every_chain_has_as_many_votes_from_its_first_to_its_last_draw(short, monkeypatch):
    """States that tell their chain and their draw, in the units of the prior."""
    images, labels = data()
    chains, draws = SHORT["chains"], 100

    def numbered(log_terms, start, **settings):
        place = torch.arange(chains)[:, None] * 1000.0 + torch.arange(draws)
        states = place[..., None].expand(chains, draws, start.shape[1])
        return Chains(states, place, place, torch.ones(chains), torch.zeros(chains), 0.1)

    monkeypatch.setattr(attacked_posteriors, "sample", numbered)
    found = train_posterior("HMC", "cpu", images, labels, images[:2])["thetas"]
    prior = fan_in_scales(attacked_network("cpu", images, CLASSES), 2.0)
    chain, draw = (found / prior).mean(1).round().div(1000), (found / prior).mean(1).round() % 1000
    for each in range(chains):
        own = draw[chain.floor() == each]
        assert len(own) == VOTES // chains and own.min() == 0 and own.max() == draws - 1
        assert own.diff().max() - own.diff().min() <= 1


class Features(nn.Module):
    """512 features, as those of the ResNet, in a thousandth of its time."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, 512)

    def forward(self, x):
        return self.layer(x.flatten(1)).relu()


def small_features(classes):
    return nn.Sequential(Features(), nn.Linear(512, classes))


@pytest.mark.parametrize("method", ["MC dropout", "function space", "HMC"])
def test_on_three_channels_the_last_layer_alone_is_random(short, monkeypatch, method):
    monkeypatch.setattr(attacked_posteriors, "group_normalised_resnet18", small_features)
    images, labels = data(3, 8, count=3)
    found = train_posterior(method, "gpu", images, labels, images[:1])
    network = attacked_network("gpu", images, CLASSES)
    spread = network.parts(found["thetas"].std(0))
    random = {name for name, value in spread.items() if value.max() > 1e-4}
    assert random == ({"1.weight"} if method == "MC dropout" else {"1.weight", "1.bias"})


def test_on_three_channels_the_layers_below_are_those_of_a_map_network(short, monkeypatch):
    monkeypatch.setattr(attacked_posteriors, "group_normalised_resnet18", small_features)
    images, labels = data(3, 8, count=3)
    network = attacked_network("gpu", images, CLASSES)
    found = train_posterior("HMC", "gpu", images, labels, images[:1], seed=4)["thetas"]
    expected = train_map(
        network,
        images,
        labels,
        fan_in_scales(network, 2.0),
        **SHORT["map"],
        generator=torch.Generator().manual_seed(4),
    )
    below = network.size - 513 * CLASSES
    assert torch.equal(found[:, :below], expected[:below].expand(VOTES, -1))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method": "VI"}, "method is 'VI'; accepted are 'MAP'"),
        ({"profile": "tpu"}, "profile is 'tpu'; accepted are 'cpu'"),
        ({"scale": 0.0}, "scale is 0"),
        ({"scale": math.nan}, "scale is nan"),
    ],
)
def test_bad_arguments_are_named(changed, message):
    images, labels = data()
    arguments = {"method": "MAP", "profile": "cpu", "scale": 2.0} | changed
    with pytest.raises(ValueError, match=message):
        train_posterior(
            arguments["method"],
            arguments["profile"],
            images,
            labels,
            images,
            scale=arguments["scale"],
        )
