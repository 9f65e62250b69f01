"""Digits on coloured backgrounds, painted when they are asked for.

The label of a picture is a property of its digit, the attribute is its background; where one goes
with the other, a network can read the label off the background. The same digits can be painted
again with other backgrounds, so that nothing but the background tells two sets apart.
"""

from typing import NamedTuple

import torch

from kempe_nb.checks import (
    check_dtype,
    check_finite,
    checked_fraction,
    checked_integer,
    checked_not_negative,
    common_device,
)

#: Red and green, with the same mean.
COLOURS = ((1.0, 0.1, 0.1), (0.1, 1.0, 0.1))


class Painted(NamedTuple):
    """Pictures with labels and groups; group = 2 label + attribute."""

    pictures: torch.Tensor
    labels: torch.Tensor
    groups: torch.Tensor

    def rows(self, index: torch.Tensor) -> "Painted":
        """Return some of the pictures."""
        return Painted(*(each[index] for each in self))


def coloured_digits(
    strokes: torch.Tensor,
    digits: torch.Tensor,
    generator: torch.Generator,
    *,
    train: int = 800,
    annotated: int = 400,
    train_share: float = 0.95,
    annotated_share: float = 0.5,
    noise: float = 0.2,
) -> dict[str, Painted]:
    """Return three sets of digits on red or green ground; the label is 1 for the digits from 5 on.

    Parameters
    ----------
    strokes : floating point [N, 1, H, W]
        Within [0, 1].
    digits : int64 [N]
        0 to 9.
    generator : torch.Generator
        Of the split, the attributes and the noise; on the device of the strokes.
    train, annotated : int
        Samples; at least 4 each, together fewer than N.
    train_share, annotated_share : float
        Share of the samples whose ground is that of their label: green for 1, red for 0.
    noise : float
        See `paint_backgrounds`.

    Returns
    -------
    dict
        "train", "annotated", and "test": each of the remaining digits twice, once on either ground.
        No digit is in two of them.

    Raises
    ------
    ValueError
        For more samples than there are, or as `paint_backgrounds`.
    """
    if digits.shape != strokes.shape[:1] or not ((digits >= 0) & (digits <= 9)).all():
        raise ValueError(
            f"digits have shape {tuple(digits.shape)}; accepted are 0 to 9, ({len(strokes)},)"
        )
    checked_integer(train, "train", 4)
    checked_integer(annotated, "annotated", 4)
    if train + annotated >= len(digits):
        raise ValueError(
            f"train and annotated are {train} and {annotated} of {len(digits)} digits; accepted "
            "are numbers that leave some for the test"
        )
    order = torch.randperm(len(digits), generator=generator, device=digits.device)
    parts = order.split([train, annotated, len(order) - train - annotated])
    found = {}
    for name, own, share in zip(
        ("train", "annotated"), parts, (train_share, annotated_share), strict=False
    ):
        labels = (digits[own] >= 5).long()
        attributes = correlated_attributes(labels, share, generator)
        pictures = paint_backgrounds(strokes[own], attributes, generator, noise=noise)
        found[name] = Painted(pictures, labels, 2 * labels + attributes)
    own = parts[2].repeat(2)
    labels = (digits[own] >= 5).long()
    attributes = torch.arange(2, device=digits.device).repeat_interleave(len(parts[2]))
    pictures = paint_backgrounds(strokes[own], attributes, generator, noise=noise)
    return found | {"test": Painted(pictures, labels, 2 * labels + attributes)}


def paint_backgrounds(
    strokes: torch.Tensor,
    attributes: torch.Tensor,
    generator: torch.Generator,
    *,
    brightness: float = 0.6,
    noise: float = 0.1,
) -> torch.Tensor:
    """Return white digits on red (attribute 0) or green (1) ground, float32 [N, 3, H, W].

    Parameters
    ----------
    strokes : floating point [N, 1, H, W]
        Within [0, 1]; 1 is white and 0 shows the ground.
    attributes : int64 [N]
        0 or 1.
    brightness : float
        Of the ground, from 0 to below 1.
    noise : float
        Standard deviation of normal noise in each pixel and channel, from 0 on; values are cut to
        [0, 1] afterwards.

    Raises
    ------
    ValueError
        For another shape, or values out of range.
    """
    common_device(strokes=strokes, attributes=attributes)
    if strokes.ndim != 4 or strokes.shape[1] != 1 or not strokes.is_floating_point():
        raise ValueError(
            f"strokes are {strokes.dtype} {tuple(strokes.shape)}; accepted are floating-point "
            "numbers [N, 1, H, W]"
        )
    check_finite(strokes, "strokes")
    if strokes.numel() and (strokes.min() < 0 or strokes.max() > 1):
        raise ValueError(
            f"strokes lie from {strokes.min():g} to {strokes.max():g}; accepted is 0 to 1"
        )
    check_dtype(attributes, "attributes", (torch.int64,))
    if attributes.shape != strokes.shape[:1] or not ((attributes == 0) | (attributes == 1)).all():
        raise ValueError(
            f"attributes have shape {tuple(attributes.shape)}; accepted are 0 and 1, "
            f"({len(strokes)},)"
        )
    checked_fraction(brightness, "brightness")
    checked_not_negative(noise, "noise")
    ground = brightness * torch.tensor(COLOURS, device=strokes.device)[attributes][:, :, None, None]
    pictures = strokes.float() + (1 - strokes.float()) * ground
    return (
        pictures + noise * torch.randn(pictures.shape, generator=generator, device=strokes.device)
    ).clamp(0, 1)


def correlated_attributes(
    labels: torch.Tensor, share: float, generator: torch.Generator
) -> torch.Tensor:
    """Return attributes that equal the label in a share of the samples of each label, int64 [N].

    The numbers are exact up to rounding; which samples differ is drawn.

    Parameters
    ----------
    labels : int64 [N]
        0 or 1.
    share : float
        From 0 to 1; 0.5 is no correlation.

    Raises
    ------
    ValueError
        For other labels, or a share out of range.
    """
    check_dtype(labels, "labels", (torch.int64,))
    if labels.ndim != 1 or not ((labels == 0) | (labels == 1)).all():
        raise ValueError(f"labels have shape {tuple(labels.shape)}; accepted are 0 and 1, [N]")
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share!r}; accepted is a number from 0 to 1")
    attributes = labels.clone()
    for label in (0, 1):
        own = (labels == label).nonzero()[:, 0]
        order = own[torch.randperm(len(own), generator=generator, device=labels.device)]
        attributes[order[round(share * len(own)) :]] = 1 - label
    return attributes
