"""Normal and gamma numbers whose bits are the same on a CPU and on a GPU.

Normal numbers come in pairs, by Box and Muller ("A note on the generation of random normal
deviates", 1958): a radius sqrt(-2 ln u) and an angle 2 pi a. The angle is taken to the nearest
quarter turn exactly, and what is left of it goes into two short series.

Gamma numbers come in pairs too, one of each of two shapes, by Marsaglia and Tsang ("A simple method
for generating gamma variables", 2000). For a shape A from 1 on, with d = A - 1/3 and c = 1/(3
sqrt d), a normal x proposes d v with v = (1 + c x)^3, and it is accepted with probability
min(1, e^(x^2/2) v^d e^(d (1 - v))). More than 95 % are. A shape below 1 takes the number of shape
A + 1 times u^(1/A), and this factor may be smaller than any float64; it is returned as its
logarithm.

Counter of a pair of gamma numbers (see `kempe_nb.kernels.philox`): the caller's index, stream and
purpose. Block 0 holds the two u of shapes below 1. Attempt k = 1, 2, ... takes block 2k for the two
normals, and block 2k + 1 for the two uniforms that accept. All arithmetic is that of
`kempe_nb.kernels.elementary`, in one order, so every comparison has the same outcome everywhere.
"""

import math
from dataclasses import dataclass

import numpy as np

from kempe_nb.checks import checked_number, keep_checked
from kempe_nb.kernels import elementary
from kempe_nb.kernels.philox import last_word, philox_4x32, split_words, uniform_53

TWO_PI = 6.283185307179586
#: Terms of the series of sine and cosine behind the first, for angles up to pi/4.
TURN_TERMS = 8
#: Marsaglia and Tsang: below 1 - 0.0331 x^4 a uniform is accepted without a logarithm.
SQUEEZE = 0.0331
#: Attempts at a gamma number. All fail with a probability below 1e-80; then d stands for it.
ATTEMPTS = 64
#: Shapes that are taken. Beyond, rounding would show in the probability of acceptance.
SMALLEST_SHAPE, LARGEST_SHAPE = 2.0**-31, 2.0**31


@dataclass(frozen=True)
class GammaShape:
    """The shape of a gamma law with scale 1, and what is needed to draw from it.

    Raises
    ------
    ValueError
        For a shape that is no number from 2**-31 to 2**31.
    """

    shape: float

    def __post_init__(self):
        beyond = math.nextafter(LARGEST_SHAPE, math.inf)
        accepted = "a number from 2**-31 to 2**31"
        shape = checked_number(self.shape, "shape", SMALLEST_SHAPE, beyond, accepted)
        keep_checked(self, shape=shape)

    @property
    def constants(self) -> tuple[float, float, float]:
        """d, c and the power 1/A of the factor u, which is 0 for shapes from 1 on."""
        boosted = self.shape < 1
        d = (self.shape + 1 if boosted else self.shape) - 1 / 3
        return d, 1 / (3 * math.sqrt(d)), 1 / self.shape if boosted else 0.0


def normal_pair(words) -> tuple[np.ndarray, np.ndarray]:
    """Return two independent standard normal numbers for the four words of each block, float64.

    None is farther from 0 than 8.6, for the radius has 53 bits.
    """
    radius = np.sqrt(-2.0 * elementary.log(positive_uniform(words[0], words[1])))
    turn = uniform_53(words[2], words[3])
    quarter = np.floor(4.0 * turn + 0.5)
    angle = TWO_PI * (turn - 0.25 * quarter)
    square = angle * angle
    sine, cosine = np.ones_like(angle), np.ones_like(angle)
    for n in range(TURN_TERMS, 0, -1):
        sine = 1.0 - square * (1.0 / ((2 * n) * (2 * n + 1))) * sine
        cosine = 1.0 - square * (1.0 / ((2 * n - 1) * (2 * n))) * cosine
    sine = angle * sine
    # Quarters 0 to 4: an odd one swaps the two, and a half turn changes signs.
    odd = np.abs(quarter - 2.0) == 1.0
    across = np.where(np.abs(quarter - 1.5) < 1.0, -radius, radius)
    up = np.where(np.abs(quarter - 2.5) < 1.0, -radius, radius)
    return across * np.where(odd, sine, cosine), up * np.where(odd, cosine, sine)


def positive_uniform(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return float64 numbers in (0, 1] from the upper 53 bits of two words."""
    return 1.0 - uniform_53(low, high)


def gamma_pair(first: GammaShape, second: GammaShape, key, index, stream, purpose: int):
    """Return two independent gamma numbers for each lane, each as a number and a logarithm.

    Parameters
    ----------
    first, second : GammaShape
    key : two scalars of uint64, the words of the seed
    index : array of uint64 [L], the lanes' positions in the stream
    stream : uint64 below 2**32

    Returns
    -------
    numbers, logs : float64 [2, L]
        The gamma numbers are numbers * e^logs; the logarithms are 0 for a shape from 1 on.
    """
    constants = first.constants, second.constants
    numbers, logs = np.ones((2, len(index))), np.zeros((2, len(index)))
    if any(power for _, _, power in constants):
        w0, w1, w2, w3 = _block(key, index, stream, purpose, 0)
        for row, words in enumerate(((w0, w1), (w2, w3))):
            logs[row] = elementary.log(positive_uniform(*words)) * constants[row][2]
    pending, waiting = np.arange(len(index)), np.ones((2, len(index)), dtype=bool)
    for attempt in range(1, ATTEMPTS + 1):
        own = index[pending]
        normals = normal_pair(_block(key, own, stream, purpose, 2 * attempt))
        w0, w1, w2, w3 = _block(key, own, stream, purpose, 2 * attempt + 1)
        uniforms = positive_uniform(w0, w1), positive_uniform(w2, w3)
        for row, (d, c, _) in enumerate(constants):
            cube, accepted = propose(normals[row], uniforms[row], d, c)
            new = accepted & waiting[row, pending]
            numbers[row, pending[new]] = cube[new]
            waiting[row, pending[new]] = False
        pending = pending[waiting[:, pending].any(axis=0)]
        if not len(pending):
            break
    return numbers * [[constants[0][0]], [constants[1][0]]], logs


def propose(x: np.ndarray, u: np.ndarray, d: float, c: float) -> tuple[np.ndarray, np.ndarray]:
    """Return v = (1 + c x)^3 for normal numbers, and whether a uniform accepts it."""
    root = 1.0 + c * x
    inside = root > 0
    root = np.where(inside, root, 1.0)
    cube = root * root * root
    square = x * x
    accepted = u < 1.0 - SQUEEZE * (square * square)
    close = np.flatnonzero(~accepted)
    v = cube[close]
    bound = 0.5 * square[close] + d * ((1.0 - v) + elementary.log(v))
    accepted[close] = elementary.log(u[close]) < bound
    return cube, inside & accepted


def _block(key, index, stream, purpose, trial):
    return philox_4x32((*split_words(index), np.uint64(stream), last_word(purpose, trial)), key)
