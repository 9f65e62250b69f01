"""What the page of ensemble_moments says of its peers: how often they move the logits."""

import pytest
import torch

from benchmarks.operations.ensemble_moments import CASES
from benchmarks.peers import ensemble_heads as peers
from kempe_nb import Traffic

#: All but the largest, which takes a second and has the classes of another one.
SHAPES = sorted(
    {
        tuple(case.sizes[name] for name in ("networks", "inputs", "classes"))
        for case in CASES
        if case.sizes["networks"] < 500
    }
)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("gradient", [False, True])
def test_the_chain_of_library_calls_moves_the_logits_so_often(shape, gradient):
    logits = torch.zeros(shape)
    with Traffic() as moved:
        if gradient:
            peers.by_autograd(logits, torch.zeros(shape[1]).long())
        else:
            peers.chain(logits)
    times = moved.bytes / (4 * logits.numel())
    low, high = (8, 9) if gradient else (9, 10)
    # "Eight to nine times", "nine to ten times", to a quarter.
    assert low - 0.25 <= times <= high + 0.25
