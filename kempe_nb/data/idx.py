"""MNIST and Fashion-MNIST, which are published in the IDX format."""

import gzip
import math
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kempe_nb.data import download
from kempe_nb.data.errors import DataError
from kempe_nb.data.images import Images, make_images
from kempe_nb.data.torchvision_import import import_torchvision


def load(name: str, split: str, folder: Path, *, may_download: bool) -> Images:
    """Load a split of ``"mnist"`` or ``"fashion_mnist"`` from `folder`."""
    datasets = import_torchvision().datasets
    source = datasets.MNIST if name == "mnist" else datasets.FashionMNIST
    checksums = dict(source.resources)
    prefix = "train" if split == "train" else "t10k"
    files = [
        download.Published(file, checksums[file], tuple(mirror + file for mirror in source.mirrors))
        for file in (f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz")
    ]
    # torchvision keeps its files in ROOT/MNIST/raw; accept any of the three as the folder.
    places = (folder, folder / "raw", folder / source.__name__ / "raw")

    if lacking := [file for file in files if _find(file, places) is None]:
        download.fetch(lacking, folder, may_download)

    (pixels, pixels_verified), (labels, labels_verified) = (
        _read(file, places, dimensions) for file, dimensions in zip(files, (3, 1), strict=True)
    )
    where = f"{files[1].name} in {folder}"
    if len(labels) != len(pixels):
        raise DataError(
            f"{where}: {len(pixels)} images but {len(labels)} labels. Delete the wrong one."
        )
    if labels.max() >= len(source.classes):
        raise DataError(
            f"{where}: a label lies outside 0 to {len(source.classes) - 1}. Delete this file."
        )
    if pixels_verified and labels_verified:
        provenance = f"published at {source.mirrors[0]}, checksum verified"
    else:
        provenance = "own files, structure checked only"
    return make_images(name, split, pixels[:, None], labels, source.classes, provenance)


def _find(file: download.Published, places: Sequence[Path]) -> Path | None:
    """Find a published file or, second best because it has no checksum, its unpacked content."""
    names = (file.name, file.name.removesuffix(".gz"))
    paths = (place / name for name in names for place in places)
    # os.path.isfile, unlike Path.is_file, also answers False where access is denied.
    return next(filter(os.path.isfile, paths), None)


def _read(
    file: download.Published, places: Sequence[Path], dimensions: int
) -> tuple[np.ndarray, bool]:
    """Return the array in `file` and whether a checksum vouches for it."""
    path = _find(file, places)
    if path is None:  # Found or downloaded a moment ago: somebody else deletes files here.
        raise DataError(f"{file.name} vanished from {places[0]} while it was being loaded.")
    verified = path.name == file.name
    data = download.read_file(path, file.md5 if verified else None)
    if verified:
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is not a gzip file: {error}") from error
    return _parse(data, dimensions, path), verified


def _parse(data: bytes, dimensions: int, where: Path) -> np.ndarray:
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
    shape = struct.unpack_from(f">{dimensions}I", data, offset=4)
    if 0 in shape:
        raise DataError(f"{where} is empty: its shape is {shape}.")
    if len(data) != (needed := header + math.prod(shape)):
        raise DataError(f"{where} has {len(data)} bytes where a shape of {shape} needs {needed}.")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
