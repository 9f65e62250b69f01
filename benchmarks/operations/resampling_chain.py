"""Chains of Poisson resampling: ours beside loops of library calls."""

import functools

import numpy as np
import torch

from benchmarks.peers import numpy_poisson, torch_multinomial, torch_poisson
from benchmarks.registry import Case, Implementation, Operation, Sizes, ours, within_five_errors
from kempe_nb.kernels import resampling_chain as module
from kempe_nb.methods.infinite_memory import effective_samples

LOOP, COMPILED = "torch.poisson", "torch.poisson compiled"
NUMPY, LIVING = "numpy poisson", "numpy poisson, living atoms"
TOKENS = "torch.multinomial + bincount"


def _case(atoms: int, seeds: int, *over_a_minute: str, beta=1.5, sample_size=10**6) -> Case:
    """Return a case of 50 generations; its small version expects as much of an atom."""
    small = {"atoms": 1000, "seeds": 64, "generations": 5, "beta": beta, "sample_size": 10**4}
    if not beta:
        # All atoms alike and about three tokens each, so that some of them die.
        small["sample_size"] = 3000
    sizes = {"atoms": atoms, "seeds": seeds, "generations": 50}
    return Case(sizes | {"beta": beta, "sample_size": sample_size}, small, over_a_minute)


CASES = (
    # Few atoms: a GPU waits for launches, a CPU for Python.
    _case(10**4, 1),
    _case(10**4, 64, TOKENS),
    # All atoms alike, a thousand tokens each, and nobody dies: there is nothing to leave out.
    _case(10**5, 1, TOKENS, beta=0, sample_size=10**8),
    # The shape of the chapter: one atom in eighty lives.
    _case(10**6, 1),
    # A heavier tail, of which more atoms live.
    _case(10**6, 1, beta=1.2),
    # Enough work for a GPU.
    _case(10**6, 64, TOKENS),
    # Beyond every cache.
    _case(10**7, 1),
    _case(10**7, 64, LOOP, COMPILED, NUMPY, TOKENS),
)


def minimum_bytes(sizes: Sizes, dtype: str) -> int:
    """Return the bytes of the law, read once, and of the three outputs."""
    return module.OPERATION.minimum_bytes(sizes["atoms"], sizes["generations"], sizes["seeds"])


@functools.cache
def zipf(atoms: int, beta: float) -> np.ndarray:
    """Return the Zipf law of so many atoms, float64 [atoms]; beta = 0 is the uniform one."""
    weights = np.arange(1, atoms + 1, dtype=np.float64) ** -beta
    return weights / weights.sum()


def check(found: list[np.ndarray], sizes: Sizes, dtype: str) -> str:
    """Hold the means over seeds to their closed forms, in which every atom is independent."""
    shape = sizes["seeds"], sizes["generations"]
    if any(values.shape != shape for values in found):
        return f"the outputs have the shapes {[values.shape for values in found]}"
    law, generations = zipf(sizes["atoms"], sizes["beta"]), np.arange(1, shape[1] + 1)
    sizes_of_one = [effective_samples(np.inf, sizes["sample_size"], g) for g in generations]
    dead = np.exp(-np.multiply.outer(sizes_of_one, law))
    spread = dead * (1 - dead)
    expected = {
        "the lost mass": (dead @ law, spread @ law**2),
        "the number of survivors": (len(law) - dead.sum(1), spread.sum(1)),
        # A critical branching process keeps its mean, and its variance grows by it each time.
        "the number of tokens": (sizes["sample_size"], sizes["sample_size"] * generations),
    }
    faults = (
        within_five_errors(name, values.mean(0), mean, variance, shape[0])
        for values, (name, (mean, variance)) in zip(found, expected.items(), strict=True)
    )
    return next(filter(None, faults), "")


def _ours(impl: str):
    def prepare(sizes: Sizes, dtype: str, device: str):
        law, seeds = _law(sizes, device), range(sizes["seeds"])
        size, generations = sizes["sample_size"], sizes["generations"]
        return lambda: module.resampling_chain(law, size, generations, seeds, impl=impl)

    return prepare


def _torch_poisson(sizes: Sizes, dtype: str, device: str):
    law, arguments = _law(sizes, device), _arguments(sizes)
    return lambda: torch_poisson.chain(law, *arguments)


def _compiled(sizes: Sizes, dtype: str, device: str):
    law, arguments = _law(sizes, device), _arguments(sizes)
    step = torch_poisson.compiled_generation()
    return lambda: torch_poisson.chain(law, *arguments, step=step)


def _multinomial(sizes: Sizes, dtype: str, device: str):
    law, arguments = _law(sizes, device), _arguments(sizes)
    return lambda: torch_multinomial.chain(law, *arguments)


def _numpy(living_only: bool):
    def prepare(sizes: Sizes, dtype: str, device: str):
        law, arguments = zipf(sizes["atoms"], sizes["beta"]), _arguments(sizes)
        rng = np.random.default_rng(0)
        return lambda: numpy_poisson.chain(law, *arguments, rng, living_only=living_only)

    return prepare


def _law(sizes: Sizes, device: str) -> torch.Tensor:
    """Return the law on a device, and start torch's own random numbers anew."""
    torch.manual_seed(0)
    return torch.from_numpy(zipf(sizes["atoms"], sizes["beta"])).to(device)


def _arguments(sizes: Sizes) -> tuple[int, int, int]:
    return sizes["sample_size"], sizes["generations"], sizes["seeds"]


OPERATION = Operation(
    name=module.OPERATION.name,
    dtypes=("float64",),
    cases=CASES,
    implementations=(
        *ours(module.OPERATION, _ours),
        Implementation(LOOP, _torch_poisson),
        Implementation(COMPILED, _compiled, eager=False, obstacle=torch_poisson.compile_obstacle),
        Implementation(TOKENS, _multinomial),
        Implementation(NUMPY, _numpy(living_only=False), ("cpu",), eager=False),
        # The same idea as our definition without its bits: what they cost stands beside it.
        Implementation(LIVING, _numpy(living_only=True), ("cpu",), eager=False),
    ),
    minimum_bytes=minimum_bytes,
    check=check,
)
