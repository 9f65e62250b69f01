"""MNIST and Fashion-MNIST: what is loaded is what was published, or own files said to be so."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from tiny_sets import (
    MNIST_FILES,
    declare_mnist,
    everything_below,
    idx,
    mnist_arrays,
    pack,
    write_all,
)

from kempe_nb import data


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")]),
    st.sampled_from([("train", "train"), ("test", "t10k")]),
    st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 7)).flatmap(
        lambda shape: st.tuples(
            hnp.arrays(np.uint8, shape),
            hnp.arrays(np.uint8, shape[0], elements=st.integers(0, 9)),
        )
    ),
)
def test_what_is_published_is_what_is_loaded(server, names, splits, arrays):
    (name, source), (split, prefix), (pixels, labels) = names, splits, arrays
    server.clear()
    packed = pack(
        {f"{prefix}-images-idx3-ubyte": pixels, f"{prefix}-labels-idx1-ubyte": labels},
    )
    server.content = {f"/{source}/{file}": content for file, content in packed.items()}
    with tempfile.TemporaryDirectory() as cache, pytest.MonkeyPatch.context() as patch:
        patch.setenv("KEMPE_NB_DATA", cache)
        declare_mnist(patch, packed, [f"{server.address}{source}/"], source)
        loaded = data.load(name, split)
        assert everything_below(Path(cache, name)) == sorted(packed)
        for file, content in packed.items():
            assert Path(cache, name, file).read_bytes() == content
        asked = len(server.requests)
        again = data.load(name, split)
        assert len(server.requests) == asked > 0
    assert loaded.images.dtype == torch.uint8 and loaded.labels.dtype == torch.int64
    assert loaded.images.shape == (len(pixels), 1, *pixels.shape[1:])
    np.testing.assert_array_equal(loaded.images[:, 0].numpy(), pixels)
    np.testing.assert_array_equal(loaded.labels.numpy(), labels)
    assert torch.equal(again.images, loaded.images) and torch.equal(again.labels, loaded.labels)
    assert len(loaded.classes) == 10
    assert "checksum verified" in loaded.description and server.address in loaded.description
    assert f"{len(pixels)} images" in loaded.description


def test_a_limit_larger_than_the_files_is_refused(mnist):
    assert len(data.load("mnist", limit=4).labels) == 4
    with pytest.raises(ValueError, match=r"^limit is 5; accepted: None or 1 to 4"):
        data.load("mnist", limit=5)


def test_a_file_that_is_no_gzip_despite_its_checksum_is_refused(mnist, monkeypatch, tmp_path):
    _, packed = mnist
    for broken in (b"no gzip at all", packed["train-images-idx3-ubyte.gz"][:-9]):
        packed["train-images-idx3-ubyte.gz"] = broken
        declare_mnist(monkeypatch, packed, [])
        write_all(tmp_path / "files", packed)
        with pytest.raises(data.DataError, match=r"train-images-idx3-ubyte\.gz is not a gzip"):
            data.load("mnist", folder=tmp_path / "files")


@pytest.mark.parametrize("below", [".", "raw", "MNIST/raw"])
def test_own_unpacked_files_are_accepted_and_said_to_be_unverified(below, mnist, tmp_path, site):
    arrays = mnist_arrays(train=6, test=2)
    write_all(tmp_path / "own" / below, {name: idx(array) for name, array in arrays.items()})
    for split, prefix in (("train", "train"), ("test", "t10k")):
        loaded = data.load("mnist", split, folder=str(tmp_path / "own"))
        np.testing.assert_array_equal(loaded.images[:, 0], arrays[f"{prefix}-images-idx3-ubyte"])
        np.testing.assert_array_equal(loaded.labels, arrays[f"{prefix}-labels-idx1-ubyte"])
        assert "own files, structure checked only" in loaded.description
        assert "verified" not in loaded.description
    assert not site.requests


def test_one_file_without_checksum_makes_the_set_unverified(mnist, tmp_path):
    arrays, packed = mnist
    images, labels = MNIST_FILES[:2]
    write_all(tmp_path / "own", {f"{images}.gz": packed[f"{images}.gz"]})
    write_all(tmp_path / "own", {labels: idx(arrays[labels])})
    description = data.load("mnist", folder=tmp_path / "own").description
    assert "structure checked only" in description and "verified" not in description


@pytest.mark.parametrize(
    ("file", "harm", "told"),
    [
        (0, lambda raw: raw[:-1], "bytes where a shape of"),
        (0, lambda raw: raw + b"\0", "bytes where a shape of"),
        (0, lambda raw: raw[:4] + b"\xff\xff\xff\xff" + raw[8:], "bytes where a shape of"),
        (0, lambda raw: raw[:10], "ends within its header"),
        (0, lambda raw: b"", "not an IDX file"),
        (0, lambda raw: b"\0\0\x09\x03" + raw[4:], "00000903 instead of 00000803"),
        (0, lambda raw: b"\0\0\x08\x01" + raw[4:], "00000801 instead of 00000803"),
        (1, lambda raw: b"\0\0\x08\x03" + raw[4:], "00000803 instead of 00000801"),
        (0, lambda raw: raw[:4] + bytes(4) + raw[8:16], "is empty"),
        (1, lambda raw: idx(np.zeros(5)), "4 images but 5 labels"),
        (1, lambda raw: idx(np.array([0, 1, 2, 10])), "outside 0 to 9"),
    ],
)
def test_own_files_with_a_wrong_structure_are_refused(file, harm, told, mnist, tmp_path):
    arrays, _ = mnist
    own = {name: idx(array) for name, array in arrays.items()}
    name = MNIST_FILES[file]
    write_all(tmp_path / "own", own | {name: harm(own[name])})
    with pytest.raises(data.DataError) as caught:
        data.load("mnist", folder=tmp_path / "own")
    assert told in str(caught.value) and name in str(caught.value)
    assert len(data.load("mnist", "test", folder=tmp_path / "own").labels) == 3
