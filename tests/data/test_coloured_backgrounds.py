"""Pictures whose ground is the attribute: what is white, what is red, what is counted."""

import pytest
import torch
from hypothesis import given, strategies as st

from kempe_nb.data.coloured_backgrounds import (
    coloured_digits,
    correlated_attributes,
    paint_backgrounds,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_strokes_are_white_and_grounds_have_their_colour():
    strokes = torch.zeros(2, 1, 2, 2)
    strokes[:, :, 0, 0] = 1
    painted = paint_backgrounds(strokes, torch.tensor([0, 1]), generator(), noise=0.0)
    assert painted.shape == (2, 3, 2, 2) and painted.dtype == torch.float32
    assert (painted[:, :, 0, 0] == 1).all()
    red, green = painted[:, :, 1, 1]
    torch.testing.assert_close(red, torch.tensor([0.6, 0.06, 0.06]))
    dark = paint_backgrounds(strokes, torch.tensor([0, 1]), generator(), noise=0, brightness=0.2)
    torch.testing.assert_close(dark[0, :, 1, 1], red / 3)
    torch.testing.assert_close(green, red[[1, 0, 2]])


def test_nothing_but_the_ground_differs_between_two_paintings():
    strokes = torch.rand(5, 1, 4, 4, generator=generator())
    attributes = torch.tensor([0, 1, 0, 1, 1])
    first, second = (
        paint_backgrounds(strokes, each, generator(3), noise=0.0)
        for each in (attributes, 1 - attributes)
    )
    torch.testing.assert_close(first[:, [1, 0, 2]], second)


def test_values_stay_within_the_range_and_the_noise_is_as_wide_as_said():
    strokes = torch.full((400, 1, 8, 8), 0.5)
    painted = paint_backgrounds(
        strokes, torch.zeros(400, dtype=torch.int64), generator(), noise=0.05
    )
    assert painted.min() >= 0 and painted.max() <= 1
    assert painted[:, 0].std() == pytest.approx(0.05, rel=0.05)


@given(st.integers(0, 50), st.integers(0, 50), st.floats(0, 1), st.integers(0, 99))
def test_attributes_equal_the_label_in_the_share_asked_for(zeros, ones, share, seed):
    labels = torch.tensor([0] * zeros + [1] * ones, dtype=torch.int64)
    attributes = correlated_attributes(labels, share, generator(seed))
    for label, count in ((0, zeros), (1, ones)):
        equal = int((attributes[labels == label] == label).sum())
        assert abs(equal - share * count) <= 0.5
    assert labels.tolist() == [0] * zeros + [1] * ones


def test_coloured_digits_are_split_and_none_is_in_two_sets():
    # Each digit has a pixel of its own, which the noise does not hide.
    strokes = torch.zeros(30, 1, 6, 6)
    strokes.flatten(1)[torch.arange(30), torch.arange(30)] = 1
    digits = torch.arange(30) % 10
    settings = {"train": 10, "annotated": 8, "train_share": 0.8, "noise": 0.0}
    found = coloured_digits(strokes, digits, generator(), **settings)
    seen = {}
    for name, (pictures, labels, groups) in found.items():
        seen[name] = pictures.amin(1).flatten(1).argmax(1)
        assert torch.equal(labels, (digits[seen[name]] >= 5).long())
        assert torch.equal(groups // 2, labels)
        green = pictures[:, 1].flatten(1).sum(1) > pictures[:, 0].flatten(1).sum(1)
        assert torch.equal(groups % 2, green.long())
    sets = {name: set(own.tolist()) for name, own in seen.items()}
    assert [len(own) for own in sets.values()] == [10, 8, 12]
    assert len(set.union(*sets.values())) == 30
    test = found["test"]
    assert len(test.labels) == 24 and torch.equal(seen["test"][:12], seen["test"][12:])
    # Of the training 0.8 agree, of the annotated ones the half that is the default.
    for name, number in (("train", 8), ("annotated", 4)):
        agree = found[name].groups // 2 == found[name].groups % 2
        assert int(agree.sum()) == number
    again = coloured_digits(strokes, digits, generator(1), **settings)["train"]
    assert set(again.pictures.amin(1).flatten(1).argmax(1).tolist()) != sets["train"]
    some = test.rows(torch.tensor([3, 1]))
    assert torch.equal(some.pictures[1], test.pictures[1]) and len(some.groups) == 2
    with pytest.raises(ValueError, match="digits have shape"):
        coloured_digits(strokes, digits[:9], generator(), train=4, annotated=4)
    with pytest.raises(ValueError, match="digits have shape"):
        coloured_digits(strokes, digits + 1, generator(), train=4, annotated=4)
    with pytest.raises(ValueError, match="train and annotated are 20 and 10 of 30 digits"):
        coloured_digits(strokes, digits, generator(), train=20, annotated=10)


@pytest.mark.parametrize(
    "strokes, attributes, changed, said",
    [
        (torch.zeros(2, 3, 4, 4), [0, 1], {}, "strokes are"),
        (torch.full((2, 1, 4, 4), 2.0), [0, 1], {}, "strokes lie from 2"),
        (torch.full((2, 1, 4, 4), torch.nan), [0, 1], {}, "strokes holds 32"),
        (torch.zeros(2, 1, 4, 4), [0, 2], {}, "attributes have"),
        (torch.zeros(2, 1, 4, 4), [0], {}, "attributes have"),
        (torch.zeros(2, 1, 4, 4), [0, 1], {"brightness": 1.0}, "brightness is 1.0"),
        (torch.zeros(2, 1, 4, 4), [0, 1], {"noise": -1}, "noise is -1"),
    ],
)
def test_bad_arguments_are_refused(strokes, attributes, changed, said):
    with pytest.raises(ValueError, match=said):
        paint_backgrounds(strokes, torch.tensor(attributes), generator(), **changed)


def test_which_samples_differ_is_drawn():
    labels = torch.zeros(40, dtype=torch.int64)
    first, second = (correlated_attributes(labels, 0.5, generator(seed)) for seed in (0, 1))
    assert not torch.equal(first, second)


def test_bad_labels_and_shares_are_refused():
    for labels in (torch.tensor([True, False]), torch.tensor([0.0, 1.0])):
        with pytest.raises(TypeError, match="labels is"):
            correlated_attributes(labels, 0.5, generator())
        with pytest.raises(TypeError, match="attributes is"):
            paint_backgrounds(torch.zeros(2, 1, 1, 1), labels, generator())
    with pytest.raises(ValueError, match="labels have"):
        correlated_attributes(torch.tensor([0, 2]), 0.5, generator())
    for share in (-0.1, 1.1, torch.nan):
        with pytest.raises(ValueError, match="share is"):
            correlated_attributes(torch.tensor([0, 1]), share, generator())
