"""Meta-gradients: against autograd through the loop, finite differences, and two libraries."""

import math
import warnings

import higher
import pytest
import torch
import torchopt
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.nn import functional as F

from kempe_nb.methods import unrolled
from kempe_nb.methods.optimisers import SGD, Adam
from kempe_nb.methods.unrolled import (
    Loss,
    adjoint_steps,
    advance,
    meta_gradient,
    meta_gradient_by_autograd,
    start,
)
from kempe_nb.networks.convnet import convnet
from kempe_nb.networks.flat import FlatNetwork
from kempe_nb.networks.perceptron import perceptron

OPTIMISERS = [
    SGD(0.1),
    SGD(0.1, momentum=0.9),
    SGD(0.1, momentum=0.9, weight_decay=0.01),
    Adam(0.01),
    Adam(0.01, betas=(0.5, 0.9), eps=1e-4),
]


class Problem:
    """A small network, ten synthetic images with learned labels, thirty real ones."""

    def __init__(self, module=None, dtype=torch.float64, seed=0):
        rng = torch.Generator().manual_seed(seed)
        self.network = FlatNetwork(module or perceptron((16, 8, 3), activation=nn.Tanh))
        self.theta = self.network.initial(rng, dtype=dtype)
        shape = (16,) if module is None else (1, 8, 8)
        images = torch.randn(10, *shape, generator=rng, dtype=dtype)
        labels = torch.rand(10, 3, generator=rng, dtype=dtype)
        self.synthetic = images, labels
        self.real = torch.randn(30, *shape, generator=rng, dtype=dtype)
        self.classes = torch.randint(3, (30,), generator=rng)

    def inner(self, theta, images, labels):
        return F.cross_entropy(self.network(theta, images), labels)

    def outer(self, theta):
        return F.cross_entropy(self.network(theta, self.real), self.classes)

    def meta(self, optimiser, unroll, window, *, trace=False, function=meta_gradient, **more):
        inner = Loss(self.inner, trace=trace)
        outer = Loss(self.outer, trace=trace).on()
        return function(inner, outer, self.synthetic, self.theta, optimiser, unroll, window, **more)

    def after(self, optimiser, steps, synthetic):
        """Return the outer loss after training on some data, by PyTorch's own optimiser."""
        theta = self.theta.clone().requires_grad_()
        theirs = torch_optimiser(optimiser, theta)
        for _ in range(steps):
            theirs.zero_grad()
            self.inner(theta, *synthetic).backward()
            theirs.step()
        return self.outer(theta).item()


def torch_optimiser(optimiser, *parameters):
    """Return the optimiser of torch.optim with the same settings."""
    if isinstance(optimiser, SGD):
        decay = optimiser.weight_decay
        return torch.optim.SGD(
            parameters, optimiser.lr, momentum=optimiser.momentum, weight_decay=decay
        )
    return torch.optim.Adam(parameters, optimiser.lr, betas=optimiser.betas, eps=optimiser.eps)


def relative(found, expected):
    """Return |found - expected| / |expected| of tuples of tensors."""
    gap = math.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(found, expected, strict=True)))
    return gap / math.sqrt(sum((b**2).sum() for b in expected))


# The gradient


@pytest.mark.parametrize("trace", [False, True], ids=["eager", "traced"])
@pytest.mark.parametrize("optimiser", OPTIMISERS, ids=str)
def test_it_is_that_of_autograd_through_the_loop(optimiser, trace):
    problem = Problem()
    for unroll, window in ((1, 1), (7, 7), (9, 4)):
        found = problem.meta(optimiser, unroll, window, trace=trace)
        expected = problem.meta(optimiser, unroll, window, function=meta_gradient_by_autograd)
        assert relative(found.gradients, expected.gradients) < 1e-10
        torch.testing.assert_close(found[1:], expected[1:], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("trace", [False, True], ids=["eager", "traced"])
def test_it_goes_through_the_convnet_and_its_fused_block(trace):
    problem = Problem(convnet((1, 8, 8), 3, width=4, depth=2))
    for optimiser in (SGD(0.1, momentum=0.9), Adam(0.01)):
        found = problem.meta(optimiser, 6, 4, trace=trace)
        expected = problem.meta(optimiser, 6, 4, function=meta_gradient_by_autograd)
        assert relative(found.gradients, expected.gradients) < 1e-10


@pytest.mark.parametrize("optimiser", OPTIMISERS, ids=str)
def test_finite_differences_of_training_by_torch_optim(optimiser):
    problem = Problem()
    found = problem.meta(optimiser, 6, 6)
    rng = torch.Generator().manual_seed(5)
    for index in range(2):
        direction = torch.randn(problem.synthetic[index].shape, generator=rng).double()
        values = []
        for step in (1e-5, -1e-5):
            moved = list(problem.synthetic)
            moved[index] = moved[index] + step * direction
            values.append(problem.after(optimiser, 6, moved))
        expected = (values[0] - values[1]) / 2e-5
        assert (found.gradients[index] * direction).sum().item() == pytest.approx(
            expected, rel=1e-5
        )


@given(st.integers(1, 8), st.integers(1, 8), st.sampled_from(OPTIMISERS), st.integers(0, 2**32))
@settings(deadline=None, max_examples=25)
def test_contributions_of_the_steps_add_up_to_every_window(one, other, optimiser, seed):
    """One backward sweep holds the gradients of all windows: G(N, K) are its partial sums."""
    unroll, window = max(one, other), min(one, other)
    problem = Problem(seed=seed)
    inner = Loss(problem.inner)
    states = [start(problem.theta, optimiser)]
    for _ in range(unroll):
        states.append(advance(inner, problem.synthetic, states[-1], optimiser, 1))
    _, of_theta = Loss(problem.outer).value_and_gradient(states[-1].theta)
    steps = list(adjoint_steps(inner, problem.synthetic, states, optimiser, of_theta))
    assert [each.step for each in steps] == list(range(unroll))[::-1]
    found = [sum(parts) for parts in zip(*(s.contribution for s in steps[:window]), strict=True)]
    expected = problem.meta(optimiser, unroll, window).gradients
    torch.testing.assert_close(tuple(found), expected, rtol=1e-9, atol=1e-14)


def test_the_adjoint_is_the_derivative_in_the_initial_parameters():
    problem = Problem()
    optimiser = Adam(0.01)
    inner = Loss(problem.inner)
    states = [start(problem.theta, optimiser)]
    for _ in range(5):
        states.append(advance(inner, problem.synthetic, states[-1], optimiser, 1))
    _, of_theta = Loss(problem.outer).value_and_gradient(states[-1].theta)
    *_, last = adjoint_steps(inner, problem.synthetic, states, optimiser, of_theta)
    theta = problem.theta.clone().requires_grad_()
    now, slots = theta, states[0].slots
    for step in range(5):
        loss = problem.inner(now, *problem.synthetic)
        (gradient,) = torch.autograd.grad(loss, now, create_graph=True)
        now, slots = optimiser.step(now, slots, gradient, step + 1)
    (expected,) = torch.autograd.grad(problem.outer(now), theta)
    torch.testing.assert_close(last.adjoint, expected, rtol=1e-10, atol=1e-14)


def test_a_quadratic_has_a_closed_form():
    """l = |theta - u|^2 / 2 and L = |theta|^2 / 2: theta_N = (1-a)^N theta_0 + (1 - (1-a)^N) u."""
    rate, u = 0.1, torch.tensor([2.0], dtype=torch.float64)
    theta = torch.tensor([5.0], dtype=torch.float64)
    inner = Loss(lambda theta, u: ((theta - u) ** 2).sum() / 2)
    for unroll, window in ((1, 1), (10, 10), (30, 7)):
        found = meta_gradient(
            inner, Loss(lambda t: (t**2).sum() / 2).on(), (u,), theta, SGD(rate), unroll, window
        )
        end = 0.9**unroll * 5 + (1 - 0.9**unroll) * 2
        assert found.theta.item() == pytest.approx(end, rel=1e-12)
        assert found.gradients[0].item() == pytest.approx(end * (1 - 0.9**window), rel=1e-12)


def test_many_networks_at_once_are_the_sum_of_each():
    problem = Problem()
    thetas = torch.stack([problem.theta, 2 * problem.theta])

    def inner(thetas, images, labels):
        logits = torch.func.vmap(problem.network, in_dims=(0, None))(thetas, images)
        return sum(F.cross_entropy(each, labels) for each in logits)

    def outer(thetas):
        return sum(problem.outer(theta) for theta in thetas)

    both = meta_gradient(Loss(inner), Loss(outer).on(), problem.synthetic, thetas, Adam(0.01), 5, 3)
    parts = []
    for theta in thetas:
        problem.theta = theta
        parts.append(problem.meta(Adam(0.01), 5, 3).gradients)
    expected = tuple(a + b for a, b in zip(*parts, strict=True))
    torch.testing.assert_close(both.gradients, expected, rtol=1e-9, atol=1e-14)


# Batches


def test_batches_of_the_synthetic_data_are_differentiated():
    problem = Problem()

    def batch(synthetic, step):
        images, labels = synthetic
        chosen = torch.arange(3 * step, 3 * step + 4) % 10
        return images[chosen] * (1 + 0.1 * step), labels[chosen]

    for trace in (False, True):
        found = problem.meta(Adam(0.01), 6, 4, batch=batch, trace=trace)
        expected = problem.meta(Adam(0.01), 6, 4, batch=batch, function=meta_gradient_by_autograd)
        assert relative(found.gradients, expected.gradients) < 1e-10


@pytest.mark.parametrize("trace", [False, True], ids=["eager", "traced"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_batch_may_hold_constants_at_any_place(place, trace):
    problem = Problem()
    anchor = torch.full((4, 1), 0.5, dtype=torch.float64)

    def loss(theta, *data):
        data = list(data)
        weight = data.pop(place)
        return problem.inner(theta, data[0] * weight, data[1])

    def batch(synthetic, step):
        data = [each[step : step + 4] for each in synthetic]
        data.insert(place, anchor * (1 + step))
        return tuple(data)

    outer = Loss(problem.outer).on()
    found, expected = (
        way(
            *(Loss(loss, trace=trace), outer, problem.synthetic, problem.theta),
            *(Adam(0.01), 5, 4),
            batch=batch,
        )
        for way in (meta_gradient, meta_gradient_by_autograd)
    )
    assert relative(found.gradients, expected.gradients) < 1e-10


def test_classes_as_integers_are_data_without_a_derivative():
    problem = Problem()
    classes = torch.arange(10) % 3
    inner, outer = Loss(problem.inner, trace=True), Loss(problem.outer).on()
    synthetic = problem.synthetic[0], classes
    found = meta_gradient(inner, outer, synthetic, problem.theta, SGD(0.1), 4, 4)
    fixed = Loss(lambda theta, images: problem.inner(theta, images, classes))
    expected = meta_gradient_by_autograd(fixed, outer, synthetic[:1], problem.theta, SGD(0.1), 4, 4)
    assert len(found.gradients) == 1 and relative(found.gradients, expected.gradients) < 1e-10


# The optimisers


@pytest.mark.parametrize("optimiser", OPTIMISERS, ids=str)
def test_steps_are_those_of_torch_optim(optimiser):
    rng = torch.Generator().manual_seed(0)
    theta = torch.randn(50, generator=rng, dtype=torch.float64)
    theirs = theta.clone().requires_grad_()
    other = torch_optimiser(optimiser, theirs)
    slots = start(theta, optimiser).slots
    for step in range(1, 20):
        gradient = torch.randn(50, generator=rng, dtype=torch.float64)
        gradient[::7] = 0
        theta, slots = optimiser.step(theta, slots, gradient, step)
        theirs.grad = gradient.clone()
        other.step()
        torch.testing.assert_close(theta, theirs.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("step", [1, 2, 50])
@pytest.mark.parametrize("optimiser", OPTIMISERS, ids=str)
def test_pullbacks_are_those_of_autograd(optimiser, step):
    rng = torch.Generator().manual_seed(step)
    draw = lambda: torch.randn(40, generator=rng, dtype=torch.float64)  # noqa: E731
    theta, gradient = draw().requires_grad_(), draw().requires_grad_()
    slots = tuple((draw() ** 2).requires_grad_() for _ in range(optimiser.slots))
    after = optimiser.step(theta, slots, gradient, step)
    of_theta, of_slots = draw(), tuple(draw() for _ in slots)
    expected = torch.autograd.grad(
        (after[0], *after[1]), (theta, *slots, gradient), (of_theta, *of_slots)
    )
    with torch.no_grad():
        back = optimiser.pullback(after[1], gradient, step, of_theta, of_slots)
    torch.testing.assert_close((back[0], *back[1], back[2]), expected, rtol=1e-11, atol=1e-13)


def test_adam_where_a_gradient_was_always_zero():
    """Its first step is -lr g / (|g| + eps), whose derivative at zero is -lr / eps; no NaN."""
    adam = Adam(0.01, eps=1e-3)
    zero = torch.zeros(1, dtype=torch.float64)
    _, slots = adam.step(zero, (zero, zero), zero, 1)
    _, _, back = adam.pullback(slots, zero, 1, zero + 1, (zero, zero))
    assert back.item() == pytest.approx(-0.01 / 1e-3, rel=1e-12)
    gradient = zero.clone().requires_grad_()
    theta, _ = adam.step(zero, (zero, zero), gradient, 1)
    (slope,) = torch.autograd.grad(theta, gradient)
    assert slope.item() == pytest.approx(-0.01 / 1e-3, rel=1e-12)


def test_a_bias_before_the_normalisation_has_no_gradient_and_makes_no_nan():
    problem = Problem(convnet((1, 8, 8), 3, width=4, depth=1))
    found = problem.meta(Adam(0.01), 5, 5)
    assert all(each.isfinite().all() for each in found.gradients)


@pytest.mark.parametrize("window", [2, 5])
def test_parameters_without_a_gradient_make_no_nan(window):
    """The root of Adam's second moment is zero there in all steps, and has no derivative."""
    problem = Problem()

    def loss(theta, *data):
        return problem.inner(torch.cat([theta[:3] * 0, theta[3:]]), *data)

    found, expected = (
        way(
            *(Loss(loss), Loss(problem.outer).on(), problem.synthetic, problem.theta),
            *(Adam(0.01), 5, window),
        )
        for way in (meta_gradient, meta_gradient_by_autograd)
    )
    assert all(each.isfinite().all() for each in found.gradients)
    assert relative(found.gradients, expected.gradients) < 1e-10


def test_a_loss_that_is_linear_in_the_parameters_sends_nothing_back():
    u, theta = torch.ones(2).double(), torch.ones(3).double()
    end = Loss(lambda theta: theta.square().sum()).on()
    for trace in (False, True):
        flat = Loss(lambda theta, u: theta.sum(), trace=trace)
        found = meta_gradient(flat, end, (u,), theta, SGD(0.1), 3, 2)
        assert torch.equal(found.gradients[0], torch.zeros(2).double())


# Libraries: where they agree, and where they do not


class Plain(nn.Module):
    """The perceptron of `Problem` with its own parameters, as the libraries want it."""

    def __init__(self, problem):
        super().__init__()
        module = problem.network.module.double()
        with torch.no_grad():
            for name, value in problem.network.parts(problem.theta).items():
                module.get_parameter(name).copy_(value)
        self.module = module

    def forward(self, x):
        return self.module(x)


def of_higher(problem, optimiser, steps):
    module = Plain(problem)
    data = [each.clone().requires_grad_() for each in problem.synthetic]
    theirs = torch_optimiser(optimiser, *module.parameters())
    with higher.innerloop_ctx(module, theirs, copy_initial_weights=True) as (net, inner):
        for _ in range(steps):
            inner.step(F.cross_entropy(net(data[0]), data[1]))
        loss = F.cross_entropy(net(problem.real), problem.classes)
    return torch.autograd.grad(loss, data)


def of_torchopt(problem, optimiser, steps, eps_root):
    module = Plain(problem)
    data = [each.clone().requires_grad_() for each in problem.synthetic]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inner = torchopt.MetaAdam(
            module, lr=optimiser.lr, betas=optimiser.betas, eps=optimiser.eps, eps_root=eps_root
        )
        for _ in range(steps):
            inner.step(F.cross_entropy(module(data[0]), data[1]))
        loss = F.cross_entropy(module(problem.real), problem.classes)
    return torch.autograd.grad(loss, data)


@pytest.mark.parametrize("optimiser", [SGD(0.1), SGD(0.1, momentum=0.9)], ids=str)
def test_higher_agrees_for_gradient_descent_with_momentum(optimiser):
    problem = Problem()
    found = problem.meta(optimiser, 6, 6).gradients
    assert relative(found, of_higher(problem, optimiser, 6)) < 1e-10


def test_higher_differentiates_another_adam():
    """Its epsilon stands before the bias correction, which finite differences do not confirm."""
    problem, adam = Problem(), Adam(0.01, eps=1e-4)
    found = problem.meta(adam, 6, 6).gradients
    theirs = of_higher(problem, adam, 6)
    direction = torch.randn(10, 16, generator=torch.Generator().manual_seed(2)).double()
    images, labels = problem.synthetic
    ends = [problem.after(adam, 6, (images + step * direction, labels)) for step in (1e-5, -1e-5)]
    slope = (ends[0] - ends[1]) / 2e-5
    assert (found[0] * direction).sum().item() == pytest.approx(slope, rel=1e-5)
    assert abs((theirs[0] * direction).sum().item() / slope - 1) > 0.01
    assert relative(found, theirs) > 0.01


def test_torchopt_agrees_where_its_root_is_kept_from_zero():
    problem, adam = Problem(), Adam(0.01, eps=1e-4)
    found = problem.meta(adam, 6, 6).gradients
    assert relative(of_torchopt(problem, adam, 6, eps_root=1e-16), found) < 1e-4


def test_torchopt_returns_nan_where_a_gradient_is_zero():
    problem, adam = Problem(), Adam(0.01)
    # A pixel that is always dark: its weights have no gradient.
    problem.synthetic[0][:, 0] = 0
    assert all(each.isfinite().all() for each in problem.meta(adam, 3, 3).gradients)
    theirs = of_torchopt(problem, adam, 3, eps_root=0.0)
    assert any(each.isnan().any() for each in theirs)


# Memory


def test_one_graph_is_alive_at_a_time(monkeypatch):
    """Saved tensors of the backward sweep do not grow with the window; those of autograd do."""
    problem = Problem()

    def largest(function, window):
        alive, most = [0], [0]

        class Held:
            def __init__(self, tensor):
                self.tensor, self.size = tensor, tensor.numel()
                alive[0] += self.size
                most[0] = max(most[0], alive[0])

            def __del__(self):
                alive[0] -= self.size

        with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
            problem.meta(Adam(0.01), window, window, function=function)
        return most[0]

    ours = [largest(meta_gradient, window) for window in (2, 20)]
    theirs = [largest(meta_gradient_by_autograd, window) for window in (2, 20)]
    assert ours[1] == ours[0]
    assert theirs[1] > 5 * theirs[0]


# Bad input


def call(**change):
    problem = Problem()
    arguments = {
        "inner": Loss(problem.inner),
        "outer": Loss(problem.outer).on(),
        "synthetic": problem.synthetic,
        "theta": problem.theta,
        "optimiser": SGD(0.1),
        "unroll": 4,
        "window": 2,
    }
    return meta_gradient(**{**arguments, **change})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"window": 5}, ValueError, "window is 5 and unroll 4; accepted is a window of at most"),
        ({"window": 0}, ValueError, "window is 0"),
        ({"unroll": 0}, ValueError, "unroll is 0"),
        ({"unroll": -3}, ValueError, "unroll is -3"),
        ({"unroll": 4.0}, ValueError, "unroll is 4.0; accepted is an integer"),
        ({"inner": lambda theta: 0}, TypeError, "inner is a function; accepted is a Loss"),
        ({"outer": lambda theta: 0}, TypeError, r"outer is a function; accepted is Loss\(...\).on"),
        (
            {"optimiser": torch.optim.SGD([torch.zeros(1)], 0.1)},
            TypeError,
            "optimiser is a SGD, whose update cannot be differentiated here; accepted are SGD and",
        ),
        ({"synthetic": [torch.zeros(3)]}, TypeError, "synthetic is list of"),
        ({"synthetic": (torch.zeros(3).long(),)}, TypeError, "at least one of floating-point"),
        ({"theta": torch.zeros(3).long()}, TypeError, "theta is torch.int64"),
        ({"theta": [0.0]}, TypeError, "theta is list"),
        (
            {"outer": Loss(lambda theta: theta).on()},
            ValueError,
            r"a loss returned shape \(163,\); accepted is a scalar",
        ),
        (
            {"inner": Loss(lambda theta, *data: theta)},
            ValueError,
            "a loss returned shape",
        ),
    ],
)
def test_bad_input_is_named(change, error, message):
    with pytest.raises(error, match=message):
        call(**change)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(0.0), "lr is 0.0"),
        (lambda: SGD(0.1, momentum=1.0), "momentum is 1.0; accepted is a number from 0 to below 1"),
        (lambda: SGD(0.1, weight_decay=-1), "weight_decay is -1"),
        (lambda: Adam(0.1, eps=0.0), "eps is 0.0"),
        (lambda: Adam(0.1, betas=(0.9, 1)), r"betas\[1\] is 1"),
        (lambda: Adam(0.1, betas=(0.9,)), r"betas is \(0.9,\); accepted is a tuple of two"),
    ],
)
def test_bad_optimisers_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_module_says_how_many_numbers_are_stored():
    assert "K (2 +" in unrolled.__doc__ and SGD(0.1).slots == 0 and Adam(0.1).slots == 2
