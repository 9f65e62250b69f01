"""Matching a trajectory: exact against autograd through all steps, and the geometry of the loss."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.nn import functional as F

from kempe_nb.methods.trajectory_matching import (
    Student,
    geometry,
    match,
    match_without_hessians,
    probe,
)
from kempe_nb.methods.unrolled import Loss
from kempe_nb.networks.flat import FlatNetwork
from kempe_nb.networks.perceptron import perceptron

NETWORK = FlatNetwork(perceptron((6, 5, 3), activation=nn.Tanh))
INNER = Loss(lambda theta, images, labels: F.cross_entropy(NETWORK(theta, images), labels))


def problem(seed=0):
    """Return synthetic data and two snapshots, float64."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.randn(6, 6, generator=draw, dtype=torch.float64)
    labels = torch.rand(6, 3, generator=draw, dtype=torch.float64)
    before = NETWORK.initial(draw, dtype=torch.float64)
    after = before + 0.1 * torch.randn(before.shape, generator=draw, dtype=torch.float64)
    return (images, labels), before, after


def by_autograd(synthetic, before, after, log_rate, steps, batch=None):
    """Return loss, theta and derivatives with the graph of all steps: the definition."""
    synthetic = tuple(each.clone().requires_grad_() for each in synthetic)
    log_rate = torch.tensor(log_rate, dtype=torch.float64, requires_grad=True)
    theta = before.clone().requires_grad_()
    for step in range(steps):
        data = batch(synthetic, step) if batch else synthetic
        (gradient,) = torch.autograd.grad(INNER.loss(theta, *data), theta, create_graph=True)
        theta = theta - log_rate.exp() * gradient
    loss = (theta - after).square().sum() / (before - after).square().sum()
    return loss.detach(), theta.detach(), torch.autograd.grad(loss, (*synthetic, log_rate))


@settings(max_examples=20)
@given(st.integers(0, 99), st.integers(1, 8), st.floats(-5.0, 0.0))
def test_the_gradient_is_that_of_autograd_through_all_steps(seed, steps, log_rate):
    synthetic, before, after = problem(seed)
    found = match(Student(INNER, synthetic, log_rate, steps), before, after)
    loss, theta, expected = by_autograd(synthetic, before, after, log_rate, steps)
    torch.testing.assert_close(found.loss, loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.theta, theta, rtol=1e-12, atol=1e-14)
    for one, other in zip((*found.gradients, found.log_rate), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)
    alone = probe(Student(INNER, synthetic, log_rate, steps), before, after)
    torch.testing.assert_close(alone, loss, rtol=1e-12, atol=0)


def test_batches_are_chosen_by_their_step():
    synthetic, before, after = problem()

    def batch(data, step):
        rows = torch.arange(3) + step % 3
        return tuple(each[rows] for each in data)

    found = match(Student(INNER, synthetic, -1.0, 5, batch=batch), before, after)
    _, _, expected = by_autograd(synthetic, before, after, -1.0, 5, batch)
    for one, other in zip((*found.gradients, found.log_rate), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


@given(st.integers(0, 99), st.floats(-5.0, 1.0))
def test_without_hessians_one_step_is_exact(seed, log_rate):
    synthetic, before, after = problem(seed)
    exact, rough = (
        function(Student(INNER, synthetic, log_rate, 1), before, after)
        for function in (match, match_without_hessians)
    )
    for one, other in zip(
        (*exact.gradients, exact.log_rate), (*rough.gradients, rough.log_rate), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


@given(st.integers(1, 30), st.floats(-4.0, 0.0))
def test_on_a_quadratic_both_have_their_closed_forms(steps, log_rate):
    # l = sum h (theta - x)^2 / 2, so theta_N - x = (1 - alpha h)^N (theta_0 - x), and what reaches
    # x is 1 - (1 - alpha h)^N of the adjoint; without Hessians each step sends alpha h of it.
    h = torch.tensor([0.3, 1.0, 1.7], dtype=torch.float64)
    inner = Loss(lambda theta, images: (h * (theta - images).square()).sum() / 2)
    draw = torch.Generator().manual_seed(steps)
    images, before, after = (torch.randn(3, generator=draw, dtype=torch.float64) for _ in range(3))
    exact, rough = (
        f(Student(inner, (images,), log_rate, steps), before, after)
        for f in (match, match_without_hessians)
    )
    rate = math.exp(log_rate)
    end = images + (1 - rate * h) ** steps * (before - images)
    adjoint = 2 * (end - after) / (before - after).square().sum()
    torch.testing.assert_close(exact.theta, end)
    torch.testing.assert_close(exact.gradients[0], adjoint * (1 - (1 - rate * h) ** steps))
    torch.testing.assert_close(rough.gradients[0], adjoint * steps * rate * h)


def test_without_hessians_is_exact_for_a_loss_without_curvature():
    # The gradient depends on the data and not on the parameters.
    inner = Loss(lambda theta, images: (theta * images).sum())
    draw = torch.Generator().manual_seed(0)
    images, before, after = (torch.randn(7, generator=draw, dtype=torch.float64) for _ in range(3))
    exact, rough = (
        f(Student(inner, (images,), -1.0, 9), before, after)
        for f in (match, match_without_hessians)
    )
    torch.testing.assert_close(exact.gradients, rough.gradients)
    torch.testing.assert_close(exact.log_rate, rough.log_rate)


@given(st.integers(0, 99), st.integers(1, 6), st.floats(-4.0, 1.0))
def test_the_loss_is_its_geometry(seed, steps, log_rate):
    synthetic, before, after = problem(seed)
    found = match(Student(INNER, synthetic, log_rate, steps), before, after)
    shape = geometry(before, found.theta, after)
    torch.testing.assert_close(shape.loss, found.loss, rtol=1e-10, atol=1e-12)
    # The best length on the same line.
    best = before + (found.theta - before) * shape.cosine / shape.scale
    assert abs(float(geometry(before, best, after).loss - (1 - shape.cosine**2))) < 1e-10


def test_a_student_that_stays_has_a_loss_of_one():
    _, before, after = problem()
    shape = geometry(before, before, after)
    assert float(shape.scale) == 0 and float(shape.loss) == 1


def test_nothing_of_the_caller_s_is_changed():
    synthetic, before, after = problem()
    kept = [each.clone() for each in (*synthetic, before, after)]
    for function in (match, match_without_hessians, probe):
        function(Student(INNER, synthetic, -1.0, 3), before, after)
    assert all(map(torch.equal, kept, (*synthetic, before, after)))
    assert not any(each.requires_grad for each in (*synthetic, before, after))


@pytest.mark.parametrize("function", [match, match_without_hessians])
def test_gradients_are_the_same_whatever_the_caller_s_mode_is(function):
    synthetic, before, after = problem()

    def batch(data, step):
        return 2 * data[0], data[1]

    expected = function(Student(INNER, synthetic, -1.0, 3, batch=batch), before, after)
    with torch.no_grad():
        found = function(Student(INNER, synthetic, -1.0, 3, batch=batch), before, after)
    torch.testing.assert_close(found, expected)
    # Snapshots of a network that is still being trained.
    tracked = before.clone().requires_grad_(), after.clone().requires_grad_()
    found = function(Student(INNER, synthetic, -1.0, 3, batch=batch), *tracked)
    torch.testing.assert_close(found, expected)
    assert not any(each.requires_grad for each in (found.loss, found.log_rate, found.theta))
    assert not probe(Student(INNER, synthetic, -1.0, 3), *tracked).requires_grad


@pytest.mark.parametrize("function", [match, match_without_hessians])
def test_data_that_nothing_depends_on_has_a_gradient_of_zero(function):
    images, before, after = (torch.ones(3, dtype=torch.float64) * k for k in (1, 2, 3))
    found = function(Student(Loss(lambda theta, x: theta.sum()), (images,), -1.0, 2), before, after)
    assert not found.gradients[0].any() and float(found.log_rate)


@pytest.mark.parametrize("length", [1e-30, 1e25])
def test_an_expert_whose_way_cannot_be_measured_is_refused(length):
    before = torch.zeros(3)
    with pytest.raises(ValueError, match="squared distance"):
        geometry(before, before, before + length)
    with pytest.raises(ValueError, match="before and after are empty"):
        geometry(before[:0], before[:0], before[:0])
    with pytest.raises(TypeError, match="before is torch.float16"):
        geometry(before.half(), before.half(), before.half() + 1)


NAMES = ("inner", "synthetic", "log_rate", "steps")


@pytest.mark.parametrize("function", [match, match_without_hessians, probe])
@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"steps": 0}, ValueError, "steps is 0"),
        ({"log_rate": math.nan}, ValueError, "log_rate is nan"),
        ({"log_rate": 1e4}, ValueError, "log_rate is 10000"),
        ({"log_rate": True}, ValueError, "log_rate is True"),
        ({"synthetic": (torch.arange(3),)}, TypeError, "synthetic is a tuple"),
        ({"synthetic": torch.ones(3)}, TypeError, "synthetic is a Tensor"),
        ({"log_rate": "fast"}, ValueError, "log_rate is 'fast'"),
        ({"inner": F.cross_entropy}, TypeError, "inner is a function"),
        ({"after": None}, ValueError, "before and after are equal"),
        ({"after": math.nan}, ValueError, "after"),
        ({"after": torch.zeros(3, dtype=torch.float64)}, ValueError, r"\(3,\)"),
    ],
)
def test_bad_arguments_are_refused(function, wrong, error, said):
    synthetic, before, after = problem()
    given = {"inner": INNER, "after": after, "log_rate": -1.0, "steps": 2}
    given |= {"synthetic": synthetic} | wrong
    if given["after"] is None:
        given["after"] = before
    elif given["after"] is math.nan:
        given["after"] = after.clone()
        given["after"][0] = math.nan
    with pytest.raises(error, match=said):
        function(Student(*map(given.get, NAMES)), before, given["after"])
