"""Features with a core, a spurious coordinate and noise, drawn when they are asked for.

A sample has a label y and an attribute a, both -1 or +1, and the features

    z = (core, spurious, noise),  core ~ N(y, core_noise^2),  spurious ~ N(a, spurious_noise^2),
    noise ~ N(0, 1) in each further coordinate.

The label is caused by the core alone; where a goes with y, the spurious coordinate predicts it too,
and with less noise better. Group numbers are 2 y' + a' with y', a' = 0 for -1 and 1 for +1.
"""

import numpy as np
import torch
from scipy.stats import norm

from kempe_nb.checks import checked_integer, checked_positive

#: Points of the integral over the spurious coordinate, in standard deviations, and their weights.
#: The trapezoidal rule converges faster than any power of the step under a normal law.
_POINTS = np.linspace(-9, 9, 20_001)
_WEIGHTS = norm.pdf(_POINTS) / norm.pdf(_POINTS).sum()


def skewed_counts(samples: int, share: float) -> np.ndarray:
    """Return sizes of the four groups in which a goes with y in a share of the samples, int64 [4].

    Both labels have half of the samples. A share of 0.5 is no correlation.

    Raises
    ------
    ValueError
        For an odd number of samples, a share outside 0 to 1, or sizes of which one is 0.
    """
    if checked_integer(samples, "samples", 4) % 2:
        raise ValueError(f"samples is {samples}; accepted is an even number")
    if not 0 < share < 1:
        raise ValueError(f"share is {share!r}; accepted is a number between 0 and 1")
    with_label = round(samples * share / 2)
    counts = np.array([with_label, samples // 2 - with_label])
    if counts.min() < 1:
        raise ValueError(
            f"share is {share:g} of {samples} samples, which leaves a group of {counts.min()}; "
            "accepted are shares that leave every group a sample"
        )
    return np.array([counts[0], counts[1], counts[1], counts[0]])


def spurious_features(
    counts: np.ndarray,
    dimension: int,
    generator: torch.Generator,
    *,
    core_noise: float = 0.6,
    spurious_noise: float = 0.3,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return features, labels and groups, group after group.

    Parameters
    ----------
    counts : int [4]
        Samples of each group, from 0 on.
    dimension : int
        D, at least 2: core, spurious, and D - 2 coordinates of noise.
    core_noise, spurious_noise : float
        Standard deviations, positive.

    Returns
    -------
    features : float32 [N, D]
    labels, groups : int64 [N]

    Raises
    ------
    ValueError
        For a number out of range.
    """
    checked_integer(dimension, "dimension", 2)
    scales = _checked_noises(core_noise, spurious_noise)
    counts = _checked_counts(counts)
    if counts.dtype.kind not in "iu":
        raise ValueError(f"counts are {counts}; accepted are whole numbers")
    device = generator.device
    sizes = torch.as_tensor(counts, device=device)
    groups = torch.arange(4, device=device).repeat_interleave(sizes)
    labels, attributes = groups // 2, groups % 2
    features = torch.randn(len(groups), dimension, generator=generator, device=device)
    features[:, :2] *= torch.tensor(scales, device=device)
    features[:, 0] += 2 * labels - 1
    features[:, 1] += 2 * attributes - 1
    return features, labels, groups


def linear_accuracies(
    weight: np.ndarray, bias: float, *, core_noise: float = 0.6, spurious_noise: float = 0.3
) -> np.ndarray:
    """Return the exact accuracy of the rule "1 where weight . z + bias > 0" in each group, [4].

    Parameters
    ----------
    weight : float [D]
        For core, spurious and noise coordinates; not all 0.
    """
    weight = np.asarray(weight, dtype=float)
    if weight.ndim != 1 or len(weight) < 2 or not np.isfinite(weight).all() or not weight.any():
        raise ValueError(f"weight is {weight}; accepted is [D], D at least 2, finite, not all 0")
    if not np.isfinite(bias):
        raise ValueError(f"bias is {bias}; accepted is a finite number")
    _checked_noises(core_noise, spurious_noise)
    scale = np.sqrt(
        (weight[0] * core_noise) ** 2 + (weight[1] * spurious_noise) ** 2 + (weight[2:] ** 2).sum()
    )
    y, a = np.array([-1, -1, 1, 1]), np.array([-1, 1, -1, 1])
    return norm.cdf(y * (weight[0] * y + weight[1] * a + bias) / scale)


def bayes_accuracies(
    counts: np.ndarray, *, core_noise: float = 0.6, spurious_noise: float = 0.3
) -> np.ndarray:
    """Return the accuracy in each group of the rule with the highest mean accuracy, float64 [4].

    Nobody who knows only the features, and is judged by the mean over groups of these proportions,
    can do better. For groups of equal size the rule looks at the core alone, and the accuracy is
    Phi(1 / core_noise) in all of them, which is also the highest possible worst-group accuracy.

    Parameters
    ----------
    counts : float [4]
        Proportions of the groups; each label has some.

    Raises
    ------
    ValueError
        For a label without samples, or a number out of range.
    """
    counts = _checked_counts(counts)
    if not counts[:2].sum() or not counts[2:].sum():
        raise ValueError(f"counts are {counts}; accepted are groups of both labels")
    _checked_noises(core_noise, spurious_noise)
    y, a = np.array([-1, -1, 1, 1]), np.array([-1, 1, -1, 1])
    with np.errstate(divide="ignore"):
        prior = np.log(counts)[:, None]

    def threshold(spurious):
        # The core above which y = 1 is likelier: 2 core / core_noise^2 + log ratio = 0.
        law = prior + norm.logpdf(spurious[None], a[:, None], spurious_noise)
        ratio = np.logaddexp(law[2], law[3]) - np.logaddexp(law[0], law[1])
        return -(core_noise**2) / 2 * ratio

    found = []
    for label, attribute in zip(y, a, strict=True):
        spurious = attribute + spurious_noise * _POINTS
        right = norm.cdf(label * (label - threshold(spurious)) / core_noise)
        found.append(right @ _WEIGHTS)
    return np.array(found)


def _checked_noises(core_noise: float, spurious_noise: float) -> list[float]:
    return [
        checked_positive(core_noise, "core_noise"),
        checked_positive(spurious_noise, "spurious_noise"),
    ]


def _checked_counts(counts: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts)
    if counts.shape != (4,) or not (counts >= 0).all() or not counts.sum() > 0:
        raise ValueError(f"counts are {counts}; accepted are four numbers from 0 on, not all 0")
    return counts
