"""Tiny data sets in the true formats, and where their files are."""

import gzip
import hashlib
import struct

import numpy as np

from kempe_nb import data

MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def md5(content):
    return hashlib.md5(content).hexdigest()


def everything_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def write_all(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def idx(array):
    header = bytes((0, 0, 8, array.ndim)) + b"".join(struct.pack(">I", n) for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


def mnist_arrays(train=4, test=3):
    random = np.random.default_rng(0)
    return {
        "train-images-idx3-ubyte": random.integers(0, 256, (train, 5, 6)),
        "train-labels-idx1-ubyte": random.integers(0, 10, train),
        "t10k-images-idx3-ubyte": random.integers(0, 256, (test, 5, 6)),
        "t10k-labels-idx1-ubyte": random.integers(0, 10, test),
    }


def declare_mnist(monkeypatch, packed, mirrors, source="MNIST"):
    """Let torchvision know `packed` (content by name) as the published files."""
    published = getattr(data.import_torchvision().datasets, source)
    monkeypatch.setattr(published, "resources", [(n, md5(c)) for n, c in packed.items()])
    monkeypatch.setattr(published, "mirrors", list(mirrors))


def pack(arrays):
    return {f"{name}.gz": gzip.compress(idx(array)) for name, array in arrays.items()}
