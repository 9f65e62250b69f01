"""Byte-pair encoding: nothing is lost, the same corpus gives the same pieces, words come back."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from kempe_nb import data
from kempe_nb.data.subwords import BEGIN, subwords

WORDS = ["the", "then", "there", "other", "mother", "smother", "ab", "abc", "(", ")", "42"]
few = settings(max_examples=25, deadline=None)
texts = st.lists(st.sampled_from(WORDS), min_size=2, max_size=60)


def corpus_of(words):
    return data.corpus_from_text(" ".join(words))


TRAINING = corpus_of(WORDS * 3)


@given(texts)
@few
def test_the_pieces_of_a_text_spell_it(words):
    _, cut = subwords(TRAINING, corpus_of(words), size=30)
    spelt = "".join(cut.vocabulary[piece] for piece in cut.pieces)
    assert spelt == "".join(BEGIN + word for word in words)


@given(texts)
@few
def test_whole_words_come_back_but_for_the_last(words):
    _, cut = subwords(TRAINING, corpus_of(words), size=30)
    assert cut.words(cut.pieces) == words[:-1]
    # What stands before the first beginning is the end of another word.
    assert cut.words(cut.pieces[1:]) == words[1:-1] or cut.begins[cut.pieces[1]]


def test_frequent_words_become_one_piece_and_rare_ones_several():
    frequent = corpus_of(["there"] * 50 + ["smother"])
    (cut,) = subwords(frequent, size=16)
    assert BEGIN + "there" in cut.vocabulary and BEGIN + "smother" not in cut.vocabulary
    assert len(cut.pieces) > 51


def test_there_are_as_many_pieces_as_asked_for_and_always_the_same():
    first, again = (subwords(TRAINING, size=30)[0] for _ in range(2))
    assert first.vocabulary == again.vocabulary and len(first.vocabulary) == 30
    np.testing.assert_array_equal(first.pieces, again.pieces)
    assert first.pieces.dtype == np.int64 and first.pieces.max() < 30


def test_a_character_without_a_piece_is_unknown_and_costs_no_other():
    _, cut = subwords(TRAINING, corpus_of(["the", "\N{SNOWMAN}", "the"]), size=30)
    assert cut.vocabulary[0] == "<unk>"
    assert (cut.pieces == 0).sum() == 1
    assert cut.words(cut.pieces)[0] == "the"


@pytest.mark.parametrize(
    ("arguments", "size", "message"),
    [
        (("no corpus",), 30, "training is 'str'; accepted: a Corpus"),
        ((TRAINING, 3), 30, r"others\[0\] is 'int'; accepted: a Corpus"),
        ((TRAINING,), 1, "size is 1"),
        ((TRAINING,), 5, "size is 5; accepted: a number that these words allow"),
        ((TRAINING,), 10_000, "size is 10000; accepted: a number that these words allow"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, size, message):
    with pytest.raises(ValueError, match=message):
        subwords(*arguments, size=size)
