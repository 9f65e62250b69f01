"""The pre-activation ResNet-18 without running means, as a function of its weights alone.

A law over the weights of a network is no law of its function while batch normalisation keeps means
beside them. Here 32 groups of channels are normalised instead, without weights of their own.
"""

import torch
from torch import nn

from kempe_nb.networks.resnet import preact_resnet18


def group_normalised_resnet18(classes: int) -> nn.Sequential:
    """Return `ResNet18Features` and a linear layer, for colour images; 11,164,362 parameters."""
    return nn.Sequential(ResNet18Features(), nn.Linear(512, classes))


class ResNet18Features(nn.Module):
    """The 512 features of `preact_resnet18` of images [N, 3, H, W], normalised in groups.

    The colours are not standardised.
    """

    def __init__(self):
        super().__init__()
        network = preact_resnet18(2)
        # A `FlatNetwork` leaves buffers where they are, on the CPU.
        network.blocks[0][0] = nn.Identity()
        for module in list(network.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, name, nn.GroupNorm(32, child.num_features, affine=False))
        self.blocks = nn.Sequential(*network.blocks)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.blocks(images)
