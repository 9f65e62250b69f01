"""The posteriors that the lessons of "Attacking Bayes" put to the test, by name and by profile.

After Feng, Rudner, Tsilivis and Kempe (arXiv 2404.19640). All have one architecture, one
prior and one set of training images, and differ in inference: a MAP network, an ensemble of such,
MC dropout, a mean field, a last layer in function space (its lower layers have no prior), and
Hamiltonian Monte Carlo as what the others approximate.

The profile `gpu` has the convolutional network of the authors' code on grey images, and a ResNet-18
on images of three channels. Of the ResNet, dropout concerns the last features, and HMC draws the
last layer over the features of a MAP network.
"""

from functools import partial

import torch
from torch import nn

from kempe_nb.checks import checked_choice
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
from kempe_nb.networks.group_normalised_resnet import group_normalised_resnet18
from kempe_nb.networks.perceptron import perceptron
from kempe_nb.networks.two_convolutions import two_convolutions

METHODS = ("MAP", "ensemble", "MC dropout", "mean field", "function space", "HMC")
#: Networks that vote; one for MAP, `RECIPES[profile]["members"]` for an ensemble.
VOTES = 40
#: How each method is fitted. None was tuned; what `gpu` holds was set without a GPU.
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

    `cpu`: one hidden layer of 50 ReLU units. `gpu`: `two_convolutions`, and for three channels
    `group_normalised_resnet18`.
    """
    checked_choice(profile, "profile", RECIPES)
    if profile == "cpu":
        return FlatNetwork(perceptron([images[0].numel(), 50, classes]))
    if images.shape[1] == 3:
        return FlatNetwork(group_normalised_resnet18(classes))
    return FlatNetwork(two_convolutions(images.shape[1:], classes))


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


def restored(found: dict, profile: str, images: torch.Tensor, classes: int) -> Samples:
    """Return the voting networks of `train_posterior` as a posterior."""
    return Samples(attacked_network(profile, images, classes), found["thetas"])


def _context(images: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Return some of the images and as many of uniform noise."""
    device = images.device
    chosen = torch.randperm(len(images), generator=generator, device=device)[:count]
    noise = torch.rand(images[chosen].shape, generator=generator, device=device)
    return torch.cat([images[chosen], noise])


def _chains(network, images, labels, prior, test_images, recipe, generator) -> dict:
    """Return states of HMC, evenly spaced over all chains, and their diagnostics."""
    shape = recipe["chains"], network.size
    chains = sample(
        posterior_terms(partial(logits, network), images, labels, prior),
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
    prior = prior[-layer.size :]
    found = _chains(layer, seen, labels, prior, shown, recipe, generator)
    below = base[: -layer.size].expand(len(found["thetas"]), -1)
    return found | {"thetas": torch.cat([below, found["thetas"]], 1)}
