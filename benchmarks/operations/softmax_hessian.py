"""Products with the Hessian of the cross-entropy, beside the formula and double backward."""

from functools import partial

import numpy as np
import torch

from benchmarks.peers import softmax_products
from benchmarks.registry import Case, Implementation, Operation, Sizes, calling, cpp_obstacle, ours
from kempe_nb.kernels import softmax_hessian as module

#: Relative error that passes, in units of the largest product. The peers lose digits where one
#: class is nearly sure; with logits of size 2 hardly any.
TOLERANCE = 1e-4


def _case(rows: int, classes: int, vectors: int) -> Case:
    sizes = {"rows": rows, "classes": classes, "vectors": vectors}
    return Case(sizes, {"rows": 13, "classes": min(classes, 1_001), "vectors": min(vectors, 3)})


CASES = (
    # Fifty directions through the ten logits of all images of FashionMNIST.
    _case(60_000, 10, 50),
    # ImageNet, one vector.
    _case(4_096, 1_000, 1),
    # Vocabularies of language models: behind what fits on chip.
    _case(1_024, 50_257, 1),
    _case(256, 200_000, 1),
)


def inputs(sizes: Sizes, dtype: str, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and vectors; the same in every call."""
    rng = torch.Generator(device).manual_seed(0)
    place = {"generator": rng, "device": device, "dtype": getattr(torch, dtype)}
    shape = sizes["rows"], sizes["classes"]
    return 2 * torch.randn(*shape, **place), torch.randn(sizes["vectors"], *shape, **place)


def minimum_bytes(sizes: Sizes, dtype: str) -> int:
    """Return the bytes of logits, vectors and products."""
    itemsize = np.dtype(dtype).itemsize
    return module.OPERATION.minimum_bytes(
        sizes["rows"], sizes["classes"], sizes["vectors"], itemsize
    )


def check(found: list[np.ndarray], sizes: Sizes, dtype: str) -> str:
    """Hold the products to the formula in NumPy's float64."""
    logits, vectors = (each.double().numpy() for each in inputs(sizes, dtype, "cpu"))
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    expected = p * (vectors - (p * vectors).sum(2, keepdims=True))
    if found[0].shape != expected.shape:
        return f"products have shape {found[0].shape}; expected is {expected.shape}"
    error = np.abs(found[0] - expected).max() / np.abs(expected).max()
    if error <= TOLERANCE:
        return ""
    return f"products are off by {error:.2g} of the largest; accepted is {TOLERANCE:g}"


def _ours(impl: str):
    return calling(partial(module.softmax_hessian, impl=impl), inputs)


OPERATION = Operation(
    name=module.OPERATION.name,
    dtypes=("float32",),
    cases=CASES,
    implementations=(
        *ours(module.OPERATION, _ours),
        Implementation("formula", calling(softmax_products.formula, inputs)),
        Implementation(
            "formula, compiled",
            calling(softmax_products.formula, inputs, compiled=True),
            eager=False,
            obstacle=cpp_obstacle,
        ),
        Implementation("double backward", calling(softmax_products.double_backward, inputs)),
    ),
    minimum_bytes=minimum_bytes,
    check=check,
)
