"""Data sets: what is loaded is what was published, and nothing else is ever used."""

import contextlib
import gzip
import hashlib
import http.server
import io
import os
import pickle
import re
import socket
import struct
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import textwrap
import threading
import tokenize
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.datasets import load_digits

from kempe_nb.notebook import data

TOKEN = r"[^\W\d]\w*|\d+|[^\w\s]"
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


# --------------------------------------------------------------------------------------------------
# A network of one local server
# --------------------------------------------------------------------------------------------------


class Site:
    """What the server serves: content by path, and how much of it is really sent."""

    def __init__(self, address):
        self.address = address
        self.clear()

    def clear(self):
        self.content = {}
        self.cut_after = {}
        self.garbled = set()
        self.requests = []


@pytest.fixture(scope="module")
def server():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            site.requests.append(self.path)
            if self.path in site.garbled:
                self.wfile.write(b"this is no HTTP\r\n\r\n")
                return
            content = site.content.get(self.path)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(content[: site.cut_after.get(self.path)])

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        site = Site(f"http://127.0.0.1:{running.server_port}/")
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield site
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def site(server, monkeypatch):
    """The server, empty; proxies of the surroundings are not asked for it."""
    server.clear()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return server


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KEMPE_NB_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def dead_address():
    """An address at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return f"http://127.0.0.1:{port}/"


# --------------------------------------------------------------------------------------------------
# Tiny data sets in the true formats
# --------------------------------------------------------------------------------------------------


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


@pytest.fixture
def mnist(site, monkeypatch):
    """A published MNIST of seven images; returns its arrays and its packed files."""
    arrays = mnist_arrays()
    packed = pack(arrays)
    declare_mnist(monkeypatch, packed, [site.address])
    site.content.update({f"/{name}": content for name, content in packed.items()})
    return arrays, packed


def write_all(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


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
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
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


# --------------------------------------------------------------------------------------------------
# Arguments
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"name": "imagenet"}, ["name", "'imagenet'", *data.DATASETS]),
        ({"name": None}, ["name", "None", "digits"]),
        ({"name": "digits", "split": "all"}, ["split", "'all'", "'train', 'test'"]),
        ({"name": "mnist", "split": "valid"}, ["split", "'valid'", "'train', 'test'"]),
        ({"name": "stdlib", "split": "valid"}, ["split", "'valid'", "'all', 'train', 'test'"]),
        ({"name": "mnist", "limit": 0}, ["limit", "0", "at least 1"]),
        ({"name": "digits", "limit": -3}, ["limit", "-3", "at least 1"]),
        ({"name": "digits", "limit": 2.5}, ["limit", "2.5", "integer"]),
        ({"name": "digits", "limit": True}, ["limit", "True", "integer"]),
        ({"name": "digits", "split": "test", "limit": 360}, ["limit", "360", "1 to 359"]),
        ({"name": "mnist", "limit": 60_001}, ["limit", "60001", "1 to 60000"]),
        ({"name": "cifar10", "split": "test", "limit": 10_001}, ["limit", "10001", "10000"]),
        ({"name": "stdlib", "limit": 5}, ["limit", "5", "None"]),
        ({"name": "digits", "seed": -1}, ["seed", "-1", "integer"]),
        ({"name": "digits", "seed": "0"}, ["seed", "'0'", "integer"]),
        ({"name": "digits", "folder": "x"}, ["folder", "'x'", "None"]),
        ({"name": "stdlib", "folder": "x"}, ["folder", "'x'", "None"]),
        ({"name": "mnist", "folder": 3}, ["folder", "3", "path"]),
        ({"name": "mnist", "folder": ""}, ["folder", "''", "path"]),
    ],
)
def test_a_bad_argument_is_refused_before_any_work(arguments, named, cache, site, mnist):
    with pytest.raises(ValueError) as caught:
        data.load(**arguments)
    assert str(caught.value).startswith(f"{named[0]} is {named[1]}; accepted: ")
    assert all(word in str(caught.value) for word in named)
    assert not cache.exists()
    assert not site.requests


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("KEMPE_NB_DATA", str(tmp_path / "mine"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert data.cache_folder() == tmp_path / "mine"
    monkeypatch.setenv("KEMPE_NB_DATA", os.path.join("~", "here"))
    assert data.cache_folder() == tmp_path / "here"
    monkeypatch.setenv("KEMPE_NB_DATA", "")
    assert data.cache_folder() == tmp_path / "xdg" / "kempe_nb"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert data.cache_folder() == tmp_path / ".cache" / "kempe_nb"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data.cache_folder() == tmp_path / ".cache" / "kempe_nb"


# --------------------------------------------------------------------------------------------------
# Digits and the choice of items
# --------------------------------------------------------------------------------------------------


def test_digits_are_those_of_scikit_learn():
    bunch = load_digits()
    train, test = data.load("digits"), data.load("digits", "test")
    at_test = list(range(4, len(bunch.target), 5))
    at_train = [i for i in range(len(bunch.target)) if i not in set(at_test)]
    for part, positions in ((train, at_train), (test, at_test)):
        assert part.images.dtype == torch.uint8 and part.labels.dtype == torch.int64
        assert part.images.shape == (len(positions), 1, 8, 8)
        np.testing.assert_array_equal(part.images[:, 0].numpy(), bunch.images[positions])
        np.testing.assert_array_equal(part.labels.numpy(), bunch.target[positions])
        assert part.classes == tuple("0123456789")
        assert f"{len(positions):,} images" in part.description
        assert "0 to 16" in part.description and "scikit-learn" in part.description


def test_limit_takes_the_start_of_a_seeded_permutation():
    whole = data.load("digits", "test")
    size = len(whole.labels)

    def rows(part):
        pairs = zip(part.images, part.labels, strict=True)
        return [(tuple(image.flatten().tolist()), int(label)) for image, label in pairs]

    permuted = rows(data.load("digits", "test", limit=size, seed=3))
    assert sorted(permuted) == sorted(rows(whole))
    assert permuted != rows(whole)
    some = data.load("digits", "test", limit=40, seed=3)
    assert rows(some) == permuted[:40]
    assert rows(data.load("digits", "test", limit=40, seed=4)) != permuted[:40]
    assert "40 images" in some.description and f"{size} images" in some.description


# --------------------------------------------------------------------------------------------------
# torchvision
# --------------------------------------------------------------------------------------------------


def test_torchvision_is_imported_late_and_mended_only_for_its_missing_operators(tmp_path):
    def package(folder, source):
        (tmp_path / folder / "torchvision").mkdir(parents=True)
        (tmp_path / folder / "torchvision" / "__init__.py").write_text(source)

    package("broken", "raise RuntimeError('another reason')")
    package(
        "unfitting",
        "import torch\n"
        "torch.library.register_fake('torchvision::nms')(lambda *tensors: tensors[0])\n"
        "torch.library.register_fake('torchvision::qnms')(lambda *tensors: tensors[0])\n",
    )
    script = f"""
        import sys
        from kempe_nb.notebook import data
        assert not {{"torchvision", "sklearn"}} & set(sys.modules)
        sys.path.insert(0, {str(tmp_path / "broken")!r})
        try:
            data.import_torchvision()
        except RuntimeError as error:
            assert str(error) == "another reason", error
        else:
            raise SystemExit("the error was swallowed")
        sys.path[0] = {str(tmp_path / "unfitting")!r}
        try:
            import torchvision
        except RuntimeError as error:
            assert "nms does not exist" in str(error), error
        else:
            raise SystemExit("this package should not be importable unmended")
        first = data.import_torchvision()
        assert first.__file__.startswith(sys.path[0])
        assert data.import_torchvision() is first
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        cwd=Path(data.__file__).parents[2],
    )
    assert run.returncode == 0, run.stderr


# --------------------------------------------------------------------------------------------------
# MNIST and Fashion-MNIST
# --------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("harm", ["absent", "garbled", "cut", "altered"])
def test_the_next_mirror_is_asked_when_one_fails(harm, mnist, site, monkeypatch, cache):
    arrays, packed = mnist
    name = "t10k-images-idx3-ubyte.gz"
    declare_mnist(monkeypatch, packed, [f"{site.address}bad/", f"{site.address}"])
    if harm != "absent":
        site.content |= {f"/bad/{file}": content for file, content in packed.items()}
        if harm == "garbled":
            site.garbled.add(f"/bad/{name}")
        elif harm == "cut":
            site.cut_after[f"/bad/{name}"] = 20
        else:
            site.content[f"/bad/{name}"] = packed[name][:-1] + b"?"
    loaded = data.load("mnist", "test")
    np.testing.assert_array_equal(loaded.images[:, 0], arrays["t10k-images-idx3-ubyte"])
    first_seen = list(dict.fromkeys(path for path in site.requests if path.endswith(name)))
    assert first_seen == [f"/bad/{name}", f"/{name}"]
    assert everything_below(cache / "mnist") == [name, "t10k-labels-idx1-ubyte.gz"]


@pytest.mark.parametrize("harm", ["cut", "altered"])
def test_a_bad_download_leaves_nothing_behind(harm, mnist, site, cache):
    _, packed = mnist
    name = "train-images-idx3-ubyte.gz"
    altered = packed[name][:-1] + b"?"
    if harm == "cut":
        site.cut_after[f"/{name}"] = 20
        found = md5(packed[name][:20])
    else:
        site.content[f"/{name}"] = altered
        found = md5(altered)
    with pytest.raises(data.DataError) as caught:
        data.load("mnist")
    assert everything_below(cache / "mnist") == []
    for told in (name, "discarded", md5(packed[name]), found, site.address):
        assert told in str(caught.value)


def test_only_what_is_missing_is_downloaded(mnist, site, cache):
    _, packed = mnist
    name = "train-images-idx3-ubyte.gz"
    write_all(cache / "mnist", {name: packed[name]})
    assert "checksum verified" in data.load("mnist").description
    assert set(site.requests) == {"/train-labels-idx1-ubyte.gz"}


@pytest.mark.parametrize("in_cache", [True, False])
@pytest.mark.parametrize("harm", ["half", "altered"])
def test_a_file_with_a_wrong_checksum_is_never_used(harm, in_cache, mnist, cache, site):
    _, packed = mnist
    name = "train-labels-idx1-ubyte.gz"
    bad = packed[name][:15] if harm == "half" else packed[name][:-1] + b"?"
    folder = cache / "mnist"
    write_all(folder, packed | {name: bad})
    # The unpacked file beside it is sound, but must not hide that the other one is not.
    write_all(folder, {name.removesuffix(".gz"): gzip.decompress(packed[name])})
    with pytest.raises(data.DataError) as caught:
        data.load("mnist", folder=None if in_cache else folder)
    for told in (str(folder / name), md5(packed[name]), md5(bad), "Delete"):
        assert told in str(caught.value)
    assert (folder / name).read_bytes() == bad
    assert not site.requests


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


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_with_a_folder_missing_files_are_named_and_not_downloaded(name, mnist, site, tmp_path):
    with pytest.raises(data.DataError) as caught:
        data.load(name, folder=tmp_path / "nowhere")
    wanted = {
        "mnist": ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"],
        "cifar10": ["cifar-10-python.tar.gz", "cifar-10-batches-py/data_batch_1"],
    }
    assert all(file in str(caught.value) for file in wanted[name])
    assert str(tmp_path / "nowhere") in str(caught.value)
    assert not site.requests
    assert not (tmp_path / "nowhere").exists()


# --------------------------------------------------------------------------------------------------
# No network, no room
# --------------------------------------------------------------------------------------------------


def test_without_a_network_the_message_says_what_to_do(mnist, dead_address, monkeypatch, cache):
    _, packed = mnist
    declare_mnist(monkeypatch, packed, [f"{dead_address}one/", f"{dead_address}two/"])
    with pytest.raises(data.DataError) as caught:
        data.load("mnist", "test")
    for told in (
        f"{dead_address}one/t10k-images-idx3-ubyte.gz",
        f"{dead_address}two/t10k-images-idx3-ubyte.gz",
        str(cache / "mnist"),
        "t10k-labels-idx1-ubyte.gz",
        'load("digits")',
    ):
        assert told in str(caught.value)
    assert everything_below(cache / "mnist") == []


def test_without_a_network_cifar_says_what_to_do(dead_address, monkeypatch, cache):
    published = data.import_torchvision().datasets.CIFAR10
    monkeypatch.setattr(published, "url", f"{dead_address}{published.filename}")
    with pytest.raises(data.DataError) as caught:
        data.load("cifar10")
    for told in (published.url, str(cache / "cifar10"), published.filename, 'load("digits")'):
        assert told in str(caught.value)


def test_a_silent_server_is_given_up(mnist, monkeypatch):
    _, packed = mnist
    monkeypatch.setattr(data, "_NETWORK_TIMEOUT_SECONDS", 0.2)
    before = socket.getdefaulttimeout()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        declare_mnist(monkeypatch, packed, [address])
        with pytest.raises(data.DataError, match=re.escape(address)):
            data.load("mnist")
    assert socket.getdefaulttimeout() == before


def expect_no_room(folder, site):
    with pytest.raises(data.DataError) as caught:
        data.load("mnist")
    assert str(folder / "mnist") in str(caught.value)
    assert "KEMPE_NB_DATA" in str(caught.value)
    assert not site.requests


def test_a_cache_folder_that_cannot_be_made_is_named(mnist, site, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("KEMPE_NB_DATA", str(tmp_path / "file" / "below"))
    expect_no_room(tmp_path / "file" / "below", site)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere"
)
def test_a_read_only_cache_folder_is_named_but_can_be_read(mnist, site, cache):
    arrays, packed = mnist
    (cache / "mnist").mkdir(parents=True)
    (cache / "mnist").chmod(0o555)
    try:
        expect_no_room(cache, site)
        (cache / "mnist").chmod(0o755)
        write_all(cache / "mnist", packed)
        (cache / "mnist").chmod(0o555)
        assert len(data.load("mnist").labels) == len(arrays["train-labels-idx1-ubyte"])
    finally:
        (cache / "mnist").chmod(0o755)


# --------------------------------------------------------------------------------------------------
# CIFAR-10
# --------------------------------------------------------------------------------------------------


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
@pytest.mark.parametrize("way", ["system", "eval", "getattr"])
def test_a_pickle_that_calls_something_is_refused_unexecuted(
    file, way, monkeypatch, site, tmp_path
):
    marker = tmp_path / "executed"
    call = {
        "system": Calls(os.system, f"echo > {marker}"),
        "eval": Calls(eval, f"open({str(marker)!r}, 'w')"),
        "getattr": Calls(getattr, np.zeros(1), "tofile"),
    }[way]
    malicious = python3_pickle({b"data": call})
    contents = cifar_contents(**{file: malicious})
    declare_cifar(monkeypatch, contents, tar_gz(contents), site)
    with pytest.raises(data.DataError, match=rf"{file} is refused: .*\.{way},"):
        data.load("cifar10", "test")
    assert not marker.exists()
    if way != "getattr":
        # The pickle is a real threat: an ordinary load does execute it.
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


# --------------------------------------------------------------------------------------------------
# Text
# --------------------------------------------------------------------------------------------------


def decode(corpus):
    return [corpus.vocabulary[token] for token in corpus.tokens]


def expect_corpus(corpus, words):
    """`corpus` holds exactly `words`, with consistent counts."""
    assert decode(corpus) == words
    assert corpus.tokens.dtype == np.int32 and corpus.counts.dtype == np.int64
    assert corpus.tokens.min() >= 0 and corpus.tokens.max() < len(corpus.vocabulary)
    assert len(set(corpus.vocabulary)) == len(corpus.vocabulary) == len(corpus.counts)
    expected = Counter(words)
    assert corpus.counts.tolist() == [expected[word] for word in corpus.vocabulary]
    assert corpus.counts.sum() == len(corpus.tokens)
    assert f"{len(words):,} tokens" in corpus.description
    assert corpus.fingerprint[:12] in corpus.description
    assert re.fullmatch("[0-9a-f]{64}", corpus.fingerprint)


@given(st.text() | st.text("ab1_ .\n", min_size=1))
def test_own_text_is_counted_as_counter_does(text):
    words = re.findall(TOKEN, text)
    if not words:
        with pytest.raises(ValueError, match="^text is "):
            data.corpus_from_text(text)
        return
    corpus = data.corpus_from_text(text, name="mine")
    expect_corpus(corpus, words)
    # Counter.most_common keeps equal counts in the order of their first appearance.
    assert corpus.vocabulary == tuple(word for word, _ in Counter(words).most_common())
    assert (corpus.name, corpus.split) == ("mine", "all")
    assert corpus.description.startswith("mine")


def test_tokens_are_words_runs_of_digits_and_single_marks():
    corpus = data.corpus_from_text("für_x2+=3.14 \N{DEVANAGARI DIGIT ONE}7\tnaïve\n")
    assert decode(corpus) == ["für_x2", "+", "=", "3", ".", "14", "\u09677", "naïve"]
    assert decode(data.corpus_from_text("a\ud800a")) == ["a", "\ud800", "a"]


def test_fingerprints_tell_texts_apart():
    prints = [data.corpus_from_text(text).fingerprint for text in ("a b", "a b", "a  b")]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("text", ["", " \n\t\u2003", None, b"bytes"])
def test_a_text_without_tokens_is_refused(text):
    with pytest.raises(ValueError, match="^text is "):
        data.corpus_from_text(text)


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A standard library of 23 readable files, and some that must not be read."""
    folder = tmp_path / "lib"
    for number in range(20):
        path = folder / ("package" if number % 3 else "other-package") / f"module{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"def f{number}(x):\n    return x ** {number}  # the same\n")
    (folder / "latin.py").write_bytes("# coding: latin-1\nname = 'für'\n".encode("latin-1"))
    (folder / "marked.py").write_bytes(b"\xef\xbb\xbfmarked = 1\r\nmarked += 1\r\n")
    (folder / "empty.py").write_bytes(b"")
    unread = folder / "site-packages", folder / "dist-packages", folder / "package" / "__pycache__"
    for place in unread:
        place.mkdir()
        (place / "unread.py").write_text("unread")
    (folder / "notes.txt").write_text("unread")
    (folder / "undecodable.py").write_bytes(b"unread = '\xff'")
    (folder / "unknown_cookie.py").write_bytes(b"# coding: no-such-coding\nunread")
    ask = sysconfig.get_path
    monkeypatch.setattr(
        sysconfig, "get_path", lambda name, *rest: str(folder) if name == "stdlib" else ask(name)
    )
    return folder


def words_by_file(folder):
    """The words of every readable file, in the promised order, found independently."""
    skipped = {"site-packages", "dist-packages", "__pycache__"}
    names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.py")}
    words = []
    for name in sorted(names):
        if skipped & set(name.split("/")) or name in ("undecodable.py", "unknown_cookie.py"):
            continue
        with tokenize.open(names[name]) as stream:
            words.append(re.findall(TOKEN, stream.read()))
    return words


def test_the_standard_library_in_reading_order(library):
    files = words_by_file(library)
    assert len(files) == 23
    assert ["#", "coding", ":", "latin", "-", "1", "name", "=", "'", "für", "'"] in files
    corpus = data.load("stdlib", "all")
    words = [word for file in files for word in file]
    expect_corpus(corpus, words)
    assert "unread" not in corpus.vocabulary
    assert corpus.vocabulary == tuple(word for word, _ in Counter(words).most_common())
    assert "23 files" in corpus.description
    assert f"Python {sys.version.split()[0]} " in corpus.description


def test_the_splits_of_the_standard_library_partition_its_files(library):
    files = words_by_file(library)
    whole, train, test = (data.load("stdlib", split) for split in ("all", "train", "test"))
    expect_corpus(test, [word for file in files[9::10] for word in file])
    expect_corpus(
        train, [word for place, file in enumerate(files) if place % 10 != 9 for word in file]
    )
    assert whole.vocabulary == train.vocabulary == test.vocabulary
    assert whole.fingerprint == train.fingerprint == test.fingerprint
    np.testing.assert_array_equal(train.counts + test.counts, whole.counts)
    assert "2 of 23 files" in test.description


def same(first, second):
    return (
        (first.name, first.split, first.vocabulary, first.description, first.fingerprint)
        == (second.name, second.split, second.vocabulary, second.description, second.fingerprint)
        and np.array_equal(first.tokens, second.tokens)
        and first.tokens.dtype == second.tokens.dtype
        and np.array_equal(first.counts, second.counts)
    )


def stored_arrays(path):
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def cache_file(cache):
    (path,) = (cache / "stdlib").iterdir()
    return path


def test_a_second_load_reads_the_cache_and_is_the_same(library, cache):
    first = data.load("stdlib", "all")
    path = cache_file(cache)
    assert same(data.load("stdlib", "all"), first)
    # That the cache is read at all shows when its content is exchanged.
    arrays = stored_arrays(path)
    renamed = arrays["vocabulary"].tobytes().replace(b"return", b"retour")
    np.savez(path, **arrays | {"vocabulary": np.frombuffer(renamed, np.uint8)})
    assert "retour" in data.load("stdlib", "all").vocabulary


class Opens:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def harm_cache(path, arrays, harm):
    content = path.read_bytes()
    middle = content.index(arrays["tokens"].tobytes()) + 4
    doubled = arrays["vocabulary"].tobytes().replace(b"return", b"def")
    replaced = {
        "too large an id": {"tokens": arrays["tokens"] + 1},
        "negative ids": {"tokens": arrays["tokens"] - 1},
        "wide ids": {"tokens": arrays["tokens"].astype(np.int64)},
        "unranked": {"tokens": arrays["tokens"].max() - arrays["tokens"]},
        "starts too short": {"starts": arrays["starts"][:-1]},
        "starts backwards": {"starts": arrays["starts"][[0, 2, 1, *range(3, 24)]]},
        "starts beyond": {"starts": arrays["starts"] + 1},
        "a type lost": {"vocabulary": arrays["vocabulary"][:-4]},
        "a type twice": {"vocabulary": np.frombuffer(doubled, np.uint8)},
        "pickled": {"tokens": np.array([Opens(path.parent.parent / "executed")])},
    }
    if harm in replaced:
        np.savez(path, **arrays | replaced[harm])
    elif harm == "a member lost":
        np.savez(path, tokens=arrays["tokens"])
    else:
        path.write_bytes(
            {
                "empty": b"",
                "half": content[: len(content) // 2],
                "a bit flipped": content[:middle]
                + bytes([content[middle] ^ 1])
                + content[middle + 1 :],
                "no archive": b"no archive",
                "a bare array": b"\x93NUMPY\x01\x00v\x00{",
            }[harm]
        )


@pytest.mark.parametrize(
    "harm",
    [
        "empty",
        "half",
        "a bit flipped",
        "no archive",
        "a bare array",
        "a member lost",
        "too large an id",
        "negative ids",
        "wide ids",
        "unranked",
        "starts too short",
        "starts backwards",
        "starts beyond",
        "a type lost",
        "a type twice",
        "pickled",
    ],
)
def test_a_damaged_cache_is_noticed_and_rebuilt(harm, library, cache):
    whole = data.load("stdlib", "all")
    path = cache_file(cache)
    arrays = stored_arrays(path)
    harm_cache(path, arrays, harm)
    assert same(data.load("stdlib", "all"), whole)
    assert everything_below(cache) == ["stdlib", f"stdlib/{path.name}"]
    rebuilt = stored_arrays(path)
    assert rebuilt.keys() == arrays.keys()
    assert all(np.array_equal(rebuilt[key], arrays[key]) for key in arrays)


def test_a_changed_library_is_not_served_from_the_old_cache(library):
    before = data.load("stdlib", "all")
    path = library / "marked.py"
    path.write_bytes(path.read_bytes().replace(b"marked", b"edited"))
    after = data.load("stdlib", "all")
    assert "edited" in after.vocabulary and "marked" not in after.vocabulary
    assert after.fingerprint != before.fingerprint
    path.rename(library / "moved.py")
    assert data.load("stdlib", "all").fingerprint != after.fingerprint


def test_the_standard_library_does_without_a_cache_folder(library, cache, monkeypatch, tmp_path):
    whole = data.load("stdlib", "all")
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("KEMPE_NB_DATA", str(tmp_path / "file" / "below"))
    assert same(data.load("stdlib", "all"), whole)


def test_an_empty_library_is_an_error(tmp_path, monkeypatch, cache):
    folder = tmp_path / "lib"
    folder.mkdir()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(folder))
    with pytest.raises(data.DataError, match=re.escape(str(folder))):
        data.load("stdlib")
    (folder / "blank.py").write_text("\n \n")
    with pytest.raises(data.DataError, match="no tokens in split 'all'"):
        data.load("stdlib", "all")
    (folder / "few.py").write_text("x = 1")
    assert decode(data.load("stdlib")) == ["x", "=", "1"]
    with pytest.raises(data.DataError, match="no tokens in split 'test'"):
        data.load("stdlib", "test")


def test_the_real_standard_library(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("so that no cache of many megabytes is written")
    monkeypatch.setenv("KEMPE_NB_DATA", str(tmp_path / "file" / "below"))
    folder = Path(sysconfig.get_path("stdlib"))
    test = data.load("stdlib", "test")
    # No undecodable file is among the first ten, so the tenth one opens the test split.
    skipped = {"site-packages", "dist-packages", "__pycache__"}
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*.py"))
    tenth = sorted(name for name in names if not skipped & set(name.split("/")))[9]
    with tokenize.open(folder / tenth) as stream:
        words = re.findall(TOKEN, stream.read())
    assert decode(test)[: len(words)] == words
    assert test.counts.sum() == len(test.tokens) > 10_000
