"""The Triton code of resampling_chain in the interpreter: the definition's bits, fewest bytes."""

import pytest
import torch
from guard import guarded

from kempe_nb import dispatch
from kempe_nb.kernels.resampling_chain import minimum_bytes, resampling_chain
from kempe_nb.kernels.triton.resampling_chain import CONFIG
from kempe_nb.methods.infinite_memory import zipf_probabilities

BLOCK = CONFIG["BLOCK"]


def law(atoms, dtype=torch.float64):
    return torch.from_numpy(zipf_probabilities(1.5, atoms)).to(dtype) if atoms else torch.empty(0)


def check_equal(probabilities, sample_size, generations, seeds):
    """Check a chain bit for bit against the definition; return its result and what it moved."""
    arguments = probabilities, sample_size, generations, seeds
    with guarded() as moved:
        found = resampling_chain(*arguments, impl="triton")
    expected = resampling_chain(*arguments, impl="definition")
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)
    return found, moved


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("atoms", [0, 1, BLOCK, BLOCK + 1, 61])
def test_shapes_and_dtypes(atoms, dtype):
    check_equal(law(atoms, dtype), 500, 2, [3])


@pytest.mark.parametrize(("generations", "seeds"), [(0, [1]), (3, [])])
def test_nothing_to_do(generations, seeds):
    check_equal(law(5), 100, generations, seeds)


def test_seeds_at_the_borders():
    check_equal(law(20), 50, 2, [0, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1])


def test_seeds_as_a_tensor():
    check_equal(law(20), 50, 2, torch.tensor([-1, -(2**63)]))


@pytest.mark.parametrize("size", [1, 50, 2**31])
def test_branches(size):
    """Fractions alone; fractions and the table; all with the rejection."""
    check_equal(law(40), size, 3, [5])


def test_the_largest_count():
    found, _ = check_equal(torch.tensor([1.0]), 2**31, 3, [1, 2])
    assert found.tokens.min() > 2**31 - 2**20


def test_a_size_for_each_generation():
    check_equal(law(40), [100, 50, 200, 1], 4, [1, 2])


def test_strides():
    check_equal(law(80)[::2], 100, 2, [1])
    check_equal(torch.tensor([0.01]).expand(40), 100, 2, [1])
    check_equal(law(80)[7:50], 100, 2, [1])


def test_the_manager_and_the_variable_choose_triton(monkeypatch):
    with guarded() as moved, dispatch.use("triton"):
        resampling_chain(law(5), 5, 1, [1])
    assert moved.read["law"] == 40
    monkeypatch.setenv(dispatch.VARIABLE, "triton")
    with guarded() as moved:
        resampling_chain(law(5), 5, 1, [1])
    assert moved.read["law"] == 40


def test_the_law_is_read_once_for_each_seed():
    atoms, generations, seeds = 61, 3, [1, 2]
    _, moved = check_equal(law(atoms), 10_000, generations, seeds)
    assert moved.read["law"] == 8 * atoms * len(seeds)
    assert not moved.written


def test_bytes_against_the_minimum():
    """One program whose atoms live on moves the minimum, and the settings of the chain."""
    generations = 3
    _, moved = check_equal(law(BLOCK), 10_000, generations, [1])
    assert moved.read["law"] + 8 * moved.atomics["sums"] == minimum_bytes(BLOCK, generations, 1)
    assert moved.read["ratios"] == 8 * generations and moved.read["seeds"] == 8
    # More programs add to the same three numbers, once for each generation; the two tables stay
    # in the first cache, and a count that they have no part in does not read them.


def test_only_living_generations_are_added_and_a_dead_program_stops():
    atoms, generations = 61, 40
    found, moved = check_equal(law(atoms), 3, generations, [4])
    assert found.survivors[0, -1] == 0, "the chain must die for this test"
    first = [resampling_chain(law(BLOCK), 3, generations, [4]).survivors[0]]
    first.append(found.survivors[0] - first[0])
    lived = [int((part > 0).sum()) for part in first]
    assert moved.atomics["sums"] == 3 * sum(lived)
    # A program looks at one generation more, in which nothing is left, and then at none.
    assert moved.read["ratios"] == 8 * sum(min(n + 1, generations) for n in lived)
