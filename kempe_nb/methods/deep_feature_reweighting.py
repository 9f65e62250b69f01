"""Deep feature reweighting: sparse last layers on subsamples with equal groups, averaged.

After Kirichenko, Izmailov and Wilson (arXiv 2204.02937): from an annotated set take as many samples
of each group as the smallest has, fit a logistic regression with an L1 penalty on the frozen
features, repeat with other subsamples, and average the weights. Their code fits with scikit-learn's
liblinear one after another. Here all subsamples, strengths and seeds are configurations of one
problem, solved by accelerated proximal gradient steps (FISTA, Beck and Teboulle 2009, with the
restart of O'Donoghue and Candes 2015).
"""

import torch
from torch.nn import functional as F

from kempe_nb.checks import checked_choice, checked_integer, checked_positive, common_device
from kempe_nb.methods.frozen_features import (
    FLOATS,
    check_layer,
    check_samples,
    check_weights,
    with_ones,
)
from kempe_nb.methods.group_weights import group_counts


def fit_sparse_last_layers(
    features: torch.Tensor,
    labels: torch.Tensor,
    likelihood: torch.Tensor,
    penalty: float | torch.Tensor,
    *,
    steps: int = 1000,
) -> torch.Tensor:
    """Return weights that descend on a weighted loss with an L1 penalty, [G, D + 1, C].

    The objective of a configuration is sum_i likelihood_i nll_i(W) + penalty ||W||_1.

    After enough steps they are minimisers; `optimality_gap` says how near they are. Features of one
    scale get there soonest, and the penalty means the same for each of them, so standardise first,
    as the authors' code does. The bias is penalised as the rest, as liblinear does. For two classes
    W_1 - W_0 is liblinear's coefficient for penalty = 1 / (C n), where C is its inverse strength
    and n its samples.

    Parameters
    ----------
    features : float32 or float64 [N, D]
    labels : int64 [N]
    likelihood : [N] or [G, N]
        Weights with a sum of 1; 0 leaves a sample out.
    penalty : float or [G]
        Positive.
    steps : int
        Proximal steps, each of two products of the features with all configurations.

    Raises
    ------
    TypeError, ValueError
        As `fit_last_layers`.
    """
    common_device(features=features, labels=labels, likelihood=likelihood)
    features, likelihood = features.detach(), likelihood.detach()
    classes = check_samples(features, labels)
    check_weights(likelihood, "likelihood", features)
    checked_integer(steps, "steps", 1)
    if not isinstance(penalty, torch.Tensor):
        penalty = torch.tensor([checked_positive(penalty, "penalty")], dtype=torch.float64)
    if penalty.ndim > 1 or not penalty.numel() or not ((penalty > 0) & (penalty < torch.inf)).all():
        raise ValueError(
            f"penalty is {penalty.tolist()}; accepted is a positive finite number, or [G]"
        )
    likelihood = likelihood.reshape(-1, len(features))
    if not len(likelihood):
        raise ValueError("likelihood has 0 configurations; accepted is at least 1")
    sizes = {len(likelihood), penalty.numel()} - {1}
    if len(sizes) > 1:
        raise ValueError(
            f"penalty has {penalty.numel()} and likelihood {len(likelihood)} configurations; "
            "accepted is one number of them"
        )
    count = max(sizes, default=1)
    x, weight = with_ones(features), likelihood.expand(count, -1).T[:, None]
    targets = F.one_hot(labels, classes).to(features)[:, :, None]
    # The Hessian of a softmax has eigenvalues up to 1/2.
    distinct, which = likelihood.unique(dim=0, return_inverse=True)
    largest = torch.stack([_squared_norm(x, each) for each in distinct])[which]
    if not torch.isfinite(largest).all():
        raise ValueError("features are too large for their dtype; accepted are standardised ones")
    step = (2 / largest)[None, None]
    threshold = step * penalty.to(features).reshape(1, 1, -1)

    layer = features.new_zeros(x.shape[1], classes, count)
    ahead, age = layer, features.new_ones(1, 1, count)
    for _ in range(steps):
        z = (x @ ahead.flatten(1)).unflatten(1, layer.shape[1:])
        residual = weight * (z.softmax(1) - targets)
        moved = ahead - step * (x.T @ residual.flatten(1)).unflatten(1, layer.shape[1:])
        new = moved.sign() * (moved.abs() - threshold).clamp_min(0)
        # Where the momentum points uphill it begins anew.
        uphill = ((ahead - new) * (new - layer)).sum((0, 1), keepdim=True) > 0
        age = torch.where(uphill, 1.0, age)
        older = (1 + (1 + 4 * age**2).sqrt()) / 2
        ahead = new + torch.where(uphill, 0.0, (age - 1) / older) * (new - layer)
        layer, age = new, older
    return layer.permute(2, 0, 1).contiguous()


def optimality_gap(
    features: torch.Tensor,
    labels: torch.Tensor,
    likelihood: torch.Tensor,
    penalty: float,
    weights: torch.Tensor,
) -> torch.Tensor:
    """Return the largest entry of the smallest subgradient, over the penalty, [G].

    0 at a minimiser. Where a weight is not 0 the gradient of the loss has to be minus the penalty
    times its sign, and elsewhere at most the penalty.

    Parameters
    ----------
    features, labels, likelihood, penalty
        As in `fit_sparse_last_layers`; one configuration of likelihood and penalty.
    weights : [G, D + 1, C]

    Raises
    ------
    TypeError, ValueError
        As `fit_last_layers`.
    """
    check_samples(features, labels)
    check_weights(likelihood, "likelihood", features)
    checked_positive(penalty, "penalty")
    check_layer(weights, "weights", features, weights.shape[-1])
    x = with_ones(features)
    probabilities = torch.einsum("sf,gfc->gsc", x, weights).softmax(2)
    targets = F.one_hot(labels, weights.shape[2]).to(features)
    gradient = torch.einsum("sf,gsc->gfc", likelihood[:, None] * x, probabilities - targets)
    there = gradient + penalty * weights.sign()
    off = torch.where(weights != 0, there.abs(), (gradient.abs() - penalty).clamp_min(0))
    return off.amax((1, 2)) / penalty


def balanced_subsamples(
    groups: torch.Tensor, refits: int, generator: torch.Generator, dtype: torch.dtype
) -> torch.Tensor:
    """Return weights of subsamples with equal groups, [refits, N], each with a sum of 1.

    Each takes as many samples of every group as the smallest group has, without replacement.

    Raises
    ------
    ValueError
        For fewer than one refit, or a group without samples.
    """
    counts = group_counts(groups)
    checked_choice(dtype, "dtype", FLOATS)
    checked_integer(refits, "refits", 1)
    taken = int(counts.min())
    chosen = torch.zeros(refits, len(groups), dtype=dtype, device=groups.device)
    members = [(groups == group).nonzero()[:, 0] for group in range(len(counts))]
    for row in chosen:
        for own in members:
            order = torch.randperm(len(own), generator=generator, device=groups.device)
            row[own[order[:taken]]] = 1 / (taken * len(counts))
    return chosen


def _squared_norm(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the largest eigenvalue of X^T diag(weights) X."""
    kept = weights > 0
    return torch.linalg.matrix_norm(weights[kept].sqrt()[:, None] * x[kept], ord=2) ** 2
