"""CIFAR-10, whose files are pickles: they are opened only if their checksums are right."""

import io
import os
import pickle
import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from kempe_nb.data import download
from kempe_nb.data.errors import DataError
from kempe_nb.data.images import Images, make_images
from kempe_nb.data.torchvision_import import import_torchvision


def load(split: str, folder: Path, *, may_download: bool) -> Images:
    """Load a split of ``"cifar10"`` from `folder`."""
    source = import_torchvision().datasets.CIFAR10
    batches = dict(source.train_list if split == "train" else source.test_list)
    names_file = source.meta["filename"]
    checksums = batches | {names_file: source.meta["md5"]}
    contents = _contents(source, checksums, folder, may_download)
    classes = _class_names(contents[names_file], source.meta["key"], names_file)
    pixels, labels = zip(
        *(_parse_batch(contents[batch], len(classes), batch) for batch in batches), strict=True
    )
    # A row holds the red plane, then green, then blue, each by rows: that is [C, H, W].
    pixels = np.concatenate(pixels).reshape(-1, 3, 32, 32)
    provenance = f"published at {source.url}, checksum verified"
    return make_images("cifar10", split, pixels, np.concatenate(labels), classes, provenance)


def _contents(
    source: Any, checksums: dict[str, str], folder: Path, may_download: bool
) -> dict[str, bytes]:
    """Return the verified content of the files in `checksums`, unpacked or from the archive."""
    unpacked = folder / source.base_folder
    lacking = [name for name in checksums if not os.path.isfile(unpacked / name)]
    if not lacking:
        return {name: download.read_file(unpacked / name, md5) for name, md5 in checksums.items()}

    archive = download.Published(source.filename, source.tgz_md5, (source.url,))
    path = folder / archive.name
    if not os.path.isfile(path):
        files = ", ".join(f"{source.base_folder}/{name}" for name in lacking)
        download.fetch([archive], folder, may_download, f" (or, unpacked, {files})")
    data = download.read_file(path, archive.md5)
    contents = _tar_members(data, source.base_folder, checksums, path)
    for name, content in contents.items():
        download.require_md5(content, checksums[name], f"{name} in {path}", path)
    return contents


def _tar_members(data: bytes, base: str, names: Collection[str], where: Path) -> dict[str, bytes]:
    """Read the files `names` of the folder `base` from a tar.gz, without unpacking to disk."""
    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            # In the archive's own order: stepping back in a gzip stream means starting again.
            for member in archive:
                folder, _, name = member.name.rpartition("/")
                if folder == base and name in names and member.isfile():
                    found[name] = archive.extractfile(member).read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{where} is not a readable tar.gz: {error}") from error
    if lacking := [f"{base}/{name}" for name in names if name not in found]:
        raise DataError(f"{where} lacks {', '.join(lacking)}.")
    return found


def _unpickle(data: bytes, where: str) -> dict[bytes, Any]:
    try:
        # Python 2 wrote these files: its strings are bytes. A pickle may call anything; these bytes
        # have the published checksum.
        content = pickle.loads(data, encoding="bytes")
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
        or pixels.shape[1:] != (3 * 32 * 32,)
        or len(pixels) == 0
    ):
        raise DataError(f"{where} has no uint8 array of shape [N, 3072] under 'data'.")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise DataError(f"{where} has no list of integers under 'labels'.")
    if len(labels) != len(pixels):
        raise DataError(f"{where}: {len(pixels)} images but {len(labels)} labels.")
    if not all(0 <= label < classes for label in labels):
        raise DataError(f"{where}: a label lies outside 0 to {classes - 1}.")
    return pixels, np.array(labels, dtype=np.int64)
