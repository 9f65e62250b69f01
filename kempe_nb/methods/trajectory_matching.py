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
out of that recursion; it needs no states, and is another direction for N above one. Here it takes
the N steps twice, since the end has to be known first.
"""

import math
from typing import NamedTuple

import torch

from kempe_nb.checks import (
    check_dtype,
    check_finite,
    checked_integer,
    checked_number,
    common_device,
)
from kempe_nb.methods.optimisers import SGD, Tensors
from kempe_nb.methods.unrolled import Batch, Loss, State, adjoint_steps, advance, start

FLOATS = torch.float32, torch.float64


class Student(NamedTuple):
    """How a student is trained on the synthetic data.

    Attributes
    ----------
    inner : Loss
        Of a step.
    synthetic : tuple of torch.Tensor
        Images, labels; see `unrolled.meta_gradient`.
    log_rate : float
        log alpha.
    steps : int
        N, at least 1.
    batch : callable, optional
        See `unrolled.meta_gradient`.
    """

    inner: Loss
    synthetic: Tensors
    log_rate: float
    steps: int
    batch: Batch | None = None


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
    TypeError
        For snapshots in another type.
    ValueError
        For other shapes, numbers that are not finite, or an expert that did not move.
    """
    before, after, distance = _checked_expert(before, after)
    common_device(before=before, theta=theta)
    theta = theta.detach()
    if theta.shape != before.shape or theta.dtype != before.dtype:
        raise ValueError(
            f"theta has shape {tuple(theta.shape)} and dtype {theta.dtype}; accepted are those of "
            f"before, {tuple(before.shape)} and {before.dtype}"
        )
    check_finite(theta, "theta")
    way, goal = theta - before, (after - before) / distance.sqrt()
    length = way.norm()
    # A student that stays has no direction; its cosine is zero.
    cosine = torch.where(length > 0, (way / length) @ goal, 0.0)
    return Geometry(length / distance.sqrt(), cosine)


def match(student: Student, before: torch.Tensor, after: torch.Tensor) -> Match:
    """Return the matching loss with its exact gradient.

    Parameters
    ----------
    student : Student
    before, after : float32 or float64 [P]
        theta*_s and theta*_t of an expert.

    Raises
    ------
    TypeError
        For an inner loss that is none, synthetic data without floats, or snapshots in another type.
    ValueError
        For steps below one, an expert that did not move or holds numbers that are not finite, or a
        rate beyond the numbers of the type.
    """
    student, optimiser = _checked(student)
    before, after, distance = _checked_expert(before, after)
    states = [start(before, optimiser)]
    for _ in range(student.steps):
        states.append(_advanced(student, states[-1], optimiser, 1))
    adjoint = 2 * (states[-1].theta - after) / distance
    total = tuple(torch.zeros_like(each) for each in student.synthetic if each.is_floating_point())
    of_rate = adjoint.new_zeros(())
    # Batches are differentiated here, whatever the caller's mode is.
    with torch.enable_grad():
        backwards = adjoint_steps(
            student.inner, student.synthetic, states, optimiser, adjoint, batch=student.batch
        )
        # The step to a state has the gradient that the state keeps, and the adjoint behind it.
        for state, back in zip(reversed(states), backwards, strict=False):
            of_rate -= optimiser.lr * (state.gradient @ adjoint)
            adjoint = back.adjoint
            for whole, part in zip(total, back.contribution, strict=True):
                whole += part
    loss = (states[-1].theta - after).square().sum() / distance
    return Match(loss, total, of_rate, states[-1].theta)


def match_without_hessians(student: Student, before: torch.Tensor, after: torch.Tensor) -> Match:
    """Return the same with TESLA's gradient: exact for one step, another direction for more.

    The adjoint stays what it is at the end, so no states are kept. Parameters as in `match`.
    """
    student, optimiser = _checked(student)
    before, after, distance = _checked_expert(before, after)
    state = start(before, optimiser)
    end = _advanced(student, state, optimiser, student.steps).theta
    adjoint = 2 * (end - after) / distance
    synthetic = tuple(d.detach().requires_grad_(d.is_floating_point()) for d in student.synthetic)
    floats = [each for each in synthetic if each.requires_grad]
    total = tuple(torch.zeros_like(each) for each in floats)
    of_rate = adjoint.new_zeros(())
    for _ in range(student.steps):
        with torch.enable_grad():
            data = student.batch(synthetic, state.step) if student.batch else synthetic
            theta = state.theta.requires_grad_()
            (gradient,) = torch.autograd.grad(
                student.inner.loss(theta, *data), theta, create_graph=True
            )
            if gradient.requires_grad:  # else the loss is linear in theta, and knows no data
                found = torch.autograd.grad(
                    gradient, floats, -optimiser.lr * adjoint, materialize_grads=True
                )
                for whole, part in zip(total, found, strict=True):
                    whole += part
        of_rate -= optimiser.lr * (gradient.detach() @ adjoint)
        moved = torch.add(state.theta.detach(), gradient.detach(), alpha=-optimiser.lr)
        state = state._replace(theta=moved, step=state.step + 1)
    return Match((end - after).square().sum() / distance, total, of_rate, end)


def probe(student: Student, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Return the matching loss alone, without a graph; parameters as in `match`."""
    student, optimiser = _checked(student)
    before, after, distance = _checked_expert(before, after)
    end = _advanced(student, start(before, optimiser), optimiser, student.steps).theta
    return (end - after).square().sum() / distance


def _advanced(student: Student, state: State, optimiser: SGD, steps: int) -> State:
    return advance(student.inner, student.synthetic, state, optimiser, steps, batch=student.batch)


def _checked(student: Student) -> tuple[Student, SGD]:
    """Return the student with checked numbers, and its optimiser."""
    if not isinstance(student, Student):
        raise TypeError(f"student is a {type(student).__name__}; accepted is a Student")
    inner, synthetic = student.inner, student.synthetic
    if not isinstance(inner, Loss):
        raise TypeError(f"inner is a {type(inner).__name__}; accepted is a Loss")
    tensors = isinstance(synthetic, tuple) and all(isinstance(d, torch.Tensor) for d in synthetic)
    floats = [d.dtype for d in synthetic if d.is_floating_point()] if tensors else []
    if not floats:
        raise TypeError(
            f"synthetic is a {type(synthetic).__name__}; accepted is a tuple of tensors, at least "
            "one of floating-point numbers"
        )
    log_rate = checked_number(student.log_rate, "log_rate", -math.inf, math.inf, "a number")
    # A tiny rate has to be a number of the type as well as a large one.
    limit = torch.finfo(floats[0])
    if not math.log(limit.tiny) < log_rate < math.log(limit.max):
        raise ValueError(
            f"log_rate is {log_rate:g}; accepted is the logarithm of a number of {floats[0]}, "
            f"{math.log(limit.tiny):.0f} to {math.log(limit.max):.0f}"
        )
    steps = checked_integer(student.steps, "steps", 1)
    return student._replace(log_rate=log_rate, steps=steps), SGD(math.exp(log_rate))


def _checked_expert(before: torch.Tensor, after: torch.Tensor) -> Tensors:
    common_device(before=before, after=after)
    check_dtype(before, "before", FLOATS)
    if before.ndim != 1 or before.shape != after.shape or before.dtype != after.dtype:
        raise ValueError(
            f"before and after have shapes {tuple(before.shape)} and {tuple(after.shape)}, dtypes "
            f"{before.dtype} and {after.dtype}; accepted are two snapshots of one expert, [P]"
        )
    if not len(before):
        raise ValueError("before and after are empty; accepted is at least one parameter")
    before, after = before.detach(), after.detach()
    for name, each in (("before", before), ("after", after)):
        check_finite(each, name)
    if torch.equal(before, after):
        raise ValueError(
            "before and after are equal; accepted are two snapshots of an expert that moved. (Were "
            "they kept without a clone? Then all are the last one.)"
        )
    distance = (before - after).square().sum()
    limit = torch.finfo(before.dtype)
    if not limit.tiny / limit.eps < distance < limit.max * limit.eps:
        raise ValueError(
            f"before and after have a squared distance of {float(distance):g}; accepted is one "
            f"that {before.dtype} can divide by, {limit.tiny / limit.eps:.2g} to "
            f"{limit.max * limit.eps:.2g}"
        )
    return before, after, distance
