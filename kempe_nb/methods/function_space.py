"""Function-space variational inference with a random last layer, in a minimal form.

Rudner et al. (NeurIPS 2022, arXiv 2312.17199) compare functions in place of parameters: they climb

    E_q log p(D | f) - sum_k KL( q(f_k(X_C)) || p(f_k(X_C)) )

where f_k(X_C) are the logits of class k at context points X_C. Here the lower layers are points,
learned with the rest, and the last layer has a normal law with independent coordinates. With the
features Phi [C, H + 1] of the last hidden layer at the context points, a column of ones for the
bias, q is then normal without any linearisation:

    q(f_k) = N(Phi mean_k, Phi diag(scale_k^2) Phi^T).

What this leaves out of the paper:

* The lower layers have no law and no prior of their own; only the functions at the context points,
  and the likelihood, hold them.
* The prior over functions is that of a network with independent normal parameters, all layers
  random, replaced by the normal law with the same mean, 0, and the same covariance, a mean over
  `prior_draws` draws of the lower layers. The paper linearises its prior network instead.
* Both laws have `jitter` added to their variances. That is the divergence of the functions under
  noise of this variance, and so no more than that of the functions; q alone would have a
  covariance of rank H + 1 at most.
* The divergence is that at `points` context points drawn for each step, for the supremum over all
  finite sets. It grows with their number, which is thus a setting, and the objective is no bound
  of the evidence.
"""

import torch
from torch import nn

from kempe_nb.checks import (
    check_dtype,
    check_finite,
    checked_integer,
    checked_positive,
    common_device,
)
from kempe_nb.methods.posteriors import Gaussian, standard_normal
from kempe_nb.methods.variational import checked_data, checked_prior, checked_start, fit_gaussian
from kempe_nb.networks.flat import FlatNetwork


def kl_gaussians(
    mean_q: torch.Tensor, covariance_q: torch.Tensor, mean_p: torch.Tensor, cholesky_p: torch.Tensor
) -> torch.Tensor:
    """Return KL(q || p) of normal laws in C dimensions, in nats, float64 [...].

    Parameters
    ----------
    mean_q, mean_p : [..., C]
    covariance_q : [..., C, C]
        Positive definite.
    cholesky_p : [..., C, C]
        The lower factor of the covariance of p, as it serves many steps.
    """
    mean_q, covariance_q, mean_p, cholesky_p = (
        each.double() for each in (mean_q, covariance_q, mean_p, cholesky_p)
    )
    factor = torch.linalg.cholesky(covariance_q)
    # One solve for the trace, |L_p^-1 L_q|^2, and for the means.
    sides = torch.cat([factor, (mean_q - mean_p)[..., None]], -1)
    whitened = torch.linalg.solve_triangular(cholesky_p, sides, upper=False)
    logs = [each.diagonal(dim1=-2, dim2=-1).log().sum(-1) for each in (cholesky_p, factor)]
    return 0.5 * (whitened.square().sum((-2, -1)) - mean_q.shape[-1]) + logs[0] - logs[1]


def last_layer(network: FlatNetwork, theta: torch.Tensor) -> torch.Tensor:
    """Return the weights and the biases of the last layer, [..., K, H + 1], of theta [..., P].

    Raises
    ------
    ValueError
        If the module is no `nn.Sequential` that ends in an `nn.Linear` with a bias.
    """
    prefix = _last_name(network)
    parts = network.parts(theta)
    return torch.cat([parts[f"{prefix}.weight"], parts[f"{prefix}.bias"][..., None]], -1)


def features(network: FlatNetwork, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return what the last layer is given, and a column of ones, [N, H + 1], of theta [P]."""
    prefix = _last_name(network)
    lower = {k: v for k, v in network.parts(theta).items() if k.rpartition(".")[0] != prefix}
    hidden = torch.func.functional_call(network.module[:-1], lower, (x,))
    return torch.cat([hidden, torch.ones_like(hidden[:, :1])], 1)


def function_covariances(phi: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return Phi diag(scale_k^2) Phi^T, float64 [K, C, C], of phi [C, H + 1], scale [K, H + 1]."""
    spread = phi.double() * scale.double()[:, None]
    return spread @ spread.mT


def prior_covariances(
    network: FlatNetwork,
    prior_scale: torch.Tensor,
    x: torch.Tensor,
    draws: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Return the covariances of the logits at x under N(0, prior_scale^2), [K, C, C].

    Exact in the last layer, a mean over `draws` of the others, float64.
    """
    scale, total = last_layer(network, prior_scale), 0.0
    for noise in standard_normal(draws, prior_scale, generator):
        total = total + function_covariances(features(network, prior_scale * noise, x), scale)
    return total / draws


def fit_function_space(
    network: FlatNetwork,
    images: torch.Tensor,
    labels: torch.Tensor,
    prior_scale: float | torch.Tensor,
    context: torch.Tensor,
    *,
    steps: int,
    lr: float,
    generator: torch.Generator,
    pairs: int = 2,
    points: int = 32,
    prior_draws: int = 50,
    jitter: float = 0.01,
    init_scale: float = 0.05,
    start: torch.Tensor | None = None,
    batch: int | None = None,
) -> tuple[Gaussian, torch.Tensor]:
    """Return the law with a random last layer that Adam finds, and the objective of each step.

    Parameters
    ----------
    network : FlatNetwork
        Of an `nn.Sequential` that ends in an `nn.Linear` with a bias.
    images, labels, prior_scale, steps, lr, generator, pairs, init_scale, start, batch
        As for `fit_mean_field`.
    context : [M, ...]
        Images where functions are compared, such as some of the data and some of noise; of the
        dtype of the images. Takes 8 K M^2 bytes.
    points : int
        Context points in each step, drawn without replacement, at most M.
    prior_draws : int
        Draws of the lower layers for the covariance of the prior.
    jitter : float
        Added to all variances of functions, positive, in squared logits.

    Returns
    -------
    Gaussian, float64 [steps]
        The scale is 0 but for the last layer.
    """
    data = checked_data(network, images, labels, batch, generator)
    prior_scale = checked_prior(network, prior_scale, images)
    _check_context(context, images)
    checked_integer(points, "points", 1, len(context))
    checked_integer(prior_draws, "prior_draws", 1)
    jitter = checked_positive(jitter, "jitter")
    start = checked_start(network, start, images, generator)
    scale = checked_positive(init_scale, "init_scale") * _is_last(network, start)
    eye = jitter * torch.eye(points, dtype=torch.float64, device=images.device)
    with torch.no_grad():
        prior = prior_covariances(network, prior_scale, context, prior_draws, generator)

    def divergence(mean, scale):
        chosen = torch.randperm(len(context), generator=generator, device=images.device)[:points]
        phi = features(network, mean, context[chosen])
        found = last_layer(network, mean).double() @ phi.double().mT
        covariance = function_covariances(phi, last_layer(network, scale)) + eye
        factor = torch.linalg.cholesky(prior[:, chosen[:, None], chosen] + eye)
        return kl_gaussians(found, covariance, torch.zeros_like(found), factor).sum()

    mean, scale, history = fit_gaussian(
        lambda thetas: data.log_likelihood(thetas, generator),
        divergence,
        start,
        scale,
        steps=steps,
        lr=lr,
        pairs=pairs,
        generator=generator,
    )
    return Gaussian(network, mean, scale), history


def _last_name(network: FlatNetwork) -> str:
    """Return the name of the last layer of a sequence, or refuse the network."""
    module = network.module
    if type(module) is nn.Sequential and len(module):
        name, last = next(reversed(module._modules.items()))
        if type(last) is nn.Linear and last.bias is not None:
            return name
    raise ValueError(
        f"network is of {type(module).__name__}; accepted is an nn.Sequential that ends in an "
        "nn.Linear with a bias"
    )


def _is_last(network: FlatNetwork, like: torch.Tensor) -> torch.Tensor:
    """Return 1 for the parameters of the last layer and 0 for the others, [P]."""
    mask = torch.zeros_like(like)
    for name, part in network.parts(mask).items():
        if name.rpartition(".")[0] == _last_name(network):
            part.fill_(1)
    return mask


def _check_context(context: torch.Tensor, images: torch.Tensor) -> None:
    """Refuse context points that are no images like those given."""
    common_device(context=context, images=images)
    check_dtype(context, "context", (images.dtype,))
    if context.shape[1:] != images.shape[1:] or not len(context):
        raise ValueError(
            f"context has shape {tuple(context.shape)}; accepted is [M, ...] of images like "
            f"those given, {tuple(images.shape[1:])}, M from 1 up"
        )
    check_finite(context, "context")
