"""The exact errors and laws of the infinite-memory learner, against independent oracles."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import special, stats

from kempe_nb.methods import infinite_memory as memory

betas = st.floats(1.15, 4.0)
sizes = st.floats(1.0, 1e12)


@given(betas, sizes)
@settings(max_examples=40, deadline=None)
def test_clean_error_lies_between_a_partial_sum_and_that_sum_plus_the_rest(beta, samples):
    ranks = 200_000
    p = np.arange(1, ranks + 1) ** -beta / special.zeta(beta)
    head = np.sum(p * np.exp(samples * np.log1p(-p)))
    rest = stats.zipf(beta).sf(ranks)
    error = memory.clean_error(samples, beta)
    assert head * (1 - 1e-9) <= error <= (head + rest) * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize("beta", [1.2, 1.5, 2.0, 3.0])
def test_one_sample_misses_everything_but_a_repetition(beta):
    expected = 1 - special.zeta(2 * beta) / special.zeta(beta) ** 2
    np.testing.assert_allclose(memory.clean_error(1, beta), expected, rtol=1e-9)


@pytest.mark.parametrize("beta", [1.2, 1.5, 2.0, 3.0])
def test_clean_error_tends_to_the_clean_law(beta):
    large = np.array([1e9, 1e12])
    np.testing.assert_allclose(
        memory.clean_error(large, beta), memory.clean_law(large, beta), rtol=1e-6
    )


def test_clean_error_does_not_depend_on_where_the_integral_takes_over(monkeypatch):
    before = memory.clean_error([10, 1e4, 1e9], 1.5)
    monkeypatch.setattr(memory, "EXPLICIT_RANKS", 300_000)
    np.testing.assert_allclose(memory.clean_error([10, 1e4, 1e9], 1.5), before, rtol=1e-8)


@pytest.mark.parametrize("beta", [1.2, 1.5, 3.0])
@pytest.mark.parametrize("samples", [1e3, 1e6, 1e8])
def test_the_error_behind_a_rank_is_the_sum_of_its_terms(beta, samples):
    near, far = 1_000, 1_000_000
    p = memory.zipf_probabilities(beta, far)[near:]
    summed = p @ np.exp(-samples * p) + memory.error_behind(samples, beta, far)
    # The midpoint rule errs by a 24th of the second derivative: beta (beta + 1) / rank^2 for a
    # power of the rank, and ten times that allows for the bend of the exponential.
    rtol = 10 * beta * (beta + 1) / (24 * near**2)
    np.testing.assert_allclose(memory.error_behind(samples, beta, near), summed, rtol=rtol)


def test_the_error_behind_a_rank_is_at_most_the_mass_there():
    behind = memory.error_behind([1, 1e3, 1e9], 1.5, 500)
    assert (np.diff(behind) < 0).all() and behind[0] < memory.tail_mass(1.5, 500)


@given(betas, st.integers(1, 10**6))
@settings(deadline=None)
def test_tail_mass_is_scipys_survival_function(beta, rank):
    np.testing.assert_allclose(
        memory.tail_mass(beta, rank), stats.zipf(beta).sf(rank), rtol=1e-6, atol=1e-12
    )


def test_missed_mass_is_the_sum_over_all_training_sets():
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.2, 0.7])
    expected = 0.0
    for draws in itertools.product(range(3), repeat=4):
        unknown = sum(p[i] for i in range(3) if i not in draws)
        expected += np.prod(q[list(draws)]) * unknown
    np.testing.assert_allclose(memory.missed_mass(p, q, 4), expected, rtol=1e-12)


def test_missed_mass_keeps_digits_where_powers_underflow():
    # (1 - 1e-12)^(1e12) = 1/e up to 5e-13; the rounding of 1 - 1e-12 alone would cost 1e-4.
    tiny = 1e-12
    error = memory.missed_mass([1 - tiny, tiny], [1 - tiny, tiny], 1e12)
    np.testing.assert_allclose(error, tiny * np.exp(-1), rtol=1e-9)


@given(betas, st.integers(1, 3_000), st.floats(1, 1e9))
@settings(deadline=None, max_examples=40)
def test_a_cut_never_helps_and_its_floor_is_the_mass_behind_it(beta, cut, samples):
    error = memory.cut_error(samples, beta, cut)
    assert error >= memory.tail_mass(beta, cut) * (1 - 1e-12)
    assert error <= 1
    # More than k^beta / A samples times ten: nothing is left but the floor.
    unlimited = memory.cut_error(min(1e3 * memory.cut_crossover(beta, cut), 2**53), beta, cut)
    np.testing.assert_allclose(unlimited, memory.tail_mass(beta, cut), rtol=1e-6)


def test_cut_error_is_the_missed_mass_of_the_renormalised_law_and_the_tail():
    p = memory.zipf_probabilities(1.5, 50)
    inside = p.sum() * memory.missed_mass(p / p.sum(), p / p.sum(), 300)
    np.testing.assert_allclose(
        memory.cut_error(300, 1.5, 50), inside + memory.tail_mass(1.5, 50), rtol=1e-12
    )


@given(st.floats(1, 1e9), st.floats(1, 1e9), st.integers(1, 50))
def test_effective_samples_lie_between_the_harmonic_bound_and_both_sizes(samples, generator, n):
    worth = memory.effective_samples(samples, generator, n)
    assert worth <= min(samples, generator) * (1 + 1e-12)
    assert 1 / worth <= (1 / samples + n / generator) * (1 + 1e-12)


@given(st.floats(1, 1e6), st.integers(1, 20))
def test_one_more_generation_is_one_more_application_of_h(generator, n):
    before = memory.effective_samples(np.inf, generator, n)
    after = memory.effective_samples(np.inf, generator, n + 1)
    np.testing.assert_allclose(after, -generator * np.expm1(-before / generator), rtol=1e-12)


def test_survival_is_that_of_a_poisson_branching_process():
    # Extinction within n generations by iterating the generating function in exact summation.
    pmf = stats.poisson(1).pmf(np.arange(60))
    extinct = 0.0
    for generation in range(1, 8):
        extinct = np.sum(pmf * extinct ** np.arange(60)) if generation > 1 else pmf[0]
        # A Poisson(1) ancestor line: alive at generation n + 1 of the chain started at s = inf.
        np.testing.assert_allclose(
            memory.survival_multiplier(np.inf, generation + 1), 1 - extinct, rtol=1e-12
        )


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=30), st.data())
def test_top_k_keeps_the_largest_in_their_ratios(weights, data):
    p = np.array(weights) / np.sum(weights)
    k = data.draw(st.integers(1, len(p)))
    cut = memory.top_k(p, k)
    kept = cut > 0
    assert kept.sum() == k
    np.testing.assert_allclose(cut.sum(), 1)
    assert p[kept].min() >= max(p[~kept], default=0)
    np.testing.assert_allclose(cut[kept] / p[kept], 1 / p[kept].sum())


@given(st.floats(1.2, 3.0), st.floats(0.05, 0.995))
@settings(deadline=None)
def test_nucleus_rank_is_the_smallest_that_holds_the_mass(beta, mass):
    try:
        k = memory.nucleus_rank(beta, mass)
    except ValueError:
        assert 1 - memory.tail_mass(beta, 2.0**52) < mass
        return
    assert 1 - memory.tail_mass(beta, k) >= mass
    assert k == 1 or 1 - memory.tail_mass(beta, k - 1) < mass


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: memory.clean_error(10, 1.0), "beta is 1.0"),
        (lambda: memory.clean_error(10, 0.5), "beta is 0.5"),
        (lambda: memory.clean_error(10, float("nan")), "beta is nan"),
        (lambda: memory.zipf_constant(-2), "beta is -2"),
        (lambda: memory.cut_error(10, 1.5, 0), "cut is 0"),
        (lambda: memory.cut_error(10, 1.5, -3), "cut is -3"),
        (lambda: memory.cut_error(10, 1.5, 2.5), "cut is 2.5"),
        (lambda: memory.cut_error(10, 1.5, 10**9), "cut is 1000000000"),
        (lambda: memory.clean_error(0, 1.5), "samples is 0"),
        (lambda: memory.clean_error(-1, 1.5), "samples is -1"),
        (lambda: memory.clean_error(2.0**54, 1.5), r"up to 2\*\*53"),
        (lambda: memory.clean_error([1, float("nan")], 1.5), "samples is"),
        (lambda: memory.error_behind(10, 1.5, 0), "rank is 0"),
        (lambda: memory.error_behind(0, 1.5, 5), "samples is 0"),
        (lambda: memory.effective_samples(10, 0), "generator_samples is 0"),
        (lambda: memory.effective_samples(10, 2.0**54), "generator_samples is"),
        (lambda: memory.effective_samples(-5, 10), "samples is"),
        (lambda: memory.effective_samples(10, 10, -1), "generations is -1"),
        (lambda: memory.effective_samples(10, 10, 1.5), "generations is 1.5"),
        (lambda: memory.survival_multiplier(0.0), "ratio is 0.0"),
        (lambda: memory.missed_mass([0.5, np.nan], [0.5, 0.5], 1), "p holds NaN"),
        (lambda: memory.missed_mass([1.5, -0.5], [0.5, 0.5], 1), "p holds -0.5"),
        (lambda: memory.missed_mass([0.5, 0.5], [0.5, 0.4], 1), "q sums to 0.9"),
        (lambda: memory.missed_mass([], [], 1), r"p has shape \(0,\)"),
        (lambda: memory.missed_mass([1.0], [0.5, 0.5], 1), "p has 1 entries and q has 2"),
        (lambda: memory.top_k([0.5, 0.5], 0), "k is 0; accepted is an integer from 1 to 2"),
        (lambda: memory.top_k([0.5, 0.5], -1), "k is -1"),
        (lambda: memory.top_k([0.5, 0.5], 3), "k is 3"),
        (lambda: memory.top_k([0.5, 0.6], 1), "p sums to 1.1"),
        (lambda: memory.nucleus_rank(1.5, 1.0), "mass is 1.0"),
        (lambda: memory.nucleus_rank(1.5, 0), "mass is 0"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
