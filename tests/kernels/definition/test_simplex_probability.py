"""Probabilities on the simplex: the exact Beta law, closed forms, plain draws, weights, bits."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import stats

from kempe_nb import dispatch
from kempe_nb.dispatch import ImplementationUnavailable
from kempe_nb.kernels import elementary, philox
from kempe_nb.kernels.normal_gamma import GammaShape, gamma_pair
from kempe_nb.kernels.simplex_laws import PURPOSE, DirichletLaw, LogisticNormalLaw
from kempe_nb.kernels.simplex_probability import minimum_bytes, simplex_probability

#: Each estimate below is the mean over these seeds; fixed seeds make the tests exact.
SEEDS = range(8)
DRAWS = 20_000
#: A_h, A_s and thresholds: uniform, both below 1, one below 1, concentrated, far apart.
LAWS = {
    "uniform": (DirichletLaw(3, 13), (0.05, 0.2, 0.5)),
    "small": (DirichletLaw(0.02, 0.05), (1e-6, 0.3, 0.999)),
    "one small": (DirichletLaw(0.4, 7), (0.001, 0.05, 0.3)),
    "other small": (DirichletLaw(7, 0.4), (0.7, 0.95, 0.9999)),
    "concentrated": (DirichletLaw(4_000, 12_384), (0.24, 0.244, 0.25)),
    "far apart": (DirichletLaw(0.5, 1e6), (1e-8, 1e-6, 3e-6)),
}
each_law = pytest.mark.parametrize("name", LAWS)


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def estimate(law, thresholds, draws=DRAWS, seed=0, **how):
    how = {"impl": "definition"} | how
    return simplex_probability(law, vector(*thresholds), draws, seed, **how)


def pooled(law, thresholds, draws=DRAWS, **how):
    """Return the mean probability, complement and standard error over all seeds."""
    found = [estimate(law, thresholds, draws, seed, **how) for seed in SEEDS]
    probability, complement, error = (
        torch.stack(each).numpy() for each in zip(*found, strict=True)
    )
    return probability.mean(0), complement.mean(0), np.sqrt((error**2).sum(0)) / len(SEEDS)


def exact(law, thresholds):
    return stats.beta.sf(thresholds, law.harmful, law.safe)


def same_bits(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# Dirichlet laws


@each_law
def test_a_dirichlet_law_has_the_probability_of_a_beta_law(name):
    law, thresholds = LAWS[name]
    found, complement, error = pooled(law, thresholds)
    expected = exact(law, thresholds)
    true_error = np.sqrt(expected * (1 - expected) / (DRAWS * len(SEEDS)))
    assert (np.abs(found - expected) < 3 * true_error).all()
    np.testing.assert_allclose(error, true_error, rtol=0.05)
    np.testing.assert_allclose(complement, 1 - found, rtol=1e-12)
    # A law with a tenth more on the harmful side is noticed, and one with the sides exchanged.
    for wrong in (DirichletLaw(1.1 * law.harmful, law.safe), DirichletLaw(law.safe, law.harmful)):
        assert (np.abs(found - exact(wrong, thresholds)) > 3 * true_error).any()


def test_the_mass_of_a_whole_dirichlet_point_has_the_same_probability():
    """Aggregation, beside NumPy's draws of all explanations."""
    alphas = np.array([0.3, 2.0, 0.7, 1.5, 0.2, 4.0])
    points = np.random.default_rng(0).dirichlet(alphas, 100_000)
    law = DirichletLaw(alphas[:3], alphas[3:])
    for t in (0.1, 0.4, 0.7):
        found, _, error = pooled(law, (t,))
        share = (points[:, :3].sum(1) >= t).mean()
        assert abs(found[0] - share) < 3 * math.hypot(error[0], math.sqrt(share / len(points)))


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=6),
    st.lists(st.integers(1, 50), min_size=1, max_size=6),
    st.randoms(),
)
@settings(max_examples=25)
def test_how_a_side_is_split_changes_no_bit(harmful, safe, random):
    """In sixteenths, of which sums are exact."""
    whole = DirichletLaw(sum(harmful) / 16, sum(safe) / 16)
    random.shuffle(harmful)
    split = DirichletLaw(np.array(harmful) / 16, torch.tensor(safe) / 16)
    assert split == whole
    assert same_bits(estimate(split, (0.2, 0.6), 50), estimate(whole, (0.2, 0.6), 50))


def test_the_standard_error_is_the_spread_over_seeds():
    for law, t, tilt in ((LAWS["uniform"][0], 0.2, 0.0), (DirichletLaw(5, 95), 0.2, 1.8)):
        found = [estimate(law, (t,), 2_000, seed, tilt=tilt) for seed in range(100)]
        spread = np.std([each.probability.item() for each in found], ddof=1)
        mean = np.mean([each.standard_error.item() for each in found])
        # The spread of 100 values is known up to about 7 %.
        assert spread == pytest.approx(mean, rel=0.2)


# Rare events


RARE = {
    "1e-8": (DirichletLaw(5, 95), 0.25),
    "1e-8, small parameters": (DirichletLaw(0.3, 20), 0.57),
    "1e-18": (DirichletLaw(30, 970), 0.1),
    "1e-148": (DirichletLaw(200, 800), 0.6),
}


@pytest.mark.parametrize("name", RARE)
def test_a_tilt_finds_what_is_rare(name):
    law, t = RARE[name]
    found, complement, error = pooled(law, (t,), tilt=law.centring_tilt(t))
    expected = exact(law, t)
    assert expected < 3e-8
    assert abs(found[0] - expected) < 3 * error[0]
    assert error[0] < 0.02 * expected and complement[0] == pytest.approx(1.0)
    # Without a tilt it never happens.
    assert estimate(law, (t,)).probability.item() == 0


@pytest.mark.parametrize("name", RARE)
def test_a_tilt_to_the_safe_side_finds_the_rare_complement(name):
    law, t = RARE[name]
    other = DirichletLaw(law.safe, law.harmful)
    found, complement, error = pooled(other, (1 - t,), tilt=other.centring_tilt(1 - t))
    expected = stats.beta.cdf(1 - t, other.harmful, other.safe)
    assert abs(complement[0] - expected) < 3 * error[0]
    assert error[0] < 0.02 * expected and found[0] == pytest.approx(1.0)


@pytest.mark.parametrize("tilt", [-2.0, -0.3, 0.1, 0.7, 2.5])
@each_law
def test_every_tilt_has_the_same_expectation(name, tilt):
    """A weight with e^h for e^-h, or with A_h for A_h + A_s, is off by far more."""
    law, thresholds = LAWS[name]
    if law.harmful * abs(tilt) > 100 or law.safe * abs(tilt) > 1e5:
        tilt *= 0.01
    found, _, error = pooled(law, thresholds, tilt=tilt)
    expected = exact(law, thresholds)
    seen = error > 0
    assert (np.abs(found - expected)[seen] < 3.5 * error[seen]).all()


def test_the_weight_is_the_ratio_of_the_two_densities_of_s():
    """Of the tilted mass by its own formula: odds are multiplied by e^h."""
    a, b, h = 2.3, 4.1, 0.9
    s = np.linspace(0.01, 0.99, 99)
    odds = s / (1 - s) * math.exp(-h)
    before = odds / (1 + odds)
    tilted = stats.beta.pdf(before, a, b) * before * (1 - before) / (s * (1 - s))
    weight = math.exp(a * h) * (1 - s + s * math.exp(-h)) ** (a + b)
    np.testing.assert_allclose(weight * tilted, stats.beta.pdf(s, a, b), rtol=1e-12)


def test_the_centring_tilt_moves_the_mean_to_the_threshold():
    law = DirichletLaw(4_000, 12_384)
    h = law.centring_tilt(0.6)
    assert law.harmful * math.exp(h) / (law.harmful * math.exp(h) + law.safe) == pytest.approx(0.6)
    assert law.centring_tilt(law.harmful / (law.harmful + law.safe)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("tilt", [-500.0, 500.0])
def test_the_largest_tilts_give_finite_numbers(tilt):
    for law in (DirichletLaw(2.0**-31, 2.0**31), DirichletLaw(2.0**31, 2.0**-31)):
        for each in estimate(law, (1e-300, 0.5, 1 - 2.0**-53), 1000, tilt=tilt):
            assert torch.isfinite(each).all()


# Logistic-normal laws


@pytest.mark.parametrize("scales", [(1.0, 0.5), (3.0, 0.0), (40.0, 90.0)])
def test_a_logistic_normal_law_of_two_is_a_normal_law_of_a_difference(scales):
    law = LogisticNormalLaw([0.3, -0.2], scales, [True, False])
    thresholds = (0.01, 0.4, 0.9)
    found, _, error = pooled(law, thresholds)
    expected = stats.norm.sf((stats.logistic.ppf(thresholds) - 0.5) / math.hypot(*scales))
    assert (np.abs(found - expected) < 3 * error).all()
    wrong = stats.norm.sf((stats.logistic.ppf(thresholds) - 0.5) / (1.1 * math.hypot(*scales)))
    assert (np.abs(found - wrong) > 3 * error).any() or scales[0] > 30


@pytest.mark.parametrize("n", [3, 8, 33])
def test_a_logistic_normal_law_has_the_probability_of_plain_draws(n):
    rng = np.random.default_rng(n)
    means, scales = rng.normal(size=n), rng.uniform(0.2, 2.0, n)
    harmful = rng.permutation(n) < (n + 2) // 3
    logits = means + scales * rng.normal(size=(400_000, n))
    odds = np.exp(logits - logits.max(1, keepdims=True))
    mass = odds[:, harmful].sum(1) / odds.sum(1)
    thresholds = np.quantile(mass, [0.05, 0.5, 0.97])
    found, _, error = pooled(LogisticNormalLaw(means, scales, harmful), thresholds, 4_000)
    expected = (mass[:, None] >= thresholds).mean(0)
    own_error = np.sqrt(expected * (1 - expected) / len(mass))
    assert (np.abs(found - expected) < 3 * np.hypot(error, own_error)).all()


def test_without_spread_the_mass_is_that_of_the_softmax():
    means = np.array([2.0**31, 2.0**31 - 1, -(2.0**31), 2.0**31 - 1])
    law = LogisticNormalLaw(means, 0.0, [False, True, True, False])
    odds = np.exp([0.0, -1.0, -np.inf, -1.0])
    mass = odds[1] / odds.sum()
    found = estimate(law, (mass - 1e-9, mass + 1e-9), 10)
    assert found.probability.tolist() == [1, 0] and found.standard_error.tolist() == [0, 0]


def test_a_number_stands_for_equal_ones():
    harmful = torch.arange(5) < 2
    one = LogisticNormalLaw(0.5, 1, harmful)
    other = LogisticNormalLaw([0.5] * 5, torch.ones(5), harmful.numpy())
    assert same_bits(estimate(one, (0.2, 0.5), 300), estimate(other, (0.2, 0.5), 300))


def test_a_law_keeps_its_own_numbers():
    means, harmful = np.zeros(3), np.array([True, False, False])
    law = LogisticNormalLaw(means, 1.0, harmful)
    before = estimate(law, (0.4,), 200)
    means[:], harmful[:] = 9.0, True
    assert same_bits(estimate(law, (0.4,), 200), before)


# Bits, sizes, memory

MIXED = {
    "dirichlet": (DirichletLaw(0.4, 3), 0.0),
    "tilted": (DirichletLaw(0.4, 3), 0.8),
    "tilted down": (DirichletLaw(3, 2), -0.8),
    "logistic normal": (LogisticNormalLaw(0.0, 1.5, [True, True, False, False, False]), 0.0),
}
each_kind = pytest.mark.parametrize("kind", MIXED)


@each_kind
@given(
    st.lists(st.floats(-0.5, 1.5) | st.sampled_from([0.0, 1.0, 0.3]), max_size=8),
    st.integers(1, 60),
    st.integers(0, 2**64 - 1),
)
@settings(max_examples=20)
def test_a_threshold_has_the_same_bits_in_any_company(kind, thresholds, draws, seed):
    law, tilt = MIXED[kind]
    whole = estimate(law, thresholds, draws, seed, tilt=tilt)
    assert all(each.shape == (len(thresholds),) for each in whole)
    assert all(each.dtype == torch.float64 for each in whole)
    alone = [estimate(law, (t,), draws, seed, tilt=tilt) for t in thresholds]
    for column, each in enumerate(zip(*alone, strict=True) if alone else ()):
        assert torch.equal(torch.cat(each), whole[column])
    order = np.argsort(thresholds, kind="stable")
    assert (np.diff(whole.probability.numpy()[order]) <= 0).all() or tilt
    total = whole.probability + whole.complement
    assert torch.allclose(total, torch.ones_like(total), rtol=1e-12)


@each_kind
def test_nothing_is_drawn_for_what_is_certain(kind):
    law, tilt = MIXED[kind]
    found = estimate(law, (-1.0, 0.0, 1.0, 7.0), 2**40, tilt=tilt)
    assert found.probability.tolist() == [1, 1, 0, 0]
    assert found.complement.tolist() == [0, 0, 1, 1]
    assert found.standard_error.tolist() == [0] * 4


@pytest.mark.parametrize("tilt", [0.0, -0.8])
def test_a_draw_at_the_threshold_reaches_it(tilt):
    law, key, index = DirichletLaw(3, 2), philox.split_words(9), np.zeros(1, dtype=np.uint64)
    shapes = GammaShape(law.harmful), GammaShape(law.safe)
    (own, safe), _ = gamma_pair(*shapes, key, index, np.uint64(0), PURPOSE)
    own = own * elementary.exp_minus(np.array([-tilt]))
    mass = (own / (own + safe)).item()
    for t, reached in ((mass, True), (np.nextafter(mass, 1), False)):
        found = estimate(law, (t,), 1, seed=9, tilt=tilt)
        assert (found.complement.item() == 0) == reached
    equal = LogisticNormalLaw(0.0, 0.0, [True, False])
    assert estimate(equal, (0.5, np.nextafter(0.5, 1)), 1).probability.tolist() == [1, 0]


@each_kind
@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_the_size_of_a_chunk_changes_nothing(kind, chunk, monkeypatch):
    law, tilt = MIXED[kind]
    whole = estimate(law, (0.1, 0.5), 150, tilt=tilt)
    monkeypatch.setattr(philox, "CHUNK", chunk)
    assert same_bits(estimate(law, (0.1, 0.5), 150, tilt=tilt), whole)


@pytest.mark.parametrize("kind", ["dirichlet", "logistic normal"])
@pytest.mark.parametrize("start", [0, 2**32 - 20, 2**64 - 60])
def test_the_counts_of_parts_are_the_counts_of_the_whole(kind, start):
    law, _ = MIXED[kind]

    def count(begin, stop):
        found = estimate(law, (0.1, 0.3), stop - begin, 5, offset=start + begin, stream=4)
        return (found.probability * (stop - begin)).round()

    parts = [count(*each) for each in itertools.pairwise((0, 1, 7, 40, 60))]
    assert torch.equal(sum(parts), count(0, 60))


def test_streams_and_seeds_are_independent():
    law, t = LAWS["uniform"][0], LAWS["uniform"][1][1:2]
    found = [
        estimate(law, t, 500, seed, stream=stream).probability.item()
        for seed, stream in itertools.product(range(20), range(20))
    ]
    p = exact(law, t)[0]
    expected = math.sqrt(p * (1 - p) / 500)
    # The spread of 400 values is known up to about 4 %.
    assert np.std(found) == pytest.approx(expected, rel=0.12)


def test_thresholds_of_float32_strided_and_empty():
    law = MIXED["tilted"][0]
    t = torch.tensor([0.25, 0.9, 0.5, 0.9], dtype=torch.float32)
    assert same_bits(
        simplex_probability(law, t[::2], 100, 0),
        simplex_probability(law, vector(0.25, 0.5), 100, 0),
    )
    for each in simplex_probability(law, torch.empty(0), 100, 0):
        assert each.shape == (0,) and each.dtype == torch.float64


@each_kind
def test_memory_depends_neither_on_draws_nor_on_explanations(kind):
    def peak(draws, n):
        law, tilt = MIXED[kind]
        if isinstance(law, LogisticNormalLaw):
            law = LogisticNormalLaw(0.0, 1.0, np.arange(n) < 2)
        tracemalloc.start()
        estimate(law, (0.1, 0.5), draws, tilt=tilt)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(10, 4)
    one = peak(philox.CHUNK, 4)
    # 60 numbers for each draw in flight; four chunks or 40 explanations would have more.
    assert one < 60 * 8 * philox.CHUNK
    assert peak(4 * philox.CHUNK, 4) < 1.2 * one
    assert peak(philox.CHUNK, 40) < 1.2 * one


def test_minimum_bytes():
    assert minimum_bytes(thresholds=3) == 96
    assert minimum_bytes(thresholds=3, explanations=10) == 96 + 170


# Bad input


@pytest.mark.parametrize("side", ["harmful", "safe"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "holds 0.0; accepted are positive finite numbers"),
        ([1, -2.0], "holds -2.0; accepted are positive finite numbers"),
        ([1, math.nan], "holds nan; accepted are positive finite numbers"),
        (math.inf, "holds inf; accepted are positive finite numbers"),
        ([], "has shape (0,); accepted is a number or a vector"),
        ([[1.0]], "has shape (1, 1); accepted is a number or a vector"),
        ("a", "is made of <U1; accepted are real numbers"),
        (True, "is made of bool; accepted are real numbers"),
        (None, "is made of object; accepted are real numbers"),
        (1e-10, "sums to 1e-10; accepted is a sum from 2**-31 to 2**31"),
        ([2e9, 2e9], "sums to 4e+09; accepted is a sum from 2**-31 to 2**31"),
    ],
    ids=str,
)
def test_bad_parameters_are_refused_by_name(side, value, message):
    with pytest.raises(ValueError) as error:
        DirichletLaw(**{"harmful": 1, "safe": 1, side: value})
    assert str(error.value) == f"{side} {message}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"harmful": [True] * 3}, "harmful marks 3 of 3 explanations; accepted are at least one"),
        ({"harmful": [False] * 3}, "harmful marks 0 of 3 explanations; accepted are at least one"),
        ({"harmful": [[True, False, False]]}, "harmful has shape (1, 3); accepted is [n], n up to"),
        ({"mean": [0.0, 1.0]}, "mean has shape (2,); accepted is [3], as harmful has"),
        ({"mean": [0.0, math.nan, 1.0]}, "mean holds nan; accepted are numbers from -2**31 to"),
        ({"mean": 1e10}, "mean holds 10000000000.0; accepted are numbers from -2**31 to 2**31"),
        ({"scale": [1.0, -0.5, 1.0]}, "scale holds -0.5; accepted are numbers from 0 to 2**31"),
        ({"scale": math.inf}, "scale holds inf; accepted are numbers from 0 to 2**31"),
        ({"scale": np.ones((3, 1))}, "scale has shape (3, 1); accepted is a number or a vector"),
    ],
    ids=str,
)
def test_a_bad_logistic_normal_law_is_refused_by_name(change, message):
    with pytest.raises(ValueError) as error:
        LogisticNormalLaw(**{"mean": 0.0, "scale": 1.0, "harmful": [True, False, False], **change})
    assert str(error.value).startswith(message)


def test_marks_of_another_dtype_are_refused():
    with pytest.raises(TypeError) as error:
        LogisticNormalLaw(0.0, 1.0, [1, 0, 0])
    assert str(error.value) == "harmful is int64; accepted is bool"


def call(**how):
    return simplex_probability(
        **{"law": DirichletLaw(1, 1), "thresholds": vector(0.5), "draws": 3, "seed": 0, **how}
    )


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "a", None, 2**40 + 1], ids=repr)
def test_a_bad_number_of_draws_is_refused(value):
    with pytest.raises(ValueError) as error:
        call(draws=value)
    assert str(error.value) == f"draws is {value!r}; accepted is an integer from 1 to 2**40"


@pytest.mark.parametrize(("name", "bits"), [("seed", 64), ("offset", 64), ("stream", 32)])
@pytest.mark.parametrize("value", [-1, 2**64, 1.5, True, "a", None], ids=repr)
def test_a_number_out_of_range_is_refused_by_name(name, bits, value):
    with pytest.raises(ValueError) as error:
        call(**{name: value})
    expected = f"{name} is {value!r}; accepted is an integer from 0 to 2**{bits} - 1"
    assert str(error.value) == expected


def test_a_stream_is_read_to_its_end_and_not_further():
    call(offset=2**64 - 3)
    with pytest.raises(ValueError, match=r"offset is \d+, and 3 from there end at \d+; a stream"):
        call(offset=2**64 - 2)


@pytest.mark.parametrize("value", [500.1, -501, math.nan, math.inf, "a", None, True], ids=repr)
def test_a_bad_tilt_is_refused(value):
    with pytest.raises(ValueError) as error:
        call(tilt=value)
    assert str(error.value) == f"tilt is {value!r}; accepted is a number from -500 to 500"


def test_a_logistic_normal_law_has_no_tilt():
    with pytest.raises(ValueError) as error:
        call(law=MIXED["logistic normal"][0], tilt=1)
    assert str(error.value) == "tilt is 1.0; accepted is 0 for a LogisticNormalLaw"


def test_bad_thresholds_are_refused():
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match=r"^thresholds holds 1 elements that are NaN or inf"):
            call(thresholds=vector(0.5, value))
    for shape in ((), (1, 2)):
        with pytest.raises(ValueError) as error:
            call(thresholds=torch.full(shape, 0.5))
        assert str(error.value) == f"thresholds has shape {shape}; accepted is [K]"
    with pytest.raises(
        TypeError, match=r"^thresholds is torch.int64; accepted are float32, float6"
    ):
        call(thresholds=torch.tensor([1]))
    with pytest.raises(TypeError, match=r"^thresholds is a list; accepted is a torch.Tensor$"):
        call(thresholds=[0.5])


@pytest.mark.parametrize("t", [0, 1, -0.5, math.nan, "a", None], ids=repr)
def test_a_tilt_is_centred_at_nothing_but_a_threshold(t):
    with pytest.raises(ValueError) as error:
        DirichletLaw(1, 1).centring_tilt(t)
    assert str(error.value) == f"threshold is {t!r}; accepted is a number between 0 and 1"


def test_a_law_and_an_implementation_that_are_none_are_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    for law, kind in ((1.5, "float"), (None, "NoneType")):
        with pytest.raises(
            TypeError, match=rf"^law is a {kind}; accepted are a DirichletLaw and a"
        ):
            call(law=law)
    with pytest.raises(ValueError, match=r"impl is 'nothing'; accepted are definition, numba, tri"):
        call(impl="nothing")
    with pytest.raises(ImplementationUnavailable, match=r"the tensors are on cpu"):
        call(impl="triton")


def test_which_says_what_would_run(capsys):
    dispatch.which(simplex_probability, DirichletLaw(1, 1), vector(0.5), 2**40, 0)
    said = capsys.readouterr().out
    assert said.startswith("simplex_probability: ")
    with dispatch.use("definition"):
        dispatch.which(simplex_probability, DirichletLaw(1, 1), vector(0.5), 2**40, 0)
    assert capsys.readouterr().out == "simplex_probability: definition (asked for by use())\n"


def test_its_draws_are_those_of_no_other_purpose():
    assert PURPOSE not in set(philox.Purpose) and PURPOSE < 256
