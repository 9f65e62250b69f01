"""Frozen features and last layers on them: predictions, perturbed logits, and what is accepted.

Features are [N, D], a last layer is W [D + 1, C] whose last row is the bias, and logits are XW with
a column of ones in X.
"""

import torch
from torch.nn import functional as F

from kempe_nb.checks import (
    check_dtype,
    check_finite,
    check_labels,
    checked_not_negative,
    common_device,
)

FLOATS = (torch.float32, torch.float64)


def perturbed_logits(
    features: torch.Tensor,
    labels: torch.Tensor,
    weight: torch.Tensor,
    context: torch.Tensor,
    radius: float,
) -> torch.Tensor:
    """Return the logits at W + eps(W), [N, C], without a derivative: Z + radius / ||G|| K (q R).

    K = X X^T with the column of ones in X, R = softmax(Z) - Y, and G = X^T (q R) is the gradient.
    Where it is zero there is no direction, and the logits stay.

    Parameters
    ----------
    features : float32 or float64 [N, D]
    labels : int64 [N]
    weight : [D + 1, C]
        The last row is the bias.
    context : [N]
        Weights q of the samples, not negative, with a sum of 1.
    radius : float
        From 0 on.

    Raises
    ------
    TypeError, ValueError
        As `fit_last_layers`, and for labels that the weight has no column for.
    """
    common_device(features=features, labels=labels, weight=weight, context=context)
    check_samples(features, labels, least=1)
    check_weights(context, "context", features)
    if context.ndim != 1:
        raise ValueError(f"context has shape {tuple(context.shape)}; accepted is [N]")
    check_layer(weight, "weight", features, weight.shape[-1])
    if weight.ndim != 2:
        raise ValueError(f"weight has shape {tuple(weight.shape)}; accepted is [D + 1, C]")
    check_labels(labels, weight.shape[1])
    checked_not_negative(radius, "radius")
    x = with_ones(features)
    z = x @ weight
    residual = context[:, None] * (z.softmax(1) - F.one_hot(labels, weight.shape[1]))
    gradient = x.T @ residual
    norm = gradient.norm()
    return z + (radius / norm if norm > 0 else 0.0) * (x @ gradient)


def predictions(features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the classes that last layers [G, D + 1, C] choose of features [N, D], int64 [G, N]."""
    common_device(features=features, weights=weights)
    check_features(features)
    if weights.ndim != 3 or weights.shape[1] != features.shape[1] + 1:
        raise ValueError(
            f"weights are {tuple(weights.shape)} for features {tuple(features.shape)}; accepted "
            "are [G, D + 1, C] for [N, D]: the features have another length than those fitted"
        )
    check_dtype(weights, "weights", (features.dtype,))
    check_finite(weights, "weights")
    x = with_ones(features)
    chosen = torch.empty(len(weights), len(x), dtype=torch.int64, device=x.device)
    for row, weight in zip(chosen, weights, strict=True):
        row.copy_((x @ weight).argmax(1))
    return chosen


def with_ones(features: torch.Tensor) -> torch.Tensor:
    """Return features [N, D] with a column of ones, [N, D + 1]."""
    return torch.cat([features, features.new_ones(len(features), 1)], 1)


def check_features(features: torch.Tensor) -> None:
    """Refuse what is not float32 or float64 [N, D], N at least 1, and finite."""
    check_dtype(features, "features", FLOATS)
    if features.ndim != 2 or not len(features):
        raise ValueError(
            f"features have shape {tuple(features.shape)}; accepted is [N, D], N at least 1"
        )
    check_finite(features, "features")


def check_samples(features: torch.Tensor, labels: torch.Tensor, least: int = 2) -> int:
    """Return the number of classes, one more than the largest label, or refuse the samples."""
    check_features(features)
    check_numbers(labels, "labels", features)
    classes = int(labels.max()) + 1
    if classes < least:
        raise ValueError("labels are all 0; accepted are at least two classes")
    return classes


def check_numbers(numbers: torch.Tensor, name: str, features: torch.Tensor) -> None:
    """Refuse what is not a class or a group for each row of features, int64 [N] from 0 on."""
    common_device(features=features, **{name: numbers})
    if numbers.dtype != torch.int64 or numbers.shape != features.shape[:1]:
        raise ValueError(
            f"{name} are {numbers.dtype} {tuple(numbers.shape)}; accepted is torch.int64 "
            f"({len(features)},), one for each row of features"
        )
    if numbers.min() < 0:
        raise ValueError(f"{name} holds {int(numbers.min())}; accepted are numbers from 0 on")


def check_weights(value: torch.Tensor, name: str, features: torch.Tensor) -> None:
    """Refuse what is not weights [N] or [G, N] from 0 on with a sum of 1, in the same dtype."""
    common_device(features=features, **{name: value})
    accepted = f"{features.dtype} ({len(features)},), or [G, {len(features)}]"
    if (
        value.dtype != features.dtype
        or value.ndim not in (1, 2)
        or value.shape[-1] != len(features)
    ):
        raise ValueError(f"{name} is {value.dtype} {tuple(value.shape)}; accepted is {accepted}")
    check_finite(value, name)
    if value.numel() and (value.min() < 0 or (value.sum(-1) - 1).abs().max() > 1e-4):
        raise ValueError(
            f"{name} has sums from {value.sum(-1).min():g} to {value.sum(-1).max():g} and a least "
            f"weight of {value.min():g}; accepted are weights from 0 on with a sum of 1"
        )


def check_layer(value: torch.Tensor, name: str, features: torch.Tensor, classes: int) -> None:
    """Refuse what is not [D + 1, C] or [G, D + 1, C], of the features' dtype and finite."""
    common_device(features=features, **{name: value})
    shape = features.shape[1] + 1, classes
    if value.ndim not in (2, 3) or value.shape[-2:] != shape or value.dtype != features.dtype:
        raise ValueError(
            f"{name} is {value.dtype} {tuple(value.shape)}; accepted is {features.dtype} "
            f"{shape}, or [G, {shape[0]}, {shape[1]}]"
        )
    check_finite(value, name)
