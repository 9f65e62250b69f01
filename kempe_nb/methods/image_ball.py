"""The images within a distance of each image, in the maximum norm or the Euclidean norm."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Ball:
    """The images that an attack may reach: a ball around each image, and their range.

    Attributes
    ----------
    centre : [N, ...]
    epsilon : [N, 1, ...]
        Radius of each ball, in the dtype of the images; see `for_each`.
    norm : {"linf", "l2"}
    bounds : (low, high)
    """

    centre: torch.Tensor
    epsilon: torch.Tensor
    norm: str
    bounds: tuple[float, float]

    def project(self, images: torch.Tensor) -> torch.Tensor:
        """Return the nearest images in the ball, then in the range."""
        away = images - self.centre
        if self.norm == "linf":
            away = torch.maximum(torch.minimum(away, self.epsilon), -self.epsilon)
        else:
            away = away * (self.epsilon / _lengths(away).clamp(min=1e-30)).clamp(max=1.0)
        return (self.centre + away).clamp(*self.bounds)

    def random(self, generator: torch.Generator | None) -> torch.Tensor:
        """Return random images: uniform in the cube, or a random direction and a uniform radius."""
        shape, kind = self.centre.shape, {"dtype": self.centre.dtype, "device": self.centre.device}
        if self.norm == "linf":
            away = (2 * torch.rand(shape, generator=generator, **kind) - 1) * self.epsilon
        else:
            away = torch.randn(shape, generator=generator, **kind)
            radius = torch.rand(len(away), generator=generator, **kind)
            away = away / _lengths(away) * self.epsilon * wide(radius, away)
        return self.project(self.centre + away)

    def step(self, images, gradient, length) -> torch.Tensor:
        """Return the images one step along the gradient, back in the ball."""
        if self.norm == "linf":
            return self.project(images + length * gradient.sign())
        # Scaled first: the squares of a tiny gradient would vanish in float32.
        largest = gradient.abs().flatten(1).amax(1)
        gradient = gradient / wide(largest.clamp(min=1e-38), gradient)
        return self.project(images + length * gradient / _lengths(gradient).clamp(min=1e-30))


def for_each(value: float | torch.Tensor, images: torch.Tensor, name: str) -> torch.Tensor:
    """Return one number for each image, ready to be multiplied with images; refuse it by name."""
    numbers = torch.as_tensor(value, dtype=images.dtype, device=images.device).detach()
    if numbers.ndim and numbers.shape != images.shape[:1]:
        raise ValueError(
            f"{name} has shape {tuple(numbers.shape)}; accepted are one number or "
            f"{tuple(images.shape[:1])}"
        )
    if not ((numbers >= 0) & torch.isfinite(numbers)).all():
        raise ValueError(f"{name} is {value}; accepted are finite numbers from 0 on")
    return wide(numbers.expand(len(images)), images)


def wide(numbers: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Return numbers [N] in the shape [N, 1, ...] of images."""
    return numbers.reshape(-1, *[1] * (images.ndim - 1))


def _lengths(images: torch.Tensor) -> torch.Tensor:
    """Return the Euclidean length of each image, [N, 1, ...]."""
    return wide(torch.linalg.vector_norm(images.flatten(1), dim=1), images)
