"""Meta-gradients of a ConvNet through Adam or momentum, by other libraries.

Each takes a problem (see `benchmarks.operations.unrolled`) and returns the derivative of the outer
loss in the synthetic images, and that loss. Steps before the window have no graph. To make the
modules is part of a call; it takes about a millisecond.
"""

import warnings

import torch
from torch import nn
from torch.nn import functional as F

from kempe_nb.networks.flat import FlatNetwork


class Block(nn.Module):
    """Group norm, ReLU and average pooling: what the papers' ConvNets are made of."""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.GroupNorm(channels, channels)

    def forward(self, x):
        return F.avg_pool2d(F.relu(self.norm(x)), 2)


def plain_convnet(problem):
    """Return the network of a problem as modules with their own parameters."""
    layers, before = [], problem.images.shape[1]
    for _ in range(problem.depth):
        layers += [nn.Conv2d(before, problem.width, 3, padding=1), Block(problem.width)]
        before = problem.width
    left = problem.images.shape[2] >> problem.depth
    module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * left**2, 10))
    module.to(problem.images)
    with torch.no_grad():
        for own, value in zip(
            module.parameters(), problem.network.parts(problem.theta).values(), strict=True
        ):
            own.copy_(value)
    return module


def _optimiser(problem, parameters):
    if problem.adam:
        return torch.optim.Adam(parameters, 1e-3)
    return torch.optim.SGD(parameters, 0.01, momentum=0.9)


def higher(problem):
    """Use higher, the tool of the paper's code."""
    import higher as library

    module = plain_convnet(problem)
    optimiser = _optimiser(problem, module.parameters())
    for _ in range(problem.unroll - problem.window):
        optimiser.zero_grad()
        F.cross_entropy(module(problem.images), problem.classes).backward()
        optimiser.step()
    images = problem.images.clone().requires_grad_()
    with library.innerloop_ctx(module, optimiser, copy_initial_weights=True) as (net, inner):
        for _ in range(problem.window):
            inner.step(F.cross_entropy(net(images), problem.classes))
        loss = F.cross_entropy(net(problem.real), problem.real_classes)
        return torch.autograd.grad(loss, images)[0], loss.detach()


def torchopt(problem):
    """Use torchopt's differentiable optimisers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torchopt as library

        module = plain_convnet(problem)
        # Without eps_root its Adam returns NaN.
        inner = (
            library.MetaAdam(module, lr=1e-3, eps_root=1e-16)
            if problem.adam
            else library.MetaSGD(module, lr=0.01, momentum=0.9)
        )
        for _ in range(problem.unroll - problem.window):
            inner.step(F.cross_entropy(module(problem.images), problem.classes))
            library.stop_gradient(module)
            library.stop_gradient(inner)
        images = problem.images.clone().requires_grad_()
        for _ in range(problem.window):
            inner.step(F.cross_entropy(module(images), problem.classes))
        loss = F.cross_entropy(module(problem.real), problem.real_classes)
        return torch.autograd.grad(loss, images)[0], loss.detach()


def compiled_step(problem):
    """Return a call that unrolls a compiled step, whose gradient is taken inside by torch.func.

    Parameters are one vector, as in ours: a tensor each takes minutes to compile.
    """
    network = FlatNetwork(plain_convnet(problem))
    first, second, eps, rate = 0.9, 0.999, 1e-8, 1e-3

    def inner(theta, images):
        return F.cross_entropy(network(theta, images), problem.classes)

    def step(theta, m, v, images, corrections):
        g = torch.func.grad(inner)(theta, images)
        if not problem.adam:
            m = 0.9 * m + g
            return theta - 0.01 * m, m, v
        m = first * m + (1 - first) * g
        v = second * v + (1 - second) * g * g
        # The tiny number keeps the root differentiable at zero.
        root = torch.sqrt(v / corrections[1] + 1e-30)
        return theta - rate * (m / corrections[0]) / (root + eps), m, v

    torch._dynamo.reset()
    compiled = torch.compile(step, dynamic=False)

    def call():
        state = problem.theta, torch.zeros_like(problem.theta), torch.zeros_like(problem.theta)
        images = problem.images.clone().requires_grad_()
        for number in range(1, problem.unroll + 1):
            corrections = torch.tensor([1 - first**number, 1 - second**number]).to(images.device)
            with torch.set_grad_enabled(number > problem.unroll - problem.window):
                state = compiled(*state, images, corrections)
        loss = F.cross_entropy(network(state[0], problem.real), problem.real_classes)
        return torch.autograd.grad(loss, images)[0], loss.detach()

    return call
