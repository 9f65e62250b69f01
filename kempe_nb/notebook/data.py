"""Data sets for the tutorials: verified images and a corpus that every reader already has.

Two sets need no network at all: ``"digits"`` comes with scikit-learn and ``"stdlib"`` is the
standard library of the running Python, read as text. The others (``"mnist"``,
``"fashion_mnist"``, ``"cifar10"``) are downloaded once, to :func:`cache_folder`, from the
addresses that torchvision knows, and every load compares them with torchvision's checksums again.

Importing this module imports torch, but neither torchvision nor scikit-learn.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import importlib
import io
import itertools
import math
import numbers
import os
import pickle
import platform
import re
import socket
import sysconfig
import tarfile
import tempfile
import tokenize
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

__all__ = [
    "DATASETS",
    "Corpus",
    "DataError",
    "Images",
    "cache_folder",
    "corpus_from_text",
    "import_torchvision",
    "load",
]

DATASETS = ("digits", "mnist", "fashion_mnist", "cifar10", "stdlib")
"""Names that :func:`load` accepts."""

_SPLITS = {name: ("train", "test") for name in DATASETS} | {"stdlib": ("all", "train", "test")}

# Sizes of the published sets, only to refuse a hopeless `limit` before anything is downloaded.
_PUBLISHED_SIZES = {
    "mnist": {"train": 60_000, "test": 10_000},
    "fashion_mnist": {"train": 60_000, "test": 10_000},
    "cifar10": {"train": 50_000, "test": 10_000},
}

_FOLDER_VARIABLE = "KEMPE_NB_DATA"
_CHECKED_BY_SUM = "checksum verified"
_CHECKED_BY_SHAPE = "own files, structure checked only"

# urllib waits for ever by default: a firewall that drops packets would look like a hung notebook.
_NETWORK_TIMEOUT_SECONDS = 30.0


class DataError(RuntimeError):
    """A data set is missing, damaged or cannot be fetched; the message says what to do."""


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images of one split.

    Attributes
    ----------
    name, split : str
        What was asked for.
    images : torch.Tensor
        uint8, shape [N, C, H, W], in the published pixel range: 0 to 255, or 0 to 16 for digits.
    labels : torch.Tensor
        int64, shape [N]; indices into `classes`.
    classes : tuple of str
        Names of the classes.
    description : str
        One sentence: counts, where the data come from and how they were verified.
    """

    name: str
    split: str
    images: torch.Tensor = field(repr=False)
    labels: torch.Tensor = field(repr=False)
    classes: tuple[str, ...]
    description: str


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text as a sequence of token ids.

    Attributes
    ----------
    name, split : str
        What was asked for.
    tokens : numpy.ndarray
        int32, shape [T]: token ids in reading order.
    vocabulary : tuple of str
        The V token types; a token id is a position in it. Types are ranked by falling count in
        the whole corpus, equal counts by first appearance, and are the same for every split.
    counts : numpy.ndarray
        int64, shape [V]: how often each type of `vocabulary` occurs in this split. Only for the
        split ``"all"`` is it certain to be descending and free of zeros.
    description : str
        One sentence: counts, where the text comes from and the start of `fingerprint`.
    fingerprint : str
        Hexadecimal SHA-256 of the whole corpus, whatever the split.
    """

    name: str
    split: str
    tokens: np.ndarray = field(repr=False)
    vocabulary: tuple[str, ...] = field(repr=False)
    counts: np.ndarray = field(repr=False)
    description: str
    fingerprint: str


def cache_folder() -> Path:
    """Return the folder below which data sets are kept; it need not exist.

    Returns
    -------
    pathlib.Path
        The environment variable ``KEMPE_NB_DATA`` if set, else ``kempe_nb`` in the user's cache
        folder (``XDG_CACHE_HOME`` if that is an absolute path, else ``~/.cache``).
    """
    if chosen := os.environ.get(_FOLDER_VARIABLE):
        return Path(chosen).expanduser()
    # The XDG specification says that a relative path is to be ignored.
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "kempe_nb"


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
    if name == "stdlib":
        return _load_stdlib(split)
    if name == "digits":
        everything = _load_digits(split)
    else:
        place = cache_folder() / name if folder is None else Path(folder).expanduser()
        reader = _load_cifar10 if name == "cifar10" else _load_mnist_family
        everything = reader(name, split, place, may_download=folder is None)
    return _limited(everything, limit, seed)


def corpus_from_text(text: str, name: str = "text") -> Corpus:
    """Turn a text of one's own into a corpus, tokenised as ``load("stdlib")`` does.

    Parameters
    ----------
    text : str
        The text; identifiers and words, runs of digits and single punctuation marks become
        tokens, white space separates them.
    name : str
        Name of the corpus.

    Returns
    -------
    Corpus
        With split ``"all"``; `fingerprint` is the SHA-256 of the text in UTF-8.

    Raises
    ------
    ValueError
        If `text` is not a str or holds nothing but white space.
    """
    if not isinstance(text, str) or not text.strip():
        shown = text if isinstance(text, str) else type(text).__name__
        raise _bad_argument("text", shown, "a str with more than white space in it")
    encoded = _tokenise([text])
    fingerprint = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return _corpus(name, "all", encoded, f"{name}, own text", fingerprint)


# The definitions have to live as long as the process does.
_stand_in_operators: torch.library.Library | None = None


def import_torchvision() -> ModuleType:
    """Import torchvision, also where its compiled operators do not fit the installed torch.

    Beside a CPU build of torch the compiled part of a torchvision built for CUDA cannot be
    loaded, and the import fails because the operator ``torchvision::nms`` does not exist. The
    tutorials need data sets, transforms and models but none of those operators: declaring them is
    enough to import the rest. Calling an operator that is only declared still fails.

    Returns
    -------
    module
        torchvision.

    Raises
    ------
    ImportError, RuntimeError
        Whatever the import raises for any other reason.
    """
    global _stand_in_operators
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _stand_in_operators = library
    return importlib.import_module("torchvision")


# --------------------------------------------------------------------------------------------------
# Arguments
# --------------------------------------------------------------------------------------------------


def _bad_argument(argument: str, value: object, accepted: str) -> ValueError:
    return ValueError(f"{argument} is {value!r}; accepted: {accepted}")


def _is_integer(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _check_arguments(name: object, split: object, limit: Any, seed: Any, folder: object) -> None:
    if name not in DATASETS:
        raise _bad_argument("name", name, ", ".join(map(repr, DATASETS)))
    if split not in _SPLITS[name]:
        raise _bad_argument("split", split, ", ".join(map(repr, _SPLITS[name])) + f" for {name!r}")
    if name == "stdlib" and limit is not None:
        raise _bad_argument("limit", limit, "None for 'stdlib', which is a text")
    if limit is not None and (not _is_integer(limit) or limit < 1):
        raise _bad_argument("limit", limit, "None or an integer of at least 1")
    if not _is_integer(seed) or not 0 <= seed < 2**63:
        raise _bad_argument("seed", seed, "an integer from 0 to 2**63 - 1")
    if folder is not None:
        if name not in _PUBLISHED_SIZES:
            raise _bad_argument("folder", folder, f"None for {name!r}, which has no files")
        if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
            raise _bad_argument("folder", folder, "None or the path of a folder")
    elif limit is not None and name in _PUBLISHED_SIZES:
        _check_limit(limit, _PUBLISHED_SIZES[name][split], name, split)


def _check_limit(limit: int, size: int, name: str, split: str) -> None:
    if limit > size:
        accepted = f"None or 1 to {size}, the size of {name!r} split {split!r}"
        raise _bad_argument("limit", limit, accepted)


# --------------------------------------------------------------------------------------------------
# Images
# --------------------------------------------------------------------------------------------------


def _limited(everything: Images, limit: int | None, seed: int) -> Images:
    """Keep the first `limit` images of a permutation drawn with `seed`."""
    if limit is None:
        return everything
    size = len(everything.labels)
    _check_limit(limit, size, everything.name, everything.split)
    generator = torch.Generator().manual_seed(int(seed))
    chosen = torch.randperm(size, generator=generator)[: int(limit)]
    return Images(
        name=everything.name,
        split=everything.split,
        images=everything.images[chosen],
        labels=everything.labels[chosen],
        classes=everything.classes,
        description=f"{limit:,} images drawn with seed {seed} from {everything.description}",
    )


def _images(
    name: str,
    split: str,
    pixels: np.ndarray,
    labels: np.ndarray,
    classes: Iterable[str],
    source: str,
    *,
    values: str = "0 to 255",
) -> Images:
    """Put arrays ([N, C, H, W] and [N]) into an Images; `source` ends its description."""
    classes = tuple(classes)
    count, channels, height, width = pixels.shape
    colours = "channel" if channels == 1 else "channels"
    return Images(
        name=name,
        split=split,
        images=torch.from_numpy(np.array(pixels, dtype=np.uint8, order="C")),
        labels=torch.from_numpy(np.array(labels, dtype=np.int64)),
        classes=classes,
        description=(
            f"{name} ({split}): {count:,} images of {height} x {width} pixels, {channels} "
            f"{colours}, values {values}, {len(classes)} classes; {source}."
        ),
    )


def _load_digits(split: str) -> Images:
    import sklearn
    from sklearn.datasets import load_digits

    bunch = load_digits()
    is_test = np.arange(len(bunch.target)) % 5 == 4
    keep = is_test if split == "test" else ~is_test
    return _images(
        "digits",
        split,
        bunch.images[keep][:, None],
        bunch.target[keep],
        (str(label) for label in bunch.target_names),
        f"shipped with scikit-learn {sklearn.__version__}, nothing downloaded",
        values="0 to 16",
    )


def _check_labels(labels: np.ndarray, images: int, classes: int, where: str) -> None:
    """Refuse uint8 `labels` that do not fit so many images or classes."""
    if len(labels) != images:
        raise DataError(f"{where}: {images} images but {len(labels)} labels. Delete the wrong one.")
    if labels.max() >= classes:
        raise DataError(f"{where}: a label lies outside 0 to {classes - 1}. Delete this file.")


# --------------------------------------------------------------------------------------------------
# Files that are published with a checksum
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Published:
    """One file of a published data set."""

    name: str
    md5: str
    addresses: tuple[str, ...]


def _find(name: str, places: Iterable[Path]) -> Path | None:
    # os.path.isfile, unlike Path.is_file, also answers False where access is denied.
    return next((place / name for place in places if os.path.isfile(place / name)), None)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _md5(data: bytes) -> str:
    # Published checksums are MD5: good against damage, which is what they are used for here.
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _require_md5(data: bytes, expected: str, where: str, remedy: str) -> None:
    if (found := _md5(data)) != expected:
        raise DataError(
            f"{where} is damaged or incomplete: md5 expected {expected}, found {found}. {remedy}"
        )


def _delete_and_refetch(path: Path) -> str:
    return f"Delete {path} and fetch it again."


def _missing(folder: Path, names: Sequence[str]) -> DataError:
    return DataError(f"{folder} lacks {', '.join(names)}; with folder= nothing is downloaded.")


@contextmanager
def _workshop(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder inside `folder`, so that os.replace from it to there is atomic."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as temporary:
        yield Path(temporary)


@contextmanager
def _network_timeout() -> Iterator[None]:
    """Bound the waits of torchvision's downloader, which takes no timeout of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_NETWORK_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _require_writable(folder: Path) -> None:
    try:
        with _workshop(folder):
            pass
    except OSError as error:
        raise DataError(
            f"Nothing can be stored in the folder {folder} ({error}). Set the environment "
            f"variable {_FOLDER_VARIABLE} to a folder that can be written."
        ) from error


def _download_all(files: Sequence[_Published], folder: Path) -> None:
    """Bring every one of `files` into `folder`, or raise a DataError that says how to go on."""
    _require_writable(folder)
    for file in files:
        problems = []
        for address in file.addresses:
            problem = _download(address, file, folder)
            if problem is None:
                break
            problems.append(f"{address}: {problem}")
        else:
            raise DataError(
                f"{file.name} could not be downloaded ({'; '.join(problems)}). Put "
                f"{', '.join(wanted.name for wanted in files)} into {folder} by hand, or go on "
                'offline with load("digits"), which needs no download.'
            )


def _download(address: str, file: _Published, folder: Path) -> str | None:
    """Try one address; return None, or why there still is no file of this name in `folder`."""
    import_torchvision()
    from torchvision.datasets.utils import check_integrity, download_url

    try:
        # A fresh temporary folder each time: download_url would take what an earlier, broken
        # attempt left there for the finished file.
        with _workshop(folder) as temporary:
            with _network_timeout():
                download_url(address, temporary, filename=file.name)
            partial = temporary / file.name
            if not check_integrity(partial, file.md5):
                found = _md5(partial.read_bytes())
                return f"md5 expected {file.md5}, found {found}, the download was discarded"
            os.replace(partial, folder / file.name)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    return None


# --------------------------------------------------------------------------------------------------
# MNIST and Fashion-MNIST
# --------------------------------------------------------------------------------------------------


def _load_mnist_family(name: str, split: str, folder: Path, *, may_download: bool) -> Images:
    datasets = import_torchvision().datasets
    source = datasets.MNIST if name == "mnist" else datasets.FashionMNIST
    checksums = dict(source.resources)
    prefix = "train" if split == "train" else "t10k"
    files = [
        _Published(file, checksums[file], tuple(mirror + file for mirror in source.mirrors))
        for file in (f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz")
    ]
    # torchvision keeps its files in ROOT/MNIST/raw; accept any of the three as the folder.
    places = (folder, folder / "raw", folder / source.__name__ / "raw")

    missing = [file for file in files if _find_idx(file, places) is None]
    if missing and not may_download:
        raise _missing(folder, [file.name for file in missing])
    if missing:
        _download_all(missing, folder)

    (pixels, pixels_verified), (labels, labels_verified) = (
        _read_idx(file, places, dimensions) for file, dimensions in zip(files, (3, 1), strict=True)
    )
    _check_labels(labels, len(pixels), len(source.classes), f"{files[1].name} in {folder}")
    if pixels_verified and labels_verified:
        provenance = f"published at {source.mirrors[0]}, {_CHECKED_BY_SUM}"
    else:
        provenance = _CHECKED_BY_SHAPE
    return _images(name, split, pixels[:, None], labels, source.classes, provenance)


def _find_idx(file: _Published, places: Sequence[Path]) -> Path | None:
    """Find a published file or, second best because it has no checksum, its unpacked content."""
    return _find(file.name, places) or _find(file.name.removesuffix(".gz"), places)


def _read_idx(file: _Published, places: Sequence[Path], dimensions: int) -> tuple[np.ndarray, bool]:
    """Return the array in `file` and whether a checksum vouches for it."""
    path = _find_idx(file, places)
    if path is None:  # Found or downloaded a moment ago: somebody else deletes files here.
        raise DataError(f"{file.name} vanished from {places[0]} while it was being loaded.")
    data = _read_bytes(path)
    verified = path.name == file.name
    if verified:
        _require_md5(data, file.md5, str(path), _delete_and_refetch(path))
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is not a gzip file: {error}") from error
    return _parse_idx(data, dimensions, str(path)), verified


def _parse_idx(data: bytes, dimensions: int, where: str) -> np.ndarray:
    """Return the uint8 array that `data` holds in the IDX format.

    An IDX file starts with two zero bytes, a byte for the type (8 is uint8), a byte for the number
    of dimensions, and each dimension as a big-endian 32-bit integer; the values follow.
    """
    magic, header = bytes((0, 0, 8, dimensions)), 4 + 4 * dimensions
    if data[:4] != magic:
        raise DataError(
            f"{where} is not an IDX file of bytes in {dimensions} dimensions: it starts with "
            f"{data[:4].hex()} instead of {magic.hex()}."
        )
    if len(data) < header:
        raise DataError(f"{where} ends within its header.")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", dimensions, offset=4))
    if 0 in shape:
        raise DataError(f"{where} is empty: its shape is {shape}.")
    if len(data) != header + math.prod(shape):
        raise DataError(
            f"{where} has {len(data)} bytes where a shape of {shape} needs "
            f"{header + math.prod(shape)}."
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


# --------------------------------------------------------------------------------------------------
# CIFAR-10
# --------------------------------------------------------------------------------------------------


def _load_cifar10(name: str, split: str, folder: Path, *, may_download: bool) -> Images:
    source = import_torchvision().datasets.CIFAR10
    batches = dict(source.train_list if split == "train" else source.test_list)
    meta = source.meta
    contents = _cifar_contents(
        source, batches | {meta["filename"]: meta["md5"]}, folder, may_download
    )
    classes = _class_names(contents[meta["filename"]], meta["key"], meta["filename"])
    pixels, labels = zip(
        *(_parse_batch(contents[batch], len(classes), batch) for batch in batches), strict=True
    )
    # A row holds the red plane, then green, then blue, each by rows: that is [C, H, W].
    pixels = np.concatenate(pixels).reshape(-1, 3, 32, 32)
    provenance = f"published at {source.url}, {_CHECKED_BY_SUM}"
    return _images(name, split, pixels, np.concatenate(labels), classes, provenance)


def _cifar_contents(
    source: Any, checksums: dict[str, str], folder: Path, may_download: bool
) -> dict[str, bytes]:
    """Return the verified content of the files in `checksums`, unpacked or from the archive."""
    unpacked = folder / source.base_folder
    paths = {name: unpacked / name for name in checksums}
    if all(os.path.isfile(path) for path in paths.values()):
        contents = {name: _read_bytes(path) for name, path in paths.items()}
        for name, path in paths.items():
            _require_md5(contents[name], checksums[name], str(path), _delete_and_refetch(path))
        return contents

    archive = _Published(source.filename, source.tgz_md5, (source.url,))
    path = folder / archive.name
    if not os.path.isfile(path):
        if not may_download:
            lacking = [
                f"{source.base_folder}/{name}" for name in paths if not _find(name, [unpacked])
            ]
            raise _missing(folder, [f"{archive.name} (or, unpacked, {', '.join(lacking)})"])
        _download_all([archive], folder)
    data = _read_bytes(path)
    _require_md5(data, archive.md5, str(path), _delete_and_refetch(path))
    contents = _tar_members(data, source.base_folder, checksums, str(path))
    for name, content in contents.items():
        where = f"{name} in {path}"
        _require_md5(content, checksums[name], where, _delete_and_refetch(path))
    return contents


def _tar_members(data: bytes, base: str, names: Iterable[str], where: str) -> dict[str, bytes]:
    """Read the files `names` of the folder `base` from a tar.gz, without unpacking to disk."""
    wanted = {f"{base}/{name}": name for name in names}
    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            # In the archive's own order: stepping back in a gzip stream means starting again.
            for member in archive:
                if member.name in wanted and member.isfile():
                    found[wanted[member.name]] = archive.extractfile(member).read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{where} is not a readable tar.gz: {error}") from error
    if lacking := [member for member, name in wanted.items() if name not in found]:
        raise DataError(f"{where} lacks {', '.join(lacking)}.")
    return found


def _latin1(text: str, encoding: str) -> bytes:
    """Stand in for _codecs.encode, which pickles of protocol 2 use to spell bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise DataError(f"a pickle asks for the encoding {encoding!r}")
    return text.encode("latin-1")


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickle containers, numbers, strings and numpy arrays, and refuse everything else.

    A pickle is a program that may call any function it can name. This one gets to name what numpy
    arrays are rebuilt with, and nothing more.
    """

    # How numpy rebuilds an array is private and has moved; an array tells where it is today.
    _reconstruct = np.empty(0).__reduce__()[0]
    _allowed = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _latin1,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._allowed[module, name]
        except KeyError:
            raise DataError(f"a pickle asks for {module}.{name}, which no array needs") from None


def _unpickle(data: bytes, where: str) -> dict[bytes, Any]:
    try:
        # Python 2 wrote these files: its strings are bytes.
        content = _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
    except DataError as error:
        raise DataError(f"{where} is refused: {error}.") from error
    except Exception as error:  # A damaged pickle may fail in any way at all.
        raise DataError(f"{where} is not a readable pickle: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{where} holds a {type(content).__name__}, not a dict.")
    return content


def _class_names(data: bytes, key: str, where: str) -> tuple[str, ...]:
    names = _unpickle(data, where).get(key.encode())
    if not isinstance(names, list) or not names or not all(type(name) is bytes for name in names):
        raise DataError(f"{where} has no list of names under {key!r}.")
    return tuple(name.decode("ascii", "replace") for name in names)


def _parse_batch(data: bytes, classes: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (uint8, [N, 3072]) and labels (int64, [N]) of one batch file."""
    batch = _unpickle(data, where)
    pixels, labels = batch.get(b"data"), batch.get(b"labels")
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.ndim != 2
        or pixels.shape[0] == 0
        or pixels.shape[1] != 3 * 32 * 32
    ):
        raise DataError(f"{where} has no uint8 array of shape [N, 3072] under 'data'.")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise DataError(f"{where} has no list of integers under 'labels'.")
    if len(labels) != len(pixels):
        raise DataError(f"{where}: {len(pixels)} images but {len(labels)} labels.")
    if not all(0 <= label < classes for label in labels):
        raise DataError(f"{where}: a label lies outside 0 to {classes - 1}.")
    return pixels, np.array(labels, dtype=np.int64)


# --------------------------------------------------------------------------------------------------
# Text
# --------------------------------------------------------------------------------------------------

# Identifiers and words, runs of digits, single punctuation marks. White space is in no token.
_TOKEN = re.compile(r"[^\W\d]\w*|\d+|[^\w\s]")

_NOT_STDLIB = {"site-packages", "dist-packages", "__pycache__"}


@dataclass(frozen=True, eq=False)
class _Encoded:
    """Texts as token ids: text i is ``tokens[starts[i]:starts[i + 1]]``."""

    tokens: np.ndarray  # int32
    starts: np.ndarray  # int64, one more than there are texts
    vocabulary: tuple[str, ...]


def _tokenise(texts: Iterable[str]) -> _Encoded:
    """Number the types by falling count, equal counts by first appearance."""
    first_seen: defaultdict[str, int] = defaultdict(itertools.count().__next__)
    pieces = [
        np.fromiter(map(first_seen.__getitem__, _TOKEN.findall(text)), np.int32) for text in texts
    ]
    by_appearance = np.concatenate(pieces) if pieces else np.empty(0, np.int32)
    counts = np.bincount(by_appearance, minlength=len(first_seen))
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    types = tuple(first_seen)
    return _Encoded(
        tokens=rank[by_appearance],
        starts=np.cumsum([0, *map(len, pieces)], dtype=np.int64),
        vocabulary=tuple(types[position] for position in order),
    )


def _corpus(name: str, split: str, encoded: _Encoded, source: str, fingerprint: str) -> Corpus:
    """Cut a split out of `encoded`; `source` starts the description."""
    is_test = np.arange(len(encoded.starts) - 1) % 10 == 9
    keep = {"all": np.ones_like(is_test), "train": ~is_test, "test": is_test}[split]
    tokens = encoded.tokens[np.repeat(keep, np.diff(encoded.starts))]
    if not len(tokens):
        raise DataError(f"{source}: no tokens in split {split!r} ({keep.sum()} files).")
    counts = np.bincount(tokens, minlength=len(encoded.vocabulary)).astype(np.int64)
    files = f"{_share(keep.sum(), len(keep))} files, " if len(keep) > 1 else ""
    types = _share(np.count_nonzero(counts), len(counts))
    return Corpus(
        name=name,
        split=split,
        tokens=tokens,
        vocabulary=encoded.vocabulary,
        counts=counts,
        description=(
            f"{source} ({split}): {files}{len(tokens):,} tokens, {types} types, "
            f"fingerprint {fingerprint[:12]}."
        ),
        fingerprint=fingerprint,
    )


def _share(part: int, whole: int) -> str:
    return f"{part:,}" if part == whole else f"{part:,} of {whole:,}"


def _load_stdlib(split: str) -> Corpus:
    folder = Path(sysconfig.get_path("stdlib"))
    texts, fingerprint = _read_sources(folder)
    if not texts:
        raise DataError(f"{folder}, the standard library of this Python, has no readable .py file.")
    cached = _stdlib_cache(fingerprint)
    encoded = _read_cache(cached, len(texts))
    if encoded is None:
        encoded = _tokenise(texts)
        _write_cache(cached, encoded)
    source = f"Python {platform.python_version()} standard library"
    return _corpus("stdlib", split, encoded, source, fingerprint)


def _read_sources(folder: Path) -> tuple[list[str], str]:
    """Return the text of all Python files below `folder`, by path, and their fingerprint.

    Every file is read once, so that texts and fingerprint are of the same bytes.
    """
    texts = []
    digest = hashlib.sha256()
    for relative in sorted(_source_paths(folder)):
        try:
            data = (folder / relative).read_bytes()
            text = _decode_source(data)
        except (OSError, SyntaxError, UnicodeError, LookupError):
            # Broken links, and files that test what Python says to a wrong coding cookie.
            continue
        # The length keeps two files apart that share a boundary.
        digest.update(os.fsencode(relative) + b"\0" + str(len(data)).encode() + b"\0" + data)
        texts.append(text)
    return texts, digest.hexdigest()


def _source_paths(folder: Path) -> Iterator[str]:
    """Yield the paths of Python files below `folder`, relative to it, with forward slashes."""
    for here, subfolders, files in os.walk(folder):
        subfolders[:] = [name for name in subfolders if name not in _NOT_STDLIB]
        for name in files:
            if name.endswith(".py"):
                yield Path(here, name).relative_to(folder).as_posix()


def _decode_source(data: bytes) -> str:
    """Decode as tokenize.open does, coding cookies and byte order marks included.

    Line ends stay as they are, which makes no difference to tokens.
    """
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    return data.decode(encoding)


def _stdlib_cache(fingerprint: str) -> Path:
    # The pattern is part of the key: with another one the same files give other tokens.
    key = hashlib.sha256(f"{fingerprint} {_TOKEN.pattern}".encode()).hexdigest()[:32]
    return cache_folder() / "stdlib" / f"{key}.npz"


def _read_cache(path: Path, files: int) -> _Encoded | None:
    """Return what is stored at `path`, or None if that is not a sound corpus of so many files."""
    if not os.path.isfile(path):
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            vocabulary = stored["vocabulary"].tobytes().decode("utf-8", "surrogatepass").split("\n")
            encoded = _Encoded(stored["tokens"], stored["starts"], tuple(vocabulary))
        return encoded if _is_sound(encoded, files) else None
    except Exception:  # A damaged file may fail in any way at all; it is going to be replaced.
        return None


def _is_sound(encoded: _Encoded, files: int) -> bool:
    tokens, starts, types = encoded.tokens, encoded.starts, len(set(encoded.vocabulary))
    if tokens.dtype != np.int32 or tokens.ndim != 1 or starts.dtype != np.int64:
        return False
    if starts.shape != (files + 1,) or starts[0] != 0 or starts[-1] != len(tokens):
        return False
    # bincount raises on negative ids, and ids beyond the vocabulary lengthen its result.
    counts = np.bincount(tokens)
    is_ranked = len(counts) == types and counts[-1] > 0 and bool((np.diff(counts) <= 0).all())
    return is_ranked and bool((np.diff(starts) >= 0).all())


def _write_cache(path: Path, encoded: _Encoded) -> None:
    """Store `encoded` at `path`; where that is impossible, the next load is merely slower."""
    text = "\n".join(encoded.vocabulary).encode("utf-8", "surrogatepass")
    try:
        with _workshop(path.parent) as temporary:
            np.savez(
                temporary / path.name,
                tokens=encoded.tokens,
                starts=encoded.starts,
                vocabulary=np.frombuffer(text, np.uint8),
            )
            os.replace(temporary / path.name, path)
    except OSError:
        return
