"""Networks that can be looked into: shapes, features, layers, and the sizes that are published."""

import pytest
import torch
from torch import nn

from kempe_nb.networks.layered import CIFAR_COLOURS, Standardise
from kempe_nb.networks.perceptron import perceptron_bn
from kempe_nb.networks.resnet import preact_resnet18
from kempe_nb.networks.vgg import vgg11_bn

SMALL = {
    "perceptron": (lambda: perceptron_bn(48, 7, width=16, depth=2), (3, 4, 4), 16),
    "vgg": (lambda: vgg11_bn(7), (3, 32, 32), 512),
    "resnet": (lambda: preact_resnet18(7), (3, 32, 32), 512),
}


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_the_head_of_the_last_activation(name):
    make, shape, dimensions = SMALL[name]
    model, images = make().eval(), torch.rand(2, *shape)
    with torch.no_grad():
        layers = list(model.activations(images))
        features, logits = model.features(images), model(images)
    assert torch.equal(layers[0], images) and torch.equal(layers[-1], features)
    assert len(layers) == 1 + len(model.blocks)
    assert features.shape == (2, dimensions) and logits.shape == (2, 7)
    torch.testing.assert_close(logits, features @ model.head.weight.T + model.head.bias)
    # The last layer of features is a ReLU, which neural collapse was described for.
    assert features.min() >= 0


def weights(model: nn.Module) -> int:
    return sum(
        p.numel()
        for m in model.modules()
        if isinstance(m, nn.Conv2d | nn.Linear)
        for p in m.parameters()
    )


def test_sizes():
    """Convolutions of 3 x 3 by hand, 1 x 1 shortcuts, and the head with its bias."""
    plan = [3, 64, 128, 256, 256, 512, 512, 512, 512]
    expected = sum(9 * a * b for a, b in zip(plan, plan[1:], strict=False)) + 512 * 10 + 10
    assert weights(vgg11_bn(10)) == expected
    blocks = [(64, 64), (64, 128), (128, 256), (256, 512)]
    expected = 9 * 3 * 64 + sum(9 * (a * b + 3 * b * b) for a, b in blocks)
    expected += sum(a * b for a, b in blocks[1:]) + 512 * 10 + 10
    assert weights(preact_resnet18(10)) == expected


@pytest.mark.parametrize("make", [vgg11_bn, preact_resnet18])
def test_images_are_standardised_inside(make):
    """An image of the mean colour is zero behind the first step; attacks see images as they are."""
    step = next(m for m in make(10).modules() if isinstance(m, Standardise))
    colours = torch.tensor(CIFAR_COLOURS[0])[None, :, None, None]
    assert step(colours.expand(1, 3, 4, 4)).abs().max() < 1e-6
    bright = colours + torch.tensor(CIFAR_COLOURS[1])[None, :, None, None]
    torch.testing.assert_close(step(bright), torch.ones(1, 3, 1, 1))


@pytest.mark.parametrize("name", SMALL)
def test_every_weight_is_trained(name):
    make, shape, _ = SMALL[name]
    model = make()
    model(torch.rand(4, *shape)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_a_perceptron_flattens_images_of_any_shape():
    model = perceptron_bn(48, 7).eval()
    images = torch.rand(5, 3, 4, 4)
    torch.testing.assert_close(model(images), model(images.flatten(1)))
