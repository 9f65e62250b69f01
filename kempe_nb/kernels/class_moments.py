"""Counts, sums and squared deviations of every class, in one read of the features.

For features h_i in R^D with labels y_i in {0, ..., K-1} and a shift s_c for each class:

    counts[c]  = number of i with y_i = c
    sums[c]    = sum over these i of (h_i - s_c)                 in R^D
    squares[c] = sum over these i of |h_i - s_c|^2

Means and within-class scatter follow without another read, and do not depend on the shift:

    mean_c = s_c + sums[c] / n_c,      scatter_c = squares[c] - |sums[c]|^2 / n_c.

In three lines of PyTorch, which the tests hold every implementation to:

    deviations = features - shifts[labels]
    sums = zeros(K, D).index_add(0, labels, deviations)
    squares = zeros(K).index_add(0, labels, deviations.square().sum(1))

Why a shift. Without one, scatter_c is the difference of two numbers of the size n |mean|^2. When
the features have collapsed, with a spread 10,000 times smaller than the means, float32 holds no
digit of it, and its sign may come out wrong. The shift is the first sample of the class in the
stream: it costs no read, it is as close to the mean as the spread, and it does not depend on the
batches.

Bytes. N D elements of features and 8 N bytes of labels are read, K (8 D + 16) are written. The
obvious library calls read the features two to four times and write as many copies of them.

Accuracy. Deviations are formed in the dtype of the features, at least float32, and summed in
blocks; the sums of the blocks are added in float64. Two runs have the same bits; for the definition
on a GPU that takes `torch.use_deterministic_algorithms`.

When not to use it: if the covariance itself is wanted, a D x D matrix, use one matrix product. If
the features are small enough for a cache, any of these forms will do.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from kempe_nb.checks import (
    check_dtype,
    check_finite,
    check_labels,
    checked_integer,
    common_device,
)
from kempe_nb.dispatch import Operation

#: Bytes of the block of deviations that is worked on at a time. On a CPU it stays in the cache of a
#: core; on a GPU it is large enough that launches cost little.
BLOCK_BYTES = {False: 2**21, True: 2**26}


@dataclass(frozen=True)
class ClassMoments:
    """Moments of the features of each class; see the module and `class_moments`.

    Attributes
    ----------
    counts : int64 [K]
        Samples of each class.
    shifts : float32 or float64 [K, D]
        The first sample of each class; zero for a class that has none.
    sums : float64 [K, D]
        Sums of the deviations from the shift.
    squares : float64 [K]
        Sums of the squared lengths of these deviations.
    """

    counts: torch.Tensor
    shifts: torch.Tensor
    sums: torch.Tensor
    squares: torch.Tensor

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.counts)

    @property
    def samples(self) -> int:
        """N, the number of all samples."""
        return int(self.counts.sum())

    @property
    def class_means(self) -> torch.Tensor:
        """The mean of each class, float64 [K, D]; zero for a class without samples."""
        return self.shifts.double() + self.sums / self._divisor[:, None]

    @property
    def global_mean(self) -> torch.Tensor:
        """The mean of all samples, float64 [D]; zero where there are none."""
        weights = self.counts.double() / self.counts.sum().clamp(min=1)
        return weights @ self.class_means

    @property
    def scatter(self) -> torch.Tensor:
        """The sum of |h - mean_c|^2 over each class, float64 [K]; zero for none or one sample."""
        return (self.squares - self.sums.square().sum(1) / self._divisor).clamp(min=0)

    @property
    def _divisor(self) -> torch.Tensor:
        return self.counts.clamp(min=1).double()


def class_moments(
    features: torch.Tensor,
    labels: torch.Tensor,
    num_classes: int,
    *,
    before: ClassMoments | None = None,
    impl: str | None = None,
) -> ClassMoments:
    """Return counts, sums and squared deviations of every class in one read of the features.

    Batches of a stream are given one after another, each with the moments `before` it:

        moments = None
        for features, labels in batches:
            moments = class_moments(features, labels, 10, before=moments)

    The result depends on the samples and their order, and on the size of the batches only by
    rounding. It is differentiable twice with respect to the features.

    Parameters
    ----------
    features : float16, bfloat16, float32 or float64 [N, D]
    labels : int64 or int32 [N]
        From 0 to K - 1, on the device of the features.
    num_classes : int
        K, from 1 on. A class may have no sample, or one.
    before : ClassMoments, optional
        The moments of the samples that came before.
    impl : {"definition", "triton"}, optional
        See `kempe_nb.dispatch`.

    Raises
    ------
    TypeError
        For features that are not floating-point numbers, or labels that are not integers.
    ValueError
        For shapes that do not fit, labels out of range, NaN or infinity among the features, tensors
        on different devices, or `before` from other classes, dimensions or devices.

    Examples
    --------
    >>> h = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
    >>> moments = class_moments(h, torch.tensor([0, 0, 1]), 2)
    >>> moments.class_means.tolist(), moments.scatter.tolist()
    ([[2.0, 0.0], [0.0, 5.0]], [2.0, 0.0])
    """
    num_classes = checked_integer(num_classes, "num_classes", 1, 2**31 - 1)
    device = common_device(features=features, labels=labels)
    check_features(features, labels)
    _check_before(before, features, num_classes)
    choice = OPERATION.choose(device, impl)
    check_labels(labels, num_classes)
    labels = labels.long()
    counts = torch.bincount(labels, minlength=num_classes)
    shifts = _shifts(features.detach(), labels, counts, before)
    sums, squares = _Moments.apply(features, labels, shifts, choice.implementation)
    _check_finite(features, squares)
    if before is not None:
        counts, sums = before.counts + counts, before.sums + sums
        squares = before.squares + squares
    return ClassMoments(counts, shifts, sums, squares)


def minimum_bytes(samples: int, dimensions: int, num_classes: int, itemsize: int = 4) -> int:
    """Return the bytes that must be moved: features and labels in, counts, sums and squares out."""
    return samples * (dimensions * itemsize + 8) + num_classes * (8 * dimensions + 16)


OPERATION = Operation(
    "class_moments",
    # Of the features; the low ones are computed with in float32.
    dtypes=(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    minimum_bytes=minimum_bytes,
)


def check_features(features: torch.Tensor, labels: torch.Tensor) -> None:
    """Refuse features and labels whose dtypes or shapes do not fit, by name."""
    check_dtype(features, "features", OPERATION.dtypes)
    check_dtype(labels, "labels", (torch.int64, torch.int32))
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        shapes = f"features has shape {tuple(features.shape)}, labels {tuple(labels.shape)}"
        raise ValueError(f"{shapes}; accepted are [N, D] and [N]")


def block_rows(centres: torch.Tensor) -> int:
    """Return how many rows of features are worked on at a time; `centres` is [K, D].

    A block holds as many rows as there are classes: what is done once for each class then costs no
    more than what is done for each row.
    """
    num_classes, dimensions = centres.shape
    row_bytes = max(dimensions, 1) * centres.element_size()
    return max(BLOCK_BYTES[centres.device.type == "cuda"] // row_bytes, num_classes, 1)


def computing_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which deviations are formed."""
    return torch.promote_types(dtype, torch.float32)


class _Moments(torch.autograd.Function):
    """Sums and squares about given shifts, which count as constants.

    Means and scatter do not depend on the shifts, so neither do their derivatives.
    """

    @staticmethod
    def forward(features, labels, shifts, implementation):
        if implementation == "triton":
            from kempe_nb.kernels.triton import class_moments as device_code

            return device_code.moments(features, labels, shifts)
        return _blocked(features, labels, shifts)

    @staticmethod
    def setup_context(context, inputs, output):
        features, labels, shifts, _ = inputs
        context.save_for_backward(features, labels, shifts)

    @staticmethod
    def backward(context, of_sums, of_squares):
        features, labels, shifts = context.saved_tensors
        deviations = (features - shifts[labels]).double()
        gradient = of_sums[labels] + 2 * of_squares[labels][:, None] * deviations
        return gradient.to(features.dtype), None, None, None


def deviation_blocks(
    features: torch.Tensor, labels: torch.Tensor, centres: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield h - centre[label] and the labels, block by block, in one read of the features.

    The block is overwritten by the next one. It has the dtype of the centres.
    """
    samples, dimensions = features.shape
    rows = block_rows(centres)
    buffer = centres.new_empty(min(rows, samples), dimensions)
    for start in range(0, samples, rows):
        own = labels[start : start + rows]
        deviations = buffer[: len(own)]
        torch.index_select(centres, 0, own, out=deviations)
        torch.sub(features[start : start + rows], deviations, out=deviations)
        yield deviations, own


def _blocked(features, labels, shifts) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sums and squares; each block of the features is read once and kept in the cache."""
    sums = torch.zeros_like(shifts, dtype=torch.float64)
    squares = shifts.new_zeros(len(shifts), dtype=torch.float64)
    if not features.numel():
        return sums, squares
    for deviations, own in deviation_blocks(features, labels, shifts):
        _add_block(deviations, own, sums, squares)
    return sums, squares


def _add_block(deviations, labels, sums, squares) -> None:
    """Add the deviations of a block to the sums of their classes."""
    order = torch.argsort(labels, stable=True)
    counts = torch.bincount(labels, minlength=len(sums))
    found = torch.nonzero(counts).squeeze(1)
    first = counts.cumsum(0)[found] - counts[found]
    # A bag is a class: this sums rows in the given order, without a copy of them.
    of_classes = F.embedding_bag(order, deviations, first, mode="sum")
    # The norm is one pass where a square and its sum are two.
    lengths = torch.linalg.vector_norm(deviations, dim=1).double().square()
    if len(found) == len(sums):
        sums += of_classes
    else:
        sums.index_add_(0, found, of_classes.double())
    squares.index_add_(0, labels, lengths)


def _shifts(features, labels, counts, before: ClassMoments | None) -> torch.Tensor:
    """Return the first sample of each class in the stream, and zero where there is none yet."""
    samples, num_classes = len(labels), len(counts)
    shifts = features.new_zeros(
        num_classes, features.shape[1], dtype=computing_dtype(features.dtype)
    )
    new = counts > 0
    if before is not None:
        shifts.copy_(before.shifts)
        new = new & (before.counts == 0)
    places = torch.arange(samples, device=labels.device)
    first = torch.full_like(counts, samples).scatter_reduce(0, labels, places, "amin")
    shifts[new] = features.index_select(0, first[new]).to(shifts.dtype)
    return shifts


def _check_before(before: ClassMoments | None, features, num_classes: int) -> None:
    if before is None:
        return
    if not isinstance(before, ClassMoments):
        raise TypeError(f"before is a {type(before).__name__}; accepted is a ClassMoments")
    expected = (num_classes, features.shape[1])
    if (found := tuple(before.shifts.shape)) != expected:
        raise ValueError(f"before has classes and dimensions {found}; accepted is {expected}")
    dtype = computing_dtype(features.dtype)
    if (before.shifts.dtype, before.shifts.device) != (dtype, features.device):
        raise ValueError(
            f"before holds {before.shifts.dtype} on {before.shifts.device}; "
            f"features are summed in {dtype} on {features.device}"
        )


def _check_finite(features: torch.Tensor, squares: torch.Tensor) -> None:
    """Refuse NaN and infinity; they are in the squares, so that no read is spent on looking."""
    if torch.isfinite(squares).all():
        return
    check_finite(features, "features")
    raise ValueError("features is so large that differences overflow; accepted are smaller numbers")
