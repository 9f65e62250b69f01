"""Samples of a Zipf law: ours, without a table, beside tables and NumPy's sampler."""

import numpy as np
import torch
from scipy.special import zeta

from benchmarks.peers import cdf_table, numpy_zipf
from benchmarks.registry import Case, Implementation, Operation, Sizes, ours, within_five_errors
from kempe_nb.kernels import zipf as module

BETA = 1.5
#: A cumulative table of more ranks than this takes over a gigabyte.
LARGEST_TABLE = 2**27
#: Ranks at which the cumulative law is checked: the head, and the tail where tables go wrong.
CHECKED_RANKS = np.array([1, 10, 1_000, 100_000])


def _case(samples: int, vocabulary: int) -> Case:
    """Return a case; its small version keeps the vocabulary, which is what a sampler may get wrong.

    Its size is odd, so that no block of numbers is filled.
    """
    sizes = {"samples": samples, "vocabulary": vocabulary, "beta": BETA}
    return Case(sizes, sizes | {"samples": 100_001})


CASES = (
    # A table of 8 MB: beyond the first cache of a CPU, inside the second-level cache of a GPU.
    _case(10**5, 10**6),
    _case(10**6, 10**6),
    _case(10**7, 10**6),
    # A vocabulary for which nobody makes a table.
    _case(10**5, 10**9),
    _case(10**6, 10**9),
    _case(10**7, 10**9),
)


def minimum_bytes(sizes: Sizes, dtype: str) -> int:
    """Return the bytes of the ranks; the law has a handful of parameters."""
    return module.OPERATION.minimum_bytes(samples=sizes["samples"])


def check(found: list[np.ndarray], sizes: Sizes, dtype: str) -> str:
    """Hold ranks to 1, ..., vocabulary and to the cumulative law at `CHECKED_RANKS`."""
    (ranks,) = found
    if (ranks.dtype, ranks.shape) != (np.dtype(dtype), (sizes["samples"],)):
        return f"the output is {ranks.dtype} {ranks.shape}"
    if not 1 <= ranks.min() <= ranks.max() <= sizes["vocabulary"]:
        return f"the ranks lie from {ranks.min()} to {ranks.max()}"
    # The Hurwitz zeta function is the sum over all ranks from its second argument on.
    above = zeta(sizes["beta"], np.append(CHECKED_RANKS, sizes["vocabulary"]) + 1.0)
    expected = (zeta(sizes["beta"]) - above[:-1]) / (zeta(sizes["beta"]) - above[-1])
    shares = (ranks <= CHECKED_RANKS[:, None]).mean(1)
    variance = expected * (1 - expected)
    return within_five_errors("the cumulative law", shares, expected, variance, len(ranks))


def _ours(impl: str):
    def prepare(sizes: Sizes, dtype: str, device: str):
        law = module.zipf_law(sizes["beta"], sizes["vocabulary"])
        return lambda: module.zipf_samples(law, sizes["samples"], 0, device=device, impl=impl)

    return prepare


def _torch_table(sizes: Sizes, dtype: str, device: str):
    edges = torch.from_numpy(cdf_table.table(sizes["beta"], sizes["vocabulary"])).to(device)
    torch.manual_seed(0)
    return lambda: cdf_table.torch_samples(edges, sizes["samples"])


def _numpy_table(sizes: Sizes, dtype: str, device: str):
    edges = cdf_table.table(sizes["beta"], sizes["vocabulary"])
    rng = np.random.default_rng(0)
    return lambda: cdf_table.numpy_samples(edges, sizes["samples"], rng)


def _numpy_zipf(sizes: Sizes, dtype: str, device: str):
    rng = np.random.default_rng(0)
    arguments = sizes["beta"], sizes["vocabulary"], sizes["samples"]
    return lambda: numpy_zipf.samples(*arguments, rng)


def _table_obstacle(sizes: Sizes, device: str) -> str:
    """Refuse a table that nobody would make."""
    if sizes["vocabulary"] <= LARGEST_TABLE:
        return ""
    return f"its table would take {8 * sizes['vocabulary'] / 2**30:.1f} GiB"


OPERATION = Operation(
    name=module.OPERATION.name,
    dtypes=("int64",),
    cases=CASES,
    implementations=(
        *ours(module.OPERATION, _ours),
        Implementation("torch table", _torch_table, obstacle=_table_obstacle),
        Implementation(
            "numpy table", _numpy_table, ("cpu",), eager=False, obstacle=_table_obstacle
        ),
        Implementation("numpy zipf", _numpy_zipf, ("cpu",), eager=False),
    ),
    minimum_bytes=minimum_bytes,
    check=check,
)
