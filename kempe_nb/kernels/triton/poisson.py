"""Triton twin of `kempe_nb.kernels.poisson`: one Poisson count for each lane of a block."""

import triton
import triton.language as tl

from kempe_nb.kernels import poisson as definition
from kempe_nb.kernels.triton.elementary import atanh_rest, exp_minus, log, one_minus_exp_minus
from kempe_nb.kernels.triton.philox import block_words, join_words, uniform_53

TABLE_MEANS = tl.constexpr(definition.TABLE_MEANS)
TABLE_COUNTS = tl.constexpr(definition.TABLE_COUNTS)
SERIES_RADIUS = tl.constexpr(definition.SERIES_RADIUS)
FARTHEST, SQRT_2PI = tl.constexpr(definition.FARTHEST), tl.constexpr(definition.SQRT_2PI)
HAT_MARGIN = tl.constexpr(definition.HAT_MARGIN)
S0, S1, S2, S3, S4, S5 = (tl.constexpr(value) for value in definition.STIRLING)


@triton.jit
def poisson(mean, seed, index, stream, thresholds, stirling, PURPOSE: tl.constexpr):
    """Return a Poisson count for each lane, int64; a lane with mean 0 gets 0.

    `thresholds` and `stirling` point to the two tables of the definition.
    """
    trial = tl.full((1,), 0, tl.uint32)
    w0, w1, w2, w3 = block_words(seed, index, stream, PURPOSE, trial)
    whole = tl.floor(mean)
    count = from_fraction(mean - whole, draw_63(w0, w1))
    count += from_table(whole, draw_63(w2, w3), thresholds)
    return count + by_rejection(whole, seed, index, stream, stirling, PURPOSE)


@triton.jit
def draw_63(low, high):
    """Return uniform integers below 2**63 from two words, int64."""
    return (join_words(low, high) >> 1).to(tl.int64)


@triton.jit
def from_fraction(mean, draw):
    """Return a count with a mean below one by inversion."""
    reach = one_minus_exp_minus(mean)
    term = mean * (1.0 - reach)
    count = draw * 0
    k = 0.0
    reached = (draw < (reach * 9223372036854775808.0).to(tl.int64)).to(tl.int64)
    while tl.max(reached) > 0:
        count += reached
        k += 1.0
        following = term * mean / (k + 1.0)
        reach = tl.minimum(tl.maximum(reach - term, following), 2.0 * following)
        term = following
        reached = (draw < (reach * 9223372036854775808.0).to(tl.int64)).to(tl.int64)
    return count


@triton.jit
def from_table(whole, draw, thresholds):
    """Return a count with a whole mean below 16 by a search of its thresholds, else 0."""
    row = tl.where(whole < TABLE_MEANS, whole, 0.0).to(tl.int64) * TABLE_COUNTS
    count = draw * 0
    if tl.max(row) > 0:
        for halving in tl.static_range(6):
            further = count + (TABLE_COUNTS >> (halving + 1))
            count = tl.where(draw < tl.load(thresholds + row + further), further, count)
    return count


@triton.jit
def by_rejection(whole, seed, index, stream, stirling, PURPOSE: tl.constexpr):
    """Return a count with a whole mean of 16 or more by transformed rejection, else 0."""
    pending = whole >= TABLE_MEANS
    mean = tl.where(pending, whole, TABLE_MEANS + 0.0)
    found = index * 0
    trial = tl.full((1,), 1, tl.uint32)
    left = tl.max(pending.to(tl.int32))
    while left > 0:
        w0, w1, w2, w3 = block_words(seed, index, stream, PURPOSE, trial)
        count, accepted = propose(mean, uniform_53(w0, w1) - 0.5, uniform_53(w2, w3), stirling)
        found = tl.where(pending & accepted, count.to(tl.int64), found)
        pending = pending & (accepted == 0)
        trial += 1
        left = tl.max(pending.to(tl.int32))
    return found


@triton.jit
def propose(mean, u, v, stirling):
    """Return the proposed counts, float64, and whether they are accepted."""
    b = 0.931 + 2.53 * tl.sqrt(mean)
    a = 0.02483 * b - 0.059
    inverse_alpha = (1.1328 / (b - 3.4) + 1.1239) * HAT_MARGIN
    edge = (0.5 - tl.abs(u)) + 5.551115123125783e-17
    distance = tl.floor((2.0 * a / edge + b) * u + 0.43)
    distance = tl.minimum(tl.maximum(distance, -FARTHEST), FARTHEST)
    count = mean + distance
    inside = tl.maximum(count, 0.0)
    left = v * inverse_alpha * tl.where(inside > 0, SQRT_2PI * tl.sqrt(inside), 1.0)
    right = probability_times_root(inside, mean, stirling) * (a / (edge * edge) + b)
    return count, (count >= 0) & (left <= right)


@triton.jit
def probability_times_root(count, mean, stirling):
    """Return P(Poisson(mean) = count) sqrt(2 pi count); for count 0, P itself."""
    distance = count - mean
    relative = distance / (count + mean)
    square = relative * relative
    # As in `log`: a comparison would round the constant to float32.
    near = tl.abs(relative) - SERIES_RADIUS < 0.0
    series = atanh_rest(tl.where(near, square, 0.0))
    deviance = distance * relative + 2.0 * count * relative * series
    ratio = tl.maximum(count, 1.0) / mean
    deviance = tl.where(near, deviance, count * log(ratio) - distance)
    return exp_minus(deviance + stirling_error(count, stirling))


@triton.jit
def stirling_error(count, stirling):
    """Return ln k! - ln(sqrt(2 pi k) (k/e)^k), from the table or from Stirling's series."""
    small = count < TABLE_MEANS
    inverse = 1.0 / tl.maximum(count, TABLE_MEANS + 0.0)
    square = inverse * inverse
    series = square * 0.0 + S5
    series = series * square + S4
    series = series * square + S3
    series = series * square + S2
    series = series * square + S1
    series = series * square + S0
    known = tl.load(stirling + tl.where(small, count, 0.0).to(tl.int64))
    return tl.where(small, known, series * inverse)
