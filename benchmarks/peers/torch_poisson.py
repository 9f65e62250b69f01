"""The chain of resampling as a loop of `torch.poisson` over all atoms, plain and compiled."""

import functools
from collections.abc import Callable

import torch

from benchmarks.registry import Sizes

#: The counts of as many seeds as fit into this many bytes are drawn at once. On a CPU more are
#: slower: larger temporaries come as fresh pages from the system every time.
LARGEST_TENSOR = {"cpu": 2**23, "cuda": 2**34}

Stats = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def chain(
    law: torch.Tensor, sample_size: int, generations: int, seeds: int, step: Callable | None = None
) -> Stats:
    """Return lost mass, survivors and tokens, each [seeds, generations].

    Parameters
    ----------
    law : float64 [N]
    step : callable, optional
        What makes a generation from the one before; by default `next_generation` as it stands.
    """
    step = step or next_generation
    group = max(1, LARGEST_TENSOR[law.device.type] // (8 * len(law)))
    parts = []
    for start in range(0, seeds, group):
        counts = (law * sample_size).expand(min(group, seeds - start), -1).contiguous()
        found = []
        for _ in range(generations):
            counts, *stats = step(counts, law)
            found.append(stats)
        parts.append([torch.stack(each, dim=1) for each in zip(*found, strict=True)])
    lost, survivors, tokens = (torch.cat(each) for each in zip(*parts, strict=True))
    return lost, survivors, tokens


def next_generation(counts: torch.Tensor, law: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the next counts [S, N] and their lost mass, survivors and tokens, each [S]."""
    counts = torch.poisson(counts)
    dead = counts == 0
    lost = torch.where(dead, law, 0.0).sum(-1)
    return counts, lost, (~dead).sum(-1), counts.sum(-1).to(torch.int64)


def compiled_generation() -> Callable:
    """Return `next_generation` compiled; it is compiled anew, for torch keeps eight shapes only."""
    torch.compiler.reset()
    return torch.compile(next_generation, fullgraph=True, dynamic=False)


def compile_obstacle(sizes: Sizes, device: str) -> str:
    """Say why `torch.compile` cannot run here, such as for want of a C++ compiler, or nothing."""
    return _compile_fault(device)


@functools.cache
def _compile_fault(device: str) -> str:
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2, device=device))
    except Exception as error:
        # Whatever the compiler raises, it is the reason that the table gives.
        return f"torch.compile: {str(error).strip().splitlines()[0]}"
    return ""
