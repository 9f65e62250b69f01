"""The standard library of the running Python as a corpus, and the cache of its tokens."""

import hashlib
import io
import os
import platform
import sysconfig
import tokenize
from contextlib import suppress
from pathlib import Path

import numpy as np

from kempe_nb.data.cache import cache_folder, workshop
from kempe_nb.data.corpus import TOKEN, Corpus, Encoded, cut_split, tokenise
from kempe_nb.data.errors import DataError

_NOT_STDLIB = {"site-packages", "dist-packages", "__pycache__"}


def load(split: str) -> Corpus:
    """Load a split of the standard library, from the cache if that has these very files."""
    folder = Path(sysconfig.get_path("stdlib"))
    texts, fingerprint = _read_sources(folder)
    if not texts:
        raise DataError(f"{folder}, the standard library of this Python, has no readable .py file.")
    # The pattern is part of the key: with another one the same files give other tokens.
    key = hashlib.sha256(f"{fingerprint} {TOKEN.pattern}".encode()).hexdigest()[:32]
    cached = cache_folder() / "stdlib" / f"{key}.npz"
    encoded = _read_cache(cached, len(texts))
    if encoded is None:
        encoded = tokenise(texts)
        _write_cache(cached, encoded)
    source = f"Python {platform.python_version()} standard library"
    return cut_split("stdlib", split, encoded, source, fingerprint)


def _read_sources(folder: Path) -> tuple[list[str], str]:
    """Return the text of all Python files below `folder`, by path, and their fingerprint.

    Every file is read once, so that texts and fingerprint are of the same bytes, and decoded as
    tokenize.open does. Line ends stay as they are, which makes no difference to tokens.
    """
    paths = []
    for here, subfolders, files in os.walk(folder):
        subfolders[:] = [name for name in subfolders if name not in _NOT_STDLIB]
        paths += [Path(here, name) for name in files if name.endswith(".py")]
    texts = []
    digest = hashlib.sha256()
    for relative in sorted(path.relative_to(folder).as_posix() for path in paths):
        try:
            data = (folder / relative).read_bytes()
            encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
            text = data.decode(encoding)
        except (OSError, SyntaxError, UnicodeError, LookupError):
            # Broken links, and files that test what Python says to a wrong coding cookie.
            continue
        # The length keeps two files apart that share a boundary.
        digest.update(os.fsencode(relative) + b"\0" + str(len(data)).encode() + b"\0" + data)
        texts.append(text)
    return texts, digest.hexdigest()


def _read_cache(path: Path, files: int) -> Encoded | None:
    """Return what is stored at `path`, or None if that is not a sound corpus of so many files."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            vocabulary = stored["vocabulary"].tobytes().decode("utf-8", "surrogatepass").split("\n")
            tokens, starts = stored["tokens"], stored["starts"]
        is_sound = (
            (tokens.dtype, tokens.ndim) == (np.int32, 1)
            and (starts.dtype, starts.shape) == (np.int64, (files + 1,))
            and (starts[0], starts[-1]) == (0, len(tokens))
            and np.all(np.diff(starts) >= 0)
            # bincount raises on negative ids, and ids beyond the vocabulary lengthen its result.
            and len(counts := np.bincount(tokens)) == len(set(vocabulary))
            and counts[-1] > 0
            and np.all(np.diff(counts) <= 0)
        )
        return Encoded(tokens, starts, tuple(vocabulary)) if is_sound else None
    except Exception:  # A damaged file may fail in any way at all; it is going to be replaced.
        return None


def _write_cache(path: Path, encoded: Encoded) -> None:
    """Store `encoded` at `path`; where that is impossible, the next load is merely slower."""
    text = "\n".join(encoded.vocabulary).encode("utf-8", "surrogatepass")
    with suppress(OSError), workshop(path.parent) as temporary:
        np.savez(
            temporary / path.name,
            tokens=encoded.tokens,
            starts=encoded.starts,
            vocabulary=np.frombuffer(text, np.uint8),
        )
        os.replace(temporary / path.name, path)
