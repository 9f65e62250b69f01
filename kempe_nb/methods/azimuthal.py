"""What of a picture depends on the angle about its middle, and what does not.

On a circle of radius R light is a function f(phi), with the modes

    a_m(R) = mean over phi of f(phi) exp(-i m phi).

a_0 is the profile; two arms, a bar and an inclined disk have an a_2. A turn by theta multiplies a_m
by exp(-i m theta): its size does not change, and in the mean over many directions it vanishes
unless m is 0.
"""

import math

import numpy as np
import torch
from scipy.ndimage import map_coordinates

from kempe_nb.checks import checked_integer


def circular_mean(images: torch.Tensor) -> torch.Tensor:
    """Return pictures whose pixels are replaced by the mean over their ring; like `images`.

    Rings are one pixel wide, about the middle of the picture. What is left is the profile of each
    channel, a few numbers. Done twice it changes nothing more; a turn by a quarter before it
    changes nothing.

    Parameters
    ----------
    images : float32 or float64 [..., H, W]
    """
    _check(images)
    height, width = images.shape[-2:]
    ring = torch.from_numpy(_distance(height, width).round().astype(np.int64)).flatten()
    ring = ring.to(images.device)
    flat = images.flatten(-2)
    shape = *flat.shape[:-1], int(ring.max()) + 1
    # Sums in float64: in float32 a turn of the picture would change the last bits.
    sums = torch.zeros(shape, dtype=torch.float64, device=images.device)
    sums.index_add_(-1, ring, flat.double())
    means = sums / ring.bincount()
    # A ring may be empty in pictures of one or two pixels; nothing reads it.
    return means[..., ring].to(images.dtype).view(images.shape)


def mode_strengths(light: np.ndarray, modes: int = 4) -> np.ndarray:
    """Return the strengths of modes 0 to `modes`, float64 [..., modes + 1].

    The strength of mode m is the root of the integral of |a_m(R)|^2 R dR, out to the edge of the
    picture; light is read between pixels by cubic splines.

    Parameters
    ----------
    light : float [..., H, W]
        Finite numbers.
    modes : int
        From 0; at most 15.
    """
    return np.sqrt(np.square(np.abs(mode_amplitudes(light, modes))).sum(-1))


def mode_amplitudes(light: np.ndarray, modes: int = 4) -> np.ndarray:
    """Return a_m(R) root(R dR) on rings one pixel apart, complex128 [..., modes + 1, rings].

    Parameters as in `mode_strengths`. Angles run against the clock, from the right.
    """
    modes = checked_integer(modes, "modes", 0, 15)
    light = np.asarray(light)
    if light.ndim < 2 or light.dtype.kind not in "iuf" or min(light.shape[-2:]) < 4:
        raise ValueError(
            f"light is {light.dtype} {light.shape}; accepted are numbers, [..., H, W], 4 and more"
        )
    light = light.astype(np.float64)
    if not np.isfinite(light).all():
        raise ValueError("light holds values that are not finite; accepted are finite numbers")
    height, width = light.shape[-2:]
    radii = np.arange(0.5, min(height, width) / 2 - 0.5)
    angles = np.arange(64) * (2 * math.pi / 64)
    rows = (height - 1) / 2 - radii[:, None] * np.sin(angles)
    columns = (width - 1) / 2 + radii[:, None] * np.cos(angles)
    flat = light.reshape(-1, height, width)
    rings = np.stack([map_coordinates(each, (rows, columns), mode="nearest") for each in flat])
    found = np.fft.fft(rings, axis=-1)[..., : modes + 1] / len(angles) * np.sqrt(radii)[:, None]
    return np.moveaxis(found, -1, -2).reshape(*light.shape[:-2], modes + 1, len(radii))


def _distance(height: int, width: int) -> np.ndarray:
    rows, columns = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    return np.hypot(rows[:, None], columns)


def _check(images: torch.Tensor) -> None:
    if not isinstance(images, torch.Tensor) or not images.is_floating_point() or images.ndim < 2:
        raise ValueError(
            f"images are {getattr(images, 'dtype', type(images).__name__)}; accepted is a tensor "
            "of floating-point numbers, [..., H, W]"
        )
