"""Hamiltonian Monte Carlo on all data at once, many chains as one batch.

A chain at q draws a momentum p from N(0, I) and follows some leapfrog steps of the motion with
energy H(q, p) = -log density(q) + |p|^2 / 2 (Neal, arXiv 1206.1901). The leapfrog is reversible and
keeps volumes, so that moving with probability min(1, exp(H before - H after)) leaves the density as
it is, however wrong the energy at the end may be. What a target is, and why it comes in terms, is
said in `leapfrog`.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from kempe_nb.checks import (
    check_dtype,
    check_finite,
    check_labels,
    checked_fraction,
    checked_integer,
    checked_number,
    checked_positive,
    common_device,
)
from kempe_nb.methods.leapfrog import LogTerms, Point, evaluate, leapfrog, log_ratio

#: An energy that grows by more than this is no error of rounding or step, but a lost trajectory.
LOST = 1000.0
#: The largest share of the iterations after warm-up in which a chain may diverge.
MOST_DIVERGENT = 0.05
#: A mean acceptance from here on comes from steps ten times shorter than need be, or from orbits
#: that close: the error of the energy grows with the square of the step.
CRAWLING = 0.999


class DivergentChain(RuntimeError):
    """A chain whose draws are not to be used.

    It starts where the density or its gradient is not finite, or after warm-up its trajectories
    are lost in more than a share `MOST_DIVERGENT` of all iterations. The message names the chain,
    its energy and the step size.
    """


@dataclass(frozen=True)
class Chains:
    """Draws of C chains, and how the sampler fared.

    Attributes
    ----------
    states : [C, D, P]
        Positions, in the dtype of the start.
    log_densities : float64 [C, D]
        Of these states, up to a constant.
    energy_errors : float64 [C, D]
        Energy after the trajectory minus energy before, of the proposals of the kept iterations;
        not finite, or above `LOST`, where a trajectory diverged.
    acceptance : float64 [C]
        Mean probability to accept, over all iterations after warm-up, kept or not.
    divergences : int64 [C]
        Iterations after warm-up whose trajectory diverged; each was a rejection.
    step_size : float
        Of all chains after warm-up, before jitter.
    """

    states: torch.Tensor
    log_densities: torch.Tensor
    energy_errors: torch.Tensor
    acceptance: torch.Tensor
    divergences: torch.Tensor
    step_size: float


def posterior_terms(
    network_logits: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    labels: torch.Tensor,
    scale: float | torch.Tensor,
    temperature: float = 1.0,
) -> LogTerms:
    """Return the terms of the posterior of a classifier, in coordinates where the prior is N(0, I).

    Parameters are theta = scale * q, so their prior is normal with mean 0 and standard deviation
    `scale`. The terms at q are log softmax(logits)[label] / temperature for each image, and
    -q^2 / 2 for each coordinate. In these coordinates one step size suits weights of layers of
    very different widths.

    Parameters
    ----------
    network_logits : callable
        Parameters theta [C, P] and images to logits [C, N, K], such as
        `torch.func.vmap(network, (0, None))` of a `FlatNetwork`.
    images : [N, ...]
    labels : int64 [N]
    scale : float, or tensor [P]
        Prior standard deviations; positive and finite.
    temperature : float
        Divides the log likelihood, not the prior. The posterior has 1; another one is a tempered
        likelihood, below 1 as if each image had been seen more than once, and it is the caller who
        says so. (A "cold posterior" that divides both has also `scale` * sqrt(temperature).)

    Returns
    -------
    callable
        q [C, P] to terms [C, N + P], in the dtype of q.

    Raises
    ------
    TypeError, ValueError
        If labels, scale or temperature are not as above; when called, if the network returns
        another shape than [C, N, K], or a label is not among its K classes.
    """
    temperature = checked_positive(temperature, "temperature")
    common_device(images=images, labels=labels)
    if labels.dtype != torch.int64 or labels.ndim != 1 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"labels is {labels.dtype} {tuple(labels.shape)}; "
            f"accepted is int64 {tuple(images.shape[:1])}"
        )
    labels = labels.detach().clone()
    wide = _checked_scale(scale, images.device)
    seen_classes = None

    def terms(q: torch.Tensor) -> torch.Tensor:
        nonlocal seen_classes
        logits = network_logits(q * wide.to(q.dtype), images)
        if logits.ndim != 3 or logits.shape[:2] != (len(q), len(labels)):
            raise ValueError(
                f"network_logits returns shape {tuple(logits.shape)}; "
                f"accepted is [{len(q)}, {len(labels)}, K]"
            )
        if logits.shape[2] != seen_classes:
            check_labels(labels, logits.shape[2])
            seen_classes = logits.shape[2]
        # Not the logarithm of a softmax: float32 knows no probability below 1e-45.
        log_p = F.log_softmax(logits, 2)
        own = log_p.gather(2, labels.expand(len(q), -1)[..., None])[..., 0]
        return torch.cat([own / temperature, q.square() / -2], 1)

    return terms


def sample(
    log_terms: LogTerms,
    start: torch.Tensor,
    *,
    warmup: int,
    draws: int,
    steps: int,
    generator: torch.Generator,
    step_size: float | None = None,
    target_acceptance: float = 0.8,
    jitter: float = 0.2,
    keep_every: int = 1,
) -> Chains:
    """Return draws of chains, one for each row of `start`.

    The same state of the generator gives the same bits. What a chain draws depends on the number
    of chains beside it: momenta come from one stream in blocks [C, P], and the step size is one
    for all. The global generator is not used, and `start` is not changed.

    Parameters
    ----------
    log_terms : callable
        Positions [C, P] to the terms of their log densities [C, M], see `leapfrog`.
    start : float32 or float64 [C, P]
        Where chains start; for R-hat to mean something, wider apart than the density.
    warmup : int
        Iterations that are thrown away. Without a `step_size` they adapt it by dual averaging
        (Hoffman and Gelman, arXiv 1111.4246, section 3.2.1 and algorithm 4), so that the
        probability to accept, averaged over chains, is `target_acceptance`; it is fixed afterwards.
    draws : int
        States that are kept of each chain, one in `keep_every` iterations.
    steps : int
        Leapfrog steps, and so gradients, of an iteration.
    generator : torch.Generator
        On the device of `start`.
    step_size : float, optional
        The step size; nothing is adapted then.
    target_acceptance : float
        Above 0 and below 1. The cost is least at 0.65 for many independent coordinates (Beskos et
        al., arXiv 1001.4460), and hardly more up to 0.9, where it is safer (Betancourt et al.,
        arXiv 1411.6669).
    jitter : float
        From 0 to below 1. In each iteration each chain multiplies its step size by a number that is
        uniform from 1 - jitter to 1 + jitter.
    keep_every : int
        Iterations for each state that is kept.

    Warns
    -----
    RuntimeWarning
        If a chain accepted nothing after warm-up, so that its draws are one point, or everything
        (a mean acceptance from `CRAWLING` on), so that it may hardly have moved.

    Raises
    ------
    DivergentChain
        See there. In warm-up a divergence is a rejection and no more.
    TypeError, ValueError
        If an argument is not as above; before any gradient is computed.
    """
    count = {
        "warmup": checked_integer(warmup, "warmup", 0),
        "draws": checked_integer(draws, "draws", 1),
        "keep_every": checked_integer(keep_every, "keep_every", 1),
    }
    steps = checked_integer(steps, "steps", 1)
    jitter = checked_fraction(jitter, "jitter")
    checked_positive(target_acceptance, "target_acceptance")
    checked_number(target_acceptance, "target_acceptance", 0, 1, "a number above 0 and below 1")
    if step_size is not None:
        step_size = checked_positive(step_size, "step_size")
    elif not count["warmup"]:
        raise ValueError("warmup is 0 and step_size None; accepted is one of them at least")
    _check_start(start, generator)

    point = evaluate(log_terms, start)
    _check_first(point)
    walk = _Walk(log_terms, generator, steps, jitter)
    if step_size is None:
        point, step_size = _adapt(walk, point, count["warmup"], target_acceptance)
    else:
        for _ in range(count["warmup"]):
            point = walk.iterate(point, step_size).point
    return _collect(walk, point, step_size, count["draws"], count["keep_every"])


@dataclass(frozen=True)
class _Iteration:
    """Where chains are after an iteration; energies before minus after, verdicts, [C] each."""

    point: Point
    log_ratio: torch.Tensor
    divergent: torch.Tensor
    probability: torch.Tensor
    accepted: torch.Tensor


@dataclass(frozen=True)
class _Walk:
    """All that stays the same from one iteration to the next."""

    log_terms: LogTerms
    generator: torch.Generator
    steps: int
    jitter: float

    def iterate(self, point: Point, step_size: float) -> _Iteration:
        """Return the chains after a proposal each, accepted or not."""
        q, chains = point.position, len(point.position)
        momentum = self.momentum(q)
        # On a Gaussian a trajectory is a rotation of each coordinate. If its length is a multiple
        # of a period, the coordinate comes back to where it was, and no draw of a momentum moves
        # it: lengths must differ. The law of a length does not depend on where the chain is, so
        # each iteration still leaves the density as it is.
        uniform = 2 * self._uniform(chains, q.device) - 1
        step = (step_size * (1 + self.jitter * uniform)).to(q.dtype)[:, None]
        proposal, flown = leapfrog(self.log_terms, point, momentum, step, self.steps)
        ratio = log_ratio(point, proposal, momentum, flown)
        divergent = ~torch.isfinite(ratio) | (ratio < -LOST)
        probability = torch.where(divergent, 0.0, ratio.clamp(max=0.0).exp())
        accepted = self._uniform(chains, q.device) < probability
        return _Iteration(
            _chosen(accepted, proposal, point), ratio, divergent, probability, accepted
        )

    def momentum(self, q: torch.Tensor) -> torch.Tensor:
        """Return fresh momenta, as many as positions."""
        return torch.randn(q.shape, generator=self.generator, dtype=q.dtype, device=q.device)

    def _uniform(self, count: int, device: torch.device) -> torch.Tensor:
        return torch.rand(count, generator=self.generator, dtype=torch.float64, device=device)


class _DualAveraging:
    """Nesterov's dual averaging of the logarithm of a step size; constants of the paper."""

    def __init__(self, step_size: float, target: float):
        self.target, self.centre = target, math.log(10 * step_size)
        self.done, self.shortfall, self.averaged = 0, 0.0, 0.0

    def update(self, acceptance: float) -> float:
        """Return the next step size to try, after one that was accepted in this share."""
        self.done += 1
        weight = 1 / (self.done + 10)
        self.shortfall += weight * (self.target - acceptance - self.shortfall)
        tried = self.centre - math.sqrt(self.done) / 0.05 * self.shortfall
        self.averaged += self.done**-0.75 * (tried - self.averaged)
        return math.exp(tried)

    @property
    def step_size(self) -> float:
        """The average of what was tried, the later the more."""
        return math.exp(self.averaged)


def _adapt(walk: _Walk, point: Point, warmup: int, target: float) -> tuple[Point, float]:
    """Return where chains are after warm-up, and the step size that it has found."""
    step_size = _first_step_size(walk, point)
    averaging = _DualAveraging(step_size, target)
    for _ in range(warmup):
        now = walk.iterate(point, step_size)
        point, step_size = now.point, averaging.update(now.probability.mean().item())
    return point, averaging.step_size


def _first_step_size(walk: _Walk, point: Point) -> float:
    """Return the power of two where the acceptance of one leapfrog step crosses one half."""
    momentum = walk.momentum(point.position)

    def likely(step_size: float) -> bool:
        after, flown = leapfrog(walk.log_terms, point, momentum, step_size, 1)
        ratio = log_ratio(point, after, momentum, flown)
        # NaN, of a trajectory that was lost, is as unlikely as can be.
        return ratio.nan_to_num(-math.inf).clamp(max=0.0).exp().mean().item() > 0.5

    exponent, up = 0, likely(1.0)
    # A density without curvature would be crossed at no step; none is searched for ever.
    while abs(exponent) < 50 and likely(2.0**exponent) == up:
        exponent += 1 if up else -1
    return 2.0**exponent


def _collect(walk: _Walk, point: Point, step_size: float, draws: int, keep_every: int) -> Chains:
    """Return what chains draw with a fixed step size."""
    q = point.position
    numbers = {"dtype": torch.float64, "device": q.device}
    states = torch.empty(len(q), draws, q.shape[1], dtype=q.dtype, device=q.device)
    densities, errors = (torch.empty(len(q), draws, **numbers) for _ in range(2))
    probability = torch.zeros(len(q), **numbers)
    accepted, lost = (torch.zeros_like(probability, dtype=torch.int64) for _ in range(2))
    total = draws * keep_every
    for done in range(1, total + 1):
        now = walk.iterate(point, step_size)
        point = now.point
        probability += now.probability
        accepted += now.accepted
        lost += now.divergent
        _check_divergences(lost, now, done, total, step_size)
        if done % keep_every == 0:
            kept = done // keep_every - 1
            states[:, kept] = point.position
            densities[:, kept], errors[:, kept] = point.log_density, -now.log_ratio
    chains = Chains(states, densities, errors, probability / total, lost, step_size)
    _warn(chains, accepted, total)
    return chains


def _chosen(rows: torch.Tensor, those: Point, others: Point) -> Point:
    """Return some rows of one batch of points, and the rest of another."""
    parts = ((getattr(p, name) for p in (those, others)) for name in Point.__dataclass_fields__)
    return Point(*(torch.where(rows[:, None], *pair) for pair in parts))


def _check_divergences(lost, now: _Iteration, done: int, total: int, step_size: float) -> None:
    """Raise as soon as a chain has diverged too often for all iterations that are still to come."""
    if lost.max() <= MOST_DIVERGENT * total:
        return
    worst = int(lost.argmax())
    raise DivergentChain(
        f"chain {worst} diverged in {int(lost[worst])} of the {done} iterations after warm-up, of "
        f"{total} asked for: with step size {step_size:g} its energy, now "
        f"{-now.point.log_density[worst]:g}, last changed by {-now.log_ratio[worst]:g}; accepted "
        f"is a share of {MOST_DIVERGENT:g}. A shorter step_size, a higher target_acceptance or "
        "more warmup may help"
    )


def _warn(chains: Chains, accepted: torch.Tensor, total: int) -> None:
    """Warn of chains that stood still and of chains that may have crawled."""
    still = torch.nonzero(accepted == 0)[:, 0].tolist()
    easy = torch.nonzero(chains.acceptance >= CRAWLING)[:, 0].tolist()
    if still:
        warnings.warn(
            f"chains {still} accepted none of {total} proposals with step size "
            f"{chains.step_size:g}: their draws are one point repeated",
            RuntimeWarning,
            stacklevel=4,
        )
    if easy:
        warnings.warn(
            f"chains {easy} accepted with probability {CRAWLING} or more at step size "
            f"{chains.step_size:g}: so short a step crawls, or its trajectories are closed",
            RuntimeWarning,
            stacklevel=4,
        )


def _check_start(start: torch.Tensor, generator: torch.Generator) -> None:
    common_device(start=start)
    check_dtype(start, "start", (torch.float32, torch.float64))
    if start.ndim != 2 or 0 in start.shape:
        raise ValueError(
            f"start has shape {tuple(start.shape)}; accepted is [C, P], neither of them 0"
        )
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator is a {type(generator).__name__}; accepted is torch.Generator")
    if generator.device.type != start.device.type:
        raise ValueError(
            f"generator is on {generator.device}, start on {start.device}; accepted is one device"
        )
    check_finite(start, "start")


def _check_first(point: Point) -> None:
    """Raise if a chain cannot start where it is."""
    density = point.log_density
    wrong = ~(torch.isfinite(density) & torch.isfinite(point.gradient).all(1))
    if not wrong.any():
        return
    chain = int(wrong.int().argmax())
    raise DivergentChain(
        f"chain {chain} starts at an energy of {-density[chain]:g} with "
        f"{int((~torch.isfinite(point.gradient[chain])).sum())} coordinates of its gradient not "
        "finite, before any step size is chosen; accepted is a finite energy and gradient"
    )


def _checked_scale(scale: float | torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return standard deviations, one or [P], as float64; refuse what is not positive."""
    if not isinstance(scale, torch.Tensor):
        return torch.tensor(checked_positive(scale, "scale"), dtype=torch.float64, device=device)
    if scale.device != device:
        raise ValueError(f"scale is on {scale.device}, images on {device}")
    if not scale.is_floating_point() or scale.ndim != 1:
        raise ValueError(
            f"scale is {scale.dtype} {tuple(scale.shape)}; accepted are a float or floating-point "
            "numbers [P]"
        )
    check_finite(scale, "scale")
    if not (scale > 0).all():
        raise ValueError(f"scale holds {scale.min():g}; accepted are positive numbers")
    return scale.detach().to(torch.float64, copy=True)
