"""Accuracy in each group, the worst of them, and how far a number of test samples can be trusted.

The worst-group accuracy of a finite test set has an error that tables rarely print: with n samples
in that group, its binomial standard error is sqrt(a (1 - a) / n). It is also biased: the minimum of
several noisy accuracies lies below the accuracy that is truly the smallest.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import binom

from kempe_nb.checks import check_dtype, common_device
from kempe_nb.methods.group_weights import group_counts


@dataclass(frozen=True, eq=False)
class GroupAccuracy:
    """Right answers by group, of one predictor or of many on the same samples.

    Attributes
    ----------
    right : int64 [..., groups]
    counts : int64 [groups]
        Samples of each group.
    """

    right: torch.Tensor
    counts: torch.Tensor

    @property
    def by_group(self) -> torch.Tensor:
        """Accuracy of each group, float64 [..., groups]."""
        return self.right.double() / self.counts

    @property
    def worst(self) -> torch.Tensor:
        """Smallest accuracy of a group, float64 [...]."""
        return self.by_group.amin(-1)

    @property
    def standard_errors(self) -> torch.Tensor:
        """Binomial standard error of each group's accuracy, float64 [..., groups]."""
        return (self.by_group * (1 - self.by_group) / self.counts).sqrt()

    @property
    def worst_standard_error(self) -> torch.Tensor:
        """Binomial standard error of `worst`, float64 [...]; of tied groups, the largest."""
        worst = self.by_group == self.worst[..., None]
        return torch.where(worst, self.standard_errors, 0.0).amax(-1)

    def mean(self, training_counts: torch.Tensor) -> torch.Tensor:
        """Return the mean accuracy with the groups in their TRAINING proportions, float64 [...].

        The convention of this literature: test sets are often balanced by design, and the plain
        mean over them is not the accuracy on data like those of the training.

        Parameters
        ----------
        training_counts : [groups]
            Samples of each group in training.
        """
        common_device(right=self.right, training_counts=training_counts)
        wrong = training_counts.shape != self.counts.shape
        if wrong or not (training_counts >= 0).all() or not 0 < training_counts.sum() < torch.inf:
            raise ValueError(
                f"training_counts are {training_counts.tolist()}; accepted are {len(self.counts)} "
                "numbers from 0 on with a positive finite sum"
            )
        weights = training_counts.double() / training_counts.sum()
        return self.by_group @ weights


def group_accuracy(
    predicted: torch.Tensor, labels: torch.Tensor, groups: torch.Tensor, count: int | None = None
) -> GroupAccuracy:
    """Count right answers by group, in one pass and in whole numbers.

    Parameters
    ----------
    predicted : int64 [..., N]
        Classes that one or many predictors choose.
    labels, groups : int64 [N]
        Every group from 0 to the largest, or to `count` - 1, has a sample.
    count : int, optional
        Groups that there are.

    Raises
    ------
    TypeError
        For another dtype.
    ValueError
        For another shape, or a group without samples, which is named.
    """
    common_device(predicted=predicted, labels=labels, groups=groups)
    for name, tensor in {"predicted": predicted, "labels": labels}.items():
        check_dtype(tensor, name, (torch.int64,))
    counts = group_counts(groups, count)
    if labels.shape != groups.shape or predicted.shape[-1:] != groups.shape:
        raise ValueError(
            f"predicted has shape {tuple(predicted.shape)} and labels {tuple(labels.shape)} for "
            f"groups {tuple(groups.shape)}; accepted are [..., N], [N] and [N]"
        )
    right = predicted == labels
    flat = right.reshape(-1, len(groups)).long()
    index = groups.expand(len(flat), -1)
    sums = flat.new_zeros(len(flat), len(counts)).scatter_add_(1, index, flat)
    return GroupAccuracy(sums.reshape(*right.shape[:-1], len(counts)), counts)


def expected_minimum(accuracies: np.ndarray, counts: np.ndarray) -> float:
    """Return the expected smallest accuracy that test sets of these sizes show.

    Exact for independent binomial counts: E min = integral over t of P(all groups at t or above).

    Parameters
    ----------
    accuracies : float [groups]
        True accuracies, from 0 to 1.
    counts : int [groups]
        Test samples of each group, all positive whole numbers.

    Raises
    ------
    ValueError
        For a number out of range, or two lengths.
    """
    accuracies, counts = np.asarray(accuracies, dtype=float), np.asarray(counts)
    if accuracies.ndim != 1 or accuracies.shape != counts.shape or not accuracies.size:
        raise ValueError(
            f"accuracies have shape {accuracies.shape} and counts {counts.shape}; accepted are two "
            "vectors of one length, at least 1"
        )
    inside = ((accuracies >= 0) & (accuracies <= 1)).all()
    if not inside or counts.dtype.kind not in "iu" or not (counts >= 1).all():
        raise ValueError(
            f"accuracies are {accuracies} and counts {counts}; accepted are numbers from 0 to 1, "
            "and whole numbers from 1 on"
        )
    # The chance that all are at t or above falls only where a group has a possible accuracy.
    steps = np.unique(np.concatenate([np.arange(n + 1) / n for n in counts]))
    chance = np.ones(len(steps) - 1)
    for accuracy, n in zip(accuracies, counts, strict=True):
        # At least steps[1:] of n, up to rounding of the quotients.
        needed = np.ceil(steps[1:] * n - 1e-9)
        chance *= binom.sf(needed - 1, n, accuracy)
    return float((np.diff(steps) * chance).sum())


def corrected_minimum(accuracies: np.ndarray, counts: np.ndarray) -> float:
    """Return the measured worst-group accuracy minus a parametric-bootstrap estimate of its bias.

    The bias is taken as if the measured accuracies were the true ones: 2 min - E min, at most 1.
    That is no cure. Where all groups are equally good it takes away a part of the bias, because
    measured accuracies lie further apart than true ones; where one group is the worst there is
    little bias, and noise that brings the others near makes it add too much. It adds variance, too.

    Parameters
    ----------
    accuracies, counts
        As in `expected_minimum`; measured accuracies.
    """
    expected = expected_minimum(accuracies, counts)
    return min(1.0, 2 * float(np.min(accuracies)) - expected)
