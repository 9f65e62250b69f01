"""Projected Hessians by what PyTorch, curvlinops and PyHessian offer.

Each takes a model, batches of (inputs, labels) and directions P [D, d], and returns P^T H P of the
mean cross-entropy, [d, d]. All of them form products H P, [D, d] or one column of it at a time.
"""

import contextlib
import io
import warnings

import torch
from torch import nn
from torch.nn import functional as F


def double_backward(model, batches, directions):
    """Differentiate the slope along each direction, one after another."""
    parameters = list(model.parameters())
    samples = sum(len(y) for _, y in batches)
    found = 0.0
    for x, y in batches:
        loss = F.cross_entropy(model(x), y, reduction="sum") / samples
        gradient = torch.autograd.grad(loss, parameters, create_graph=True)
        flat = torch.cat([g.flatten() for g in gradient])
        columns = [
            torch.cat(
                [
                    each.flatten()
                    for each in torch.autograd.grad(flat @ direction, parameters, retain_graph=True)
                ]
            )
            for direction in directions.T
        ]
        found = found + directions.T @ torch.stack(columns, 1)
    return found


def vmap_jvp_grad(model, batches, directions):
    """Differentiate the gradient along all directions at once, forwards."""
    values = {name: p.detach() for name, p in model.named_parameters()}
    samples = sum(len(y) for _, y in batches)
    sizes = [value.numel() for value in values.values()]
    tangents = {
        name: share.T.reshape(-1, *value.shape)
        for (name, value), share in zip(values.items(), directions.split(sizes), strict=True)
    }
    found = 0.0
    for x, y in batches:

        def loss(parameters, x=x, y=y):
            z = torch.func.functional_call(model, parameters, (x,))
            return F.cross_entropy(z, y, reduction="sum") / samples

        def product(tangent, loss=loss):
            return torch.func.jvp(torch.func.grad(loss), (values,), (tangent,))[1]

        columns = torch.func.vmap(product)(tangents)
        found = found + directions.T @ torch.cat([c.flatten(1) for c in columns.values()], 1).T
    return found


def curvlinops(model, batches, directions):
    """Multiply by the Hessian as curvlinops' linear operator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from curvlinops import HessianLinearOperator

        parameters = list(model.parameters())
        operator = HessianLinearOperator(
            model, nn.CrossEntropyLoss(), parameters, batches, check_deterministic=False
        )
        return directions.T @ (operator @ directions)


def pyhessian(model, batches, directions):
    """Multiply by PyHessian's products, one direction after another."""
    from pyhessian import hessian

    shapes = [p.shape for p in model.parameters()]
    columns = []
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = hessian(model, nn.CrossEntropyLoss(), dataloader=batches, cuda=directions.is_cuda)
        for direction in directions.T:
            parts = direction.split([shape.numel() for shape in shapes])
            tangent = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
            _, product = own.dataloader_hv_product(tangent)
            columns.append(torch.cat([each.flatten() for each in product]))
    return directions.T @ torch.stack(columns, 1)
