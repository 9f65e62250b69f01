"""The posteriors of the lessons on "Attacking Bayes": how many networks, of what, from where."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from kempe_nb.methods import attacked_posteriors
from kempe_nb.methods.attacked_posteriors import (
    METHODS,
    RECIPES,
    VOTES,
    attacked_network,
    restored,
    train_posterior,
    two_layers,
)
from kempe_nb.methods.posteriors import logits
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
    """Every chain has as many votes, and each log probability and each weight has its R-hat."""
    images, labels = data()
    found = train_posterior("HMC", "cpu", images, labels, images[:2])
    size = attacked_network("cpu", images, CLASSES).size
    assert found["thetas"].shape == (VOTES, size)
    assert found["acceptance"].shape == found["divergences"].shape == (SHORT["chains"],)
    assert found["r_hat_functions"].shape == found["sizes_functions"].shape == (2 * CLASSES,)
    assert found["r_hat_weights"].shape == (size,)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.integers(0, 9))
def test_two_layers_is_the_network_itself(networks, images, channels, seed):
    x, _ = data(channels, count=images, seed=seed)
    network = attacked_network("cpu", x, CLASSES)
    thetas = network.initial(torch.Generator().manual_seed(seed), networks)
    ours, expected = two_layers(network)(thetas, x), logits(network, thetas, x)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "parameters"),
    [
        # As the sheet counts the network of the authors' code.
        ((1, 1, 28, 28), 824_458),
        # The ResNet-18 of 11,173,962 parameters, less 9,600 of its normalisation.
        ((1, 3, 8, 8), 11_164_362),
    ],
)
def test_the_networks_of_the_profile_gpu_have_their_known_sizes(shape, parameters):
    network = attacked_network("gpu", torch.zeros(shape), 10)
    assert network.size == parameters
    theta = network.initial(torch.Generator().manual_seed(0))
    assert network(theta, torch.rand(shape)).shape == (1, 10)


class Features(nn.Module):
    """512 features, as those of the ResNet, in a thousandth of its time."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, 512)

    def forward(self, x):
        return self.layer(x.flatten(1)).relu()


@pytest.mark.parametrize("method", ["MC dropout", "function space", "HMC"])
def test_on_three_channels_the_last_layer_alone_is_random(short, monkeypatch, method):
    monkeypatch.setattr(attacked_posteriors, "_resnet_18_features", Features)
    images, labels = data(3, 8, count=3)
    found = train_posterior(method, "gpu", images, labels, images[:1])
    network = attacked_network("gpu", images, CLASSES)
    spread = network.parts(found["thetas"].std(0))
    random = {name for name, value in spread.items() if value.max() > 1e-4}
    assert random == ({"1.weight"} if method == "MC dropout" else {"1.weight", "1.bias"})


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
