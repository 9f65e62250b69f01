"""Samples of a law by binary search in its cumulative table, in torch and in NumPy.

The table is float64: in float32 nine tenths of a million Zipf ranks would have no width at all.
"""

import numpy as np
import torch


def table(beta: float, vocabulary: int) -> np.ndarray:
    """Return the upper edges of all ranks but the last, float64 [vocabulary - 1]."""
    weights = np.arange(1, vocabulary + 1, dtype=np.float64) ** -beta
    edges = np.cumsum(weights)
    return edges[:-1] / edges[-1]


def torch_samples(edges: torch.Tensor, size: int) -> torch.Tensor:
    """Return ranks from 1 on, int64 [size]."""
    uniforms = torch.rand(size, dtype=torch.float64, device=edges.device)
    return torch.searchsorted(edges, uniforms, right=True).add_(1)


def numpy_samples(edges: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return ranks from 1 on, int64 [size]."""
    return np.searchsorted(edges, rng.random(size), side="right") + 1
