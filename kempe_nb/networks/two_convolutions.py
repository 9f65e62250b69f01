"""The small convolutional network of function-space inference."""

from collections.abc import Sequence

from torch import nn


def two_convolutions(image: Sequence[int], classes: int = 10) -> nn.Sequential:
    """Return two convolutions of 3 x 3 and a hidden layer of 256 units, as in the code of FSVI.

    32 and 64 filters, each with ReLU and a maximum over 2 x 2 (Rudner et al., arXiv 2312.17199).
    `two_convolutions((1, 28, 28))` has 824,458 parameters.

    Parameters
    ----------
    image : sequence of int
        Channels, height and width.

    Raises
    ------
    ValueError
        For an image that is too small to be halved twice.
    """
    channels, height, width = image
    if min(height, width) < 4:
        raise ValueError(
            f"image is {height} x {width}; accepted are sides from 4 on, which can be halved twice"
        )
    return nn.Sequential(
        *(nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(64 * (height // 4) * (width // 4), 256), nn.ReLU()),
        nn.Linear(256, classes),
    )
