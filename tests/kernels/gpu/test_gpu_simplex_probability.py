"""The probability on the simplex on a GPU: the bits of the definition, whatever is drawn."""

import numpy as np
import pytest
import torch

from kempe_nb import DirichletLaw, LogisticNormalLaw, dispatch, simplex_probability

READY = torch.cuda.is_available() and dispatch.triton_version()
pytestmark = pytest.mark.skipif(not READY, reason="no CUDA device with Triton")

HARMFUL = np.arange(77) % 4 == 0
CASES = {
    "both from 1 on": (DirichletLaw(1.0, 4.0), 0.0),
    "both small": (DirichletLaw(0.01, 0.02), 0.0),
    "large": (DirichletLaw(2e8, 9e8), 0.0),
    "tilted": (DirichletLaw(5.0, 95.0), 1.5),
    "tilted, small": (DirichletLaw(0.2, 0.9), 0.5),
    "tilted down": (DirichletLaw(9.0, 2.0), -2.0),
    "logistic normal": (LogisticNormalLaw(HARMFUL * 0.5, 1.5, HARMFUL), 0.0),
}


def held(name, thresholds, draws, seed, **place):
    """Return the estimates of a GPU, which must have the bits of the definition."""
    law, tilt = CASES[name]
    t = torch.as_tensor(thresholds, dtype=torch.float64)
    found = simplex_probability(law, t.cuda(), draws, seed, tilt=tilt, impl="triton", **place)
    expected = simplex_probability(law, t, draws, seed, tilt=tilt, impl="definition", **place)
    for one, other in zip(found, expected, strict=True):
        assert one.is_cuda and torch.equal(one.cpu(), other)
    return found


@pytest.mark.parametrize("draws", [1, 33, 100_001])
@pytest.mark.parametrize("name", CASES)
def test_the_bits_of_the_definition(name, draws):
    held(name, [0.2, 1e-9, 0.5, 0.999, 0.21, 0.0, 1.0], draws, 2**63 + 5)


@pytest.mark.parametrize("name", ["tilted", "logistic normal"])
def test_far_in_a_stream_and_with_many_thresholds(name):
    place = {"offset": 2**64 - 5_000, "stream": 2**32 - 1}
    held(name, np.linspace(0.01, 0.9, 100), 5_000, 2**64 - 1, **place)


def test_two_runs_have_the_same_bits():
    one, other = (held("tilted", [0.1, 0.3], 200_000, 1) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_it_is_what_runs_on_a_gpu(capsys):
    dispatch.which(simplex_probability, *CASES["tilted"][:1], torch.tensor([0.5]).cuda(), 9, 0)
    assert capsys.readouterr().out.startswith("simplex_probability: triton (the tensors are on")
