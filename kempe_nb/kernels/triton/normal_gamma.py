"""Triton twins of `kempe_nb.kernels.normal_gamma`: a pair of numbers for each lane of a block."""

import triton
import triton.language as tl

from kempe_nb.kernels import normal_gamma as definition
from kempe_nb.kernels.triton.elementary import log
from kempe_nb.kernels.triton.philox import block_words, uniform_53

TWO_PI, SQUEEZE = tl.constexpr(definition.TWO_PI), tl.constexpr(definition.SQUEEZE)
TERMS, ATTEMPTS = tl.constexpr(definition.TURN_TERMS), tl.constexpr(definition.ATTEMPTS)


@triton.jit
def normal_pair(w0, w1, w2, w3):
    """Return two independent standard normal numbers for the four words of each block."""
    radius = tl.sqrt(-2.0 * log(1.0 - uniform_53(w0, w1)))
    turn = uniform_53(w2, w3)
    quarter = tl.floor(4.0 * turn + 0.5)
    angle = (turn - 0.25 * quarter) * TWO_PI
    square = angle * angle
    sine = square * 0.0 + 1.0
    cosine = square * 0.0 + 1.0
    for step in tl.static_range(TERMS):
        # A name for TERMS - step would be a number of the device, and its inverse a float32.
        sine = 1.0 - square * (1.0 / (2 * (TERMS - step) * (2 * (TERMS - step) + 1))) * sine
        cosine = 1.0 - square * (1.0 / (2 * (TERMS - step) * (2 * (TERMS - step) - 1))) * cosine
    sine = angle * sine
    odd = tl.abs(quarter - 2.0) == 1.0
    across = tl.where(tl.abs(quarter - 1.5) < 1.0, -radius, radius)
    up = tl.where(tl.abs(quarter - 2.5) < 1.0, -radius, radius)
    return across * tl.where(odd, sine, cosine), up * tl.where(odd, cosine, sine)


@triton.jit
def propose(x, u, d, c):
    """Return (1 + c x)^3 for normal numbers, or 0 where a uniform does not accept it."""
    root = 1.0 + c * x
    inside = root > 0.0
    root = tl.where(inside, root, 1.0)
    cube = root * root * root
    square = x * x
    early = u < 1.0 - (square * square) * SQUEEZE
    late = log(u) < 0.5 * square + d * ((1.0 - cube) + log(cube))
    return tl.where(inside & (early | late), cube, 0.0)


@triton.jit
def gamma_pair(shapes, seed, index, stream, inside, PURPOSE: tl.constexpr):
    """Return two gamma numbers for each lane that is `inside`, without the factors of small shapes.

    `shapes` points to the constants of the two shapes, [2, 3].
    """
    d, c = tl.load(shapes), tl.load(shapes + 1)
    other_d, other_c = tl.load(shapes + 3), tl.load(shapes + 4)
    one = (index * 0).to(tl.float64)
    other = one
    trial = tl.full((1,), 2, tl.uint32)
    attempt = 0
    left = tl.max(inside.to(tl.int32))
    while (left > 0) & (attempt < ATTEMPTS):
        w0, w1, w2, w3 = block_words(seed, index, stream, PURPOSE, trial)
        x, y = normal_pair(w0, w1, w2, w3)
        w0, w1, w2, w3 = block_words(seed, index, stream, PURPOSE, trial + 1)
        # What was accepted before stays; a cube is never 0.
        one = tl.where(one > 0.0, one, propose(x, 1.0 - uniform_53(w0, w1), d, c))
        other = tl.where(other > 0.0, other, propose(y, 1.0 - uniform_53(w2, w3), other_d, other_c))
        pending = inside & ((one == 0.0) | (other == 0.0))
        trial += 2
        attempt += 1
        left = tl.max(pending.to(tl.int32))
    return d * tl.where(one > 0.0, one, 1.0), other_d * tl.where(other > 0.0, other, 1.0)


@triton.jit
def gamma_logs(shapes, seed, index, stream, PURPOSE: tl.constexpr):
    """Return the logarithms of the factors of the two shapes; 0 for a shape from 1 on."""
    trial = tl.full((1,), 0, tl.uint32)
    w0, w1, w2, w3 = block_words(seed, index, stream, PURPOSE, trial)
    one = log(1.0 - uniform_53(w0, w1)) * tl.load(shapes + 2)
    return one, log(1.0 - uniform_53(w2, w3)) * tl.load(shapes + 5)
