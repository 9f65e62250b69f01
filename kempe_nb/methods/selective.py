"""Answers that may be withheld: accuracy of what is kept, against how much is kept.

Whoever may withhold an answer keeps the inputs whose uncertainty is low. The selective accuracy at
coverage r is the accuracy on the share r of the inputs with the lowest uncertainty (Geifman and
El-Yaniv, arXiv 1705.08500). How well a score tells two kinds of inputs apart, with no accuracy in
it, is the area under its ROC curve, for which scikit-learn has a function.
"""

import numpy as np
import torch
from sklearn.metrics import auc

from kempe_nb.checks import check_finite, common_device

#: Coverages in percent at which the area is taken, as the code of Rudner et al. (FSVI) takes it.
COVERAGES = (*range(100, 0, -1), 0.1)


def selective_accuracy(
    uncertainty: torch.Tensor, correct: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return coverage and selective accuracy after each input in the order of uncertainty.

    Inputs of equal uncertainty cannot be told apart: each counts as the share of them that is
    right, which is the mean over their orders, so the order in which they came does not matter.

    Parameters
    ----------
    uncertainty : floating point [N]
        Finite; N at least 1.
    correct : bool [N]
        Whether the answer is right; of inputs that have no right answer, False.

    Returns
    -------
    coverage, accuracy : float64 [N]
        Coverage k / N for k = 1 to N, and the accuracy on the k surest inputs.
    """
    _check(uncertainty, correct)
    order = torch.argsort(uncertainty, stable=True)
    value = uncertainty[order]
    count = torch.arange(1, len(value) + 1, dtype=torch.float64, device=value.device)
    # Within a run of equal values each input counts as the share that is right in the run.
    _, run = torch.unique_consecutive(value, return_inverse=True)
    right = correct[order].double()
    total = torch.zeros(int(run[-1]) + 1, dtype=torch.float64, device=value.device)
    size = torch.zeros_like(total).index_add(0, run, torch.ones_like(right))
    share = total.index_add(0, run, right) / size
    return count / len(value), share[run].cumsum(0) / count


def area_under_selective_accuracy(uncertainty: torch.Tensor, correct: torch.Tensor) -> float:
    """Return the area under selective accuracy over coverage, in percent (ASA).

    Accuracies at coverages of 100, 99, ..., 1 and 0.1 percent, added by the trapezoidal rule and
    divided by the range of the coverages, so that 100 is an answer that is always right. For inputs
    of another kind, `correct` is False: none of their answers can be right.
    """
    _, accuracy = selective_accuracy(uncertainty, correct)
    coverages = np.array(COVERAGES, dtype=np.float64)
    kept = np.maximum(np.ceil(coverages / 100 * len(accuracy) - 1e-9).astype(int), 1)
    values = accuracy.cpu().numpy()[kept - 1]
    # A descending abscissa gives -0.0 where nothing is right.
    return abs(float(100 * auc(coverages, values) / (coverages.max() - coverages.min())))


def _check(uncertainty: torch.Tensor, correct: torch.Tensor) -> None:
    common_device(uncertainty=uncertainty, correct=correct)
    if not uncertainty.is_floating_point() or uncertainty.ndim != 1 or not len(uncertainty):
        raise ValueError(
            f"uncertainty is {uncertainty.dtype} {tuple(uncertainty.shape)}; accepted are "
            "floating-point numbers [N], N at least 1"
        )
    if correct.dtype != torch.bool or correct.shape != uncertainty.shape:
        raise ValueError(
            f"correct is {correct.dtype} {tuple(correct.shape)}; "
            f"accepted is bool {tuple(uncertainty.shape)}"
        )
    check_finite(uncertainty, "uncertainty")
