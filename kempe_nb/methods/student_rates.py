"""The learned rates of students: one log alpha for all start epochs, or one for each.

Matching trajectories learns the student's rate with the images. STM (Guan and others, arXiv
2311.17967; their public code) learns its logarithm, which keeps it positive, and may learn one for
each start epoch: an epoch that joins begins with a copy of the last.
"""

import math
from typing import NamedTuple, TypeVar

import torch

Value = TypeVar("Value", float, torch.Tensor)


class Rates(NamedTuple):
    """All log alpha, and the velocities of their descent.

    Attributes
    ----------
    logs, velocities : tuple of float
        One, or one for each start epoch.
    """

    logs: tuple[float, ...]
    velocities: tuple[float, ...]

    @classmethod
    def begin(cls, alpha: float, count: int) -> "Rates":
        """Return `count` equal rates at rest."""
        return cls((math.log(alpha),) * count, (0.0,) * count)

    def place(self, start: int) -> int:
        """Return which of them a start epoch has; one beyond them has the last."""
        return min(start, len(self.logs) - 1)

    def log_alpha(self, start: int) -> float:
        """Return the log alpha of a start epoch."""
        return self.logs[self.place(start)]

    def moved(self, start: int, gradient: float, rate: float, momentum: float) -> "Rates":
        """Return them after a step of that of a start epoch.

        Each of K is met in one of K iterations, and its step is K times as large.
        """
        place, logs, velocities = self.place(start), list(self.logs), list(self.velocities)
        logs[place], velocities[place] = descended(
            logs[place], velocities[place], gradient, rate * len(logs), momentum
        )
        return Rates(tuple(logs), tuple(velocities))

    def joined(self, count: int) -> "Rates":
        """Return `count` of them: the new ones are copies of the last, at rest."""
        new = count - len(self.logs)
        return Rates(self.logs + self.logs[-1:] * new, self.velocities + (0.0,) * new)


def descended(
    value: Value, velocity: Value, gradient: Value, rate: float, momentum: float
) -> tuple[Value, Value]:
    """Return a value after a step of descent, and its velocity, as `torch.optim.SGD` has them."""
    velocity = momentum * velocity + gradient
    return value - rate * velocity, velocity


def is_log_alpha(log_alpha: float, dtype: torch.dtype) -> bool:
    """Return whether a student of this type can have the rate."""
    limit = torch.finfo(dtype)
    return math.log(limit.tiny) < log_alpha < math.log(limit.max)
