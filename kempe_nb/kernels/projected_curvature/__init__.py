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

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from kempe_nb.checks import (
    check_dtype,
    check_finite,
    check_labels,
    checked_positive,
    common_device,
)
from kempe_nb.dispatch import Operation
from kempe_nb.kernels.projected_curvature.contraction import contract, name_of, perceptron_layers
from kempe_nb.kernels.projected_curvature.general import differentiate
from kempe_nb.kernels.projected_curvature.matrix import ProjectedCurvature


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
        For data that are no pair, and inputs, labels or directions of the wrong dtype.
    ValueError
        For a loss that is not the cross-entropy with its Gauss-Newton part; shapes that do not fit;
        no samples or directions, or more directions than parameters; labels out of range;
        parameters, data and directions on different devices; NaN or infinity among the parameters;
        batch normalisation in training mode, whose loss is no mean over samples.
    ImplementationUnavailable
        For the contraction of a model that is no multilayer perceptron.
    """
    parameters = list(model.parameters())
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise TypeError(f"data is a {type(data).__name__}; accepted is (inputs, labels)")
    inputs, labels = data
    if isinstance(directions, torch.Tensor) and directions.layout != torch.strided:
        directions = directions.to_sparse_coo().coalesce()
    _check_devices(parameters, inputs, labels, directions)
    _check_numbers(parameters, inputs, directions)
    _check_modules(model)
    is_entropy = is_cross_entropy(loss)
    if gauss_newton and not is_entropy:
        raise ValueError(
            f"loss is {name_of(loss)}; accepted for the Gauss-Newton part are F.cross_entropy and "
            "nn.CrossEntropyLoss() as it is by default; for another pass "
            "gauss_newton=False"
        )
    temperature = checked_positive(temperature, "temperature")
    layers = perceptron_layers(model)
    obstacle = layers if isinstance(layers, str) else None
    if not is_entropy:
        obstacle = f"the loss is {name_of(loss)}, not the cross-entropy"
    choice = OPERATION.choose(
        inputs.device,
        impl,
        obstacles={"contraction": obstacle},
        reasons={"contraction": "the model is a multilayer perceptron under the cross-entropy"},
    )
    _check_outputs(model, inputs, labels, is_entropy)
    if choice.implementation == "contraction":
        sums = contract(layers, inputs, labels, directions.detach(), temperature)
    else:
        plane = directions.detach()
        sums = differentiate(model, loss, inputs, labels, plane, temperature, gauss_newton)
    return sums.result(gauss_newton)


def minimum_bytes(
    samples: int, inputs: int, parameters: int, directions: int, nonzeros: int, itemsize: int = 4
) -> int:
    """Return the bytes of the data, the parameters, the nonzeros of the directions, two matrices.

    A nonzero of a sparse direction comes with two indices.
    """
    data = samples * (inputs * itemsize + 8) + parameters * itemsize
    return data + nonzeros * (itemsize + 16) + 2 * 8 * directions**2


OPERATION = Operation(
    "projected_curvature",
    # Of parameters, inputs and directions, all alike.
    dtypes=(torch.float32, torch.float64),
    minimum_bytes=minimum_bytes,
    implementations=("definition", "contraction"),
)


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


def _check_devices(parameters, inputs, labels, directions) -> torch.device:
    if not parameters:
        raise ValueError("model has no parameters")
    tensors = {f"parameter {index}": p for index, p in enumerate(parameters)}
    return common_device(**tensors, inputs=inputs, labels=labels, directions=directions)


def _check_numbers(parameters, inputs, directions) -> None:
    """Refuse dtypes and shapes that do not fit, and NaN or infinity."""
    kind = parameters[0].dtype
    for index, parameter in enumerate(parameters):
        check_dtype(parameter, f"parameter {index}", OPERATION.dtypes if index == 0 else (kind,))
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
        check_finite(tensor, name)


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
    check_dtype(labels, "labels", (torch.int64,))
    if labels.shape != inputs.shape[:1]:
        shape = tuple(labels.shape)
        raise ValueError(f"labels has shape {shape}; accepted is ({len(inputs)},)")
    check_labels(labels, outputs.shape[1])
