"""Logarithm and exponential whose float64 bits are the same on every machine.

A library's `exp` may differ from another's in the last bit, and then a random draw that compares
with it differs too. The functions here are made of additions, multiplications, divisions and square
roots alone, in a fixed order; IEEE 754 prescribes each result to the last bit. The Triton twins in
`kempe_nb.kernels.triton.elementary` do the same steps, compiled without contraction of a
multiplication and an addition into one rounding. All are right to a few units in the last place.
"""

import numpy as np

#: ln 2 in two parts; the first has 32 trailing zero bits, so its small multiples are exact.
LN2_HIGH, LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10
INVERSE_LN2 = 1.4426950408889634
SQRT2 = 1.4142135623730951
#: Terms of the three series; one more would change nothing in float64.
EXP_TERMS, LOSS_TERMS, ATANH_TERMS = 13, 18, 11
#: Above this, e^-x is taken as zero.
LARGEST_EXPONENT = 700.0


def exp_minus(x: np.ndarray) -> np.ndarray:
    """Return e^-x for x >= 0, float64; zero above `LARGEST_EXPONENT`."""
    kept = np.minimum(x, LARGEST_EXPONENT)
    power = np.floor(kept * INVERSE_LN2 + 0.5)
    rest = (kept - power * LN2_HIGH) - power * LN2_LOW
    series = np.ones_like(rest)
    for n in range(EXP_TERMS, 0, -1):
        series = 1.0 - rest * (1.0 / n) * series
    scale = ((1023 - power.astype(np.int64)) << 52).view(np.float64)
    return np.where(x > LARGEST_EXPONENT, 0.0, series * scale)


def one_minus_exp_minus(x: np.ndarray) -> np.ndarray:
    """Return 1 - e^-x for 0 <= x < 1 with a small relative error even for tiny x, float64."""
    series = np.ones_like(x)
    for n in range(LOSS_TERMS, 1, -1):
        series = 1.0 - x * (1.0 / n) * series
    return x * series


def log(x: np.ndarray) -> np.ndarray:
    """Return the natural logarithm of normal positive numbers, float64."""
    bits = x.view(np.int64)
    exponent = (bits >> 52) - 1023
    mantissa = ((bits & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000).view(np.float64)
    upper = mantissa > SQRT2
    mantissa = np.where(upper, mantissa * 0.5, mantissa)
    exponent = (exponent + upper).astype(np.float64)
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    low = 2.0 * ratio * atanh_rest(ratio * ratio) + exponent * LN2_LOW
    return exponent * LN2_HIGH + (2.0 * ratio + low)


def atanh_rest(w: np.ndarray) -> np.ndarray:
    """Return atanh(v)/v - 1 = w/3 + w^2/5 + ... for w = v^2 up to 0.0295, float64."""
    series = np.full_like(w, 1.0 / (2 * ATANH_TERMS + 1))
    for n in range(ATANH_TERMS - 1, 0, -1):
        series = series * w + 1.0 / (2 * n + 1)
    return series * w
