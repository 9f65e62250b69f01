"""The counting learner of one context: exact distances and their laws, against summation."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import integrate, special, stats

from kempe_nb.methods import infinite_memory, tailed_bigram

few = settings(max_examples=60, deadline=None)


# Binomial counts


# SciPy's binomial law overflows at the probabilities that double precision does not normalise.
@given(st.integers(1, 60), st.just(0.0) | st.floats(1e-300, 1))
@few
def test_the_mean_absolute_deviation_is_the_sum_over_the_binomial_law(trials, p):
    counts = np.arange(trials + 1)
    expected = np.abs(counts - trials * p) @ stats.binom.pmf(counts, trials, p)
    found = tailed_bigram.mean_absolute_deviation(trials, p)
    # The terms of the sum are at most `trials`, and each is rounded.
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13 * trials)


@given(st.integers(1, 60), st.integers(0, 60))
@few
def test_it_does_not_matter_on_which_side_a_whole_mean_is_rounded(trials, mean):
    p = min(mean, trials) / trials
    around = [tailed_bigram.mean_absolute_deviation(trials, p + d) for d in (-1e-13, 0, 1e-13)]
    # The deviation moves by at most `trials` times what p moves.
    inside = [found for found in around if np.isfinite(found)]
    assert len(inside) >= 2
    np.testing.assert_allclose(inside, inside[-1], rtol=1e-9, atol=1e-11 * trials)


@pytest.mark.parametrize(("trials", "p"), [(1, 0.3), (10, 1e-3), (10**6, 1e-9), (10**8, 1e-300)])
def test_what_is_expected_less_than_once_deviates_by_twice_the_probability_of_none(trials, p):
    # E|X - m| = 2 E(m - X)^+ = 2 m P(X = 0) for m < 1.
    expected = 2 * trials * p * np.exp(trials * np.log1p(-p))
    np.testing.assert_allclose(
        tailed_bigram.mean_absolute_deviation(trials, p), expected, rtol=1e-9
    )


def test_deviations_broadcast_and_vanish_where_nothing_is_random():
    found = tailed_bigram.mean_absolute_deviation(np.array([[4], [9]]), [0.0, 0.5, 1.0])
    assert found.shape == (2, 3)
    assert (found[:, [0, 2]] == 0).all() and (found[:, 1] > 0).all()


# The expected distance


@pytest.mark.parametrize("beta", [1.15, 1.3, 1.7, 2.0, 3.0, 6.0])
def test_one_sample_has_a_closed_form(beta):
    repeated = special.zeta(2 * beta) / special.zeta(beta) ** 2
    np.testing.assert_allclose(
        tailed_bigram.expected_variation(1, beta), 2 * (1 - repeated), rtol=1e-9
    )


@given(st.floats(1.2, 5.0), st.integers(1, 60))
@settings(max_examples=15, deadline=None)
def test_the_expected_distance_is_the_sum_over_ranks_and_counts(beta, samples):
    counts, ranks = np.arange(samples + 1)[:, None], np.arange(1, 5_001)
    p = ranks**-beta / special.zeta(beta)
    deviations = np.abs(counts - samples * p) * stats.binom.pmf(counts, samples, p)
    head = deviations.sum() / samples
    # A rank behind adds between 2 p (1 - p)^n and 2 p.
    rest = 2 * special.zeta(beta, 5_001) / special.zeta(beta)
    found = tailed_bigram.expected_variation(samples, beta)
    assert (head + rest * (1 - p[-1]) ** samples) * (1 - 1e-9) <= found
    assert found <= (head + rest) * (1 + 1e-9)


@pytest.mark.parametrize("beta", [1.3, 1.6, 2.0, 3.0])
@pytest.mark.parametrize("samples", [7, 200])
def test_the_expected_distance_is_the_mean_over_simulated_samples(beta, samples):
    rng, trials = np.random.default_rng([samples, int(10 * beta)]), 2_000
    draws = rng.zipf(beta, (trials, samples))
    found = [tailed_bigram.variation(tokens, beta) for tokens in draws]
    score = np.mean(found) - tailed_bigram.expected_variation(samples, beta)
    assert abs(score) < 4 * np.std(found) / np.sqrt(trials)


@pytest.mark.parametrize("beta", [1.2, 1.6, 2.0, 3.0])
def test_the_distance_does_not_depend_on_where_the_integral_takes_over(monkeypatch, beta):
    sizes = [1, 30, 1e4, 1e7]
    before = tailed_bigram.expected_variation(sizes, beta)
    monkeypatch.setattr(infinite_memory, "EXPLICIT_RANKS", 300_000)
    np.testing.assert_allclose(tailed_bigram.expected_variation(sizes, beta), before, rtol=1e-8)


@given(st.floats(1.2, 5.0), st.integers(1, 10**6))
@settings(max_examples=20, deadline=None)
def test_more_samples_are_closer(beta, samples):
    near, far = tailed_bigram.expected_variation([2 * samples, samples], beta)
    assert 0 < near < far < 2
    # Each rank contributes E|X - np| / n, whose square falls at most as fast as 1/n.
    assert near > far / 2


def test_sizes_keep_their_shape():
    found = tailed_bigram.expected_variation([[1, 2, 3], [4, 5, 6]], 1.5)
    assert found.shape == (2, 3)
    assert found[1, 2] == tailed_bigram.expected_variation(6, 1.5)
    assert np.shape(tailed_bigram.expected_variation(6, 1.5)) == ()


# The laws


@pytest.mark.parametrize(
    ("beta", "exponent"), [(1.25, 0.2), (1.6, 0.375), (2.0, 0.5), (2.5, 0.5), (9.0, 0.5)]
)
def test_the_exponent_stops_at_one_half(beta, exponent):
    assert tailed_bigram.variation_exponent(beta) == pytest.approx(exponent, rel=1e-12)


@pytest.mark.parametrize("beta", [1.3, 1.6, 2.5, 4.0])
def test_the_law_is_a_power_with_that_exponent(beta):
    sizes = np.array([1, 10, 1e4, 1e8])
    law = tailed_bigram.variation_law(sizes, beta)
    np.testing.assert_allclose(
        law, law[0] * sizes ** -tailed_bigram.variation_exponent(beta), rtol=1e-12
    )


@pytest.mark.parametrize("beta", [1.3, 1.6, 2.5, 4.0])
def test_the_distance_tends_to_the_law_ever_closer(beta):
    sizes = 10.0 ** np.arange(2, 9)
    ratios = tailed_bigram.expected_variation(sizes, beta) / tailed_bigram.variation_law(
        sizes, beta
    )
    away = 1 - ratios
    assert (away > 0).all() and (np.diff(away) < 0).all()
    # Head and edge take part with the exponents 1/2 and 1 - 1/beta, and with constants that are
    # alike; the law keeps the smaller exponent.
    assert away[-1] < 2 * sizes[-1] ** -abs(0.5 - 1 / beta)


@pytest.mark.parametrize("beta", [1.3, 4.0])
def test_far_from_two_the_law_is_within_one_per_cent_at_the_largest_size(beta):
    distance = tailed_bigram.expected_variation(1e8, beta)
    np.testing.assert_allclose(tailed_bigram.variation_law(1e8, beta), distance, rtol=0.01)


def head_term(beta):
    """Return sqrt(2/pi) times the zeta-regularised sum of sqrt(p (1 - p)), for beta below 2."""
    first = 1 / special.zeta(beta)
    p = first * np.arange(1, 1_000_001.0) ** -beta
    lowered = np.sum(np.sqrt(p * (1 - p)) - np.sqrt(p))
    return np.sqrt(2 / np.pi) * (lowered + np.sqrt(first) * special.zeta(beta / 2))


def edge_term(beta):
    """Return the regularised integral over Poisson means, for beta above 2."""

    def rest(x):
        level = np.floor(x) + 1
        deviation = 2 * level * stats.poisson.pmf(level, x)
        return (deviation - np.sqrt(2 * x / np.pi)) * x ** (-1 - 1 / beta)

    pieces = [integrate.quad(rest, j, j + 1, epsabs=1e-10)[0] for j in range(100)]
    return special.zeta(beta) ** (-1 / beta) / beta * sum(pieces)


@pytest.mark.parametrize("beta", [1.3, 1.6, 1.9, 2.1, 2.5, 4.0])
def test_with_the_next_term_the_law_is_right_up_to_a_share_of_one_sample(beta):
    # Near beta = 2 head and edge almost cancel, so the constants are tested to many digits. What
    # is left is of the order of 1/n: the frequencies have the steps 1/n.
    sizes = np.array([1e4, 1e5, 1e6, 1e7])
    after = head_term(beta) * sizes**-0.5 if beta < 2 else edge_term(beta) * sizes ** (1 / beta - 1)
    left = tailed_bigram.expected_variation(sizes, beta) - after
    assert (np.abs(left - tailed_bigram.variation_law(sizes, beta)) < 1 / sizes).all()


# The distance of one sample


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.floats(1.1, 5))
@few
def test_the_distance_is_the_literal_sum_over_all_ranks(tokens, beta):
    counts, last = Counter(tokens), max(tokens)
    mass = special.zeta(beta)
    inside = sum(abs(counts[j] / len(tokens) - j**-beta / mass) for j in range(1, last + 1))
    behind = special.zeta(beta, last + 1) / mass
    found = tailed_bigram.variation(np.array(tokens), beta)
    np.testing.assert_allclose(found, inside + behind, rtol=1e-11)


def test_the_distance_takes_tokens_up_to_the_largest_integer():
    # A token that the law does not expect: its frequency is one, and the whole law is missed.
    assert tailed_bigram.variation(np.array([2**63 - 1]), 2.0) == pytest.approx(2, rel=1e-12)
    assert tailed_bigram.variation(np.array([1, 1]), 60.0) == pytest.approx(0, abs=1e-12)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 5))
@few
def test_only_frequencies_matter(tokens, times):
    tokens = np.array(tokens)
    np.testing.assert_allclose(
        tailed_bigram.variation(np.tile(tokens, times)[::-1], 1.5),
        tailed_bigram.variation(tokens, 1.5),
        rtol=1e-12,
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tailed_bigram.variation_law(10, 2), "beta is 2; accepted are other numbers"),
        (lambda: tailed_bigram.variation_law(10, 2.0), "beta is 2; accepted are other numbers"),
        (lambda: tailed_bigram.variation_law(10, 1.0), "beta is 1.0"),
        (lambda: tailed_bigram.variation_law(0, 1.5), "samples is 0"),
        (lambda: tailed_bigram.variation_exponent(0.5), "beta is 0.5"),
        (lambda: tailed_bigram.expected_variation(10, 1), "beta is 1;"),
        (lambda: tailed_bigram.expected_variation(10, float("nan")), "beta is nan"),
        (lambda: tailed_bigram.expected_variation(0, 1.5), "samples is 0"),
        (lambda: tailed_bigram.expected_variation(1.5, 1.5), "samples is 1.5"),
        (lambda: tailed_bigram.expected_variation(10**8 + 1, 1.5), "samples is 100000001"),
        (lambda: tailed_bigram.expected_variation([5, -1], 1.5), r"samples is \[5, -1\]"),
        (lambda: tailed_bigram.expected_variation(float("nan"), 1.5), "samples is nan"),
        (lambda: tailed_bigram.variation(np.array([1, 2]), 1.0), "beta is 1.0"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
