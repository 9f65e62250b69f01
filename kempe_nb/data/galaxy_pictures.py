"""Sets of galaxy pictures as networks take them: from the simulator, or from a folder of files."""

import os
from typing import NamedTuple

import numpy as np
import torch

from kempe_nb.checks import checked_integer, checked_not_negative
from kempe_nb.data.errors import DataError
from kempe_nb.data.galaxies import CLASSES, Galaxies, draw_galaxies, render, stretched
from kempe_nb.data.image_folder import images_from_folder

#: Of the simulator, in light per pixel of a galaxy of average flux: noise, the light up to which a
#: picture is shown as it is, and the blur as a share of the side.
NOISE, SOFTENING, BLUR = 0.2, 2.0, 1 / 32


class Pictures(NamedTuple):
    """Pictures float32 [N, 3, H, W] as they are shown, and classes int64 [N]."""

    images: torch.Tensor
    labels: torch.Tensor


class GalaxySet(NamedTuple):
    """Pictures for training and for testing.

    Attributes
    ----------
    train, test : Pictures
        Standardised with `mean` and `spread`.
    mean, spread : float32 [3, 1, 1]
        Of each colour over the pictures for training.
    classes : tuple of str
    """

    train: Pictures
    test: Pictures
    mean: torch.Tensor
    spread: torch.Tensor
    classes: tuple[str, ...]

    def shown(self, images: torch.Tensor) -> torch.Tensor:
        """Return standardised pictures as they are shown, [..., 3, H, W]."""
        return images * self.spread + self.mean

    def standardised(self, images: torch.Tensor) -> torch.Tensor:
        """Return shown pictures as networks take them, [..., 3, H, W]."""
        return (images - self.mean) / self.spread


def photographed(
    galaxies: Galaxies,
    size: int,
    generator: np.random.Generator,
    *,
    noise: float = NOISE,
    individual: float = 0.0,
) -> torch.Tensor:
    """Return rendered galaxies with noise, stretched; float32 [N, 3, size, size].

    Parameters
    ----------
    galaxies : Galaxies
    size : int
        Pixels a side, at least 10.
    generator : numpy.random.Generator
    noise : float
        Standard deviation in a pixel and colour, in the mean light per pixel of a galaxy of flux 1.
    individual : float
        Each colour of each galaxy is multiplied by exp(individual z) with a normal z of its own: so
        galaxies of a class differ in colour and brightness.

    Raises
    ------
    ValueError
        For a size below 10, a noise or spread below zero, or what `render` refuses.
    """
    size = checked_integer(size, "size", 10)
    individual = checked_not_negative(individual, "individual")
    noise = checked_not_negative(noise, "noise")
    light = render(galaxies, size, blur=BLUR * size)
    return exposed(light, generator, noise=noise, individual=individual)


def exposed(
    light: np.ndarray,
    generator: np.random.Generator,
    *,
    noise: float = NOISE,
    individual: float = 0.0,
) -> torch.Tensor:
    """Return light with noise, stretched; see `photographed`, of which this is the second half.

    Parameters
    ----------
    light : float32 [N, 3, size, size]
        As `render` returns it.

    Raises
    ------
    ValueError
        For light that is none, or a noise or spread below zero.
    """
    individual = checked_not_negative(individual, "individual")
    noise = checked_not_negative(noise, "noise")
    if not isinstance(light, np.ndarray) or light.dtype != np.float32 or light.ndim != 4:
        found = getattr(light, "dtype", type(light).__name__)
        raise ValueError(f"light is {found}; accepted is an array of float32, [N, 3, size, size]")
    pixels = light.shape[-1] ** 2
    own = np.exp(individual * generator.standard_normal((len(light), 3, 1, 1)))
    grain = noise / pixels * generator.standard_normal(light.shape, np.float32)
    seen = (light * own + grain).astype(np.float32)
    return torch.from_numpy(stretched(seen, SOFTENING / pixels))


def simulated(
    per_class: int,
    test_per_class: int,
    generator: np.random.Generator,
    *,
    size: int = 32,
    noise: float = NOISE,
    individual: float = 0.0,
) -> GalaxySet:
    """Return pictures of simulated galaxies, as many of each of the nine classes.

    Parameters
    ----------
    per_class, test_per_class : int
        At least 1. Pictures come class after class.
    size, noise, individual
        As in `photographed`.
    """
    parts = []
    for name, count in (("per_class", per_class), ("test_per_class", test_per_class)):
        count = checked_integer(count, name, 1)
        labels = np.repeat(np.arange(len(CLASSES)), count)
        parts.append((labels, draw_galaxies(labels, generator)))
    found = [
        Pictures(
            photographed(galaxies, size, generator, noise=noise, individual=individual),
            torch.from_numpy(labels),
        )
        for labels, galaxies in parts
    ]
    return standardised_set(*found, CLASSES)


def from_folder(folder: str | os.PathLike[str], *, size: int = 32) -> GalaxySet:
    """Return pictures of a folder with train/CLASS and test/CLASS, as Guan and others prepare them.

    The middle half of each side is kept, and its pixels are averaged down to `size`, as in their
    public code. Colours are divided by 255.

    Raises
    ------
    DataError
        For a folder without pictures of one size, pictures whose middle is smaller than `size`, or
        other classes for testing than for training.
    """
    size = checked_integer(size, "size", 4)
    found = [images_from_folder(folder, split) for split in ("train", "test")]
    if found[0].classes != found[1].classes:
        raise DataError(
            f"{folder} has classes {found[0].classes} in train and {found[1].classes} in test; "
            "accepted are the same"
        )
    return standardised_set(
        *(Pictures(middle_half(each.images, size, str(folder)), each.labels) for each in found),
        found[0].classes,
    )


def check_middle(height: int, width: int, size: int, folder: str) -> None:
    """Refuse pictures whose middle half is smaller than `size`; `folder` begins the message."""
    if min(height, width) < 2 * size:
        raise DataError(
            f"{folder} has pictures of {height} x {width}; accepted are sides from {2 * size} on, "
            f"whose middle half has {size} pixels"
        )


def middle_half(images: torch.Tensor, size: int, folder: str) -> torch.Tensor:
    """Return the middle half of each side, its pixels averaged down; float32 [N, 3, size, size].

    A pixel that two of the new ones share counts in each by its share, so the mean is kept. This is
    what the public code of Guan and others asks OpenCV for, INTER_AREA.

    Parameters
    ----------
    images : uint8 [N, 3, H, W]
    size : int
        Pixels a side.
    folder : str
        Begins the message.

    Raises
    ------
    DataError
        For pictures whose middle is smaller than `size`.
    """
    height, width = images.shape[2:]
    check_middle(height, width, size, folder)
    rows, columns = ((side - side // 2) // 2 for side in (height, width))
    kept = images[:, :, rows : rows + height // 2, columns : columns + width // 2]
    # In parts: floats of all pictures would take four times the memory of the files' pixels.
    down, across = (_shares(side, size) for side in kept.shape[2:])
    return torch.cat([down @ (part.float() / 255) @ across.T for part in kept.split(256)])


def _shares(pixels: int, size: int) -> torch.Tensor:
    """Return how much of each of `size` equal parts of a side its pixels are, [size, pixels]."""
    # In units in which all edges are whole numbers, so that no share is a rounding error.
    left, edge = pixels * torch.arange(size)[:, None], size * torch.arange(pixels)
    overlap = torch.minimum(left + pixels, edge + size) - torch.maximum(left, edge)
    return overlap.clamp(0).float() / pixels


def standardised_set(train: Pictures, test: Pictures, classes: tuple[str, ...]) -> GalaxySet:
    """Return shown pictures as a set, standardised by those for training.

    Raises
    ------
    DataError
        If a colour is the same in all pixels of all pictures for training.
    """
    mean = train.images.mean((0, 2, 3))[:, None, None]
    spread = train.images.std((0, 2, 3))[:, None, None]
    # Averages of one colour differ by rounding.
    if not (spread > 1e-6 * mean.abs()).all():
        raise DataError("a colour is the same in all pixels of all pictures; accepted are others")
    parts = [Pictures((each.images - mean) / spread, each.labels) for each in (train, test)]
    return GalaxySet(*parts, mean, spread, tuple(classes))
