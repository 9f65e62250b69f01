"""The curated Galaxy Zoo 2 of Guan and others (arXiv 2311.17967), from a catalogue and pictures.

Of each class of `galaxy_votes` the surest galaxies are kept, 600 in the paper, of which 100 are for
testing. Its public code shuffles the names of files in the order in which the system lists them, so
that which galaxies are for testing differs from machine to machine; here the seed says it.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from kempe_nb.checks import checked_integer
from kempe_nb.data.errors import DataError
from kempe_nb.data.galaxies import CLASSES
from kempe_nb.data.galaxy_catalogue import votes_from_catalogue
from kempe_nb.data.galaxy_pictures import (
    GalaxySet,
    Pictures,
    check_middle,
    middle_half,
    standardised_set,
)
from kempe_nb.data.galaxy_votes import class_scores, curated

__all__ = ["curated_set", "votes_from_catalogue"]

#: Pictures that are held at their full size at a time: all of them would take several gigabytes.
PART = 64


def curated_set(
    catalogue: str | os.PathLike[str],
    images_folder: str | os.PathLike[str],
    *,
    per_class: int = 600,
    test_per_class: int = 100,
    size: int = 128,
    seed: int = 1,
    turns: int = 1,
) -> GalaxySet:
    """Return pictures of the galaxies that volunteers were surest of, as many of each class.

    The middle half of each side is kept, and its pixels are averaged down to `size`. Colours are
    divided by 255 and standardised by the pictures for training. Pictures come class after class,
    in an order that the seed draws and the order of the catalogue does not change, unless two
    scores are equal.

    Parameters
    ----------
    catalogue : path
        As in `votes_from_catalogue`.
    images_folder : path
        Holds N.jpg, or ABCDEF/N.jpg with the first six digits of N, for the number N of each galaxy
        in SDSS's seventh release. The archive of pictures at Zenodo, record 3565489, names them by
        asset_id; its gz2_filename_mapping.csv says whose they are, and they have to be renamed.
    per_class, test_per_class : int
        Galaxies of each class, and how many of these are for testing.
    size : int
        Pixels a side, at least 4.
    seed : int
        From 0 on.
    turns : int
        Each picture for training is shown so often, turned against the clock by a `turns`-th of a
        circle each time before its middle is kept, one after the other. In the paper 1 or 10.

    Raises
    ------
    ValueError
        For numbers out of range, or a class with fewer galaxies than `per_class`.
    DataError
        For what `votes_from_catalogue` refuses, a galaxy that is kept twice, missing pictures,
        which are named before any is read, unreadable ones, two sizes, pictures whose middle is
        smaller than `size`, or turns of pictures that are not square.
    """
    per_class = checked_integer(per_class, "per_class", 2)
    test_per_class = checked_integer(test_per_class, "test_per_class", 1, per_class - 1)
    size = checked_integer(size, "size", 4)
    seed = checked_integer(seed, "seed", 0)
    turns = checked_integer(turns, "turns", 1)
    folder = Path(images_folder).expanduser()
    if not folder.is_dir():
        raise DataError(f"images_folder is {folder}; accepted is a folder with pictures")
    fractions, ids = votes_from_catalogue(catalogue)
    rows, labels = curated(class_scores(fractions), per_class)
    _refuse_repeated(ids[rows], catalogue)
    files = _files(ids[rows], folder)
    _check_sizes(files, size, turns, folder)
    places = _shuffled(per_class, seed)
    parts = []
    for kept, count in ((places[:, :-test_per_class], turns), (places[:, -test_per_class:], 1)):
        kept = kept.ravel()
        shown = _shown([files[place] for place in kept], size, count, folder)
        parts.append(Pictures(shown, torch.from_numpy(labels[kept].repeat(count))))
    return standardised_set(*parts, CLASSES)


def _refuse_repeated(ids: np.ndarray, catalogue: str | os.PathLike[str]) -> None:
    """Refuse a galaxy that is kept twice: it might be in training and in testing."""
    found, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise DataError(
            f"{catalogue} has galaxy {found[counts > 1][0]} in several rows that are kept; "
            "accepted is one row for each galaxy"
        )


def _files(ids: np.ndarray, folder: Path) -> list[Path]:
    """Return the picture of each galaxy; refuse with the first that are missing."""
    flat = [folder / f"{number}.jpg" for number in ids]
    nested = [folder / str(number)[:6] / f"{number}.jpg" for number in ids]
    files = [
        next((path for path in places if path.is_file()), None)
        for places in zip(flat, nested, strict=True)
    ]
    lacking = [path.name for path, found in zip(flat, files, strict=True) if found is None]
    if lacking:
        named = ", ".join(lacking[:3])
        more = f" and {len(lacking) - 3} other pictures" if len(lacking) > 3 else ""
        raise DataError(f"{folder} lacks {named}{more}; accepted is a picture of each galaxy kept")
    return files


def _check_sizes(files: Sequence[Path], size: int, turns: int, folder: Path) -> None:
    """Refuse pictures that do not fit, by their headers alone."""
    first = None
    for path in files:
        try:
            with Image.open(path) as picture:
                found = picture.size
        except OSError as error:
            raise DataError(f"{path} is not a readable image: {error}") from error
        first = first or found
        if found != first:
            raise DataError(
                f"{path} has {_spoken(found)} pixels and {files[0].name} {_spoken(first)}; "
                "accepted is one size"
            )
    check_middle(first[1], first[0], size, str(folder))
    if turns > 1 and first[0] != first[1]:
        raise DataError(
            f"{folder} has pictures of {_spoken(first)}; accepted are square ones, to be turned"
        )


def _spoken(size: tuple[int, int]) -> str:
    """Return Pillow's width and height, as height x width."""
    return f"{size[1]} x {size[0]}"


def _shuffled(per_class: int, seed: int) -> np.ndarray:
    """Return the places of each class's galaxies in an order of chance, int64 [9, per_class]."""
    generator = np.random.default_rng(seed)
    places = np.arange(len(CLASSES) * per_class).reshape(len(CLASSES), per_class)
    return generator.permuted(places, axis=1)


def _shown(files: Sequence[Path], size: int, turns: int, folder: Path) -> torch.Tensor:
    """Return the turns of each file, one after the other; float32 [turns N, 3, size, size]."""
    shown = torch.empty(turns * len(files), 3, size, size)
    step = max(PART // turns, 1)
    for start in range(0, len(files), step):
        pixels = np.stack(
            [each for path in files[start : start + step] for each in _turned(path, turns)]
        )
        images = torch.from_numpy(pixels.transpose(0, 3, 1, 2))
        shown[turns * start :][: len(images)] = middle_half(images, size, str(folder))
    return shown


def _turned(path: Path, turns: int) -> list[np.ndarray]:
    """Return a picture as it stands and turned, uint8 [H, W, 3] each.

    Each pixel takes the colour of the nearest one, as in the paper's code. The corners that a turn
    leaves empty lie outside of the middle half.
    """
    try:
        with Image.open(path) as picture:
            upright = picture.convert("RGB")
    except OSError as error:
        raise DataError(f"{path} is not a readable image: {error}") from error
    return [np.asarray(upright.rotate(360 * turn / turns)) for turn in range(turns)]
