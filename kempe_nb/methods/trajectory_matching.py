"""Matching trajectories: how far a few steps on synthetic data go along an expert's epoch.

An expert was trained on real data, and its parameters theta*_0, theta*_1, ... after each epoch were
kept. A student starts at theta*_s and takes N steps of descent on the synthetic data with a rate
that is learned, alpha. Cazenavette and others (arXiv 2203.11932) minimise

    Loss = |theta_N - theta*_t|^2 / |theta*_s - theta*_t|^2,    t > s,

with respect to the data and alpha. Self-adaptive matching (Guan and others, arXiv 2311.17967; their
public code) takes t = s + 1 and learns log alpha, which keeps alpha positive. With the way of the
student over that of the expert c, and the cosine rho between both (our derivation),

    Loss = 1 - 2 rho c + c^2:

one for a student that stays where it is, and 1 - rho^2 for the best length.

The exact gradient goes back through all N steps by the adjoint recursion of `unrolled`, with the
graph of one step alive. TESLA (Cui and others, arXiv 2211.10586) leaves the products with Hessians
out of that recursion; it needs no states, and is another direction for N above one.
"""

import math
from typing import NamedTuple

import torch

from kempe_nb.checks import check_finite, checked_integer, common_device
from kempe_nb.methods.optimisers import SGD, Tensors
from kempe_nb.methods.unrolled import Batch, Loss, adjoint_steps, advance, start


class Match(NamedTuple):
    """The matching loss and its derivatives.

    Attributes
    ----------
    loss : scalar tensor
    gradients : tuple of torch.Tensor
        With respect to each tensor of floats among the synthetic data.
    log_rate : scalar tensor
        Derivative with respect to log alpha.
    theta : torch.Tensor
        The student's parameters after the last step, [P].
    """

    loss: torch.Tensor
    gradients: Tensors
    log_rate: torch.Tensor
    theta: torch.Tensor


class Geometry(NamedTuple):
    """Way of the student over that of the expert, and the cosine between both; scalar tensors."""

    scale: torch.Tensor
    cosine: torch.Tensor

    @property
    def loss(self) -> torch.Tensor:
        """1 - 2 rho c + c^2."""
        return 1 - 2 * self.cosine * self.scale + self.scale**2


def geometry(before: torch.Tensor, theta: torch.Tensor, after: torch.Tensor) -> Geometry:
    """Return the geometry of a student's way from `before` to `theta`; the expert goes to `after`.

    Parameters
    ----------
    before, theta, after : float32 or float64 [P]

    Raises
    ------
    ValueError
        For other shapes, or an expert that did not move.
    """
    _check_expert(before, after)
    common_device(before=before, theta=theta)
    if theta.shape != before.shape:
        raise ValueError(
            f"theta has shape {tuple(theta.shape)}; accepted is that of before, "
            f"{tuple(before.shape)}"
        )
    way, goal = theta - before, after - before
    # A student that stays has no direction; its cosine is zero.
    length = way.norm().clamp_min(torch.finfo(way.dtype).tiny)
    return Geometry(way.norm() / goal.norm(), (way @ goal) / (length * goal.norm()))


def match(
    inner: Loss,
    synthetic: Tensors,
    before: torch.Tensor,
    after: torch.Tensor,
    log_rate: float,
    steps: int,
    *,
    batch: Batch | None = None,
) -> Match:
    """Return the matching loss with its exact gradient.

    Parameters
    ----------
    inner : Loss
        Of a student's step.
    synthetic : tuple of torch.Tensor
        Images, labels; see `unrolled.meta_gradient`.
    before, after : float32 or float64 [P]
        theta*_s and theta*_t of an expert.
    log_rate : float
        log alpha.
    steps : int
        N, at least 1.
    batch : callable, optional
        See `unrolled.meta_gradient`.

    Raises
    ------
    TypeError
        For an inner loss that is none.
    ValueError
        For steps below one, an expert that did not move or holds numbers that are not finite, or a
        rate beyond the numbers.
    """
    optimiser, states = _states(inner, synthetic, before, after, log_rate, steps, batch)
    distance = (before - after).square().sum()
    adjoint = 2 * (states[-1].theta - after) / distance
    total = tuple(torch.zeros_like(each) for each in synthetic if each.is_floating_point())
    of_rate = adjoint.new_zeros(())
    backwards = adjoint_steps(inner, synthetic, states, optimiser, adjoint, batch=batch)
    # The step to a state has the gradient that the state keeps, and the adjoint behind it.
    for state, back in zip(reversed(states), backwards, strict=False):
        of_rate -= optimiser.lr * (state.gradient @ adjoint)
        adjoint = back.adjoint
        for whole, part in zip(total, back.contribution, strict=True):
            whole += part
    loss = (states[-1].theta - after).square().sum() / distance
    return Match(loss, total, of_rate, states[-1].theta)


def match_without_hessians(
    inner: Loss,
    synthetic: Tensors,
    before: torch.Tensor,
    after: torch.Tensor,
    log_rate: float,
    steps: int,
    *,
    batch: Batch | None = None,
) -> Match:
    """Return the same with TESLA's gradient: exact for one step, another direction for more.

    The adjoint stays what it is at the end, so no states are kept. Parameters as in `match`.
    """
    optimiser, states = _states(inner, synthetic, before, after, log_rate, steps, batch)
    distance = (before - after).square().sum()
    end = states[-1].theta
    adjoint = 2 * (end - after) / distance
    synthetic = tuple(d.detach().requires_grad_(d.is_floating_point()) for d in synthetic)
    floats = [each for each in synthetic if each.requires_grad]
    total = tuple(torch.zeros_like(each) for each in floats)
    of_rate = adjoint.new_zeros(())
    for state, following in zip(states[:-1], states[1:], strict=True):
        of_rate -= optimiser.lr * (following.gradient @ adjoint)
        data = batch(synthetic, state.step) if batch else synthetic
        theta = state.theta.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(inner.loss(theta, *data), theta, create_graph=True)
        found = torch.autograd.grad(
            gradient, floats, -optimiser.lr * adjoint, materialize_grads=True
        )
        for whole, part in zip(total, found, strict=True):
            whole += part
    return Match((end - after).square().sum() / distance, total, of_rate, end)


def probe(
    inner: Loss,
    synthetic: Tensors,
    before: torch.Tensor,
    after: torch.Tensor,
    log_rate: float,
    steps: int,
    *,
    batch: Batch | None = None,
) -> torch.Tensor:
    """Return the matching loss alone, without a graph; parameters as in `match`."""
    optimiser, state = _checked(inner, before, after, log_rate), start(before, SGD(1.0))
    steps = checked_integer(steps, "steps", 1)
    end = advance(inner, synthetic, state, optimiser, steps, batch=batch).theta
    return (end - after).square().sum() / (before - after).square().sum()


def _states(inner, synthetic, before, after, log_rate, steps, batch):
    optimiser = _checked(inner, before, after, log_rate)
    states = [start(before, optimiser)]
    for _ in range(checked_integer(steps, "steps", 1)):
        states.append(advance(inner, synthetic, states[-1], optimiser, 1, batch=batch))
    return optimiser, states


def _checked(inner, before, after, log_rate) -> SGD:
    if not isinstance(inner, Loss):
        raise TypeError(f"inner is a {type(inner).__name__}; accepted is a Loss")
    _check_expert(before, after)
    try:
        rate = math.exp(log_rate)
    except (TypeError, OverflowError):
        rate = math.inf
    if not 0 < rate < math.inf:
        raise ValueError(
            f"log_rate is {log_rate!r}; accepted is the logarithm of a positive finite number"
        )
    return SGD(rate)


def _check_expert(before: torch.Tensor, after: torch.Tensor) -> None:
    common_device(before=before, after=after)
    if before.ndim != 1 or before.shape != after.shape or before.dtype != after.dtype:
        raise ValueError(
            f"before and after have shapes {tuple(before.shape)} and {tuple(after.shape)}, dtypes "
            f"{before.dtype} and {after.dtype}; accepted are two snapshots of one expert, [P]"
        )
    for name, each in (("before", before), ("after", after)):
        check_finite(each, name)
    if torch.equal(before, after):
        raise ValueError(
            "before and after are equal; accepted are two snapshots of an expert that moved. (Were "
            "they kept without a clone? Then all are the last one.)"
        )
