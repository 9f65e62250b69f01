r"""How probable it is that a random point of the simplex has harmful mass at least t.

A language model answers a prompt with a law over n explanations, a point x of the simplex. Some of
the explanations are harmful, and s = sum of x_i over them is the harmful mass. The model may be
jailbroken if s reaches a threshold, which an adversary of bounded power lowers: *Mission
Impossible*, Su, Kempe and Ullrich, arXiv 2408.01420, definitions 4.2 and 4.4. For random x,

    P(s >= t) is estimated by the share of independent draws with s >= t,

for many t at once from the same draws, which are never stored. Two laws of x:

* *Dirichlet*. By aggregation s = G_h / (G_h + G_s) with two gamma numbers whose shapes A_h and A_s
  are the sums of the parameters of each side. So a draw takes two numbers whatever n is.
* *Logistic normal*. x = softmax(z) with z_i = mu_i + sigma_i N_i. A draw takes n numbers; the sums
  of e^z are held relative to the largest z so far, and z itself is never stored.

Rare events. The plain share of 1e6 draws says nothing of a probability of 1e-8. A Dirichlet law is
therefore drawn with a *tilt* h: the harmful gamma number is multiplied by e^h. Its law then has the
density e^(-A_h h) e^(x (1 - e^-h)) times the old one. Given s, the sum of the two gamma numbers is
integrated out, and what remains is the ratio of the two densities of s,

    w(s) = e^(A_h h) (1 - s + s e^-h)^(A_h + A_s),

which each draw carries as its weight. For h > 0 it decreases with s, so on the event s >= t it is
at most w(t). For h < 0 it increases, and the event s < t is weighed in place of the other one. The
tilt that centres the draws at t is `DirichletLaw.centring_tilt(t)`; much more of it makes the
weights so unequal that the standard error cannot be trusted.

Same bits everywhere. Draw i of a seed uses the blocks (index i, stream, purpose, ...) of
`kempe_nb.kernels.philox` and the arithmetic of `kempe_nb.kernels.normal_gamma`. Events are counted;
weights relative to w(t) and their squares are added as integers in units of 2^-q, with q as large
as the number of draws allows. Sums of integers depend neither on the order of the draws nor on the
other thresholds. Two laws that are drawn with one seed and stream share their random numbers.

When not to use it: for a Dirichlet law alone `scipy.stats.beta.sf` is exact and takes no time. The
operation is for logistic-normal laws, and Dirichlet ones show that it is right.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from kempe_nb.checks import (
    check_dtype,
    check_finite,
    checked_integer,
    checked_number,
    common_device,
)
from kempe_nb.dispatch import Operation
from kempe_nb.kernels import elementary
from kempe_nb.kernels.normal_gamma import GammaShape, gamma_pair, normal_pair
from kempe_nb.kernels.philox import (
    check_end,
    checked_draw,
    chunks,
    last_word,
    philox_4x32,
    split_words,
)
from kempe_nb.kernels.simplex_laws import LOWEST, PURPOSE, DirichletLaw, LogisticNormalLaw

#: The largest number of draws.
LARGEST_DRAWS = 2**40
#: The largest tilt in either direction; e^-h is a normal number.
LARGEST_TILT = 500.0


class SimplexProbability(NamedTuple):
    """Estimates for each threshold, float64 [K], on the device of the thresholds."""

    #: Of P(s >= t). Weighted estimates may exceed 1 by chance.
    probability: torch.Tensor
    #: Of P(s < t), 1 less the other; with a tilt below 0 this is the one that is summed.
    complement: torch.Tensor
    #: Of both, from the spread of the draws; 0 where the event never or always happened.
    standard_error: torch.Tensor


def simplex_probability(
    law: DirichletLaw | LogisticNormalLaw,
    thresholds: torch.Tensor,
    draws: int,
    seed: int,
    *,
    tilt: float = 0.0,
    offset: int = 0,
    stream: int = 0,
    impl: str | None = None,
) -> SimplexProbability:
    """Estimate P(s >= t) for the harmful mass s of a random point of the simplex.

    With t = p it is the probability of the harmful zone of *Mission Impossible* (Su, Kempe and
    Ullrich, arXiv 2408.01420, definition 4.2), and with a lower t that of its expansion
    (definition 4.4; see `kempe_nb.methods.simplex_expansion.lowered_threshold`).

    Parameters
    ----------
    law : DirichletLaw or LogisticNormalLaw
    thresholds : float32 or float64 [K]
        Finite, in any order. Up to 0 the probability is 1, and from 1 on it is 0, both exactly.
    draws : int
        From 1 to 2**40.
    seed, offset, stream : int
        As in `kempe_nb.random_bits`; draw i is number `offset` + i of its sequence.
    tilt : float
        h from -500 to 500, for a Dirichlet law; see the module.
    impl : {"definition", "numba", "triton"}, optional
        See `kempe_nb.dispatch`.

    Returns
    -------
    SimplexProbability
        Three tensors float64 [K].

    Raises
    ------
    TypeError
        For a law that is none, thresholds that are no tensor or of another dtype.
    ValueError
        For thresholds of another shape, with NaN or infinity; a number out of range; a tilt of a
        logistic-normal law.
    kempe_nb.dispatch.ImplementationUnavailable
        If an implementation was asked for that cannot run.

    Examples
    --------
    >>> law = DirichletLaw([0.5, 0.5], [1.0, 1.0, 1.0])
    >>> found = simplex_probability(law, torch.tensor([0.5, 0.0, 2.0]), 100_000, seed=1)
    >>> [round(p, 2) for p in found.probability.tolist()]
    [0.12, 1.0, 0.0]
    """
    tilt, device = _checked(law, thresholds, tilt)
    draws = checked_integer(draws, "draws", 1, LARGEST_DRAWS)
    seed, offset, stream = checked_draw(seed, offset, stream)
    check_end(offset, draws)
    choice = OPERATION.choose(device, impl)
    t = thresholds.detach().cpu().to(torch.float64).numpy()
    tally = Tally.of(law, t, tilt, draws)
    sums = np.zeros((2, len(tally.thresholds)), dtype=np.int64)
    if sums.size:
        code = _code(choice.implementation)
        run = code.dirichlet if isinstance(law, DirichletLaw) else code.logistic_normal
        sums = run(_constants(law, tilt), tally, (seed, offset, stream, draws), device)
    return SimplexProbability(*(torch.from_numpy(e).to(device) for e in tally.estimates(sums, t)))


def minimum_bytes(thresholds: int, explanations: int = 0) -> int:
    """Return the bytes of thresholds and estimates, and of a logistic-normal law."""
    return 32 * thresholds + 17 * explanations


OPERATION = Operation(
    "simplex_probability",
    # Of the thresholds.
    dtypes=(torch.float32, torch.float64),
    minimum_bytes=minimum_bytes,
    exact=True,
    implementations=("definition", "numba", "triton"),
)


@dataclass(frozen=True)
class Tally:
    """What is counted or weighed at each threshold, and how estimates are made of it.

    The thresholds between 0 and 1 stand in an order in which the events of a draw come first: those
    that it does not reach follow those that it reaches. Up from a tilt of 0 the event is s >= t,
    with rising thresholds; below, it is s < t, with falling ones.

    Attributes
    ----------
    thresholds, logs : float64 [K]
        t, and log l(t), where l(s) = (1 - s) near + s far is proportional to the weight to the
        power 1 / (A_h + A_s).
    tilted, below : bool
        Whether draws have weights, and whether the event is s < t.
    constants : float64 [4]
        A_h + A_s, near, far, and 2^q.
    log_weights : float64 [K]
        log w(t).
    draws : int
    """

    thresholds: np.ndarray
    logs: np.ndarray
    tilted: bool
    below: bool
    constants: np.ndarray
    log_weights: np.ndarray
    draws: int

    @classmethod
    def of(cls, law, thresholds: np.ndarray, tilt: float, draws: int) -> "Tally":
        """Return the tally of a law; thresholds up to 0 and from 1 on need no draws."""
        inner = np.sort(thresholds[(thresholds > 0) & (thresholds < 1)])
        tilted, below = tilt != 0, tilt < 0
        ordered = inner[::-1].copy() if below else inner
        if not tilted:
            nothing = np.zeros(len(ordered))
            return cls(ordered, nothing, False, False, np.ones(4), nothing, draws)
        whole = law.harmful + law.safe
        (small,) = elementary.exp_minus(np.array([abs(tilt)]))
        near, far = (small, 1.0) if below else (1.0, small)
        logs = elementary.log((1.0 - ordered) * near + ordered * far)
        # A sum of `draws` numbers up to 1 fits into an int64 in units of 2^-q.
        scale = 2.0 ** (62 - (draws - 1).bit_length())
        own = law.safe if below else law.harmful
        constants = np.array([whole, near, far, scale])
        return cls(ordered, logs, True, below, constants, own * abs(tilt) + whole * logs, draws)

    def add(self, sums: np.ndarray, mass: np.ndarray) -> None:
        """Add the events of some draws, and their weights relative to w(t), to `sums` [2, K]."""
        whole, near, far, scale = self.constants
        if self.tilted:
            log_mass = elementary.log((1.0 - mass) * near + mass * far)
        for k, threshold in enumerate(self.thresholds):
            event = mass < threshold if self.below else mass >= threshold
            if self.tilted:
                distance = np.maximum(whole * (self.logs[k] - log_mass[event]), 0.0)
                weight = elementary.exp_minus(distance)
                sums[0, k] += np.floor(weight * scale + 0.5).astype(np.int64).sum()
                sums[1, k] += np.floor(weight * weight * scale + 0.5).astype(np.int64).sum()
            else:
                sums[0, k] += event.sum()

    def estimates(self, sums: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return probability, complement and standard error for thresholds as they were asked."""
        mean, square = sums / (self.constants[3] * self.draws)
        square = square if self.tilted else mean
        unit = _exp(self.log_weights)
        share = unit * mean
        error = unit * np.sqrt(np.maximum(square - mean * mean, 0.0) / self.draws)
        found = np.zeros((3, len(asked)))
        found[0] = asked <= 0
        found[1] = 1 - found[0]
        inner = np.flatnonzero((asked > 0) & (asked < 1))
        # Equal thresholds have equal estimates, so the order among them does not matter.
        place = np.argsort(asked[inner], kind="stable")
        place = inner[place[::-1] if self.below else place]
        found[0, place], found[1, place] = (1 - share, share) if self.below else (share, 1 - share)
        found[2, place] = error
        return tuple(found)


def dirichlet(constants, tally: Tally, draw, device) -> np.ndarray:
    """Return the sums of a Dirichlet law by the definition, int64 [2, K]."""
    harmful, safe, tilt = constants

    def mass(key, index, stream):
        numbers, logs = gamma_pair(harmful, safe, key, index, stream, PURPOSE)
        # Only the ratio of the two counts; the smaller one is scaled down, and may become zero.
        shift = (logs[1] - logs[0]) - tilt
        factor = elementary.exp_minus(np.abs(shift))
        own = np.where(shift >= 0, numbers[0] * factor, numbers[0])
        other = np.where(shift >= 0, numbers[1], numbers[1] * factor)
        return own / (own + other)

    return _run(mass, tally, draw)


def logistic_normal(constants, tally: Tally, draw, device) -> np.ndarray:
    """Return the sums of a logistic-normal law by the definition, int64 [2, K]."""
    means, scales, harmful = constants

    def mass(key, index, stream):
        top = np.full(len(index), LOWEST)
        own, whole = np.zeros((2, len(index)))
        for pair in range(-(-len(means) // 2)):
            counter = *split_words(index), stream, last_word(PURPOSE, pair)
            normals = normal_pair(philox_4x32(counter, key))
            # The last number of an odd simplex is not used.
            for i, normal in zip(range(2 * pair, len(means)), normals, strict=False):
                logit = means[i] + scales[i] * normal
                gap = logit - top
                factor = elementary.exp_minus(np.abs(gap))
                kept, added = np.where(gap > 0, factor, 1.0), np.where(gap > 0, 1.0, factor)
                whole = whole * kept + added
                own = own * kept + (added if harmful[i] else 0.0)
                top = np.maximum(top, logit)
        return own / whole

    return _run(mass, tally, draw)


def _run(mass, tally: Tally, draw) -> np.ndarray:
    seed, offset, stream, draws = draw
    sums = np.zeros((2, len(tally.thresholds)), dtype=np.int64)
    for start, stop in chunks(draws):
        index = np.arange(stop - start, dtype=np.uint64) + np.uint64(start + offset)
        tally.add(sums, mass(split_words(seed), index, np.uint64(stream)))
    return sums


def _code(implementation: str):
    """Return the module with the functions `dirichlet` and `logistic_normal`."""
    if implementation == "numba":
        from kempe_nb.kernels.numba import simplex_probability as code
    elif implementation == "triton":
        from kempe_nb.kernels.triton import simplex_probability as code
    else:
        import kempe_nb.kernels.simplex_probability as code
    return code


def _constants(law, tilt: float) -> tuple:
    """Return the two shapes and the tilt, or mean, scale and whether harmful."""
    if isinstance(law, DirichletLaw):
        return GammaShape(law.harmful), GammaShape(law.safe), tilt
    return law.mean, law.scale, law.harmful


def _exp(x: np.ndarray) -> np.ndarray:
    """Return e^x, with bits that are the same on every machine; beyond e^700 nothing is sampled."""
    size = elementary.exp_minus(np.minimum(np.abs(x), elementary.LARGEST_EXPONENT))
    return np.where(x < 0, np.where(x < -elementary.LARGEST_EXPONENT, 0.0, size), 1.0 / size)


def _checked(law: object, thresholds: object, tilt: object) -> tuple[float, torch.device]:
    if not isinstance(law, DirichletLaw | LogisticNormalLaw):
        kind = type(law).__name__
        raise TypeError(f"law is a {kind}; accepted are a DirichletLaw and a LogisticNormalLaw")
    device = common_device(thresholds=thresholds)
    check_dtype(thresholds, "thresholds", OPERATION.dtypes)
    if thresholds.ndim != 1:
        shape = tuple(thresholds.shape)
        raise ValueError(f"thresholds has shape {shape}; accepted is [K]")
    check_finite(thresholds, "thresholds")
    beyond = math.nextafter(LARGEST_TILT, math.inf)
    tilt = checked_number(tilt, "tilt", -LARGEST_TILT, beyond, "a number from -500 to 500")
    if tilt and not isinstance(law, DirichletLaw):
        raise ValueError(f"tilt is {tilt}; accepted is 0 for a LogisticNormalLaw")
    return tilt, device
