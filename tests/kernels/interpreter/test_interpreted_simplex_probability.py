"""The Triton code of the probability on the simplex in the interpreter: the definition's bits."""

import numpy as np
import pytest
import torch
from guard import guarded

from kempe_nb.kernels import normal_gamma as definition
from kempe_nb.kernels.simplex_laws import DirichletLaw, LogisticNormalLaw
from kempe_nb.kernels.simplex_probability import simplex_probability
from kempe_nb.kernels.triton import normal_gamma, simplex_probability as device_code

BLOCK, HEAD, TURNS = (*(device_code.CONFIG[key] for key in ("BLOCK", "HEAD")), device_code.TURNS)
THRESHOLDS = (0.2, 1e-9, 0.5, 0.999, 0.21, 0.0, 1.0)
HARMFUL = np.arange(6) % 4 == 0
CASES = {
    "both from 1 on": (DirichletLaw(1.0, 4.0), 0.0),
    "both small": (DirichletLaw(0.01, 0.02), 0.0),
    "one small": (DirichletLaw(0.7, 2.0), 0.0),
    "large": (DirichletLaw(2e8, 9e8), 0.0),
    "tilted": (DirichletLaw(5.0, 95.0), 1.5),
    "tilted, small": (DirichletLaw(0.2, 0.9), 0.5),
    "tilted down": (DirichletLaw(9.0, 2.0), -2.0),
    "tilted far": (DirichletLaw(0.5, 0.5), 500.0),
    "logistic normal": (LogisticNormalLaw(HARMFUL * 0.5, 1.5, HARMFUL), 0.0),
    "logistic normal, wide": (LogisticNormalLaw(0.0, 2.0**31, HARMFUL[:5]), 0.0),
}
each_case = pytest.mark.parametrize("name", CASES)


def estimate(name, draws=40, seed=3, thresholds=THRESHOLDS, **place):
    """Return the estimates of the Triton code, held to the definition, and what was moved."""
    law, tilt = CASES[name]
    t = torch.tensor(thresholds, dtype=torch.float64)
    with guarded() as moved:
        found = simplex_probability(law, t, draws, seed, tilt=tilt, impl="triton", **place)
    expected = simplex_probability(law, t, draws, seed, tilt=tilt, impl="definition", **place)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    return found, moved


@each_case
def test_laws(name):
    estimate(name)


@pytest.mark.parametrize("draws", [1, BLOCK - 1, BLOCK, BLOCK + 1, BLOCK * TURNS + 1])
@pytest.mark.parametrize("name", ["one small", "logistic normal"])
def test_numbers_of_draws(name, draws):
    estimate(name, draws)


@pytest.mark.parametrize("seed", [0, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("offset", [2**31, 2**63, 2**64 - 5])
def test_seeds_and_offsets(seed, offset):
    estimate("tilted, small", 5, seed=seed, offset=offset, stream=2**32 - 1)
    estimate("logistic normal", 5, seed=seed, offset=offset, stream=2**32 - 1)


@pytest.mark.parametrize("name", ["both from 1 on", "tilted down"])
@pytest.mark.parametrize("count", [1, HEAD - 1, HEAD, HEAD + 1, HEAD + 9])
def test_numbers_of_thresholds(name, count):
    """What does not fit into the lanes of a program is added by itself."""
    estimate(name, BLOCK + 3, thresholds=np.linspace(0.05, 0.9, count))


def test_the_fewest_addresses_are_touched():
    _, moved = estimate("tilted", BLOCK)
    assert not moved.written
    # Five thresholds between 0 and 1; a weight and its square are added where there is any.
    assert 2 <= moved.atomics["sums"] <= 10 and moved.atomics.keys() == {"sums"}
    assert moved.read.keys() == {"shapes", "thresholds", "logs", "rule"}
    # What no draw reaches ends the search: the first threshold alone is read.
    _, moved = estimate("both from 1 on", BLOCK, thresholds=np.linspace(0.99999, 0.999999, 9))
    assert moved.read["thresholds"] == 8 and not moved.atomics


def test_a_logistic_normal_law_is_read_once_for_each_block_of_draws():
    _, moved = estimate("logistic normal", 2 * BLOCK)
    assert moved.read["law"] == 2 * 3 * 8 * len(HARMFUL)
    assert moved.read.keys() <= {"law", "thresholds"}


def test_attempts_end(monkeypatch):
    """Where nothing is accepted the middle stands for the number."""
    for module in (definition, normal_gamma):
        monkeypatch.setattr(module, "ATTEMPTS", 0 if module is definition else _constexpr(0))
    found, _ = estimate("both from 1 on", 5, thresholds=(0.1, 0.2))
    mass = (1 - 1 / 3) / (1 - 1 / 3 + 4 - 1 / 3)
    assert found.probability.tolist() == [mass >= 0.1, mass >= 0.2]


def _constexpr(value):
    import triton.language as tl

    return tl.constexpr(value)
