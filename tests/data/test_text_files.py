"""Text files of one's own: found in two places, read whole, refused by name."""

import pytest

from kempe_nb import data


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Return the current folder and that of the data sets."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("KEMPE_NB_DATA", str(there))
    return here, there


def test_files_are_joined_in_order_and_found_in_both_folders(folders):
    here, there = folders
    (here / "one.txt").write_text("a b a", encoding="utf-8")
    (there / "two.txt").write_text("ü a", encoding="utf-8")
    corpus = data.corpus_from_files(["two.txt", " one.txt "])
    assert [corpus.vocabulary[token] for token in corpus.tokens] == ["ü", "a", "a", "b", "a"]
    assert corpus.name == "two.txt, one.txt" and str(there) not in corpus.description


def test_the_current_folder_comes_first_and_a_boundary_splits_words(folders):
    here, there = folders
    (here / "one.txt").write_text("here", encoding="utf-8")
    (there / "one.txt").write_text("there", encoding="utf-8")
    corpus = data.corpus_from_files(["one.txt", "one.txt"])
    assert corpus.vocabulary == ("here",) and corpus.counts.tolist() == [2]


@pytest.mark.parametrize("names", [[], [""], "one.txt", ["one.txt", " "]])
def test_names_that_are_none_are_refused(folders, names):
    with pytest.raises(ValueError, match="names is"):
        data.corpus_from_files(names)


def test_what_is_missing_or_no_text_is_named(folders):
    here, there = folders
    with pytest.raises(data.DataError, match="none.txt is neither in .*here nor in .*there"):
        data.corpus_from_files(["none.txt"])
    (here / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(data.DataError, match="binary.txt cannot be read as UTF-8"):
        data.corpus_from_files(["binary.txt"])
    (here / "empty.txt").write_text(" \n")
    with pytest.raises(ValueError, match="text is"):
        data.corpus_from_files(["empty.txt"])
