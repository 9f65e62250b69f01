"""Adversarial attacks on image classifiers: FGSM, PGD, and the worst case of several.

An attack looks for an image x' near x, with |x' - x| <= epsilon in the maximum norm or the
Euclidean norm, that the model takes for something else. Goodfellow et al. (arXiv 1412.6572) take
one step along the sign of the gradient; Madry et al. (arXiv 1706.06083) repeat a smaller one and
project back each time:

    x' <- clip(project(x' + step * direction(gradient of the loss at x')))

Attacks leave no trace in a model that is a module. It is attacked in evaluation mode, so that batch
normalisation uses its running statistics and does not update them, and every part has its old mode
afterwards. A model that is another callable is called as it is. Gradients are taken with respect to
the images alone: none is computed for a weight, which saves a third of the work, and none is left
in `.grad`.

Nor can confidence blind them. In float32 the cross-entropy of a well trained network is exactly 0,
with a gradient of exactly 0, and an attack that sees no gradient looks like a robust network. But
the cross-entropy is log(1 + exp(m)) of the log odds m against the label, and both kinds of step use
the direction of the gradient only. For a model that treats each image by itself, as all do in
evaluation mode, ascending m is the same attack, and m does not saturate.

A model may be an ensemble, whose logits are [S, N, K]. Its answer is the mean of its probabilities,
and that is what an attack has to fool; losses that are something else are in `ensemble_attacks`.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from kempe_nb.checks import check_labels, checked_choice, checked_integer
from kempe_nb.kernels.ensemble_moments import TELLING, ensemble_moments
from kempe_nb.methods.image_ball import Ball, for_each, wide
from kempe_nb.networks.modes import evaluating

NORMS = ("linf", "l2")
#: A loss: logits [N, K], or [S, N, K], and labels [N] to one number for each image [N], large where
#: an attack on the labels is close.
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Attacked:
    """What an attack found.

    Attributes
    ----------
    images : [N, ...]
        As near to the given images as was asked for, and in the same range.
    logits : [N, K]
        Of these images; the model in evaluation mode. Log probabilities of an ensemble.
    fooled : bool [N]
        Whether the model answers otherwise than the labels; for a targeted attack, as the targets.
    blind : bool [N]
        Whether the gradient was exactly zero at some step, so that the attack could not see.
    """

    images: torch.Tensor
    logits: torch.Tensor
    fooled: torch.Tensor
    blind: torch.Tensor

    @property
    def accuracy(self) -> float:
        """The share of the images that are not fooled."""
        return 1.0 - self.fooled.double().mean().item()


def prediction(outputs: torch.Tensor) -> torch.Tensor:
    """Return logits [N, K] as they are, and of an ensemble's [S, N, K] the log mean probability."""
    return outputs if outputs.ndim < 3 else ensemble_moments(outputs).log_mean


def log_odds(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return log((1 - p) / p) for the probability p of the label, float64 [N].

    The cross-entropy is softplus of it: they grow together, and their gradients have the same
    direction, but this one does not vanish.
    """
    others, own = _apart(logits, labels)
    return others.logsumexp(1) - own


def margin(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the largest other logit minus that of the label, float64 [N]; positive if wrong.

    It does not saturate: its gradient has the same size at every confidence (Carlini and Wagner,
    arXiv 1608.04644).
    """
    others, own = _apart(logits, labels)
    return others.amax(1) - own


def fgsm(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    epsilon: float | torch.Tensor,
    **settings,
) -> Attacked:
    """Return the fast gradient sign attack: one step of the full length from the image itself.

    The settings `norm`, `loss`, `targeted` and `bounds` are those of `pgd`.
    """
    return pgd(
        model, images, labels, epsilon, steps=1, step=epsilon, start=images, keep="last", **settings
    )


def pgd(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    epsilon: float | torch.Tensor,
    *,
    norm: str = "linf",
    steps: int = 10,
    step: float | torch.Tensor | None = None,
    restarts: int = 1,
    start: torch.Tensor | None = None,
    loss: Loss = log_odds,
    targeted: bool = False,
    keep: str = "best",
    decay: bool = False,
    bounds: tuple[float, float] = (0.0, 1.0),
    fresh: bool = False,
    generator: torch.Generator | None = None,
) -> Attacked:
    """Return the images that projected gradient ascent of the loss finds around the given ones.

    Parameters
    ----------
    model : module or callable
        Images to logits [N, K], or those of an ensemble [S, N, K]; K at least 2.
    images : float32 or float64 [N, ...]
        Within `bounds`.
    labels : int64 [N]
        The true classes; with `targeted`, the classes that the model shall see.
    epsilon : float or tensor [N]
        Radius of the ball, not negative; one for all images or one for each.
    norm : {"linf", "l2"}
        The maximum norm with sign steps, or the Euclidean norm with normalised steps.
    steps : int
        Gradients for each restart.
    step : float or tensor [N], optional
        Length of a step; epsilon / 4 by default (8/255 and 2/255 in the papers).
    restarts : int
        Independent random starts; with more than one the best is kept for each image.
    start : [N, ...], optional
        Images to start from in place of random ones in the ball.
    loss : callable
        `log_odds` (the cross-entropy), `margin` or another; a targeted attack descends it.
    keep : {"best", "last"}
        For each image the best that was seen (fooled before not fooled, then by the loss), or the
        end of the path.
    decay : bool
        Let the length of the steps fall linearly to zero.
    bounds : (low, high)
        The range of images.
    fresh : bool
        Say that the ensemble draws other networks at each call, so that every step ascends another
        sample of the expected loss (Athalye et al., arXiv 1707.07397). It takes keep="last" and one
        start: the best of many draws would be the luckiest. `fooled` is that of the last draw.
    generator : torch.Generator, optional
        Of the random starts; PyTorch's global one by default.

    Raises
    ------
    TypeError
        For images of another dtype.
    ValueError
        For an argument out of its range, named, a model that returns probabilities, or an ensemble
        that draws other networks at each call without `fresh`.
    """
    check(images, labels, epsilon, bounds)
    _check_settings(norm, steps, restarts, keep, fresh)
    images = images.detach()
    ball = Ball(images, for_each(epsilon, images, "epsilon"), norm, bounds)
    length = ball.epsilon / 4 if step is None else for_each(step, images, "step")
    sign = -1.0 if targeted else 1.0
    best = None
    with evaluating(model):
        for _ in range(restarts):
            origin = ball.random(generator) if start is None else ball.project(start.detach())
            path = _climb(model, origin, labels, ball, length, steps, loss, sign, decay, fresh)
            if keep == "last":
                path = [deque(path, maxlen=1).pop()]
            for point in path:
                seen = _seen(point, labels, targeted)
                best = seen if best is None else best.better_of(seen)
    return Attacked(best.images, best.logits, best.fooled, best.blind)


def worst_case(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    epsilon: float,
    *,
    norm: str = "linf",
    steps: int = 40,
    restarts: int = 2,
    targets: int = 3,
    bounds: tuple[float, float] = (0.0, 1.0),
    generator: torch.Generator | None = None,
) -> Attacked:
    """Return the worst that several attacks find together, each on what has survived the others.

    In the spirit of AutoAttack (Croce and Hein, arXiv 2003.01690): an accuracy under one attack is
    only an upper bound, and attacks fail in different ways. In turn come PGD on the cross-entropy,
    PGD on the margin, and PGD towards each of the `targets` likeliest other classes, all with steps
    that decay. A point that any of them fools counts as fooled.
    """
    settings = {"norm": norm, "steps": steps, "bounds": bounds, "generator": generator}
    settings |= {"decay": True, "step": epsilon / 2}
    found = pgd(model, images, labels, epsilon, restarts=restarts, **settings)
    found = on_survivors(
        found,
        lambda i: pgd(
            model, images[i], labels[i], epsilon, restarts=restarts, loss=margin, **settings
        ),
    )
    with evaluating(model), torch.no_grad():
        answers = prediction(model(images)).scatter(1, labels[:, None], -math.inf)
        ranked = answers.argsort(1, descending=True)
    for place in range(min(targets, ranked.shape[1] - 1)):
        aim = ranked[:, place]
        found = on_survivors(
            found,
            lambda i, aim=aim: pgd(
                model, images[i], labels[i], epsilon, loss=towards(aim[i]), **settings
            ),
        )
    return found


def on_survivors(found: Attacked, attack: Callable[[torch.Tensor], Attacked]) -> Attacked:
    """Return what was found, and what another attack finds on the images that are not fooled."""
    left = torch.nonzero(~found.fooled).squeeze(1)
    if not len(left):
        return found
    more = attack(left)
    return Attacked(
        found.images.index_copy(0, left, more.images),
        found.logits.index_copy(0, left, more.logits),
        found.fooled.index_copy(0, left, more.fooled),
        found.blind.index_copy(0, left, found.blind[left] | more.blind),
    )


def towards(targets: torch.Tensor) -> Loss:
    """Return the loss that grows as the logit of each target passes that of the label, [N]."""

    def ahead(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        pair = prediction(logits).double().gather(1, torch.stack([targets, labels], 1))
        return pair[:, 0] - pair[:, 1]

    return ahead


def sign_noise(
    images: torch.Tensor,
    epsilon: float,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Return images with +epsilon or -epsilon added to every pixel, by a fair coin; then clipped.

    As far from the image in both norms as an attack may go, in no direction in particular.
    """
    coin = torch.rand(images.shape, generator=generator, device=images.device) < 0.5
    sign = coin.to(images.dtype).mul(2).sub(1)
    return (images + epsilon * sign).clamp(*bounds)


def check(
    images: torch.Tensor,
    labels: torch.Tensor,
    epsilon: float | torch.Tensor,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Refuse images, labels and radii that no attack can start from; see `pgd`."""
    if images.dtype not in (torch.float32, torch.float64):
        # In half precision a pixel would be rounded out of its ball.
        raise TypeError(f"images is {images.dtype}; accepted are float32 and float64")
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"labels is {labels.dtype} {tuple(labels.shape)}; "
            f"accepted is int64 {tuple(images.shape[:1])}"
        )
    if images.device != labels.device:
        raise ValueError(f"images is on {images.device}, labels on {labels.device}")
    radius = torch.as_tensor(epsilon)
    if not bool(((radius >= 0) & torch.isfinite(radius)).all()):
        raise ValueError(f"epsilon is {epsilon}; accepted are finite numbers from 0 on")
    low, high = bounds
    if not low < high:
        raise ValueError(f"bounds is {bounds}; accepted is (low, high) with low < high")
    if images.numel() and not (images.amin() >= low and images.amax() <= high):
        raise ValueError(
            f"images lie from {images.amin():g} to {images.amax():g}; "
            f"accepted is {low:g} to {high:g}, see bounds"
        )


def check_logits(logits: torch.Tensor, labels: torch.Tensor) -> None:
    """Refuse outputs that are not logits of at least two classes with the labels among them."""
    if logits.ndim != 2 or len(logits) != len(labels) or logits.shape[1] < 2:
        raise ValueError(
            f"model returns shape {tuple(logits.shape)}; accepted is [{len(labels)}, K], K >= 2"
        )
    if not len(labels):
        return
    check_labels(labels, logits.shape[1])
    sums = logits.double().sum(1)
    # A few rows may sum to 1 by chance.
    if len(sums) >= TELLING and (logits >= 0).all() and (sums - 1).abs().max() < 1e-4:
        raise ValueError(
            "model returns probabilities (rows that are not negative and sum to 1); accepted are "
            "logits: a saturated softmax has no gradient, and hides the model from attacks"
        )


@dataclass(frozen=True)
class _Seen:
    """Images on the path of an attack, with what the model says and how good they are."""

    images: torch.Tensor
    logits: torch.Tensor
    fooled: torch.Tensor
    score: torch.Tensor
    blind: torch.Tensor

    def better_of(self, other: "_Seen") -> "_Seen":
        """Return the better image of each pair: fooled, then of the higher score."""
        wins = (other.fooled & ~self.fooled) | (
            (other.fooled == self.fooled) & (other.score > self.score)
        )
        rows = wide(wins, self.images)
        return _Seen(
            torch.where(rows, other.images, self.images),
            torch.where(wins[:, None], other.logits, self.logits),
            torch.where(wins, other.fooled, self.fooled),
            torch.where(wins, other.score, self.score),
            self.blind | other.blind,
        )


def _climb(model, images, labels, ball, length, steps, loss, sign, decay, fresh) -> Iterator[tuple]:
    """Yield images, logits, score and blindness at each point of a path, its end included."""
    blind = torch.zeros_like(labels, dtype=torch.bool)
    for done in range(steps):
        images = images.detach().requires_grad_()
        # Also inside of no_grad, where an evaluation may call.
        with torch.enable_grad():
            outputs = model(images)
            if done == 0:
                check_logits(prediction(outputs.detach()), labels)
                if outputs.ndim == 3 and not fresh:
                    _check_networks_are_kept(model, images, outputs)
            score = sign * loss(outputs, labels)
            (gradient,) = torch.autograd.grad(score.sum(), images)
        _check_gradient(gradient)
        blind = blind | (gradient.flatten(1) == 0).all(1)
        yield images.detach(), prediction(outputs.detach()), score.detach(), blind
        shrink = 1 - done / steps if decay else 1.0
        images = ball.step(images.detach(), gradient, shrink * length)
    with torch.no_grad():
        outputs = model(images)
        yield images, prediction(outputs), sign * loss(outputs, labels), blind


def _seen(point: tuple, labels: torch.Tensor, targeted: bool) -> _Seen:
    images, logits, score, blind = point
    right = logits.argmax(1) == labels
    return _Seen(images, logits, right if targeted else ~right, score, blind)


def _apart(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits of other classes [N, K], -inf in place of the label's, and the label's."""
    logits = prediction(logits).double()
    own = F.one_hot(labels, logits.shape[1]).bool()
    return logits.masked_fill(own, -math.inf), logits.gather(1, labels[:, None])[:, 0]


def _check_networks_are_kept(model, images: torch.Tensor, outputs: torch.Tensor) -> None:
    """Refuse an ensemble that is another one when it is asked again, unless the caller says so."""
    if not outputs.numel():
        return
    with torch.no_grad():
        again = model(images)
    size = outputs.detach().abs().amax()
    if again.shape != outputs.shape or (again - outputs).abs().amax() > 1e-3 * size:
        raise ValueError(
            "model draws other networks at each call; accepted are networks that are kept, as "
            "posterior.fixed(...).logits, or fresh=True to attack the expectation over draws"
        )


def _check_gradient(gradient: torch.Tensor) -> None:
    """Refuse a gradient that leads nowhere: the image would stand still, and look robust."""
    wrong = ~torch.isfinite(gradient.flatten(1)).all(1)
    if wrong.any():
        raise ValueError(
            f"model has a gradient that is NaN or infinite at {int(wrong.sum())} of {len(wrong)} "
            "images; accepted are models that are differentiable, with finite logits, there"
        )


def _check_settings(norm: str, steps: int, restarts: int, keep: str, fresh: bool) -> None:
    checked_choice(norm, "norm", NORMS)
    checked_choice(keep, "keep", ("best", "last"))
    checked_integer(steps, "steps", 1)
    checked_integer(restarts, "restarts", 1)
    if fresh and (keep != "last" or restarts > 1):
        raise ValueError(
            f"keep is {keep!r} and restarts {restarts} with fresh=True; accepted are 'last' and 1, "
            "since the best of several draws is the luckiest one"
        )
