"""The posteriors that the lessons of "Attacking Bayes" put to the test, by name and by profile.

After Feng, Rudner, Tsilivis and Kempe (arXiv 2404.19640). All have one network, one prior and one
set of training images, so that what differs is the inference alone: a MAP network, an ensemble of
such, MC dropout, a mean field, a last layer in function space, and Hamiltonian Monte Carlo as what
the others approximate.

The profile `gpu` has the convolutional network of the authors' code on grey images, and a ResNet-18
on images of three channels. Its normalisation is by groups and has no parameters: a posterior over
running means would be none, and weights without a fan-in have no prior here. Of a ResNet, dropout
concerns the last features, and HMC draws the last layer over the features of a MAP network.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from kempe_nb.checks import checked_choice, checked_positive
from kempe_nb.data import import_torchvision
from kempe_nb.methods.chain_diagnostics import effective_sample_size, split_r_hat
from kempe_nb.methods.function_space import features, fit_function_space
from kempe_nb.methods.hamiltonian_monte_carlo import posterior_terms, sample
from kempe_nb.methods.posteriors import Posterior, Samples, logits
from kempe_nb.methods.variational import (
    fan_in_scales,
    fit_mean_field,
    train_dropout,
    train_map,
)
from kempe_nb.networks.flat import FlatNetwork
from kempe_nb.networks.perceptron import perceptron

METHODS = ("MAP", "ensemble", "MC dropout", "mean field", "function space", "HMC")
#: Networks that vote; one for MAP, `RECIPES[profile]["members"]` for an ensemble.
VOTES = 40
#: How each method is fitted. What `gpu` holds was set without a GPU, and is not tuned.
RECIPES = {
    "cpu": {
        "members": 10,
        "map": {"steps": 300, "lr": 0.02},
        "dropout": {"rate": 0.2, "steps": 400, "lr": 0.02, "samples": 4},
        "mean_field": {"steps": 500, "lr": 0.1},
        "function_space": {"steps": 400, "lr": 0.02},
        "context": 200,
        "hmc": {"warmup": 60, "draws": 60, "steps": 30},
        "chains": 4,
    },
    "gpu": {
        "members": 10,
        "map": {"steps": 1000, "lr": 0.003},
        "dropout": {"rate": 0.2, "steps": 1500, "lr": 0.003, "samples": 4},
        "mean_field": {"steps": 3000, "lr": 0.01},
        "function_space": {"steps": 1500, "lr": 0.003},
        "context": 200,
        "hmc": {"warmup": 200, "draws": 200, "steps": 60},
        "chains": 4,
    },
}


def attacked_network(profile: str, images: torch.Tensor, classes: int) -> FlatNetwork:
    """Return the network of a profile for images [N, C, H, W].

    `cpu`: one hidden layer of 50 ReLU units. `gpu`: two convolutions of 3 x 3 with 32 and 64
    filters, each with ReLU and a maximum over 2 x 2, a hidden layer of 256 units, as in the code of
    Rudner et al. (arXiv 2312.17199); for three channels the ResNet-18 of He et al. as it is used on
    32 x 32 pixels, without the first stride and maximum.
    """
    checked_choice(profile, "profile", RECIPES)
    channels, height, width = images.shape[1:]
    if profile == "cpu":
        return FlatNetwork(perceptron([channels * height * width, 50, classes], activation=nn.ReLU))
    if channels == 3:
        return FlatNetwork(nn.Sequential(_resnet_18_features(), nn.Linear(512, classes)))
    return FlatNetwork(
        nn.Sequential(
            *(nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            nn.Flatten(),
            *(nn.Linear(64 * (height // 4) * (width // 4), 256), nn.ReLU()),
            nn.Linear(256, classes),
        )
    )


class _GroupNormalisation(nn.Module):
    """Normalise 32 groups of channels; torchvision sets the weights of nn.GroupNorm, here none."""

    def __init__(self, channels: int):
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.group_norm(x, 32)


def _resnet_18_features() -> nn.Module:
    """Return torchvision's ResNet-18 for small images, up to the 512 features."""
    features = import_torchvision().models.resnet18(norm_layer=_GroupNormalisation)
    features.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    features.maxpool = features.fc = nn.Identity()
    return features


def two_layers(network: FlatNetwork) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return the perceptron for many parameter vectors, faster than `torch.func.vmap` of it.

    The function takes thetas [S, P] and images [N, ...] to logits [S, N, K].
    """

    def forward(thetas: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        first, bias, last, last_bias = network.parts(thetas).values()
        pixels = images.flatten(1).expand(len(thetas), -1, -1)
        hidden = torch.baddbmm(bias[:, None], pixels, first.mT).relu()
        return torch.baddbmm(last_bias[:, None], hidden, last.mT)

    return forward


def train_posterior(
    method: str,
    profile: str,
    images: torch.Tensor,
    labels: torch.Tensor,
    test_images: torch.Tensor,
    *,
    scale: float = 2.0,
    seed: int = 0,
) -> dict:
    """Return the voting networks of a posterior, and for HMC how its chains fared.

    Parameters
    ----------
    method : one of `METHODS`
    profile : a name of `RECIPES`
    images, labels : float32 [N, C, H, W] within [0, 1], int64 [N]
        To train with.
    test_images : float32 [M, C, H, W]
        Where R-hat and the effective sample size of log probabilities are taken.
    scale : float
        The prior's standard deviations are scale * sqrt(2 / fan-in).
    seed : int

    Returns
    -------
    dict
        "thetas": float32 [S, P], networks of the posterior; and for HMC "acceptance" [C],
        "divergences" [C], "r_hat_functions" and "sizes_functions" [M K], "r_hat_weights" [P].

    Raises
    ------
    ValueError
        For an unknown method or profile, or a scale that is not positive.
    """
    checked_choice(method, "method", METHODS)
    checked_choice(profile, "profile", RECIPES)
    checked_positive(scale, "scale")
    network = attacked_network(profile, images, int(labels.max()) + 1)
    prior = fan_in_scales(network, scale).to(images.device)
    generator = torch.Generator(images.device).manual_seed(seed)
    recipe = RECIPES[profile]
    how = network, images, labels, prior
    if method in ("MAP", "ensemble"):
        count = 1 if method == "MAP" else recipe["members"]
        return {"thetas": train_map(*how, **recipe["map"], generator=generator, count=count)}
    if method == "HMC":
        if profile == "gpu" and images.shape[1] == 3:
            return _last_layer_chains(*how, test_images, recipe, generator)
        forward = two_layers(network) if profile == "cpu" else partial(logits, network)
        return _chains(forward, *how, test_images, recipe, generator)
    law: Posterior
    if method == "MC dropout":
        law = train_dropout(*how, **recipe["dropout"], generator=generator)
    elif method == "mean field":
        law, _ = fit_mean_field(*how, **recipe["mean_field"], generator=generator)
    else:
        context = _context(images, recipe["context"], generator)
        law, _ = fit_function_space(*how, context, **recipe["function_space"], generator=generator)
    return {"thetas": law.fixed(VOTES, generator).theta}


def restored(found: dict, profile: str, images: torch.Tensor, classes: int) -> Samples:
    """Return the voting networks of `train_posterior` as a posterior."""
    return Samples(attacked_network(profile, images, classes), found["thetas"])


def _context(images: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Return some of the images and as many of uniform noise."""
    device = images.device
    chosen = torch.randperm(len(images), generator=generator, device=device)[:count]
    noise = torch.rand(images[chosen].shape, generator=generator, device=device)
    return torch.cat([images[chosen], noise])


def _chains(forward, network, images, labels, prior, test_images, recipe, generator) -> dict:
    """Return states of HMC, evenly spaced over all chains, and their diagnostics."""
    shape = recipe["chains"], network.size
    chains = sample(
        posterior_terms(forward, images, labels, prior),
        torch.randn(shape, generator=generator, device=images.device),
        generator=generator,
        **recipe["hmc"],
    )
    states = chains.states * prior
    said = torch.stack([logits(network, each, test_images).log_softmax(2) for each in states])
    each = VOTES // len(states)
    kept = torch.linspace(0, states.shape[1] - 1, each, device=states.device).round().long()
    return {
        "thetas": states[:, kept].flatten(0, 1),
        "acceptance": chains.acceptance,
        "divergences": chains.divergences,
        "r_hat_functions": split_r_hat(said).flatten(),
        "sizes_functions": effective_sample_size(said).flatten(),
        "r_hat_weights": split_r_hat(states),
    }


def _last_layer_chains(network, images, labels, prior, test_images, recipe, generator) -> dict:
    """Return the same for the last layer alone, over the features of a MAP network."""
    base = train_map(network, images, labels, prior, **recipe["map"], generator=generator)
    with torch.no_grad():
        seen, shown = (features(network, base, x)[:, :-1] for x in (images, test_images))
    layer = FlatNetwork(nn.Linear(seen.shape[1], network.shapes[-1][0]))
    how = layer, seen, labels, prior[-layer.size :], shown
    found = _chains(partial(logits, layer), *how, recipe, generator)
    below = base[: -layer.size].expand(len(found["thetas"]), -1)
    return found | {"thetas": torch.cat([below, found["thetas"]], 1)}
