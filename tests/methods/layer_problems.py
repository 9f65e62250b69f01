"""Small problems for last layers, and their losses by autograd."""

import torch
from torch.nn import functional as F


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def weights(*shape, seed=0, dtype=torch.float64):
    drawn = torch.rand(shape, generator=generator(seed), dtype=torch.float64)
    # Some samples are left out.
    drawn = drawn * (drawn > 0.2)
    drawn[..., 0] += 0.1
    return (drawn / drawn.sum(-1, keepdim=True)).to(dtype)


def problem(samples=20, dimension=5, classes=3, seed=0, dtype=torch.float64):
    labels = torch.arange(samples) % classes
    features = normal(samples, dimension, seed=seed, dtype=dtype)
    features[:, 0] += labels
    return features, labels


def nll(x, labels, w):
    return F.cross_entropy(x @ w, labels, reduction="none")


def gradient_of(x, labels, context, w):
    w = w.detach().requires_grad_()
    return torch.autograd.grad(nll(x, labels, w) @ context, w)[0]
