"""Compiled code for CPUs in Numba, under the names of the operations; imported only where it runs.

It knows nothing of autograd: the operations do. `compiled` is the decorator, and `inlined` for what
a loop calls. No fast mathematics: each operation rounds as IEEE 754 says, so results depend neither
on the processor nor on the number of threads.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numba
import torch

#: Parts of the work for each thread; more than one evens out what takes unequally long.
PARTS = 4


def compiled(function: Callable) -> Callable:
    """Compile a function when it is first called, without the interpreter's lock.

    What was compiled is kept for the next process in a folder of this version of all kernels. Numba
    would not see that a function which is called stands in another file that has changed.
    """
    return _compiled(function)


def inlined(function: Callable) -> Callable:
    """Compile a function as `compiled` does, and put its code into every function that calls it.

    A loop that calls is not made of vector instructions, and the compiler by itself leaves a long
    function where it is.
    """
    return _compiled(function, forceinline=True)


def _compiled(function: Callable, **options: bool) -> Callable:
    options |= {"nogil": True, "error_model": "numpy"}
    before = numba.config.CACHE_DIR
    try:
        numba.config.CACHE_DIR = before or str(_folder())
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        # Nothing can be kept here: the home is read-only, or there is none.
        return numba.njit(**options)(function)
    finally:
        numba.config.CACHE_DIR = before


def in_threads(work: Callable[[int, int], object], size: int, grain: int) -> None:
    """Call `work(start, stop)` for parts of 0 to `size`, on as many threads as PyTorch may use.

    `work` releases the lock, writes to places of its own, and no part is smaller than `grain` but
    the last. Where the parts begin must not matter to the result.
    """
    threads = min(torch.get_num_threads(), max(1, size // grain))
    if threads == 1:
        work(0, size)
        return
    parts = list(_parts(size, max(grain, -(-size // (threads * PARTS)))))
    # The caller's own thread works, too.
    waiting = [_pool(os.getpid()).submit(work, *part) for part in parts[threads:]]
    helpers = [_pool(os.getpid()).submit(work, *part) for part in parts[1:threads]]
    work(*parts[0])
    for each in [*helpers, *waiting]:
        each.result()


def _parts(size: int, step: int) -> Iterator[tuple[int, int]]:
    for start in range(0, size, step):
        yield start, min(start + step, size)


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Return the threads of a process; those of its parent do not survive a fork."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="kempe_nb")


@cache
def _folder() -> Path:
    """Return the folder of this version of the kernels in the user's cache."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = base if base.is_absolute() else Path.home() / ".cache"
    room = Path(__file__).parent
    # The definitions too: compiled code holds constants of theirs.
    sources = sorted([*room.glob("*.py"), *room.parent.glob("*.py")])
    content = b"\0".join(file.read_bytes() for file in sources)
    return base / "kempe_nb" / "numba" / hashlib.sha256(content).hexdigest()[:16]
