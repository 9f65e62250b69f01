"""Numba code of `kempe_nb.kernels.simplex_probability`: a block of draws after the other.

The draws of a block stand side by side, so that every step is one loop over neighbours, which the
compiler turns into vector instructions. The few gamma numbers that were not accepted at once are
drawn again one by one. What is added up are integers, so threads need no order.
"""

import numpy as np

from kempe_nb.kernels.numba import compiled, in_threads
from kempe_nb.kernels.numba.exact import block_words, exp_minus, log, uniform_53
from kempe_nb.kernels.numba.normal_gamma import attempt, later_attempts, normal_pair, propose
from kempe_nb.kernels.philox import last_word, split_words
from kempe_nb.kernels.simplex_laws import LOWEST, PURPOSE

#: Draws of a block, and the fewest pairs of numbers that a thread makes. Each number of a draw has
#: an array of its own: rows of a larger array would cost the vector instructions.
LANES, GRAIN = 256, 4096
LAST = last_word(PURPOSE)


def dirichlet(constants, tally, draw, device) -> np.ndarray:
    """Return the sums of a Dirichlet law, int64 [2, K]."""
    harmful, safe, tilt = constants
    shapes = np.array([harmful.constants, safe.constants])
    boosted = bool(shapes[:, 2].any())
    return _in_threads(_dirichlet, (shapes, boosted, tilt), tally, draw, GRAIN)


def logistic_normal(constants, tally, draw, device) -> np.ndarray:
    """Return the sums of a logistic-normal law, int64 [2, K]."""
    means, scales, harmful = constants
    law = np.stack([means, scales, harmful.astype(np.float64)])
    grain = max(LANES, GRAIN // len(means))
    return _in_threads(_logistic_normal, (law,), tally, draw, grain)


def _in_threads(run, law, tally, draw, grain: int) -> np.ndarray:
    seed, offset, stream, draws = draw
    place = np.uint64(offset), np.uint64(stream), *split_words(seed)
    rule = tally.thresholds, tally.logs, tally.tilted, tally.below, tally.constants
    found = []

    def work(start: int, stop: int) -> None:
        sums = np.zeros((2, len(tally.thresholds)), dtype=np.int64)
        run(start, stop, place, *law, rule, sums)
        found.append(sums)

    in_threads(work, draws, grain)
    return sum(found)


@compiled
def _dirichlet(start, stop, place, shapes, boosted, tilt, rule, sums):
    offset, stream, k0, k1 = place
    ones, others = np.empty(LANES), np.empty(LANES)
    shifts, masses = np.empty(LANES), np.empty(LANES)
    for first in range(start, stop, LANES):
        count = min(LANES, stop - first)
        base = np.uint64(first) + offset
        _first_attempts(base, stream, k0, k1, shapes, ones, others)
        for j in range(count):
            if ones[j] == 0.0 or others[j] == 0.0:
                ones[j], others[j] = later_attempts(
                    ones[j], others[j], shapes, base + np.uint64(j), stream, LAST, k0, k1
                )
        for j in range(LANES):
            ones[j] *= shapes[0, 0]
            others[j] *= shapes[1, 0]
            shifts[j] = 0.0 - tilt
        if boosted:
            _add_boosts(base, stream, k0, k1, shapes[0, 2], shapes[1, 2], tilt, shifts)
        if boosted or tilt != 0.0:
            _scale(ones, others, shifts)
        for j in range(LANES):
            masses[j] = ones[j] / (ones[j] + others[j])
        _add(masses, count, rule, sums)


@compiled
def _first_attempts(base, stream, k0, k1, shapes, ones, others):
    """Write the cube of each lane and side, or 0 where it was not accepted."""
    d, c, other_d, other_c = shapes[0, 0], shapes[0, 1], shapes[1, 0], shapes[1, 1]
    for j in range(LANES):
        x, y, u, v = attempt(1, base + np.uint64(j), stream, LAST, k0, k1)
        ones[j] = propose(x, u, d, c)
        others[j] = propose(y, v, other_d, other_c)


@compiled
def _add_boosts(base, stream, k0, k1, power, other_power, tilt, shifts):
    """Write the logarithm of the safe factor over the harmful one for each lane."""
    for j in range(LANES):
        w0, w1, w2, w3 = block_words(base + np.uint64(j), stream, LAST, k0, k1)
        one = log(1.0 - uniform_53(w0, w1)) * power
        other = log(1.0 - uniform_53(w2, w3)) * other_power
        shifts[j] = (other - one) - tilt


@compiled
def _scale(ones, others, shifts):
    """Scale the smaller of each pair down."""
    for j in range(LANES):
        factor = exp_minus(abs(shifts[j]))
        up = shifts[j] >= 0.0
        ones[j] *= factor if up else 1.0
        others[j] *= 1.0 if up else factor


@compiled
def _logistic_normal(start, stop, place, law, rule, sums):
    offset, stream, k0, k1 = place
    size = law.shape[1]
    tops, owns = np.empty(LANES), np.empty(LANES)
    wholes, masses = np.empty(LANES), np.empty(LANES)
    normals, others = np.empty(LANES), np.empty(LANES)
    for first in range(start, stop, LANES):
        base = np.uint64(first) + offset
        tops[:] = LOWEST
        owns[:] = 0.0
        wholes[:] = 0.0
        for pair in range((size + 1) // 2):
            _normals(base, stream, LAST + np.uint64(pair), k0, k1, normals, others)
            _add_logits(normals, law, 2 * pair, tops, owns, wholes)
            if 2 * pair + 1 < size:
                _add_logits(others, law, 2 * pair + 1, tops, owns, wholes)
        for j in range(LANES):
            masses[j] = owns[j] / wholes[j]
        _add(masses, min(LANES, stop - first), rule, sums)


@compiled
def _normals(base, stream, last, k0, k1, normals, others):
    for j in range(LANES):
        w0, w1, w2, w3 = block_words(base + np.uint64(j), stream, last, k0, k1)
        normals[j], others[j] = normal_pair(w0, w1, w2, w3)


@compiled
def _add_logits(normals, law, i, tops, owns, wholes):
    """Add e^logit of number i to the sums of each lane, relative to its largest logit."""
    mean, scale, harmful = law[0, i], law[1, i], law[2, i]
    for j in range(LANES):
        logit = mean + scale * normals[j]
        gap = logit - tops[j]
        factor = exp_minus(abs(gap))
        kept, added = (factor, 1.0) if gap > 0.0 else (1.0, factor)
        wholes[j] = wholes[j] * kept + added
        owns[j] = owns[j] * kept + added * harmful
        tops[j] = max(tops[j], logit)


@compiled
def _add(masses, count, rule, sums):
    """Add the events of `count` draws, and their weights, to the sums."""
    thresholds, logs, tilted, below, constants = rule
    if not tilted:
        for k in range(len(thresholds)):
            found = _events(masses, count, thresholds[k])
            sums[0, k] += count - found if below else found
        return
    log_masses = np.empty(LANES)
    _write_logs(masses, constants[1], constants[2], log_masses)
    for k in range(len(thresholds)):
        one, two = _weights(masses, count, thresholds[k], below, logs[k], log_masses, constants)
        sums[0, k] += one
        sums[1, k] += two


@compiled
def _events(masses, count, threshold):
    found = 0
    for j in range(count):
        found += 1 if masses[j] >= threshold else 0
    return found


@compiled
def _write_logs(masses, near, far, log_masses):
    for j in range(LANES):
        log_masses[j] = log((1.0 - masses[j]) * near + masses[j] * far)


@compiled
def _weights(masses, count, threshold, below, log_weight, log_masses, constants):
    """Return the sums of the weights and of their squares over the events, in units of 2^-q."""
    whole, scale = constants[0], constants[3]
    one, two = 0, 0
    for j in range(count):
        weight = exp_minus(max(whole * (log_weight - log_masses[j]), 0.0))
        # What is no event may have any weight.
        weight = weight if (masses[j] >= threshold) != below else 0.0
        one += np.int64(np.floor(weight * scale + 0.5))
        two += np.int64(np.floor(weight * weight * scale + 0.5))
    return one, two
