"""Numbers that several lessons of a chapter need, kept in _build/cache by the code that makes them.

A lesson runs alone: with an empty cache it computes what it needs by itself. The entries are kept
by joblib.Memory. The key holds the function, its arguments, the sources of the package modules that
compute, the versions of the libraries and the processor, and what is read back is checked against a
hash of it. So an entry that is torn, or is another's, is computed again and never used.
"""

import functools
import hashlib
import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sklearn
import torch
from joblib import Memory

from kempe_nb.notebook.machine import processor

#: The folder of the cache; empty for none. By default _build/cache of the checkout around the
#: current folder, and none without a checkout.
VARIABLE = "KEMPE_NB_CACHE"


def remembered(function: Callable) -> Callable:
    """Return a function that computes once for each list of arguments, and then reads the result.

    Parameters
    ----------
    function : callable
        At the top level of a module of the package. Its arguments are tensors, numbers, words, and
        tuples of these, and equal ones have to give equal results. Its result is made of the same
        and of lists and dicts; anything else could not be read back safely.

    Raises
    ------
    TypeError
        For an argument of another kind.
    """

    @functools.wraps(function)
    def wrapper(*arguments, **named):
        folder = cache_folder()
        if folder is None:
            return function(*arguments, **named)
        told = {n: _key_of(v, function) for n, v in [*enumerate(arguments), *named.items()]}
        # In a function of its own that joblib can name: the key is the code, not this wrapper.
        memory = Memory(folder, verbose=0)
        packed = memory.cache(_packed, ignore=["compute"])
        name = f"{function.__module__}.{function.__qualname__}"
        key = repr((name, environment_hash(), sorted(told.items(), key=repr)))
        compute = functools.partial(function, *arguments, **named)
        with warnings.catch_warnings():
            # joblib warns of an entry that it cannot read, and computes it again.
            warnings.simplefilter("ignore")
            digest, content = packed(key, compute)
            if digest != _digest(key, content):
                (digest, content), _ = packed.call(key, compute)
        return torch.load(io.BytesIO(content), weights_only=True)

    return wrapper


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
    package = Path(__file__).parent.parent
    files = [package / "notebook" / "profile.py"]
    for folder in ("kernels", "methods", "notebook/data"):
        files += (package / folder).rglob("*.py")
    sources = b"".join(path.read_bytes() for path in sorted(files))
    named = (torch.__version__, np.__version__, sklearn.__version__, processor())
    return hashlib.sha256(sources + repr(named).encode()).hexdigest()


def _packed(key: str, compute: Callable) -> tuple[str, bytes]:
    """Return a result as bytes, and the hash by which they are known again."""
    file = io.BytesIO()
    torch.save(compute(), file)
    return _digest(key, file.getvalue()), file.getvalue()


def _digest(key: str, content: bytes) -> str:
    return hashlib.sha256(key.encode() + content).hexdigest()


def _key_of(value: object, function: Callable) -> object:
    """Return what an argument contributes to the key: itself, or the hash of a tensor."""
    if isinstance(value, tuple):
        return tuple(_key_of(each, function) for each in value)
    if isinstance(value, torch.Tensor):
        content = value.detach().cpu().contiguous().numpy().tobytes()
        digest = hashlib.sha256(content).hexdigest()
        return ("tensor", str(value.dtype), tuple(value.shape), str(value.device), digest)
    if isinstance(value, str | bool | int | float | None):
        return value
    raise TypeError(
        f"{function.__name__} is given a {type(value).__name__}; accepted are tensors, numbers, "
        "words and tuples of these, which name an entry of the cache"
    )
