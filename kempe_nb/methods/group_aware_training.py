"""Train all layers of a network under a group-aware prior.

After the public code of Rudner, Zhang, Wilson and Kempe (arXiv 2403.09869). Each step draws a batch
of the data and a batch of context samples, the latter by `group_weights`, and descends on

    mean nll(batch; theta) + strength mean nll(context; theta + eps)
        + precision / 2 ||theta - centre||^2,

with eps = radius * grad / ||grad||, one norm over all parameters, the gradient that of the context
loss at theta, and eps a constant. That takes three forward passes: batch and context together at
theta, the context alone at theta for eps, and the context alone at theta + eps.

Batch normalisation: in the first pass the statistics of batch AND context normalise and are kept,
so the context's groups are in them. In the other two the statistics of the context normalise, as in
that code, and nothing is kept: no network that answers ever has the weights theta + eps.
"""

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase

from kempe_nb.checks import (
    check_dtype,
    check_finite,
    check_labels,
    checked_fraction,
    checked_integer,
    checked_not_negative,
    common_device,
)
from kempe_nb.methods.group_weights import group_weights


def train_group_aware(
    network: nn.Module,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    groups: torch.Tensor,
    *,
    strength: float,
    exponent: float,
    radius: float,
    precision: float,
    generator: torch.Generator,
    centre: list[torch.Tensor] | None = None,
    rate: float = 0.02,
    momentum: float = 0.9,
    steps: int = 300,
    batch: int = 128,
) -> nn.Module:
    """Return a trained copy of a network, in evaluation mode.

    Parameters
    ----------
    network : nn.Module
        inputs [B, ...] -> logits [B, C]; left as it is. Dropout would draw from the global state of
        PyTorch.
    inputs, labels, groups : [N, ...], int64 [N], int64 [N]
        Every group from 0 to the largest has a sample.
    strength, radius, precision : float
        From 0 on. With strength 0 no context is drawn, and the rest is ordinary training.
    exponent : float
        s of `group_weights`.
    generator : torch.Generator
        Of the batches.
    centre : list of tensor, optional
        Mean of the Gaussian factor, one tensor for each trainable parameter; by default the
        parameters as they come.
    rate, momentum, steps, batch
        Of the descent; batches are drawn with replacement, and the context has as many samples.

    Raises
    ------
    ValueError
        For what is not accepted, and for a loss or parameters that are not finite.
    """
    common_device(inputs=inputs, labels=labels, groups=groups)
    for name, value in {"strength": strength, "radius": radius, "precision": precision}.items():
        checked_not_negative(value, name)
    checked_not_negative(rate, "rate")
    checked_fraction(momentum, "momentum")
    checked_integer(steps, "steps", 1)
    checked_integer(batch, "batch", 1)
    if not len(inputs) == len(labels) == len(groups):
        raise ValueError(
            f"inputs, labels and groups have {len(inputs)}, {len(labels)} and {len(groups)} rows; "
            "accepted are as many of each"
        )
    check_finite(inputs, "inputs")
    check_dtype(labels, "labels", (torch.int64,))
    network = copy.deepcopy(network).train()
    weights = group_weights(groups, exponent, torch.float64)
    uniform = torch.full_like(weights, 1 / len(weights))
    parameters = [each for each in network.parameters() if each.requires_grad]
    centre = _checked_centre(parameters if centre is None else centre, parameters)
    optimiser = torch.optim.SGD(parameters, rate, momentum=momentum)

    def draw(law):
        return torch.multinomial(law, batch, replacement=True, generator=generator)

    for _ in range(steps):
        own = draw(uniform)
        context = draw(weights) if strength else own[:0]
        logits = network(inputs[torch.cat([own, context])])
        check_labels(labels, logits.shape[1])
        optimiser.zero_grad()
        loss = F.cross_entropy(logits[:batch], labels[own])
        if not torch.isfinite(loss):
            raise ValueError(f"rate is {rate}; the loss is {loss.item()}; accepted are smaller")
        loss.backward()
        if strength:
            with kept_statistics(network):
                here = F.cross_entropy(network(inputs[context]), labels[context])
                with moved(parameters, ascent(here, parameters, radius)):
                    there = F.cross_entropy(network(inputs[context]), labels[context])
                    (strength * there).backward()
        for parameter, mean in zip(parameters, centre, strict=True):
            pull = precision * (parameter.detach() - mean)
            parameter.grad = pull if parameter.grad is None else parameter.grad + pull
        optimiser.step()
    if not all(torch.isfinite(each).all() for each in parameters):
        raise ValueError(
            f"rate is {rate}, radius {radius}, strength {strength}: parameters are not finite; "
            "accepted are smaller ones"
        )
    return network.eval()


def _checked_centre(centre: list[torch.Tensor], parameters: list[torch.Tensor]) -> list:
    shapes = [tuple(each.shape) for each in parameters]
    if (found := [tuple(each.shape) for each in centre]) != shapes:
        raise ValueError(
            f"centre has shapes {found}; accepted are those of the trainable parameters, {shapes}"
        )
    for each in centre:
        check_finite(each, "centre")
    return [each.detach().clone() for each in centre]


def ascent(loss: torch.Tensor, parameters: list[torch.Tensor], radius: float) -> list[torch.Tensor]:
    """Return radius * grad / ||grad||, one norm over all parameters; zeros where grad is zero."""
    gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
    norm = torch.stack([each.square().sum() for each in gradients]).sum().sqrt()
    scale = torch.where(norm > 0, radius / norm, 0.0)
    return [scale * each for each in gradients]


@contextlib.contextmanager
def moved(parameters: list[torch.Tensor], shift: list[torch.Tensor]) -> Iterator[None]:
    """Move parameters by a shift, and put back the very same numbers afterwards."""
    before = [each.detach().clone() for each in parameters]
    with torch.no_grad():
        torch._foreach_add_(parameters, shift)
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(parameters, before)


@contextlib.contextmanager
def kept_statistics(network: nn.Module) -> Iterator[None]:
    """In training mode normalise by the batch, and leave running statistics alone."""
    normalised = [each for each in network.modules() if isinstance(each, _NormBase)]
    tracked = [each.track_running_stats for each in normalised]
    for each in normalised:
        each.track_running_stats = False
    try:
        yield
    finally:
        for each, was in zip(normalised, tracked, strict=True):
            each.track_running_stats = was
