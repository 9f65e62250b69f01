"""Seeded numbers, densities given by their terms, and means held to their standard errors."""

import torch

from kempe_nb.methods.chain_diagnostics import effective_sample_size

#: Means and variances are held to this many standard errors, at fixed seeds.
ERRORS = 5
DOUBLE = torch.float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normals(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(shape, generator=seeded(seed), dtype=dtype)


def standard(q):
    return q.square() / -2


def wave(q):
    """A density of [C, 2] whose curvature changes, in three terms."""
    x, y = q[:, 0], q[:, 1]
    return torch.stack([-x.square() / 2, -((y - x.sin()).square()), -y.cosh().log()], 1)


def within_errors(draws, expected):
    """Whether the mean of draws [C, D, ...] is within some of its own standard errors."""
    error = (draws.var((0, 1)) / effective_sample_size(draws)).sqrt()
    return ((draws.mean((0, 1)) - expected).abs() < ERRORS * error).all()
