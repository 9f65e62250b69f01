"""The posteriors that the lessons of "Attacking Bayes" put to the test, by name and by profile.

After Feng, Rudner, Tsilivis and Kempe (arXiv 2404.19640). All have one network, one prior and one
set of training images, so that what differs is the inference alone: a MAP network, an ensemble of
such, MC dropout, a mean field, a last layer in function space, and Hamiltonian Monte Carlo as what
the others approximate.
"""

from collections.abc import Callable

import torch
from torch import nn

from kempe_nb.checks import checked_choice, checked_positive
from kempe_nb.methods.chain_diagnostics import effective_sample_size, split_r_hat
from kempe_nb.methods.function_space import fit_function_space
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
}


def digit_network(pixels: int, classes: int) -> FlatNetwork:
    """Return the network of the lessons on digits: one hidden layer of 50 ReLU units."""
    return FlatNetwork(perceptron([pixels, 50, classes], activation=nn.ReLU))


def two_layers(network: FlatNetwork) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return `digit_network` for many parameter vectors, faster than `torch.func.vmap` of it.

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
    images, labels : float32 [N, ...] within [0, 1], int64 [N]
        To train with.
    test_images : float32 [M, ...]
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
    network = digit_network(images[0].numel(), int(labels.max()) + 1)
    prior = fan_in_scales(network, scale).to(images.device)
    generator = torch.Generator(images.device).manual_seed(seed)
    recipe = RECIPES[profile]
    how = network, images, labels, prior
    if method in ("MAP", "ensemble"):
        count = 1 if method == "MAP" else recipe["members"]
        return {"thetas": train_map(*how, **recipe["map"], generator=generator, count=count)}
    if method == "HMC":
        return _chains(*how, test_images, recipe, generator)
    law: Posterior
    if method == "MC dropout":
        law = train_dropout(*how, **recipe["dropout"], generator=generator)
    elif method == "mean field":
        law, _ = fit_mean_field(*how, **recipe["mean_field"], generator=generator)
    else:
        context = _context(images, recipe["context"], generator)
        law, _ = fit_function_space(*how, context, **recipe["function_space"], generator=generator)
    return {"thetas": law.fixed(VOTES, generator).theta}


def restored(found: dict, images: torch.Tensor, classes: int) -> Samples:
    """Return the voting networks of `train_posterior` as a posterior."""
    return Samples(digit_network(images[0].numel(), classes), found["thetas"])


def _context(images: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Return some of the images and as many of uniform noise."""
    device = images.device
    chosen = torch.randperm(len(images), generator=generator, device=device)[:count]
    noise = torch.rand(images[chosen].shape, generator=generator, device=device)
    return torch.cat([images[chosen], noise])


def _chains(network, images, labels, prior, test_images, recipe, generator) -> dict:
    """Return states of HMC, evenly spaced over all chains, and their diagnostics."""
    forward = two_layers(network)
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
