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


shares = st.floats(0.01, 0.99)


def law_of(kind, beta, ranks):
    """Return the first probabilities of the test law and of one training law, written out."""
    i = np.arange(1.0, ranks + 1)
    p, narrow = (i**-exponent / special.zeta(exponent) for exponent in (beta, beta + 0.4))
    cut = np.where(i <= 70, p, 0) / p[:70].sum()
    far = np.where(i > 300, p, 0) / (special.zeta(beta, 301) / special.zeta(beta))
    return p, {
        "narrowed": narrow,
        "mixed": 0.2 * p + 0.8 * cut,
        "mixed narrowed": 0.2 * p + 0.8 * narrow,
        "bought": 0.8 * cut + 0.2 * far,
    }[kind]


def error_of(kind, samples, beta):
    """Return the error of the module for the same training law."""
    return {
        "narrowed": lambda: memory.narrowed_error(samples, beta, beta + 0.4),
        "mixed": lambda: memory.mixed_error(samples, beta, 70, 0.2),
        "mixed narrowed": lambda: memory.mixed_narrowed_error(samples, beta, beta + 0.4, 0.2),
        "bought": lambda: memory.bought_error(samples, beta, 70, 300, 0.2),
    }[kind]()


kinds = pytest.mark.parametrize("kind", ["narrowed", "mixed", "mixed narrowed", "bought"])


@kinds
@given(beta=betas, samples=sizes)
@settings(max_examples=15, deadline=None)
def test_other_data_err_by_a_partial_sum_and_a_share_of_the_rest(kind, beta, samples):
    ranks = 100_000
    p, q = law_of(kind, beta, ranks)
    head = p @ np.exp(samples * np.log1p(-q))
    # Behind, q only falls: each token is missed with at least the probability of the last one.
    rest = special.zeta(beta, ranks + 1) / special.zeta(beta)
    least = rest * np.exp(samples * np.log1p(-q[-1]))
    error = error_of(kind, samples, beta)
    assert (head + least) * (1 - 1e-9) <= error <= (head + rest) * (1 + 1e-9)


@kinds
@pytest.mark.parametrize("beta", [1.2, 1.5, 2.0, 3.0])
def test_one_sample_of_other_data_misses_everything_but_what_it_holds(kind, beta):
    # sum of p q, over all ranks: a zeta function wherever both are powers.
    clean = special.zeta(2 * beta) / special.zeta(beta) ** 2
    narrow = special.zeta(2 * beta + 0.4) / special.zeta(beta) / special.zeta(beta + 0.4)
    p = np.arange(1, 71.0) ** -beta / special.zeta(beta)
    cut = p @ p / p.sum()
    far = special.zeta(2 * beta, 301) / special.zeta(beta) / special.zeta(beta, 301)
    repeated = {
        "narrowed": narrow,
        "mixed": 0.2 * clean + 0.8 * cut,
        "mixed narrowed": 0.2 * clean + 0.8 * narrow,
        "bought": 0.8 * cut + 0.2 * far,
    }[kind]
    np.testing.assert_allclose(error_of(kind, 1, beta), 1 - repeated, rtol=1e-9)


@kinds
@pytest.mark.parametrize("beta", [1.05, 1.5, 4.0])
def test_next_to_no_samples_miss_everything(kind, beta):
    # T sum_i p_i (-log(1 - q_i)) is below 3 T; the midpoint rule behind rank 20000 errs by a share
    # of beta (beta + 1) / (24 * 20000^2) of the mass there, at most 3e-10.
    np.testing.assert_allclose(error_of(kind, 1e-12, beta), 1, rtol=1e-9)


@kinds
@pytest.mark.parametrize("beta", [1.2, 1.5, 2.5])
def test_other_errors_do_not_depend_on_where_the_integral_takes_over(monkeypatch, kind, beta):
    samples = [1, 1e4, 1e9, 1e14]
    before = error_of(kind, samples, beta)
    assert before.shape == (4,) and (np.diff(before) < 0).all()
    monkeypatch.setattr(memory, "EXPLICIT_RANKS", 200_000)
    # The midpoint rule behind rank 20000 errs by 10 beta (beta + 1) / (24 * 20000^2) < 1e-8, and
    # the exponential for the power by less than q = 1e-5 times the share of the ranks around.
    np.testing.assert_allclose(error_of(kind, samples, beta), before, rtol=1e-8)


@kinds
def test_other_errors_are_the_mean_over_simulated_training_sets(kind):
    beta, samples, trials, rng = 1.5, 300, 2_000, np.random.default_rng(7)
    p, q = law_of(kind, beta, 100_000)
    # All ranks behind are drawn as one token more, which is never known.
    law, known = np.append(q, max(1 - q.sum(), 0)), np.append(p, 0)
    draws = rng.choice(len(law), (trials, samples), p=law / law.sum())
    errors = [1 - known[np.unique(tokens)].sum() for tokens in draws]
    # Behind, a token is known with a probability of at most T q, and their mass is below 0.003.
    neglected = samples * q[-1] * 0.003
    assert neglected < 1e-7
    difference = abs(np.mean(errors) - error_of(kind, samples, beta))
    assert difference < 4 * np.std(errors) / np.sqrt(trials) + neglected


# Narrowed data


@given(betas, sizes)
@settings(max_examples=20, deadline=None)
def test_data_narrowed_by_nothing_is_clean(beta, samples):
    np.testing.assert_allclose(
        memory.narrowed_error(samples, beta, beta), memory.clean_error(samples, beta), rtol=1e-10
    )
    np.testing.assert_allclose(
        memory.narrowed_law(samples, beta, beta), memory.clean_law(samples, beta), rtol=1e-10
    )
    np.testing.assert_allclose(
        memory.narrowed_exponent(beta, beta), memory.scaling_exponent(beta), rtol=1e-12
    )


@pytest.mark.parametrize("beta", [1.2, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("training_beta", [1.3, 1.8, 3.0])
def test_narrowed_error_tends_to_the_narrowed_law(beta, training_beta):
    # (1 - q)^T is not e^-Tq: what matters is T q = 1, and there they differ by a share of 1/T,
    # with a constant of the order of s (s + 1) / 2, s being the exponent.
    samples = np.array([1e6, 1e9, 1e12])
    s = memory.narrowed_exponent(beta, training_beta)
    assert s == pytest.approx((beta - 1) / training_beta, rel=1e-12)
    law = memory.narrowed_law(samples, beta, training_beta)
    np.testing.assert_allclose(law[1:] / law[:-1], 1e3**-s, rtol=1e-9)
    away = np.abs(memory.narrowed_error(samples, beta, training_beta) / law - 1)
    assert (away < max(1, s * (s + 1)) / samples + 1e-9).all()


@pytest.mark.parametrize(
    ("beta", "narrower", "wider"), [(1.3, 1.6, 1.15), (1.5, 2.0, 1.3), (2.0, 3.0, 1.6)]
)
def test_narrowing_helps_with_one_sample_and_harms_with_many(beta, narrower, wider):
    one, many = (
        [memory.narrowed_error(samples, beta, b) for b in (wider, beta, narrower)]
        for samples in (1, 1e14)
    )
    assert one == sorted(one, reverse=True) and len(set(one)) == 3
    assert many == sorted(many) and len(set(many)) == 3


# Mixtures


@given(betas, st.integers(1, 30_000), sizes)
@settings(max_examples=20, deadline=None)
def test_a_mixture_of_one_part_is_that_part(beta, cut, samples):
    for share, alone in (
        (1, memory.clean_error(samples, beta)),
        (0, memory.cut_error(samples, beta, cut)),
    ):
        np.testing.assert_allclose(
            memory.mixed_error(samples, beta, cut, share), alone, rtol=1e-8, err_msg=str(share)
        )


@given(betas, betas, sizes, shares)
@settings(max_examples=8, deadline=None)
def test_a_mixture_with_narrowed_data_of_one_part_is_that_part(beta, other, samples, share):
    for training_beta, real, alone in (
        (other, 1, memory.clean_error(samples, beta)),
        (other, 0, memory.narrowed_error(samples, beta, other)),
        (beta, share, memory.clean_error(samples, beta)),
    ):
        np.testing.assert_allclose(
            memory.mixed_narrowed_error(samples, beta, training_beta, real), alone, rtol=1e-8
        )


@given(betas, st.integers(1, 3_000), st.floats(1, 1e9), shares)
@settings(max_examples=20, deadline=None)
def test_real_data_take_the_floor_away(beta, cut, samples, share):
    mixed = memory.mixed_error(samples, beta, cut, share)
    p = memory.zipf_probabilities(beta, 50_000)
    missed = p * np.exp(samples * np.log1p(-share * p))
    # Real data alone, that share of the draws, would miss more of the head and as much behind it.
    assert mixed <= (missed.sum() + memory.tail_mass(beta, 50_000)) * (1 + 1e-9)
    assert mixed >= missed[cut:].sum() * (1 - 1e-9)


@pytest.mark.parametrize("beta", [1.2, 1.5, 2.5])
def test_behind_the_head_only_the_amount_of_real_data_counts(beta):
    # With 10^7 real samples, and as many others or more, the first 20 tokens are known for certain,
    # and (1 - pi p)^T depends on pi T alone up to a share of its inverse.
    real = 1e7
    curves = [memory.mixed_error(real / share, beta, 20, share) for share in (0.5, 0.1, 1e-3)]
    np.testing.assert_allclose(curves, memory.clean_error(real, beta), rtol=1 / real)


@pytest.mark.parametrize(("beta", "training_beta"), [(1.5, 2.0), (1.3, 2.5), (2.0, 2.6)])
@pytest.mark.parametrize("share", [0.003, 0.1, 0.5])
def test_at_the_crossover_both_parts_show_a_token_equally_often(beta, training_beta, share):
    rank, samples = memory.mixed_narrowed_crossover(beta, training_beta, share)
    real = samples * share * rank**-beta / special.zeta(beta)
    narrowed = samples * (1 - share) * rank**-training_beta / special.zeta(training_beta)
    np.testing.assert_allclose([real, narrowed], 1, rtol=1e-9)


@pytest.mark.parametrize(("beta", "training_beta"), [(1.5, 2.0), (1.3, 2.5), (2.0, 2.9)])
def test_curves_of_all_shares_collapse_at_the_crossover(beta, training_beta):
    relative = np.array([0.03, 0.3, 1, 3, 30])

    def scaled(share):
        rank, samples = memory.mixed_narrowed_crossover(beta, training_beta, share)
        errors = memory.mixed_narrowed_error(relative * samples, beta, training_beta, share)
        return errors / (memory.zipf_constant(beta) * rank ** (1 - beta)), samples

    limit, _ = scaled(1e-3)
    for share in (0.1, 0.03, 0.01):
        curve, samples = scaled(share)
        # (1 - q)^T differs from e^-Tq by a share of 1/T.
        np.testing.assert_array_less(np.abs(curve / limit - 1), 1 / (relative * samples) + 1e-9)
    # The curve bends from one power to the other, so that the collapse is not one of a power.
    slopes = -np.diff(np.log(limit)) / np.diff(np.log(relative))
    narrowed = memory.narrowed_exponent(beta, training_beta)
    assert narrowed < slopes[0] < slopes[-1] < memory.scaling_exponent(beta)


# Bought data


@given(betas, st.integers(1, 500), st.integers(0, 500), shares)
@settings(max_examples=20, deadline=None)
def test_what_is_neither_kept_nor_bought_is_never_known(beta, cut, gap, share):
    start = cut + gap
    floor = memory.tail_mass(beta, cut) - memory.tail_mass(beta, start)
    error = memory.bought_error(2.0**53, beta, cut, start, share)
    # Behind `start` the bought part is the Zipf law, denser by share / (mass there); with so much
    # data the head is known and the clean law holds.
    density = share / memory.tail_mass(beta, start)
    rest = memory.clean_constant(beta) * (density * 2.0**53) ** -memory.scaling_exponent(beta)
    np.testing.assert_allclose(error, floor + rest, rtol=1e-8)
    if gap == 0:
        assert floor == 0 and error < 1.01 * rest


@given(betas, st.integers(1, 3_000), st.integers(0, 3_000), shares, st.floats(1, 1e12))
@settings(max_examples=20, deadline=None)
def test_bought_data_are_worth_more_than_their_floor_and_less_than_everything(
    beta, cut, gap, share, samples
):
    start = cut + gap
    error = memory.bought_error(samples, beta, cut, start, share)
    floor = memory.tail_mass(beta, cut) - memory.tail_mass(beta, start)
    assert floor * (1 - 1e-12) <= error <= 1
    # What is kept is drawn with the share that is left; what is bought is missed in part.
    p = memory.zipf_probabilities(beta, cut)
    head = p @ np.exp(samples * np.log1p(-(1 - share) * p / p.sum()))
    assert head + floor <= error * (1 + 1e-9)
    assert error <= (head + memory.tail_mass(beta, cut)) * (1 + 1e-9)


def test_data_may_be_bought_from_the_last_accepted_rank_on():
    error = memory.bought_error(1e3, 1.5, 10, 10**8, 0.5)
    assert memory.tail_mass(1.5, 10) - memory.tail_mass(1.5, 10**8) < error < 1


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
        (lambda: memory.narrowed_error(0, 1.5, 2), "samples is 0"),
        (lambda: memory.narrowed_error(10, 1.0, 2), "beta is 1.0"),
        (lambda: memory.narrowed_error(10, 1.5, 1), "training_beta is 1;"),
        (lambda: memory.narrowed_exponent(1.5, float("inf")), "training_beta is inf"),
        (lambda: memory.narrowed_law(-1, 1.5, 2), "samples is -1"),
        (lambda: memory.narrowed_law(10, 1.5, 0.5), "training_beta is 0.5"),
        (lambda: memory.mixed_error(10, 1.5, 5, 1.1), "the share is 1.1; accepted is a number"),
        (lambda: memory.mixed_error(10, 1.5, 5, -0.1), "the share is -0.1"),
        (lambda: memory.mixed_error(10, 1.5, 5, float("nan")), "the share is nan"),
        (lambda: memory.mixed_error(10, 1.5, 5, [0.5]), r"the share is \[0.5\]"),
        (lambda: memory.mixed_error(10, 1.5, 0, 0.5), "cut is 0"),
        (lambda: memory.mixed_error(0, 1.5, 5, 0.5), "samples is 0"),
        (lambda: memory.mixed_error(10, 1, 5, 0.5), "beta is 1;"),
        (lambda: memory.mixed_narrowed_error(10, 1.5, 2, 2), "the share is 2"),
        (lambda: memory.mixed_narrowed_error(10, 1.5, 0, 0.5), "training_beta is 0"),
        (lambda: memory.mixed_narrowed_error(10, 0, 2, 0.5), "beta is 0"),
        (lambda: memory.mixed_narrowed_error([5, 0], 1.5, 2, 0.5), r"samples is \[5, 0\]"),
        (lambda: memory.mixed_narrowed_crossover(1.5, 1.5, 0.5), "training_beta is 1.5 with beta"),
        (lambda: memory.mixed_narrowed_crossover(1.5, 1.2, 0.5), "training_beta is 1.2 with beta"),
        (lambda: memory.mixed_narrowed_crossover(1.5, 2, 0), "real_share=0"),
        (lambda: memory.mixed_narrowed_crossover(1.5, 2, 1), "real_share=1"),
        (lambda: memory.mixed_narrowed_crossover(1.5, 2, 3), "the share is 3"),
        (lambda: memory.mixed_narrowed_crossover(1.5, 1, 0.5), "training_beta is 1;"),
        (lambda: memory.bought_error(10, 1.5, 0, 5, 0.5), "cut is 0"),
        (lambda: memory.bought_error(10, 1.5, 5, 2.5, 0.5), "bought_from is 2.5"),
        (lambda: memory.bought_error(10, 1.5, 5, 4, 0.5), "bought_from is 4 with cut=5"),
        (lambda: memory.bought_error(10, 1.5, 5, 5, 0), "bought_share=0"),
        (lambda: memory.bought_error(10, 1.5, 5, 5, 1), "bought_share=1"),
        (lambda: memory.bought_error(10, 1.5, 5, 5, 1.5), "the share is 1.5"),
        (lambda: memory.bought_error(0, 1.5, 5, 5, 0.5), "samples is 0"),
        (lambda: memory.bought_error(10, 1, 5, 5, 0.5), "beta is 1;"),
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
