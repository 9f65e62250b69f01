"""Poisson counts with a mean of their own for every lane, the same draws on a CPU and on a GPU.

A mean is split into its whole part m and its fraction f, and the count into two independent ones.

* The part with mean f < 1 is drawn by inversion: it is at least k when a uniform 63-bit integer is
  below 2^63 P(N >= k). These probabilities are small where the counts are rare, so the resolution
  is finest where it is needed: an event of probability 1e-15 still happens 1 time in 1e15.
* The part with mean m < 16 is drawn by inversion too, with thresholds that are correctly rounded.
* From 16 on it is drawn by transformed rejection (Hörmann, "The transformed rejection method for
  generating Poisson random variables", 1993, algorithm PTRS, without its squeezes). The Poisson
  probability is Loader's saddle-point form ("Fast and accurate computation of binomial
  probabilities", 2000), which loses no digits at large means.

Counter of a lane: (index, stream) and trial 0 for the inversions, trials 1, 2, ... for the
rejection. All arithmetic is that of `kempe_nb.kernels.elementary`, so every comparison has the same
outcome wherever it is made.
"""

import functools
import math
from decimal import Decimal, localcontext

import numpy as np

from kempe_nb.kernels import elementary
from kempe_nb.kernels.philox import (
    Purpose,
    last_word,
    philox_4x32,
    philox_second_word,
    split_words,
    uniform_53,
)

#: Whole means below this are drawn from a table of thresholds.
TABLE_MEANS = 16
#: Thresholds of one mean; P(Poisson(15) >= 64) is below 2**-63.
TABLE_COUNTS = 64
#: The largest mean; far below it a float64 holds every count exactly.
LARGEST_MEAN = 2**31
#: Where the series takes over from the logarithm: the radius of `atanh_rest`.
SERIES_RADIUS = 0.17
#: Proposals of the rejection are kept this close to the mean; none beyond is ever accepted.
FARTHEST = 2.0**52
#: Factor on Hörmann's 1/alpha: with it no probability of acceptance is above one.
HAT_MARGIN = 1.006
#: Trials that are looked at together, once the first one has failed or where lanes are few.
LATER_TRIALS = 4
#: Below so many lanes a call of NumPy costs more than its numbers.
FEW_LANES = 4096
SQRT_2PI = 2.5066282746310002
#: 1/(12 k) - 1/(360 k^3) + ...: the coefficients of Stirling's series in powers of 1/k^2.
STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)


def poisson(mean, key, index, stream, purpose: Purpose) -> np.ndarray:
    """Return one Poisson count for each lane, int64; the arguments broadcast.

    Parameters
    ----------
    mean : array of float64, from 0 to `LARGEST_MEAN`
    key : two arrays or scalars of uint64, the words of the seeds
    index : array of uint64, the lanes' positions in the stream
    stream : uint64 below 2**32
    """
    shape = np.broadcast(mean, index, *key).shape
    mean, index = (np.broadcast_to(part, shape).reshape(-1) for part in (mean, index))
    # The words of one seed stay scalars, which saves half of the work on the round keys.
    key = [np.broadcast_to(k, shape).reshape(-1) if np.ndim(k) else k for k in key]
    w0, w1, w2, w3 = philox_4x32((*split_words(index), np.uint64(stream), last_word(purpose)), key)
    whole = np.floor(mean)
    counts = _from_table(whole, _draw_63(w2, w3))
    _add_fraction(counts, mean - whole, w0, w1)
    large = np.flatnonzero(whole >= TABLE_MEANS)
    if len(large):
        index, *key = (part[large] if np.ndim(part) else part for part in (index, *key))
        counts[large] += _by_rejection(whole[large], key, index, stream, purpose)
    return counts.reshape(shape)


def may_be_positive(mean, key, index, stream, purpose: Purpose) -> np.ndarray:
    """Return False only for lanes whose `poisson` count is zero, and for most of these; bool.

    Where means are small this costs little more than one random word: a count can only be positive
    if the word is at most 2^32 times the mean, which is above 2^32 P(N >= 1).
    """
    low, high = split_words(index)
    # Zeros as a scalar save work in the first two rounds.
    high = high if high.any() else np.uint64(0)
    word = philox_second_word((low, high, np.uint64(stream), last_word(purpose)), key)
    return word.view(np.int64) <= (np.minimum(mean, 1.0) * 2.0**32).astype(np.int64)


@functools.cache
def table_thresholds() -> np.ndarray:
    """Return floor(2^63 P(Poisson(m) >= k)), int64 [16, 64], 0 for k = 0, exactly rounded down.

    Column 0 is never compared with; row 0 belongs to the mean 0 and is zero.
    """
    table = np.zeros((TABLE_MEANS, TABLE_COUNTS), dtype=np.int64)
    with localcontext() as context:
        context.prec = 60
        for mean in range(1, TABLE_MEANS):
            term, below = (-Decimal(mean)).exp(), Decimal(0)
            for count in range(1, TABLE_COUNTS):
                below += term
                term = term * mean / count
                table[mean, count] = math.floor((1 - below) * 2**63)
    return table


@functools.cache
def stirling_table() -> np.ndarray:
    """Return ln k! - ln(sqrt(2 pi k) (k/e)^k) for k below 16, float64 [16]; 0 for k = 0."""
    errors = [0.0]
    with localcontext() as context:
        context.prec = 40
        two_pi = Decimal("6.283185307179586476925286766559005768394")
        for k in range(1, TABLE_MEANS):
            exact = Decimal(math.factorial(k)).ln()
            errors.append(float(exact - (two_pi * k).ln() / 2 - k * Decimal(k).ln() + k))
    return np.array(errors)


def rejection_constants(mean: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the constants a, b and 1/alpha of the hat for means from 16 on."""
    b = 0.931 + 2.53 * np.sqrt(mean)
    return 0.02483 * b - 0.059, b, (1.1328 / (b - 3.4) + 1.1239) * HAT_MARGIN


def probability_times_root(count: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return P(Poisson(mean) = count) sqrt(2 pi count) for whole means; for count 0, P itself."""
    distance = count - mean
    relative = distance / (count + mean)
    square = relative * relative
    far = np.nonzero(np.abs(relative) >= SERIES_RADIUS)
    square[far] = 0.0
    series = elementary.atanh_rest(square)
    deviance = distance * relative + 2.0 * count * relative * series
    # Few proposals lie so far from the mean that the logarithm itself is needed.
    away, mean = count[far], np.broadcast_to(mean, count.shape)[far]
    deviance[far] = away * elementary.log(np.maximum(away, 1.0) / mean) - distance[far]
    return elementary.exp_minus(deviance + _stirling_error(count))


def _stirling_error(count: np.ndarray) -> np.ndarray:
    """Return ln k! - ln(sqrt(2 pi k) (k/e)^k), from the table or from Stirling's series."""
    small = count < TABLE_MEANS
    inverse = 1.0 / np.maximum(count, float(TABLE_MEANS))
    square = inverse * inverse
    series = np.full_like(inverse, STIRLING[-1])
    for coefficient in STIRLING[-2::-1]:
        series = series * square + coefficient
    known = stirling_table()[np.where(small, count, 0.0).astype(np.int64)]
    return np.where(small, known, series * inverse)


def _add_fraction(counts, fraction, low, high) -> None:
    """Add a Poisson count with a mean below one where the draw reaches the first threshold."""
    if not fraction.any():
        return
    draw = _draw_63(low, high)
    # P(N >= 1) is below the mean, so this bound leaves few lanes for the exact thresholds.
    lanes = np.flatnonzero(draw <= _threshold(fraction))
    draw, mean = draw[lanes], fraction[lanes]
    reach = elementary.one_minus_exp_minus(mean)
    term = mean * (1.0 - reach)
    found = np.zeros(len(draw), dtype=np.int64)
    k = 0
    while (reached := draw < _threshold(reach)).any():
        found += reached
        k += 1
        following = term * mean / (k + 1.0)
        # P(N >= k + 1) lies between once and twice its first term. Deep in the tail the difference
        # is rounding error and these bounds take over; they go to zero, so the loop ends.
        reach = np.minimum(np.maximum(reach - term, following), 2.0 * following)
        term = following
    counts[lanes] += found


def _from_table(whole: np.ndarray, draw: np.ndarray) -> np.ndarray:
    """Return Poisson counts for whole means below 16 by a search of their thresholds, else 0."""
    row = np.where(whole < TABLE_MEANS, whole, 0.0).astype(np.int64) * TABLE_COUNTS
    thresholds, found = table_thresholds().reshape(-1), np.zeros(len(draw), dtype=np.int64)
    step = TABLE_COUNTS // 2
    while step:
        found += step * (draw < thresholds[row + found + step])
        step //= 2
    return found


def _by_rejection(mean, key, index, stream, purpose) -> np.ndarray:
    """Return Poisson counts for whole means of 16 or more by transformed rejection."""
    found, pending = np.zeros(len(mean), dtype=np.int64), np.arange(len(mean))
    trial = 1
    while len(pending):
        # Most lanes need one trial; few lanes look at several at once, to save rounds.
        several = LATER_TRIALS if trial > 1 or len(pending) < FEW_LANES else 1
        trials = np.arange(trial, trial + several, dtype=np.uint64)[:, None]
        counter = (*split_words(index), np.uint64(stream), last_word(purpose) + trials)
        count, accepted = _propose(mean, philox_4x32(counter, key))
        first = accepted.argmax(axis=0)
        done = accepted.any(axis=0)
        found[pending[done]] = count[first[done], np.flatnonzero(done)]
        left = ~done
        pending, mean = pending[left], mean[left]
        index, *key = (part[left] if np.ndim(part) else part for part in (index, *key))
        trial += several
    return found


def _propose(mean: np.ndarray, words) -> tuple[np.ndarray, np.ndarray]:
    """Return the proposed counts, int64, and whether they are accepted."""
    a, b, inverse_alpha = rejection_constants(mean)
    u, v = uniform_53(words[0], words[1]) - 0.5, uniform_53(words[2], words[3])
    # The shift by half a step keeps the distance to the edge positive.
    edge = (0.5 - np.abs(u)) + 2.0**-54
    distance = np.floor((2.0 * a / edge + b) * u + 0.43)
    distance = np.minimum(np.maximum(distance, -FARTHEST), FARTHEST)
    count = mean + distance
    inside = np.maximum(count, 0.0)
    left = v * inverse_alpha * np.where(inside > 0, SQRT_2PI * np.sqrt(inside), 1.0)
    right = probability_times_root(inside, mean) * (a / (edge * edge) + b)
    return count.astype(np.int64), (count >= 0) & (left <= right)


def _draw_63(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return uniform integers below 2**63 from two words, int64."""
    return (((high << np.uint64(32)) | low) >> np.uint64(1)).view(np.int64)


def _threshold(probability: np.ndarray) -> np.ndarray:
    return (probability * 2.0**63).astype(np.int64)
