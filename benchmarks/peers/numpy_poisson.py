"""The chain of resampling by `numpy.random.Generator.poisson`: of all atoms, or of the living."""

import numpy as np


def chain(
    law: np.ndarray,
    sample_size: int,
    generations: int,
    seeds: int,
    rng: np.random.Generator,
    *,
    living_only: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return lost mass float64, survivors and tokens int64, each [seeds, generations].

    Parameters
    ----------
    law : float64 [N]
    living_only : bool
        Whether atoms that have died are dropped, as our definition does.
    """
    lost = np.empty((seeds, generations))
    survivors = np.empty((seeds, generations), dtype=np.int64)
    tokens = np.empty((seeds, generations), dtype=np.int64)
    total = law.sum()
    for seed in range(seeds):
        counts, masses = law * sample_size, law
        for generation in range(generations):
            counts = rng.poisson(counts)
            if living_only:
                living = counts > 0
                counts, masses = counts[living], masses[living]
                lost[seed, generation] = total - masses.sum()
                survivors[seed, generation] = len(counts)
            else:
                lost[seed, generation] = (counts == 0) @ law
                survivors[seed, generation] = np.count_nonzero(counts)
            tokens[seed, generation] = counts.sum()
    return lost, survivors, tokens
