"""ZCA whitening of images, and back."""

import torch
from torch.nn import functional as F


class ZCA:
    """The whitening of the paper's code, fitted to images [N, C, H, W].

    Each image loses its own mean and is divided by its own norm. With X the images as rows and
    S = X^T X / N = V diag(e) V^T it is then multiplied by V diag(e + 0.1 mean(e))^(-1/2) V^T. So
    directions that vary little stay damped: their variance is e / (e + 0.1 mean(e)).

    Attributes
    ----------
    matrix, inverse : torch.Tensor [D, D]
        D = C H W. The inverse is for looking at whitened images.
    """

    def __init__(self, images: torch.Tensor, share: float = 0.1):
        flat = self._normalised(images)
        values, vectors = torch.linalg.eigh(flat.T @ flat / len(flat))
        scale = values.clamp(min=0) + share * values.clamp(min=0).mean()
        self.matrix = (vectors * scale.rsqrt()) @ vectors.T
        self.inverse = (vectors * scale.sqrt()) @ vectors.T

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return whitened images of the same shape."""
        return (self._normalised(images) @ self.matrix).view(images.shape)

    def visible(self, images: torch.Tensor) -> torch.Tensor:
        """Return what whitened images look like, up to the mean and the norm of each."""
        return (images.flatten(1) @ self.inverse).view(images.shape)

    @staticmethod
    def _normalised(images: torch.Tensor) -> torch.Tensor:
        flat = images.flatten(1)
        return F.normalize(flat - flat.mean(1, keepdim=True), dim=1)
