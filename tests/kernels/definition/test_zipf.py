"""Zipf ranks: sums against 60 digits, the law far into its tail, settings, and why no table."""

import itertools
import math
import tracemalloc
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats

from kempe_nb.dispatch import ImplementationUnavailable
from kempe_nb.kernels import philox, zipf
from kempe_nb.kernels.zipf import ZipfLaw, power_sum, zipf_counts, zipf_law, zipf_samples
from kempe_nb.methods import infinite_memory

SEEDS = range(10)
#: Fixed seeds make these tests exact; the bounds are what chance exceeds once in 10,000 times.
RARE = 1e-4
#: The largest rounding: of ln(2**62) = 43, half a unit is 3.6e-15, and it enters twice.
SUM_ERROR = 1e-14


def exact_sum(exponent, first, last):
    """Return the sum as a difference of Hurwitz zeta functions, or of digamma at exponent 1."""
    # mpmath rounds to an absolute error, and the sums of large exponents are tiny.
    with mpmath.workdps(60 + int(20 * exponent)):
        if exponent == 1:
            return mpmath.digamma(last + 1) - mpmath.digamma(first)
        s = mpmath.mpf(exponent)
        return mpmath.zeta(s, first) - mpmath.zeta(s, last + 1)


# The law

RANGES = [
    (1, 1),
    (1, 100),
    (3, 4095),
    (4095, 4096),
    (4096, 4096),
    (1, 4097),
    (4096, 8191),
    (5000, 10**6),
    (1, 10**9),
    (2**30, 2**31 - 1),
    (10**9 - 1, 10**9),
    (1, 2**62),
    (2**61, 2**62),
]


@pytest.mark.parametrize("exponent", [0.0, 1e-9, 0.5, 1 - 1e-9, 1.0, 1 + 1e-9, 1.1, 1.5, 3.0, 10.0])
@pytest.mark.parametrize(("first", "last"), RANGES)
def test_sums_of_powers(exponent, first, last):
    expected = float(exact_sum(exponent, first, last))
    assert power_sum(exponent, first, last) == pytest.approx(expected, rel=SUM_ERROR, abs=0)


@pytest.mark.parametrize(("first", "last"), [(1, 5), (2, 4097), (4096, 4999), (4090, 10**6)])
def test_sums_of_the_largest_exponent(first, last):
    expected = float(exact_sum(64.0, first, last))
    assert power_sum(64.0, first, last) == pytest.approx(expected, rel=SUM_ERROR, abs=0)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.5, 64.0])
@pytest.mark.parametrize("vocabulary", [1, 2, 3, 4, 1000, 5001])
def test_probabilities_and_masses_sum_to_one(exponent, vocabulary):
    law = zipf_law(exponent, vocabulary)
    ranks = np.arange(vocabulary + 2)
    p = law.probabilities(ranks)
    assert p[0] == p[-1] == 0
    assert math.fsum(p) == pytest.approx(1, rel=SUM_ERROR)
    assert law.mass(1, vocabulary) == pytest.approx(1, rel=SUM_ERROR)
    assert law.mass(-5, vocabulary + 5) == law.mass(1, vocabulary)
    assert law.mass(3, 2) == law.mass(vocabulary + 1, vocabulary + 9) == 0
    for rank in (1, vocabulary // 2 or 1, vocabulary):
        assert law.mass(rank, rank) == pytest.approx(p[rank], rel=SUM_ERROR, abs=0)


@pytest.mark.parametrize(
    ("exponent", "vocabulary"), [(1.5, 10), (1.5, 10**6), (3.0, 10**9), (0.5, 1000), (1.0, 1000)]
)
def test_probabilities_are_those_of_scipy(exponent, vocabulary):
    # scipy takes a difference of two zeta functions above exponent 1, which cancels near 1, and a
    # loop over the ranks up to 1; so only exponents well above 1, or small vocabularies.
    law, ranks = zipf_law(exponent, vocabulary), np.unique(np.geomspace(1, vocabulary, 50).round())
    expected = stats.zipfian.pmf(ranks, exponent, vocabulary)
    # Powers of up to 30 e-folds times 3 rounding errors.
    assert law.probabilities(ranks) == pytest.approx(expected, rel=1e-13, abs=0)


@pytest.mark.parametrize("exponent", [0.0, 1.1])
@pytest.mark.parametrize("vocabulary", [1, 2, 3, 8, 2**29, 2**29 + 1, 10**9, 2**62 - 1, 2**62])
def test_thresholds_are_the_masses_behind_the_bands(exponent, vocabulary):
    law = zipf_law(exponent, vocabulary)
    found = law.thresholds
    assert found.dtype == np.int64 and len(found) == vocabulary.bit_length() - 1
    assert (np.diff(found) <= 0).all()
    total = exact_sum(exponent, 1, vocabulary)
    for j, threshold in enumerate(found.tolist(), start=1):
        exact = exact_sum(exponent, 2**j, vocabulary) / total * 2**63
        assert abs(threshold - exact) <= 3 * SUM_ERROR * exact + 1


# Samples


def edges_of(law, size):
    """Return first ranks of bins: 1 to 50, quarters of octaves, each with five expected or more."""
    octaves = [q * 2**j for j in range(4, 61) for q in (4, 5, 6, 7)]
    wanted = [*range(1, 51), *(edge for edge in octaves if edge > 50)]
    edges = [1]
    for edge in wanted:
        enough = law.mass(edges[-1], edge - 1) * size >= 5
        if edge <= law.last_rank and enough and law.mass(edge, law.last_rank) * size >= 5:
            edges.append(edge)
    return edges


def assert_law(law, draws):
    size = len(draws[0])
    edges = edges_of(law, size)
    ends = [*(edge - 1 for edge in edges[1:]), law.last_rank]
    expected = size * np.array([law.mass(a, b) for a, b in zip(edges, ends, strict=True)])
    assert abs(expected.sum() / size - 1) < 1e-12
    found = [np.searchsorted(np.array(edges), draw, side="right") - 1 for draw in draws]
    found = np.array([np.bincount(one, minlength=len(edges)) for one in found])
    each = ((found - expected) ** 2 / expected).sum(axis=1)
    pooled = ((found.mean(axis=0) - expected) ** 2 / expected).sum() * len(draws)
    freedom = len(edges) - 1
    p = [*stats.chi2.sf(each, freedom), stats.chi2.sf(pooled, freedom)]
    assert min(p) > RARE / len(p)
    assert RARE < stats.chi2.sf(each.sum(), freedom * len(draws)) < 1 - RARE
    return edges


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 1.1, 1.5, 3.0])
@pytest.mark.parametrize("vocabulary", [10, 10**6, 10**9, 2**62])
def test_samples_follow_the_law(beta, vocabulary):
    law = zipf_law(beta, vocabulary)
    draws = [zipf_samples(law, 20_000, seed).numpy() for seed in SEEDS]
    assert min(draw.min() for draw in draws) >= 1
    assert max(draw.max() for draw in draws) <= vocabulary
    edges = assert_law(law, draws)
    assert len(edges) >= 8
    if beta <= 1 and vocabulary > 10:
        assert edges[-1] >= vocabulary // 2


@pytest.mark.parametrize("vocabulary", [3, 5, 33, 100])
def test_a_band_that_is_cut_keeps_its_law(vocabulary):
    law = zipf_law(0.3, vocabulary)
    assert_law(law, [zipf_samples(law, 20_000, seed).numpy() for seed in SEEDS])


@pytest.mark.parametrize("vocabulary", [2**12, 2**12 + 1, 2**12 + 2**10 + 1])
def test_a_band_that_holds_few_ranks_is_not_searched_for_long(vocabulary, monkeypatch):
    trials, original = [], zipf.last_word

    def recording(purpose, trial=0):
        trials.append(trial)
        return original(purpose, trial)

    monkeypatch.setattr(zipf, "last_word", recording)
    drawn = zipf_samples(zipf_law(0, vocabulary), 40_000, 0)
    assert (drawn >= 2**12).any()
    # A proposal is accepted with probability 1/2 or more, or one of 40,000 needs 64 with 2e-15.
    assert max(trials) <= 64


def test_samples_follow_the_probabilities_of_scipy():
    size, vocabulary = 50_000, 200
    expected = size * stats.zipfian.pmf(np.arange(1, vocabulary + 1), 1.1, vocabulary)
    law = zipf_law(1.1, vocabulary)
    counts = np.array([zipf_counts(law, size, seed, ranks=vocabulary)[:-1] for seed in SEEDS])
    p = stats.chisquare(counts, expected[None], axis=1).pvalue
    assert expected.min() > 5 and p.min() > RARE / len(p)


def reference_sample(law, seed, stream, position):
    """Return one rank by the algorithm in plain numbers."""

    def block(trial):
        last = np.uint64((philox.Purpose.ZIPF << 24) | trial)
        counter = (*philox.split_words(position), np.uint64(stream), last)
        w = [int(word) for word in philox.philox_4x32(counter, philox.split_words(seed))]
        return w[1] << 32 | w[0], w[3] << 32 | w[2]

    value = block(0)[0] >> 1
    band = sum(value < threshold for threshold in law.thresholds.tolist())
    for trial in itertools.count(1):
        bits, chance = block(trial)
        rank = 2**band + bits % 2**band
        if band == 0 or (
            rank <= law.last_rank and (chance >> 11) / 2**53 < (rank / 2**band) ** -law.exponent
        ):
            return rank


@pytest.mark.parametrize(("beta", "vocabulary"), [(1.1, 10**9), (0.5, 2**62), (3.0, 50)])
def test_ranks_are_those_of_the_algorithm_in_plain_numbers(beta, vocabulary):
    law, start, seed, stream = zipf_law(beta, vocabulary), 2**32 - 100, 2**64 - 3, 2**32 - 1
    found = zipf_samples(law, 200, seed, offset=start, stream=stream)
    expected = [reference_sample(law, seed, stream, start + i) for i in range(200)]
    assert found.dtype == torch.int64 and found.tolist() == expected


@pytest.mark.parametrize("step", [-1, 0, 1])
def test_the_band_turns_at_its_threshold(step, monkeypatch):
    law = zipf_law(1.1, 1000)
    for band, threshold in enumerate(law.thresholds.tolist(), start=1):
        word = 2 * (threshold + step)
        # The first proposal is the first rank of the band, which is always accepted.
        trials = iter([(word & 0xFFFFFFFF, word >> 32, 0, 0), (0, 0, 0, 0)])
        monkeypatch.setattr(
            zipf, "philox_4x32", lambda *_, t=trials: [np.array([w], np.uint64) for w in next(t)]
        )
        expected = 2**band if step < 0 else 2 ** (band - 1)
        assert zipf_samples(law, 1, 0).tolist() == [expected]


# Settings


@pytest.mark.parametrize(("beta", "temperature"), [(1.5, 0.75), (1.1, 2.0), (3.0, 1.0), (0.0, 0.1)])
def test_a_temperature_is_another_exponent(beta, temperature):
    law = zipf_law(beta, 10**6, temperature=temperature)
    assert law == ZipfLaw(beta / temperature, 10**6)
    same = zipf_law(beta / temperature, 10**6)
    assert torch.equal(zipf_samples(law, 500, 3), zipf_samples(same, 500, 3))


def test_a_temperature_is_a_power_of_the_probabilities():
    p = zipf_law(1.2, 100).probabilities(np.arange(1, 101)) ** (1 / 0.7)
    law = zipf_law(1.2, 100, temperature=0.7)
    assert law.probabilities(np.arange(1, 101)) == pytest.approx(p / p.sum(), rel=1e-13)


def test_top_k_is_a_smaller_vocabulary():
    assert zipf_law(1.5, 10**6, top_k=500) == zipf_law(1.5, 500)
    assert zipf_law(1.5, 10**6, top_k=10**6) == zipf_law(1.5, 10**6)
    assert zipf_samples(zipf_law(0.1, 100, top_k=7), 2000, 0).unique().tolist() == [*range(1, 8)]


@pytest.mark.parametrize("vocabulary", [1, 2, 3, 10, 30])
def test_top_p_of_an_even_law_is_exact(vocabulary):
    for kept in range(1, vocabulary + 1):
        share = kept / vocabulary
        assert zipf_law(0, vocabulary, top_p=share).last_rank == kept
        if kept > 1:
            below = zipf_law(0, vocabulary, top_p=np.nextafter((kept - 1) / vocabulary, 2))
            assert below.last_rank == kept


@pytest.mark.parametrize("beta", [1, 2, 3])
@pytest.mark.parametrize("vocabulary", [1, 2, 5, 40])
def test_top_p_keeps_the_fewest_ranks_that_hold_the_mass(beta, vocabulary):
    weights = [Fraction(1, k**beta) for k in range(1, vocabulary + 1)]
    held = [total / sum(weights) for total in itertools.accumulate(weights)]
    # Multiples of 1/997 are away from these masses by far more than rounding.
    for top_p in (step / 997 for step in range(1, 997, 8)):
        wanted = next(k for k, mass in enumerate(held, start=1) if mass >= Fraction(top_p))
        assert zipf_law(beta, vocabulary, top_p=top_p) == ZipfLaw(float(beta), wanted)


@pytest.mark.parametrize("beta", [1.5, 2.0, 3.0])
@pytest.mark.parametrize("mass", [0.3, 0.61, 0.9, 0.99])
def test_top_p_is_the_nucleus_of_the_infinite_law(beta, mass):
    # Of the first 2**40 ranks the same ranks hold the mass divided by what those hold.
    share = mass / (1 - float(infinite_memory.tail_mass(beta, 2**40)))
    expected = infinite_memory.nucleus_rank(beta, mass)
    assert zipf_law(beta, 2**40, top_p=share).last_rank == expected


def test_top_k_comes_before_top_p_and_the_temperature_before_both():
    # Of 10 ranks two hold half of 2.93; of 100 ranks eight hold half of 5.19.
    assert zipf_law(1, 100, top_p=0.5).last_rank == 8
    assert zipf_law(1, 100, top_k=10, top_p=0.5).last_rank == 2
    assert zipf_law(2, 100, temperature=2, top_k=10, top_p=0.5) == ZipfLaw(1.0, 2)


def test_a_top_p_of_one_keeps_all():
    assert zipf_law(64, 2**62, top_p=1).last_rank == 2**62
    assert zipf_law(64, 2**62, top_p=1.0) == zipf_law(64, 2**62)


# Positions, shapes and counts

LAWS = [zipf_law(1.1, 10**9), zipf_law(0.5, 77), zipf_law(1.01, 2**62), zipf_law(2, 1)]


@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize("start", [0, 2**32 - 20, 2**64 - 60])
def test_a_sequence_read_in_parts_is_the_sequence_read_in_one(law, start):
    whole = zipf_samples(law, 60, 5, offset=start, stream=4)
    parts = [
        zipf_samples(law, stop - begin, 5, offset=start + begin, stream=4)
        for begin, stop in itertools.pairwise((0, 1, 7, 40, 60))
    ]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(zipf_samples(law, (3, 4, 5), 5, offset=start, stream=4).flatten(), whole)
    assert zipf_samples(law, (), 5, offset=start, stream=4) == whole[0]


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_the_size_of_a_chunk_changes_nothing(chunk, monkeypatch):
    law = LAWS[0]
    ranks, counts = zipf_samples(law, 300, 2), zipf_counts(law, 300, 2, ranks=20)
    monkeypatch.setattr(philox, "CHUNK", chunk)
    assert torch.equal(zipf_samples(law, 300, 2), ranks)
    assert torch.equal(zipf_counts(law, 300, 2, ranks=20), counts)


def test_streams_seeds_and_neighbours_are_independent():
    law, size = zipf_law(0.5, 10**6), 100_000
    scores = (zipf_samples(law, size, 1, stream=1).double() / 10**6).sqrt() - 0.5
    others = {
        "stream": zipf_samples(law, size, 1, stream=2),
        "seed": zipf_samples(law, size, 2, stream=1),
        "next": zipf_samples(law, size, 1, stream=1).roll(1),
    }
    # The square root makes this law nearly uniform on [0, 1]: variance 1/12.
    for name, ranks in others.items():
        other = (ranks.double() / 10**6).sqrt() - 0.5
        z = float((scores * other).sum()) * 12 / size**0.5
        assert abs(z) < stats.norm.isf(RARE / 2 / len(others)), name


def test_an_empty_shape_and_a_vocabulary_of_one():
    for shape in (0, (0,), (3, 0, 2)):
        assert zipf_samples(LAWS[0], shape, 0).numel() == 0
    assert zipf_samples(zipf_law(1.5, 1), (2, 3), 0).tolist() == [[1] * 3] * 2
    assert zipf_counts(zipf_law(1.5, 1), 9, 0, ranks=2).tolist() == [9, 0, 0]
    assert zipf_counts(LAWS[0], 0, 0, ranks=3).tolist() == [0] * 4


@pytest.mark.parametrize("law", [*LAWS, zipf_law(1.5, 10)], ids=repr)
@pytest.mark.parametrize("ranks", [0, 1, 9, 10, 77, 300])
def test_counts_are_those_of_the_samples(law, ranks):
    drawn = zipf_samples(law, 20_000, 6, offset=11, stream=2).numpy()
    expected = np.bincount(np.minimum(drawn - 1, ranks), minlength=ranks + 1)
    found = zipf_counts(law, 20_000, 6, ranks=ranks, offset=11, stream=2)
    assert found.dtype == torch.int64 and found.tolist() == expected.tolist()


def test_minimum_bytes():
    assert zipf.minimum_bytes(samples=5) == 40
    assert zipf.minimum_bytes(ranks=5) == 48


# Why no table


def test_a_vocabulary_of_1e9_needs_no_table():
    law = zipf_law(1.1, 10**9)
    assert law.thresholds.nbytes + law.bands.nbytes < 1000
    zipf_samples(law, 10, 0)
    tracemalloc.start()
    zipf_samples(law, 100_000, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The ranks, and at most 64 words for each sample of a chunk; a table would be 8e9 bytes.
    assert peak < 8 * 100_000 + 64 * 8 * philox.CHUNK


def test_a_table_in_float32_deletes_91_percent_of_the_ranks():
    p = zipf_law(1.5, 10**6).probabilities(np.arange(1, 10**6 + 1))
    for dtype, low, high in ((torch.float32, 900_000, 920_000), (torch.float64, 0, 0)):
        table = torch.from_numpy(p).to(dtype).cumsum(0)
        empty = int((table.diff() == 0).sum())
        assert low <= empty <= high


def test_torchs_multinomial_refuses_more_than_2_to_the_24_categories():
    with pytest.raises(RuntimeError, match=r"number of categories cannot exceed 2\^24"):
        torch.multinomial(torch.ones(1).expand(2**24 + 1), 1)


@pytest.mark.parametrize(("beta", "size"), [(1.1, 20_000), (1.5, 1_000_000)])
def test_the_deepest_octave_of_1e9_ranks_is_reached(beta, size):
    law = zipf_law(beta, 10**9)
    expected = law.mass(2**29, 10**9) * size
    found = int((zipf_samples(law, size, 0) >= 2**29).sum())
    assert expected > 8
    low, high = stats.poisson.ppf([RARE, 1 - RARE], expected)
    assert max(low, 1) <= found <= high


# Bad input


@pytest.mark.parametrize(
    ("settings", "accepted"),
    [
        *(
            ({"beta": b}, "a finite number from 0 on")
            for b in (-0.1, math.nan, math.inf, "a", None, 1j, True)
        ),
        *(
            ({"temperature": t}, "a finite number above 0")
            for t in (0, -1.0, math.nan, math.inf, "a", None, [1.0])
        ),
        *(
            ({"top_p": p}, "a number above 0 and up to 1")
            for p in (0, -0.5, 1.0001, math.nan, "a", None, [0.5])
        ),
        *(({"top_k": k}, "an integer from 1 to 100") for k in (0, 101, -1, 1.5, True, "a")),
        *(
            ({"vocabulary": v}, "an integer from 1 to 2**62")
            for v in (0, -1, 2**62 + 1, 10.0, True, None)
        ),
    ],
    ids=str,
)
def test_a_bad_setting_is_refused_by_name(settings, accepted):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError) as error:
        zipf_law(**{"beta": 1.5, "vocabulary": 100, **settings})
    assert str(error.value) == f"{name} is {value!r}; accepted is {accepted}"


def test_an_exponent_beyond_the_last_is_refused():
    assert zipf_law(64, 10).exponent == 64
    for settings in ({"beta": 64.5}, {"beta": 1.0, "temperature": 1 / 64.5}):
        with pytest.raises(ValueError, match=r"beta / temperature is 64.5; accepted is up to 64"):
            zipf_law(vocabulary=10, **settings)


CALLS = {
    "samples": lambda **how: zipf_samples(**{"law": LAWS[1], "shape": 3, "seed": 0, **how}),
    "counts": lambda **how: zipf_counts(
        **{"law": LAWS[1], "sample_size": 3, "seed": 0, "ranks": 2, **how}
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(("name", "bits"), [("seed", 64), ("offset", 64), ("stream", 32)])
@pytest.mark.parametrize("value", [-1, 2**64, 1.5, True, "a", None], ids=repr)
def test_a_number_out_of_range_is_refused_by_name(name, bits, value, call):
    with pytest.raises(ValueError) as error:
        call(**{name: value})
    expected = f"{name} is {value!r}; accepted is an integer from 0 to 2**{bits} - 1"
    assert str(error.value) == expected


@pytest.mark.parametrize("value", [-1, 1.5, None, True], ids=repr)
def test_a_bad_size_is_refused_by_name(value):
    for name, last in (("sample_size", 62), ("ranks", 40)):
        with pytest.raises(ValueError) as error:
            CALLS["counts"](**{name: value})
        expected = f"{name} is {value!r}; accepted is an integer from 0 to 2**{last}"
        assert str(error.value) == expected
    with pytest.raises(ValueError, match=r"shape is .*; accepted are integers from 0"):
        CALLS["samples"](shape=value)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_stream_is_read_to_its_end_and_not_further(call):
    call(offset=2**64 - 3)
    with pytest.raises(ValueError, match=r"offset is \d+, and \d+ from there end at \d+; a stream"):
        call(offset=2**64 - 2)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_law_and_an_implementation_that_are_none_are_refused(call, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    for law, kind in ((1.5, "float"), (None, "NoneType"), (np.ones(3), "ndarray")):
        with pytest.raises(TypeError, match=rf"law is a {kind}; accepted is a ZipfLaw, from"):
            call(law=law)
    with pytest.raises(ValueError, match=r"impl is 'nothing'; accepted are definition, triton"):
        call(impl="nothing")
    with pytest.raises(ImplementationUnavailable, match=r"the tensors are on cpu"):
        call(impl="triton")
    assert torch.equal(call(impl="definition"), call())


@pytest.mark.parametrize(
    ("exponent", "last_rank", "message"),
    [
        (-1, 10, "exponent is -1; accepted is a number from 0 to 64"),
        ("2", 10, "exponent is '2'; accepted is a number from 0 to 64"),
        (math.nan, 10, "exponent is nan; accepted is a number from 0 to 64"),
        (2, 0, "last_rank is 0; accepted is an integer from 1 to 2**62"),
        (2, 2.5, "last_rank is 2.5; accepted is an integer from 1 to 2**62"),
    ],
)
def test_a_law_that_is_made_by_hand_is_checked_too(exponent, last_rank, message):
    with pytest.raises(ValueError) as error:
        ZipfLaw(exponent, last_rank)
    assert str(error.value) == message
    assert ZipfLaw(64, 2**62) == ZipfLaw(64.0, 2**62)
