"""The block of a ConvNet with first and second derivatives, by what PyTorch offers.

Each takes x [N, C, H, W], weight and bias [C], what comes back for the output, v, and for the first
derivatives, a, p and q; and returns the output, the first derivatives, and the second ones of x,
weight and v.
"""

import torch

from kempe_nb.kernels.norm_relu_pool import composite


def by_autograd(block, x, weight, bias, v, a, p, q):
    """Differentiate a block twice by autograd."""
    x, weight, bias, v = (each.detach().requires_grad_() for each in (x, weight, bias, v))
    y = block(x, weight, bias)
    first = torch.autograd.grad(y, (x, weight, bias), v, create_graph=True)
    second = torch.autograd.grad(first, (x, weight, v), (a, p, q))
    return (y.detach(), *(each.detach() for each in first), *second)


def modules(*inputs):
    """Group norm, ReLU and average pooling, one after another."""
    return by_autograd(composite, *inputs)


def orders(x, weight, bias, v, a, p, q):
    """Return value and derivatives by `torch.func.vjp`, for the compiler to fuse."""

    def first(x, weight, v):
        y, pull = torch.func.vjp(lambda *inputs: composite(*inputs), x, weight, bias)
        return *pull(v), y

    (*slopes, y), pull = torch.func.vjp(first, x, weight, v)
    return (y, *slopes, *pull((a, p, q, torch.zeros_like(y))))
