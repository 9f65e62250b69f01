"""Numba code of `kempe_nb.kernels.ensemble_moments`: a block of inputs after the other.

The logits of a block stay in the cache. They are turned, [K, L] for the L inputs of a block, so
that every step is one loop over L neighbours, which the compiler turns into vector instructions. A
few probabilities are added in the dtype of the logits, and these sums in float64. Where a mean is
so small that a float32 has no digits left for it, it is taken again as a log-sum-exp.
"""

import math

import numpy as np
import torch

from kempe_nb.kernels.numba import compiled, in_threads
from kempe_nb.kernels.numba.elementary import exp_minus, log_1p, log_below

#: Elements of a turned block, and the fewest and the most inputs in it.
ELEMENTS, FEWEST, MOST = 65_536, 8, 256
#: Terms that are added before the sum goes into a float64.
TERMS = 16
#: Below this mean, probabilities that are added in float32 have lost digits.
SMALLEST = 1e-30


def moments(logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return log mean [N, K], total, expected and mutual entropy [N] of float logits [S, N, K]."""
    z = logits.detach().numpy()
    _, inputs, classes = z.shape
    lanes = _lanes(inputs, classes)
    log_mean = np.empty((inputs, classes), dtype=z.dtype)
    entropies = np.empty((3, inputs), dtype=z.dtype)

    def work(start: int, stop: int) -> None:
        _moments(z, start, stop, lanes, log_mean, entropies)

    in_threads(work, inputs, lanes)
    return (torch.from_numpy(log_mean), *(torch.from_numpy(each) for each in entropies))


def loss(logits: torch.Tensor, labels: torch.Tensor, margin: bool) -> tuple[torch.Tensor, ...]:
    """Return loss [N], gradient [S, N, K], and a number [N] that is finite where all logits are."""
    z, y = logits.detach().numpy(), labels.numpy()
    lanes = _lanes(*z.shape[1:])
    values, logs = np.empty((2, z.shape[1]), dtype=z.dtype)
    gradient = np.empty_like(z)

    def work(start: int, stop: int) -> None:
        _loss(z, y, start, stop, lanes, margin, values, gradient, logs)

    in_threads(work, z.shape[1], lanes)
    return torch.from_numpy(values), torch.from_numpy(gradient), torch.from_numpy(logs)


def _lanes(inputs: int, classes: int) -> int:
    """Return the inputs of a block: all blocks are about as full, and made of whole vectors."""
    most = max(FEWEST, min(MOST, ELEMENTS // classes))
    even = -(-inputs // max(1, -(-inputs // most)))
    return max(FEWEST, -(-even // FEWEST) * FEWEST)


@compiled
def _moments(z, start, stop, lanes, log_mean, entropies):
    networks, _, classes = z.shape
    top, normaliser, sums, expected, logs, totals = _scratch(z, lanes)
    rest = np.empty((networks, lanes), dtype=z.dtype)
    for first in range(start, stop, lanes):
        count = min(lanes, stop - first)
        _add_networks(z, first, count, top, normaliser, rest, sums, expected)
        _means(z, first, count, top, normaliser, sums, logs, totals)
        for j in range(count):
            for k in range(classes):
                log_mean[first + j, k] = logs[j, k]
            share = expected[j] / networks
            entropies[0, first + j] = totals[j]
            entropies[1, first + j] = share
            entropies[2, first + j] = max(totals[j] - share, 0.0) if networks > 1 else 0.0


@compiled
def _loss(z, labels, start, stop, lanes, margin, values, gradient, log_sums):
    networks, _, classes = z.shape
    top, normaliser, sums, expected, logs, totals = _scratch(z, lanes)
    rest = np.empty((networks, lanes), dtype=z.dtype)
    block = np.zeros((classes, lanes), dtype=z.dtype)
    odds = np.empty_like(block)
    chosen = np.zeros((2, lanes), dtype=np.int64)
    shares = np.zeros((2, networks, lanes), dtype=z.dtype)
    for first in range(start, stop, lanes):
        count = min(lanes, stop - first)
        _add_networks(z, first, count, top, normaliser, rest, sums, expected)
        _means(z, first, count, top, normaliser, sums, logs, totals)
        for j in range(count):
            label = labels[first + j]
            chosen[0, j] = label
            # Of no use but that it is finite where all logits are.
            log_sums[first + j] = logs[j].sum() + expected[j]
            values[first + j] = -logs[j, label]
            if margin:
                chosen[1, j] = rival = _rival(logs, j, label)
                values[first + j] = logs[j, label] - logs[j, rival]
        _shares(z, first, count, chosen, 0, top, normaliser, shares)
        if margin:
            _shares(z, first, count, chosen, 1, top, normaliser, shares)
        for s in range(networks):
            _turn(z, s, first, count, block, top)
            _write_odds(block, top, s, odds, 0, classes)
            _write_gradient(odds, rest, s, chosen, shares, margin, block, count)
            for j in range(count):
                for k in range(classes):
                    gradient[s, first + j, k] = block[k, j]


@compiled
def _scratch(z, lanes):
    """Return room for a block: top and normaliser [S, L], sums [K, L], and so on."""
    networks, _, classes = z.shape
    return (
        np.empty((networks, lanes), dtype=z.dtype),
        np.empty((networks, lanes), dtype=z.dtype),
        np.empty((classes, lanes)),
        np.empty(lanes),
        np.empty((lanes, classes)),
        np.empty(lanes),
    )


@compiled
def _add_networks(z, first, count, top, normaliser, rest, sums, expected):
    """Write the sums over the networks of probabilities [K, L] and entropies [L] of a block."""
    networks, _, classes = z.shape
    lanes = len(expected)
    block = np.zeros((classes, lanes), dtype=z.dtype)
    odds, partial = np.empty_like(block), np.zeros_like(block)
    share = np.empty(lanes, dtype=z.dtype)
    some = np.zeros((3, lanes), dtype=z.dtype)
    whole = np.empty((3, lanes))
    sums[:] = 0.0
    expected[:] = 0.0
    for s in range(networks):
        _turn(z, s, first, count, block, top)
        whole[:] = 0.0
        for start in range(0, classes, TERMS):
            stop = min(start + TERMS, classes)
            _write_odds(block, top, s, odds, start, stop)
            _add_others(block, top, s, odds, some, start, stop)
            _add_all(odds, some, start, stop)
            _add_weighted(block, top, s, odds, some, start, stop)
            _flush(some, whole)
        _add_entropies(whole, rest, s, normaliser, share, expected)
        _add_products(odds, share, partial)
        if s % TERMS == TERMS - 1 or s == networks - 1:
            _flush(partial, sums)


@compiled
def _turn(z, s, first, count, block, top):
    """Write the logits of network s into a block [K, L], and the largest one of each input.

    Lanes without an input keep what they hold, which is some number.
    """
    classes, lanes = block.shape
    # Eight inputs at a time, so that a line of the cache is filled before another one is begun.
    even = count - count % FEWEST
    for start in range(0, even, FEWEST):
        for k in range(classes):
            for j in range(start, start + FEWEST):
                block[k, j] = z[s, first + j, k]
    for j in range(even, count):
        for k in range(classes):
            block[k, j] = z[s, first + j, k]
    for j in range(lanes):
        top[s, j] = block[0, j]
    for k in range(1, classes):
        for j in range(lanes):
            top[s, j] = np.fmax(block[k, j], top[s, j])


# Each of these loops has few arrays: where many may overlap, the compiler gives up vectors. And
# they take whole arrays: a row that is handed on is counted by an atomic operation.


@compiled
def _write_odds(block, top, s, odds, start, stop):
    for k in range(start, stop):
        for j in range(block.shape[1]):
            odds[k, j] = exp_minus(top[s, j] - block[k, j])


@compiled
def _add_others(block, top, s, odds, some, start, stop):
    for k in range(start, stop):
        for j in range(block.shape[1]):
            # One below the top and zero at it: a branch would be no vector instruction.
            below = np.fmin(np.ceil(top[s, j] - block[k, j]), block.dtype.type(1))
            some[0, j] += odds[k, j] * below


@compiled
def _add_all(odds, some, start, stop):
    for k in range(start, stop):
        for j in range(odds.shape[1]):
            some[1, j] += odds[k, j]


@compiled
def _add_weighted(block, top, s, odds, some, start, stop):
    for k in range(start, stop):
        for j in range(block.shape[1]):
            some[2, j] += odds[k, j] * (top[s, j] - block[k, j])


@compiled
def _add_entropies(whole, rest, s, normaliser, share, expected):
    lanes = len(share)
    for j in range(lanes):
        # The odds of the top classes are one each; they are counted, for a sum would lose the rest.
        rest[s, j] = whole[0, j] + (np.floor(whole[1, j] - whole[0, j] + 0.5) - 1.0)
    for j in range(lanes):
        normaliser[s, j] = log_1p(rest[s, j])
        share[j] = 1 / (1 + rest[s, j])
    for j in range(lanes):
        expected[j] += normaliser[s, j] + whole[2, j] * share[j]


@compiled
def _add_products(odds, share, partial):
    for k in range(odds.shape[0]):
        for j in range(odds.shape[1]):
            partial[k, j] += odds[k, j] * share[j]


@compiled
def _flush(partial, sums):
    """Add the sums so far to those in float64, and begin again."""
    for k in range(sums.shape[0]):
        for j in range(sums.shape[1]):
            sums[k, j] += partial[k, j]
            partial[k, j] = 0


@compiled
def _means(z, first, count, top, normaliser, sums, logs, totals):
    """Write the logarithms of the mean probabilities, [L, K], and their entropies [L]."""
    networks, _, classes = z.shape
    lanes = sums.shape[1]
    means, found = np.ones((classes, lanes), dtype=z.dtype), np.empty((classes, lanes), z.dtype)
    for k in range(classes):
        for j in range(count):
            sums[k, j] /= networks
            means[k, j] = sums[k, j]
    for k in range(classes):
        for j in range(lanes):
            found[k, j] = log_below(means[k, j])
    for j in range(count):
        best = 0
        for k in range(classes):
            if sums[k, j] > sums[best, j]:
                best = k
        rest, total = 0.0, 0.0
        for k in range(classes):
            if k == best:
                continue
            mean, log_mean = sums[k, j], np.float64(found[k, j])
            if mean < SMALLEST:
                log_mean = _log_mean(z, first + j, j, k, top, normaliser)
                mean = math.exp(log_mean)
            logs[j, k] = log_mean
            rest += mean
            total -= mean * log_mean
        own = math.log1p(-rest) if rest < 0.5 else math.log(sums[best, j])
        logs[j, best] = own
        totals[j] = total - math.exp(own) * own


@compiled
def _log_mean(z, n, j, k, top, normaliser):
    """Return the logarithm of a mean probability as a log-sum-exp over the networks."""
    networks = len(z)
    highest, total = -np.inf, 0.0
    for s in range(networks):
        log_p = -np.float64(top[s, j] - z[s, n, k]) - normaliser[s, j]
        if log_p > highest:
            total = total * math.exp(highest - log_p) + 1.0 if s else 1.0
            highest = log_p
        else:
            total += math.exp(log_p - highest)
    return highest + math.log(total / networks)


@compiled
def _rival(logs, j, label):
    """Return the most probable class of lane j besides the label."""
    best = 1 if label == 0 else 0
    for k in range(logs.shape[1]):
        if k != label and logs[j, k] > logs[j, best]:
            best = k
    return best


@compiled
def _shares(z, first, count, chosen, which, top, normaliser, shares):
    """Write the share of each network in the mean probability of a chosen class of each input."""
    networks, lanes = top.shape
    highest, total = np.full(lanes, -np.inf), np.zeros(lanes)
    logs = np.zeros((networks, lanes))
    for s in range(networks):
        for j in range(count):
            gap = top[s, j] - z[s, first + j, chosen[which, j]]
            logs[s, j] = -np.float64(gap) - normaliser[s, j]
            highest[j] = max(highest[j], logs[s, j])
    for s in range(networks):
        for j in range(count):
            shares[which, s, j] = highest[j] - logs[s, j]
        for j in range(count):
            shares[which, s, j] = exp_minus(shares[which, s, j])
        for j in range(count):
            total[j] += shares[which, s, j]
    for s in range(networks):
        for j in range(count):
            shares[which, s, j] /= total[j]


@compiled
def _write_gradient(odds, rest, s, chosen, shares, margin, made, count):
    """Write share (p - e) of the label; for the margin that of the rival less that of the label."""
    classes, lanes = odds.shape
    both = np.empty(lanes, dtype=odds.dtype)
    for j in range(lanes):
        own = shares[1, s, j] - shares[0, s, j] if margin else shares[0, s, j]
        both[j] = own / (1 + rest[s, j])
    for k in range(classes):
        for j in range(lanes):
            made[k, j] = odds[k, j] * both[j]
    for j in range(count):
        label, rival = chosen[0, j], chosen[1, j]
        scale = 1 / (1 + rest[s, j])
        of_label, of_rival = shares[0, s, j] * scale, shares[1, s, j] * scale
        without_label = _others(odds, rest, s, label, j)
        if margin:
            made[label, j] = of_rival * odds[label, j] + of_label * without_label
            made[rival, j] = (
                -of_rival * _others(odds, rest, s, rival, j) - of_label * odds[rival, j]
            )
        else:
            made[label, j] = -of_label * without_label


@compiled
def _others(odds, rest, s, k, j):
    """Return the sum of the odds of all classes but k, whose 1 - p it is where p rounds to one.

    The odds of one of the top classes are not in the rest.
    """
    return rest[s, j] if odds[k, j] == 1 else rest[s, j] + (1 - odds[k, j])
