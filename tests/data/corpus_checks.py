"""What holds for every corpus."""

import re
from collections import Counter

import numpy as np

TOKEN = r"[^\W\d]\w*|\d+|[^\w\s]"


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
