"""Samples of a cut Zipf law from NumPy's sampler of the whole one."""

import numpy as np


def samples(beta: float, vocabulary: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return ranks from 1 to `vocabulary`, int64 [size]; beta must be above 1.

    Ranks behind the vocabulary are drawn again, which leaves exactly the cut law.
    """
    ranks = rng.zipf(beta, size)
    while (behind := np.flatnonzero(ranks > vocabulary)).size:
        ranks[behind] = rng.zipf(beta, behind.size)
    return ranks
