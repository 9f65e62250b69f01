"""A learner that counts what follows a context: exact distance from a Zipf law, and its laws.

The setting of *A Tale of Tails*, section 4, as far as it is known second-hand: what follows a
context is random, with a Zipf law of its own; the learner answers with the frequencies that it saw,
and its error is the total variation sum_j |f_j - p_j|, without a factor one half. Contexts are
learnt apart from each other, so everything here is about one context and its n samples.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from kempe_nb.methods import infinite_memory as memory


def mean_absolute_deviation(trials: ArrayLike, p: ArrayLike) -> np.ndarray:
    """Return E|X - np| of a binomial X by de Moivre's formula, 2 v (1-p) P(X = v), v = [np] + 1."""
    trials, p = np.asarray(trials, dtype=np.float64), np.asarray(p, dtype=np.float64)
    level = np.floor(trials * p) + 1
    return 2 * level * (1 - p) * stats.binom.pmf(level, trials, p)


def expected_variation(samples: ArrayLike, beta: float) -> np.ndarray:
    """Return the exact expected total variation between a Zipf law and n draws from it.

    Ranks that are expected less than once each enter with 2 p (1 - p)^n, twice what they add to the
    error of the infinite-memory learner; so the sum behind the explicit ranks is known from there.

    Parameters
    ----------
    samples : array_like
        n, integers from 1 to 10^8, one or many.
    beta : float
        Above 1, at most 50.
    """
    if not beta <= 50:
        raise ValueError(f"beta is {beta!r}; accepted are numbers above 1, at most 50")
    sizes = _checked_samples(samples)
    found = [_expected_variation(int(size), beta) for size in np.ravel(sizes)]
    return np.reshape(found, np.shape(sizes))


def _expected_variation(size: int, beta: float) -> float:
    # Four times the rank that is expected once, so that the rest is rare.
    ranks = max(
        memory.EXPLICIT_RANKS, int(4 * (size * memory.zipf_constant(beta)) ** (1 / beta)) + 1
    )
    head = mean_absolute_deviation(size, memory.zipf_probabilities(beta, ranks)).sum() / size
    return float(head + 2 * memory.error_behind(size, beta, ranks))


def variation_exponent(beta: float) -> float:
    """Return min(1 - 1/beta, 1/2); at beta = 2 the law has a logarithm on top."""
    return min(memory.scaling_exponent(beta), 0.5)


def variation_law(samples: ArrayLike, beta: float) -> np.ndarray:
    """Return C n^-c, the expected total variation as n grows, with its sharp constant.

    For beta below 2 the ranks around n^(1/beta) decide, and C is an integral over Poisson means;
    above 2 the head decides, and C = sqrt(2/pi) sum_j sqrt(p_j (1 - p_j)). Near beta = 2 the next
    term is nearly as large, and the law is reached very late.

    Raises
    ------
    ValueError
        At beta = 2, where there is no pure power.
    """
    sizes = _checked_samples(samples)
    if beta == 2:
        raise ValueError("beta is 2; accepted are other numbers above 1: here a logarithm appears")
    constant = _edge_constant(beta) if beta < 2 else _head_constant(beta)
    return constant * sizes ** -variation_exponent(beta)


def _edge_constant(beta: float) -> float:
    """Return A^(1/beta)/beta times the integral of E|N - x| x^(-1-1/beta), N Poisson with mean x.

    Where x is between j and j + 1, E|N - x| = 2 x P(N = j), and the integral is an incomplete gamma
    function; far out E|N - x| is sqrt(2 x/pi) up to a relative error of 1/(12 x).
    """
    power, last = 1 / beta, 2_000
    j = np.arange(last)
    order = j + 1 - power
    part = special.gammainc(order, j + 1) - special.gammainc(order, j)
    inside = 2 * np.sum(part * np.exp(special.gammaln(order) - special.gammaln(j + 1)))
    outside = np.sqrt(2 / np.pi) * last ** (0.5 - power) / (power - 0.5)
    return float(memory.zipf_constant(beta) ** power / beta * (inside + outside))


def _head_constant(beta: float) -> float:
    """Return sqrt(2/pi) sum_j sqrt(p_j (1 - p_j)); behind the explicit ranks 1 - p is one."""
    p = memory.zipf_probabilities(beta, memory.EXPLICIT_RANKS)
    behind = special.zeta(beta / 2, memory.EXPLICIT_RANKS + 1) * memory.zipf_constant(beta) ** 0.5
    return float(np.sqrt(2 / np.pi) * (np.sqrt(p * (1 - p)).sum() + behind))


def variation(tokens: np.ndarray, beta: float) -> float:
    """Return sum_j |f_j - p_j| for the frequencies of the tokens, int64 [n], of a Zipf law."""
    known, counts = np.unique(tokens, return_counts=True)
    p = memory.zipf_constant(beta) * known.astype(np.float64) ** -beta
    # A token that was not seen has f = 0 and adds its probability.
    return float(np.abs(counts / len(tokens) - p).sum() + 1 - p.sum())


def _checked_samples(samples: ArrayLike) -> np.ndarray:
    sizes = np.asarray(samples, dtype=np.float64)
    if not ((sizes >= 1) & (sizes <= 1e8) & (sizes == np.floor(sizes))).all():
        raise ValueError(f"samples is {samples!r}; accepted are integers from 1 to 10^8")
    return sizes
