"""Softmax regression on frozen features, for many configurations at once.

A configuration g has weights of the samples in its likelihood, weights q of the samples in its
context, and numbers; its last layer W [D + 1, C] (the last row is the bias) follows full-batch
gradient descent with momentum on

    sum_i likelihood_i nll_i(W) + strength L_q(W + eps(W)) + precision / 2 ||W - centre||^2,
    L_q(W) = sum_i q_i nll_i(W),        eps(W) = radius grad L_q(W) / ||grad L_q(W)||,

in which eps counts as a constant. That is the objective of the public code of Rudner, Zhang, Wilson
and Kempe (arXiv 2403.09869), with expectations in place of samples of minibatches; in the symbols
of that code, with batches of B out of N, strength is nu / B and precision is tau / N.

All configurations share the features, so a step is a few products of one matrix with a matrix of
all configurations, and two facts make these small. With K = X X^T and the residuals
R = softmax(XW) - Y, the perturbation moves the logits by radius / ||grad|| K (q R), and
||grad||^2 = <q R, K (q R)>: no derivative is taken. And W - centre stays a combination X^T A of the
samples, so with K at hand a step takes two products [N, N] x [N, G], where three forward and
backward pairs take six of [N, D] x [D, G]. Residuals sum to zero over the classes, so C - 1 columns
are enough. With more samples than twice the features K is the larger matrix; then W - centre itself
is the state, and a step takes four products with X.

No compiled kernel: beside these products a step is a few elementwise passes over [N, G (C - 1)],
1.2 MB for 1199 samples and 256 configurations, which a compiler fuses and a GPU's cache holds.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from kempe_nb.checks import (
    checked_choice,
    checked_fraction,
    checked_integer,
    checked_not_negative,
    common_device,
)
from kempe_nb.methods.frozen_features import (
    check_layer,
    check_numbers,
    check_samples,
    check_weights,
    with_ones,
)

ROUTES = ("samples", "features")
SCHEDULES = ("constant", "linear")


def fit_last_layers(
    features: torch.Tensor,
    labels: torch.Tensor,
    likelihood: torch.Tensor,
    context: torch.Tensor | None = None,
    *,
    strength: float | torch.Tensor = 1.0,
    radius: float | torch.Tensor = 0.0,
    precision: float | torch.Tensor = 0.0,
    centre: torch.Tensor | None = None,
    start: torch.Tensor | None = None,
    rate: float | torch.Tensor = 0.1,
    momentum: float = 0.9,
    steps: int = 300,
    schedule: str = "constant",
    groups: torch.Tensor | None = None,
    group_rate: float | torch.Tensor = 0.0,
    route: str | None = None,
) -> torch.Tensor:
    """Return the last layers of G configurations after `steps` steps, [G, D + 1, C].

    G is what the arguments with a first axis of configurations agree on. The same arguments give
    the same bits on the same machine with the same number of threads; the neighbours of a
    configuration in the batch change it by rounding only. Rounding grows where the gradient of the
    context nearly vanishes, because its direction is what counts.

    Parameters
    ----------
    features : float32 or float64 [N, D]
        Finite. A column of ones for the bias is added here.
    labels : int64 [N]
        From 0 to C - 1, where C is one more than the largest; C at least 2.
    likelihood : [N] or [G, N]
        Weights of the samples, of the dtype of the features, not negative, with a sum of 1 in each
        configuration; 0 leaves a sample out.
    context : [N] or [G, N], optional
        The same for the prior's factor of groups; none, no such factor.
    strength, radius, precision, rate : float or [G]
        Finite, from 0 on; `strength` and `radius` speak of the context.
    centre : [D + 1, C] or [G, D + 1, C], optional
        Mean of the Gaussian factor of the prior; zero by default.
    start : as `centre`
        First weights; those of `centre` by default.
    momentum : float
        From 0 to below 1; velocity = momentum * velocity + gradient.
    steps : int
        At least 1.
    schedule : {"constant", "linear"}
        Of the rate: constant, as in the public code, or falling in equal steps to 1 / steps of what
        is given. With a radius a constant rate does not settle where the gradient of the context
        goes to zero, since the perturbation keeps its length there.
    groups, group_rate : int64 [N], and float or [G]
        Group DRO (Sagawa et al., arXiv 1911.08731): before each step the likelihood's weight of a
        group is multiplied by exp(group_rate * its mean loss) and all are normalised to 1; within a
        group the given weights keep their proportions. 0 leaves the likelihood as it is.
    route : {"samples", "features"}, optional
        The coordinates of the state. By default those with the cheaper step.

    Raises
    ------
    TypeError
        For what is no tensor, or of another dtype.
    ValueError
        For anything else that is not accepted, and for configurations that do not stay finite,
        which are numbered.
    """
    device = common_device(features=features, labels=labels, likelihood=likelihood)
    features, likelihood = features.detach(), likelihood.detach()
    classes = check_samples(features, labels)
    numbers = {
        "strength": strength,
        "radius": radius,
        "precision": precision,
        "rate": rate,
        "group_rate": group_rate,
    }
    weights = {"likelihood": likelihood} | ({} if context is None else {"context": context})
    layers = {"centre": centre, "start": start}
    count = _configurations(features, classes, numbers, weights, layers)
    column = {
        name: _column(value, name, count, features).to(device) for name, value in numbers.items()
    }
    _check_groups(groups, features, column["group_rate"])
    checked_integer(steps, "steps", 1)
    momentum = checked_fraction(momentum, "momentum")
    if route is None:
        route = "samples" if len(features) < 2 * (features.shape[1] + 1) else "features"
    checked_choice(route, "route", ROUTES)
    checked_choice(schedule, "schedule", SCHEDULES)

    zero = features.new_zeros(1, features.shape[1] + 1, classes)
    mean = zero if centre is None else _batched(centre)
    offset = zero if start is None else _batched(start) - mean
    problem = _Problem.of(features, labels, mean, offset, classes, route)
    likelihood = _by_sample(likelihood)
    context = None if context is None else _by_sample(context)
    shares = _Shares.of(groups, likelihood, column["group_rate"], count)

    state = problem.zero_state(count)
    velocity = torch.zeros_like(state)
    # How much is kept of what the start is away from the centre, which may lie outside the span of
    # the samples.
    kept, kept_velocity = torch.ones_like(column["rate"]), torch.zeros_like(column["rate"])
    for step in range(steps):
        rate = column["rate"] * (1 - step / steps if schedule == "linear" else 1)
        z = problem.logits(state, kept)
        residual = problem.residual(z)
        pull = shares.weights(z, problem) * residual
        if context is not None:
            ascent = context * residual
            if (column["radius"] > 0).any():
                shift = problem.logits_of(problem.gradient_of(ascent))
                z = z + _ratio(column["radius"], _squared_norm(ascent, shift)) * shift
                ascent = context * problem.residual(z)
            pull = pull + column["strength"] * ascent
        velocity = momentum * velocity + problem.gradient_of(pull) + column["precision"] * state
        kept_velocity = momentum * kept_velocity + column["precision"] * kept
        state = state - rate * velocity
        kept = kept - rate * kept_velocity
    result = mean + problem.full(state) + kept.reshape(-1, 1, 1) * offset
    if lost := (~torch.isfinite(result.flatten(1)).all(1)).nonzero()[:, 0].tolist():
        raise ValueError(
            f"rate, strength or precision: {len(lost)} of {count} configurations do not stay "
            f"finite, the first of them {lost[:5]}; accepted are values with which the descent "
            "does not diverge"
        )
    return result.contiguous()


def _squared_norm(ascent: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Return the squared norms of the gradients of the full weights, [1, 1, G]."""
    return (ascent * shift).sum((0, 1), keepdim=True).clamp_min(0)


def _ratio(radius: torch.Tensor, squared: torch.Tensor) -> torch.Tensor:
    """Return radius over norm, and 0 where the gradient is zero and has no direction."""
    tiny = torch.finfo(squared.dtype).tiny
    return torch.where(squared > 0, radius * squared.clamp_min(tiny).rsqrt(), 0.0)


@dataclass(frozen=True, eq=False)
class _Problem:
    """Features and targets, with logits relative to the last class, [N, C - 1, G].

    `state` holds W - centre, relative to the last class and without what is kept of the start: as
    X^T A by A [N, C - 1, G] on the route of samples, by itself [D + 1, C - 1, G] on that of
    features. `matrix` takes a state to logits: K, or X. Configurations come last, so that what is
    summed over classes is summed in whole rows.
    """

    x: torch.Tensor
    matrix: torch.Tensor
    targets: torch.Tensor
    centre_logits: torch.Tensor
    offset_logits: torch.Tensor
    by_samples: bool

    @classmethod
    def of(cls, features, labels, mean, offset, classes, route) -> "_Problem":
        x = with_ones(features)
        targets = F.one_hot(labels, classes)[:, :-1, None].to(features.dtype)
        by_samples = route == "samples"
        matrix = x @ x.T if by_samples else x
        logits = [_relative(torch.einsum("sf,gfc->scg", x, layer)) for layer in (mean, offset)]
        return cls(x, matrix, targets, *logits, by_samples)

    def zero_state(self, count: int) -> torch.Tensor:
        return self.x.new_zeros(self.matrix.shape[1], self.targets.shape[1], count)

    def logits_of(self, state: torch.Tensor) -> torch.Tensor:
        return (self.matrix @ state.flatten(1)).unflatten(1, state.shape[1:])

    def gradient_of(self, residual: torch.Tensor) -> torch.Tensor:
        """Return the gradient in the coordinates of the state.

        The gradient of column c minus that of the last column, which is minus the sum of the
        others.
        """
        lifted = residual + residual.sum(1, keepdim=True)
        if self.by_samples:
            return lifted
        return (self.x.T @ lifted.flatten(1)).unflatten(1, lifted.shape[1:])

    def logits(self, state: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        return self.centre_logits + kept * self.offset_logits + self.logits_of(state)

    def residual(self, z: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of all classes but the last, minus the targets."""
        if z.shape[1] == 1:
            return z.sigmoid() - self.targets
        return _with_last(z).softmax(1)[:, :-1] - self.targets

    def losses(self, z: torch.Tensor) -> torch.Tensor:
        """Return the negative log-likelihoods of the samples, [N, G]."""
        return _with_last(z).logsumexp(1) - (z * self.targets).sum(1)

    def full(self, state: torch.Tensor) -> torch.Tensor:
        """Return a state as weights of all classes, with a sum of zero over them, [G, D + 1, C]."""
        if self.by_samples:
            state = (self.x.T @ state.flatten(1)).unflatten(1, state.shape[1:])
        whole = _with_last(state)
        return (whole - whole.mean(1, keepdim=True)).permute(2, 0, 1)


@dataclass(eq=False)
class _Shares:
    """Weights of the likelihood, [N, 1, G], which group DRO changes from step to step."""

    fixed: torch.Tensor
    one_hot: torch.Tensor | None
    rate: torch.Tensor
    log_share: torch.Tensor | None

    @classmethod
    def of(cls, groups, likelihood, rate, count) -> "_Shares":
        if groups is None or not (rate != 0).any():
            return cls(likelihood, None, rate[:, 0], None)
        one_hot = F.one_hot(groups).to(likelihood)
        mass = one_hot.T @ likelihood[:, 0]
        if (mass == 0).any():
            group = int((mass == 0).any(1).nonzero()[0])
            raise ValueError(
                f"groups: no sample of group {group} has weight in the likelihood; accepted are "
                "groups with at least one"
            )
        within = likelihood / (one_hot @ mass)[:, None]
        log_share = mass.log().expand(-1, count).clone()
        return cls(within, one_hot, rate[:, 0], log_share)

    def weights(self, z: torch.Tensor, problem: _Problem) -> torch.Tensor:
        if self.one_hot is None:
            return self.fixed
        losses = self.one_hot.T @ (self.fixed[:, 0] * problem.losses(z))
        self.log_share = (self.log_share + self.rate * losses).log_softmax(0)
        return self.fixed * (self.one_hot @ self.log_share.exp())[:, None]


def _by_sample(weights: torch.Tensor) -> torch.Tensor:
    """Return weights [N] or [G, N] as [N, 1, 1 or G]."""
    return weights.reshape(-1, weights.shape[-1]).T.contiguous()[:, None]


def _with_last(z: torch.Tensor) -> torch.Tensor:
    """Return logits relative to the last class with those of the last class, which are 0."""
    return torch.cat([z, torch.zeros_like(z[:, :1])], 1)


def _relative(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, :-1] - logits[:, -1:]


def _batched(layer: torch.Tensor) -> torch.Tensor:
    return layer if layer.ndim == 3 else layer[None]


def _check_groups(groups, features: torch.Tensor, rate: torch.Tensor) -> None:
    if groups is not None:
        check_numbers(groups, "groups", features)
    elif (rate != 0).any():
        raise ValueError("groups is None; accepted are int64 [N] where group_rate is not 0")


def _configurations(features, classes, numbers, weights, layers) -> int:
    """Return the number of configurations that all arguments agree on, and check the shapes."""
    found = {}
    for name, value in weights.items():
        check_weights(value, name, features)
        if value.ndim == 2:
            found[name] = len(value)
    for name, value in layers.items():
        if value is None:
            continue
        check_layer(value, name, features, classes)
        if value.ndim == 3:
            found[name] = len(value)
    for name, value in numbers.items():
        if isinstance(value, torch.Tensor) and value.ndim:
            found[name] = len(value)
    if len(set(found.values())) > 1 or 0 in found.values():
        said = ", ".join(f"{name} has {size}" for name, size in found.items())
        raise ValueError(f"{said} configurations; accepted is one number of them, at least 1")
    return next(iter(found.values()), 1)


def _column(value, name: str, count: int, features: torch.Tensor) -> torch.Tensor:
    """Return a number for each configuration, [1, 1, G]."""
    if not isinstance(value, torch.Tensor):
        value = torch.tensor(checked_not_negative(value, name), dtype=torch.float64)
    if value.ndim > 1 or not value.is_floating_point():
        raise ValueError(
            f"{name} is {value.dtype} {tuple(value.shape)}; accepted is a number, or [G]"
        )
    value = value.detach().to(features.dtype)
    if not ((value >= 0) & (value < torch.inf)).all():
        raise ValueError(
            f"{name} holds {value.min():g} to {value.max():g}; accepted are finite numbers from 0 "
            f"on, in {features.dtype}"
        )
    return value.expand(count)[None, None]
