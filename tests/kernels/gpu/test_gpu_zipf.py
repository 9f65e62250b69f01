"""Zipf samples and counts on a GPU: the bits of the definition, and the law."""

import numpy as np
import pytest
import torch
from scipy import stats

from kempe_nb import dispatch
from kempe_nb.kernels.zipf import zipf_counts, zipf_law, zipf_samples

READY = torch.cuda.is_available() and dispatch.triton_version()
pytestmark = pytest.mark.skipif(not READY, reason="no CUDA device with Triton")

LAWS = [zipf_law(*law) for law in ((1.5, 10**9), (1.1, 1), (0.0, 1000), (1.01, 2**62), (64.0, 77))]
GPU = {"device": "cuda", "impl": "triton"}


@pytest.mark.parametrize("law", LAWS, ids=str)
@pytest.mark.parametrize("size", [0, 1, 257, 1_000_003])
def test_samples_equal_the_definition(law, size):
    place = {"offset": 2**40, "stream": 9}
    found = zipf_samples(law, size, 2**63 + 5, **place, **GPU)
    assert torch.equal(found.cpu(), zipf_samples(law, size, 2**63 + 5, **place))


@pytest.mark.parametrize("law", LAWS, ids=str)
@pytest.mark.parametrize("ranks", [0, 1, 127, 128, 10_000])
def test_counts_equal_the_definition(law, ranks):
    found = zipf_counts(law, 1_000_003, 5, ranks=ranks, **GPU)
    assert torch.equal(found.cpu(), zipf_counts(law, 1_000_003, 5, ranks=ranks))


def test_two_runs_are_equal():
    one, other = (zipf_counts(LAWS[0], 10**7, 5, ranks=1000, **GPU) for _ in range(2))
    assert torch.equal(one, other)


def test_a_billion_samples_follow_the_law():
    size, ranks, law = 10**9, 1000, LAWS[0]
    found = zipf_counts(law, size, 11, ranks=ranks, **GPU).cpu().numpy()
    assert found.sum() == size
    rest = law.mass(ranks + 1, law.last_rank)
    expected = size * np.append(law.probabilities(np.arange(1, ranks + 1)), rest)
    assert stats.chisquare(found, expected * (size / expected.sum())).pvalue > 1e-6
