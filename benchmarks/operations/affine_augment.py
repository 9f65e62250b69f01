"""Augmentations of data set distillation, with and without their gradient, beside libraries."""

from functools import partial
from importlib.util import find_spec

import numpy as np
import torch

from benchmarks.peers import dsa_sequence as peers
from benchmarks.registry import Case, Implementation, Operation, Sizes, calling, cpp_obstacle, ours
from kempe_nb.kernels import affine_augment as module

#: Relative error that passes, in units of the largest entry of each result.
TOLERANCE = 1e-4
RESULTS = "images", "gradient"


def _case(images: int, channels: int, side: int, gradient: int = 0, flip_only: int = 0) -> Case:
    sizes = {
        **{"images": images, "channels": channels, "side": side},
        **{"gradient": gradient, "flip_only": flip_only},
    }
    return Case(sizes, sizes | {"images": min(images, 4), "side": min(side, 16)})


CASES = (
    # Ten images of CIFAR-10, one for each class: launch-bound.
    _case(10, 3, 32, 1),
    # A mirror alone, which the published code draws one time in six.
    _case(100, 3, 64, 0, 1),
    _case(100, 3, 64, 1, 1),
    # Digits of one channel.
    _case(256, 1, 28, 1),
    # Galaxies: ten images for each of ten classes, forward, and with the gradient.
    _case(100, 3, 64),
    _case(100, 3, 64, 1),
    # A batch of larger ones.
    _case(50, 3, 128, 1),
)


def inputs(sizes: Sizes, dtype: str, device: str) -> tuple[torch.Tensor, ...]:
    """Return images, rows of parameters, and v; the same in every call.

    There is no scaling, so that sampling twice is sampling once; those who scale do it by 1.
    """
    rng = np.random.default_rng(0)
    n, side = sizes["images"], sizes["side"]
    images, v = rng.standard_normal((2, n, sizes["channels"], side, side))
    rows = np.tile(np.array(module.UNCHANGED, dtype=np.float64), (n, 1))
    columns = dict(zip(module.COLUMNS, rows.T, strict=True))
    sign = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    columns["xx"][:] = sign
    if not sizes["flip_only"]:
        columns["brightness"][:] = rng.uniform(-0.5, 0.5, n)
        columns["saturation"][:] = rng.uniform(0, 2, n)
        columns["contrast"][:] = rng.uniform(0.5, 1.5, n)
        for axis, start, length in (("y", "top", "height"), ("x", "left", "width")):
            columns[f"shift_{axis}"][:] = rng.integers(-(side // 8), side // 8 + 1, n)
            columns[f"cut_{start}"][:] = rng.integers(0, side // 2, n)
            columns[f"cut_{length}"][:] = side // 2
        angle = rng.uniform(-np.pi / 12, np.pi / 12, n)
        columns["yy"][:], columns["yx"][:] = np.cos(angle), np.sin(angle)
        columns["xy"][:], columns["xx"][:] = -sign * np.sin(angle), sign * np.cos(angle)
    kind = getattr(torch, dtype)
    as_images = (torch.from_numpy(each).to(device, kind) for each in (images, v))
    return next(as_images), torch.from_numpy(rows).to(device), next(as_images)


def effects(rows: torch.Tensor, kind: torch.dtype, *, flip_only: bool) -> peers.Effects:
    """Return what the rows say, as the peers take it."""
    columns = dict(zip(module.COLUMNS, rows.unbind(1), strict=True))
    mirrored = columns["xx"] < 0
    if flip_only:
        return peers.Effects(mirrored)
    colours = (
        columns[name].view(-1, 1, 1, 1).to(kind)
        for name in ("brightness", "saturation", "contrast")
    )
    angles = torch.atan2(columns["yx"], columns["yy"]).to(kind)
    return peers.Effects(
        mirrored,
        *colours,
        shift=rows[:, 3:5].long(),
        rectangle=rows[:, 5:9].long(),
        scales=torch.ones(len(rows), 2, dtype=kind, device=rows.device),
        angles=angles,
    )


def minimum_bytes(sizes: Sizes, dtype: str) -> int:
    """Return the bytes of the images in and out, twice with the gradient."""
    side, ways = sizes["side"], 1 + int(sizes["gradient"])
    shape = sizes["images"], sizes["channels"], side, side
    return ways * module.OPERATION.minimum_bytes(*shape, np.dtype(dtype).itemsize)


def check(found: list[np.ndarray], sizes: Sizes, dtype: str) -> str:
    """Hold the results to the sequence of library calls in float64."""
    expected = _peer(peers.sequence)(sizes, "float64", "cpu")()
    expected = expected if sizes["gradient"] else (expected,)
    for name, one, other in zip(RESULTS, found, expected, strict=False):
        other = other.numpy()
        if one.shape != other.shape:
            return f"{name} has shape {one.shape}; expected is {other.shape}"
        error = np.abs(one - other).max() / np.abs(other).max()
        if not error <= TOLERANCE:
            return f"{name} is off by {error:.2g} of its largest entry; accepted is {TOLERANCE:g}"
    return ""


def _ours(impl: str):
    call = partial(module.affine_augment, impl=impl)

    def prepare(sizes: Sizes, dtype: str, device: str):
        images, rows, v = inputs(sizes, dtype, device)
        if sizes["gradient"]:
            return lambda: peers.by_autograd(call, images, rows, v)
        return lambda: call(images, rows)

    return prepare


def _peer(call, *, compiled: bool = False):
    """Return the `prepare` of a peer; compiled, its gradient is inside of what is compiled."""

    def prepare(sizes: Sizes, dtype: str, device: str):
        def arguments(sizes, dtype, device):
            images, rows, v = inputs(sizes, dtype, device)
            told = effects(rows, images.dtype, flip_only=bool(sizes["flip_only"]))
            return (images, told, v) if sizes["gradient"] else (images, told)

        function = call
        if sizes["gradient"]:
            function = partial(peers.by_vjp if compiled else peers.by_autograd, call)
        return calling(function, arguments, compiled=compiled)(sizes, dtype, device)

    return prepare


def _kornia_obstacle(sizes: Sizes, device: str) -> str:
    return "" if find_spec("kornia") else "kornia is not installed"


OPERATION = Operation(
    name=module.OPERATION.name,
    dtypes=("float32",),
    cases=CASES,
    implementations=(
        *ours(module.OPERATION, _ours),
        Implementation("one effect after the other", _peer(peers.sequence)),
        Implementation("one grid_sample", _peer(peers.one_sample)),
        Implementation("kornia", _peer(peers.kornia), obstacle=_kornia_obstacle),
        Implementation(
            "one grid_sample, compiled",
            _peer(peers.one_sample, compiled=True),
            eager=False,
            obstacle=cpp_obstacle,
        ),
    ),
    minimum_bytes=minimum_bytes,
    check=check,
)
