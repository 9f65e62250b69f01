"""What people write for the probability of harmful mass: draw points, add, compare, average.

Each takes thresholds float64 [K] and returns probabilities and standard errors, float64 [K]. Points
are drawn some at a time, so that they fit into memory; the first explanations are the harmful ones.
"""

import functools
import math
from collections.abc import Iterator

import numpy as np
import torch

#: Numbers that are drawn at a time.
AT_A_TIME = 2**22


def torch_dirichlet(alphas: torch.Tensor, harmful: int, thresholds: torch.Tensor, draws: int):
    """Draw from `torch.distributions.Dirichlet` all parts of each point."""
    law = torch.distributions.Dirichlet(alphas)
    counts = torch.zeros_like(thresholds)
    for rows in _rows(draws, len(alphas)):
        mass = law.sample((rows,))[:, :harmful].sum(1)
        counts += (mass[:, None] >= thresholds).sum(0)
    return _of_counts(counts, draws)


def torch_softmax(
    mean: torch.Tensor, scale: torch.Tensor, harmful: int, thresholds: torch.Tensor, draws: int
):
    """Draw the logits of each point by `torch.randn`."""
    counts = torch.zeros_like(thresholds)
    for rows in _rows(draws, len(mean)):
        logits = torch.randn((rows, len(mean)), dtype=mean.dtype, device=mean.device)
        mass = torch.softmax(logits.mul_(scale).add_(mean), 1)[:, :harmful].sum(1)
        counts += (mass[:, None] >= thresholds).sum(0)
    return _of_counts(counts, draws)


def numpy_dirichlet(alphas: np.ndarray, harmful: int, thresholds, draws: int, rng):
    """Draw from `Generator.dirichlet` all parts of each point."""
    counts = np.zeros(len(thresholds))
    for rows in _rows(draws, len(alphas)):
        mass = rng.dirichlet(alphas, rows)[:, :harmful].sum(1)
        counts += (mass[:, None] >= thresholds).sum(0)
    return _of_counts(torch.from_numpy(counts), draws)


def numpy_softmax(mean: np.ndarray, scale: np.ndarray, harmful: int, thresholds, draws: int, rng):
    """Draw the logits of each point by `Generator.standard_normal`."""
    counts = np.zeros(len(thresholds))
    for rows in _rows(draws, len(mean)):
        logits = mean + scale * rng.standard_normal((rows, len(mean)))
        odds = np.exp(logits - logits.max(1, keepdims=True))
        mass = odds[:, :harmful].sum(1) / odds.sum(1)
        counts += (mass[:, None] >= thresholds).sum(0)
    return _of_counts(torch.from_numpy(counts), draws)


def numpy_beta(harmful: float, safe: float, thresholds, draws: int, rng):
    """Draw the harmful mass itself from `Generator.beta`, which aggregation allows."""
    counts = np.zeros(len(thresholds))
    for rows in _rows(draws, 64):
        mass = rng.beta(harmful, safe, rows)
        counts += (mass[:, None] >= thresholds).sum(0)
    return _of_counts(torch.from_numpy(counts), draws)


def numpy_tilted(harmful: float, safe: float, tilt: float, thresholds, draws: int, rng):
    """Draw two numbers from `Generator.standard_gamma`, one of them tilted, and weigh the draws."""
    ones, squares = np.zeros((2, len(thresholds)))
    for rows in _rows(draws, 64):
        own = rng.standard_gamma(harmful, rows) * math.exp(tilt)
        mass = own / (own + rng.standard_gamma(safe, rows))
        kept = 1 - mass + mass * math.exp(-tilt)
        weight = np.exp(harmful * tilt + (harmful + safe) * np.log(kept))
        weighed = np.where(mass[:, None] >= thresholds, weight[:, None], 0.0)
        ones += weighed.sum(0)
        squares += (weighed**2).sum(0)
    mean = ones / draws
    return mean, np.sqrt((squares / draws - mean**2) / draws)


def loop_dirichlet(alphas: np.ndarray, harmful: int, thresholds, draws: int):
    """Draw one part after the other in a compiled loop."""
    counts = _loops()[0](alphas, harmful, thresholds, draws)
    return _of_counts(torch.from_numpy(counts), draws)


def loop_softmax(mean: np.ndarray, scale: np.ndarray, harmful: int, thresholds, draws: int):
    """Draw one logit after the other in a compiled loop; they are stored for one point."""
    counts = _loops()[1](mean, scale, harmful, thresholds, draws)
    return _of_counts(torch.from_numpy(counts), draws)


@functools.cache
def _loops():
    """Return the two loops as Numba compiles them, with its own random numbers."""
    import numba

    @numba.njit
    def dirichlet(alphas, harmful, thresholds, draws):
        counts = np.zeros(len(thresholds))
        for _ in range(draws):
            own, whole = 0.0, 0.0
            for i in range(len(alphas)):
                number = np.random.standard_gamma(alphas[i])
                whole += number
                if i < harmful:
                    own += number
            counts += own / whole >= thresholds
        return counts

    @numba.njit
    def softmax(mean, scale, harmful, thresholds, draws):
        counts, logits = np.zeros(len(thresholds)), np.empty(len(mean))
        for _ in range(draws):
            for i in range(len(mean)):
                logits[i] = mean[i] + scale[i] * np.random.standard_normal()
            odds = np.exp(logits - logits.max())
            counts += odds[:harmful].sum() / odds.sum() >= thresholds
        return counts

    return dirichlet, softmax


def _rows(draws: int, width: int) -> Iterator[int]:
    step = max(1, AT_A_TIME // width)
    for start in range(0, draws, step):
        yield min(step, draws - start)


def _of_counts(counts: torch.Tensor, draws: int) -> tuple[torch.Tensor, torch.Tensor]:
    p = counts / draws
    return p, torch.sqrt(p * (1 - p) / draws)
