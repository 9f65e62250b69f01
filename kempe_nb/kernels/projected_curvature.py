"""The Hessian of a loss in a plane of d directions, and its Gauss-Newton part, without D x d.

For a network z = f(theta, x) in R^K with D parameters, a loss that is the mean of l(z_i / T, y_i),
and directions P in R^{D x d}, the projected Hessian and its two parts are

    P^T H P = G + R,    G = P^T (1/N) sum_i J_i^T S_i J_i P,    R = the rest,

with J_i = dz_i/dtheta and S_i the second derivative of l with respect to the logits
(`softmax_hessian`). R weighs the second derivatives of the logits with the residuals (p - y) / T.

The general path, for every module, differentiates forward over reverse along each direction. What
it forms is the product H P, in groups of directions, and most of that is then thrown away: d^2
numbers are wanted, and D d are made.

The contraction, for multilayer perceptrons. With h_l the activations, a_l = W_l h_{l-1} + b_l, the
derivative of the loss delta_l = dL/da_l, and V_l the share of a direction in W_l:

    forward, for every direction b:  a'_l = V_l h_{l-1} + c_l + W_l h'_{l-1},   h'_l = s'(a_l) a'_l;
    Gauss-Newton:                    G_ab = (1/N) sum_i z'_a . S_i z'_b;
    for every layer but the first:   Q_ab = sum_l <V_{a,l}^T delta_l, h'_{b,l-1}>,
    and                              R = Q + Q^T + sum_l <(dL/dh_l) s''(a_l) a'_{a,l}, a'_{b,l}>.

Q_ab holds the pairs in which the layer of a stands above the layer of b; the other half is its
transpose. So no tangent is ever sent backwards, and where activations are piecewise linear the last
sum is zero. Nothing of size D is made beyond the directions themselves.

With sparse directions V_l h_{l-1} and V_l^T delta_l cost two operations a nonzero and sample. For
784-300-100-10 and d = 50 that leaves some 6 MFLOP a sample. The general path takes about 65: 4 d
for each weight of the first layer, 12 d for every other.

Accuracy. The contraction computes G and R apart and adds them: neither loses its digits to the
other. In the general path R is the difference H - G. Sums over samples are taken in float64.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from kempe_nb import dispatch
from kempe_nb.checks import checked_integer, checked_positive, common_device
from kempe_nb.kernels.softmax_hessian import probabilities_and_deviations

#: Bytes of the largest tangent of a part of the samples in the contraction, by whether on a GPU.
TANGENT_BYTES = {False: 2**22, True: 2**28}
#: Bytes of a group of products H P in the general path, and the samples that it takes at a time.
PRODUCT_BYTES, SAMPLES = {False: 2**26, True: 2**30}, 1024
#: The implementations, as `impl` names them; the first one takes every module.
IMPLEMENTATIONS = ("definition", "contraction")


@dataclass(frozen=True)
class SymmetricMatrix:
    """A real symmetric matrix and what it says about curvature.

    Attributes
    ----------
    matrix : float64 [d, d]
    """

    matrix: torch.Tensor

    @property
    def trace(self) -> float:
        """The sum of all eigenvalues."""
        return float(self.matrix.trace())

    @property
    def frobenius_norm(self) -> float:
        """The root of the sum of all squared eigenvalues."""
        # In units of the largest entry, whose square may be too small or too large for a float.
        unit = self.matrix.abs().max()
        return float(unit * torch.linalg.matrix_norm(self.matrix / unit)) if unit else 0.0

    @property
    def eigenvalues(self) -> torch.Tensor:
        """All eigenvalues, ascending, float64 [d]."""
        return torch.linalg.eigvalsh(self.matrix)

    @property
    def spectral_norm(self) -> float:
        """The largest absolute eigenvalue."""
        return float(self.eigenvalues.abs().max())

    @property
    def positive_curvature(self) -> float:
        """Trace over Frobenius norm, from -sqrt(d) to sqrt(d); zero for the zero matrix.

        For the projection of a matrix without a trace it is zero up to `noise_floor(d)`.
        """
        norm = self.frobenius_norm
        return self.trace / norm if norm else 0.0

    @property
    def fraction_positive(self) -> float:
        """The share of eigenvalues above zero, by more than rounding: d eps of the largest.

        For the projection of a matrix without a trace it is a half up to
        `noise_floor_of_fraction(d)`; for the zero matrix it is zero.
        """
        values = self.eigenvalues
        tolerance = len(values) * torch.finfo(values.dtype).eps * float(values.abs().max())
        return float((values > tolerance).double().mean())


@dataclass(frozen=True)
class ProjectedCurvature:
    """Loss, slope and curvature of a loss along d directions; see the module.

    Attributes
    ----------
    loss : float
        The mean loss over the samples.
    gradient : float64 [d]
        P^T grad L.
    gauss_newton, remainder : SymmetricMatrix or None
        G and R; None where they were not asked for.
    hessian : SymmetricMatrix
        P^T H P.
    """

    loss: float
    gradient: torch.Tensor
    gauss_newton: SymmetricMatrix | None
    remainder: SymmetricMatrix | None
    hessian: SymmetricMatrix


def projected_curvature(
    model: nn.Module,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    data: tuple[torch.Tensor, torch.Tensor],
    directions: torch.Tensor,
    *,
    temperature: float = 1.0,
    gauss_newton: bool = True,
    impl: str | None = None,
) -> ProjectedCurvature:
    """Return the Hessian of a mean loss in the plane of some directions, and its two parts.

    Parameters
    ----------
    model : nn.Module
        Inputs [N, ...] to outputs [N, K]. It is used in the modes that it is in; its parameters and
        buffers stay as they are.
    loss : callable
        `F.cross_entropy` or `nn.CrossEntropyLoss()`. With `gauss_newton=False` any mean over
        samples of losses of (outputs / temperature, labels) that PyTorch can differentiate forward
        over reverse; written in elementary operations they can.
    data : (inputs, labels)
        Inputs [N, ...] with the dtype of the parameters, and labels, int64 [N] for the
        cross-entropy, all on the device of the parameters.
    directions : [D, d], dense, or sparse of any layout
        Columns in the order of `model.parameters()`, each flattened; d from 1 to D.
    temperature : float
        T, positive.
    gauss_newton : bool
        Whether G and R are wanted apart.
    impl : {"definition", "contraction"}, optional
        The general path for any module, or the contraction for multilayer perceptrons under the
        cross-entropy: `nn.Sequential` of `Flatten`, `Linear`, and `ReLU`, `LeakyReLU`, `Tanh` or
        `Identity`. By default the contraction where it can run; `which` tells.

    Raises
    ------
    TypeError
        For inputs, labels or directions of the wrong dtype.
    ValueError
        For a loss that is not the cross-entropy with its Gauss-Newton part; shapes that do not fit;
        no samples or directions, or more directions than parameters; labels out of range;
        parameters, data and directions on different devices; NaN or infinity among the parameters;
        batch normalisation in training mode, whose loss is no mean over samples.
    ImplementationUnavailable
        For the contraction of a model that is no multilayer perceptron.
    """
    parameters = list(model.parameters())
    inputs, labels = data
    if isinstance(directions, torch.Tensor) and directions.layout != torch.strided:
        directions = directions.to_sparse_coo().coalesce()
    _check_devices(parameters, inputs, labels, directions)
    _check_numbers(parameters, inputs, directions)
    _check_modules(model)
    is_entropy = is_cross_entropy(loss)
    if gauss_newton and not is_entropy:
        raise ValueError(
            f"loss is {_name(loss)}; accepted for the Gauss-Newton part are F.cross_entropy and "
            "nn.CrossEntropyLoss() as it is by default; for another pass "
            "gauss_newton=False"
        )
    temperature = checked_positive(temperature, "temperature")
    layers = perceptron_layers(model)
    obstacle = layers if isinstance(layers, str) else None
    if not is_entropy:
        obstacle = f"the loss is {_name(loss)}, not the cross-entropy"
    choice = _choose(impl, obstacle)
    _check_outputs(model, inputs, labels, is_entropy)
    if choice.implementation == "contraction":
        sums = _contraction(layers, inputs, labels, directions.detach(), temperature)
    else:
        sums = _general(model, loss, inputs, labels, directions.detach(), temperature, gauss_newton)
    return sums.result(gauss_newton)


def sparse_directions(
    parameters: int,
    directions: int,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Return random directions [D, d] with few entries, a sparse tensor; columns have length 1.

    Each coordinate is nonzero with probability 1 / sqrt(D), and then of either sign alike: the
    hyperplanes of the code of Vysogorets, Dawid and Kempe (2024). A column that would be empty gets
    one entry. Drawn on the CPU, so that a seed gives the same directions everywhere.

    Parameters
    ----------
    parameters, directions : int
        D, and d from 1 to D.

    Raises
    ------
    ValueError
        For sizes out of range.
    """
    size = checked_integer(parameters, "parameters", 1, 2**63 - 1)
    count = checked_integer(directions, "directions", 1, size)
    rows, signs = [], []
    for _ in range(count):
        own = torch.nonzero(torch.rand(size, generator=generator) < size**-0.5).squeeze(1)
        if not len(own):
            own = torch.randint(size, (1,), generator=generator)
        coin = torch.randint(2, (len(own),), generator=generator)
        rows.append(own)
        signs.append((2 * coin - 1).to(dtype) / len(own) ** 0.5)
    lengths = torch.tensor([len(own) for own in rows])
    columns = torch.repeat_interleave(torch.arange(count), lengths)
    indices = torch.stack([torch.cat(rows), columns])
    return _coo(indices, torch.cat(signs), (size, count)).coalesce().to(device)


def noise_floor(directions: int) -> float:
    """Return the deviation of Tr / Frobenius norm of a projection whose matrix has no trace.

    Derived for random directions and a matrix of high rank: sqrt(2 / (d + 1)).
    """
    return math.sqrt(2 / (checked_integer(directions, "directions", 1, 2**63 - 1) + 1))


@cache
def noise_floor_of_fraction(directions: int) -> float:
    """Return the deviation of the fraction of positive eigenvalues of such a projection.

    The projection of a matrix of high rank without a trace is like a symmetric Gaussian matrix.
    Its number of positive eigenvalues varies little, since eigenvalues repel each other. There is
    no elementary formula: this is the root mean square deviation from a half over 4,000 such
    matrices, which are the same in every call. For d = 1 it is 1/2.
    """
    size = checked_integer(directions, "directions", 1, 10_000)
    generator = torch.Generator().manual_seed(0)
    deviations = []
    for part in torch.arange(4000).split(max(2**22 // size**2, 1)):
        square = torch.randn(len(part), size, size, generator=generator, dtype=torch.float64)
        positive = torch.linalg.eigvalsh(square + square.mT) > 0
        deviations.append(positive.double().mean(1) - 0.5)
    return float(torch.cat(deviations).square().mean().sqrt())


def full_space_ratio(ratio: float, directions: int) -> float:
    """Return Tr / Frobenius norm of a matrix from that of its projection on d random directions.

    The projection shrinks it: from rho to rho sqrt(d) / sqrt(d + 1 + rho^2) in ratio of
    expectations, for a matrix of high rank. This is the inverse; infinite from sqrt(d) on.
    """
    count = checked_integer(directions, "directions", 1, 2**63 - 1)
    left = count - ratio**2
    return ratio * math.sqrt((count + 1) / left) if left > 0 else math.copysign(math.inf, ratio)


def is_cross_entropy(loss: object) -> bool:
    """Return whether a loss is the plain mean cross-entropy."""
    if loss is F.cross_entropy:
        return True
    return (
        type(loss) is nn.CrossEntropyLoss
        and loss.reduction == "mean"
        and loss.weight is None
        and loss.label_smoothing == 0
        # The default of PyTorch, which is no class.
        and loss.ignore_index == -100
    )


# The contraction


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
            return f"the model has hooks or parametrisations on {_name(module)}"
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


class _Sums:
    """What is summed over the samples, in float64."""

    def __init__(self, count: int, like: torch.Tensor):
        self.loss = 0.0
        self.gradient = like.new_zeros(count, dtype=torch.float64)
        self.gauss_newton = like.new_zeros(count, count, dtype=torch.float64)
        self.remainder = torch.zeros_like(self.gauss_newton)

    def result(self, apart: bool) -> ProjectedCurvature:
        """Return the sums as matrices; G and R only if they are wanted apart."""
        g, r, h = (
            SymmetricMatrix((each + each.T) / 2)
            for each in (self.gauss_newton, self.remainder, self.gauss_newton + self.remainder)
        )
        return ProjectedCurvature(self.loss, self.gradient, *((g, r) if apart else (None, None)), h)


def _contraction(layers, inputs, labels, directions, temperature) -> _Sums:
    """Sum over all samples, in parts whose largest tangent fits into a block."""
    cuts = _cuts(layers, directions)
    x, count = inputs.detach().flatten(1), directions.shape[1]
    sums = _Sums(count, x)
    widest = max(
        max(cut.weight.shape) if index else len(cut.weight) for index, cut in enumerate(cuts)
    )
    room = TANGENT_BYTES[x.is_cuda] // (widest * count * x.element_size())
    for part, own in zip(*(each.split(max(room, 16)) for each in (x, labels)), strict=True):
        _add_part(cuts, part.T.contiguous(), own, temperature, len(x), sums)
    return sums


def _add_part(cuts, x, labels, temperature, samples, sums: _Sums) -> None:
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
        _csr(o * count + column, i, values, (out * count, into)),
        _csr(i * count + column, o, values, (into * count, out)),
    )


def _csr(rows, columns, values, shape) -> torch.Tensor:
    with warnings.catch_warnings():
        # PyTorch tells once in a process that CSR tensors may change.
        warnings.filterwarnings("ignore", "Sparse CSR tensor support")
        return _coo(torch.stack([rows, columns]), values, shape).to_sparse_csr()


def _coo(indices: torch.Tensor, values: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    return torch.sparse_coo_tensor(indices, values, shape, check_invariants=False)


# The general path


def _general(model, loss, inputs, labels, directions, temperature, apart) -> _Sums:
    """Sum over all samples in parts, forward over reverse along a group of directions at a time."""
    values = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())
    directions = directions.to_dense()
    sums = _Sums(directions.shape[1], directions)
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


def _choose(impl: str | None, obstacle: str | None) -> dispatch.Choice:
    """Return the contraction where it can run, unless somebody asked for something else."""
    name = "projected_curvature"
    wanted, asker = dispatch._request(impl, IMPLEMENTATIONS)
    if wanted == "contraction" and obstacle:
        raise dispatch.ImplementationUnavailable(
            f"{name}: {asker} asks for contraction, which cannot run here: {obstacle}"
        )
    if wanted:
        choice = dispatch.Choice(name, wanted, f"asked for by {asker}")
    elif obstacle:
        choice = dispatch.Choice(name, "definition", obstacle)
    else:
        reason = "the model is a multilayer perceptron under the cross-entropy"
        choice = dispatch.Choice(name, "contraction", reason)
    if dispatch._only_asking.get():
        raise dispatch._Asked(choice)
    return choice


# What is refused


def _check_devices(parameters, inputs, labels, directions) -> torch.device:
    if not parameters:
        raise ValueError("model has no parameters")
    tensors = {f"parameter {index}": p for index, p in enumerate(parameters)}
    return common_device(**tensors, inputs=inputs, labels=labels, directions=directions)


def _check_numbers(parameters, inputs, directions) -> None:
    """Refuse dtypes and shapes that do not fit, and NaN or infinity."""
    kinds = {p.dtype for p in parameters}
    if kinds not in ({torch.float32}, {torch.float64}):
        found = ", ".join(sorted(str(kind) for kind in kinds))
        raise TypeError(f"model has parameters of {found}; accepted are float32 or float64")
    (kind,) = kinds
    for name, tensor in (("inputs", inputs), ("directions", directions)):
        if tensor.dtype != kind:
            raise TypeError(f"{name} is {tensor.dtype}; accepted is {kind}, as the parameters")
    size = sum(p.numel() for p in parameters)
    if directions.ndim != 2 or len(directions) != size or not 1 <= directions.shape[1] <= size:
        raise ValueError(
            f"directions has shape {tuple(directions.shape)}; accepted is [{size}, d], "
            f"d from 1 to {size}"
        )
    if not len(inputs):
        raise ValueError("inputs holds no samples; accepted is one or more")
    entries = directions if directions.layout == torch.strided else directions.values()
    named = [*((f"parameter {i}", p) for i, p in enumerate(parameters)), ("inputs", inputs)]
    for name, tensor in (*named, ("directions", entries)):
        # The extremes first, which take no memory; NaN is among them.
        ends = torch.aminmax(tensor.detach()) if tensor.numel() else ()
        if not all(torch.isfinite(end) for end in ends):
            wrong = int((~torch.isfinite(tensor)).sum())
            raise ValueError(f"{name} holds {wrong} elements that are NaN or infinite")


def _check_modules(model: nn.Module) -> None:
    """Refuse modules whose loss is no mean over samples, or no function of the parameters."""
    for name, module in model.named_modules():
        if not module.training:
            continue
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            what = "mixes the samples of a batch"
        elif isinstance(module, nn.modules.dropout._DropoutNd) and module.p:
            what = "is random"
        else:
            continue
        raise ValueError(
            f"model has {type(module).__name__} {name!r} in training mode, which {what}; "
            "accepted is model.eval()"
        )


def _check_outputs(model, inputs, labels, is_entropy: bool) -> None:
    """Refuse labels that are not among the outputs of the cross-entropy."""
    if not is_entropy:
        return
    with torch.no_grad():
        outputs = model(inputs[:1])
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        shape = tuple(outputs.shape)
        raise ValueError(f"model returns {shape} for one sample; accepted is [1, K], K >= 2")
    if labels.dtype != torch.int64:
        raise TypeError(f"labels is {labels.dtype}; accepted is int64")
    if labels.shape != inputs.shape[:1]:
        shape = tuple(labels.shape)
        raise ValueError(f"labels has shape {shape}; accepted is ({len(inputs)},)")
    low, high = (int(end) for end in torch.aminmax(labels))
    if low < 0 or high >= outputs.shape[1]:
        raise ValueError(
            f"labels lie from {low} to {high}; accepted is 0 to {outputs.shape[1] - 1}"
        )


def _name(thing: object) -> str:
    return getattr(thing, "__name__", type(thing).__name__)
