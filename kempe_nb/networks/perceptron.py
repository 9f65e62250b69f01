"""Multilayer perceptrons: plain ones, and with batch normalisation."""

from collections.abc import Sequence

from torch import nn

from kempe_nb.networks.layered import LayeredNetwork


def perceptron(
    widths: Sequence[int], *, activation: type[nn.Module] = nn.ReLU, bias: bool = True
) -> nn.Sequential:
    """Return a multilayer perceptron; images of any shape are flattened.

    Parameters
    ----------
    widths : sequence of int
        Pixels, the widths of the hidden layers, classes.
    activation : type
        Of the layers but the last.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(before, after, bias=bias), activation()]
    return nn.Sequential(*layers[:-1])


def perceptron_bn(pixels: int, classes: int, width: int = 128, depth: int = 3) -> LayeredNetwork:
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
