"""Rows of parameters for `kempe_nb.affine_augment`, drawn as the published method draws them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kempe_nb.checks import (
    checked_choice,
    checked_integer,
    checked_number,
    checked_shape,
    keep_checked,
)
from kempe_nb.kernels.affine_augment import COLUMNS, MOST_SCALE, UNCHANGED

#: What can happen to an image, in the order in which it does; the colour is three of it at once.
EFFECTS = "colour", "crop", "cutout", "flip", "scale", "rotation"


@dataclass(frozen=True)
class AugmentationStrengths:
    """How much of each effect may be drawn; the defaults are those of the published method.

    Differentiable siamese augmentation (Zhao and Bilen 2021, arXiv 2102.08259) draws uniformly.

    Attributes
    ----------
    brightness : float
        The length of the interval about 0 from which it is drawn.
    saturation : float
        The end of the interval from 0 on from which the factor is drawn: 0 is grey, 1 unchanged.
    contrast : float
        The start of the interval of length 1 from which the factor is drawn.
    crop : float
        The largest shift, as a part of each side, from 0 to 1.
    cutout : float
        The sides of the rectangle of zeros, as a part of each side, from 0 to 1. Its middle is
        drawn, and what sticks out is cut off.
    scale : float
        The largest factor s between the result and the image, 1 to 8; it is drawn for each axis by
        itself, from 1 / s to s.
    rotation : float
        The largest angle in degrees either way, 0 to 180.
    flip : float
        The probability of an image in a mirror, 0 to 1.
    """

    brightness: float = 1.0
    saturation: float = 2.0
    contrast: float = 0.5
    crop: float = 0.125
    cutout: float = 0.5
    scale: float = 1.2
    rotation: float = 15.0
    flip: float = 0.5

    def __post_init__(self):
        ends = {"crop": 1, "cutout": 1, "flip": 1, "rotation": 180}
        for name in ("brightness", "saturation", "contrast", "crop", "cutout", "rotation", "flip"):
            end = ends.get(name, math.inf)
            accepted = f"a number from 0 to {end}" if name in ends else "a finite number from 0 on"
            value = checked_number(
                getattr(self, name), name, 0, math.nextafter(end, math.inf), accepted
            )
            keep_checked(self, **{name: value})
        end = math.nextafter(MOST_SCALE, math.inf)
        accepted = f"a number from 1 to {MOST_SCALE}"
        keep_checked(self, scale=checked_number(self.scale, "scale", 1, end, accepted))


#: As published.
PUBLISHED = AugmentationStrengths()


def draw_augmentations(
    count: int,
    size: tuple[int, int],
    generator: np.random.Generator,
    *,
    effects: Sequence[str] = EFFECTS,
    one_effect: bool = False,
    siamese: bool = False,
    strengths: AugmentationStrengths = PUBLISHED,
) -> torch.Tensor:
    """Draw the parameters of `kempe_nb.affine_augment`, float64 [count, 15], on the CPU.

    Whatever the effects, the same numbers of the generator are taken: a subset of effects is drawn
    as it is among all.

    Parameters
    ----------
    size : (int, int)
        Height and width of the images.
    effects : sequence of str
        Which of `EFFECTS` there are.
    one_effect : bool
        Whether one of them is drawn for the whole batch, and the others left out.
    siamese : bool
        Whether all images have one row, in place of one each. Real and synthetic images that are to
        be seen alike take one row, or generators with equal seeds.

    Raises
    ------
    TypeError
        For another kind of generator or of strengths.
    ValueError
        For a count or sides that are no such integers, and for effects that do not exist.
    """
    for name, value, kind in (
        ("generator", generator, np.random.Generator),
        ("strengths", strengths, AugmentationStrengths),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"{name} is a {type(value).__name__}; accepted is a {kind.__name__}")
    count = checked_integer(count, "count", 0)
    size = checked_shape(size)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size is {size}; accepted are a height and a width from 1 on")
    chosen = {checked_choice(each, "effect", EFFECTS) for each in effects}
    drawn = generator.random((1 if siamese else count, 11))
    if one_effect and chosen:
        ordered = [each for each in EFFECTS if each in chosen]
        chosen = {ordered[generator.integers(len(ordered))]}
    rows = np.tile(np.array(UNCHANGED, dtype=np.float64), (len(drawn), 1))
    columns = dict(zip(COLUMNS, rows.T, strict=True))
    if "colour" in chosen:
        columns["brightness"][:] = (drawn[:, 0] - 0.5) * strengths.brightness
        columns["saturation"][:] = drawn[:, 1] * strengths.saturation
        columns["contrast"][:] = drawn[:, 2] + strengths.contrast
    if "crop" in chosen:
        for axis, side, number in zip("yx", size, drawn[:, 3:5].T, strict=True):
            reach = int(side * strengths.crop + 0.5)
            columns[f"shift_{axis}"][:] = np.floor(number * (2 * reach + 1)) - reach
    if "cutout" in chosen:
        _draw_rectangle(columns, size, drawn[:, 5:7], strengths.cutout)
    _draw_matrices(columns, chosen, drawn[:, 7:], strengths)
    return torch.from_numpy(rows).expand(count, -1)


def _draw_rectangle(columns, size, drawn, part):
    places = ("cut_top", "cut_height"), ("cut_left", "cut_width")
    for (start, length), side, number in zip(places, size, drawn.T, strict=True):
        whole = int(side * part + 0.5)
        first = np.floor(number * (side + 1 - whole % 2)) - whole // 2
        columns[start][:] = first.clip(0, side)
        columns[length][:] = (first + whole).clip(0, side) - first.clip(0, side)


def _draw_matrices(columns, chosen, drawn, strengths):
    """Write the matrices: the result is rotated, what it shows is scaled, and that mirrored."""
    mirrored = (drawn[:, 0] < strengths.flip) & ("flip" in chosen)
    low = 1 / strengths.scale
    scales = np.where("scale" in chosen, low + drawn[:, 1:3] * (strengths.scale - low), 1.0)
    turn = (2 * drawn[:, 3] - 1) * strengths.rotation * ("rotation" in chosen)
    cos, sin = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    down, right = scales[:, 0], np.where(mirrored, -scales[:, 1], scales[:, 1])
    for name, entry in zip(
        ("yy", "yx", "xy", "xx"), (down * cos, down * sin, -right * sin, right * cos), strict=True
    ):
        columns[name][:] = entry
