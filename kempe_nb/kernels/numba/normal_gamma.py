"""Twins of `kempe_nb.kernels.normal_gamma` in compiled code: pairs of normal and gamma numbers."""

import math

import numpy as np

from kempe_nb.kernels import normal_gamma as definition
from kempe_nb.kernels.numba import compiled, inlined
from kempe_nb.kernels.numba.exact import block_words, log, uniform_53

TWO_PI, SQUEEZE, ATTEMPTS = definition.TWO_PI, definition.SQUEEZE, definition.ATTEMPTS
TURNS = range(definition.TURN_TERMS, 0, -1)
SINE_STEPS = tuple(1.0 / ((2 * n) * (2 * n + 1)) for n in TURNS)
COSINE_STEPS = tuple(1.0 / ((2 * n - 1) * (2 * n)) for n in TURNS)


@inlined
def normal_pair(w0, w1, w2, w3):
    """Return two independent standard normal numbers for the four words of a block."""
    radius = math.sqrt(-2.0 * log(1.0 - uniform_53(w0, w1)))
    turn = uniform_53(w2, w3)
    quarter = np.floor(4.0 * turn + 0.5)
    angle = TWO_PI * (turn - 0.25 * quarter)
    square = angle * angle
    sine, cosine = 1.0, 1.0
    for step in SINE_STEPS:
        sine = 1.0 - square * step * sine
    for step in COSINE_STEPS:
        cosine = 1.0 - square * step * cosine
    sine = angle * sine
    odd = abs(quarter - 2.0) == 1.0
    across = -radius if abs(quarter - 1.5) < 1.0 else radius
    up = -radius if abs(quarter - 2.5) < 1.0 else radius
    return across * (sine if odd else cosine), up * (cosine if odd else sine)


@inlined
def propose(x, u, d, c):
    """Return (1 + c x)^3 for a normal number, or 0 where a uniform does not accept it."""
    root = 1.0 + c * x
    inside = root > 0.0
    root = root if inside else 1.0
    cube = root * root * root
    square = x * x
    # Without a branch, which would keep a loop from being vector code.
    early = u < 1.0 - SQUEEZE * (square * square)
    late = log(u) < 0.5 * square + d * ((1.0 - cube) + log(cube))
    return cube if inside & (early | late) else 0.0


@inlined
def attempt(number, index, stream, last, k0, k1):
    """Return two normal numbers and two uniforms in (0, 1] for an attempt at a gamma pair."""
    first = last + np.uint64(2) * np.uint64(number)
    w0, w1, w2, w3 = block_words(index, stream, first, k0, k1)
    x, y = normal_pair(w0, w1, w2, w3)
    w0, w1, w2, w3 = block_words(index, stream, first + np.uint64(1), k0, k1)
    return x, y, 1.0 - uniform_53(w0, w1), 1.0 - uniform_53(w2, w3)


@compiled
def later_attempts(one, other, constants, index, stream, last, k0, k1):
    """Return the cubes of a pair of which at least one, being 0, was not accepted at first.

    `constants` is float64 [2, 3], as `GammaShape` has them.
    """
    for number in range(2, ATTEMPTS + 1):
        x, y, u, v = attempt(number, index, stream, last, k0, k1)
        if one == 0.0:
            one = propose(x, u, constants[0, 0], constants[0, 1])
        if other == 0.0:
            other = propose(y, v, constants[1, 0], constants[1, 1])
        if one > 0.0 and other > 0.0:
            break
    return one if one > 0.0 else 1.0, other if other > 0.0 else 1.0
