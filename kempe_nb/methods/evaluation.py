"""What a synthetic set is worth: fresh networks are trained on it and asked about real data."""

import torch

from kempe_nb.checks import check_labels, checked_integer, common_device
from kempe_nb.methods.ensembles import accuracies, train
from kempe_nb.methods.optimisers import Optimiser
from kempe_nb.methods.unrolled import Batch
from kempe_nb.networks.flat import FlatNetwork


def evaluate(
    network: FlatNetwork,
    images: torch.Tensor,
    labels: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    optimiser: Optimiser,
    steps: int,
    *,
    count: int = 5,
    seed: int = 0,
    batch: Batch | None = None,
) -> torch.Tensor:
    """Train fresh networks on a synthetic set; return how often each is right on real data.

    Parameters
    ----------
    network : FlatNetwork
    images : float32 or float64 [n, ...]
    labels : like images, [n, classes]
        Targets of the cross-entropy, one-hot or learned.
    x : like images, [N, ...]
        Real images.
    y : int64 [N]
        Their classes.
    optimiser : Optimiser
    steps : int
        Of each network, on the whole set or on what `batch` makes of it.
    count : int
        Of networks. They are trained at once, see `ensembles.train`.
    seed : int
        Of their initial parameters.
    batch : callable, optional
        `batch((images, labels), step)`; see `augmentation.inner_batches`.

    Returns
    -------
    torch.Tensor
        Shares of right answers, float64 [count].

    Raises
    ------
    ValueError
        For counts or steps below one, labels that are not one row for each image, images that are
        not like the real ones, classes that are not one for each of these or have no label, or two
        devices.
    """
    count = checked_integer(count, "count", 1, 2**31 - 1)
    steps = checked_integer(steps, "steps", 1, 2**31 - 1)
    seed = checked_integer(seed, "seed", 0, 2**63 - 1)
    common_device(images=images, labels=labels, x=x, y=y)
    if labels.ndim != 2 or len(labels) != len(images) or labels.dtype != images.dtype:
        raise ValueError(
            f"labels are {labels.dtype} {tuple(labels.shape)}; accepted is {images.dtype} "
            f"[{len(images)}, classes], a row for each image"
        )
    if images.shape[1:] != x.shape[1:] or images.dtype != x.dtype:
        raise ValueError(
            f"images are {images.dtype} {tuple(images.shape)} and x {x.dtype} {tuple(x.shape)}; "
            "accepted are images like the real ones"
        )
    if y.dtype != torch.int64 or y.shape != (len(x),) or not len(x):
        raise ValueError(
            f"y is {y.dtype} {tuple(y.shape)} and x has {len(x)} images; accepted is int64 with "
            "one class for each image, and at least one image"
        )
    check_labels(y, labels.shape[1])
    generator = torch.Generator(images.device).manual_seed(seed)
    thetas = network.initial(generator, count, dtype=images.dtype)
    (trained,) = train(network, images, labels, thetas, optimiser, [steps], batch=batch)
    return accuracies(network, trained, x, y)
