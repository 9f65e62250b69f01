"""Where data sets are kept, and how a file gets there whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER_VARIABLE = "KEMPE_NB_DATA"


def cache_folder() -> Path:
    """Return the folder below which data sets are kept; it need not exist.

    Returns
    -------
    pathlib.Path
        The environment variable ``KEMPE_NB_DATA`` if set, else ``kempe_nb`` in the user's cache
        folder (``XDG_CACHE_HOME`` if that is an absolute path, else ``~/.cache``).
    """
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen).expanduser()
    # The XDG specification says that a relative path is to be ignored.
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "kempe_nb"


@contextmanager
def workshop(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder inside `folder`, so that os.replace from it to there is atomic."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as temporary:
        yield Path(temporary)
