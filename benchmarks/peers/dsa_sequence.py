"""The augmentations of data set distillation by what libraries offer, one effect after the other.

Each takes images [N, C, H, W] and what happens to them, and returns images; None stands for an
effect that is left out. `by_autograd` and `by_vjp` return the gradient along v, too.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F


class Effects(NamedTuple):
    """What happens to N images; colours are [N, 1, 1, 1]."""

    mirrored: torch.Tensor
    brightness: torch.Tensor | None = None
    saturation: torch.Tensor | None = None
    contrast: torch.Tensor | None = None
    #: Rows and columns, int64 [N, 2].
    shift: torch.Tensor | None = None
    #: Top, left, height and width, int64 [N, 4].
    rectangle: torch.Tensor | None = None
    #: Factors for rows and columns [N, 2].
    scales: torch.Tensor | None = None
    #: In radians [N].
    angles: torch.Tensor | None = None


def sequence(images: torch.Tensor, effects: Effects) -> torch.Tensor:
    """Return the images after one operation for each effect, sampled twice, as in published code.

    Published code also draws the numbers, loops over the images in Python to write their matrices,
    and indexes with all four axes; that is left out or done better here.
    """
    if effects.brightness is not None:
        images = images + effects.brightness
        grey = images.mean(1, keepdim=True)
        images = (images - grey) * effects.saturation + grey
        mean = images.mean((1, 2, 3), keepdim=True)
        images = (images - mean) * effects.contrast + mean
        images = _cropped(images, effects.shift)
        images = images * _kept(images, effects.rectangle)
    images = torch.where(effects.mirrored.view(-1, 1, 1, 1), images.flip(3), images)
    if effects.scales is not None:
        images = _sampled(images, _scaling(effects.scales))
        images = _sampled(images, _rotation(effects.angles))
    return images


def one_sample(images: torch.Tensor, effects: Effects) -> torch.Tensor:
    """Return the same from the product of the matrices, colours in one expression."""
    if effects.brightness is None:
        return sequence(images, effects)
    images = _coloured(images, effects)
    images = _cropped(images, effects.shift) * _kept(images, effects.rectangle)
    return _sampled(images, _matrices(effects))


def kornia(images: torch.Tensor, effects: Effects) -> torch.Tensor:
    """Return the same, warped by kornia, which takes matrices in pixels."""
    from kornia.geometry import warp_affine
    from kornia.geometry.transform import hflip

    if effects.brightness is None:
        return torch.where(effects.mirrored.view(-1, 1, 1, 1), hflip(images), images)
    images = _coloured(images, effects)
    images = _cropped(images, effects.shift) * _kept(images, effects.rectangle)
    height, width = images.shape[2:]
    middle = images.new_tensor([(width - 1) / 2, (height - 1) / 2])
    there = torch.linalg.inv(_matrices(effects)[:, :, :2])
    move = middle - there @ middle
    matrices = torch.cat([there, move[:, :, None]], 2)
    return warp_affine(images, matrices, (height, width), align_corners=True)


def by_autograd(call, images: torch.Tensor, effects: Effects, v: torch.Tensor):
    """Return augmented images, and their gradient along v with respect to the images."""
    images = images.detach().requires_grad_()
    made = call(images, effects)
    return made.detach(), torch.autograd.grad(made, images, v)[0]


def by_vjp(call, images: torch.Tensor, effects: Effects, v: torch.Tensor):
    """Return the same by `torch.func`, which a compiler sees through."""
    made, pull = torch.func.vjp(lambda x: call(x, effects), images)
    return made, pull(v)[0]


def _coloured(images, effects):
    saturation, contrast = effects.saturation, effects.contrast
    grey, mean = images.mean(1, keepdim=True), images.mean((1, 2, 3), keepdim=True)
    rest = contrast * (1 - saturation) * grey + (1 - contrast) * mean + effects.brightness
    return contrast * saturation * images + rest


def _cropped(images, shift):
    """Take a window of the image inside of a border of one pixel of zeros."""
    count, _, height, width = images.shape
    rows = torch.arange(height, device=images.device) + shift[:, :1] + 1
    columns = torch.arange(width, device=images.device) + shift[:, 1:] + 1
    rows, columns = rows.clamp(0, height + 1), columns.clamp(0, width + 1)
    last = F.pad(images, (1, 1, 1, 1)).permute(0, 2, 3, 1)
    image = torch.arange(count, device=images.device)[:, None, None]
    return last[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _kept(images, rectangle):
    """Return zeros in the rectangle and ones elsewhere, [N, 1, H, W]."""
    inside = []
    for axis in (0, 1):
        place = torch.arange(images.shape[2 + axis], device=images.device)
        first, length = rectangle[:, axis, None], rectangle[:, axis + 2, None]
        inside.append((place >= first) & (place < first + length))
    cut = inside[0][:, :, None] & inside[1][:, None, :]
    return (~cut)[:, None].to(images.dtype)


def _scaling(scales):
    zero = torch.zeros_like(scales[:, 0])
    rows = [scales[:, 1], zero, zero, zero, scales[:, 0], zero]
    return torch.stack(rows, 1).view(-1, 2, 3)


def _rotation(angles):
    """Return the matrices of square images, which `affine_grid` takes as they are."""
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    return torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3)


def _matrices(effects):
    """Return mirror, scaling and rotation in one, [N, 2, 3], columns first."""
    made = _scaling(effects.scales)[:, :, :2] @ _rotation(effects.angles)
    sign = 1 - 2 * effects.mirrored.to(made.dtype)
    return torch.stack([made[:, 0] * sign[:, None], made[:, 1]], 1)


def _sampled(images, theta):
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
