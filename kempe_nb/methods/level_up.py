"""When is an epoch ripe? The test by which self-adaptive trajectory matching widens its pool.

Matching trajectories (Cazenavette and others, arXiv 2203.11932) needs an upper end K of the epochs
that it starts from. STM (Guan and others, arXiv 2311.17967; their public code) probes the matching
loss at the next epoch, which is not trained on yet, once an iteration. Every ten probes it looks at
Pearson's correlation r of the n losses so far with their numbers, in units of

    sigma = 1 / sqrt(n - 2):

if r < -lambda sigma the unseen epoch has become easier, and joins; if r > 3 sigma it has become
harder, which is taken for overfitting to the epochs before, and it joins as well. After a level-up
the probes start anew.

Without a trend and with independent probes r / sigma is nearly normal. But the test looks again and
again, and probes of a training run are not independent.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from kempe_nb.checks import checked_integer, checked_positive

FALLS, RISES, NEITHER = "falls", "rises", "neither"


class Look(NamedTuple):
    """Where the test first decided, for each series.

    Attributes
    ----------
    probes : int64 [...]
        Number of probes at the decision; the number of all probes where there was none.
    falls, rises : bool [...]
        What it decided; neither where there was no decision.
    """

    probes: np.ndarray
    falls: np.ndarray
    rises: np.ndarray


def trend(losses: ArrayLike) -> np.ndarray:
    """Return r / sigma of the first n losses, for every n; float64 [..., T].

    It is zero for n below 3, and where all losses so far are equal. Scale and shift change nothing.

    Parameters
    ----------
    losses : [..., T]
        Finite numbers.

    Raises
    ------
    ValueError
        For losses that are not finite, or no series.
    """
    losses = _checked(losses)
    # Correlations see neither shift nor scale; without them squares would cancel, or overflow.
    shifted = losses / 2 - losses[..., :1] / 2
    largest = np.abs(shifted).max(-1, keepdims=True)
    shifted = np.divide(shifted, largest, out=np.zeros_like(shifted), where=largest > 0)
    number = np.arange(losses.shape[-1], dtype=np.float64)
    n = number + 1
    sums, squares = shifted.cumsum(-1), (shifted**2).cumsum(-1)
    products = (shifted * number).cumsum(-1)
    covariance = products - sums * number / 2
    spread = np.sqrt(np.maximum(squares - sums**2 / n, 0) * n * (n**2 - 1) / 12)
    r = np.divide(covariance, spread, out=np.zeros_like(spread), where=spread > 0)
    # Rounding may take a perfect trend beyond one.
    return np.clip(r, -1, 1) * np.sqrt(np.maximum(n - 2, 0))


def first_decision(
    losses: ArrayLike, *, threshold: float = 5.0, rise: float = 3.0, every: int = 10
) -> Look:
    """Return where the test first decides; see the module.

    Parameters
    ----------
    losses : [..., T]
        Probes of independent series.
    threshold : float
        lambda: a fall counts below minus this many sigma.
    rise : float
        A rise counts above this many sigma; math.inf for a test of falls alone.
    every : int
        Probes from one look to the next.

    Raises
    ------
    ValueError
        For losses as in `trend`, or a threshold, rise or `every` that is not positive.
    """
    threshold, rise, every = _checked_test(threshold, rise, every)
    looks = trend(losses)[..., every - 1 :: every]
    decided = (looks < -threshold) | (looks > rise)
    length = np.asarray(losses).shape[-1]
    some = decided.any(-1)
    if not looks.shape[-1]:
        return Look(np.full(some.shape, length), some, some.copy())
    first = decided.argmax(-1)
    value = np.take_along_axis(looks, first[..., None], -1)[..., 0]
    probes = np.where(some, every * (first + 1), length)
    return Look(probes, some & (value < 0), some & (value > 0))


def decision(
    losses: ArrayLike, *, threshold: float = 5.0, rise: float = 3.0, every: int = 10
) -> str:
    """Return what the test says of the probes so far, [n]: "falls", "rises" or "neither".

    It is looked at only where n is a multiple of `every`, as in training.
    """
    losses = _checked(losses)
    threshold, rise, every = _checked_test(threshold, rise, every)
    if losses.ndim != 1:
        raise ValueError(f"losses have shape {losses.shape}; accepted is one series, [n]")
    if len(losses) % every:
        return NEITHER
    # The last look alone: earlier ones were asked before.
    value = trend(losses)[-1]
    if value < -threshold:
        return FALLS
    return RISES if value > rise else NEITHER


def probes_until_falls(slope: float, noise: float, threshold: float = 5.0) -> float:
    """Return about how many probes a linear fall takes to be seen (our derivation).

    Losses -slope i with independent noise have r^2 = k n^2 / (1 + k n^2) or so after n probes, with
    k = slope^2 / (12 noise^2). Returned is the n at which n r^2 = lambda^2. Where the fall is faint
    that is (sqrt(12) lambda noise / slope)^(2/3); it is never below lambda^2.

    Parameters
    ----------
    slope : float
        Fall for each probe, positive.
    noise : float
        Standard deviation, positive.
    threshold : float
        lambda.
    """
    slope, noise = checked_positive(slope, "slope"), checked_positive(noise, "noise")
    square = checked_positive(threshold, "threshold") ** 2
    faint = (math.sqrt(12 * square) * (noise / slope)) ** (2 / 3)
    if not math.isfinite(square + faint):
        raise ValueError(
            f"slope, noise and threshold are {slope:g}, {noise:g} and {threshold:g}; accepted are "
            "numbers after which the probes can be counted"
        )
    # n^3 = square n^2 + faint^3 has one root, between the larger of both and their sum.
    share, rest = square / (square + faint), faint / (square + faint)
    root = brentq(lambda x: x**3 - share * x**2 - rest**3, max(share, rest), 1.01)
    return root * (square + faint)


def _checked_test(threshold: object, rise: object, every: object) -> tuple[float, float, int]:
    threshold = checked_positive(threshold, "threshold")
    if not (isinstance(rise, float) and rise == math.inf):
        rise = checked_positive(rise, "rise")
    return threshold, rise, checked_integer(every, "every", 1)


def _checked(losses: ArrayLike) -> np.ndarray:
    losses = np.asarray(losses)
    if losses.dtype.kind not in "iuf":
        raise ValueError(f"losses have dtype {losses.dtype}; accepted are real numbers")
    losses = losses.astype(np.float64)
    if not losses.ndim or not losses.shape[-1]:
        raise ValueError(f"losses have shape {losses.shape}; accepted is [..., T], T at least 1")
    if not np.isfinite(losses).all():
        raise ValueError("losses hold values that are not finite; accepted are finite numbers")
    return losses
