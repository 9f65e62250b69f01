"""CIFAR-10: from the archive or unpacked, and no pickle is opened that was not published."""

import gzip
import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest
import torch
from tiny_sets import everything_below, md5, write_all

from kempe_nb import data


class Python2Pickler(pickle._Pickler):
    """Write protocol 2 as Python 2 did: every string is a byte string."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_string(self, value):
        raw = value.encode("latin-1") if isinstance(value, str) else value
        short = len(raw) < 256
        length = struct.pack("<B" if short else "<i", len(raw))
        self.write((b"U" if short else b"T") + length + raw)
        self.memoize(value)

    dispatch[bytes] = save_string
    dispatch[str] = save_string


def python2_pickle(content):
    stream = io.BytesIO()
    Python2Pickler(stream, 2).dump(content)
    return stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def python3_pickle(content):
    return pickle.dumps(content, 2)


def cifar_batch(pixels, labels):
    """`pixels` [N, 3, 32, 32] as the published dict: 1024 red values by rows, green, blue."""
    rows = np.zeros((len(pixels), 3072), np.uint8)
    for plane in range(3):
        for y in range(32):
            for x in range(32):
                rows[:, 1024 * plane + 32 * y + x] = pixels[:, plane, y, x]
    return {
        b"batch_label": b"training batch 1 of 2",
        b"labels": [int(label) for label in labels],
        b"data": rows,
        b"filenames": [b"image_%d.png" % number for number in range(len(pixels))],
    }


CIFAR_META = b"(dp1\nS'label_names'\np2\n(lp3\nS'airplane'\np4\naS'frog'\np5\nas."


def cifar_batches():
    random = np.random.default_rng(1)
    return {
        name: (random.integers(0, 256, (size, 3, 32, 32)), random.integers(0, 2, size))
        for name, size in (("data_batch_1", 3), ("data_batch_2", 2), ("test_batch", 2))
    }


def tar_gz(contents, folders=()):
    stream = io.BytesIO()
    # Without the time in its head: two archives of one content are to have one checksum.
    with (
        gzip.GzipFile(fileobj=stream, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name in folders:
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.type = tarfile.DIRTYPE
            archive.addfile(member)
        for name, content in contents.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def declare_cifar(monkeypatch, contents, archive, site):
    published = data.import_torchvision().datasets.CIFAR10
    sums = {name: md5(content) for name, content in contents.items()}
    train = [[name, sums[name]] for name in contents if name.startswith("data_batch")]
    monkeypatch.setattr(published, "train_list", train)
    monkeypatch.setattr(published, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(published, "meta", published.meta | {"md5": sums["batches.meta"]})
    monkeypatch.setattr(published, "tgz_md5", md5(archive))
    monkeypatch.setattr(published, "url", f"{site.address}cifar-10-python.tar.gz")
    site.content["/cifar-10-python.tar.gz"] = archive


def cifar_contents(to_pickle=python2_pickle, **replaced):
    contents = {name: to_pickle(cifar_batch(*batch)) for name, batch in cifar_batches().items()}
    # The published archive is in no particular order either.
    return {"test_batch": contents["test_batch"], "batches.meta": CIFAR_META} | contents | replaced


def expect_cifar(loaded, names):
    batches = [cifar_batches()[name] for name in names]
    pixels = np.concatenate([pixels for pixels, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    assert loaded.images.dtype == torch.uint8 and loaded.labels.dtype == torch.int64
    np.testing.assert_array_equal(loaded.images.numpy(), pixels)
    np.testing.assert_array_equal(loaded.labels.numpy(), labels)
    assert loaded.classes == ("airplane", "frog")
    assert "checksum verified" in loaded.description
    assert f"{len(labels)} images" in loaded.description


@pytest.mark.parametrize("to_pickle", [python2_pickle, python3_pickle])
def test_cifar_is_read_from_the_archive(to_pickle, monkeypatch, site, cache):
    contents = cifar_contents(to_pickle)
    archive = tar_gz(contents | {"readme.html": b"<p>not needed</p>"})
    declare_cifar(monkeypatch, contents, archive, site)
    expect_cifar(data.load("cifar10"), ["data_batch_1", "data_batch_2"])
    asked = len(site.requests)
    expect_cifar(data.load("cifar10", "test"), ["test_batch"])
    assert len(site.requests) == asked
    assert everything_below(cache) == ["cifar10", "cifar10/cifar-10-python.tar.gz"]


def test_a_cifar_of_python_2_really_has_byte_strings():
    assert b"_codecs" in python3_pickle(cifar_batch(*cifar_batches()["test_batch"]))
    old = cifar_contents()["test_batch"]
    assert b"_codecs" not in old and b"cnumpy.core.multiarray\n_reconstruct\n" in old


def test_cifar_is_read_from_unpacked_batches(monkeypatch, site, tmp_path):
    contents = cifar_contents()
    declare_cifar(monkeypatch, contents, tar_gz(contents), site)
    write_all(tmp_path / "own" / "cifar-10-batches-py", contents)
    loaded = data.load("cifar10", folder=tmp_path / "own")
    expect_cifar(loaded, ["data_batch_1", "data_batch_2"])
    assert not site.requests


def test_an_unpacked_batch_with_a_wrong_checksum_is_refused(monkeypatch, site, tmp_path):
    contents = cifar_contents()
    declare_cifar(monkeypatch, contents, tar_gz(contents), site)
    # A sound batch of somebody else: only the checksum tells.
    other = python2_pickle(cifar_batch(np.zeros((1, 3, 32, 32)), [0]))
    folder = tmp_path / "own" / "cifar-10-batches-py"
    write_all(folder, contents | {"data_batch_2": other})
    with pytest.raises(data.DataError) as caught:
        data.load("cifar10", folder=tmp_path / "own")
    for told in (str(folder / "data_batch_2"), md5(contents["data_batch_2"]), md5(other), "Delete"):
        assert told in str(caught.value)
    expect_cifar(data.load("cifar10", "test", folder=tmp_path / "own"), ["test_batch"])


def test_a_half_archive_is_refused(monkeypatch, site, cache):
    contents = cifar_contents()
    archive = tar_gz(contents)
    declare_cifar(monkeypatch, contents, archive, site)
    write_all(cache / "cifar10", {"cifar-10-python.tar.gz": archive[:100]})
    with pytest.raises(data.DataError) as caught:
        data.load("cifar10")
    for told in ("cifar-10-python.tar.gz", md5(archive), md5(archive[:100]), "Delete"):
        assert told in str(caught.value)
    assert not site.requests


@pytest.mark.parametrize(
    ("archive", "told"),
    [
        (b"no archive", "not a readable tar.gz"),
        (tar_gz({"batches.meta": CIFAR_META}), "lacks cifar-10-batches-py/test_batch"),
        (tar_gz({"batches.meta": CIFAR_META}, ["test_batch"]), "lacks .*/test_batch"),
        (tar_gz(cifar_contents(test_batch=b"changed")), "test_batch in .* md5 expected"),
    ],
)
def test_an_archive_with_other_content_is_refused(archive, told, monkeypatch, site):
    declare_cifar(monkeypatch, cifar_contents(), archive, site)
    with pytest.raises(data.DataError, match=told):
        data.load("cifar10", "test")


class Calls:
    """Pickled as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("file", ["test_batch", "batches.meta"])
@pytest.mark.parametrize("unpacked", [True, False])
def test_a_pickle_with_another_checksum_is_not_opened(file, unpacked, monkeypatch, site, tmp_path):
    marker = tmp_path / "executed"
    malicious = python3_pickle({b"data": Calls(os.system, f"echo > {marker}")})
    published, changed = cifar_contents(), cifar_contents(**{file: malicious})
    # The archive has the checksum of its own, so that only that of the file can tell.
    declare_cifar(monkeypatch, published, tar_gz(changed), site)
    folder = tmp_path / "own"
    if unpacked:
        write_all(folder / "cifar-10-batches-py", changed)
    else:
        write_all(folder, {"cifar-10-python.tar.gz": tar_gz(changed)})
    with pytest.raises(data.DataError, match=f"{file}.* md5 expected {md5(published[file])}"):
        data.load("cifar10", "test", folder=folder)
    assert not marker.exists()
    # The pickle is a real threat: opening it does execute it.
    pickle.loads(malicious)
    assert marker.exists()


SOUND = cifar_batch(np.zeros((2, 3, 32, 32)), [0, 1])


@pytest.mark.parametrize(
    ("batch", "told"),
    [
        (b"\x80\x02", "not a readable pickle"),
        (python2_pickle([1, 2]), "holds a list"),
        (python2_pickle({b"labels": [0]}), "no uint8 array"),
        (python2_pickle(SOUND | {b"data": SOUND[b"data"][:, 1:]}), "no uint8 array"),
        (python2_pickle(SOUND | {b"data": SOUND[b"data"].astype("f4")}), "no uint8 array"),
        (python2_pickle(SOUND | {b"data": SOUND[b"data"][:0], b"labels": []}), "no uint8 array"),
        (python2_pickle(SOUND | {b"labels": b"01"}), "no list of integers"),
        (python2_pickle(SOUND | {b"labels": [0, 1.5]}), "no list of integers"),
        (python2_pickle(SOUND | {b"labels": [0, 1, 1]}), "2 images but 3 labels"),
        (python2_pickle(SOUND | {b"labels": [0, 2]}), "outside 0 to 1"),
        (python2_pickle(SOUND | {b"labels": [0, -1]}), "outside 0 to 1"),
    ],
)
def test_a_batch_of_the_wrong_form_is_refused(batch, told, monkeypatch, site):
    contents = cifar_contents(test_batch=batch)
    declare_cifar(monkeypatch, contents, tar_gz(contents), site)
    with pytest.raises(data.DataError, match=f"test_batch.*{told}"):
        data.load("cifar10", "test")
