"""Leapfrog trajectories of many chains at once, and how much their energies change.

A trajectory at q with momentum p follows the motion with energy

    H(q, p) = -log density(q) + |p|^2 / 2.

The leapfrog is reversible and keeps volumes (Neal, arXiv 1206.1901); its energy is wrong by an
amount that falls with the square of the step.

The density is given by its terms: `log_terms` takes positions q [C, P] of C chains to terms [C, M],
and the log density of a chain is, up to a constant, the sum of its row. Rows must not depend on
each other; then one backward pass gives the gradients of all chains. The sum is never formed to be
subtracted: the log density of a network on a set of images is of the order of 1e5, where float32
has steps of 0.008, while the difference that decides about a move is of the order of 1. What is
summed, in float64, are the differences of the terms (as in google-research/bnn_hmc, with which
Izmailov et al., arXiv 2104.14421, sampled networks).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from kempe_nb.checks import common_device

#: Positions [C, P] to the terms of their log densities [C, M]; differentiable, row by row.
LogTerms = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Point:
    """Positions [C, P], the terms of their log densities [C, M], and the gradients [C, P]."""

    position: torch.Tensor
    terms: torch.Tensor
    gradient: torch.Tensor

    @property
    def log_density(self) -> torch.Tensor:
        """The log density of each chain, up to a constant; float64 [C]."""
        return self.terms.double().sum(1)


def evaluate(log_terms: LogTerms, position: torch.Tensor) -> Point:
    """Return the terms and the gradient at positions [C, P], also where gradients are switched off.

    Raises
    ------
    TypeError, ValueError
        If the terms are not floating-point numbers [C, M] that depend on the positions.
    """
    # Another tensor than the given one, whose `requires_grad` stays as it is.
    ahead = position.detach().requires_grad_()
    with torch.enable_grad():
        terms = log_terms(ahead)
        _check_terms(terms, len(position))
        (gradient,) = torch.autograd.grad(terms, ahead, torch.ones_like(terms))
    return Point(ahead.detach(), terms.detach(), gradient)


def leapfrog(
    log_terms: LogTerms,
    point: Point,
    momentum: torch.Tensor,
    step: float | torch.Tensor,
    steps: int,
) -> tuple[Point, torch.Tensor]:
    """Return where trajectories end, and their momenta [C, P], after one gradient for each step.

    Half a step of the momentum, then steps of position and momentum in turn, the last of the
    momentum a half. Chains do not see each other: each goes as it would go alone.

    Parameters
    ----------
    step : float, or [C, 1]
        The length of a step, of all or of each chain.
    """
    momentum = momentum + step / 2 * point.gradient
    for done in range(1, steps + 1):
        point = evaluate(log_terms, point.position + step * momentum)
        momentum = momentum + (step if done < steps else step / 2) * point.gradient
    return point, momentum


def log_ratio(
    before: Point, after: Point, momentum_before: torch.Tensor, momentum_after: torch.Tensor
) -> torch.Tensor:
    """Return energy before minus energy after, float64 [C], as a sum of differences.

    The difference of squares is (a - b) (a + b): nothing large is subtracted.
    """
    potential = (after.terms.double() - before.terms.double()).sum(1)
    old, new = momentum_before.double(), momentum_after.double()
    return potential + ((old - new) * (old + new)).sum(1) / 2


def _check_terms(terms: torch.Tensor, chains: int) -> None:
    common_device(terms=terms)
    if not terms.is_floating_point() or terms.ndim != 2 or len(terms) != chains:
        raise ValueError(
            f"log_terms returns {terms.dtype} {tuple(terms.shape)}; accepted are floating-point "
            f"numbers [{chains}, M]"
        )
    if not terms.requires_grad:
        raise ValueError(
            "log_terms returns terms without a gradient; accepted are differentiable functions of "
            "the positions, called outside torch.inference_mode"
        )
