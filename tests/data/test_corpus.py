"""A text of one's own as a corpus."""

import re
from collections import Counter

import pytest
from corpus_checks import TOKEN, decode, expect_corpus
from hypothesis import given, strategies as st

from kempe_nb import data


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
