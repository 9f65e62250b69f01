"""Exact samples and counts of a Zipf law, far into its tail, without a table of the vocabulary.

The law gives rank k the probability k^-s / Z for k = 1, ..., K. Sampling at a temperature tau, with
a nucleus (top-p) or a truncation (top-k), keeps it a Zipf law: the exponent becomes beta / tau, and
the last rank K moves. So one sampler serves all of them.

How a rank is drawn. The ranks fall into bands [1, 2), [2, 4), [4, 8), ...; band j has the mass
sum k^-s over its ranks, summed exactly or by Euler and Maclaurin. One 63-bit integer chooses the
band by integer comparisons with at most 62 thresholds, the rarest bands at the smallest integers,
where nothing is rounded away. Within the band a uniform rank is accepted with probability
(k / 2^j)^-s, which is at least 2^-s. The power is computed with `kempe_nb.kernels.elementary`, so a
CPU and a GPU draw the same ranks.

Why not a table. A cumulative table in float32 has bins of width zero: of a million ranks at
exponent 1.5 it deletes 91 %. In float64 it needs 8 bytes for each rank, 8 GB for a vocabulary of
1e9, and about 30 dependent reads for each sample. `torch.multinomial` refuses more than 2^24
categories.

Counter of a draw (see `kempe_nb.kernels.philox`): the index is the position of the sample, the
stream is the caller's; trial 0 chooses the band and trials 1, 2, ... propose ranks.

When not to use it: if only the counts of all ranks are wanted and a table of them fits into memory,
`numpy.random.Generator.multinomial` costs one step for each rank instead of one for each sample.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch

from kempe_nb.checks import checked_integer, checked_number, checked_shape, keep_checked
from kempe_nb.dispatch import Operation
from kempe_nb.kernels import elementary
from kempe_nb.kernels.philox import (
    Purpose,
    check_end,
    checked_draw,
    chunks,
    last_word,
    philox_4x32,
    split_words,
    uniform_53,
)

#: The largest vocabulary; a band then has at most 2**61 ranks.
LARGEST_VOCABULARY = 2**62
#: Bands that are summed rank by rank; Euler and Maclaurin are right to 1e-16 behind them.
SUMMED_BANDS = 12
#: Largest exponent: beyond it the second rank is rarer than 2**-63 already.
LARGEST_EXPONENT = 64.0


@dataclass(frozen=True)
class ZipfLaw:
    """A Zipf law on the ranks 1 to `last_rank`; see `zipf_law`.

    Attributes
    ----------
    exponent : float
        s, after the temperature.
    last_rank : int
        K, after top-k and top-p.

    Raises
    ------
    ValueError
        For an exponent that is not a number from 0 to 64, or a last rank below 1 or above 2**62.
    """

    exponent: float
    last_rank: int

    def __post_init__(self):
        beyond, accepted = math.nextafter(LARGEST_EXPONENT, math.inf), "a number from 0 to 64"
        keep_checked(
            self,
            exponent=checked_number(self.exponent, "exponent", 0.0, beyond, accepted),
            last_rank=checked_integer(self.last_rank, "last_rank", 1, LARGEST_VOCABULARY),
        )

    @functools.cached_property
    def bands(self) -> np.ndarray:
        """The sums of k^-exponent over the ranks of each band, float64 [B]."""
        ends = range(self.last_rank.bit_length())
        return np.array(
            [power_sum(self.exponent, 2**j, min(2 ** (j + 1) - 1, self.last_rank)) for j in ends]
        )

    @functools.cached_property
    def normaliser(self) -> float:
        """Z, the sum of k^-exponent over all ranks."""
        return math.fsum(self.bands)

    @functools.cached_property
    def thresholds(self) -> np.ndarray:
        """floor(2^63 P(band >= j)) for j = 1, 2, ..., int64 [B - 1]; decreasing."""
        behind = [math.fsum(self.bands[j:]) for j in range(1, len(self.bands))]
        shares = [mass / self.normaliser for mass in behind]
        # A share that rounds to one would be 2**63, which int64 does not hold.
        return np.array([min(int(share * 2**63), 2**63 - 1) for share in shares], dtype=np.int64)

    @property
    def last_mask(self) -> int:
        """Low bits that reach `last_rank` from the start of the last band.

        A cut band is proposed no wider than needed: at least half of its proposals are in it.
        """
        start = 1 << (self.last_rank.bit_length() - 1)
        return (1 << (self.last_rank - start).bit_length()) - 1

    def probabilities(self, ranks) -> np.ndarray:
        """Return the probabilities of ranks, float64; zero outside 1 to `last_rank`."""
        ranks = np.asarray(ranks, dtype=np.float64)
        inside = (ranks >= 1) & (ranks <= self.last_rank)
        return np.where(inside, np.maximum(ranks, 1) ** -self.exponent / self.normaliser, 0.0)

    def mass(self, first: int, last: int) -> float:
        """Return the probability of the ranks `first` to `last`, both included."""
        first, last = max(first, 1), min(last, self.last_rank)
        if last < first:
            return 0.0
        return power_sum(self.exponent, first, last) / self.normaliser


def zipf_law(
    beta: float,
    vocabulary: int,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int | None = None,
) -> ZipfLaw:
    """Return the law that sampling a Zipf law with these settings has.

    As in language models, the temperature comes first, then top-k, then top-p of what is left.

    Parameters
    ----------
    beta : float
        Exponent of the Zipf law, from 0 on; beta / temperature is at most 64.
    vocabulary : int
        Number of ranks, up to 2**62.
    temperature : float
        tau > 0; probabilities to the power 1/tau, so the exponent is beta / tau.
    top_p : float
        In (0, 1]: the fewest first ranks that together hold this mass are kept.
    top_k : int, optional
        The first ranks are kept, from 1 to `vocabulary` of them.

    Raises
    ------
    ValueError
        For a setting out of its range.
    """
    last = checked_integer(vocabulary, "vocabulary", 1, LARGEST_VOCABULARY)
    beta = checked_number(beta, "beta", 0.0, math.inf, "a finite number from 0 on")
    smallest = math.nextafter(0.0, 1.0)
    temperature = checked_number(
        temperature, "temperature", smallest, math.inf, "a finite number above 0"
    )
    if beta / temperature > LARGEST_EXPONENT:
        raise ValueError(
            f"beta / temperature is {beta / temperature:g}; accepted is up to {LARGEST_EXPONENT:g}"
        )
    beyond_one = math.nextafter(1.0, 2.0)
    top_p = checked_number(top_p, "top_p", smallest, beyond_one, "a number above 0 and up to 1")
    if top_k is not None:
        last = checked_integer(top_k, "top_k", 1, last)
    law = ZipfLaw(beta / temperature, last)
    return law if top_p == 1 else ZipfLaw(law.exponent, _nucleus(law, top_p))


def zipf_samples(
    law: ZipfLaw,
    shape,
    seed: int,
    *,
    offset: int = 0,
    stream: int = 0,
    device="cpu",
    impl: str | None = None,
) -> torch.Tensor:
    """Return independent ranks of a law, int64 `shape`, from 1 to `law.last_rank`.

    Sample i of a (seed, stream) is the same whatever the shape and the device; `offset` is the
    position of the first one.

    Raises
    ------
    ValueError
        For a negative size, or a seed, offset or stream out of the ranges of
        `kempe_nb.random_bits`.
    """
    size, seed, offset, stream = _checked_draw(law, checked_shape(shape), seed, offset, stream)
    device = torch.device(device)
    choice = OPERATION.choose(device, impl, function="zipf_samples")
    if choice.implementation == "triton":
        from kempe_nb.kernels.triton import zipf as device_code

        return device_code.samples(law, size, seed, offset, stream, device)
    ranks = np.empty(math.prod(size), dtype=np.int64)
    for start, stop in chunks(len(ranks)):
        ranks[start:stop] = _sample(law, start + offset, stop - start, seed, stream)
    return torch.from_numpy(ranks).reshape(size).to(device)


def zipf_counts(
    law: ZipfLaw,
    sample_size: int,
    seed: int,
    *,
    ranks: int,
    offset: int = 0,
    stream: int = 0,
    device="cpu",
    impl: str | None = None,
) -> torch.Tensor:
    """Return how often each of the first ranks occurs in a sample that is never stored.

    Parameters
    ----------
    sample_size : int
        Number of samples, up to 2**62: those that `zipf_samples` returns for the same seed.
    ranks : int
        R, from 0 on; the result needs 8 (R + 1) bytes.

    Returns
    -------
    int64 [R + 1]
        Element k - 1 is the count of rank k; the last is the count of all ranks above R.

    Raises
    ------
    ValueError
        As `zipf_samples`.
    """
    sample_size = checked_integer(sample_size, "sample_size", 0, 2**62)
    ranks = checked_integer(ranks, "ranks", 0, 2**40)
    _, seed, offset, stream = _checked_draw(law, (sample_size,), seed, offset, stream)
    device = torch.device(device)
    choice = OPERATION.choose(device, impl, function="zipf_counts")
    if choice.implementation == "triton":
        from kempe_nb.kernels.triton import zipf as device_code

        return device_code.counts(law, sample_size, seed, ranks, offset, stream, device)
    counts = np.zeros(ranks + 1, dtype=np.int64)
    for start, stop in chunks(sample_size):
        drawn = _sample(law, start + offset, stop - start, seed, stream) - 1
        # Adding at the places that occur costs the chunk, not the vocabulary.
        np.add.at(counts, np.minimum(drawn, ranks), 1)
    return torch.from_numpy(counts).to(device)


def minimum_bytes(samples: int = 0, ranks: int = 0) -> int:
    """Return the bytes that must be written: 8 for each sample, or 8 for each counted rank."""
    return 8 * samples + (8 * (ranks + 1) if ranks else 0)


OPERATION = Operation(
    "zipf",
    dtypes=(torch.int64,),
    minimum_bytes=minimum_bytes,
    exact=True,
    functions=("zipf_counts", "zipf_samples"),
)


def power_sum(exponent: float, first: int, last: int) -> float:
    """Return sum of k^-exponent for k from `first` to `last`, right to about 1e-15."""
    edge = 2**SUMMED_BANDS
    head = np.arange(first, min(last, edge - 1) + 1, dtype=np.float64)
    total = math.fsum(head**-exponent)
    return total + _euler_maclaurin(exponent, max(first, edge), last) if last >= edge else total


def _euler_maclaurin(exponent: float, first: int, last: int) -> float:
    """Return the sum from the integral and four corrections at its ends; for first >= 2^12."""
    a, b = float(first), float(last)
    # (b^(1-s) - a^(1-s)) / (1-s), also where s is near one.
    stretch = math.log1p((last - first) / a)
    growth = (1.0 - exponent) * stretch
    ratio = math.expm1(growth) / growth if growth else 1.0
    total = a ** (1.0 - exponent) * stretch * ratio + 0.5 * (a**-exponent + b**-exponent)
    slope = exponent / 12.0
    total += slope * (a ** (-exponent - 1.0) - b ** (-exponent - 1.0))
    third = exponent * (exponent + 1.0) * (exponent + 2.0) / 720.0
    total -= third * (a ** (-exponent - 3.0) - b ** (-exponent - 3.0))
    fifth = third * (exponent + 3.0) * (exponent + 4.0) / 42.0
    return total + fifth * (a ** (-exponent - 5.0) - b ** (-exponent - 5.0))


def _nucleus(law: ZipfLaw, top_p: float) -> int:
    """Return the smallest rank whose first ranks hold the mass `top_p`."""
    low, high = 0, law.last_rank
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if law.mass(1, middle) < top_p else (low, middle)
    return high


def _sample(law: ZipfLaw, start: int, count: int, seed: int, stream: int) -> np.ndarray:
    """Return `count` ranks from sample `start` on, int64."""
    key, stream = split_words(seed), np.uint64(stream)
    index = np.arange(count, dtype=np.uint64) + np.uint64(start)
    words = philox_4x32((*split_words(index), stream, last_word(Purpose.ZIPF)), key)
    draw = (((words[1] << np.uint64(32)) | words[0]) >> np.uint64(1)).view(np.int64)
    # The thresholds decrease, so the band is the number of them above the draw.
    band = len(law.thresholds) - np.searchsorted(law.thresholds[::-1], draw, side="right")
    ranks = np.ones(count, dtype=np.int64)
    pending, trial = np.flatnonzero(band), 1
    while len(pending):
        own = band[pending]
        counter = (*split_words(index[pending]), stream, last_word(Purpose.ZIPF, trial))
        rank, accepted = _propose(law, own, philox_4x32(counter, key))
        ranks[pending[accepted]] = rank[accepted]
        pending, trial = pending[~accepted], trial + 1
    return ranks


def _propose(law: ZipfLaw, band: np.ndarray, words) -> tuple[np.ndarray, np.ndarray]:
    """Return a uniform rank of each band, int64, and whether it is accepted."""
    first = np.int64(1) << band
    bits = ((words[1] << np.uint64(32)) | words[0]).view(np.int64)
    rank = first + (bits & np.where(band < len(law.thresholds), first - 1, law.last_mask))
    ratio = rank.astype(np.float64) / first.astype(np.float64)
    # Ranks beyond 2**53 may round up to the end of their band, which is no more than rounding.
    chance = elementary.exp_minus(law.exponent * elementary.log(ratio))
    return rank, (uniform_53(words[2], words[3]) < chance) & (rank <= law.last_rank)


def _checked_draw(law, size, seed, offset, stream):
    if not isinstance(law, ZipfLaw):
        raise TypeError(f"law is a {type(law).__name__}; accepted is a ZipfLaw, from zipf_law(...)")
    seed, offset, stream = checked_draw(seed, offset, stream)
    check_end(offset, math.prod(size))
    return size, seed, offset, stream
