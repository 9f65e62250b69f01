"""Last layers of many configurations: all at once, one after another, and by other libraries."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from benchmarks.peers import last_layers as peers
from benchmarks.registry import Case, Implementation, Operation, Sizes, calling
from kempe_nb.methods.group_weights import group_weights
from kempe_nb.methods.last_layer import fit_last_layers

#: Error that passes, relative to the largest weight. With a radius the direction of a gradient
#: counts, which rounding turns where the gradient is small.
TOLERANCE = {0: 1e-3, 1: 0.01}

ONE_BY_ONE = "one after another"
PRODUCT = "one product, autograd"
VMAP = "torch.func.vmap"
SKLEARN = "scikit-learn, joblib"


@dataclass(frozen=True)
class Problem:
    """Features and labels, weights of the context [G, N] and radii [G]; the rest is shared."""

    features: torch.Tensor
    labels: torch.Tensor
    likelihood: torch.Tensor
    context: torch.Tensor
    radius: torch.Tensor
    steps: int
    strength: float = 1.0
    precision: float = 0.1
    rate: float = 0.02
    momentum: float = 0.9


def _case(samples, features, classes, configurations, steps, perturbed, *too_long) -> Case:
    sizes = {"samples": samples, "features": features, "classes": classes}
    sizes |= {"configurations": configurations, "steps": steps, "perturbed": perturbed}
    small = {"samples": 40, "features": 6, "configurations": 3, "steps": 30}
    return Case(sizes, sizes | small, too_long)


CASES = (
    # A fold of the lesson's race.
    _case(400, 64, 2, 64, 200, 1),
    # The annotated set of Waterbirds with features of a ResNet-50; scikit-learn where it can.
    _case(1199, 2048, 2, 8, 300, 0),
    _case(1199, 2048, 2, 8, 300, 1),
    _case(1199, 2048, 2, 256, 300, 0, ONE_BY_ONE, VMAP),
    _case(1199, 2048, 2, 256, 300, 1, ONE_BY_ONE, VMAP),
    # A tenth of MultiNLI's with features of BERT: more samples than twice the features.
    _case(8246, 768, 3, 8, 20, 1),
)


def problem_of(sizes: Sizes, dtype: str, device: str) -> Problem:
    """Return the problem of some sizes; the same in every call."""
    rng = torch.Generator().manual_seed(0)
    kind, count = getattr(torch, dtype), sizes["samples"]
    groups = torch.arange(count) % (2 * sizes["classes"])
    # As skewed as lessons are: nine in ten samples of the odd groups go to their neighbours.
    rare = (groups % 2 == 1) & (torch.arange(count) % 10 != 5)
    rare[: 2 * sizes["classes"]] = False
    groups = groups - rare.long()
    labels = groups // 2
    features = torch.randn(count, sizes["features"], generator=rng)
    features[:, 0] += labels
    features[:, 1] += groups
    exponents = torch.linspace(0, 4, sizes["configurations"]).tolist()
    context = torch.stack([group_weights(groups, each, kind) for each in exponents])
    radius = sizes["perturbed"] * torch.linspace(0.05, 0.5, sizes["configurations"])
    return Problem(
        features.to(device, kind),
        labels.to(device),
        torch.full((count,), 1 / count, dtype=kind, device=device),
        context.to(device),
        radius.to(device, kind),
        sizes["steps"],
    )


def minimum_bytes(sizes: Sizes, dtype: str) -> int:
    """Return the bytes of features and last layers, once each.

    The work is products of matrices in every step; this is no floor that anything comes near.
    """
    layers = sizes["configurations"] * sizes["classes"] * (sizes["features"] + 1)
    return np.dtype(dtype).itemsize * (sizes["samples"] * sizes["features"] + layers)


@lru_cache(maxsize=8)
def _truth(sizes: tuple) -> np.ndarray:
    """Return last layers by autograd in float64, one after another."""
    return peers.one_after_another(problem_of(dict(sizes), "float64", "cpu")).numpy()


def check(found: list[np.ndarray], sizes: Sizes, dtype: str) -> str:
    """Hold logits' weights, relative to the last class, to autograd in float64.

    What descends is held to the same number of steps. What minimises is held to the minimum: its
    gradient has to be a hundredth of that of the descent, or less.
    """
    (layers,) = found
    expected = _truth(tuple(sizes.items()))
    if layers.shape != expected.shape:
        return f"the last layers have shape {layers.shape}; expected is {expected.shape}"
    one, other = (each - each[..., -1:] for each in (layers, expected))
    error = np.abs(one - other).max() / np.abs(other).max()
    if error <= TOLERANCE[sizes["perturbed"]]:
        return ""
    if not sizes["perturbed"]:
        problem = problem_of(sizes, "float64", "cpu")
        ours, theirs = (
            peers.gradient_norms(problem, torch.from_numpy(each).double()).max()
            for each in (layers, expected)
        )
        if ours <= 0.01 * theirs:
            return ""
    return f"the last layers are off by {error:.2g} of the largest weight"


def _on_problem(function):
    return calling(function, lambda *place: (problem_of(*place),))


def _ours(route: str):
    return _on_problem(
        lambda problem: fit_last_layers(
            problem.features,
            problem.labels,
            problem.likelihood,
            problem.context,
            strength=problem.strength,
            radius=problem.radius,
            precision=problem.precision,
            rate=problem.rate,
            momentum=problem.momentum,
            steps=problem.steps,
            route=route,
        )
    )


def _only_unperturbed(sizes: Sizes, device: str) -> str:
    return "has no perturbation" if sizes["perturbed"] else ""


OPERATION = Operation(
    name="last_layer",
    dtypes=("float32",),
    cases=CASES,
    implementations=(
        Implementation(ONE_BY_ONE, _on_problem(peers.one_after_another)),
        Implementation("kempe_nb by samples", _ours("samples")),
        Implementation("kempe_nb by features", _ours("features")),
        Implementation(PRODUCT, _on_problem(peers.one_product)),
        Implementation(VMAP, _on_problem(peers.by_vmap)),
        Implementation(
            SKLEARN,
            _on_problem(peers.scikit_learn),
            devices=("cpu",),
            eager=False,
            obstacle=_only_unperturbed,
        ),
    ),
    minimum_bytes=minimum_bytes,
    check=check,
)
