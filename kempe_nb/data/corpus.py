"""A text as token ids: its form, how it is tokenised, and how a split is cut out of it."""

import hashlib
import itertools
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from kempe_nb.data.errors import DataError, bad_argument

# Identifiers and words, runs of digits, single punctuation marks. White space is in no token.
TOKEN = re.compile(r"[^\W\d]\w*|\d+|[^\w\s]")


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text as a sequence of token ids.

    Attributes
    ----------
    name, split : str
        What was asked for.
    tokens : numpy.ndarray
        int32, shape [T]: token ids in reading order.
    vocabulary : tuple of str
        The V token types; a token id is a position in it. Types are ranked by falling count in
        the whole corpus, equal counts by first appearance, and are the same for every split.
    counts : numpy.ndarray
        int64, shape [V]: how often each type of `vocabulary` occurs in this split. Only for the
        split ``"all"`` is it certain to be descending and free of zeros.
    description : str
        One sentence: counts, where the text comes from and the start of `fingerprint`.
    fingerprint : str
        Hexadecimal SHA-256 of the whole corpus, whatever the split.
    """

    name: str
    split: str
    tokens: np.ndarray = field(repr=False)
    vocabulary: tuple[str, ...] = field(repr=False)
    counts: np.ndarray = field(repr=False)
    description: str
    fingerprint: str


@dataclass(frozen=True, eq=False)
class Encoded:
    """Texts as token ids: text i is ``tokens[starts[i]:starts[i + 1]]``."""

    tokens: np.ndarray  # int32
    starts: np.ndarray  # int64, one more than there are texts
    vocabulary: tuple[str, ...]


def corpus_from_text(text: str, name: str = "text") -> Corpus:
    """Turn a text of one's own into a corpus, tokenised as ``load("stdlib")`` does.

    Parameters
    ----------
    text : str
        The text; identifiers and words, runs of digits and single punctuation marks become
        tokens, white space separates them.
    name : str
        Name of the corpus.

    Returns
    -------
    Corpus
        With split ``"all"``; `fingerprint` is the SHA-256 of the text in UTF-8.

    Raises
    ------
    ValueError
        If `text` is not a str or holds nothing but white space.
    """
    if not isinstance(text, str) or not text.strip():
        shown = text if isinstance(text, str) else type(text).__name__
        raise bad_argument("text", shown, "a str with more than white space in it")
    encoded = tokenise([text])
    fingerprint = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return cut_split(name, "all", encoded, f"{name}, own text", fingerprint)


def tokenise(texts: Iterable[str]) -> Encoded:
    """Number the types by falling count, equal counts by first appearance."""
    first_seen: defaultdict[str, int] = defaultdict(itertools.count().__next__)
    pieces = [
        np.fromiter(map(first_seen.__getitem__, TOKEN.findall(text)), np.int32) for text in texts
    ]
    by_appearance = np.concatenate(pieces)
    counts = np.bincount(by_appearance, minlength=len(first_seen))
    order = np.argsort(-counts, kind="stable")
    rank = np.argsort(order).astype(np.int32)
    types = tuple(first_seen)
    return Encoded(
        tokens=rank[by_appearance],
        starts=np.cumsum([0, *map(len, pieces)], dtype=np.int64),
        vocabulary=tuple(types[position] for position in order),
    )


def cut_split(name: str, split: str, encoded: Encoded, source: str, fingerprint: str) -> Corpus:
    """Cut a split out of `encoded`; `source` starts the description."""
    is_test = np.arange(len(encoded.starts) - 1) % 10 == 9
    keep = {"all": np.ones_like(is_test), "train": ~is_test, "test": is_test}[split]
    tokens = encoded.tokens[np.repeat(keep, np.diff(encoded.starts))]
    if not len(tokens):
        raise DataError(f"{source}: no tokens in split {split!r} ({keep.sum()} files).")
    counts = np.bincount(tokens, minlength=len(encoded.vocabulary)).astype(np.int64)
    files = f"{_share(keep.sum(), len(keep))} files, " if len(keep) > 1 else ""
    types = _share(np.count_nonzero(counts), len(counts))
    return Corpus(
        name=name,
        split=split,
        tokens=tokens,
        vocabulary=encoded.vocabulary,
        counts=counts,
        description=(
            f"{source} ({split}): {files}{len(tokens):,} tokens, {types} types, "
            f"fingerprint {fingerprint[:12]}."
        ),
        fingerprint=fingerprint,
    )


def _share(part: int, whole: int) -> str:
    return f"{part:,}" if part == whole else f"{part:,} of {whole:,}"
