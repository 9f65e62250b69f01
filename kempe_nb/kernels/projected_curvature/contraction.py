"""The contraction: projected curvature of a multilayer perceptron, without tangents of parameters.

The formulas stand in `kempe_nb.kernels.projected_curvature`.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from kempe_nb.kernels.projected_curvature.directions import csr_tensor
from kempe_nb.kernels.projected_curvature.matrix import Sums
from kempe_nb.kernels.softmax_hessian import probabilities_and_deviations

#: Bytes of the largest tangent of a part of the samples, by whether on a GPU.
TANGENT_BYTES = {False: 2**22, True: 2**28}


class Activation(NamedTuple):
    """An activation with its first two derivatives as functions of (input, output)."""

    value: Callable
    slope: Callable
    #: None where it is zero almost everywhere.
    bend: Callable | None = None


class Layer(NamedTuple):
    """A linear layer of a perceptron, and the activation behind it."""

    linear: nn.Linear
    activation: Activation


_IDENTITY = Activation(lambda a: a, lambda a, h: torch.ones_like(a))


def _activation(module: nn.Module) -> Activation | None:
    if type(module) is nn.ReLU:
        return Activation(F.relu, lambda a, h: (a > 0).to(a.dtype))
    if type(module) is nn.LeakyReLU:
        below = module.negative_slope
        return Activation(
            lambda a: F.leaky_relu(a, below),
            lambda a, h: torch.where(a > 0, torch.ones_like(a), below),
        )
    if type(module) is nn.Tanh:
        return Activation(torch.tanh, lambda a, h: 1 - h * h, lambda a, h: -2 * h * (1 - h * h))
    return None


def perceptron_layers(model: nn.Module) -> list[Layer] | str:
    """Return the layers of a multilayer perceptron, or in words why a module is none."""
    layers: list[Layer] = []
    for module in _flat(model):
        if _has_hooks(module):
            return f"the model has hooks or parametrisations on {name_of(module)}"
        if type(module) is nn.Flatten:
            if layers or (module.start_dim, module.end_dim) != (1, -1):
                return "the model flattens in another place than at its start"
        elif type(module) is nn.Identity or (type(module) is nn.Dropout and not module.training):
            continue
        elif type(module) is nn.Linear:
            layers.append(Layer(module, _IDENTITY))
        elif (activation := _activation(module)) is None:
            return f"the model has a {type(module).__name__}, and is no multilayer perceptron"
        elif not layers or layers[-1].activation is not _IDENTITY:
            return f"the model has a {type(module).__name__} that follows no linear layer"
        else:
            layers[-1] = Layer(layers[-1].linear, activation)
    if not layers:
        return "the model has no linear layer"
    if layers[-1].activation is not _IDENTITY:
        return "the model ends with an activation"
    own = [p for layer in layers for p in layer.linear.parameters()]
    if [id(p) for p in own] != [id(p) for p in model.parameters()]:
        return "the model shares parameters, or has others than those of its linear layers"
    return layers


def _flat(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules that a nested `nn.Sequential` applies, in order."""
    if type(module) is not nn.Sequential or _has_hooks(module):
        yield module
        return
    for child in module:
        yield from _flat(child)


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or hasattr(module, "parametrizations")
    )


class _Cut(NamedTuple):
    """A layer, and the share that all directions have in it.

    `forward` [out d, in] times h_{l-1} [in, n] is [out, d, n], and `backward` [in d, out] times
    delta_l [out, n] is [in, d, n]; CSR, or dense where the directions are.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    activation: Activation
    forward: torch.Tensor
    backward: torch.Tensor
    #: [out, d]
    of_bias: torch.Tensor | None


def contract(layers, inputs, labels, directions, temperature) -> Sums:
    """Sum over all samples, in parts whose largest tangent fits into a block."""
    cuts = _cuts(layers, directions)
    x, count = inputs.detach().flatten(1), directions.shape[1]
    sums = Sums(count, x)
    widest = max(
        max(cut.weight.shape) if index else len(cut.weight) for index, cut in enumerate(cuts)
    )
    room = TANGENT_BYTES[x.is_cuda] // (widest * count * x.element_size())
    for part, own in zip(*(each.split(max(room, 16)) for each in (x, labels)), strict=True):
        _add_part(cuts, part.T.contiguous(), own, temperature, len(x), sums)
    return sums


def _add_part(cuts, x, labels, temperature, samples, sums: Sums) -> None:
    """Add a part of the samples: activations are [width, n], tangents [width, d, n]."""
    below, inside, outputs = [], [], x
    for cut in cuts:
        below.append(outputs)
        inside.append(_affine(cut, outputs))
        outputs = cut.activation.value(inside[-1])
    slopes = [
        cut.activation.slope(a, h)
        for cut, a, h in zip(cuts, inside, [*below[1:], outputs], strict=True)
    ]
    residual = _residuals(outputs, labels, temperature) / (samples * temperature)
    errors, of_outputs = _backward(cuts, slopes, residual)
    above = torch.zeros_like(sums.remainder)
    tangent = None
    for index, cut in enumerate(cuts):
        width, size = len(cut.weight), x.shape[1]
        if index:
            turned = _product(cut.backward, errors[index]).view(tangent.shape)
            above += _contracted(turned, tangent)
            moved = (cut.weight @ tangent.flatten(1)).view(-1, size)
        else:
            moved = x.new_zeros(len(cut.forward), size)
        # Added in place, because a product with a sparse matrix is copied otherwise.
        moved = moved.addmm_(cut.forward, below[index]).view(width, -1, size)
        if cut.of_bias is not None:
            moved += cut.of_bias[:, :, None]
        if cut.activation.bend is not None:
            bend = cut.activation.bend(inside[index], below[index + 1]) * of_outputs[index]
            sums.remainder += _contracted(moved * bend[:, None], moved)
        if index < len(cuts) - 1:
            moved *= slopes[index][:, None]
        tangent = moved
    sums.remainder += above + above.T
    sums.loss += _mean_loss(outputs, labels, temperature, samples)
    sums.gradient += (residual[:, None] * tangent).sum((0, 2), dtype=torch.float64)
    p, away = probabilities_and_deviations(outputs[:, None], tangent, temperature, 0)
    root = (p / samples).sqrt() * away / temperature
    sums.gauss_newton += _contracted(root, root)


def _affine(cut: _Cut, h: torch.Tensor) -> torch.Tensor:
    if cut.bias is None:
        return cut.weight @ h
    return torch.addmm(cut.bias[:, None], cut.weight, h)


def _backward(cuts, slopes, residual) -> tuple[list, list]:
    """Return dL/da and dL/dh of every layer, [width, n] each."""
    errors, of_outputs = [residual], [residual]
    for cut, slope in zip(cuts[:0:-1], slopes[-2::-1], strict=True):
        of_outputs.insert(0, cut.weight.T @ errors[0])
        errors.insert(0, of_outputs[0] * slope)
    return errors, of_outputs


def _residuals(logits: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return p - y, [K, n]; at the label it is minus the sum of the others, which has digits."""
    p = torch.softmax((logits - logits.amax(0)) / temperature, 0).scatter(0, labels[None], 0.0)
    return p.scatter(0, labels[None], -p.sum(0, keepdim=True))


def _mean_loss(logits, labels, temperature, samples) -> float:
    """Return the share of these samples in the mean cross-entropy; logits are [K, n]."""
    return float(
        F.cross_entropy(logits.T.double() / temperature, labels, reduction="sum") / samples
    )


def _product(matrix: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return a product with a sparse or dense matrix."""
    return columns.new_zeros(len(matrix), columns.shape[1]).addmm_(matrix, columns)


def _contracted(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return the sum over widths and samples of left_a right_b, float64 [d, d]."""
    return torch.bmm(left, right.mT).sum(0).double()


def _cuts(layers: list[Layer], directions: torch.Tensor) -> list[_Cut]:
    """Cut the directions into their shares of the layers."""
    cuts, start = [], 0
    for linear, activation in layers:
        weight, bias = linear.weight.detach(), linear.bias
        shares = _share_of_weight(directions, start, weight.shape)
        start += weight.numel()
        of_bias = None
        if bias is not None:
            of_bias = directions.narrow_copy(0, start, len(bias)).to_dense()
            bias = bias.detach()
            start += len(bias)
        cuts.append(_Cut(weight, bias, activation, *shares, of_bias))
    return cuts


def _share_of_weight(directions, start: int, shape) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows of the directions that belong to a weight, twice; see `_Cut`."""
    (out, into), count = shape, directions.shape[1]
    own = directions.narrow_copy(0, start, out * into)
    if own.layout == torch.strided:
        own = own.view(out, into, count)
        forward = own.transpose(1, 2).reshape(out * count, into)
        return forward, own.permute(1, 2, 0).reshape(into * count, out)
    own = own.coalesce()
    (place, column), values = own.indices(), own.values()
    o, i = place // into, place % into
    return (
        csr_tensor(o * count + column, i, values, (out * count, into)),
        csr_tensor(i * count + column, o, values, (into * count, out)),
    )


def name_of(thing: object) -> str:
    """Return the name of a function, or of the class of anything else."""
    return getattr(thing, "__name__", type(thing).__name__)
