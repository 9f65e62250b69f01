"""Image classifiers that show their layers: a sequence of blocks and a linear head.

Perceptron, VGG-11 and pre-activation ResNet are such networks. Images lie in [0, 1]; what
standardises them is part of the first block, so that attacks work on images as they are.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import nn

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
