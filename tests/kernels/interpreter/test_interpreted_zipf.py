"""The Triton code of zipf in the interpreter: the bits of the definition, the fewest bytes."""

import numpy as np
import pytest
import torch
from guard import guarded

from kempe_nb.kernels.triton import zipf as device_code
from kempe_nb.kernels.zipf import minimum_bytes, zipf_counts, zipf_law, zipf_samples

BLOCK = device_code.CONFIG["BLOCK"]
LAW = zipf_law(1.5, 10**9)
#: One rank and no band to choose; no decay, where all is accepted; the longest; a steep one.
LAWS = {
    "one rank": zipf_law(1.1, 1),
    "two ranks": zipf_law(1.1, 2),
    "uniform": zipf_law(0.0, 1000),
    "longest": zipf_law(1.01, 2**62),
    "steep": zipf_law(64.0, 77),
    "tempered": zipf_law(1.5, 10**6, temperature=0.75, top_p=0.9),
}


@pytest.fixture
def _short_turns(monkeypatch):
    """Let a program of the counting kernel take two turns, and so have several programs."""
    monkeypatch.setattr(device_code, "TURNS", 2)


def samples(law, shape, seed=3, **kwargs):
    with guarded() as moved:
        found = zipf_samples(law, shape, seed, impl="triton", **kwargs)
    assert torch.equal(found, zipf_samples(law, shape, seed, impl="definition", **kwargs))
    return found, moved


def counts(law, size, ranks, seed=3, **kwargs):
    with guarded() as moved:
        found = zipf_counts(law, size, seed, ranks=ranks, impl="triton", **kwargs)
    expected = zipf_counts(law, size, seed, ranks=ranks, impl="definition", **kwargs)
    assert torch.equal(found, expected)
    return found, moved


@pytest.mark.parametrize("shape", [0, 1, BLOCK, BLOCK + 1, 601, (3, 7)])
def test_shapes(shape):
    samples(LAW, shape)


@pytest.mark.parametrize("name", LAWS)
def test_laws(name):
    samples(LAWS[name], 301, seed=2**63 + 5, offset=2**40, stream=9)


@pytest.mark.parametrize("seed", [0, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("offset", [1, 2**31, 2**63, 2**64 - 99])
def test_seeds_and_offsets(seed, offset):
    samples(LAW, 99, seed=seed, offset=offset, stream=2**32 - 1)


@pytest.mark.usefixtures("_short_turns")
@pytest.mark.parametrize("ranks", [0, 1, 5, 127, 128, 129, 300])
def test_counts(ranks):
    counts(LAW, 2 * BLOCK + 89, ranks, stream=4)


@pytest.mark.usefixtures("_short_turns")
@pytest.mark.parametrize("size", [0, 1, BLOCK, 2 * BLOCK, 2 * BLOCK + 1])
def test_counted_sizes(size):
    counts(zipf_law(0.5, 1000), size, 300, seed=2**64 - 1, offset=2**64 - 1000)


def test_counts_with_all_turns():
    counts(LAW, 601, 200)


def test_a_sample_is_written_once_and_only_parameters_are_read():
    size, programs = 601, 3
    _, moved = samples(LAW, size)
    assert moved.written == {"out": minimum_bytes(samples=size)}
    assert not moved.atomics
    # Not in the minimum: the law itself, 8 bytes for each number, read by every program.
    law = {"exponent": 8, "ends": 16, "thresholds": 8 * len(LAW.thresholds)}
    assert moved.read == {name: programs * size for name, size in law.items()}


@pytest.mark.usefixtures("_short_turns")
def test_a_counted_sample_is_never_stored():
    size, ranks, span = 1111, 300, 2 * BLOCK
    law = zipf_law(0.8, 1000)
    _, moved = counts(law, size, ranks)
    assert not moved.written and "counts" not in moved.read
    place = np.minimum(zipf_samples(law, size, 3).numpy() - 1, ranks)
    head = device_code.HEAD
    heads = (place[start : start + span] for start in range(0, size, span))
    # Above the minimum, one operation for each rank: every program adds the ranks of its head that
    # occur, and every sample behind the head is added by itself.
    occurring = sum(len(np.unique(part[part < head])) for part in heads)
    assert moved.atomics == {"counts": occurring + int((place >= head).sum())}


def test_the_variable_chooses_triton(monkeypatch):
    monkeypatch.setenv("KEMPE_NB_IMPL", "triton")
    with guarded() as moved:
        zipf_samples(LAW, 5, 1)
    assert moved.written == {"out": 40}
