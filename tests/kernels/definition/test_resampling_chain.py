"""The chain of resampling: closed forms, a plain loop, independence of atoms, and bad input."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from kempe_nb.dispatch import ImplementationUnavailable
from kempe_nb.kernels import resampling_chain as module
from kempe_nb.kernels.philox import Purpose, split_words
from kempe_nb.kernels.poisson import poisson
from kempe_nb.kernels.resampling_chain import resampling_chain
from kempe_nb.methods import infinite_memory

UNIT = 2**62
#: Fixed seeds make these tests exact; the bounds are what chance exceeds once in 10,000 times.
RARE = 1e-4
ATOMS, SIZE, SEEDS = 20_000, 10_000, range(40)
GENERATIONS = (1, 2, 5, 10, 50, 100)


def zipf(beta, atoms=ATOMS):
    return torch.from_numpy(infinite_memory.zipf_probabilities(beta, atoms))


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def exact_units(p):
    """Return probabilities as Python integers, rounded to units of 2**-62."""
    return [round(value * UNIT) for value in np.asarray(p, dtype=np.float64).tolist()]


# Closed forms


def assert_mean_lost(lost, p, effective):
    """Compare the mean over seeds with sum p exp(-T_eff p), within four exact standard errors."""
    dead = torch.exp(-effective * p)
    expected = float((p * dead).sum())
    # Atoms are independent, and each is dead or not.
    error = math.sqrt(float((p.square() * dead * (1 - dead)).sum()) / len(lost))
    assert abs(float(lost.mean()) - expected) < 4 * error


@pytest.mark.parametrize("beta", [1.2, 1.5, 2.0, 3.0])
def test_lost_mass_and_survivors_have_their_closed_form(beta):
    p = zipf(beta)
    chain = resampling_chain(p, SIZE, max(GENERATIONS), SEEDS)
    for n in GENERATIONS:
        effective = float(infinite_memory.effective_samples(np.inf, SIZE, n))
        assert_mean_lost(chain.lost_mass[:, n - 1], p, effective)
        alive = -torch.expm1(-effective * p)
        error = math.sqrt(float((alive * (1 - alive)).sum()) / len(SEEDS))
        mean = float(chain.survivors[:, n - 1].double().mean())
        assert abs(mean - float(alive.sum())) < 4 * error


@pytest.mark.parametrize("n", [1, 2, 5, 10])
@pytest.mark.parametrize("last", [SIZE // 3, 4 * SIZE])
def test_a_last_sample_of_another_size_has_its_closed_form(n, last):
    p = zipf(1.5)
    chain = resampling_chain(p, [SIZE] * n + [last], n + 1, SEEDS)
    effective = float(infinite_memory.effective_samples(last, SIZE, n))
    assert_mean_lost(chain.lost_mass[:, n], p, effective)


def poisson_cascade(size, generations):
    """Return the second and fourth cumulant of the tokens after each generation.

    Each token has a Poisson number of offspring with mean 1, so the cumulants k of a generation
    become sums of S(i, j) k_j with Stirling numbers S of the second kind.
    """
    stirling = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 3, 1, 0], [1, 7, 6, 1]])
    cumulants = np.full(4, float(size))
    for _ in range(generations):
        yield cumulants[1], cumulants[3]
        cumulants = stirling @ cumulants


def test_tokens_keep_their_mean_and_gain_one_size_of_variance_each_generation():
    size, generations, seeds = 3000, 6, 3000
    p = torch.full((30,), 1 / 30, dtype=torch.float64)
    tokens = resampling_chain(p, size, generations, range(seeds)).tokens.double()
    cumulants = list(poisson_cascade(size, generations))
    assert [variance for variance, _ in cumulants] == [size * n for n in range(1, 7)]
    deviation = tokens - size
    for n, (variance, fourth) in enumerate(cumulants):
        z = float(deviation[:, n].mean()) / math.sqrt(variance / seeds)
        spread = math.sqrt((fourth + 2 * variance**2) / seeds)
        z_variance = (float(deviation[:, n].square().mean()) - variance) / spread
        assert max(abs(z), abs(z_variance)) < stats.norm.isf(RARE / 4 / generations)


def test_a_sample_of_another_size_has_that_mean():
    sizes = [2000, 500, 8000]
    p = torch.full((40,), 1 / 40, dtype=torch.float64)
    tokens = resampling_chain(p, sizes, 3, range(500)).tokens.double().mean(dim=0)
    # Var of each: its own Poisson noise and the scaled variance of the one before.
    variance = 0.0
    for generation, size in enumerate(sizes):
        ratio = size / sizes[generation - 1] if generation else 0.0
        variance = size + ratio**2 * variance
        z = float(tokens[generation] - size) / math.sqrt(variance / 500)
        assert abs(z) < stats.norm.isf(RARE / 2 / len(sizes))


def test_a_count_of_2_to_the_31_works():
    p = torch.ones(1, dtype=torch.float64)
    chain = resampling_chain(p, 2**31, 3, range(20))
    deviation = (chain.tokens - 2**31).double()
    assert (deviation.abs() < 5 * (2**31 * torch.arange(1, 4)).sqrt()).all()
    assert chain.survivors.unique().tolist() == [1] and not chain.lost_mass.any()
    # The seeds are chains of their own: the pooled last variance has 20 degrees of freedom.
    total = float(deviation[:, 2].square().sum()) / (3 * 2**31)
    assert RARE < stats.chi2.sf(total, 20) < 1 - RARE


# A plain loop


def plain_chain(p, sizes, seeds):
    """Return the results of a loop over generations that draws all atoms, dead or alive."""
    units, index = exact_units(p), np.arange(len(p), dtype=np.uint64)
    rows = []
    for seed in seeds:
        mean = np.asarray(p, dtype=np.float64) * float(sizes[0])
        for generation, size in enumerate(sizes, start=1):
            key = split_words(seed % 2**64)
            counts = poisson(mean, key, index, generation, Purpose.RESAMPLING_CHAIN)
            lost = sum(u for u, count in zip(units, counts, strict=True) if count == 0)
            rows.append((lost / UNIT, int((counts > 0).sum()), int(counts.sum())))
            following = sizes[min(generation, len(sizes) - 1)]
            mean = counts * (float(following) / float(size))
    shape = len(seeds), len(sizes)
    lost, survivors, tokens = zip(*rows, strict=True)
    return (
        torch.tensor(lost, dtype=torch.float64).reshape(shape),
        torch.tensor(survivors).reshape(shape),
        torch.tensor(tokens).reshape(shape),
    )


@pytest.mark.parametrize("sizes", [[700] * 6, [700, 300, 301, 5000, 1], [10**7] * 3])
@pytest.mark.parametrize("atoms", [1, 7, 900])
def test_the_chain_is_a_plain_loop_over_all_atoms_bit_for_bit(sizes, atoms):
    p, seeds = zipf(1.4, atoms), [0, 1, 2**63, 2**64 - 1]
    chain = resampling_chain(p, sizes, len(sizes), seeds)
    assert equal(chain, plain_chain(p, sizes, seeds))
    assert chain.lost_mass.dtype == torch.float64
    assert chain.survivors.dtype == chain.tokens.dtype == torch.int64
    assert chain.tokens.shape == (4, len(sizes))


def test_the_lost_mass_is_a_sum_of_integers():
    p = zipf(1.1, 5000)
    chain = resampling_chain(p, 300, 1, range(8))
    index, units = np.arange(5000, dtype=np.uint64), exact_units(p)
    for seed in range(8):
        counts = poisson(p.numpy() * 300, split_words(seed), index, 1, Purpose.RESAMPLING_CHAIN)
        lost = sum(units[i] for i in np.flatnonzero(counts == 0))
        assert float(chain.lost_mass[seed, 0]) == lost / UNIT


def test_an_atom_below_the_unit_has_no_mass_and_still_can_live():
    p = torch.tensor([0.5, 2.0**-64], dtype=torch.float64)
    chain = resampling_chain(p, 20, 1, [0])
    assert chain.survivors.tolist() == [[1]] and chain.lost_mass.tolist() == [[0.0]]


# Independence


def test_an_atom_does_not_depend_on_the_others():
    p = zipf(1.3, 60)
    together = resampling_chain(p, 50, 5, range(30))
    alone = [resampling_chain(torch.eye(60)[i] * p, 50, 5, range(30)) for i in range(60)]
    assert torch.equal(sum(chain.tokens for chain in alone), together.tokens)
    assert torch.equal(sum(chain.survivors for chain in alone), together.survivors)
    assert float(together.lost_mass.min()) > 0 and together.survivors.min() > 0
    longer = resampling_chain(torch.cat([p, torch.zeros(500)]), 50, 5, range(30))
    assert equal(longer, together)


def test_a_seed_does_not_depend_on_the_others():
    p, seeds = zipf(1.5, 500), [5, 2**64 - 1, 9, 5]
    together = resampling_chain(p, 200, 4, seeds)
    for row, seed in enumerate(seeds):
        alone = resampling_chain(p, 200, 4, [seed])
        assert equal([part[row : row + 1] for part in together], alone)
    assert not torch.equal(together.tokens[0], together.tokens[1])
    assert torch.equal(together.tokens[0], together.tokens[3])


def test_fewer_generations_are_the_first_of_more():
    p = zipf(1.5, 500)
    longer = resampling_chain(p, 200, 7, range(5))
    assert equal(resampling_chain(p, 200, 3, range(5)), [part[:, :3] for part in longer])


@pytest.mark.parametrize(("name", "value"), [("CHUNK", 1), ("CHUNK", 7), ("CHUNK", 300)])
@pytest.mark.parametrize("group", [1, 130, 400])
def test_the_partition_of_the_work_changes_nothing(name, value, group, monkeypatch):
    p = zipf(1.2, 130)
    expected = resampling_chain(p, 90, 4, range(9))
    monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "LARGEST_GROUP", group)
    assert equal(resampling_chain(p, 90, 4, range(9)), expected)


def test_what_is_lost_stays_lost():
    chain = resampling_chain(zipf(1.2, 3000), [500, 2000, 100, 5000, 5000], 5, range(20))
    assert (chain.lost_mass.diff(dim=1) >= 0).all()
    assert (chain.survivors.diff(dim=1) <= 0).all()
    assert (chain.survivors <= chain.tokens).all()
    assert (chain.lost_mass[:, -1] > chain.lost_mass[:, 0]).all()


def test_a_chain_dies_out_at_last():
    p = torch.full((4,), 0.25, dtype=torch.float64)
    chain = resampling_chain(p, 4, 400, range(5))
    # A token's line outlives n generations with probability about 2/n, so a chain of four tokens
    # lives on with probability 0.02, and all five with 3e-9.
    dead = chain.tokens == 0
    assert dead.any()
    assert torch.equal(dead, chain.survivors == 0)
    assert torch.equal(chain.lost_mass == 1, dead)


# Forms of input


def test_float32_is_the_float64_law_of_the_same_values():
    p = zipf(1.5, 1000).float()
    assert equal(resampling_chain(p, 400, 3, [1, 2]), resampling_chain(p.double(), 400, 3, [1, 2]))


def test_strides_and_gradients_do_not_matter():
    p = zipf(1.5, 400)
    expected = resampling_chain(p, 400, 3, [1, 2])
    strided = torch.zeros(400, 3, dtype=torch.float64)
    strided[:, 1] = p
    assert equal(resampling_chain(strided[:, 1], 400, 3, [1, 2]), expected)
    assert equal(resampling_chain(p.flip(0).contiguous().flip(0), 400, 3, [1, 2]), expected)
    assert equal(resampling_chain(p.clone().requires_grad_(), 400, 3, [1, 2]), expected)
    even = torch.full((1,), 1 / 64, dtype=torch.float64).expand(64)
    assert equal(resampling_chain(even, 99, 3, [3]), resampling_chain(even.clone(), 99, 3, [3]))


def test_the_law_is_not_changed():
    p = zipf(1.5, 100)
    before = p.clone()
    resampling_chain(p, 50, 3, [1])
    assert torch.equal(p, before)


def test_nothing_gives_nothing():
    p = zipf(1.5, 10)
    empty = torch.zeros(0, dtype=torch.float64)
    assert all(part.shape == (0, 3) for part in resampling_chain(p, 5, 3, []))
    assert all(part.shape == (2, 0) for part in resampling_chain(p, 5, 0, [1, 2]))
    assert all(part.shape == (2, 0) for part in resampling_chain(p, [], 0, [1, 2]))
    for law in (empty, torch.zeros(4)):
        chain = resampling_chain(law, 5, 3, [1, 2])
        assert all(part.shape == (2, 3) and not part.any() for part in chain)


def test_seeds_in_every_form():
    p = zipf(1.5, 300)
    expected = resampling_chain(p, 100, 2, [3, 4, 5])
    forms = (range(3, 6), (3, 4, 5), torch.arange(3, 6), torch.arange(6, 12, 2) // 2)
    for seeds in (*forms, np.array([3, 4, 5]), torch.tensor([3, 0, 4, 0, 5])[::2]):
        assert equal(resampling_chain(p, 100, 2, seeds), expected)
    signed = torch.tensor([-1, -(2**63), 7])
    unsigned = [2**64 - 1, 2**63, 7]
    assert equal(resampling_chain(p, 100, 2, signed), resampling_chain(p, 100, 2, unsigned))


def test_sizes_in_every_form():
    p = zipf(1.5, 300)
    expected = resampling_chain(p, 100, 2, [3])
    for size in (np.int64(100), [100, 100], (100, np.int32(100)), np.array([100, 100])):
        assert equal(resampling_chain(p, size, 2, [3]), expected)


def test_minimum_bytes():
    assert module.minimum_bytes(10, 3, 2) == 8 * 10 + 3 * 8 * 6


# Bad input


def call(**how):
    arguments = {"probabilities": zipf(1.5, 10), "sample_size": 9, "generations": 2, "seeds": [1]}
    return resampling_chain(**{**arguments, **how})


@pytest.mark.parametrize(
    ("law", "error", "message"),
    [
        (torch.tensor([0.5, -0.1]), ValueError, r"holds -0.1; accepted are numbers from 0 on"),
        (torch.tensor([0.5, math.nan]), ValueError, "holds 1 elements that are NaN"),
        (torch.tensor([0.5, math.inf]), ValueError, "holds 1 elements that are NaN"),
        (torch.tensor([0.5, -math.inf]), ValueError, "holds 1 elements that are NaN"),
        (torch.tensor([0.75, 0.5]), ValueError, r"sums to 1.25; accepted is at most 1"),
        (torch.tensor([1, 0]), TypeError, r"is torch.int64; accepted are float32, float64"),
        (torch.tensor([0.5]).half(), TypeError, r"is torch.float16; accepted are float32"),
        (torch.full((2, 2), 0.1), ValueError, r"has shape \(2, 2\); accepted is one axis"),
        (torch.tensor(0.5), ValueError, r"has shape \(\); accepted is one axis"),
        (np.array([0.5]), TypeError, r"is a ndarray; accepted is a torch.Tensor"),
        ([0.5], TypeError, r"is a list; accepted is a torch.Tensor"),
        (None, TypeError, r"is a NoneType; accepted is a torch.Tensor"),
    ],
)
def test_a_bad_law_is_refused(law, error, message):
    with pytest.raises(error, match=r"^probabilities " + message):
        call(probabilities=law)


@pytest.mark.parametrize("size", [0, -1, True, 2**53 + 1, [5, 0], [5, 1.5], [5, None]], ids=repr)
def test_a_bad_sample_size_is_refused(size):
    wrong = size if not isinstance(size, list) else size[1]
    with pytest.raises(ValueError) as error:
        call(sample_size=size)
    expected = f"sample_size is {wrong!r}; accepted is an integer from 1 to 2**53"
    assert str(error.value) == expected


@pytest.mark.parametrize("size", [1.5, None, 9.0], ids=repr)
def test_a_sample_size_that_is_no_integer_and_no_sequence_is_refused_by_name(size):
    with pytest.raises((TypeError, ValueError), match=r"sample_size is .*; accepted"):
        call(sample_size=size)


@pytest.mark.parametrize("sizes", [[], [5], [5, 5, 5]])
def test_as_many_sizes_as_generations(sizes):
    with pytest.raises(ValueError, match=rf"sample_size holds {len(sizes)} sizes for 2 gen"):
        call(sample_size=sizes)


def test_counts_beyond_2_to_the_31_are_refused_with_their_number():
    one = torch.ones(1, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"would count 2.15e\+09 tokens; accepted are up to 2\*\*"):
        call(probabilities=one, sample_size=2**31 + 1)
    with pytest.raises(ValueError, match=r"would count 4.29e\+09 tokens"):
        call(probabilities=one, sample_size=[5, 2**32])
    half = torch.full((2,), 0.5, dtype=torch.float64)
    assert call(probabilities=half, sample_size=2**32).tokens.min() > 2**31


def test_a_growth_that_one_token_cannot_follow_is_refused():
    # The atom expects 1e6 tokens at last, but if it lives it has at least 2**50.
    p = torch.tensor([2.0**-30], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"sample_size"):
        call(probabilities=p, sample_size=[1, 2**50])


@pytest.mark.parametrize("value", [-1, 2**64, 1.5, True, None, "a"], ids=repr)
def test_a_bad_seed_is_refused(value):
    with pytest.raises(ValueError) as error:
        call(seeds=[1, value])
    assert str(error.value) == f"seeds is {value!r}; accepted is an integer from 0 to 2**64 - 1"


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        (7, r"seeds is 7; accepted is a sequence of integers, such as \[7\]"),
        (torch.tensor([1.0]), r"seeds is torch.float32 with 1 axes; accepted is int64 \[S\]"),
        (torch.tensor([1]).int(), r"seeds is torch.int32 with 1 axes; accepted is int64 \[S\]"),
        (torch.tensor(1), r"seeds is torch.int64 with 0 axes; accepted is int64 \[S\]"),
        (None, r"seeds is None; accepted"),
        (1.5, r"seeds is 1.5; accepted"),
    ],
)
def test_seeds_of_the_wrong_kind_are_refused(seeds, message):
    with pytest.raises(TypeError, match=message):
        call(seeds=seeds)


@pytest.mark.parametrize("value", [-1, 2**24 + 1, 1.5, True, None], ids=repr)
def test_bad_generations_are_refused(value):
    with pytest.raises(ValueError) as error:
        call(generations=value)
    expected = f"generations is {value!r}; accepted is an integer from 0 to 2**24"
    assert str(error.value) == expected


def test_an_implementation_that_cannot_run_is_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match=r"impl is 'nothing'; accepted are definition, triton"):
        call(impl="nothing")
    with pytest.raises(ImplementationUnavailable, match=r"the tensors are on cpu"):
        call(impl="triton")
    assert equal(call(impl="definition"), call())
