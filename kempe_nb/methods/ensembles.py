"""Many networks of one shape, trained at once by vmap, and how often they are right."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch.nn import functional as F

from kempe_nb.methods.optimisers import Optimiser
from kempe_nb.methods.unrolled import Loss, advance, start
from kempe_nb.networks.flat import FlatNetwork


@lru_cache(maxsize=32)
def _loss_of_many(network: FlatNetwork, own: bool) -> Loss:
    """Return the sum of the cross-entropies of many, on one set or on a set for each."""
    each = torch.func.vmap(
        lambda theta, x, y: F.cross_entropy(network(theta, x), y),
        in_dims=(0, 0, 0) if own else (0, None, None),
    )
    return Loss(lambda thetas, x, y: each(thetas, x, y).sum(), trace=True)


def train(
    network: FlatNetwork,
    images: torch.Tensor,
    labels: torch.Tensor,
    thetas: torch.Tensor,
    optimiser: Optimiser,
    checkpoints: Sequence[int],
    *,
    batch: Callable | None = None,
) -> list[torch.Tensor]:
    """Train many networks at once, and return their parameters after some numbers of steps.

    Parameters
    ----------
    images : [n, ...], or [V, n, ...] for a set of its own for each network
    labels : float [n, classes] or [V, n, classes]
        Targets of the cross-entropy, one-hot or learned.
    thetas : [V, P]
        Where the networks start.
    checkpoints : sequence of int
        Numbers of steps, increasing.
    batch : callable, optional
        `batch((images, labels), step)`; see `inner_batches`. For one set, not for many.

    Returns
    -------
    list of torch.Tensor
        Parameters [V, P] at each checkpoint.
    """
    own = labels.ndim == 3
    if own and len(images) != len(thetas):
        raise ValueError(
            f"images hold {len(images)} sets and thetas {len(thetas)} networks; accepted is one "
            "set for each network, or one for all"
        )
    if own and batch is not None:
        raise ValueError("batch is given for a set for each network; accepted is one set for all")
    if list(checkpoints) != sorted(set(checkpoints)) or min(checkpoints, default=0) < 1:
        raise ValueError(f"checkpoints are {checkpoints}; accepted are increasing steps from 1 on")
    loss = _loss_of_many(network, own)
    state, found = start(thetas, optimiser), []
    for stop in checkpoints:
        state = advance(loss, (images, labels), state, optimiser, stop - state.step, batch=batch)
        found.append(state.theta)
    return found


@torch.no_grad()
def accuracies(
    network: FlatNetwork, thetas: torch.Tensor, x: torch.Tensor, y: torch.Tensor, chunk: int = 500
) -> torch.Tensor:
    """Return the share of right answers of each network, float64 [V]."""
    if not len(y) or len(x) != len(y):
        raise ValueError(f"x has {len(x)} images and y {len(y)} classes; accepted is one for each")
    right = torch.zeros(len(thetas), dtype=torch.float64)
    logits = torch.func.vmap(network, in_dims=(0, None))
    for images, classes in zip(x.split(chunk), y.split(chunk), strict=True):
        right += (logits(thetas, images).argmax(2) == classes).double().sum(1).cpu()
    return right / len(y)
