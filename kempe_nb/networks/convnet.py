"""The ConvNet of the literature on data set distillation."""

from collections.abc import Sequence

import torch
from torch import nn

from kempe_nb.checks import checked_integer
from kempe_nb.kernels.norm_relu_pool import norm_relu_pool


class NormReluPool(nn.Module):
    """Instance normalisation with weight and bias, ReLU and 2 x 2 average pooling.

    `kempe_nb.norm_relu_pool` as a module; images are [N, channels, H, W].
    """

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return norm_relu_pool(images, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}"


def convnet(
    image: Sequence[int], classes: int = 10, *, width: int = 128, depth: int = 3
) -> nn.Sequential:
    """Return the ConvNet of the literature on data set distillation.

    `depth` blocks of a 3 x 3 convolution, instance normalisation, ReLU and 2 x 2 average pooling,
    and a linear layer. ConvNet-3-128 is `convnet((3, 32, 32))`, with 320,010 parameters.

    Parameters
    ----------
    image : sequence of int
        Channels, height and width.

    Raises
    ------
    ValueError
        If depth or width are below one, or the image is too small for so many poolings.
    """
    depth = checked_integer(depth, "depth", 1, 30)
    width = checked_integer(width, "width", 1, 2**31 - 1)
    channels, height, width_of_image = image
    if min(height, width_of_image) < 2**depth:
        raise ValueError(
            f"image is {height} x {width_of_image} and depth {depth}; accepted are sides from "
            f"{2**depth} on, which can be halved so often"
        )
    layers: list[nn.Module] = []
    for before in (channels, *[width] * (depth - 1)):
        layers += [nn.Conv2d(before, width, 3, padding=1), NormReluPool(width)]
    left = (height >> depth) * (width_of_image >> depth)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * left, classes))
