"""The checkout that a result comes from, and files that are written whole.

Only the standard library is needed here: the benchmarks run on machines that have no Jupyter.
"""

import contextlib
import os
import stat
import subprocess
import tempfile
from pathlib import Path


def commit(folder: Path) -> str:
    """Return the short commit of the checkout, marked where files differ from it."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    return "unknown"


def write_atomically(path: Path, content: bytes, workshop: Path | None = None) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    The new file is made in `workshop`, by default beside the old one, and has the old one's
    permissions.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644
    handle, temporary = tempfile.mkstemp(dir=workshop or path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_if_changed(path: Path, content: bytes) -> None:
    """Write a file unless it holds this content, so that Sphinx sees only what did change."""
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)
