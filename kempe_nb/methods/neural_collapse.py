"""Neural collapse: the simplex it tends to, and NC1 to NC4 in two reads of the features.

Papyan, Han and Donoho (PNAS 2020, arXiv 2008.08186); the metrics as *On the Robustness of Neural
Collapse and the Neural Collapse of Robustness* (arXiv 2311.07444) takes them. With class means
mu_c, the mean mu_G of all samples, M = [mu_c - mu_G] and

    Sigma_W = 1/N sum_i (h_i - mu_{y_i}) (h_i - mu_{y_i})^T,    Sigma_B = 1/K sum_c M_c M_c^T,

NC1 is Tr(Sigma_W Sigma_B^+). Neither matrix is formed. With the eigenvectors q_r and eigenvalues
l_r of the K x K matrix M^T M, and the directions v_r = M q_r / sqrt(l_r) in feature space,

    Sigma_B^+ = K sum_r v_r v_r^T / l_r,    so
    NC1 = K/N sum_r sum_i (v_r . (h_i - mu_{y_i}))^2 / l_r.

The first read gives the means (`kempe_nb.class_moments`); the second takes the deviations d_i from
them through one product with [v_1, ..., v_R, w_1, ..., w_K]. All else follows from it: distances to
all centres are |d|^2 + 2 d . (mu_y - mu_c) + |mu_y - mu_c|^2, logits are w . d + w . mu_y + b.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from kempe_nb.checks import check_finite, checked_integer, common_device
from kempe_nb.kernels.class_moments import (
    ClassMoments,
    check_features,
    class_moments,
    computing_dtype,
    deviation_blocks,
)

#: What `neural_collapse_metrics` reads: a function that starts a new pass over (features, labels).
Batches = Callable[[], Iterable[tuple[torch.Tensor, torch.Tensor]]]


@dataclass(frozen=True)
class NeuralCollapse:
    """The metrics of one data set under one last layer; all but the last three are 0 at collapse.

    Only classes that have samples take part; K below is their number.

    Attributes
    ----------
    nc1 : float
        Tr(Sigma_W Sigma_B^+), as in the paper's code. Infinite if the class means coincide while
        the features do not.
    nc1_over_k : float
        nc1 / K, the convention of Papyan, Han and Donoho.
    trace_ratio : float
        Tr Sigma_W / Tr Sigma_B, in all directions and not only in those of the means.
    nc2_equinorm_means, nc2_equinorm_weights : float
        Standard deviation (with K - 1) over mean of |mu_c - mu_G| and of |w_c|.
    nc2_equiangular_means, nc2_equiangular_weights : float
        Mean of |cos + 1/(K - 1)| over pairs of classes; a vector of length zero has cosine 0.
    nc3 : float
        | W / |W| - M^T / |M| |^2 in Frobenius norms: 0 for self-duality, 2 on average for
        directions that have nothing to do with each other, at most 4.
    nc4 : float
        Share of samples whose nearest class mean is not the class of the largest logit. This is
        agreement with the network; labels enter it only through the means.
    nearest_centre_accuracy, network_accuracy : float
        Share of samples whose nearest class mean, whose largest logit is that of their label.
    classes, samples : int
        K, N.
    """

    nc1: float
    nc1_over_k: float
    trace_ratio: float
    nc2_equinorm_means: float
    nc2_equinorm_weights: float
    nc2_equiangular_means: float
    nc2_equiangular_weights: float
    nc3: float
    nc4: float
    nearest_centre_accuracy: float
    network_accuracy: float
    classes: int
    samples: int


def neural_collapse_metrics(
    features: torch.Tensor,
    labels: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    impl: str | None = None,
) -> NeuralCollapse:
    """Return NC1 to NC4 of features under a linear last layer, in two reads of the features.

    Parameters
    ----------
    features : float16, bfloat16, float32 or float64 [N, D]
        What the last layer takes.
    labels : int64 or int32 [N]
    weight : [num_classes, D]
        Of the last layer; num_classes is at least 2.
    bias : [num_classes], optional
    impl : str, optional
        Of `kempe_nb.class_moments`.

    Raises
    ------
    TypeError, ValueError
        As `kempe_nb.class_moments`; and for weights or biases whose shapes do not fit or that are
        not finite, for one class, or where fewer than two classes have samples.
    """
    return streamed_neural_collapse_metrics(lambda: [(features, labels)], weight, bias, impl=impl)


@torch.no_grad()
def streamed_neural_collapse_metrics(
    batches: Batches,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    impl: str | None = None,
) -> NeuralCollapse:
    """Return the metrics of features that come in batches and never stand in memory together.

    Parameters
    ----------
    batches : callable
        Each call starts a new pass over the same (features, labels), in any sizes; it is called
        twice. A generator function is one; a generator is not.

    Other parameters, and errors, as for `neural_collapse_metrics`; a second pass with other
    samples than the first is refused.
    """
    _check_layer(weight, bias)
    if not callable(batches):
        raise TypeError(
            f"batches is a {type(batches).__name__}; accepted is a function that starts a pass"
        )
    moments = None
    for features, labels in batches():
        common_device(features=features, labels=labels, weight=weight)
        _check_width(features, labels, weight)
        moments = class_moments(features, labels, len(weight), before=moments, impl=impl)
    if moments is None or (found := int((moments.counts > 0).sum())) < 2:
        found = 0 if moments is None else found
        raise ValueError(f"labels has samples of {found} classes; accepted are 2 or more")
    second = _SecondPass(moments, weight, bias)
    for features, labels in batches():
        second.add(features, labels.long())
    return second.metrics()


def nearest_centre(features: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Return the index of the nearest centre of each row, int64 [N]; the lowest of equal ones.

    Differences are formed about the mean of the centres, so that a common offset costs no digits.

    Parameters
    ----------
    features : [N, ...]
        Flattened to [N, D], so that activations of a convolution can be given.
    centres : [K, ...]
        Of the same shape behind the first axis.
    """
    if features.shape[1:] != centres.shape[1:] or not len(centres):
        shapes = f"features has shape {tuple(features.shape)}, centres {tuple(centres.shape)}"
        raise ValueError(f"{shapes}; accepted are [N, ...] and [K, ...] with the same rest, K >= 1")
    features, centres = features.flatten(1), centres.flatten(1).to(features.dtype)
    middle = centres.mean(0)
    centres = centres - middle
    products = (features - middle) @ centres.T
    return (centres.square().sum(1) - 2 * products).argmin(1)


def simplex_etf(num_classes: int, dimensions: int | None = None) -> torch.Tensor:
    """Return the unit vectors of a simplex equiangular tight frame as rows, float64 [K, D].

    K vectors that sum to zero, with the cosine -1/(K - 1) between any two of them.

    Parameters
    ----------
    num_classes : int
        K, from 2 on.
    dimensions : int, optional
        D, at least K - 1; K - 1 by default.
    """
    num_classes = checked_integer(num_classes, "num_classes", 2, 2**20)
    least = num_classes - 1
    dimensions = least if dimensions is None else dimensions
    dimensions = checked_integer(dimensions, "dimensions", least, 2**31 - 1)
    centred = torch.eye(num_classes, dtype=torch.float64) - 1 / num_classes
    # Orthonormal rows that span the vectors of sum zero.
    basis = torch.linalg.eigh(centred).eigenvectors[:, 1:]
    frame = torch.zeros(num_classes, dimensions, dtype=torch.float64)
    frame[:, :least] = basis * (num_classes / least) ** 0.5
    return frame


class _SecondPass:
    """What the deviations from the class means give: NC1, distances to centres, logits."""

    def __init__(self, moments: ClassMoments, weight: torch.Tensor, bias: torch.Tensor | None):
        self.moments = moments
        self.present = moments.counts > 0
        self.weight = weight.detach().double()
        means = moments.class_means
        self.centred = means - moments.global_mean
        own = self.centred[self.present]
        #: Eigenvectors, eigenvalues and directions, [K, R], [R] and [D, R].
        self.vectors, self.values = _spectrum(own)
        self.directions = own.T @ self.vectors / self.values.sqrt()
        kind = computing_dtype(moments.shifts.dtype)
        self.centres = means.to(kind)
        # Deviations are from rounded means; this is what that adds to the sums of their squares.
        rounding = (means - self.centres.double()) @ self.directions
        self.excess = (moments.counts[:, None] * rounding.square()).sum(0)
        self.columns = torch.cat([self.directions, self.weight.T], 1).to(kind)
        # What each class adds to distances and logits, whatever the deviation.
        self.back = (self.values.sqrt() * self.vectors).T.to(kind)
        gaps = means.new_full((len(means), len(means)), torch.inf)
        gaps[:, self.present] = torch.cdist(
            self.centred, own, compute_mode="donot_use_mm_for_euclid_dist"
        ).square()
        self.gaps = gaps.to(kind)
        logits = means @ self.weight.T
        self.logits = (logits if bias is None else logits + bias.double()).to(kind)
        self.projected = torch.zeros_like(self.values)
        self.seen = torch.zeros_like(moments.counts)
        self.hits = torch.zeros(3, dtype=torch.int64, device=means.device)

    def add(self, features: torch.Tensor, labels: torch.Tensor) -> None:
        """Read a batch for the second time."""
        self.seen += torch.bincount(labels, minlength=len(self.seen))
        for deviations, own in deviation_blocks(features, labels, self.centres):
            products = deviations @ self.columns
            along, logits = products.split([len(self.values), len(self.weight)], 1)
            self.projected += along.double().square().sum(0)
            distances = self.gaps[own]
            distances[:, self.present] -= 2 * (along @ self.back)
            nearest, answer = distances.argmin(1), (logits + self.logits[own]).argmax(1)
            self.hits += torch.stack(
                [(nearest != answer).sum(), (nearest == own).sum(), (answer == own).sum()]
            )

    def metrics(self) -> NeuralCollapse:
        """Return the metrics after the second pass."""
        moments = self.moments
        if not torch.equal(self.seen, moments.counts):
            raise ValueError("batches gave other labels in its second pass than in its first")
        samples, num_classes = moments.samples, int(self.present.sum())
        means, weight = self.centred[self.present], self.weight[self.present]
        scatter = moments.scatter.sum().item() / samples
        squares = (self.projected - self.excess).clamp(min=0)
        nc1 = num_classes / samples * (squares / self.values).sum().item()
        between = means.square().sum().item() / num_classes
        if not len(self.values):
            nc1 = torch.inf if scatter > 0 else 0.0
        disagreement, centre, network = (self.hits.double() / samples).tolist()
        return NeuralCollapse(
            nc1=nc1,
            nc1_over_k=nc1 / num_classes,
            trace_ratio=scatter / between if between else (torch.inf if scatter > 0 else 0.0),
            nc2_equinorm_means=_equinorm(means),
            nc2_equinorm_weights=_equinorm(weight),
            nc2_equiangular_means=_equiangular(means),
            nc2_equiangular_weights=_equiangular(weight),
            nc3=(_unit(weight) - _unit(means)).square().sum().item(),
            nc4=disagreement,
            nearest_centre_accuracy=centre,
            network_accuracy=network,
            classes=num_classes,
            samples=samples,
        )


def _spectrum(means: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return eigenvectors [K, R] and positive eigenvalues [R] of the Gram matrix of centred means.

    Weighted by the counts they sum to zero, so R is at most K - 1; the cut is that of a
    pseudo-inverse.
    """
    values, vectors = torch.linalg.eigh(means @ means.T)
    cut = max(means.shape) * torch.finfo(values.dtype).eps * values[-1]
    kept = values > cut.clamp(min=0)
    kept[0] = False
    return vectors[:, kept], values[kept]


def _equinorm(vectors: torch.Tensor) -> float:
    lengths = vectors.norm(dim=1)
    return (lengths.std() / lengths.mean().clamp(min=1e-300)).item()


def _equiangular(vectors: torch.Tensor) -> float:
    lengths = vectors.norm(dim=1, keepdim=True)
    units = vectors / lengths.clamp(min=1e-300)
    number = len(units)
    away = (units @ units.T + 1 / (number - 1)).abs()
    return ((away.sum() - away.diagonal().sum()) / (number * (number - 1))).item()


def _unit(matrix: torch.Tensor) -> torch.Tensor:
    return matrix / matrix.norm().clamp(min=1e-300)


def _check_layer(weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    named = {"weight": weight} | ({} if bias is None else {"bias": bias})
    common_device(**named)
    if weight.ndim != 2 or len(weight) < 2:
        raise ValueError(f"weight has shape {tuple(weight.shape)}; accepted is [K, D] with K >= 2")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias has shape {tuple(bias.shape)}; accepted is {(len(weight),)}")
    for name, tensor in named.items():
        check_finite(tensor, name)


def _check_width(features: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor) -> None:
    check_features(features, labels)
    if features.shape[1] != weight.shape[1]:
        raise ValueError(
            f"features has {features.shape[1]} columns, weight {weight.shape[1]}; "
            "accepted is the same number"
        )
