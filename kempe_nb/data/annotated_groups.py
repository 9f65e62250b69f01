"""Published data sets with annotated groups, read from a folder, and feature files of one's own.

Nothing is downloaded here: the sets are large, and their terms are to be read first. A folder that
lacks something is refused with what was looked for and where the set is published. Group numbers
are label * attributes + attribute, as in the code of Sagawa et al. (kohpangwei/group_DRO), which
also made the splits.
"""

import csv
import os
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from kempe_nb.data.errors import DataError, bad_argument
from kempe_nb.data.torchvision_import import import_torchvision

SPLITS = ("train", "val", "test")
UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)
#: Where each set is described and can be had.
PUBLISHED = {
    "waterbirds": "github.com/kohpangwei/group_DRO, waterbird_complete95_forest2water2",
    "celeba": "mmlab.ie.cuhk.edu.hk/projects/CelebA.html, aligned and cropped images",
    "multinli": "github.com/kohpangwei/group_DRO, metadata_random.csv",
}


@dataclass(frozen=True, eq=False)
class Annotated:
    """Samples with labels, groups and splits.

    Attributes
    ----------
    name : str
    labels, groups, splits : int64 [N]
        Splits are numbers into `SPLITS`.
    group_names : tuple of str
    features : float32 [N, D], or None
        For a feature file.
    files : tuple of Path
        Images, one for each sample, or none.
    """

    name: str
    labels: torch.Tensor = field(repr=False)
    groups: torch.Tensor = field(repr=False)
    splits: torch.Tensor = field(repr=False)
    group_names: tuple[str, ...]
    features: torch.Tensor | None = field(default=None, repr=False)
    files: tuple[Path, ...] = field(default=(), repr=False)

    def rows(self, split: str) -> torch.Tensor:
        """Return the positions of a split's samples, int64."""
        if split not in SPLITS:
            raise bad_argument("split", split, ", ".join(map(repr, SPLITS)))
        return (self.splits == SPLITS.index(split)).nonzero()[:, 0]

    def counts(self, split: str) -> torch.Tensor:
        """Return the samples of each group in a split, int64 [groups]; 0 where there is none."""
        return torch.bincount(self.groups[self.rows(split)], minlength=len(self.group_names))

    def image(self, row: int) -> Image.Image:
        """Read one image, in colour."""
        if not self.files:
            raise DataError(f"{self.name} has no images; it is a table of features.")
        try:
            with Image.open(self.files[row]) as found:
                return found.convert("RGB")
        except OSError as error:
            raise DataError(f"{self.files[row]} is not a readable image: {error}") from error


def waterbirds(folder: str | os.PathLike[str]) -> Annotated:
    """Read Waterbirds: `folder`/metadata.csv and the images that it names.

    The attribute is the background, 0 land and 1 water; the label 0 landbird and 1 waterbird.

    Raises
    ------
    DataError
        If the table or an image is missing, or a value is none of those.
    """
    place = Path(folder).expanduser()
    table = _table(place / "metadata.csv", ("img_filename", "y", "split", "place"), "waterbirds")
    labels, attributes, splits = (
        _numbers(table, name, top, place / "metadata.csv")
        for name, top in (("y", 2), ("place", 2), ("split", 3))
    )
    files = tuple(place / row["img_filename"] for row in table)
    _refuse_lacking(files)
    birds, grounds = ("landbird", "waterbird"), ("land", "water")
    names = tuple(f"{bird} on {ground}" for bird in birds for ground in grounds)
    return Annotated("waterbirds", labels, 2 * labels + attributes, splits, names, files=files)


def celeba(folder: str | os.PathLike[str]) -> Annotated:
    """Read CelebA through torchvision, from `folder`/celeba, with its checksums.

    The label is Blond_Hair, the attribute Male.

    Raises
    ------
    DataError
        If files are missing or differ from those published.
    """
    place = Path(folder).expanduser()
    try:
        found = import_torchvision().datasets.CelebA(place, split="all", target_type="attr")
    except RuntimeError as error:
        raise _missing("celeba", place / "celeba") from error
    labels, attributes = (
        found.attr[:, found.attr_names.index(name)] for name in ("Blond_Hair", "Male")
    )
    partition = _partition(place / "celeba" / "list_eval_partition.txt")
    images = place / "celeba" / "img_align_celeba"
    _refuse_lacking(images / name for name in found.filename)
    names = ("dark women", "dark men", "blond women", "blond men")
    files = tuple(images / name for name in found.filename)
    return Annotated("celeba", labels, 2 * labels + attributes, partition, names, files=files)


def multinli(folder: str | os.PathLike[str]) -> Annotated:
    """Read labels, groups and splits of MultiNLI, `folder`/metadata_random.csv, and features.

    The attribute is a negation word in the hypothesis; labels are contradiction, entailment,
    neutral. Features of one's own are `folder`/features.npy [N, D], in the order of the table, such
    as the pooled output of a fine-tuned BERT; without that file there are none.

    Raises
    ------
    DataError
        If the table is missing or malformed, or the features have another length.
    """
    place = Path(folder).expanduser()
    columns = ("gold_label", "sentence2_has_negation", "split")
    table = _table(place / "metadata_random.csv", columns, "multinli")
    labels, attributes, splits = (
        _numbers(table, name, top, place / "metadata_random.csv")
        for name, top in zip(columns, (3, 2, 3), strict=True)
    )
    features = None
    if (path := place / "features.npy").is_file():
        features = _checked_features(_array_file(path), len(labels), path)
    names = tuple(
        f"{label}, {negation}"
        for label in ("contradiction", "entailment", "neutral")
        for negation in ("no negation", "negation")
    )
    return Annotated("multinli", labels, 2 * labels + attributes, splits, names, features)


def feature_file(path: str | os.PathLike[str]) -> Annotated:
    """Read features that were extracted before: an .npz with x, y, group and split.

    x is [N, D], y and group are integers [N] from 0 on, split holds 0, 1, 2 or "train", "val",
    "test".

    Raises
    ------
    DataError
        If the file or an array is missing, lengths differ, a feature is NaN or infinite, or a row
        of x occurs in the test split and in another one: then a test would not be a test.
    """
    path = Path(path).expanduser()
    file = _array_file(path)
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise DataError(f"{path} is not a file of features: it holds a single array.")
    try:
        with file:
            arrays = {name: file[name] for name in ("x", "y", "group", "split")}
    except KeyError as error:
        raise DataError(f"{path} lacks {error}; needed are x, y, group and split.") from error
    except UNREADABLE as error:
        raise DataError(f"{path} is not a file of features: {error}") from error
    count = np.atleast_1d(arrays["y"]).shape[0]
    features = _checked_features(arrays["x"], count, path)
    labels, groups = (_integers(arrays[name], name, count, path) for name in ("y", "group"))
    split = arrays["split"]
    if split.dtype.kind == "U" and split.ndim == 1:
        if unknown := sorted(set(split.tolist()) - set(SPLITS)):
            raise DataError(f"{path}: split holds {unknown[0]!r}; accepted are {SPLITS}.")
        split = np.array([SPLITS.index(each) for each in split.tolist()], dtype=np.int64)
    splits = _integers(split, "split", count, path)
    if int(splits.max()) >= len(SPLITS):
        raise DataError(f"{path}: split holds {int(splits.max())}; accepted are 0, 1 and 2.")
    test = splits == SPLITS.index("test")
    refuse_overlap(features[~test], features[test], str(path))
    names = tuple(f"group {number}" for number in range(int(groups.max()) + 1))
    return Annotated(path.stem, labels, groups, splits, names, features)


def refuse_overlap(annotated: torch.Tensor, test: torch.Tensor, where: str) -> None:
    """Refuse samples that are also test samples, by the bytes of their rows.

    Parameters
    ----------
    annotated, test : [N, ...], [M, ...]
        Of one dtype; only rows with the very same bytes are the same.
    where : str
        Begins the message.

    Raises
    ------
    DataError
        With the number of samples that both hold.
    ValueError
        For two dtypes.
    """
    if annotated.dtype != test.dtype:
        raise ValueError(
            f"annotated is {annotated.dtype} and test {test.dtype}; accepted is one dtype"
        )
    tested = {row.numpy().tobytes() for row in test.contiguous()}
    shared = sum(row.numpy().tobytes() in tested for row in annotated.contiguous())
    if shared:
        raise DataError(
            f"{where}: {shared} of {len(annotated)} annotated samples are also test samples. "
            "Split the data again."
        )


def _refuse_lacking(files: Iterable[Path]) -> None:
    if lacking := [path for path in files if not path.is_file()]:
        raise DataError(f"{lacking[0]} and {len(lacking) - 1} other images are missing.")


def _array_file(path: Path) -> np.ndarray | np.lib.npyio.NpzFile:
    """Open a file of NumPy arrays, none of them pickled."""
    try:
        return np.load(path, allow_pickle=False)
    except UNREADABLE as error:
        raise DataError(f"{path} is not a file of features: {error}") from error


def _missing(name: str, looked_for: Path) -> DataError:
    return DataError(
        f"{looked_for} is missing or damaged. {name} is published at {PUBLISHED[name]}; put it "
        "into this folder."
    )


def _table(path: Path, columns: tuple[str, ...], name: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file that has these columns."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows, found = list(reader), reader.fieldnames or ()
    except OSError as error:
        raise _missing(name, path) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a table of text: {error}") from error
    if lacking := [column for column in columns if column not in found]:
        raise DataError(f"{path} has no column {lacking[0]!r}; it has {', '.join(found)}.")
    if not rows:
        raise DataError(f"{path} has no rows.")
    return rows


def _numbers(table: list[dict[str, str]], name: str, top: int, where: Path) -> torch.Tensor:
    """Return a column of numbers from 0 to below `top`, int64 [N]."""
    values = [row[name] for row in table]
    accepted = {str(number): number for number in range(top)}
    if wrong := [(line, value) for line, value in enumerate(values, 2) if value not in accepted]:
        line, value = wrong[0]
        raise DataError(f"{where}, line {line}: {name} is {value!r}; accepted is 0 to {top - 1}.")
    return torch.tensor([accepted[value] for value in values])


def _partition(path: Path) -> torch.Tensor:
    """Return the splits of CelebA, which torchvision reads and does not keep, int64 [N]."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return torch.tensor([int(line.split()[1]) for line in lines if line.strip()])


def _integers(array: np.ndarray, name: str, count: int, path: Path) -> torch.Tensor:
    fits = array.dtype.kind in "iu" and array.shape == (count,) and count
    if not fits or array.min() < 0 or array.max() >= 2**31:
        raise DataError(
            f"{path}: {name} is {array.dtype} {array.shape}; accepted are integers ({count},) from "
            "0 on."
        )
    return torch.from_numpy(array.astype(np.int64))


def _checked_features(array: np.ndarray, count: int, path: Path) -> torch.Tensor:
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} holds several arrays; accepted is one, [{count}, D].")
    if array.dtype.kind != "f" or array.ndim != 2 or len(array) != count:
        raise DataError(
            f"{path}: features are {array.dtype} {array.shape}; accepted are floating-point "
            f"numbers [{count}, D]."
        )
    with np.errstate(over="ignore"):
        found = array.astype(np.float32)
    if not np.isfinite(found).all():
        wrong = int((~np.isfinite(found)).sum())
        raise DataError(
            f"{path}: features hold {wrong} elements that are NaN, infinite or too large for "
            "float32."
        )
    return torch.from_numpy(found)
