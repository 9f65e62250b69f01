"""What people write for the moments of an ensemble, and for the gradient of its loss."""

import math

import torch


def chain(logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return log mean, total, expected and mutual entropy by a chain of library calls."""
    log_p = torch.log_softmax(logits, 2)
    log_mean = torch.logsumexp(log_p, 0) - math.log(len(logits))
    total = -(log_mean.exp() * log_mean).sum(1)
    expected = -(log_p.exp() * log_p).sum(2).mean(0)
    return log_mean, total, expected, total - expected


def mean_of_probabilities(logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the same from the mean of the probabilities, whose logarithm may be -inf."""
    p = torch.softmax(logits, 2)
    mean = p.mean(0)
    total = torch.special.entr(mean).sum(1)
    expected = torch.special.entr(p).sum(2).mean(0)
    return mean.log(), total, expected, total - expected


def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return - log of the mean probability of the labels, by a chain of library calls."""
    log_p = torch.log_softmax(logits, 2)
    own = log_p.gather(2, labels[None, :, None].expand(len(logits), -1, 1)).squeeze(2)
    return math.log(len(logits)) - torch.logsumexp(own, 0)


def by_autograd(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss and its gradient with respect to the logits."""
    logits = logits.detach().requires_grad_()
    values = loss(logits, labels)
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    return values.detach(), gradient


def by_vjp(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same by `torch.func`, which a compiler sees through."""
    values, pull = torch.func.vjp(lambda z: loss(z, labels), logits)
    return values, pull(torch.ones_like(values))[0]
