"""Numbers that several lessons of a chapter need, kept in _build/cache by the code that makes them.

A lesson runs alone: with an empty cache it computes what it needs by itself. The entries are kept
by joblib.Memory. The key holds the function, its arguments, the sources of the package, the
versions of the libraries and what else decides about the last bits, and what is read back is
checked against a hash of it. So an entry that is torn, or is another's, is computed again and never
used.
"""

import contextlib
import functools
import hashlib
import inspect
import io
import logging
import os
import pickle
import platform
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import psutil
import torch
from joblib import Memory

from kempe_nb.notebook.machine import processor

#: The folder of the cache; empty for none. By default _build/cache of the checkout around the
#: current folder, and none without a checkout.
VARIABLE = "KEMPE_NB_CACHE"
LIBRARIES = ("joblib", "numpy", "scikit-learn", "scipy", "torch", "torchvision")
#: Rooms of the package that only show or publish numbers. What is not here counts.
SHOWING = ("notebook", "publish", "__main__.py")
#: What counts of them all the same.
COMPUTING = ("notebook/profile.py",)

#: When this process began, in the seconds that date files. A forked process keeps its parent's.
_BEGAN = psutil.Process().create_time()


def remembered(function: Callable) -> Callable:
    """Return a function that computes once for each list of arguments, and then reads the result.

    Parameters
    ----------
    function : callable
        At the top level of a module, whose file counts. Its arguments are tensors, numbers, words,
        and tuples of these, and equal ones have to give equal results. Its result is made of the
        same, and of lists and dicts.

    Raises
    ------
    TypeError
        For a function of a notebook or inside another one, whose code could not be told from
        another of its name; in a call, for an argument or a result of another kind.
    """
    module, name = (getattr(function, each, "?") for each in ("__module__", "__qualname__"))
    home = getattr(sys.modules.get(module), "__file__", None)
    if not name.isidentifier() or home is None:
        raise TypeError(
            f"function is {name} of {module}; accepted is a function at the top level of a module"
        )
    file = Path(home)

    @functools.wraps(function)
    def wrapper(*arguments, **named):
        _refuse_other_kinds(function, arguments, named)
        folder = cache_folder()
        if folder is None or not _is_code_as_loaded(file) or not _can_be_made(folder):
            return function(*arguments, **named)
        # joblib names `_packed` and its code; all that matters is in the key.
        packed = Memory(folder, verbose=0).cache(_packed, ignore=["compute"])
        source = hashlib.sha256(file.read_bytes()).hexdigest()
        told = [_named(arguments), sorted((n, _named(value)) for n, value in named.items())]
        key = repr((module, name, source, environment_hash(), told))
        compute = functools.partial(function, *arguments, **named)
        with _joblib_says_nothing():
            entry = packed(key, compute)
            if not _is_entry_of(key, entry):
                entry, _ = packed.call(key, compute)
        return torch.load(io.BytesIO(entry[1]), weights_only=True)

    return wrapper


@contextlib.contextmanager
def _joblib_says_nothing() -> Iterator[None]:
    """Keep to itself that joblib cannot read an entry, which it then computes again."""
    logger = logging.getLogger("joblib")
    level = logger.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"joblib\b")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def cache_folder() -> Path | None:
    """Return the folder of the cache, or None where there is none."""
    chosen = os.environ.get(VARIABLE)
    if chosen is not None:
        return Path(chosen) if chosen else None
    for parent in (Path.cwd(), *Path.cwd().parents):
        if (parent / "_toc.yml").is_file() and (parent / "book").is_dir():
            return parent / "_build" / "cache"
    return None


def environment_hash() -> str:
    """Return the hash of all that a result depends on besides the function and its arguments."""
    package = _package()
    sources = [
        (path.relative_to(package).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest())
        for path in _counting_files()
    ]
    found = {
        "sources": sources,
        "versions": [(library, _version(library)) for library in LIBRARIES],
        "python": platform.python_version(),
        "processor": processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "threads": torch.get_num_threads(),
        "dtype": str(torch.get_default_dtype()),
        "implementation": os.environ.get("KEMPE_NB_IMPL", ""),
    }
    return hashlib.sha256(repr(found).encode()).hexdigest()


def _package() -> Path:
    return Path(__file__).parent.parent


def _counting_files() -> list[Path]:
    """Return the files of the package that compute, or that may."""
    package = _package()
    files = [
        path for path in package.rglob("*.py") if path.relative_to(package).parts[0] not in SHOWING
    ]
    files += [package / name for name in COMPUTING]
    # Editors keep locks and backups of open files under hidden names.
    return sorted(path for path in files if not path.name.startswith("."))


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"


def _is_code_as_loaded(file: Path) -> bool:
    """Tell whether no file has changed since this process began, and may have been loaded before.

    In a live notebook the code in memory stays what it was, and its numbers would be kept under the
    hash of the new files.
    """
    found = [path.stat() for path in (file, *_counting_files())]
    return all(max(stat.st_mtime, stat.st_ctime) < _BEGAN for stat in found)


def _can_be_made(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _packed(key: str, compute: Callable) -> tuple[str, bytes]:
    """Return a result as bytes, and the hash by which they are known again."""
    file = io.BytesIO()
    torch.save(compute(), file)
    content = file.getvalue()
    try:
        # Before it is kept: what cannot be read back would be computed every time.
        torch.load(io.BytesIO(content), weights_only=True)
    except pickle.UnpicklingError as error:
        raise TypeError(
            "the result is no plain one; accepted are tensors, numbers, words, and lists, tuples "
            f"and dicts of these ({str(error).strip().splitlines()[0]})"
        ) from None
    return _digest(key, content), content


def _is_entry_of(key: str, entry: object) -> bool:
    """Tell whether what was read is whole and belongs to the key; anything may stand in a file."""
    return (
        isinstance(entry, tuple)
        and len(entry) == 2
        and isinstance(entry[1], bytes)
        and entry[0] == _digest(key, entry[1])
    )


def _digest(key: str, content: bytes) -> str:
    return hashlib.sha256(key.encode() + content).hexdigest()


def _refuse_other_kinds(function: Callable, arguments: tuple, named: dict) -> None:
    signature = inspect.signature(function)
    given = signature.bind(*arguments, **named).arguments
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            given |= given.pop(name, {})
    for name, value in given.items():
        if not _is_plain(value):
            raise TypeError(
                f"{function.__name__}: {name} is {value!r}, a {type(value).__name__}; accepted are "
                "tensors, numbers, words and tuples of these, which name an entry of the cache"
            )


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return isinstance(value, torch.Tensor | str | bool | int | float | None)


def _named(value: object) -> object:
    """Return what names a value in the key: itself, or the hash of a tensor."""
    if isinstance(value, tuple):
        return tuple(map(_named, value))
    if not isinstance(value, torch.Tensor):
        return value
    plain = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
    content = plain.flatten().view(torch.uint8).numpy().tobytes()
    digest = hashlib.sha256(content).hexdigest()
    return ("tensor", str(value.dtype), tuple(value.shape), str(value.device), digest)
