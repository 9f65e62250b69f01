"""The checkout that a result comes from, and files that are written whole.

Only the standard library is needed here: the benchmarks run on machines that have no Jupyter.
"""

import contextlib
import functools
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path


def commit(folder: Path, *, without: tuple[str, ...] = ()) -> str:
    """Return the short commit of the checkout, marked "-dirty" where tracked files differ from it.

    Changes below the paths `without`, relative to the top of the checkout, are no difference. A
    project without a checkout of its own, as an archive that was unpacked inside another
    repository, is at commit "unknown".
    """
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        if _is_checkout_of_its_own(folder):
            name = _git(folder, "describe", "--always", "--exclude=*")
            rest = [f":(top,exclude){path}" for path in without]
            changed = _git(
                folder, "status", "--porcelain", "--untracked-files=no", "--", ":/", *rest
            )
            return f"{name}-dirty" if changed else name
    return "unknown"


def commit_id(folder: Path) -> str:
    """Return all digits of the commit, which are the same in every clone, or "unknown"."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        if _is_checkout_of_its_own(folder):
            return _git(folder, "rev-parse", "HEAD")
    return "unknown"


def without_git() -> dict[str, str]:
    """Return the environment without git's own variables.

    Git sets them for its hooks, and then a command in another folder would act on the repository
    whose hook it is.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}


def _is_checkout_of_its_own(folder: Path) -> bool:
    top = Path(_git(folder, "rev-parse", "--show-toplevel")).resolve()
    folder = folder.resolve()
    for parent in (folder, *folder.parents):
        if (parent / "_toc.yml").is_file():
            return parent == top
    return True


def _git(folder: Path, *words: str) -> str:
    found = subprocess.run(
        ["git", *words],
        cwd=folder,
        capture_output=True,
        env=without_git() | {"LC_ALL": "C"},
        encoding="utf-8",
    )
    if found.returncode and "dubious ownership" in found.stderr:
        _say_once(f"kempe_nb: the commit is unknown: {found.stderr.strip().splitlines()[0]}")
    found.check_returncode()
    return found.stdout.strip()


@functools.cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr)


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
