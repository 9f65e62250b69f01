"""Downloads: mirrors, checksums, no network, no room."""

import contextlib
import gzip
import logging
import os
import re
import socket
import tempfile
from pathlib import Path

import numpy as np
import pooch
import pytest
from tiny_sets import declare_mnist, everything_below, md5, write_all

from kempe_nb import data
from kempe_nb.data import download


@pytest.fixture
def dead_address():
    """An address at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return f"http://127.0.0.1:{port}/"


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
        why = [f"IncompleteRead(20 bytes read, {len(packed[name]) - 20} more expected)"]
    else:
        site.content[f"/{name}"] = altered
        why = ["does not match", md5(packed[name]), md5(altered)]
    with pytest.raises(data.DataError) as caught:
        data.load("mnist")
    assert everything_below(cache / "mnist") == []
    for told in (name, *why, site.address):
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
    monkeypatch.setattr(download, "NETWORK_TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        declare_mnist(monkeypatch, packed, [address])
        with pytest.raises(data.DataError, match=re.escape(address) + r".*read timeout=0\.2\b"):
            data.load("mnist")
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip"])
def test_a_file_that_a_server_calls_packed_stays_as_it_is(encoding, mnist, site, cache):
    _, packed = mnist
    site.headers["Content-Encoding"] = encoding
    data.load("mnist", "test")
    name = "t10k-images-idx3-ubyte.gz"
    assert (cache / "mnist" / name).read_bytes() == packed[name]


def test_a_server_that_packs_when_asked_is_not_asked(mnist, site, cache):
    _, packed = mnist
    site.packs = True
    data.load("mnist", "test")
    name = "t10k-images-idx3-ubyte.gz"
    assert (cache / "mnist" / name).read_bytes() == packed[name]


class Talkative(dict):
    """What the server serves; its thread also says something through pooch."""

    def get(self, path):
        pooch.get_logger().info("from another thread")
        return super().get(path)


@pytest.mark.parametrize("fails", [False, True])
def test_a_download_is_quiet_and_silences_nobody_else(fails, mnist, site, monkeypatch, capsys):
    heard = []
    listener = logging.Handler()
    listener.emit = lambda record: heard.append(record.getMessage())
    monkeypatch.setattr(pooch.get_logger(), "handlers", [listener])
    monkeypatch.setattr(site, "content", Talkative({} if fails else site.content))
    with pytest.raises(data.DataError) if fails else contextlib.nullcontext():
        data.load("mnist")
    pooch.get_logger().info("afterwards")
    assert heard == ["from another thread"] * len(site.requests) + ["afterwards"]
    assert capsys.readouterr() == ("", "")


def test_others_may_read_a_download_if_the_umask_lets_them(mnist, cache):
    before = os.umask(0o027)
    try:
        data.load("mnist")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (cache / "mnist").iterdir()} == {0o640}


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


@contextlib.contextmanager
def without_root():
    """Let permissions count also where the tests run as root, whom they do not bind."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_read_only_cache_folder_is_named_but_can_be_read(mnist, site, monkeypatch):
    arrays, packed = mnist
    # Not below tmp_path, which pytest closes to everybody else.
    with tempfile.TemporaryDirectory() as place:
        monkeypatch.setenv("KEMPE_NB_DATA", place)
        folder = Path(place) / "mnist"
        folder.mkdir()
        Path(place).chmod(0o755)
        folder.chmod(0o555)
        with without_root():
            expect_no_room(Path(place), site)
        folder.chmod(0o755)
        write_all(folder, packed)
        folder.chmod(0o555)
        with without_root():
            assert len(data.load("mnist").labels) == len(arrays["train-labels-idx1-ubyte"])
        folder.chmod(0o755)
