"""Last layers under a group-aware prior, by autograd in three ways, and by scikit-learn.

Each takes a problem (see `benchmarks.operations.last_layer`) and returns layers [G, D + 1, C], with
the bias in the last row. The three descents take the same steps as ours, from zero.
"""

import warnings

import joblib
import numpy as np
import torch
from torch.func import grad, vmap
from torch.nn import functional as F

from kempe_nb.methods.frozen_features import with_ones


def objective(problem, x, layer, context, radius):
    """Return the loss of one configuration, its shift a constant."""
    z = x @ layer
    own = (problem.likelihood * _nll(z, problem.labels)).sum()
    if (problem.radius > 0).any():
        direction = grad(lambda w: (context * _nll(x @ w, problem.labels)).sum())(layer.detach())
        z = x @ (layer + radius * direction / direction.norm())
    shifted = (context * _nll(z, problem.labels)).sum()
    pull = problem.precision / 2 * layer.square().sum()
    return own + problem.strength * shifted + pull


def _nll(z, labels):
    return F.cross_entropy(z, labels, reduction="none")


def _zeros(problem):
    classes = int(problem.labels.max()) + 1
    return problem.features.new_zeros(problem.features.shape[1] + 1, classes)


def one_after_another(problem):
    """Train each configuration by itself, with torch.optim."""
    x, layers = with_ones(problem.features), []
    for context, radius in zip(problem.context, problem.radius, strict=True):
        layer = _zeros(problem).requires_grad_()
        optimiser = torch.optim.SGD([layer], problem.rate, momentum=problem.momentum)
        for _ in range(problem.steps):
            optimiser.zero_grad()
            objective(problem, x, layer, context, radius).backward()
            optimiser.step()
        layers.append(layer.detach())
    return torch.stack(layers)


def by_vmap(problem):
    """Map one configuration's gradient over all of them."""
    x = with_ones(problem.features)
    gradients = vmap(
        grad(lambda layer, context, radius: objective(problem, x, layer, context, radius))
    )
    layers = _zeros(problem).expand(len(problem.radius), -1, -1).clone()
    velocity = torch.zeros_like(layers)
    for _ in range(problem.steps):
        velocity = problem.momentum * velocity + gradients(layers, problem.context, problem.radius)
        layers = layers - problem.rate * velocity
    return layers


def one_product(problem):
    """Put all layers side by side into one matrix, and let autograd do the rest."""
    x = with_ones(problem.features)
    zero, count = _zeros(problem), len(problem.radius)
    layers = zero.repeat(1, count).requires_grad_()
    labels = problem.labels[:, None].expand(-1, count)
    optimiser = torch.optim.SGD([layers], problem.rate, momentum=problem.momentum)

    def losses(weights):
        z = (x @ weights).unflatten(1, (count, -1)).movedim(2, 1)
        return _nll(z, labels)

    for _ in range(problem.steps):
        optimiser.zero_grad()
        found, shifted = losses(layers), None
        context = (problem.context.T * found).sum()
        if (problem.radius > 0).any():
            (direction,) = torch.autograd.grad(context, layers, retain_graph=True)
            norms = direction.unflatten(1, (count, -1)).square().sum((0, 2)).sqrt()
            scale = (problem.radius / norms).repeat_interleave(zero.shape[1])
            shifted = (problem.context.T * losses(layers + scale * direction)).sum()
        loss = (problem.likelihood[:, None] * found).sum()
        loss = loss + problem.strength * (context if shifted is None else shifted)
        (loss + problem.precision / 2 * layers.square().sum()).backward()
        optimiser.step()
    return layers.detach().unflatten(1, (count, -1)).movedim(1, 0).contiguous()


def scikit_learn(problem):
    """Minimise each by L-BFGS in scikit-learn, through joblib; nothing can be perturbed."""
    from sklearn.linear_model import LogisticRegression

    x, labels = with_ones(problem.features).numpy(), problem.labels.numpy()
    classes = int(labels.max()) + 1
    # Of two classes scikit-learn has one column w, where ours are w / 2 and -w / 2.
    inverse = (2 if classes == 2 else 1) / problem.precision

    def fit(context):
        weights = (problem.likelihood + problem.strength * context).numpy()
        model = LogisticRegression(C=inverse, fit_intercept=False, tol=1e-5, max_iter=1000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = model.fit(x, labels, sample_weight=weights).coef_.T
        return np.concatenate([-found / 2, found / 2], 1) if classes == 2 else found

    found = joblib.Parallel(n_jobs=-1, prefer="threads")(map(joblib.delayed(fit), problem.context))
    return torch.from_numpy(np.stack(found))


def gradient_norms(problem, layers):
    """Return the length of each unperturbed configuration's gradient, [G]."""
    x = with_ones(problem.features)
    gradients = vmap(
        grad(lambda layer, context, radius: objective(problem, x, layer, context, radius))
    )(layers, problem.context, problem.radius)
    return gradients.flatten(1).norm(dim=1)
