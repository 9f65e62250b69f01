"""Independent computations of a page in processes of their own, where the machine has the cores.

A network of the `cpu` profile is too small for two threads, but two networks can train at once.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_processes(
    function: Callable[[Item], Result], items: Iterable[Item], *, jobs: int | None = None
) -> list[Result]:
    """Return `function` of every item, in order; as many at a time as there are cores.

    The processes are forks of this one: they see everything that it has defined, and what they
    change is theirs. So `function` must return what it finds, and draw random numbers from
    generators that it makes itself; then the results are those of a loop, to the last bit. It is a
    loop, in this process, where there is only one job, no fork, or a GPU in use, which does not
    survive one.

    Parameters
    ----------
    function : callable
        Defined at the top level of a module or a notebook; takes one item. Items and results are
        pickled.
    jobs : int, optional
        Processes at a time; by default the cores that this process may use.

    Raises
    ------
    ValueError
        For fewer than one job.
    """
    items = list(items)
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1):
        raise ValueError(f"jobs is {jobs!r}; accepted is a positive integer, or None")
    jobs = min(jobs or len(os.sched_getaffinity(0)) if _can_fork() else 1, len(items))
    if jobs <= 1:
        return [function(item) for item in items]
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork")) as pool:
        return list(pool.map(function, items))


def _can_fork() -> bool:
    """Return whether this process may have children that go on from where it is."""
    return (
        "fork" in multiprocessing.get_all_start_methods()
        and hasattr(os, "sched_getaffinity")
        and not multiprocessing.current_process().daemon
        and not torch.cuda.is_initialized()
    )
