"""Networks that are homogeneous in their parameters, and the test of whether a network is.

A network f is k-homogeneous where f(alpha theta, x) = alpha^k f(theta, x) for every alpha > 0. With
piecewise linear activations, without biases and normalisation, k is the number of weight layers.
The networks are those of the code of Vysogorets, Dawid and Kempe (arXiv 2402.03579), with weights
drawn as there, normal after He et al. (arXiv 1502.01852).
"""

import copy
import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from kempe_nb.checks import checked_positive
from kempe_nb.networks.perceptron import perceptron

#: Layers with weights, which count for the degree; without a bias.
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
#: Layers without weights that are homogeneous of degree one in what they are given.
PASSIVE = (
    *(nn.Flatten, nn.Unflatten, nn.Identity, nn.ReLU, nn.LeakyReLU),
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool2d),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveMaxPool2d),
)


def homogeneous_perceptron(
    widths: Sequence[int],
    *,
    activation: type[nn.Module] = nn.ReLU,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Return a multilayer perceptron without biases.

    Parameters
    ----------
    widths : sequence of int
        Pixels, the widths of hidden layers, classes. Of the paper: [784, 300, 100, 10], which is
        LeNet-300-100, and [2, 32, 32, 3].
    activation : type
        Of the layers but the last; with tanh the network is not homogeneous.
    generator : torch.Generator, optional
        Of the weights.
    """
    model = perceptron(widths, activation=activation, bias=False)
    return draw_weights(model, generator=generator)


def draw_weights(model: nn.Module, *, generator: torch.Generator | None = None) -> nn.Module:
    """Draw every weight anew from N(0, 2 / inputs of a unit); return the model."""
    with torch.no_grad():
        for weight in model.parameters():
            inputs = math.prod(weight.shape[1:])
            weight.normal_(0, math.sqrt(2 / inputs), generator=generator)
    return model


def degree(model: nn.Module) -> int:
    """Return k of a homogeneous network, the number of its layers with weights.

    Raises
    ------
    ValueError
        For the first module that makes the network inhomogeneous, by its name: a bias, an
        activation that is not piecewise linear, normalisation; or that this function cannot judge,
        as a module of one's own.
    """
    weighted = 0
    for name, module in _leaves("", model):
        kind = type(module).__name__
        if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.LayerNorm | nn.GroupNorm):
            mode = " in training mode" if module.training and "Batch" in kind else ""
            reason = "divides by the size of what it is given"
            if "Batch" in kind and not module.training:
                reason = "shifts by a running mean"
            raise _refusal(name, f"{kind}{mode}", reason)
        if isinstance(module, WEIGHTED):
            if module.bias is not None:
                raise _refusal(name, kind, "has a bias, which grows as another power of the scale")
            weighted += 1
        elif not isinstance(module, PASSIVE):
            reason = "is not known to be homogeneous"
            if isinstance(module, nn.Tanh | nn.Sigmoid | nn.GELU | nn.SiLU | nn.Softplus):
                reason = "is not piecewise linear"
            raise _refusal(name, kind, reason)
    if not weighted:
        raise ValueError("model has no layer with weights")
    return weighted


def at_scale(model: nn.Module, scale: float) -> nn.Module:
    """Return a copy of a homogeneous network with all parameters times `scale`.

    Raises
    ------
    ValueError
        For a scale that is not a positive finite number, or a network that `degree` refuses.
    """
    scale = checked_positive(scale, "scale")
    degree(model)
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in scaled.parameters():
            parameter *= scale
    return scaled


def _leaves(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that a nested `nn.Sequential` applies, with their names."""
    if type(module) is not nn.Sequential:
        yield name, module
        return
    for key, child in module.named_children():
        yield from _leaves(f"{name}.{key}".lstrip("."), child)


def _refusal(name: str, kind: str, reason: str) -> ValueError:
    return ValueError(
        f"model is not homogeneous: {kind} {name!r} {reason}; accepted are nn.Sequential of linear "
        "layers and convolutions without bias, piecewise linear activations and pooling"
    )
