"""Moments of an ensemble, and its loss with the gradient, beside chains of library calls."""

import numpy as np
import torch

from benchmarks.peers import ensemble_heads as peers
from benchmarks.registry import Case, Implementation, Operation, Sizes, calling, cpp_obstacle, ours
from kempe_nb.kernels import ensemble_moments as module

#: Error that passes: relative to the largest entry of each result, which the peers can reach.
TOLERANCE = 1e-4
#: The networks are fairly sure, as posterior samples are; the peers lose no digits that count yet.
SCALE = 3.0

MOMENTS = "log mean", "total", "expected", "mutual"
LOSS = "loss", "gradient"


def _case(networks: int, inputs: int, classes: int, gradient: int = 0) -> Case:
    sizes = {"networks": networks, "inputs": inputs, "classes": classes, "gradient": gradient}
    return Case(sizes, sizes | {"networks": min(networks, 7), "inputs": 13})


CASES = (
    # A batch of an attack, with few samples.
    _case(10, 1_000, 10),
    # The posterior of the chapter.
    _case(100, 2_000, 10),
    # A whole test set.
    _case(500, 10_000, 10),
    # ImageNet's classes.
    _case(50, 500, 1_000),
    # The same with the gradient: a step of an attack.
    _case(10, 1_000, 10, 1),
    _case(100, 2_000, 10, 1),
    _case(50, 500, 1_000, 1),
)


def inputs(sizes: Sizes, dtype: str, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and labels; the same in every call."""
    rng = torch.Generator().manual_seed(0)
    shape = sizes["networks"], sizes["inputs"], sizes["classes"]
    logits = SCALE * torch.randn(shape, generator=rng, dtype=getattr(torch, dtype))
    labels = torch.randint(sizes["classes"], shape[1:2], generator=rng)
    return logits.to(device), labels.to(device)


def minimum_bytes(sizes: Sizes, dtype: str) -> int:
    """Return the bytes of the logits, and of the moments or of the gradient."""
    shape = sizes["networks"], sizes["inputs"], sizes["classes"]
    itemsize, gradient = np.dtype(dtype).itemsize, bool(sizes["gradient"])
    return module.OPERATION.minimum_bytes(*shape, itemsize, gradient=gradient)


def check(found: list[np.ndarray], sizes: Sizes, dtype: str) -> str:
    """Hold the results to the chain of library calls in float64."""
    logits, labels = inputs(sizes, dtype, "cpu")
    if sizes["gradient"]:
        names, expected = LOSS, peers.by_autograd(logits.double(), labels)
    else:
        names, expected = MOMENTS, peers.chain(logits.double())
    for name, one, other in zip(names, found, expected, strict=True):
        other = other.numpy()
        if one.shape != other.shape:
            return f"{name} has shape {one.shape}; expected is {other.shape}"
        error = np.abs(one - other).max() / np.abs(other).max()
        if not error <= TOLERANCE:
            return f"{name} is off by {error:.2g} of its largest entry; accepted is {TOLERANCE:g}"
    return ""


def _either(moments, loss):
    """Return a function of logits, labels and whether the gradient is wanted."""

    def prepare(sizes: Sizes, dtype: str, device: str):
        if sizes["gradient"]:
            return calling(loss, inputs)(sizes, dtype, device)
        logits, _ = inputs(sizes, dtype, device)
        return lambda: tuple(moments(logits))

    return prepare


def _ours(impl: str):
    return _either(
        lambda logits: module.ensemble_moments(logits, impl=impl),
        lambda logits, labels: tuple(module.ensemble_nll(logits, labels, impl=impl)),
    )


def _compiled(sizes: Sizes, dtype: str, device: str):
    torch._dynamo.reset()
    logits, labels = inputs(sizes, dtype, device)
    if sizes["gradient"]:
        call = torch.compile(peers.by_vjp, dynamic=False)
        return lambda: call(logits, labels)
    call = torch.compile(peers.chain, dynamic=False)
    return lambda: call(logits)


OPERATION = Operation(
    name=module.OPERATION.name,
    dtypes=("float32",),
    cases=CASES,
    implementations=(
        *ours(module.OPERATION, _ours),
        Implementation("library calls", _either(peers.chain, peers.by_autograd)),
        Implementation(
            "mean of probabilities", _either(peers.mean_of_probabilities, peers.by_autograd)
        ),
        Implementation("library calls, compiled", _compiled, eager=False, obstacle=cpp_obstacle),
    ),
    minimum_bytes=minimum_bytes,
    check=check,
)
