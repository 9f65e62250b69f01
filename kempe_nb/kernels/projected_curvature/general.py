"""The definition: projected curvature of any module, forward over reverse along each direction."""

from functools import partial

import torch

from kempe_nb.kernels.projected_curvature.matrix import Sums
from kempe_nb.kernels.softmax_hessian import probabilities_and_deviations

#: Bytes of a group of products H P, and the samples that are taken at a time.
PRODUCT_BYTES, SAMPLES = {False: 2**26, True: 2**30}, 1024


def differentiate(model, loss, inputs, labels, directions, temperature, apart) -> Sums:
    """Sum over all samples in parts, forward over reverse along a group of directions at a time."""
    values = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())
    directions = directions.to_dense()
    sums = Sums(directions.shape[1], directions)
    group = max(PRODUCT_BYTES[directions.is_cuda] // directions[:, 0].nbytes, 1)

    def share_of_loss(parameters, x, y):
        z = torch.func.functional_call(model, parameters | buffers, (x,))
        return loss(z / temperature, y) * (len(x) / len(inputs)), z

    for x, y in zip(inputs.split(SAMPLES), labels.split(SAMPLES), strict=True):
        found = [
            _along(partial(share_of_loss, x=x, y=y), values, own)
            for own in directions.split(group, 1)
        ]
        products, slopes, moved, (share, *_), (z, *_) = zip(*found, strict=True)
        sums.remainder += (directions.T @ torch.cat(products).T).double()
        sums.gradient += torch.cat(slopes).double()
        sums.loss += float(share)
        if apart:
            p, away = probabilities_and_deviations(z, torch.cat(moved), temperature)
            root = ((p / len(inputs)).sqrt() * away / temperature).flatten(1)
            sums.gauss_newton += (root @ root.T).double()
    sums.remainder -= sums.gauss_newton
    return sums


def _along(loss, values: dict, directions: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return (H P)^T, P^T grad L, the outputs' change along each direction, the loss, the outputs.

    The gradient first, and then its derivative: in the other order PyTorch 2.13 returns a wrong
    product for a network with layer normalisation, and says nothing.
    """

    def gradient_loss_outputs(parameters):
        gradient, (value, z) = torch.func.grad_and_value(loss, has_aux=True)(parameters)
        return torch.cat([each.flatten() for each in gradient.values()]), value, z

    def product(tangent):
        found, changes = torch.func.jvp(gradient_loss_outputs, (values,), (tangent,))
        return *changes, *found[1:]

    shares = directions.split([value.numel() for value in values.values()])
    tangents = {
        name: share.T.reshape(-1, *value.shape)
        for (name, value), share in zip(values.items(), shares, strict=True)
    }
    return torch.func.vmap(product, out_dims=(0, 0, 0, None, None))(tangents)
