"""What a projected Hessian is made of and says: matrices, sums over samples, and noise floors."""

import math
from dataclasses import dataclass
from functools import cache

import torch

from kempe_nb.checks import checked_integer


@dataclass(frozen=True)
class SymmetricMatrix:
    """A real symmetric matrix and what it says about curvature.

    Attributes
    ----------
    matrix : float64 [d, d]
    """

    matrix: torch.Tensor

    @property
    def trace(self) -> float:
        """The sum of all eigenvalues."""
        return float(self.matrix.trace())

    @property
    def frobenius_norm(self) -> float:
        """The root of the sum of all squared eigenvalues."""
        # In units of the largest entry, whose square may be too small or too large for a float.
        unit = self.matrix.abs().max()
        return float(unit * torch.linalg.matrix_norm(self.matrix / unit)) if unit else 0.0

    @property
    def eigenvalues(self) -> torch.Tensor:
        """All eigenvalues, ascending, float64 [d]."""
        return torch.linalg.eigvalsh(self.matrix)

    @property
    def spectral_norm(self) -> float:
        """The largest absolute eigenvalue."""
        return float(self.eigenvalues.abs().max())

    @property
    def positive_curvature(self) -> float:
        """Trace over Frobenius norm, from -sqrt(d) to sqrt(d); zero for the zero matrix.

        For the projection of a matrix without a trace it is zero up to `noise_floor(d)`.
        """
        norm = self.frobenius_norm
        return self.trace / norm if norm else 0.0

    @property
    def fraction_positive(self) -> float:
        """The share of eigenvalues above zero, by more than rounding: d eps of the largest.

        For the projection of a matrix without a trace it is a half up to
        `noise_floor_of_fraction(d)`; for the zero matrix it is zero.
        """
        values = self.eigenvalues
        tolerance = len(values) * torch.finfo(values.dtype).eps * float(values.abs().max())
        return float((values > tolerance).double().mean())


@dataclass(frozen=True)
class ProjectedCurvature:
    """Loss, slope and curvature of a loss along d directions; see the module.

    Attributes
    ----------
    loss : float
        The mean loss over the samples.
    gradient : float64 [d]
        P^T grad L.
    gauss_newton, remainder : SymmetricMatrix or None
        G and R; None where they were not asked for.
    hessian : SymmetricMatrix
        P^T H P.
    """

    loss: float
    gradient: torch.Tensor
    gauss_newton: SymmetricMatrix | None
    remainder: SymmetricMatrix | None
    hessian: SymmetricMatrix


class Sums:
    """What is summed over the samples, in float64."""

    def __init__(self, count: int, like: torch.Tensor):
        self.loss = 0.0
        self.gradient = like.new_zeros(count, dtype=torch.float64)
        self.gauss_newton = like.new_zeros(count, count, dtype=torch.float64)
        self.remainder = torch.zeros_like(self.gauss_newton)

    def result(self, apart: bool) -> ProjectedCurvature:
        """Return the sums as matrices; G and R only if they are wanted apart."""
        g, r, h = (
            SymmetricMatrix((each + each.T) / 2)
            for each in (self.gauss_newton, self.remainder, self.gauss_newton + self.remainder)
        )
        return ProjectedCurvature(self.loss, self.gradient, *((g, r) if apart else (None, None)), h)


def noise_floor(directions: int) -> float:
    """Return the deviation of Tr / Frobenius norm of a projection whose matrix has no trace.

    Derived for random directions and a matrix of high rank: sqrt(2 / (d + 1)).
    """
    return math.sqrt(2 / (checked_integer(directions, "directions", 1, 2**63 - 1) + 1))


@cache
def noise_floor_of_fraction(directions: int) -> float:
    """Return the deviation of the fraction of positive eigenvalues of such a projection.

    The projection of a matrix of high rank without a trace is like a symmetric Gaussian matrix.
    Its number of positive eigenvalues varies little, since eigenvalues repel each other. There is
    no elementary formula: this is the root mean square deviation from a half over 4,000 such
    matrices, which are the same in every call. For d = 1 it is 1/2.
    """
    size = checked_integer(directions, "directions", 1, 10_000)
    generator = torch.Generator().manual_seed(0)
    deviations = []
    for part in torch.arange(4000).split(max(2**22 // size**2, 1)):
        square = torch.randn(len(part), size, size, generator=generator, dtype=torch.float64)
        positive = torch.linalg.eigvalsh(square + square.mT) > 0
        deviations.append(positive.double().mean(1) - 0.5)
    return float(torch.cat(deviations).square().mean().sqrt())


def full_space_ratio(ratio: float, directions: int) -> float:
    """Return Tr / Frobenius norm of a matrix from that of its projection on d random directions.

    The projection shrinks it: from rho to rho sqrt(d) / sqrt(d + 1 + rho^2) in ratio of
    expectations, for a matrix of high rank. This is the inverse; infinite from sqrt(d) on.
    """
    count = checked_integer(directions, "directions", 1, 2**63 - 1)
    left = count - ratio**2
    return ratio * math.sqrt((count + 1) / left) if left > 0 else math.copysign(math.inf, ratio)
