"""Meta-gradients: derivatives of a loss after training with respect to the data of the training.

An inner loop trains parameters theta on synthetic data U,

    theta_{t+1}, m_{t+1} = step(theta_t, m_t, g_t),    g_t = d l(theta_t; U) / d theta,

with the vectors m_t that the optimiser carries along. The outer loss L is taken at theta_N, and we
want what of dL/dU comes through the last K steps, G(N, K). The estimators of Feng, Vedantam and
Kempe (arXiv 2311.07025) are settings of these two numbers, for an unroll T and a window M:

    BPTT G(T, T),   truncated G(T, M),   random G(N, N),   RaT-BPTT G(N, M) with N ~ U{M, ..., T}.

The adjoint recursion. Start with lambda = dL/d theta_N and mu = 0, and go back from t = N-1:

    (lambda', mu, q) <- derivatives of `step` in (theta_t, m_t, g_t), pulled back from (lambda, mu),
    lambda <- lambda' + H_t q,    G += (d g_t / dU)^T q,    H_t = d g_t / d theta.

`step` is element-wise and its pullback a closed form. The two products are one double backward pass
through the loss of one step. So only the states of the window are stored, K (2 + slots) P numbers,
and the graph of one step is alive at a time; autograd through the loop keeps all K graphs. The
price is that each step of the window is computed once more. (Derived here: it is reverse-mode
differentiation with the optimiser taken out of the graph.)
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from kempe_nb.checks import checked_integer
from kempe_nb.methods.optimisers import Optimiser, Tensors
from kempe_nb.methods.traced import Traced

#: batch(synthetic, step) returns the data of inner step 0, 1, ...: a differentiable function of the
#: synthetic data. It is called twice for a step of the window, and must choose the same again.
Batch = Callable[[Tensors, int], Tensors]


class Loss:
    """A loss of parameters and data, its gradient, and the products of its second derivatives.

    Parameters
    ----------
    loss : callable
        `loss(theta, *data)` returns a scalar. Only floating-point data is differentiated.
    trace : bool
        Whether gradient and products are recorded once for each shape and replayed; see
        `kempe_nb.methods.traced` for what can be recorded. Up to twice as fast for small networks,
        with the same numbers.
    """

    def __init__(self, loss: Callable[..., torch.Tensor], *, trace: bool = False):
        self.loss = loss
        self.trace = trace
        if trace:
            self.value_and_gradient = Traced(self.value_and_gradient)
            self.products = Traced(self.products)

    def on(self, *data: torch.Tensor) -> "LossOn":
        """Return the loss on some data, as a function of parameters alone."""
        return LossOn(self, data)

    def value_and_gradient(
        self, theta: torch.Tensor, *data: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return l, and d l / d theta, like theta."""
        with torch.enable_grad():
            theta = theta.detach().requires_grad_()
            loss = self.loss(theta, *data)
            if loss.ndim:
                shape = tuple(loss.shape)
                raise ValueError(f"a loss returned shape {shape}; accepted is a scalar")
            (gradient,) = torch.autograd.grad(loss, theta)
        return loss.detach(), gradient

    def products(
        self, q: torch.Tensor, theta: torch.Tensor, *data: torch.Tensor
    ) -> list[torch.Tensor]:
        """Return H q, and (d g / d data)^T q for each tensor of floats among the data."""
        with torch.enable_grad():
            theta = theta.detach().requires_grad_()
            data = tuple(d.detach().requires_grad_(d.is_floating_point()) for d in data)
            loss = self.loss(theta, *data)
            (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
            wanted = theta, *(each for each in data if each.requires_grad)
            if not gradient.requires_grad:  # the loss is linear in theta, and knows no data
                return [torch.zeros_like(each) for each in wanted]
            return list(torch.autograd.grad(gradient, wanted, q, materialize_grads=True))


class LossOn(NamedTuple):
    """A loss on some data, a function of parameters alone."""

    loss: Loss
    data: Tensors

    def __call__(self, theta: torch.Tensor) -> torch.Tensor:
        return self.loss.loss(theta, *self.data)

    def value_and_gradient(self, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss and its derivative in theta."""
        return self.loss.value_and_gradient(theta, *self.data)


class State(NamedTuple):
    """Where the inner loop is.

    Attributes
    ----------
    theta : torch.Tensor
        Parameters [..., P].
    slots : tuple of torch.Tensor
        What the optimiser carries along, each like theta.
    step : int
        Steps that were taken.
    gradient : torch.Tensor or None
        Of the step that led here.
    """

    theta: torch.Tensor
    slots: Tensors
    step: int
    gradient: torch.Tensor | None = None


class AdjointStep(NamedTuple):
    """One step of the backward sweep.

    Attributes
    ----------
    step : int
        The step of the inner loop that was gone back through, from 0.
    adjoint : torch.Tensor
        dL / d theta_step through the steps behind it, like theta.
    contribution : tuple of torch.Tensor
        What this step adds to dL/dU, for each tensor of floats among the synthetic data.
    """

    step: int
    adjoint: torch.Tensor
    contribution: Tensors


class MetaGradient(NamedTuple):
    """G(N, K) for each tensor of floats among the synthetic data, the outer loss, and theta_N."""

    gradients: Tensors
    outer_loss: torch.Tensor
    theta: torch.Tensor


def meta_gradient(
    inner: Loss,
    outer: LossOn,
    synthetic: Tensors,
    theta: torch.Tensor,
    optimiser: Optimiser,
    unroll: int,
    window: int,
    *,
    batch: Batch | None = None,
) -> MetaGradient:
    """Return G(N, K): the derivative of the loss after N inner steps through the last K of them.

    Parameters
    ----------
    inner : Loss
        Of a step.
    outer : LossOn
        After the last step, on real data: `Loss(...).on(images, labels)`.
    synthetic : tuple of torch.Tensor
        The derivative is taken for those of floating-point numbers: images, and labels where they
        are learned.
    theta : float32 or float64 [..., P]
        Initial parameters; many networks at once where `inner` and `outer` sum over them.
    optimiser : SGD, Adam, or any `Optimiser`
    unroll, window : int
        N and K, with 1 <= K <= N.
    batch : callable, optional
        `batch(synthetic, step)` returns the data of an inner step: a draw of them, or augmented
        ones. Without it each step takes all.

    Raises
    ------
    TypeError
        For losses that are none, an optimiser without a pullback, synthetic data without floats, or
        parameters that are not.
    ValueError
        For steps below one, a window larger than the unroll, or a loss that is no scalar.
    """
    _check(inner, outer, synthetic, theta, optimiser)
    unroll, window = checked_window(unroll, window)
    states = [start(theta, optimiser)]
    states = [advance(inner, synthetic, states[0], optimiser, unroll - window, batch=batch)]
    for _ in range(window):
        states.append(advance(inner, synthetic, states[-1], optimiser, 1, batch=batch))
    loss, of_theta = outer.value_and_gradient(states[-1].theta)
    total = tuple(torch.zeros_like(each) for each in synthetic if each.is_floating_point())
    for back in adjoint_steps(inner, synthetic, states, optimiser, of_theta, batch=batch):
        for whole, part in zip(total, back.contribution, strict=True):
            whole += part
    return MetaGradient(total, loss, states[-1].theta)


def start(theta: torch.Tensor, optimiser: Optimiser) -> State:
    """Return the state before the first step: nothing is carried along yet."""
    theta = theta.detach()
    return State(theta, tuple(torch.zeros_like(theta) for _ in range(optimiser.slots)), 0)


@torch.no_grad()
def advance(
    inner: Loss,
    synthetic: Tensors,
    state: State,
    optimiser: Optimiser,
    steps: int,
    *,
    batch: Batch | None = None,
) -> State:
    """Return the state `steps` inner steps later, without a graph."""
    for _ in range(steps):
        theta, slots, step, _ = state
        data = batch(synthetic, step) if batch else synthetic
        _, gradient = inner.value_and_gradient(theta, *data)
        state = State(*optimiser.step(theta, slots, gradient, step + 1), step + 1, gradient)
    return state


def adjoint_steps(
    inner: Loss,
    synthetic: Tensors,
    states: list[State],
    optimiser: Optimiser,
    of_theta: torch.Tensor,
    *,
    batch: Batch | None = None,
) -> Iterator[AdjointStep]:
    """Go back through the steps between the states, the last one first.

    Parameters
    ----------
    states : list of State
        Each one step after the one before.
    of_theta : torch.Tensor
        The derivative of the outer loss in the last state's theta.
    """
    of_slots = tuple(torch.zeros_like(of_theta) for _ in range(optimiser.slots))
    synthetic = tuple(d.detach().requires_grad_(d.is_floating_point()) for d in synthetic)
    floats = [each for each in synthetic if each.requires_grad]
    for before, after in zip(states[-2::-1], states[:0:-1], strict=True):
        of_theta, of_slots, q = optimiser.pullback(
            after.slots, after.gradient, after.step, of_theta, of_slots
        )
        data = batch(synthetic, before.step) if batch else synthetic
        of_state, *contribution = inner.products(q, before.theta, *data)
        if batch:
            parts = zip((d for d in data if d.is_floating_point()), contribution, strict=True)
            # A batch may hold constants beside what it drew.
            drawn = [(own, part) for own, part in parts if own.requires_grad]
            contribution = torch.autograd.grad(
                [own for own, _ in drawn],
                floats,
                [part for _, part in drawn],
                materialize_grads=True,
            )
        of_theta = of_theta + of_state
        yield AdjointStep(before.step, of_theta, tuple(contribution))


def meta_gradient_by_autograd(
    inner: Loss,
    outer: LossOn,
    synthetic: Tensors,
    theta: torch.Tensor,
    optimiser: Optimiser,
    unroll: int,
    window: int,
    *,
    batch: Batch | None = None,
) -> MetaGradient:
    """Return the same with the graph of the whole window: the definition, for small problems."""
    _check(inner, outer, synthetic, theta, optimiser)
    unroll, window = checked_window(unroll, window)
    before = start(theta, optimiser)
    state = advance(inner, synthetic, before, optimiser, unroll - window, batch=batch)
    synthetic = tuple(d.detach().requires_grad_(d.is_floating_point()) for d in synthetic)
    theta, slots = state.theta.detach().requires_grad_(), state.slots
    for step in range(unroll - window, unroll):
        data = batch(synthetic, step) if batch else synthetic
        loss = inner.loss(theta, *data)
        (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
        theta, slots = optimiser.step(theta, slots, gradient, step + 1)
    loss = outer(theta)
    floats = [each for each in synthetic if each.requires_grad]
    gradients = torch.autograd.grad(loss, floats, materialize_grads=True)
    return MetaGradient(gradients, loss.detach(), theta.detach())


def checked_window(unroll: object, window: object) -> tuple[int, int]:
    """Return unroll and window with 1 <= window <= unroll, or refuse them by name."""
    unroll = checked_integer(unroll, "unroll", 1, 2**31 - 1)
    window = checked_integer(window, "window", 1, 2**31 - 1)
    if window > unroll:
        raise ValueError(
            f"window is {window} and unroll {unroll}; accepted is a window of at most the unroll: "
            "the gradient goes back through steps that were taken"
        )
    return unroll, window


def _check(inner, outer, synthetic: object, theta: torch.Tensor, optimiser: object) -> None:
    if not isinstance(inner, Loss):
        raise TypeError(f"inner is a {type(inner).__name__}; accepted is a Loss")
    if not isinstance(outer, LossOn):
        raise TypeError(f"outer is a {type(outer).__name__}; accepted is Loss(...).on(*data)")
    if not all(hasattr(optimiser, name) for name in ("slots", "step", "pullback")):
        raise TypeError(
            f"optimiser is a {type(optimiser).__name__}, whose update cannot be differentiated "
            "here; accepted are SGD and Adam of kempe_nb.methods.optimisers, or what has slots, "
            "step and pullback as they do"
        )
    tensors = isinstance(synthetic, tuple) and all(isinstance(d, torch.Tensor) for d in synthetic)
    if not (tensors and any(each.is_floating_point() for each in synthetic)):
        raise TypeError(
            f"synthetic is {type(synthetic).__name__} of "
            f"{[getattr(d, 'dtype', type(d).__name__) for d in synthetic]}; accepted is a tuple of "
            "tensors, at least one of floating-point numbers"
        )
    if not (isinstance(theta, torch.Tensor) and theta.is_floating_point()):
        found = getattr(theta, "dtype", type(theta).__name__)
        raise TypeError(f"theta is {found}; accepted is a tensor of floating-point parameters")
