"""Twins of `kempe_nb.kernels.elementary` and of a block of Philox: the same bits in compiled code.

`kempe_nb.kernels.numba.elementary` is faster and right to rounding; what is here has the steps of
the definition, one rounding for each, and loops can take it as vector instructions.
"""

import numpy as np
from numba import extending, types

from kempe_nb.kernels import elementary, philox
from kempe_nb.kernels.numba import inlined

LN2_HIGH, LN2_LOW = elementary.LN2_HIGH, elementary.LN2_LOW
INVERSE_LN2, SQRT2 = elementary.INVERSE_LN2, elementary.SQRT2
LARGEST_EXPONENT = elementary.LARGEST_EXPONENT
#: The constants of both series as the definition rounds them, in the order in which they are used.
EXP_STEPS = tuple(1.0 / n for n in range(elementary.EXP_TERMS, 0, -1))
ATANH_STEPS = tuple(1.0 / (2 * n + 1) for n in range(elementary.ATANH_TERMS, 0, -1))

MULTIPLIERS = philox._MULTIPLIERS
#: What is added to the two words of the key in each round, modulo 2**32.
STEPS = tuple(
    tuple(np.uint64(n * step % philox.WORD) for step in philox._KEY_STEPS)
    for n in range(philox.ROUNDS)
)
LOW, HALF, ELEVEN = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(11)


def _cast(source, target):
    """Return an intrinsic that keeps the 64 bits of a number and changes its type."""

    @extending.intrinsic
    def cast(context, value):
        def code(context, builder, signature, arguments):
            return builder.bitcast(arguments[0], context.get_value_type(target))

        return target(source), code

    return cast


bits_of = _cast(types.float64, types.int64)
float_of = _cast(types.int64, types.float64)


@inlined
def exp_minus(x):
    """Return e^-x for x >= 0; zero above `LARGEST_EXPONENT`."""
    kept = min(x, LARGEST_EXPONENT)
    power = np.floor(kept * INVERSE_LN2 + 0.5)
    rest = (kept - power * LN2_HIGH) - power * LN2_LOW
    series = 1.0
    for step in EXP_STEPS:
        series = 1.0 - rest * step * series
    value = series * float_of((1023 - np.int64(power)) << 52)
    return 0.0 if x > LARGEST_EXPONENT else value


@inlined
def log(x):
    """Return the natural logarithm of a normal positive number."""
    bits = bits_of(x)
    mantissa = float_of((bits & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000)
    upper = mantissa > SQRT2
    mantissa = mantissa * 0.5 if upper else mantissa
    exponent = np.float64((bits >> 52) - 1023 + (1 if upper else 0))
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    square = ratio * ratio
    series = ATANH_STEPS[0]
    for step in ATANH_STEPS[1:]:
        series = series * square + step
    low = 2.0 * ratio * (series * square) + exponent * LN2_LOW
    return exponent * LN2_HIGH + (2.0 * ratio + low)


@inlined
def block_words(index, stream, last, k0, k1):
    """Return the four words of block `index`, all uint64; `last` is the fourth of the counter."""
    c0, c1, c2, c3 = index & LOW, index >> HALF, stream & LOW, last & LOW
    for steps in STEPS:
        left, right = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        own, other = (k0 + steps[0]) & LOW, (k1 + steps[1]) & LOW
        c0, c2 = (right >> HALF) ^ c1 ^ own, (left >> HALF) ^ c3 ^ other
        c1, c3 = right & LOW, left & LOW
    return c0, c1, c2, c3


@inlined
def uniform_53(low, high):
    """Return a number in [0, 1) from the upper 53 bits of two words."""
    return np.float64(np.int64(((high << HALF) | low) >> ELEVEN)) * 2.0**-53
