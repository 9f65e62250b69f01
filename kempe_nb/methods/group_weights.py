"""Weights of samples by their groups: the context distribution of group-aware priors.

With n_g samples in group g of N, the public code of Rudner, Zhang, Wilson and Kempe
(arXiv 2403.09869) draws a group with a probability in proportion to n_g (N / n_g)^s and a sample
uniformly within it, so a sample has the weight q_i in proportion to n_g^-s. The exponent s is 0 for
the data as they are, 1 for groups of equal weight; beyond 1 the smallest group has the most.
"""

import torch

from kempe_nb.checks import (
    check_dtype,
    checked_choice,
    checked_integer,
    checked_not_negative,
    common_device,
)


def group_counts(groups: torch.Tensor, count: int | None = None) -> torch.Tensor:
    """Return the number of samples of each group, int64 [count].

    Parameters
    ----------
    groups : int64 [N]
        N at least 1, from 0 to `count` - 1.
    count : int, optional
        Groups that there are; by default one more than the largest.

    Raises
    ------
    ValueError
        For a number out of range, or a group without samples, which is named.
    """
    common_device(groups=groups)
    check_dtype(groups, "groups", (torch.int64,))
    if groups.ndim != 1 or not len(groups):
        raise ValueError(f"groups have shape {tuple(groups.shape)}; accepted is [N], N at least 1")
    if count is not None:
        checked_integer(count, "count", 1)
    low, high = (int(end) for end in torch.aminmax(groups))
    if low < 0 or (count is not None and high >= count):
        end = "up" if count is None else f"to {count - 1}"
        raise ValueError(f"groups lie from {low} to {high}; accepted is 0 {end}")
    counts = torch.bincount(groups, minlength=count or 0)
    if (counts == 0).any():
        lacking = ", ".join(str(int(group)) for group in (counts == 0).nonzero())
        raise ValueError(
            f"groups: there are no samples of group {lacking}; accepted are groups with at least "
            "one sample each"
        )
    return counts


def group_shares(counts: torch.Tensor, exponent: float) -> torch.Tensor:
    """Return the probability of each group in the context distribution, float64 [groups].

    Parameters
    ----------
    counts : int64 or float64 [groups]
        Samples of each group, all positive.
    exponent : float
        s, from 0 on.

    Raises
    ------
    ValueError
        For a group without samples, or an exponent so large that a weight is no longer a number
        above 0; the message tells the effective sample size.
    """
    common_device(counts=counts)
    if counts.ndim != 1 or not len(counts) or not ((counts > 0) & (counts < torch.inf)).all():
        raise ValueError(
            f"counts are {counts.tolist()}; accepted are positive numbers, one for each group"
        )
    exponent = checked_not_negative(exponent, "exponent")
    log = counts.double().log()
    shares = ((1 - exponent) * log).softmax(0)
    # The weight of a single sample is smaller than that of its group.
    if not ((shares.log() - log).exp() > 0).all():
        raise _underflow(exponent, shares, counts)
    return shares


def _underflow(exponent: float, shares: torch.Tensor, counts: torch.Tensor) -> ValueError:
    size = float(1 / (shares**2 / counts).sum())
    return ValueError(
        f"exponent is {exponent:g}; with it a weight underflows to 0 and the effective sample size "
        f"is {size:.1f} of {int(counts.sum())}; accepted is an exponent that leaves every sample a "
        "weight"
    )


def group_weights(
    groups: torch.Tensor, exponent: float, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Return the weight of each sample in the context distribution, [N], with a sum of 1.

    Parameters
    ----------
    groups : int64 [N]
        Every group from 0 to the largest has a sample.
    exponent : float
        s: 0 for equal weights of samples, 1 for equal weights of groups.
    dtype : torch.dtype
        float32 or float64; weights are computed in float64 and returned in this.

    Raises
    ------
    ValueError
        As `group_counts` and `group_shares`.
    """
    checked_choice(dtype, "dtype", (torch.float32, torch.float64))
    counts = group_counts(groups)
    shares = group_shares(counts, exponent)
    weights = (shares / counts).to(dtype)
    if not (weights > 0).all():
        raise _underflow(exponent, shares, counts)
    return weights[groups]


def group_folds(groups: torch.Tensor, folds: int) -> torch.Tensor:
    """Return the fold of each sample, 0 to `folds` - 1, int64 [N]: each group is dealt out in turn.

    Within a group the order is kept, and its folds differ by one sample at most. Each group begins
    with fold 0, so a group with fewer samples than folds is in the first ones only.

    Parameters
    ----------
    groups : int64 [N]
        Every group from 0 to the largest has at least two samples, so that it is still there when a
        fold is left out.
    folds : int
        From 2 on.

    Raises
    ------
    ValueError
        As `group_counts`, for a group with one sample, which is named, and for fewer folds.
    """
    counts = group_counts(groups)
    checked_integer(folds, "folds", 2)
    if counts.min() < 2:
        raise ValueError(
            f"groups: group {int(counts.argmin())} has one sample; accepted are at least two, so "
            "that every group is there when a fold is left out"
        )
    found = torch.zeros_like(groups)
    for group, count in enumerate(counts.tolist()):
        found[groups == group] = torch.arange(count, device=groups.device) % folds
    return found


def effective_sample_size(weights: torch.Tensor) -> float:
    """Return (sum w)^2 / sum w^2 of weights [N] (Kish): N if all are equal, 1 if one has all."""
    common_device(weights=weights)
    if weights.ndim != 1 or not (weights >= 0).all() or not weights.sum() > 0:
        raise ValueError(
            f"weights are {tuple(weights.shape)} with a sum of {float(weights.sum()):g}; accepted "
            "is [N], from 0 on, with a positive sum"
        )
    weights = weights.double()
    return float(weights.sum() ** 2 / (weights**2).sum())


def shares_of_loss(counts: torch.Tensor, exponent: float, strength: float) -> torch.Tensor:
    """Return the share of each group in likelihood and context together, float64 [groups].

    Where nothing is perturbed, the objective mean nll + strength L_q weighs group g by
    (p_g + strength q_g) / (1 + strength), with p its share of the data.
    """
    strength = checked_not_negative(strength, "strength")
    data = group_shares(counts, 0.0)
    return (data + strength * group_shares(counts, exponent)) / (1 + strength)
