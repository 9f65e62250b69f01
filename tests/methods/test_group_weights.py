"""Context weights against the published group counts, and what they refuse."""

import math

import pytest
import torch
from hypothesis import given, strategies as st

from kempe_nb.methods.group_weights import (
    effective_sample_size,
    group_counts,
    group_folds,
    group_shares,
    group_weights,
    shares_of_loss,
)

#: Validation sets: counts of the groups, exponent of the published settings, nu / B, and to three
#: decimals what the public code draws from the groups and what its whole loss weighs them by.
PUBLISHED = {
    "waterbirds": (
        (467, 466, 133, 133),
        (4, 15 / 128),
        (0.011, 0.011, 0.489, 0.489),
        (0.350, 0.349, 0.150, 0.150),
    ),
    "celeba": (
        (8535, 8276, 2874, 182),
        (10, 100 / 128),
        (0.0, 0.0, 0.0, 1.0),
        (0.241, 0.234, 0.081, 0.444),
    ),
    "multinli": (
        (22814, 4634, 26949, 613, 26655, 797),
        (4, 10 / 32),
        (0.0, 0.002, 0.0, 0.686, 0.0, 0.312),
        (0.211, 0.043, 0.249, 0.169, 0.246, 0.082),
    ),
}

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=6)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings_give_the_published_weights(name):
    counts, (exponent, strength), drawn, whole = PUBLISHED[name]
    counts = torch.tensor(counts)
    assert (group_shares(counts, exponent) - torch.tensor(drawn)).abs().max() < 6e-4
    assert (shares_of_loss(counts, exponent, strength) - torch.tensor(whole)).abs().max() < 6e-4


@given(SIZES, st.floats(0, 6))
def test_weights_fall_with_a_power_of_the_size_of_the_group(sizes, exponent):
    groups = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    weights = group_weights(groups, exponent, torch.float64)
    assert abs(weights.sum() - 1) < 1e-12
    scaled = weights * torch.tensor(sizes).double()[groups] ** exponent
    assert (scaled / scaled[0] - 1).abs().max() < 1e-9


@given(SIZES)
def test_exponents_0_and_1_are_equal_samples_and_equal_groups(sizes):
    counts = torch.tensor(sizes)
    torch.testing.assert_close(group_shares(counts, 0.0), counts.double() / counts.sum())
    equal = torch.full((len(sizes),), 1 / len(sizes), dtype=torch.float64)
    torch.testing.assert_close(group_shares(counts, 1.0), equal)


@given(SIZES, st.randoms())
def test_the_order_of_samples_does_not_matter(sizes, random):
    groups = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    order = list(range(len(groups)))
    random.shuffle(order)
    weights = group_weights(groups, 2.0)
    assert torch.equal(group_weights(groups[order], 2.0), weights[order])


@given(st.lists(st.integers(2, 20), min_size=1, max_size=5), st.integers(2, 5), st.randoms())
def test_folds_share_out_each_group_evenly_in_its_order(sizes, folds, random):
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    random.shuffle(groups)
    groups = torch.tensor(groups)
    found = group_folds(groups, folds)
    for group, size in enumerate(sizes):
        assert found[groups == group].tolist() == [each % folds for each in range(size)]
    for fold in range(folds):
        assert set(groups[found != fold].tolist()) == set(range(len(sizes)))


def test_a_single_fold_and_groups_without_samples_are_refused():
    with pytest.raises(ValueError, match="folds is 1"):
        group_folds(torch.tensor([0, 0]), 1)
    with pytest.raises(ValueError, match="group 1 has one sample"):
        group_folds(torch.tensor([0, 1, 0]), 2)
    with pytest.raises(ValueError, match="no samples of group 0"):
        group_folds(torch.tensor([1, 1]), 2)


@given(SIZES, st.floats(0, 6))
def test_the_effective_size_lies_between_one_and_all(sizes, exponent):
    groups = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    size = effective_sample_size(group_weights(groups, exponent, torch.float64))
    assert 1 - 1e-9 <= size <= len(groups) * (1 + 1e-9)


def test_the_effective_size_of_equal_weights_is_their_number():
    assert effective_sample_size(torch.tensor([0.2, 0.2, 0.2, 0.0])) == pytest.approx(3)


@given(SIZES, st.floats(0, 10), st.floats(0, 3))
def test_the_loss_weighs_by_data_and_strength_times_context(sizes, strength, exponent):
    counts = torch.tensor(sizes)
    found = shares_of_loss(counts, exponent, strength)
    expected = group_shares(counts, 0.0) + strength * group_shares(counts, exponent)
    torch.testing.assert_close(found, expected / expected.sum())


def test_the_effective_size_does_not_depend_on_the_scale():
    # The squares overflow in single precision.
    assert effective_sample_size(torch.tensor([1e30, 1e30, 0.0])) == pytest.approx(2)


def test_a_group_without_samples_is_named():
    with pytest.raises(ValueError, match="no samples of group 1, 3;"):
        group_counts(torch.tensor([0, 2, 4]))
    with pytest.raises(ValueError, match="no samples of group 2;"):
        group_counts(torch.tensor([0, 1]), 3)
    assert group_counts(torch.tensor([0, 1, 1]), 2).tolist() == [1, 2]


@pytest.mark.parametrize(
    "groups, count, said",
    [
        ([-1, 0], None, "groups lie from -1 to 0"),
        ([0, 5], 2, "accepted is 0 to 1"),
        ([], None, "N at least 1"),
        ([[0, 1]], None, r"shape \(1, 2\)"),
        ([0], 0, "count is 0"),
    ],
)
def test_bad_groups_are_refused(groups, count, said):
    with pytest.raises(ValueError, match=said):
        group_counts(torch.tensor(groups, dtype=torch.int64), count)


def test_weights_that_underflow_tell_the_effective_size():
    counts = torch.tensor([8535, 8276, 2874, 182])
    group_shares(counts, 100)
    with pytest.raises(ValueError, match=r"effective sample size is 182.0 of 19867"):
        group_shares(counts, 500)
    # A group may have a share that is a number, and its samples weights that are not.
    with pytest.raises(ValueError, match="a weight underflows"):
        group_shares(torch.tensor([1, 10**6]), 54.6)
    # In single precision that is sooner.
    groups = torch.arange(4).repeat_interleave(counts)
    assert (group_weights(groups, 26, torch.float64) > 0).all()
    with pytest.raises(ValueError, match=r"effective sample size is 182.0 of 19867"):
        group_weights(groups, 35)
    with pytest.raises(ValueError, match="dtype is torch.int64"):
        group_weights(groups, 1, torch.int64)


@pytest.mark.parametrize("exponent", [-1, math.nan, math.inf, "1"])
def test_bad_exponents_are_refused(exponent):
    with pytest.raises(ValueError, match="exponent is"):
        group_shares(torch.tensor([3, 4]), exponent)


def test_bad_counts_and_weights_are_refused():
    with pytest.raises(ValueError, match="counts are"):
        group_shares(torch.tensor([3, 0]), 1.0)
    with pytest.raises(ValueError, match="strength is -1"):
        shares_of_loss(torch.tensor([3, 1]), 1.0, -1)
    with pytest.raises(ValueError, match="with a positive sum"):
        effective_sample_size(torch.zeros(3))
