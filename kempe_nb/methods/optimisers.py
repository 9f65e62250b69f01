"""SGD and Adam as PyTorch has them, with the pullback of an update.

An update is element-wise, so its derivative is a few products; `unrolled` goes back through a
training by these.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch

from kempe_nb.checks import checked_fraction, checked_not_negative, checked_positive

Tensors = tuple[torch.Tensor, ...]


class Optimiser(Protocol):
    """An element-wise update and its pullback; steps count from 1."""

    slots: int

    def step(
        self, theta: torch.Tensor, slots: Tensors, gradient: torch.Tensor, step: int
    ) -> tuple[torch.Tensor, Tensors]:
        """Return theta and the carried vectors after the update."""

    def pullback(
        self,
        after: Tensors,
        gradient: torch.Tensor,
        step: int,
        of_theta: torch.Tensor,
        of_slots: Tensors,
    ) -> tuple[torch.Tensor, Tensors, torch.Tensor]:
        """Return what comes back for theta, the carried vectors and the gradient."""


@dataclass(frozen=True)
class SGD:
    """Gradient descent with momentum and weight decay, as `torch.optim.SGD` without dampening.

    b' = momentum b + g + weight_decay theta,  theta' = theta - lr b'.
    """

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self):
        checked_positive(self.lr, "lr")
        checked_fraction(self.momentum, "momentum")
        checked_not_negative(self.weight_decay, "weight_decay")

    @property
    def slots(self) -> int:
        """Vectors that are carried along: one with momentum, else none."""
        return int(self.momentum > 0)

    def step(self, theta, slots, gradient, step):
        """Return theta and the velocity after the update."""
        if self.weight_decay:
            gradient = torch.add(gradient, theta, alpha=self.weight_decay)
        velocity = torch.add(gradient, slots[0], alpha=self.momentum) if slots else gradient
        return torch.add(theta, velocity, alpha=-self.lr), (velocity,) * self.slots

    def pullback(self, after, gradient, step, of_theta, of_slots):
        """Return what comes back; the update is linear."""
        back = of_theta * -self.lr
        if of_slots:
            back += of_slots[0]
            of_slots = (self.momentum * back,)
        if self.weight_decay:
            of_theta = torch.add(of_theta, back, alpha=self.weight_decay)
        return of_theta, of_slots, back


@dataclass(frozen=True)
class Adam:
    """Adam as `torch.optim.Adam` computes it (Kingma and Ba, arXiv 1412.6980).

    m' = b1 m + (1 - b1) g,  v' = b2 v + (1 - b2) g^2,
    theta' = theta - lr (m' / (1 - b1^t)) / (sqrt(v' / (1 - b2^t)) + eps).

    Where v' is zero the root has no derivative; g has been zero in all steps there, and the update
    is differentiated through m' alone, which is the derivative of theta' in g.
    """

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    slots = 2

    def __post_init__(self):
        checked_positive(self.lr, "lr")
        checked_positive(self.eps, "eps")
        if not isinstance(self.betas, tuple) or len(self.betas) != 2:
            raise ValueError(f"betas is {self.betas!r}; accepted is a tuple of two numbers")
        for name, beta in zip(("betas[0]", "betas[1]"), self.betas, strict=True):
            checked_fraction(beta, name)

    def step(self, theta, slots, gradient, step):
        """Return theta, m and v after the update."""
        (first, second), (m, v) = self.betas, slots
        m = torch.lerp(m, gradient, 1 - first)
        v = torch.addcmul(v * second, gradient, gradient, value=1 - second)
        root = _root(v) / math.sqrt(1 - second**step)
        return torch.addcdiv(theta, m, root + self.eps, value=-self._rate(step)), (m, v)

    def pullback(self, after, gradient, step, of_theta, of_slots):
        """Return what comes back for theta, (m, v) and the gradient."""
        (first, second), (m, v) = self.betas, after
        correction = 1 - second**step
        root = (v / correction).sqrt_()
        share = (of_theta / (root + self.eps)).mul_(-self._rate(step))
        of_m = share + of_slots[0]
        # d root / d v' = 1 / (2 root (1 - b2^t)).
        slope = (m / (root + self.eps)).div_(root).masked_fill_(root == 0, 0.0)
        of_v = torch.addcmul(of_slots[1], share, slope, value=-0.5 / correction)
        back = torch.addcmul(of_m * (1 - first), gradient, of_v, value=2 * (1 - second))
        return of_theta, (of_m * first, of_v * second), back

    def _rate(self, step: int) -> float:
        return self.lr / (1 - self.betas[0] ** step)


def _root(v: torch.Tensor) -> torch.Tensor:
    """Return the square root, with the derivative zero at zero where autograd would say NaN."""
    if not (torch.is_grad_enabled() and v.requires_grad):
        return v.sqrt()
    zero = v == 0
    return v.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)
