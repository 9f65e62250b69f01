"""Images in folders: TRAIN_OR_TEST/CLASS/FILE, as torchvision's ImageFolder reads them."""

import os
from pathlib import Path

import numpy as np

from kempe_nb.data.errors import DataError, bad_argument
from kempe_nb.data.images import Images, make_images
from kempe_nb.data.torchvision_import import import_torchvision


def images_from_folder(folder: str | os.PathLike[str], split: str = "train") -> Images:
    """Load all images below `folder`/`split`, in colour; each subfolder is a class.

    Parameters
    ----------
    folder : path
        Holds "train" and "test".
    split : {"train", "test"}

    Raises
    ------
    ValueError
        For another split.
    DataError
        If the folder is missing, holds no classes or no images, an image cannot be read, or the
        images differ in size.
    """
    if split not in ("train", "test"):
        raise bad_argument("split", split, "'train', 'test'")
    place = Path(folder).expanduser() / split
    try:
        found = import_torchvision().datasets.ImageFolder(place)
    except FileNotFoundError as error:
        raise DataError(f"{place} holds no folders of images: {error}") from error
    pixels = [_pixels(found, index) for index in range(len(found))]
    sizes = {each.shape for each in pixels}
    if len(sizes) > 1:
        raise DataError(f"{place} holds images of different sizes: {sorted(sizes)[:2]}, ...")
    stacked = np.stack(pixels).transpose(0, 3, 1, 2)
    return make_images(
        Path(folder).name, split, stacked, found.targets, found.classes, f"read from {place}"
    )


def _pixels(found, index: int) -> np.ndarray:
    """Return one image, uint8 [H, W, 3]."""
    try:
        return np.asarray(found[index][0])
    except OSError as error:
        raise DataError(f"{found.samples[index][0]} is not a readable image: {error}") from error
