"""The networks of the profile gpu of "Attacking Bayes": sizes, and functions of their weights."""

import pytest
import torch
from torch import nn

from kempe_nb.networks.flat import FlatNetwork
from kempe_nb.networks.group_normalised_resnet import group_normalised_resnet18
from kempe_nb.networks.resnet import preact_resnet18
from kempe_nb.networks.two_convolutions import two_convolutions


def weights(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_two_convolutions_has_the_size_that_the_sheet_counts():
    network = two_convolutions((1, 28, 28))
    assert weights(network) == 824_458
    assert network(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_two_convolutions_drops_what_does_not_fill_a_square():
    """As its pooling does, twice: 7 -> 3 -> 1."""
    assert two_convolutions((2, 7, 5), 3)(torch.zeros(1, 2, 7, 5)).shape == (1, 3)


def test_two_convolutions_refuses_what_cannot_be_halved_twice():
    with pytest.raises(ValueError, match="image is 3 x 28; accepted are sides from 4 on"):
        two_convolutions((1, 3, 28))


def test_the_resnet_is_the_packages_less_its_normalisation():
    """Two weights for each channel that batch normalisation had, and no others."""
    whole = preact_resnet18(10)
    normal = sum(weights(m) for m in whole.modules() if isinstance(m, nn.BatchNorm2d))
    assert weights(group_normalised_resnet18(10)) == weights(whole) - normal == 11_164_362


def test_the_resnet_is_a_function_of_its_weights_and_of_each_image_alone():
    network = FlatNetwork(group_normalised_resnet18(4))
    assert not list(network.module.buffers())
    generator = torch.Generator().manual_seed(0)
    thetas, images = network.initial(generator, 2), torch.rand(3, 3, 8, 8, generator=generator)
    together = torch.func.vmap(network, in_dims=(0, None))(thetas, images)
    alone = torch.stack([network(theta, images[1:2])[0] for theta in thetas])
    torch.testing.assert_close(together[:, 1], alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(together[0], together[1])
