"""What is drawn for augmentation: the published ranges, subsets, and one row for all."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.nn import functional as F

from kempe_nb import affine_augment
from kempe_nb.kernels.affine_augment import COLUMNS, UNCHANGED
from kempe_nb.methods.augmentation_draws import (
    EFFECTS,
    PUBLISHED,
    AugmentationStrengths,
    draw_augmentations,
)

#: The columns that each effect may change; the last three share the matrix.
MATRIX = {"yy", "yx", "xy", "xx"}
CHANGED = {
    "colour": {"brightness", "saturation", "contrast"},
    "crop": {"shift_y", "shift_x"},
    "cutout": {"cut_top", "cut_left", "cut_height", "cut_width"},
    **dict.fromkeys(("flip", "scale", "rotation"), MATRIX),
}
MANY = 20_000


def draw(count=MANY, size=(32, 40), seed=0, **options):
    """Return the drawn numbers by the names of their columns, NumPy arrays [count]."""
    rows = draw_augmentations(count, size, np.random.default_rng(seed), **options)
    assert rows.shape == (count, len(COLUMNS)) and rows.dtype == torch.float64
    return dict(zip(COLUMNS, rows.numpy().T, strict=True))


def assert_uniform(values, low, high):
    """Hold values to a uniform law: inside, up to the ends, and with its mean and variance."""
    assert low <= values.min() and values.max() <= high
    length, count = high - low, len(values)
    assert values.min() < low + 20 * length / count and values.max() > high - 20 * length / count
    assert abs(values.mean() - (low + high) / 2) < 5 * length / math.sqrt(12 * count)
    assert values.var() == pytest.approx(length**2 / 12, rel=0.05)


def test_the_published_strengths():
    found = draw()
    assert_uniform(found["brightness"], -0.5, 0.5)
    assert_uniform(found["saturation"], 0.0, 2.0)
    assert_uniform(found["contrast"], 0.5, 1.5)
    # An eighth of 32 and of 40, either way.
    for name, reach in (("shift_y", 4), ("shift_x", 5)):
        values, counts = np.unique(found[name], return_counts=True)
        assert values.tolist() == list(range(-reach, reach + 1))
        assert counts.min() > 0.8 * MANY / len(values)


def test_half_a_pixel_is_a_whole_one():
    found = draw(500, (28, 7))
    # 28 / 8 is 3.5, and 7 / 2, too.
    assert found["shift_y"].max() == -found["shift_y"].min() == 4
    assert found["cut_width"].max() == 4


def test_a_rectangle_is_half_as_wide_and_cut_off_at_the_edges():
    found = draw(effects=["cutout"])
    for start, length, side in (("cut_top", "cut_height", 32), ("cut_left", "cut_width", 40)):
        half, first, count = side // 2, found[start], found[length]
        # The middle is any of 0 to the side.
        middle = np.where(first > 0, first + half // 2, first + count - half // 2)
        values, counts = np.unique(middle, return_counts=True)
        assert values.tolist() == list(range(side + 1)) and counts.min() > 0.7 * MANY / len(values)
        assert (first + count <= side).all() and count.min() == half // 2 and count.max() == half


def test_mirrors_scales_and_rotations():
    flips = draw(effects=["flip"])
    assert set(flips["xx"]) == {-1.0, 1.0} and abs(flips["xx"].mean()) < 5 / math.sqrt(MANY)
    assert set(flips["yy"]) == {1.0}
    scales = draw(effects=["scale"])
    for name in ("yy", "xx"):
        assert_uniform(scales[name], 1 / 1.2, 1.2)
    assert abs(np.corrcoef(scales["yy"], scales["xx"])[0, 1]) < 5 / math.sqrt(MANY)
    turns = draw(effects=["rotation"])
    assert_uniform(np.rad2deg(np.arctan2(turns["yx"], turns["yy"])), -15, 15)
    for one, other, sign in (("yy", "xx", 1), ("yx", "xy", -1)):
        assert np.array_equal(turns[one], sign * turns[other])


@given(st.permutations(EFFECTS), st.integers(0, 6), st.integers(0, 2**32))
@settings(max_examples=50)
def test_a_subset_is_drawn_as_it_is_among_all_and_changes_nothing_else(order, count, seed):
    effects = order[:count]
    found, whole = draw(30, seed=seed, effects=effects), draw(30, seed=seed)
    mine = set().union(*(CHANGED[each] for each in effects))
    for name, unchanged in zip(COLUMNS, UNCHANGED, strict=True):
        if name not in mine:
            assert (found[name] == unchanged).all()
        elif name not in MATRIX or {"flip", "scale", "rotation"} <= set(effects):
            assert np.array_equal(found[name], whole[name])


def test_the_matrix_rotates_what_is_scaled_and_mirrored():
    """So its product with a step of the result is: turned, then scaled, then mirrored."""
    parts = [draw(50, effects=[each]) for each in ("flip", "scale", "rotation")]
    names = ("yy", "yx", "xy", "xx")
    flip, scale, turn, whole = (
        np.stack([each[name] for name in names], 1).reshape(-1, 2, 2) for each in (*parts, draw(50))
    )
    np.testing.assert_allclose(whole, flip @ scale @ turn, rtol=0, atol=1e-15)


def test_the_angle_is_that_of_the_grid_of_pytorch():
    """On a rectangle, whose grid reaches from -1 to 1 in both directions."""
    size = 6, 9
    rows = draw_augmentations(4, size, np.random.default_rng(1), effects=["rotation"])
    cos, sin = rows[:, COLUMNS.index("yy")], rows[:, COLUMNS.index("yx")]
    images = torch.randn(4, 2, *size, generator=torch.Generator().manual_seed(0)).double()
    zero, aspect = torch.zeros(4).double(), size[0] / size[1]
    entries = [cos, -sin * aspect, zero, sin / aspect, cos, zero]
    grid = F.affine_grid(
        torch.stack(entries, 1).view(4, 2, 3), list(images.shape), align_corners=False
    )
    expected = F.grid_sample(images, grid, align_corners=False)
    torch.testing.assert_close(affine_augment(images, rows), expected)


def test_one_row_for_all_images_is_the_first_one():
    one = draw_augmentations(7, (8, 8), np.random.default_rng(3), siamese=True)
    assert (one == one[0]).all()
    assert torch.equal(one[:1], draw_augmentations(1, (8, 8), np.random.default_rng(3)))
    assert len(torch.unique(draw_augmentations(7, (8, 8), np.random.default_rng(3)), dim=0)) == 7


@pytest.mark.parametrize("siamese", [False, True])
def test_one_effect_for_the_whole_batch(siamese):
    seen = set()
    for seed in range(60):
        found = draw(20, seed=seed, one_effect=True, siamese=siamese)
        alone = [
            each
            for each in EFFECTS
            if all(
                np.array_equal(found[name], column)
                for name, column in draw(20, seed=seed, effects=[each], siamese=siamese).items()
            )
        ]
        # One that changed nothing, a mirror that was not drawn, may be taken for another one.
        assert alone
        seen |= {*alone} if len(alone) == 1 else set()
    assert seen == set(EFFECTS)
    found = draw(9, effects=["crop"], one_effect=True)
    assert all(map(np.array_equal, found.values(), draw(9, effects=["crop"]).values()))


@given(
    st.integers(0, 5),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(*[st.floats(0, 1)] * 3, st.floats(1, 8), st.floats(0, 180), st.floats(0, 3)),
    st.integers(0, 2**32),
)
@settings(max_examples=100)
def test_whatever_is_drawn_is_accepted(count, size, numbers, seed):
    crop, cutout, flip, scale, rotation, colour = numbers
    strengths = AugmentationStrengths(
        *(colour,) * 3, crop=crop, cutout=cutout, scale=scale, rotation=rotation, flip=flip
    )
    rows = draw_augmentations(count, size, np.random.default_rng(seed), strengths=strengths)
    images = torch.ones(count, 2, *size, dtype=torch.float64)
    assert affine_augment(images, rows).isfinite().all()


def test_no_strength_is_no_change():
    none = AugmentationStrengths(crop=0, cutout=0, scale=1, rotation=0, flip=0)
    found = draw(20, strengths=none, effects=EFFECTS[1:])
    for name, unchanged in zip(COLUMNS, UNCHANGED, strict=True):
        # A rectangle without pixels may be anywhere.
        assert name in ("cut_top", "cut_left") or (found[name] == unchanged).all()
    assert draw(20, strengths=AugmentationStrengths(flip=1), effects=["flip"])["xx"].max() == -1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generator": 7}, "generator is a int; accepted is a Generator"),
        ({"strengths": 0.5}, "strengths is a float; accepted is a AugmentationStrengths"),
        ({"count": -1}, "count is -1; accepted is an integer from 0 up"),
        ({"size": (0, 4)}, r"size is \(0, 4\); accepted are a height and a width from 1 on"),
        ({"size": (4, 4, 4)}, r"size is \(4, 4, 4\); accepted are a height and a width"),
        ({"effects": ["blur"]}, "effect is 'blur'; accepted are 'colour', 'crop'"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {"count": 2, "size": (4, 4), "generator": np.random.default_rng(0)}
    error = TypeError if change.keys() & {"generator", "strengths"} else ValueError
    with pytest.raises(error, match=message):
        draw_augmentations(**(good | change))


@pytest.mark.parametrize(
    ("strength", "message"),
    [
        ({"brightness": -1}, "brightness is -1; accepted is a finite number from 0 on"),
        ({"saturation": math.inf}, "saturation is inf; accepted is a finite number from 0 on"),
        ({"contrast": math.nan}, "contrast is nan; accepted is a finite number from 0 on"),
        ({"crop": 1.1}, "crop is 1.1; accepted is a number from 0 to 1"),
        ({"cutout": -0.1}, "cutout is -0.1; accepted is a number from 0 to 1"),
        ({"flip": 2}, "flip is 2; accepted is a number from 0 to 1"),
        ({"scale": 0.9}, "scale is 0.9; accepted is a number from 1 to 8"),
        ({"scale": 8.1}, "scale is 8.1; accepted is a number from 1 to 8"),
        ({"rotation": 181}, "rotation is 181; accepted is a number from 0 to 180"),
        ({"rotation": True}, "rotation is True"),
    ],
)
def test_a_strength_out_of_its_range_is_named(strength, message):
    with pytest.raises(ValueError, match=message):
        AugmentationStrengths(**strength)


def test_the_published_strengths_are_the_default():
    assert AugmentationStrengths() == PUBLISHED
