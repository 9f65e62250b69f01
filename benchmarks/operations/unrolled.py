"""One outer step of data set distillation: meta-gradients beside the libraries for them."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.peers import meta_gradients as peers
from benchmarks.registry import Case, Implementation, Operation, Sizes, cpp_obstacle
from kempe_nb.methods.optimisers import SGD, Adam
from kempe_nb.methods.unrolled import Loss, meta_gradient, meta_gradient_by_autograd
from kempe_nb.networks.convnet import convnet
from kempe_nb.networks.flat import FlatNetwork

#: Relative error that passes. `higher` differentiates an Adam whose epsilon stands elsewhere, and
#: float32 makes a difference of a percent where a gradient is as small as epsilon.
TOLERANCE = {0: 1e-3, 1: 0.05}

ADJOINT = "kempe_nb adjoint"
RECORDED = "kempe_nb adjoint, recorded"
DEFINITION = "kempe_nb definition"
COMPILED = "torch.func.grad step, compiled"
PEERS = {"higher": peers.higher, "torchopt": peers.torchopt}
ALL = DEFINITION, ADJOINT, RECORDED, COMPILED, *PEERS


@dataclass(frozen=True)
class Problem:
    """Synthetic and real images, a network with its first parameters, and the loop."""

    images: torch.Tensor
    classes: torch.Tensor
    real: torch.Tensor
    real_classes: torch.Tensor
    network: FlatNetwork
    theta: torch.Tensor
    width: int
    depth: int
    unroll: int
    window: int
    adam: int


def _case(images, channels, side, width, depth, unroll, window, adam, *too_long) -> Case:
    sizes = {"images": images, "channels": channels, "side": side, "width": width}
    sizes |= {"depth": depth, "unroll": unroll, "window": window, "adam": adam}
    small = {"images": 10, "channels": 1, "side": 8, "width": 4, "depth": 2}
    return Case(sizes, small | {"unroll": 12, "window": 4, "adam": adam}, too_long)


CASES = (
    # The digits of this book with one and with ten images a class.
    _case(10, 1, 8, 32, 2, 40, 20, 1),
    _case(100, 1, 8, 32, 2, 40, 20, 1),
    _case(100, 1, 8, 32, 2, 40, 20, 0),
    # ConvNet-3-128 on CIFAR-10 with the paper's window, one and ten images a class, and 500.
    _case(10, 3, 32, 128, 3, 60, 60, 1, *ALL),
    _case(100, 3, 32, 128, 3, 60, 60, 1, *ALL),
    _case(500, 3, 32, 128, 3, 60, 60, 1, *ALL),
)


def problem_of(sizes: Sizes, dtype: str, device: str) -> Problem:
    """Return the problem of some sizes; the same in every call."""
    rng = torch.Generator().manual_seed(0)
    kind = getattr(torch, dtype)
    module = convnet(
        (sizes["channels"], sizes["side"], sizes["side"]),
        width=sizes["width"],
        depth=sizes["depth"],
    )
    network = FlatNetwork(module)
    shape = sizes["channels"], sizes["side"], sizes["side"]
    images, real = (torch.randn(n, *shape, generator=rng) for n in (sizes["images"], 512))
    real_classes = torch.randint(10, (512,), generator=rng)
    theta = network.initial(rng)
    floats = (each.to(device, kind) for each in (images, real, theta))
    images, real, theta = floats
    return Problem(
        *(images, torch.arange(len(images), device=device) % 10, real, real_classes.to(device)),
        *(network, theta, sizes["width"], sizes["depth"]),
        *(sizes["unroll"], sizes["window"], sizes["adam"]),
    )


def minimum_bytes(sizes: Sizes, dtype: str) -> int:
    """Return the bytes of synthetic and real images, parameters and the result, once each.

    The work is arithmetic; this is no floor that anything comes near.
    """
    pixels = sizes["channels"] * sizes["side"] ** 2
    size = problem_of({**sizes, "images": 1}, "float32", "cpu").network.size
    return np.dtype(dtype).itemsize * (pixels * (2 * sizes["images"] + 512) + size)


@lru_cache(maxsize=8)
def _truth(sizes: tuple) -> tuple[np.ndarray, float]:
    """Return the meta-gradient and the loss in float64, with the graph of the whole window."""
    problem = problem_of(dict(sizes), "float64", "cpu")
    made = _call(problem, meta_gradient_by_autograd, trace=False)()
    return made[0].numpy(), made[1].item()


def check(found: list[np.ndarray], sizes: Sizes, dtype: str) -> str:
    """Hold meta-gradient and outer loss to autograd in float64."""
    gradient, loss = _truth(tuple(sizes.items()))
    if found[0].shape != gradient.shape:
        return f"the meta-gradient has shape {found[0].shape}; expected is {gradient.shape}"
    if np.size(found[1]) != 1:
        return f"the outer loss has shape {found[1].shape}; expected is a number"
    accepted = TOLERANCE[sizes["adam"]]
    error = np.linalg.norm(found[0] - gradient) / np.linalg.norm(gradient)
    if error > accepted:
        return f"the meta-gradient is off by {error:.2g}; accepted is {accepted:g}"
    error = abs(float(found[1]) / loss - 1)
    return f"the outer loss is off by {error:.2g}; accepted is 0.001" if error > 1e-3 else ""


def _call(problem: Problem, function, *, trace: bool):
    """Return the call of one of ours."""

    def loss(theta, images, classes):
        return F.cross_entropy(problem.network(theta, images), classes)

    inner = Loss(loss, trace=trace)
    outer = inner.on(problem.real, problem.real_classes)
    optimiser = Adam(1e-3) if problem.adam else SGD(0.01, momentum=0.9)

    def call():
        made = function(
            *(inner, outer, (problem.images, problem.classes), problem.theta),
            *(optimiser, problem.unroll, problem.window),
        )
        return made.gradients[0], made.outer_loss

    return call


def _ours(function, *, trace: bool = False):
    def prepare(sizes: Sizes, dtype: str, device: str):
        return _call(problem_of(sizes, dtype, device), function, trace=trace)

    return prepare


def _peer(function):
    def prepare(sizes: Sizes, dtype: str, device: str):
        problem = problem_of(sizes, dtype, device)
        return lambda: function(problem)

    return prepare


def _compiled(sizes: Sizes, dtype: str, device: str):
    return peers.compiled_step(problem_of(sizes, dtype, device))


OPERATION = Operation(
    name="unrolled",
    dtypes=("float32",),
    cases=CASES,
    implementations=(
        Implementation(DEFINITION, _ours(meta_gradient_by_autograd)),
        Implementation(ADJOINT, _ours(meta_gradient)),
        Implementation(RECORDED, _ours(meta_gradient, trace=True)),
        *(Implementation(name, _peer(function)) for name, function in PEERS.items()),
        Implementation(COMPILED, _compiled, eager=False, obstacle=cpp_obstacle),
    ),
    minimum_bytes=minimum_bytes,
    check=check,
)
