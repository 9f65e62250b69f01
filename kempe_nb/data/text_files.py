"""Text files of the reader's own as one corpus."""

import os
from collections.abc import Sequence
from pathlib import Path

from kempe_nb.data.cache import cache_folder
from kempe_nb.data.corpus import Corpus, corpus_from_text
from kempe_nb.data.errors import DataError, bad_argument


def corpus_from_files(names: Sequence[str | os.PathLike[str]]) -> Corpus:
    """Read text files as one corpus, tokenised as ``load("stdlib")`` does.

    Parameters
    ----------
    names : sequence of path
        Files in UTF-8, in this order. A file that is not found from the current folder is looked
        for in :func:`cache_folder`.

    Returns
    -------
    Corpus
        With split ``"all"``; its name is that of the files without their folders.

    Raises
    ------
    ValueError
        If there is no name, or if the files hold nothing but white space.
    DataError
        If a file is in neither folder, cannot be read or is not UTF-8.
    """
    if isinstance(names, str) or not names or not all(str(name).strip() for name in names):
        raise bad_argument("names", names, "a list of file names")
    paths = [_find(Path(str(name).strip()).expanduser()) for name in names]
    texts = []
    for path in paths:
        try:
            texts.append(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeError) as error:
            raise DataError(f"{path} cannot be read as UTF-8 text: {error}") from None
    return corpus_from_text("\n".join(texts), ", ".join(path.name for path in paths))


def _find(path: Path) -> Path:
    """Return where a file is, in the current folder or in that of the data sets."""
    for place in (path, cache_folder() / path):
        if place.is_file():
            return place
    raise DataError(f"{path} is neither in {Path.cwd()} nor in {cache_folder()}; put it into one.")
