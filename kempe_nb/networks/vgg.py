"""VGG-11 for small colour images."""

from torch import nn

from kempe_nb.networks.layered import LayeredNetwork, Standardise


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
