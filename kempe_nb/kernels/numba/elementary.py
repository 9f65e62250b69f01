"""Elementary functions of one number, in steps that a loop can take as vector instructions."""

import math

import numpy as np
from numba import extending, types

from kempe_nb.kernels.numba import compiled

#: ln 2 in two parts, the first with trailing zero bits so that small multiples are exact.
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
INVERSE_LN2 = np.float32(1.44269504088896341)
#: The polynomial of least error for (e^r - 1 - r) / r^2, |r| <= ln 2 / 2, lowest power first.
SERIES = tuple(
    np.float32(each)
    for each in (
        *(5.0000001201e-1, 1.6666665459e-1, 4.1665795894e-2),
        *(8.3334519073e-3, 1.3981999507e-3, 1.9875691500e-4),
    )
)
#: atanh(v) / v = 1 + w / 3 + w^2 / 5 + ... for w = v^2, up to w = 0.0295.
ATANH = tuple(np.float32(1 / n) for n in (3, 5, 7, 9))
#: Below this x, log(1 + x) = 2 atanh(x / (2 + x)) needs no reduction.
SMALL = np.float32(0.4)
#: From here on a float32 e^-x is zero: from ln 2^126.5 on it is below the normal numbers.
LARGEST = np.float32(88.0)
#: Added to a small float32 it leaves the nearest integer in the last bits; this is 1.5 * 2^23.
ROUNDER = np.float32(12_582_912.0)
#: The bits of 1.0.
ONE_BITS = np.int32(0x3F800000)


def exp_minus(x):
    """Return e^-x for x >= 0.

    float32 is right to 2 units in the last place up to x = 87, and zero from `LARGEST` on; float64
    is that of the mathematics library.
    """
    raise NotImplementedError("only for compiled code")


def log_1p(x):
    """Return log(1 + x) for x >= 0, with a small relative error for tiny x too.

    float32 is right to 4 units in the last place; float64 is that of the mathematics library.
    """
    raise NotImplementedError("only for compiled code")


def log_below(x):
    """Return log(x) for a normal number x from 0 to 0.75, where the result is not nearly zero.

    float32 is right to 3 units in the last place; float64 is that of the mathematics library.
    """
    raise NotImplementedError("only for compiled code")


@extending.intrinsic
def _bits_of_float(context, value):
    """Return the bits of a float32 as an int32."""

    def code(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.int32))

    return types.int32(types.float32), code


@compiled
def _exponent_32(x):
    """Return e, with x = 2^e m and m from 0.707 to 1.414."""
    return (_bits_of_float(x) - np.int32(0x3F3504F3)) >> np.int32(23)


@compiled
def _log_32(v, whole):
    """Return 2 atanh(v) + whole ln 2, for v^2 up to 0.0295."""
    w = v * v
    rest = ATANH[3]
    rest = rest * w + ATANH[2]
    rest = rest * w + ATANH[1]
    rest = rest * w + ATANH[0]
    low = np.float32(2.0) * v * (rest * w) + whole * LN2_LOW
    return whole * LN2_HIGH + (np.float32(2.0) * v + low)


@compiled
def _log_1p_32(x):
    one = np.float32(1.0)
    e = _exponent_32(one + x)
    m = _float_of_bits(_bits_of_float(one + x) - (e << np.int32(23)))
    # Below this nothing is rounded away from x.
    tiny = x < SMALL
    v = (x if tiny else m - one) / (np.float32(2.0) + x if tiny else m + one)
    return _log_32(v, np.float32(0.0) if tiny else np.float32(e))


@compiled
def _log_below_32(x):
    one, e = np.float32(1.0), _exponent_32(x)
    m = _float_of_bits(_bits_of_float(x) - (e << np.int32(23)))
    return _log_32((m - one) / (m + one), np.float32(e))


@extending.intrinsic
def _float_of_bits(context, bits):
    """Return the float32 with the bits of an int32."""

    def code(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), code


@compiled
def _exp_minus_32(x):
    kept = min(x, LARGEST)
    shifted = kept * INVERSE_LN2 + ROUNDER
    n = shifted - ROUNDER
    r = (n * LN2_HIGH - kept) + n * LN2_LOW
    value = SERIES[5]
    value = value * r + SERIES[4]
    value = value * r + SERIES[3]
    value = value * r + SERIES[2]
    value = value * r + SERIES[1]
    value = value * r + SERIES[0]
    value = value * (r * r) + r + np.float32(1.0)
    # 2^-n; its bits are all zero for n = 127, so that the largest x need no branch.
    return value * _float_of_bits(ONE_BITS - (_bits_of_float(shifted) << np.int32(23)))


def _by_dtype(name, single, double):
    """Let compiled code call `name` for float32 as one function, for float64 as another."""

    def choose(x):
        chosen = single if x == types.float32 else double
        return lambda x: chosen(x)

    extending.overload(name, inline="always")(choose)


_by_dtype(exp_minus, _exp_minus_32, compiled(lambda x: math.exp(-x)))
_by_dtype(log_1p, _log_1p_32, compiled(lambda x: math.log1p(x)))
_by_dtype(log_below, _log_below_32, compiled(lambda x: math.log(x)))
