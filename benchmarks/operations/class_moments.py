"""Moments of classes in one read, beside library calls, and NC1 beside dense covariances."""

import numpy as np
import torch

from benchmarks.peers import class_sums
from benchmarks.registry import Case, Implementation, Operation, Sizes, calling, cpp_obstacle, ours
from kempe_nb.kernels import class_moments as module
from kempe_nb.methods.neural_collapse import neural_collapse_metrics

#: Within-class deviation of the features, whose means have elements of size 1: not yet collapsed,
#: so that the textbook formula passes the check.
SPREAD = 0.5
#: What inputs and temporaries may take together, in bytes.
ROOM = {"cpu": 2**34, "cuda": 2**36}
#: Relative error that passes. The peers sum in float32, the textbook formula cancels as well.
TOLERANCE = 1e-3


METRICS = "NC1 to NC4, two reads"


def _case(samples: int, dimensions: int, classes: int, *too_long: str) -> Case:
    """Return a case; its small version fills no block, and has every class."""
    sizes = {"samples": samples, "dimensions": dimensions, "classes": classes}
    small = {"samples": 12 * classes + 77, "dimensions": 67, "classes": classes}
    return Case(sizes, small, too_long)


CASES = (
    # Features of CIFAR-10 under the networks of the paper; and with more classes.
    _case(50_000, 512, 10),
    _case(50_000, 512, 100),
    _case(50_000, 512, 1000),
    # Features of a ResNet-50.
    _case(50_000, 2048, 10),
    _case(50_000, 2048, 1000),
    # ImageNet. Logits and distances are two products with a thousand columns each.
    _case(1_280_000, 512, 1000, METRICS),
    _case(1_280_000, 2048, 1000, METRICS),
)


def minimum_bytes(sizes: Sizes, dtype: str) -> int:
    """Return the bytes of features and labels, and of the moments."""
    return module.OPERATION.minimum_bytes(
        sizes["samples"], sizes["dimensions"], sizes["classes"], np.dtype(dtype).itemsize
    )


def inputs(sizes: Sizes, dtype: str, device: str) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Return features, labels and the number of classes; the same in every call."""
    rng = torch.Generator(device).manual_seed(0)
    place = {"generator": rng, "device": device}
    samples, dimensions, classes = sizes["samples"], sizes["dimensions"], sizes["classes"]
    labels = torch.arange(samples, device=device) % classes
    labels = labels[torch.randperm(samples, **place)]
    kind = getattr(torch, dtype)
    features = torch.empty(samples, dimensions, dtype=kind, device=device)
    features.normal_(0, SPREAD, generator=rng)
    means = torch.randn(classes, dimensions, dtype=kind, **place)
    # In parts, so that a set of ten gigabytes is not held twice.
    for own, part in zip(labels.split(2**16), features.split(2**16), strict=True):
        part += means[own]
    return features, labels, classes


def check(found: list[np.ndarray], sizes: Sizes, dtype: str) -> str:
    """Hold counts, means and squares, and NC1 where there is one, to float64."""
    features, labels, classes = inputs(sizes, dtype, "cpu")
    *moments, nc1 = [np.asarray(p) for p in class_sums.dense(features.double(), labels, classes)]
    names = ["counts", "means", "squares", "NC1"]
    if len(found) == 1:
        return _wrong("NC1", found[0], nc1)
    if found[2].ndim == 0:
        moments[2] = moments[2].sum()
    pairs = zip(names, found, [*moments, nc1], strict=False)
    return next((text for triple in pairs if (text := _wrong(*triple))), "")


def _wrong(name: str, found: np.ndarray, expected: np.ndarray) -> str:
    if found.shape != expected.shape:
        return f"{name} has shape {found.shape}; expected is {expected.shape}"
    error = np.abs(found - expected).max() / np.abs(expected).max()
    if error <= TOLERANCE:
        return ""
    return f"{name} is off by {error:.2g} of its largest value; accepted is {TOLERANCE:g}"


def _ours(impl: str):
    def prepare(sizes: Sizes, dtype: str, device: str):
        arguments = inputs(sizes, dtype, device)

        def call():
            moments = module.class_moments(*arguments, impl=impl)
            return moments.counts, moments.class_means, moments.scatter

        return call

    return prepare


def _metrics(sizes: Sizes, dtype: str, device: str):
    features, labels, classes = inputs(sizes, dtype, device)
    weight = torch.zeros(classes, sizes["dimensions"], dtype=features.dtype, device=device)
    weight[:, 0] = 1.0
    return lambda: torch.tensor(neural_collapse_metrics(features, labels, weight).nc1)


def _room(copies: float, one_hot: bool = False):
    """Return the obstacle of an implementation that needs this many tensors like the features."""

    def obstacle(sizes: Sizes, device: str) -> str:
        elements = copies * sizes["samples"] * sizes["dimensions"]
        if one_hot:
            # Eight bytes of the labels' own dtype, and four of the features'.
            elements += 3 * sizes["samples"] * sizes["classes"]
        needed = 4 * elements
        return "" if needed <= ROOM[device] else f"it would take {needed / 2**30:.0f} GiB"

    return obstacle


def _compiler(sizes: Sizes, device: str) -> str:
    return cpp_obstacle(sizes, device) or _room(1.1)(sizes, device)


OPERATION = Operation(
    name=module.OPERATION.name,
    dtypes=("float32",),
    cases=CASES,
    implementations=(
        *ours(module.OPERATION, _ours),
        Implementation(METRICS, _metrics),
        Implementation("index_add_", calling(class_sums.index_add, inputs), obstacle=_room(3)),
        Implementation(
            "index_add_, compiled",
            calling(class_sums.index_add, inputs, compiled=True),
            eager=False,
            obstacle=_compiler,
        ),
        Implementation(
            "one-hot product",
            calling(class_sums.one_hot_product, inputs),
            obstacle=_room(3, one_hot=True),
        ),
        Implementation(
            "textbook formula", calling(class_sums.textbook, inputs), obstacle=_room(1.1)
        ),
        Implementation(
            "sklearn NearestCentroid",
            calling(class_sums.nearest_centroid, inputs),
            ("cpu",),
            eager=False,
            obstacle=_room(3),
        ),
        Implementation(
            "dense covariance, pinv", calling(class_sums.dense, inputs), obstacle=_room(4)
        ),
    ),
    minimum_bytes=minimum_bytes,
    check=check,
)
