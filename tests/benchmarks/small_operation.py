"""A small operation of its own for the tests of the benchmarks."""

import numpy as np
import torch

from benchmarks.registry import Case, Implementation, Operation


def doubling(factor=2.0, kind=torch.float32):
    """Return an implementation's `prepare`: ones times a factor."""

    def prepare(sizes, dtype, device):
        ones = torch.ones(sizes["numbers"])
        return lambda: (ones * factor).to(kind)

    return prepare


def check(found, sizes, dtype):
    (values,) = found
    return "" if abs(values.mean() - 2) < 0.1 else f"the mean is {values.mean()}"


OURS = Implementation("kempe_nb definition", doubling(), exact=True)
PEER = Implementation("peer", lambda *_: lambda: np.full(4, 2.01), eager=False)
OPERATION = Operation(
    name="doubling",
    dtypes=("float32",),
    cases=(
        Case({"numbers": 1000}, {"numbers": 4}),
        Case({"numbers": 2000}, {"numbers": 4}, over_a_minute_on_cpu=("peer",)),
    ),
    implementations=(OURS, PEER),
    minimum_bytes=lambda sizes, dtype: 8 * sizes["numbers"],
    check=check,
)
