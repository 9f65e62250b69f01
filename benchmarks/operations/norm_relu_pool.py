"""A ConvNet's block with two orders of derivatives, beside autograd through torch.nn."""

from functools import partial

import numpy as np
import torch

from benchmarks.peers import norm_relu_pool_orders as peers
from benchmarks.registry import Case, Implementation, Operation, Sizes, calling, cpp_obstacle, ours
from kempe_nb.kernels import norm_relu_pool as module

#: Relative error that passes, in units of the largest entry of each result.
TOLERANCE = 1e-4

RESULTS = "output", "dx", "d weight", "d bias", "d2 x", "d2 weight", "d2 v"


def _case(images: int, channels: int, side: int) -> Case:
    sizes = {"images": images, "channels": channels, "side": side}
    return Case(sizes, {"images": 3, "channels": 4, "side": min(side, 16)})


CASES = (
    # The digits of this book: ten images are launch-bound.
    _case(10, 32, 8),
    _case(100, 32, 8),
    # The three layers of ConvNet-3-128 on CIFAR-10 with ten images a class, and with one.
    _case(10, 128, 32),
    _case(100, 128, 8),
    _case(100, 128, 16),
    _case(100, 128, 32),
    # The first layer on images of 128 x 128 pixels behind one pooling.
    _case(50, 128, 64),
)


def inputs(sizes: Sizes, dtype: str, device: str) -> tuple[torch.Tensor, ...]:
    """Return x, weight, bias, v, a, p and q; the same in every call."""
    # Drawn on a CPU: what is checked must be the same everywhere.
    rng = torch.Generator().manual_seed(0)
    n, c, side = sizes["images"], sizes["channels"], sizes["side"]
    whole, half = (n, c, side, side), (n, c, side // 2, side // 2)
    kind = getattr(torch, dtype)
    shapes = whole, (c,), (c,), half, whole, (c,), (c,)
    return tuple(torch.randn(shape, generator=rng, dtype=kind).to(device) for shape in shapes)


def minimum_bytes(sizes: Sizes, dtype: str) -> int:
    """Return the bytes of three turns over the planes: 7 for each of x."""
    planes, side = sizes["images"] * sizes["channels"], sizes["side"]
    return sum(module.OPERATION.minimum_bytes(planes, side, side, np.dtype(dtype).itemsize))


def check(found: list[np.ndarray], sizes: Sizes, dtype: str) -> str:
    """Hold every result to autograd through PyTorch's modules in float64."""
    expected = peers.modules(*(each.double() for each in inputs(sizes, dtype, "cpu")))
    for name, one, other in zip(RESULTS, found, expected, strict=True):
        other = other.numpy()
        if one.shape != other.shape:
            return f"{name} has shape {one.shape}; expected is {other.shape}"
        error = np.abs(one - other).max() / np.abs(other).max()
        if error > TOLERANCE:
            return f"{name} is off by {error:.2g} of its largest entry; accepted is {TOLERANCE:g}"
    return ""


def _ours(impl: str):
    block = partial(module.norm_relu_pool, impl=impl)
    return calling(partial(peers.by_autograd, block), inputs)


OPERATION = Operation(
    name=module.OPERATION.name,
    dtypes=("float32",),
    cases=CASES,
    implementations=(
        *ours(module.OPERATION, _ours),
        Implementation("torch.nn, autograd", calling(peers.modules, inputs)),
        Implementation(
            "torch.func.vjp, compiled",
            calling(peers.orders, inputs, compiled=True),
            eager=False,
            obstacle=cpp_obstacle,
        ),
    ),
    minimum_bytes=minimum_bytes,
    check=check,
)
