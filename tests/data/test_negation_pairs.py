"""Premise and hypothesis: labels follow from both bags, the negation token from the group."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from kempe_nb.data.negation_pairs import CONCEPTS, DIMENSION, SAID, negation_pairs


def drawn(counts, seed=0, lost=0.0):
    return negation_pairs(counts, torch.Generator().manual_seed(seed), lost=lost)


@given(st.lists(st.integers(0, 20), min_size=6, max_size=6), st.integers(0, 99))
@settings(deadline=None)
def test_labels_follow_from_premise_and_hypothesis(counts, seed):
    bags, labels, groups = drawn(tuple(counts), seed)
    assert bags.shape == (sum(counts), DIMENSION)
    assert torch.bincount(groups, minlength=6).tolist() == counts
    premise, says, denies, negation = bags.split([CONCEPTS, CONCEPTS, CONCEPTS, 1], 1)
    assert (premise.sum(1) == SAID).all() and ((says + denies).sum(1) == 2).all()
    contradicts = (denies * premise).sum(1) > 0
    follows = ((says * premise).sum(1) == 2) & (denies.sum(1) == 0)
    expected = torch.where(contradicts, 0, torch.where(follows, 1, 2))
    assert torch.equal(labels, expected)
    assert torch.equal(negation[:, 0].long(), groups % 2)


def test_denying_alone_does_not_tell_contradiction_from_neutral():
    bags, labels, _ = drawn((3000, 0, 0, 0, 3000, 0))
    denies = bags[:, 2 * CONCEPTS : 3 * CONCEPTS]
    some = (denies.sum(1) > 0).double()
    # A neutral pair denies nothing, where a contradiction denies at least once, in 3 of 8.
    assert some[labels == 0].mean() == 1
    assert some[labels == 2].mean() == pytest.approx(5 / 8, abs=5 * math.sqrt(0.25 / 3000))


def test_half_of_the_contradictions_also_say_something_new():
    bags, _, _ = drawn((3000, 0, 0, 0, 0, 0))
    premise, says, denies = bags[:, :-1].split(CONCEPTS, 1)
    new = ((says + denies) * (1 - premise)).sum(1) > 0
    assert new.double().mean() == pytest.approx(1 / 2, abs=5 * math.sqrt(0.25 / 3000))


def test_facts_are_lost_in_the_share_asked_for():
    bags, _, _ = drawn((4000, 0, 0, 0, 0, 0), lost=0.25)
    assert bags[:, :CONCEPTS].sum(1).mean() / SAID == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize(
    "counts, lost, said",
    [
        ((1, 2, 3), 0.0, "counts are"),
        ((1, 1, 1, 1, 1, -1), 0.0, "counts is -1"),
        ((1, 1, 1, 1, 1, 1), 1.0, "lost is 1.0"),
    ],
)
def test_bad_arguments_are_refused(counts, lost, said):
    with pytest.raises(ValueError, match=said):
        drawn(counts, lost=lost)
