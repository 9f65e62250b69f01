"""The standard library as a corpus, and the cache of its tokens."""

import re
import sys
import sysconfig
import tokenize
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from corpus_checks import TOKEN, decode, expect_corpus
from tiny_sets import everything_below

from kempe_nb import data


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
