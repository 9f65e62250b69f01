"""The resampling chain on a GPU: the bits of the definition, and its closed form."""

import numpy as np
import pytest
import torch

from kempe_nb import dispatch
from kempe_nb.kernels.resampling_chain import resampling_chain
from kempe_nb.methods.infinite_memory import effective_samples, zipf_probabilities

READY = torch.cuda.is_available() and dispatch.triton_version()
pytestmark = pytest.mark.skipif(not READY, reason="no CUDA device with Triton")

LAW = torch.from_numpy(zipf_probabilities(1.5, 100_003))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 10_000, 2**31, [100, 50, 200, 1]])
def test_equals_the_definition(size, dtype):
    arguments = size, 4, [0, 7, 2**63, 2**64 - 1]
    found = resampling_chain(LAW.to("cuda", dtype), *arguments, impl="triton")
    expected = resampling_chain(LAW.to(dtype), *arguments)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.cpu(), other)


@pytest.mark.parametrize("atoms", [0, 1, 32, 33])
def test_few_atoms(atoms):
    found = resampling_chain(LAW[:atoms].cuda(), 100, 3, [1, 2], impl="triton")
    for one, other in zip(found, resampling_chain(LAW[:atoms], 100, 3, [1, 2]), strict=True):
        assert torch.equal(one.cpu(), other)


def test_two_runs_are_equal():
    law = LAW.cuda()
    one, other = (resampling_chain(law, 10**5, 5, range(8), impl="triton") for _ in range(2))
    assert all(map(torch.equal, one, other))


def test_lost_mass_follows_the_closed_form():
    size, generations, seeds = 10_000, 5, 256
    found = resampling_chain(LAW.cuda(), size, generations, range(seeds), impl="triton").lost_mass
    found, p = found.cpu().numpy(), LAW.numpy()
    for generation in range(1, generations + 1):
        # A first sample is worth its size; each later one passes through h(s) = 1 - e^-s.
        worth = effective_samples(size, size, generation - 1) if generation > 1 else size
        expected = np.sum(p * np.exp(-p * worth))
        lost = found[:, generation - 1]
        assert abs(lost.mean() - expected) < 5 * lost.std(ddof=1) / np.sqrt(seeds)
