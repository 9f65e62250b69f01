"""Triton twins of `kempe_nb.kernels.elementary`: the same float64 steps in the same order.

The kernels that use them are launched with enable_fp_fusion=False, because one rounding in place of
two would give other bits. tl.where evaluates both sides, as NumPy does.
"""

import triton
import triton.language as tl

from kempe_nb.kernels import elementary

LN2_HIGH, LN2_LOW = tl.constexpr(elementary.LN2_HIGH), tl.constexpr(elementary.LN2_LOW)
INVERSE_LN2, SQRT2 = tl.constexpr(elementary.INVERSE_LN2), tl.constexpr(elementary.SQRT2)
LARGEST_EXPONENT = tl.constexpr(elementary.LARGEST_EXPONENT)
EXP_TERMS = tl.constexpr(elementary.EXP_TERMS)
LOSS_TERMS = tl.constexpr(elementary.LOSS_TERMS)
ATANH_TERMS = tl.constexpr(elementary.ATANH_TERMS)


@triton.jit
def exp_minus(x):
    """Return e^-x for x >= 0, float64; zero above `LARGEST_EXPONENT`."""
    kept = tl.minimum(x, LARGEST_EXPONENT)
    power = tl.floor(kept * INVERSE_LN2 + 0.5)
    rest = (kept - power * LN2_HIGH) - power * LN2_LOW
    series = rest * 0.0 + 1.0
    for step in tl.static_range(EXP_TERMS):
        series = 1.0 - rest * (1.0 / (EXP_TERMS - step)) * series
    scale = ((1023 - power.to(tl.int64)) << 52).to(tl.float64, bitcast=True)
    return tl.where(x > LARGEST_EXPONENT, 0.0, series * scale)


@triton.jit
def one_minus_exp_minus(x):
    """Return 1 - e^-x for 0 <= x < 1, float64."""
    series = x * 0.0 + 1.0
    for step in tl.static_range(LOSS_TERMS - 1):
        series = 1.0 - x * (1.0 / (LOSS_TERMS - step)) * series
    return x * series


@triton.jit
def log(x):
    """Return the natural logarithm of normal positive numbers, float64."""
    bits = x.to(tl.int64, bitcast=True)
    exponent = (bits >> 52) - 1023
    mantissa = ((bits & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000).to(tl.float64, bitcast=True)
    # Triton rounds a constant that it compares with to float32, and one that it subtracts not.
    upper = mantissa - SQRT2 > 0.0
    mantissa = tl.where(upper, mantissa * 0.5, mantissa)
    exponent = (exponent + upper.to(tl.int64)).to(tl.float64)
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    low = 2.0 * ratio * atanh_rest(ratio * ratio) + exponent * LN2_LOW
    return exponent * LN2_HIGH + (2.0 * ratio + low)


@triton.jit
def atanh_rest(w):
    """Return atanh(v)/v - 1 for w = v^2 up to 0.0295, float64."""
    series = w * 0.0 + 1.0 / (2 * ATANH_TERMS + 1)
    for step in tl.static_range(ATANH_TERMS - 1):
        series = series * w + 1.0 / (2 * (ATANH_TERMS - 1 - step) + 1)
    return series * w
