"""Approximate inference over the parameters of a classifier: MAP, MC dropout, mean field.

With independent normal priors on the parameters theta [P] and labels D, each method climbs a number
in nats, of the whole data set:

    MAP            log p(D | theta) + log p(theta)
    MC dropout     the mean of the same over masks on the weights of the likelihood
    mean field     E_q log p(D | theta) - KL(q || p),   q normal with independent coordinates

log p(D | theta) is the SUM over the images, so the divergence stands beside it undivided. In a mean
over the N images it would be KL / N; a mean beside a whole KL tempers the likelihood by 1 / N.
Where a batch stands for all images, its sum is scaled by N / batch, which is right on average.

The mean field is Blundell et al. (arXiv 1505.05424) with the divergence in closed form.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from kempe_nb.checks import (
    check_dtype,
    check_finite,
    check_labels,
    checked_integer,
    checked_positive,
    common_device,
)
from kempe_nb.methods.posteriors import (
    FLOATS,
    Dropout,
    Gaussian,
    checked_generator,
    logits,
    standard_normal,
)
from kempe_nb.networks.flat import FlatNetwork

#: Layers whose weights have a fan-in.
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def fan_in_scales(
    network: FlatNetwork, scale: float, *, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Return prior standard deviations scale * sqrt(2 / fan_in) of all parameters, [P].

    The fan-in is the number of inputs of a unit; a bias has that of its layer, as in the sheet of
    "Attacking Bayes" (arXiv 2404.19640). With scale 1 the weights are those of He et al.: their
    ReLU layers keep the second moment of what they are given.

    Raises
    ------
    ValueError
        For a scale that is not positive, or parameters of other modules than linear layers and
        convolutions, by name.
    """
    scale = checked_positive(scale, "scale")
    scales = {}
    for prefix, child in network.module.named_modules():
        for name, _ in child.named_parameters(recurse=False):
            key = f"{prefix}.{name}".lstrip(".")
            if not isinstance(child, LAYERS):
                raise ValueError(
                    f"module has a parameter {key!r} of {type(child).__name__}, which has no "
                    "fan-in; accepted are linear layers and convolutions"
                )
            scales[key] = scale * math.sqrt(2 / math.prod(child.weight.shape[1:]))
    pairs = zip(network.names, network.sizes, strict=True)
    return torch.cat([torch.full((size,), scales[name], dtype=dtype) for name, size in pairs])


def log_likelihood(
    network: FlatNetwork, thetas: torch.Tensor, images: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Return log p(D | theta) in nats, summed over the images, float64 [S] of thetas [S, P]."""
    found = logits(network, thetas, images).log_softmax(-1)
    own = found.gather(-1, labels.expand(len(thetas), -1)[..., None])
    return own.double().sum((1, 2))


def log_prior(thetas: torch.Tensor, prior_scale: torch.Tensor) -> torch.Tensor:
    """Return log N(theta; 0, prior_scale^2) in nats without its constant, float64 [S]."""
    return -0.5 * (thetas / prior_scale).square().double().sum(-1)


def train_map(
    network: FlatNetwork,
    images: torch.Tensor,
    labels: torch.Tensor,
    prior_scale: float | torch.Tensor,
    *,
    steps: int,
    lr: float,
    generator: torch.Generator,
    count: int | None = None,
    batch: int | None = None,
) -> torch.Tensor:
    """Return the parameters that Adam finds near a maximum of the posterior density.

    With `count`, that many fresh starts are trained as one batched problem: a deep ensemble is
    `Samples` of them. Each is what it would be alone, as Adam works element by element. The rate
    falls to zero by half a cosine, in this and in all methods here.

    Parameters
    ----------
    network : FlatNetwork
    images : float32 or float64 [N, ...]
        The parameters have their dtype and device.
    labels : int64 [N]
    prior_scale : float or tensor [P]
        Standard deviations of the normal prior with mean 0; see `fan_in_scales`.
    steps : int
    lr : float
        The first learning rate of Adam.
    generator : torch.Generator
        Of the starts, then of the batches.
    count : int, optional
    batch : int, optional
        Images in each step, drawn afresh without replacement and the same for all starts; all of
        them by default.

    Returns
    -------
    [P], or [count, P]

    Raises
    ------
    TypeError, ValueError
        For an argument out of its range, named, or a training that leaves the finite numbers.
    """
    data = checked_data(network, images, labels, batch, generator)
    prior_scale = checked_prior(network, prior_scale, images)
    starts = 1 if count is None else checked_integer(count, "count", 1)
    theta = network.initial(generator, starts, dtype=images.dtype).requires_grad_()

    def objective():
        return data.log_likelihood(theta, generator) + log_prior(theta, prior_scale)

    _climb(objective, [theta], steps, lr)
    return theta.detach()[0] if count is None else theta.detach()


def train_dropout(
    network: FlatNetwork,
    images: torch.Tensor,
    labels: torch.Tensor,
    prior_scale: float | torch.Tensor,
    rate: float,
    *,
    steps: int,
    lr: float,
    generator: torch.Generator,
    samples: int = 1,
    batch: int | None = None,
) -> Dropout:
    """Return MC dropout trained as `train_map`, the likelihood averaged over fresh masks each step.

    A mask is one for all images of a step, as the law over parameters has it; `nn.Dropout` would
    draw one for each image, which has the same mean and less noise. With `samples` masks the noise
    is smaller and the step as many times as long. The prior is that of the unmasked parameters.
    """
    data = checked_data(network, images, labels, batch, generator)
    prior_scale = checked_prior(network, prior_scale, images)
    checked_integer(samples, "samples", 1)
    theta = network.initial(generator, dtype=images.dtype)
    law = Dropout(network, theta.requires_grad_(), rate)

    def objective():
        masked = law.draw(samples, generator)
        return data.log_likelihood(masked, generator).mean() + log_prior(theta, prior_scale)

    _climb(objective, [theta], steps, lr)
    return Dropout(network, theta.detach(), rate)


def kl_diagonal_gaussians(
    mean_q: torch.Tensor, scale_q: torch.Tensor, mean_p: torch.Tensor, scale_p: torch.Tensor
) -> torch.Tensor:
    """Return KL(q || p) of normal laws with independent coordinates, in nats, float64 [...].

    For each coordinate, with r = scale_q / scale_p,

        KL = (r^2 - 1) / 2 - log r + ((mean_q - mean_p) / scale_p)^2 / 2 .

    The logarithm stands there whole. Half of it, a bug of published code, makes no divergence: the
    least value is then -(1 - log 2) / 4 = -0.077, at r^2 = 1/2. Near r = 1, where r^2 - 1 and
    2 log r cancel, the first two terms are d^2 / 2 + (d - log(1 + d)) with d = r - 1 from the
    difference of the scales; all in float64.

    Parameters
    ----------
    mean_q, scale_q, mean_p, scale_p : tensors [..., P], broadcast
        The standard deviations positive; summed over the last dimension.
    """
    for name, scale in (("scale_q", scale_q), ("scale_p", scale_p)):
        if not bool((scale > 0).all()):
            raise ValueError(f"{name} holds {scale.amin():g}; accepted are positive numbers")
    return _kl_diagonal(mean_q, scale_q, mean_p, scale_p)


def _kl_diagonal(mean_q, scale_q, mean_p, scale_p) -> torch.Tensor:
    mean_q, scale_q, mean_p, scale_p = (
        each.double() for each in (mean_q, scale_q, mean_p, scale_p)
    )
    d = (scale_q - scale_p) / scale_p
    away = (mean_q - mean_p) / scale_p
    return (0.5 * d.square() + (d - d.log1p()) + 0.5 * away.square()).sum(-1)


def fit_mean_field(
    network: FlatNetwork,
    images: torch.Tensor,
    labels: torch.Tensor,
    prior_scale: float | torch.Tensor,
    *,
    steps: int,
    lr: float,
    generator: torch.Generator,
    pairs: int = 2,
    init_scale: float = 0.05,
    start: torch.Tensor | None = None,
    temperature: float = 1.0,
    batch: int | None = None,
) -> tuple[Gaussian, torch.Tensor]:
    """Return the mean-field normal law that Adam finds, and the objective at every step, [steps].

    Parameters
    ----------
    network, images, labels, prior_scale, steps, lr, generator, batch
        As for `train_map`; the rate is that of the means and of the logarithms of the scales.
    pairs : int
        Reparameterised draws in each step, two by two with noise of opposite sign: where the log
        likelihood is quadratic, the gradient of the means has no noise at all.
    init_scale : float
        First standard deviation of all parameters. Above it a fit of many parameters starts in
        noise: the fresh networks would all say something else.
    start : [P], optional
        First means, such as a MAP estimate; a fresh initial vector by default.
    temperature : float
        The objective is E_q log p(D | theta) - temperature * KL(q || p). 1 is Bayes' rule; below it
        the law is cold, and whoever shows it has to say so.
    batch : int, optional

    Returns
    -------
    Gaussian, float64 [steps]
        In nats, for the whole data set; a noisy estimate of the evidence lower bound.
    """
    data = checked_data(network, images, labels, batch, generator)
    prior_scale = checked_prior(network, prior_scale, images)
    temperature = checked_positive(temperature, "temperature")
    start = checked_start(network, start, images, generator)
    zero = torch.zeros_like(prior_scale)
    mean, scale, history = fit_gaussian(
        lambda thetas: data.log_likelihood(thetas, generator),
        lambda mean, scale: temperature * _kl_diagonal(mean, scale, zero, prior_scale),
        start,
        torch.full_like(start, checked_positive(init_scale, "init_scale")),
        steps=steps,
        lr=lr,
        pairs=pairs,
        generator=generator,
    )
    return Gaussian(network, mean, scale), history


def fit_gaussian(
    log_density: Callable[[torch.Tensor], torch.Tensor],
    divergence: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    mean: torch.Tensor,
    scale: torch.Tensor,
    *,
    steps: int,
    lr: float,
    pairs: int,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Maximise E log_density(thetas [S, P]) - divergence(mean, scale); return both and the path.

    With minus the entropy for a divergence, log_density may be any log density without its
    constant. A scale of 0 stays 0: its logarithm is -infinity, where exp has the derivative 0.
    """
    checked_integer(pairs, "pairs", 1)
    mean = mean.detach().clone().requires_grad_()
    log_scale = scale.log().requires_grad_()

    def objective():
        scale = log_scale.exp()
        noise = standard_normal(pairs, mean, generator)
        thetas = mean + scale * torch.cat([noise, -noise])
        return log_density(thetas).mean() - divergence(mean, scale)

    history = _climb(objective, [mean, log_scale], steps, lr)
    return mean.detach(), log_scale.detach().exp(), history


def _climb(
    objective: Callable[[], torch.Tensor], variables: list[torch.Tensor], steps: int, lr: float
) -> torch.Tensor:
    """Maximise the sum of the objective in place by Adam, and return the objective of each step."""
    checked_integer(steps, "steps", 1)
    lr, history = checked_positive(lr, "lr"), []
    optimiser = torch.optim.Adam(variables)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * step / steps)) / 2
        # Also inside of no_grad, where a notebook may call.
        with torch.enable_grad():
            gain = objective()
            gradients = torch.autograd.grad(-gain.sum(), variables)
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.grad = gradient
        optimiser.step()
        history.append(gain.detach())
    path = torch.stack(history)
    bad = ~torch.isfinite(path.reshape(steps, -1)).all(1)
    if bad.any():
        raise ValueError(
            f"lr is {lr:g}; the objective was not finite from step {int(bad.int().argmax())} on; "
            "accepted is a smaller one"
        )
    return path


@dataclass(frozen=True, eq=False)
class Data:
    """Images and labels, or a batch of them in each step."""

    network: FlatNetwork
    images: torch.Tensor
    labels: torch.Tensor
    batch: int | None

    def log_likelihood(self, thetas: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return log p(D | theta) [S], from a fresh batch scaled up to all images if there is."""
        if self.batch is None:
            return log_likelihood(self.network, thetas, self.images, self.labels)
        total = len(self.labels)
        chosen = torch.randperm(total, generator=generator, device=generator.device)[: self.batch]
        part = log_likelihood(self.network, thetas, self.images[chosen], self.labels[chosen])
        return part * (total / self.batch)


def checked_data(network, images, labels, batch, generator) -> Data:
    """Return the data of a fit, or refuse by name what no fit can start from."""
    if not isinstance(network, FlatNetwork):
        raise TypeError(f"network is a {type(network).__name__}; accepted is a FlatNetwork")
    common_device(images=images, labels=labels)
    check_dtype(images, "images", FLOATS)
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1] or not len(labels):
        raise ValueError(
            f"labels is {labels.dtype} {tuple(labels.shape)}; accepted is int64 [N] for images "
            f"[N, ...], N from 1 up, here {tuple(images.shape)}"
        )
    check_finite(images, "images")
    checked_generator(generator, images)
    with torch.no_grad():
        zeros = torch.zeros(network.size, dtype=images.dtype, device=images.device)
        shape = tuple(network(zeros, images[:1]).shape)
    if len(shape) != 2 or shape[1] < 2:
        raise ValueError(f"network returns shape {shape} for one image; accepted is (1, K), K >= 2")
    check_labels(labels, shape[1])
    if batch is not None:
        checked_integer(batch, "batch", 1, len(labels))
    return Data(network, images.detach(), labels, batch)


def checked_prior(network: FlatNetwork, scale: object, like: torch.Tensor) -> torch.Tensor:
    """Return prior standard deviations [P] of the dtype and device of `like`, or refuse them."""
    if not isinstance(scale, torch.Tensor):
        value = checked_positive(scale, "prior_scale")
        return torch.full((network.size,), value, dtype=like.dtype, device=like.device)
    _check_vector(network, "prior_scale", scale, like)
    if not (scale > 0).all():
        raise ValueError(f"prior_scale holds {scale.amin():g}; accepted are positive numbers")
    return scale.detach()


def checked_start(network, start, like, generator) -> torch.Tensor:
    """Return a start [P], fresh if none is given, or refuse it."""
    if start is None:
        return network.initial(generator, dtype=like.dtype)
    _check_vector(network, "start", start, like)
    return start


def _check_vector(network, name: str, vector: torch.Tensor, like: torch.Tensor) -> None:
    """Refuse what is no finite vector [P] of the dtype and device of the images."""
    common_device(**{name: vector, "images": like})
    check_dtype(vector, name, (like.dtype,))
    if vector.shape != (network.size,):
        raise ValueError(f"{name} has shape {tuple(vector.shape)}; accepted is [{network.size}]")
    check_finite(vector, name)
