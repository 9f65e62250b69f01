"""Pools of start epochs: the schedule's closed form, the test's bookkeeping, annealing."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, strategies as st

from kempe_nb.methods.epoch_pools import Fixed, Growing, SelfAdaptive, Stage
from kempe_nb.methods.level_up import FALLS, NEITHER, RISES, decision


def stages(pool, probes, largest=99):
    """Return the stages after each probe, and what was said."""
    stage, found = pool.begin(), []
    for number, probe in enumerate(probes):
        stage, said = pool.after(stage, number, probe, largest)
        found.append((stage, said))
    return found


def test_a_fixed_pool_stays():
    assert {stage for stage, _ in stages(Fixed(7), [None] * 30)} == {Stage(7)}
    assert Fixed(7).begin() == Stage(7) and Fixed(7).largest(7) == 7


# A schedule


@given(st.integers(1, 50), st.integers(0, 50), st.integers(1, 400))
def test_a_growing_pool_follows_the_line_and_stays_at_its_end(first, more, over):
    pool = Growing(first, first + more, over)
    found = [pool.begin(), *(stage for stage, _ in stages(pool, [None] * (over + 20)))]
    for number, stage in enumerate(found):
        line = first + math.floor(Fraction(more * number, over))
        assert stage == Stage(min(first + more, line))
        assert stage.epochs == pool.bound(number)
    assert found[over].epochs == first + more


def test_a_growing_pool_spends_the_same_time_with_each_size():
    # From 2 to 6 in 100 iterations: 25 with each of the sizes before the last.
    sizes = [Growing(2, 6, 100).bound(number) for number in range(200)]
    assert [sizes.count(k) for k in range(2, 7)] == [25, 25, 25, 25, 100]


# A test

NUMBERS = st.lists(st.integers(-50, 50).map(float), min_size=1, max_size=120)


@given(NUMBERS, st.floats(0.3, 4.0), st.floats(0.3, 4.0), st.integers(3, 12))
def test_levels_rise_exactly_when_the_test_says_so(probes, threshold, rise, every):
    pool = SelfAdaptive(threshold=threshold, rise=rise, every=every, patience=1000)
    size, own = 1, []
    for (stage, said), probe in zip(stages(pool, probes, largest=4), probes, strict=True):
        own.append(probe)
        assert said == decision(own, threshold=threshold, rise=rise, every=every)
        if said != NEITHER:
            size, own = min(size + 1, 4), []
        assert stage == Stage(size, tuple(own))


def test_falls_and_rises_both_level_up_as_published():
    falls = stages(SelfAdaptive(), [-float(k) for k in range(60)])
    assert [k for k, (_, said) in enumerate(falls, 1) if said == FALLS] == [30, 60]
    rises = stages(SelfAdaptive(), [float(k) for k in range(60)])
    assert [k for k, (_, said) in enumerate(rises, 1) if said == RISES] == [20, 40, 60]
    at_the_end = stages(SelfAdaptive(), [float(k) for k in range(60)], largest=2)
    assert [stage.epochs for stage, _ in at_the_end[::10]] == [1, 1, 2, 2, 2, 2]
    none = stages(SelfAdaptive(rise=math.inf), [float(k) for k in range(60)])
    assert {stage.epochs for stage, _ in none} == {1}


def test_patience_counts_from_the_last_level_up():
    pool = SelfAdaptive(every=10, patience=40)
    probes = [-float(k) for k in range(30)] + [0.0] * 45
    found = stages(pool, probes)
    began = next(k for k, (stage, _) in enumerate(found, 1) if stage.annealed is not None)
    assert began == 70
    assert [stage.annealed for stage, _ in found[69:]] == list(range(6))
    # Annealing asks for no probes, and does not listen to any.
    assert pool.probes(found[68][0]) and not pool.probes(found[69][0])
    assert {(stage.epochs, len(stage.probes)) for stage, _ in found[69:]} == {(2, 40)}
    assert {said for _, said in found[70:]} == {None}


def test_a_level_up_at_the_end_of_patience_comes_first():
    found = stages(SelfAdaptive(patience=30), [-float(k) for k in range(30)])
    assert found[-1] == (Stage(2), FALLS)


@pytest.mark.parametrize(
    ("rate", "decays", "iterations"), [(1e3, 14, 700), (1e4, 24, 1200), (51.0, 1, 50)]
)
def test_annealing_takes_as_long_as_the_rate_needs_to_the_floor(rate, decays, iterations):
    pool = SelfAdaptive(patience=1)
    stage, _ = pool.after(pool.begin(), 0, 1.0, 9)
    rates = []
    while not pool.done(stage, rate):
        rates.append(rate * pool.factor(stage))
        stage, _ = pool.after(stage, 0, None, 9)
    assert len(rates) == iterations
    assert rates == pytest.approx([rate * 0.8 ** (k // 50) for k in range(iterations)])
    assert min(rates) >= 50 > rate * 0.8**decays
    assert pool.factor(pool.begin()) == 1 and not pool.done(pool.begin(), 1e-9)


# What the experts allow


def test_a_pool_needs_the_epochs_that_it_starts_from():
    assert Fixed(8).largest(8) == 8 and Growing(1, 8, 5).largest(8) == 8
    # The epoch beyond the pool is probed, so it is a start epoch as well.
    assert SelfAdaptive().largest(8) == 7 and SelfAdaptive(last=7).largest(8) == 7
    assert SelfAdaptive(last=3).largest(8) == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Fixed(9).largest(8), "epochs of the pool is 9; accepted is an integer from 1 to"),
        (lambda: Growing(1, 9, 5).largest(8), "last of the pool is 9"),
        (lambda: SelfAdaptive(last=8).largest(8), "last of the pool is 8; .* from 1 to 7"),
        (lambda: SelfAdaptive(first=8).largest(8), "first of the pool is 8; .* from 1 to 7"),
        (lambda: Fixed(0), "epochs is 0"),
        (lambda: Growing(0, 3, 5), "first is 0"),
        (lambda: Growing(4, 3, 5), "last is 3; accepted is an integer from 4"),
        (lambda: Growing(1, 3, 0), "over is 0"),
        (lambda: SelfAdaptive(first=0), "first is 0"),
        (lambda: SelfAdaptive(first=4, last=3), "last is 3"),
        (lambda: SelfAdaptive(threshold=0.0), "threshold is 0.0"),
        (lambda: SelfAdaptive(rise=-3.0), "rise is -3.0"),
        (lambda: SelfAdaptive(every=0), "every is 0"),
        (lambda: SelfAdaptive(patience=0), "patience is 0"),
        (lambda: SelfAdaptive(panel=-1), "panel is -1"),
        (lambda: SelfAdaptive(decay=0), "decay is 0; accepted is a number between 0 and 1"),
        (lambda: SelfAdaptive(decay=1.0), "decay is 1.0"),
        (lambda: SelfAdaptive(decay_every=0), "decay_every is 0"),
        (lambda: SelfAdaptive(floor=-1.0), "floor is -1.0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
