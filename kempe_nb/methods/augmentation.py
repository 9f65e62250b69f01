"""Batches of a synthetic set: images of each class drawn anew, mirrored or rotated."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

#: The seed of what is drawn here, beside those of a distillation.
_INNER = 3


def inner_batches(
    classes: torch.Tensor,
    *,
    per_class: int | None = None,
    flip_and_rotate: bool = False,
    seed: Sequence[int] = (0,),
):
    """Return `batch(synthetic, step)`: images of each class, drawn anew in each step, augmented.

    For one set, images [n, ...], not for many at once.
    """
    places = [torch.nonzero(classes == c).flatten() for c in classes.unique()]

    def batch(synthetic, step):
        images, labels = synthetic
        rng = np.random.default_rng([*seed, step, _INNER])
        if per_class is not None:
            drawn = [own[rng.permutation(len(own))[:per_class]] for own in places]
            chosen = torch.cat(drawn)
            images, labels = images[chosen], labels[chosen]
        if flip_and_rotate:
            images = flip_or_rotate(images, rng)
        return images, labels

    return batch


def flip_or_rotate(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Return images [N, C, H, W], mirrored or rotated, all in the same one of the two ways.

    Either each image is mirrored with probability 1/2, or each is rotated by an angle uniform in
    +- 15 degrees (bilinear, zero outside); a draw decides which. Differentiable in the images.
    """
    if images.ndim != 4:
        raise ValueError(f"images have shape {tuple(images.shape)}; accepted is [N, C, H, W]")
    count, place = len(images), {"dtype": images.dtype, "device": images.device}
    if rng.random() < 0.5:
        mirrored = torch.as_tensor(rng.random(count) < 0.5, device=images.device)
        return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
    angles = torch.as_tensor(np.deg2rad(rng.uniform(-15, 15, count)), **place)
    zero, cos, sin = torch.zeros_like(angles), angles.cos(), angles.sin()
    # The grid reaches from -1 to 1 in both directions, whatever the sides.
    aspect = images.shape[2] / images.shape[3]
    entries = [cos, -sin * aspect, zero, sin / aspect, cos, zero]
    matrices = torch.stack(entries, 1).view(-1, 2, 3)
    grid = F.affine_grid(matrices, images.shape, align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
