"""Generations of models that learn from each other's samples: a chain of Poisson resampling.

The chain of *A Tale of Tails* (Dohmatob et al., ICML 2024) in its simplest form. A first model
draws a sample of mean size T_1 from a law p; every later model draws a sample of mean size T_g from
the empirical counts of the one before it. With Poissonised counts the atoms of the law are
independent of each other:

    N_i^1 ~ Poisson(T_1 p_i),    N_i^g ~ Poisson(N_i^(g-1) T_g / T_(g-1)).

With one size for all generations each atom is a critical branching process: its mean never changes
and it dies with certainty. An atom that has died stays dead, and its probability is lost. The
expected lost mass has a closed form, sum_i p_i exp(-T_eff p_i), with
T_eff = `kempe_nb.methods.infinite_memory.effective_samples`.

Counter of a draw (see `kempe_nb.kernels.philox`): the key is the seed, the index is the atom, the
stream is the generation. So the draws of an atom depend neither on the other atoms nor on how many
there are. Probabilities are summed as integers in units of 2**-62, in which order does not matter:
results have the same bits on every device and for every partition of the work.

Cost. Every atom is drawn once; after that only the living ones, and of a Zipf law with beta = 1.5
and a sample of 1e6 only 1.3 % of 1e6 atoms live. The definition sieves all atoms with one random
word each and keeps a list of the living. The Triton kernel runs all generations of 32 atoms in one
program, which stops when its last atom dies. It reads each probability once for each seed and holds
everything else in registers; a loop of library calls passes over all atoms six times or more for
each generation.

When not to use it: for one generation of a law whose atoms nearly all live, where
`numpy.random.Generator.multinomial` does as well.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from kempe_nb.checks import check_dtype, check_finite, checked_integer, common_device
from kempe_nb.dispatch import Operation
from kempe_nb.kernels.philox import CHUNK, Purpose, split_words
from kempe_nb.kernels.poisson import LARGEST_MEAN, may_be_positive, poisson

#: Probabilities are summed as integers in units of 2**-62.
MASS_SCALE = 2.0**62
#: Lanes (atoms times seeds) that the definition holds at a time.
LARGEST_GROUP = 2**24


class ResamplingChain(NamedTuple):
    """What each generation of each seed has left, all [seeds, generations]."""

    #: Probability of the atoms that are dead, float64; a multiple of 2**-62 before rounding.
    lost_mass: torch.Tensor
    #: Number of living atoms, int64.
    survivors: torch.Tensor
    #: Size of the sample, the sum of all counts, int64.
    tokens: torch.Tensor


def resampling_chain(
    probabilities: torch.Tensor,
    sample_size: int | Sequence[int],
    generations: int,
    seeds: Sequence[int] | torch.Tensor,
    *,
    impl: str | None = None,
) -> ResamplingChain:
    """Run a chain of resampling for every seed and return what is left after each generation.

    Parameters
    ----------
    probabilities : float32 or float64 [N]
        The law, on any device and with any strides. Its sum may be below one: the first atoms of a
        longer law are a law of their own here.
    sample_size : int, or one int for each generation
        T_g, the mean size of a sample. No atom may expect more than 2**31 tokens.
    generations : int
        G, from 0 to 2**24.
    seeds : sequence of int, or int64 [S]
        One independent chain for each; an int from 0 to 2**64 - 1. A tensor must be on the device
        of `probabilities`; its negative numbers stand for the seeds with the same 64 bits.
    impl : {"definition", "triton"}, optional
        See `kempe_nb.dispatch`.

    Returns
    -------
    ResamplingChain
        Three tensors [S, G] on the device of `probabilities`.

    Raises
    ------
    TypeError, ValueError
        For a wrong dtype or shape; probabilities that are negative, not finite or sum to more than
        one; sizes, generations or seeds out of range; more than 2**40 atoms.
    kempe_nb.dispatch.ImplementationUnavailable
        If Triton was asked for and cannot run.
    """
    law = _checked_law(probabilities)
    generations = checked_integer(generations, "generations", 0, 2**24)
    sizes = _checked_sizes(sample_size, generations, law)
    if isinstance(seeds, torch.Tensor):
        common_device(probabilities=law, seeds=seeds)
    keys = _checked_seeds(seeds)
    choice = OPERATION.choose(law.device, impl)
    # T_1 for the first generation and the growth of the sample for the others.
    ratios = sizes / np.concatenate([[1.0], sizes[:-1]])[: len(sizes)]
    if choice.implementation == "triton":
        from kempe_nb.kernels.triton import resampling_chain as device_code

        total, (alive, survivors, tokens) = device_code.run(law, ratios, keys, MASS_SCALE)
    else:
        host = law.detach().cpu().to(torch.float64).contiguous().numpy()
        stats = np.zeros((3, len(keys), generations), dtype=np.int64)
        total = _run(host, ratios, keys, stats)
        alive, survivors, tokens = torch.from_numpy(stats).to(law.device)
    lost = (total - alive).to(torch.float64) / MASS_SCALE
    return ResamplingChain(lost, survivors, tokens)


def minimum_bytes(atoms: int, generations: int, seeds: int) -> int:
    """Return the bytes that a chain must move: the law read once, three results written."""
    return 8 * atoms + 3 * 8 * seeds * generations


OPERATION = Operation(
    "resampling_chain",
    dtypes=(torch.float32, torch.float64),
    minimum_bytes=minimum_bytes,
    exact=True,
)


def _run(law: np.ndarray, ratios: np.ndarray, keys: np.ndarray, stats: np.ndarray) -> int:
    """Fill `stats` [3, S, G] with living mass, survivors and tokens; return the mass of the law."""
    parts = (law[start : start + CHUNK] for start in range(0, len(law), CHUNK))
    total = sum(int(_mass(part).sum()) for part in parts)
    if stats.size and law.size:
        group = max(1, LARGEST_GROUP // len(law))
        for start in range(0, len(keys), group):
            part = slice(start, start + group)
            lanes = _first_lanes(law, ratios[0], keys[part])
            _follow(lanes, law, ratios, keys[part], stats[:, part])
    return total


def _mass(law: np.ndarray) -> np.ndarray:
    """Return probabilities in units of 2**-62, int64, halves rounded to even."""
    return np.rint(law * MASS_SCALE).astype(np.int64)


def _first_lanes(law: np.ndarray, size: float, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lanes that may live after the first sample as (seed, atom), sorted by seed."""
    found = []
    for seeds, atoms in _tiles(len(keys), len(law)):
        own = keys[seeds]
        # One seed is a scalar key, whose rounds cost less.
        words = split_words(own[:, None] if len(own) > 1 else own[0])
        index = np.arange(atoms.start, atoms.stop, dtype=np.uint64)
        mean = law[atoms] * size
        close = may_be_positive(mean, words, index, 1, Purpose.RESAMPLING_CHAIN)
        row, column = np.divmod(np.flatnonzero(close), len(index))
        found.append((row + seeds.start, column + atoms.start))
    seed, atom = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.argsort(seed, kind="stable")
    return seed[order], atom[order]


def _follow(lanes, law, ratios, keys, stats) -> None:
    """Run all generations on the lanes that may live; fill `stats` [3, S, G]."""
    seed, atom = lanes
    # The first generation samples the law itself: its mean is the probability times T_1.
    count, mass = law[atom], _mass(law[atom])
    for generation, ratio in enumerate(ratios):
        count = _step(seed, atom, count, ratio, keys, generation + 1)
        living = np.flatnonzero(count)
        seed, atom, mass, count = (part[living] for part in (seed, atom, mass, count))
        bounds = np.searchsorted(seed, np.arange(len(keys) + 1))
        for row, values in enumerate((mass, np.ones_like(count), count)):
            # A sum over all seeds may wrap at 2**63; the differences are right all the same.
            sums = np.concatenate([[0], np.cumsum(values)])
            stats[row, :, generation] = np.diff(sums[bounds])


def _step(seed, atom, count, ratio, keys, generation) -> np.ndarray:
    """Return the counts of the next generation, computed in parts that fit into the cache."""
    following = np.empty(len(count), dtype=np.int64)
    for start in range(0, len(count), CHUNK):
        part = slice(start, start + CHUNK)
        # One seed is a scalar key, with half the work in each round.
        own = keys[seed[part]] if len(keys) > 1 else keys[0]
        index = atom[part].astype(np.uint64)
        mean = count[part] * ratio
        words = split_words(own)
        following[part] = poisson(mean, words, index, generation, Purpose.RESAMPLING_CHAIN)
    return following


def _tiles(seeds: int, atoms: int) -> Iterator[tuple[slice, slice]]:
    """Return slices of seeds and atoms that together cover all pairs, about `CHUNK` at a time."""
    rows = max(1, CHUNK // atoms)
    for column in range(0, atoms, CHUNK):
        for row in range(0, seeds, rows):
            yield slice(row, min(row + rows, seeds)), slice(column, min(column + CHUNK, atoms))


def _checked_law(probabilities: object) -> torch.Tensor:
    common_device(probabilities=probabilities)
    check_dtype(probabilities, "probabilities", OPERATION.dtypes)
    if probabilities.ndim != 1 or len(probabilities) > 2**40:
        shape = tuple(probabilities.shape)
        raise ValueError(f"probabilities has shape {shape}; accepted is one axis of up to 2**40")
    law = probabilities.detach()
    if len(law):
        check_finite(law, "probabilities")
        low, total = float(law.min()), float(law.sum(dtype=torch.float64))
        if low < 0:
            raise ValueError(f"probabilities holds {low:g}; accepted are numbers from 0 on")
        if total > 1 + 1e-6:
            raise ValueError(f"probabilities sums to {total:.9g}; accepted is at most 1")
    return law


def _checked_sizes(sample_size: object, generations: int, law: torch.Tensor) -> np.ndarray:
    """Return T_1, ..., T_G as float64 [G]."""
    if isinstance(sample_size, int | np.integer):
        given = [sample_size] * generations
    elif isinstance(sample_size, Sequence | np.ndarray):
        given = list(sample_size)
    else:
        raise TypeError(
            f"sample_size is {sample_size!r}; accepted is an integer, or a sequence of integers"
        )
    if len(given) != generations:
        raise ValueError(
            f"sample_size holds {len(given)} sizes for {generations} generations; accepted is an "
            "integer, or one for each generation"
        )
    sizes = np.array([checked_integer(size, "sample_size", 1, 2**53) for size in given], float)
    largest = float(law.max()) * sizes.max(initial=0.0) if len(law) else 0.0
    if largest > LARGEST_MEAN:
        raise ValueError(
            f"sample_size is {sizes.max():.3g}: the most frequent atom would count {largest:.3g} "
            f"tokens; accepted are up to 2**31 = {LARGEST_MEAN}"
        )
    # An atom that lives has one token at least, however little its mean.
    growth = float((sizes / np.minimum.accumulate(sizes)).max(initial=0.0))
    if growth > LARGEST_MEAN:
        raise ValueError(
            f"sample_size grows {growth:.3g} times: so many tokens would follow from a single one; "
            f"accepted are up to 2**31 = {LARGEST_MEAN}"
        )
    return sizes


def _checked_seeds(seeds: object) -> np.ndarray:
    """Return the seeds as uint64 [S]."""
    if isinstance(seeds, torch.Tensor):
        if seeds.dtype != torch.int64 or seeds.ndim != 1:
            raise TypeError(f"seeds is {seeds.dtype} with {seeds.ndim} axes; accepted is int64 [S]")
        return seeds.cpu().numpy().view(np.uint64)
    if not isinstance(seeds, Sequence | np.ndarray):
        raise TypeError(f"seeds is {seeds!r}; accepted is a sequence of integers, such as [7]")
    return np.array([checked_integer(s, "seeds", 0, 2**64 - 1) for s in seeds], dtype=np.uint64)
