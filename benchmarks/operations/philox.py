"""Uniform random numbers: our Philox4x32-10 beside the generators of torch and NumPy."""

import numpy as np
import torch

from benchmarks.registry import Case, Implementation, Operation, Sizes, ours, within_five_errors
from kempe_nb.kernels import philox as module

SMALL = {"numbers": 10_001}
CASES = (
    # A GPU finishes it before the next launch; on a CPU it fits into the first cache.
    Case({"numbers": 10**4}, SMALL),
    # Fits into the second-level cache of a GPU.
    Case({"numbers": 10**6}, SMALL),
    # Memory of a GPU, and beyond every cache.
    Case({"numbers": 10**8}, SMALL),
)


def minimum_bytes(sizes: Sizes, dtype: str) -> int:
    """Return the bytes of the output; there is no input."""
    return module.OPERATION.minimum_bytes(sizes["numbers"], np.dtype(dtype).itemsize)


def check(found: list[np.ndarray], sizes: Sizes, dtype: str) -> str:
    """Hold numbers to [0, 1), to their dtype, and to the first two moments of the uniform law."""
    (values,) = found
    if (values.dtype, values.shape) != (np.dtype(dtype), (sizes["numbers"],)):
        return f"the output is {values.dtype} {values.shape}"
    if not (values.min() >= 0 and values.max() < 1):
        return f"the values lie from {values.min()} to {values.max()}"
    powers = np.stack([values, values**2]).astype(np.float64)
    return within_five_errors(
        "the mean of x or x²", powers.mean(1), (1 / 2, 1 / 3), (1 / 12, 4 / 45), len(values)
    )


def _ours(impl: str):
    def prepare(sizes: Sizes, dtype: str, device: str):
        kind = getattr(torch, dtype)
        return lambda: module.uniform(sizes["numbers"], 0, dtype=kind, device=device, impl=impl)

    return prepare


def _torch_rand(sizes: Sizes, dtype: str, device: str):
    kind = getattr(torch, dtype)
    torch.manual_seed(0)
    return lambda: torch.rand(sizes["numbers"], dtype=kind, device=device)


def _numpy(bits: type):
    def prepare(sizes: Sizes, dtype: str, device: str):
        rng = np.random.Generator(bits(0))
        return lambda: rng.random(sizes["numbers"], dtype=dtype)

    return prepare


OPERATION = Operation(
    name=module.OPERATION.name,
    dtypes=("float32", "float64"),
    cases=CASES,
    implementations=(
        *ours(module.OPERATION, _ours),
        Implementation("torch.rand", _torch_rand),
        # NumPy's Philox has words of 64 bits, ours of 32.
        Implementation("numpy Philox4x64", _numpy(np.random.Philox), ("cpu",), eager=False),
        Implementation("numpy PCG64", _numpy(np.random.PCG64), ("cpu",), eager=False),
    ),
    minimum_bytes=minimum_bytes,
    check=check,
)
