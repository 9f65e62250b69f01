"""Words cut into pieces: byte-pair encoding, learnt from the words of a corpus.

With a vocabulary of words the rare ones have to become one token, so that a text has lost its tail
before anything is trained on it. Pieces keep it: a rare word is written with several frequent
pieces. The pieces are those of Sennrich, Haddow and Birch (arXiv 1508.07909), learnt by the library
sentencepiece from a list of words and their counts.
"""

import io
from dataclasses import dataclass, field

import numpy as np
import sentencepiece

from kempe_nb.checks import checked_integer
from kempe_nb.data.corpus import Corpus
from kempe_nb.data.errors import bad_argument

#: What stands for the beginning of a word in a piece.
BEGIN = "▁"
#: The share of the text's characters that have a piece of their own; others are unknown.
COVERAGE = 0.9999
#: Longer words are one unknown piece to the trainer of sentencepiece.
LONGEST = 4192


@dataclass(frozen=True, eq=False)
class Subwords:
    """A corpus as pieces of words.

    Attributes
    ----------
    pieces : numpy.ndarray
        int64, shape [P]: the pieces of the corpus in reading order.
    vocabulary : tuple of str
        The pieces; an entry of `pieces` is a position in it. The first one, "<unk>", stands for
        characters without a piece. A piece that begins a word begins with "▁".
    """

    pieces: np.ndarray = field(repr=False)
    vocabulary: tuple[str, ...] = field(repr=False)

    @property
    def begins(self) -> np.ndarray:
        """Whether a piece begins a word, bool, one for each entry of the vocabulary."""
        return np.array([piece.startswith(BEGIN) for piece in self.vocabulary])

    def words(self, pieces: np.ndarray) -> list[str]:
        """Return the whole words in a sequence of pieces, int [L], in reading order.

        Left out are what stands before the first beginning of a word, which is the end of a word
        that began earlier, and the last word, of which nobody knows whether it ends there.
        """
        starts = np.flatnonzero(self.begins[pieces])
        return [
            "".join(self.vocabulary[piece] for piece in pieces[start:end]).removeprefix(BEGIN)
            for start, end in zip(starts[:-1], starts[1:], strict=True)
        ]


def subwords(training: Corpus, *others: Corpus, size: int = 1_000) -> tuple[Subwords, ...]:
    """Learn pieces from the words of one corpus, and write it and others in them.

    Parameters
    ----------
    training : Corpus
        Its words and their counts decide about the pieces.
    *others : Corpus
        Only encoded.
    size : int
        Number of pieces, more than the training text has characters.

    Returns
    -------
    tuple of Subwords
        One for each corpus, with one vocabulary. The same corpus always gives the same pieces.

    Raises
    ------
    ValueError
        For a corpus that is none, or a size below 2 or one that the words do not allow.
    """
    for place, corpus in enumerate((training, *others)):
        if not isinstance(corpus, Corpus):
            name = "training" if place == 0 else f"others[{place - 1}]"
            raise bad_argument(name, type(corpus).__name__, "a Corpus")
    size = checked_integer(size, "size", 2)
    processor = _processor(training, size)
    vocabulary = tuple(map(processor.id_to_piece, range(processor.get_piece_size())))
    return tuple(
        Subwords(_encoded(corpus, processor), vocabulary) for corpus in (training, *others)
    )


def _processor(corpus: Corpus, size: int) -> sentencepiece.SentencePieceProcessor:
    rows = (
        f"{word}\t{count}"
        for word, count in zip(corpus.vocabulary, corpus.counts, strict=True)
        if count and len(word.encode()) <= LONGEST
    )
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(rows),
            input_format="tsv",
            model_writer=model,
            model_type="bpe",
            vocab_size=size,
            character_coverage=COVERAGE,
            # Words as they are: no characters are replaced by others.
            normalization_rule_name="identity",
            bos_id=-1,
            eos_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise bad_argument("size", size, f"a number that these words allow ({error})") from error
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def _encoded(corpus: Corpus, processor: sentencepiece.SentencePieceProcessor) -> np.ndarray:
    """Return the pieces of all words of a corpus, one after the other; a type is cut once."""
    used = np.flatnonzero(corpus.counts)
    cut = dict(
        zip(used.tolist(), processor.encode([corpus.vocabulary[t] for t in used]), strict=True)
    )
    lengths = np.zeros(len(corpus.vocabulary), np.int64)
    lengths[used] = [len(cut[t]) for t in used.tolist()]
    flat = np.concatenate([np.asarray(cut[t], np.int64) for t in used.tolist()])
    starts = np.zeros(len(lengths), np.int64)
    starts[used] = np.cumsum(lengths[used]) - lengths[used]
    own = lengths[corpus.tokens]
    # Position within its word, for every piece of the text.
    inside = np.arange(own.sum()) - np.repeat(np.cumsum(own) - own, own)
    return flat[np.repeat(starts[corpus.tokens], own) + inside]
