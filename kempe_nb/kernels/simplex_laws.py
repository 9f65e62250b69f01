"""Laws of a random point of the simplex, of which some explanations are harmful.

A point x is the law of a model over n explanations. `kempe_nb.kernels.simplex_probability` draws
from these laws and says what is done with them.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from kempe_nb.checks import checked_number, keep_checked
from kempe_nb.kernels.normal_gamma import LARGEST_SHAPE, SMALLEST_SHAPE

#: Explanations of a logistic-normal law: a counter has 24 bits for its pairs.
LARGEST_SIMPLEX = 2**25
#: What a block is drawn for; the numbers of `kempe_nb.kernels.philox.Purpose` end before it.
PURPOSE = 4
#: The largest mean and scale of a logistic-normal law.
LARGEST_LOGIT = 2.0**31
#: Below every logit that is drawn.
LOWEST = -(2.0**60)


@dataclass(frozen=True)
class DirichletLaw:
    """A Dirichlet law of which only the harmful mass is wanted.

    Attributes
    ----------
    harmful, safe : float
        A_h and A_s. Given as vectors, the parameters of the explanations of each side, or as their
        sums; a sum from 2**-31 to 2**31.

    Raises
    ------
    ValueError
        For no parameter, more than one axis, parameters that are not positive or not finite, and
        sums out of range.
    """

    harmful: float
    safe: float

    def __post_init__(self):
        keep_checked(self, harmful=_sum(self.harmful, "harmful"), safe=_sum(self.safe, "safe"))

    def centring_tilt(self, threshold: float) -> float:
        """Return h with which the mean harmful number and the mean safe one have s = threshold.

        Raises
        ------
        ValueError
            For a threshold that is not between 0 and 1.
        """
        low, accepted = math.nextafter(0.0, 1.0), "a number between 0 and 1"
        t = checked_number(threshold, "threshold", low, 1.0, accepted)
        return math.log(t) - math.log1p(-t) + math.log(self.safe) - math.log(self.harmful)


@dataclass(frozen=True, eq=False)
class LogisticNormalLaw:
    """The law of softmax(z) with independent normal z, and which explanations are harmful.

    Attributes
    ----------
    mean, scale : float64 [n]
        mu and sigma >= 0, both at most 2**31 in size; a number stands for n equal ones.
    harmful : bool [n]
        At least one harmful and one safe explanation; n up to 2**25.

    Raises
    ------
    TypeError
        If `harmful` is not made of bool.
    ValueError
        For other shapes, numbers out of range, NaN, and if all or no explanations are harmful.
    """

    mean: np.ndarray
    scale: np.ndarray
    harmful: np.ndarray

    def __post_init__(self):
        harmful = _array(self.harmful)
        if harmful.dtype != bool:
            raise TypeError(f"harmful is {harmful.dtype}; accepted is bool")
        if harmful.ndim != 1 or harmful.size > LARGEST_SIMPLEX:
            raise ValueError(f"harmful has shape {harmful.shape}; accepted is [n], n up to 2**25")
        if not 0 < (marked := int(harmful.sum())) < harmful.size:
            raise ValueError(
                f"harmful marks {marked} of {harmful.size} explanations; accepted are at least one "
                "that is harmful and one that is not"
            )
        keep_checked(
            self,
            harmful=harmful.copy(),
            mean=_logits(self.mean, "mean", -LARGEST_LOGIT, harmful.size),
            scale=_logits(self.scale, "scale", 0.0, harmful.size),
        )


def _array(values: object) -> np.ndarray:
    if not isinstance(values, torch.Tensor):
        return np.asarray(values)
    # NumPy has no bfloat16.
    values = values.detach().cpu()
    return np.asarray(values.double() if values.is_floating_point() else values)


def _numbers(values: object, name: str) -> np.ndarray:
    """Return numbers as float64 [n], or a single one as an array without axes."""
    found = _array(values)
    if found.dtype.kind not in "iuf":
        raise ValueError(f"{name} is made of {found.dtype}; accepted are real numbers")
    found = found.astype(np.float64)
    if found.ndim > 1 or not found.size:
        raise ValueError(f"{name} has shape {found.shape}; accepted is a number or a vector")
    return found


def _sum(values: object, name: str) -> float:
    """Return the sum of the Dirichlet parameters of one side, right to the last bit."""
    alphas = _numbers(values, name)
    if not (np.isfinite(alphas) & (alphas > 0)).all():
        wrong = alphas[~(np.isfinite(alphas) & (alphas > 0))]
        raise ValueError(f"{name} holds {wrong[0]}; accepted are positive finite numbers")
    total = math.fsum(alphas.reshape(-1))
    if not SMALLEST_SHAPE <= total <= LARGEST_SHAPE:
        raise ValueError(f"{name} sums to {total:g}; accepted is a sum from 2**-31 to 2**31")
    return total


def _logits(values: object, name: str, low: float, size: int) -> np.ndarray:
    found = _numbers(values, name)
    if found.ndim and len(found) != size:
        raise ValueError(f"{name} has shape {found.shape}; accepted is [{size}], as harmful has")
    fine = (found >= low) & (found <= LARGEST_LOGIT)
    if not fine.all():
        start = "0" if low == 0 else "-2**31"
        wrong = found[~fine].reshape(-1)[0]
        raise ValueError(f"{name} holds {wrong}; accepted are numbers from {start} to 2**31")
    return np.ascontiguousarray(np.broadcast_to(found, (size,)))
