"""Data sets for the tutorials: verified images and a corpus that every reader already has.

Two sets need no network at all: ``"digits"`` comes with scikit-learn and ``"stdlib"`` is the
standard library of the running Python, read as text. The others (``"mnist"``,
``"fashion_mnist"``, ``"cifar10"``) are downloaded once, to :func:`cache_folder`, from the
addresses that torchvision knows, and every load compares them with torchvision's checksums again.

Importing this module imports torch, but neither torchvision nor scikit-learn.
"""

import numbers
import os
from pathlib import Path
from typing import Any

from kempe_nb.data.cache import cache_folder
from kempe_nb.data.corpus import Corpus, corpus_from_text
from kempe_nb.data.errors import DataError, bad_argument
from kempe_nb.data.images import Images, check_limit, limited
from kempe_nb.data.text_files import corpus_from_files
from kempe_nb.data.torchvision_import import import_torchvision

__all__ = [
    "DATASETS",
    "Corpus",
    "DataError",
    "Images",
    "cache_folder",
    "corpus_from_files",
    "corpus_from_text",
    "import_torchvision",
    "load",
]

DATASETS = ("digits", "mnist", "fashion_mnist", "cifar10", "stdlib")
"""Names that :func:`load` accepts."""

# Sizes of the published sets, only to refuse a hopeless `limit` before anything is downloaded.
_PUBLISHED_SIZES = {
    "mnist": {"train": 60_000, "test": 10_000},
    "fashion_mnist": {"train": 60_000, "test": 10_000},
    "cifar10": {"train": 50_000, "test": 10_000},
}


def load(
    name: str,
    split: str = "train",
    *,
    limit: int | None = None,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
) -> Images | Corpus:
    """Load one split of a data set, verifying it first.

    Parameters
    ----------
    name : str
        One of `DATASETS`.
    split : str
        ``"train"`` or ``"test"``; for ``"stdlib"`` also ``"all"``. The digits of scikit-learn
        have no split of their own: every fifth image (positions 4, 9, ...) is for testing. Of
        the standard library every tenth file (positions 9, 19, ... by path) is.
    limit : int, optional
        For image sets: keep the first `limit` items of a permutation drawn with `seed`. None
        keeps all, in file order.
    seed : int
        Seed of that permutation; a larger `limit` with the same seed only adds items.
    folder : path, optional
        For mnist, fashion_mnist and cifar10: where the files are, instead of
        ``cache_folder() / name``; nothing is downloaded then. Files are found in the folder
        itself or laid out below it as torchvision does.

    Returns
    -------
    Images or Corpus
        Corpus for ``"stdlib"``, else Images.

    Raises
    ------
    ValueError
        If an argument is not acceptable; the message names it and what is accepted.
    DataError
        If the data cannot be fetched, found, read or trusted.

    Notes
    -----
    MNIST and Fashion-MNIST are also accepted as unpacked IDX files, for which no checksum is
    published: then header, length and labels are checked, and `description` says so.
    """
    _check_arguments(name, split, limit, seed, folder)
    # Each of these modules is imported only when a set of its format is asked for: the outputs of
    # a chapter are computed anew when a module that it imported has changed.
    if name == "stdlib":
        from kempe_nb.data import stdlib

        return stdlib.load(split)
    if name == "digits":
        from kempe_nb.data import digits

        return limited(digits.load(split), limit, seed)
    place = cache_folder() / name if folder is None else Path(folder).expanduser()
    if name == "cifar10":
        from kempe_nb.data import cifar

        everything = cifar.load(split, place, may_download=folder is None)
    else:
        from kempe_nb.data import idx

        everything = idx.load(name, split, place, may_download=folder is None)
    return limited(everything, limit, seed)


def _is_integer(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _check_arguments(name: object, split: object, limit: Any, seed: Any, folder: object) -> None:
    if name not in DATASETS:
        raise bad_argument("name", name, ", ".join(map(repr, DATASETS)))
    splits = ("all", "train", "test") if name == "stdlib" else ("train", "test")
    if split not in splits:
        raise bad_argument("split", split, ", ".join(map(repr, splits)) + f" for {name!r}")
    if name == "stdlib" and limit is not None:
        raise bad_argument("limit", limit, "None for 'stdlib', which is a text")
    if limit is not None and (not _is_integer(limit) or limit < 1):
        raise bad_argument("limit", limit, "None or an integer of at least 1")
    if not _is_integer(seed) or not 0 <= seed < 2**63:
        raise bad_argument("seed", seed, "an integer from 0 to 2**63 - 1")
    if folder is not None:
        if name not in _PUBLISHED_SIZES:
            raise bad_argument("folder", folder, f"None for {name!r}, which has no files")
        if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
            raise bad_argument("folder", folder, "None or the path of a folder")
    elif limit is not None and name in _PUBLISHED_SIZES:
        check_limit(limit, _PUBLISHED_SIZES[name][split], name, split)
