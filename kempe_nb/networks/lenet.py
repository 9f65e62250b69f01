"""LeNet-5 without biases."""

import torch
from torch import nn

from kempe_nb.networks.homogeneous import draw_weights


def lenet_5(classes: int = 10, *, generator: torch.Generator | None = None) -> nn.Sequential:
    """Return LeNet-5 for 32 x 32 colour images: ReLU, average pooling, no biases, five layers."""
    model = nn.Sequential(
        *[nn.Conv2d(3, 6, 5, bias=False), nn.ReLU(), nn.AvgPool2d(2)],
        *[nn.Conv2d(6, 16, 5, bias=False), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()],
        *[nn.Linear(400, 120, bias=False), nn.ReLU(), nn.Linear(120, 84, bias=False), nn.ReLU()],
        nn.Linear(84, classes, bias=False),
    )
    return draw_weights(model, generator=generator)
