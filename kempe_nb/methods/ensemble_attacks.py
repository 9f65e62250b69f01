"""Attacks on what an ensemble says, right and wrong ones, and attacks on how sure it is.

A model here returns the logits of S networks, [S, N, K], and answers with the mean pbar of their
probabilities. To fool it is to raise - log pbar_y, whose gradient is the mean of the networks' own
gradients weighted by their responsibilities r_s = p_sy / sum_t p_ty (`kernels.ensemble_moments`).
`LOSSES` has this one and what published attacks took in its place, each by its name: an attack with
a wrong loss may fail where the ensemble is not robust at all.

Uncertainty is attacked in the same ball. `aware_attack` first finds a wrong answer and then makes
the ensemble sure of it; `move_entropy` makes an input look like one of another kind.

The attack is `attacks.pgd` throughout, with its guarantees: a module's modes and gradients are left
alone, and so is the global generator where one is given.
"""

from collections.abc import Callable, Mapping

import torch
from torch.nn import functional as F

from kempe_nb.checks import checked_choice, checked_integer
from kempe_nb.kernels.ensemble_moments import ensemble_moments
from kempe_nb.methods.attacks import (
    Attacked,
    Loss,
    log_odds,
    margin,
    on_survivors,
    pgd,
    prediction,
)
from kempe_nb.networks.modes import evaluating


def mean_logit(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the log odds of the mean of the logits, [N]: one network that nobody asked."""
    return log_odds(logits.mean(0), labels)


def first_network(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the log odds of the first network alone, [N]."""
    return log_odds(logits[0], labels)


def mean_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean of the networks' own cross-entropies, [N].

    Networks that are fooled already weigh as much as the others. In float32 it has no gradient from
    a network that is sure by more than 16.6 nats.
    """
    every = labels.expand(len(logits), -1)
    return F.cross_entropy(logits.movedim(2, 1), every, reduction="none").mean(0)


def log_of_mean(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return - log of the mean of the softmaxes, [N]: the right loss in arithmetic that saturates.

    Where a probability rounds to 0 or 1 its gradient is exactly zero.
    """
    mean = logits.softmax(2).mean(0).gather(1, labels[:, None])[:, 0]
    return -mean.clamp(min=torch.finfo(mean.dtype).tiny).log()


def double_softmax(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of the mean probabilities, taken for logits, [N].

    For K classes it lies between log(e + K - 1) - 1 and log(e + K - 1), whatever the networks say.
    """
    return F.cross_entropy(logits.softmax(2).mean(0), labels, reduction="none")


#: Losses of the logits [S, N, K] and labels [N]; the first two are right.
LOSSES: dict[str, Loss] = {
    "log mean": log_odds,
    "margin of the mean": margin,
    "mean logit": mean_logit,
    "first network": first_network,
    "mean loss": mean_loss,
    "log of mean": log_of_mean,
    "double softmax": double_softmax,
}


def entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the entropy of the mean prediction in nats, [N]; the labels play no part."""
    return ensemble_moments(logits).total_entropy


def certainty(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the largest log mean probability, [N]; it grows as the entropy falls."""
    return prediction(logits).log_softmax(1).amax(1)


def wrong_certainty(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the largest log mean probability of a class that is not the label, [N]."""
    log_p = prediction(logits).log_softmax(1)
    return log_p.scatter(1, labels[:, None], -torch.inf).amax(1)


def strongest(
    model: Callable,
    images: torch.Tensor,
    labels: torch.Tensor,
    epsilon: float | torch.Tensor,
    losses: Mapping[str, Loss],
    **settings,
) -> Attacked:
    """Return the worst that PGD finds with any of the losses, for each image.

    Each loss attacks the images that the others have left. The accuracy is at most that under each
    single loss, and the mean of several attacks' accuracies would be no robustness.

    Parameters
    ----------
    losses : mapping of callables
        At least one, such as `LOSSES` or a part of it.
    **settings
        Of `pgd`, but `loss`; those that are one for each image are taken apart.
    """
    if not losses:
        raise ValueError("losses is empty; accepted is one loss at least")
    settings["epsilon"] = epsilon
    of_images = {
        name
        for name in ("epsilon", "step", "start")
        if isinstance(settings.get(name), torch.Tensor) and settings[name].ndim
    }
    found = None
    for loss in losses.values():

        def attack(i, loss=loss):
            own = {name: settings[name].to(images.device)[i] for name in of_images}
            return pgd(model, images[i], labels[i], loss=loss, **settings | own)

        found = attack(slice(None)) if found is None else on_survivors(found, attack)
    return found


def aware_attack(
    model: Callable,
    images: torch.Tensor,
    labels: torch.Tensor,
    epsilon: float,
    *,
    steps: int,
    generator: torch.Generator | None = None,
    **settings,
) -> Attacked:
    """Return an attack that knows that unsure answers are thrown away.

    `steps` steps of PGD look for a wrong answer, and as many more, in the same ball around the
    given images, raise the largest probability of a wrong class.

    Parameters
    ----------
    model, images, labels, epsilon, steps, generator
        As `pgd`.
    **settings
        Of both calls of `pgd`, such as `step` and `norm`.
    """
    checked_integer(steps, "steps", 1)
    settings |= {"steps": steps}
    first = pgd(model, images, labels, epsilon, generator=generator, **settings)
    return pgd(model, images, labels, epsilon, start=first.images, loss=wrong_certainty, **settings)


def move_entropy(
    model: Callable, images: torch.Tensor, epsilon: float, direction: str, **settings
) -> Attacked:
    """Return images in the ball that look as sure, or as unsure, as PGD can make them.

    Parameters
    ----------
    direction : {"up", "down"}
        "up" raises the entropy of the mean, "down" raises its largest log probability, which has a
        gradient where the entropy of a uniform answer has none.
    **settings
        Of `pgd`, but `loss` and `keep`.

    Returns
    -------
    Attacked
        The end of the path; `fooled` says whether the answer has changed.
    """
    checked_choice(direction, "direction", ("up", "down"))
    with evaluating(model), torch.no_grad():
        answers = prediction(model(images)).argmax(1)
    loss = entropy if direction == "up" else certainty
    return pgd(model, images, answers, epsilon, loss=loss, keep="last", **settings)
