"""The pre-activation ResNet-18 for small colour images."""

import torch
from torch import nn
from torch.nn import functional as F

from kempe_nb.networks.layered import LayeredNetwork, Standardise


def preact_resnet18(classes: int) -> LayeredNetwork:
    """Return the pre-activation ResNet-18 for 32 x 32 colour images, with 512 features.

    He et al. (arXiv 1603.05027): a convolution and four stages of two residual blocks each.
    """
    blocks = [nn.Sequential(Standardise(), nn.Conv2d(3, 64, 3, padding=1, bias=False))]
    before = 64
    for after, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        blocks.append(nn.Sequential(_Residual(before, after, stride), _Residual(after, after, 1)))
        before = after
    end = [nn.BatchNorm2d(512), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    blocks[-1] = nn.Sequential(*blocks[-1], *end)
    return LayeredNetwork(blocks, nn.Linear(512, classes))


class _Residual(nn.Module):
    """Two convolutions behind normalisation and ReLU, added to what came in."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.first_norm, self.second_norm = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.first = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        changes = stride > 1 or before != after
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if changes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ready = F.relu(self.first_norm(x))
        skipped = x if self.shortcut is None else self.shortcut(ready)
        return skipped + self.second(F.relu(self.second_norm(self.first(ready))))
