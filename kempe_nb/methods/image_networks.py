"""Image classifiers that show their layers: a perceptron, VGG-11, a pre-activation ResNet.

All are a sequence of blocks and a linear head. Images lie in [0, 1]; what standardises them is part
of the first block, so that attacks work on images as they are.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn import functional as F

#: Mean and standard deviation of the colours of CIFAR-10's training images.
CIFAR_COLOURS = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


class LayeredNetwork(nn.Module):
    """Blocks one after another, and a linear head on the features that the last one returns.

    Attributes
    ----------
    blocks : nn.ModuleList
        The last returns features [N, D].
    head : nn.Linear
        D to the number of classes.
    """

    def __init__(self, blocks: Sequence[nn.Module], head: nn.Linear):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.head = head

    def activations(self, images: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the images, and what each block makes of them, [N, ...] each."""
        yield images
        for block in self.blocks:
            images = block(images)
            yield images

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return what the head takes, [N, D]."""
        for block in self.blocks:
            images = block(images)
        return images

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, [N, classes]."""
        return self.head(self.features(images))


class Standardise(nn.Module):
    """Subtract a mean from each colour and divide by a deviation, by default those of CIFAR-10."""

    def __init__(self, mean: Sequence[float] = CIFAR_COLOURS[0], deviation=CIFAR_COLOURS[1]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation)[:, None, None], persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.deviation


def multilayer_perceptron(
    pixels: int, classes: int, width: int = 128, depth: int = 3
) -> LayeredNetwork:
    """Return a perceptron with batch normalisation: `depth` blocks of linear, normalise, ReLU.

    Images of any shape [N, ...] with `pixels` numbers each are flattened.
    """
    sizes = [pixels, *[width] * depth]
    blocks = [
        nn.Sequential(
            nn.Flatten(), nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()
        )
        for before, after in zip(sizes[:-1], sizes[1:], strict=True)
    ]
    return LayeredNetwork(blocks, nn.Linear(width, classes))


def vgg11_bn(classes: int) -> LayeredNetwork:
    """Return VGG-11 with batch normalisation for 32 x 32 colour images, with 512 features.

    Simonyan and Zisserman (arXiv 1409.1556): eight convolutions, one block for each; as is usual
    for small images, one linear layer takes the place of the three large ones.
    """
    # Channels of each convolution, and whether the image is halved behind it.
    plan = ((64, 1), (128, 1), (256, 0), (256, 1), (512, 0), (512, 1), (512, 0), (512, 0))
    blocks, before = [], 3
    for after, halve in plan:
        layers = [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after)]
        blocks.append(nn.Sequential(*layers, nn.ReLU(), *[nn.MaxPool2d(2)] * halve))
        before = after
    blocks[0] = nn.Sequential(Standardise(), *blocks[0])
    blocks[-1] = nn.Sequential(*blocks[-1], nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return LayeredNetwork(blocks, nn.Linear(512, classes))


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
