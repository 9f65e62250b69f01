"""Compiled code of the probability on the simplex: the bits of the definition, and vector code."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from kempe_nb import DirichletLaw, LogisticNormalLaw, dispatch, simplex_probability
from kempe_nb.kernels import elementary, normal_gamma as definition
from kempe_nb.kernels.philox import last_word, philox_4x32, split_words, uniform_53
from kempe_nb.kernels.simplex_laws import PURPOSE

if dispatch.numba_version():
    import numba

    from kempe_nb.kernels.numba import exact, normal_gamma, simplex_probability as code

pytestmark = pytest.mark.numba

THRESHOLDS = torch.tensor([0.2, 1e-9, 0.5, 0.999, 0.21, 0.0, 1.0], dtype=torch.float64)
HARMFUL = np.arange(9) % 4 == 0
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
    "logistic normal, wide": (LogisticNormalLaw(0.0, 2.0**31, HARMFUL[:8]), 0.0),
}
each_case = pytest.mark.parametrize("name", CASES)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def estimate(name, draws, seed=3, impl="numba", thresholds=THRESHOLDS, **place):
    law, tilt = CASES[name]
    return simplex_probability(law, thresholds, draws, seed, tilt=tilt, impl=impl, **place)


def same_bits(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def over_all(function, *columns):
    """Call what only compiled code can call at each row of some columns."""

    @numba.njit(error_model="numpy")
    def loop(first, second, third, fourth):
        found = np.empty((len(first), 2))
        for i in range(len(first)):
            found[i] = function(first[i], second[i], third[i], fourth[i])
        return found

    return loop(*columns)


@each_case
@pytest.mark.parametrize("draws", [1, 255, 256, 257, 10_000])
def test_the_bits_of_the_definition(name, draws):
    assert same_bits(estimate(name, draws), estimate(name, draws, impl="definition"))


@each_case
@given(
    st.integers(1, 700),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 701),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=15)
def test_the_bits_of_the_definition_anywhere(name, draws, seed, offset, stream):
    place = {"seed": seed, "offset": offset, "stream": stream}
    assert same_bits(
        estimate(name, draws, **place), estimate(name, draws, impl="definition", **place)
    )


@each_case
def test_any_number_of_threads_gives_the_same_bits(name, monkeypatch):
    monkeypatch.setattr(code, "GRAIN", 300)
    one = estimate(name, 5_001)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert same_bits(estimate(name, 5_001), one)


@each_case
def test_a_threshold_has_the_same_bits_in_any_company(name):
    whole = estimate(name, 2_000)
    for part in (slice(0, 1), slice(1, 3), slice(3, 7)):
        alone = estimate(name, 2_000, thresholds=THRESHOLDS[part])
        assert same_bits(alone, [each[part] for each in whole])


def test_it_is_what_runs_on_a_cpu(capsys):
    dispatch.which(simplex_probability, DirichletLaw(1, 1), THRESHOLDS, 10, 0)
    assert capsys.readouterr().out == "simplex_probability: numba (the tensors are on cpu)\n"


def test_elementary_functions_have_the_bits_of_the_definition():
    rng = np.random.default_rng(0)
    points = np.concatenate(
        [10.0 ** rng.uniform(-300, 300, 20_000), rng.uniform(0, 720, 20_000), [0.0, 700.0, 1e308]]
    )
    found = over_all(numba.njit(lambda x, *_: (exact.exp_minus(x), x)), *[points] * 4)[:, 0]
    assert np.array_equal(found, elementary.exp_minus(points))
    points = np.concatenate([points[points > 0], rng.uniform(0.5, 2, 20_000), [2.0**-1022, 1.0]])
    found = over_all(numba.njit(lambda x, *_: (exact.log(x), x)), *[points] * 4)[:, 0]
    assert np.array_equal(found, elementary.log(points))


def test_words_and_normal_numbers_have_the_bits_of_the_definition():
    index = np.random.default_rng(0).integers(0, 2**64, 5_000, dtype=np.uint64)
    key, stream, last = split_words(2**63 + 99), np.uint64(2**32 - 1), last_word(PURPOSE, 7)
    words = philox_4x32((*split_words(index), stream, last), key)

    @numba.njit
    def loop(index, stream, last, k0, k1):
        return [exact.block_words(each, stream, last, k0, k1) for each in index]

    assert np.array_equal(np.array(loop(index, stream, last, *key)).T, words)
    found = over_all(normal_gamma.normal_pair, *words)
    assert np.array_equal(found.T, definition.normal_pair(words))


@pytest.mark.parametrize("shape", [1.0, 1.3, 50.0, 2.0**31])
def test_proposals_have_the_bits_of_the_definition(shape):
    words = philox_4x32((*split_words(np.arange(20_000)), np.uint64(0), np.uint64(0)), (1, 2))
    x, _ = definition.normal_pair(words)
    u = 1.0 - uniform_53(words[3], words[0])
    d, c, _ = definition.GammaShape(shape).constants
    constants = np.full(len(x), d), np.full(len(x), c)
    found = over_all(numba.njit(lambda *a: (normal_gamma.propose(*a), 0.0)), x, u, *constants)[:, 0]
    cube, accepted = definition.propose(x, u, d, c)
    assert np.array_equal(found, np.where(accepted, cube, 0.0))
    assert accepted.any()


def test_where_every_attempt_fails_the_middle_stands_for_the_number():
    """A constant that is no number lets nothing be accepted."""
    constants = np.array([[2.0, np.nan, 0.0], [2.0, np.nan, 0.0]])
    words = [np.uint64(1)] * 5
    assert normal_gamma.later_attempts(0.0, 7.0, constants, *words) == (1.0, 7.0)
    assert normal_gamma.later_attempts(0.0, 0.0, constants, *words) == (1.0, 1.0)


@pytest.mark.parametrize(
    "name", ["_first_attempts", "_normals", "_add_logits", "_add_boosts", "_scale", "_weights"]
)
def test_inner_loops_are_vector_instructions(name):
    """A change that hides from the compiler that arrays do not overlap costs a factor of four."""
    one, two, three, four = (np.random.default_rng(0).random(code.LANES) + 0.1 for _ in range(4))
    words = [np.uint64(each) for each in range(4)]
    shapes = np.array([[2.0, 0.2, 0.0], [6.0, 0.1, 0.0]])
    arguments = {
        "_first_attempts": (*words, shapes, one, two),
        "_normals": (*words, np.uint64(5), one, two),
        "_add_logits": (one, np.ones((3, 4)), 2, two, three, four),
        "_add_boosts": (*words, 2.0, 3.0, 0.5, one),
        "_scale": (one, two, three),
        "_weights": (one, code.LANES, 0.3, False, 0.5, two, np.array([2.0, 1.0, 0.5, 2.0**40])),
    }[name]
    # Compiled anew: what comes from a cache has no assembly.
    fresh = numba.njit(nogil=True, error_model="numpy")(getattr(code, name).py_func)
    fresh(*arguments)
    (assembly,) = fresh.inspect_asm().values()
    packed = re.findall(r"\b(?:v?(?:add|mul|sub)pd|fmul\s+v\d+\.2d|fadd\s+v\d+\.2d)\b", assembly)
    assert len(packed) >= 2
    assert not re.findall(r"\bvfn?m(?:add|sub)\d", assembly)
