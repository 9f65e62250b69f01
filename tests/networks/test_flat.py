"""Networks of one vector: the same function as the module, PyTorch's initialisation, refusals."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kempe_nb.networks.convnet import NormReluPool, convnet
from kempe_nb.networks.flat import FlatNetwork
from kempe_nb.networks.perceptron import perceptron


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_sizes_of_the_papers_networks():
    """Counted in the papers: ConvNet-3-128 on CIFAR-10 and -100, ConvNet-4-128 on 64 x 64."""
    assert FlatNetwork(convnet((3, 32, 32))).size == 320_010
    assert FlatNetwork(convnet((3, 32, 32), 100)).size == 504_420
    assert FlatNetwork(convnet((3, 64, 64), 200, depth=4)).size == 857_160


@pytest.mark.parametrize(
    "module",
    [convnet((1, 8, 8), 3, width=5, depth=2), perceptron((64, 7, 3)), nn.Linear(64, 3)],
    ids=["convnet", "perceptron", "linear"],
)
def test_it_is_the_function_of_the_module(module):
    network = FlatNetwork(module)
    images = torch.randn(4, 1, 8, 8, generator=generator())
    images = images.flatten(1) if isinstance(module, nn.Linear) else images
    theta = torch.cat([p.detach().flatten() for p in module.parameters()])
    torch.testing.assert_close(network(theta, images), module(images))
    many = torch.stack([theta, 2 * theta])
    both = torch.func.vmap(network, in_dims=(0, None))(many, images)
    torch.testing.assert_close(both[1], network(2 * theta, images), rtol=1e-4, atol=1e-5)


def test_the_convnet_is_the_one_of_the_literature():
    ours = convnet((3, 16, 16), 7, width=6, depth=2)
    layers = []
    for before in (3, 6):
        layers += [nn.Conv2d(before, 6, 3, padding=1), nn.GroupNorm(6, 6), nn.ReLU()]
        layers += [nn.AvgPool2d(2)]
    theirs = nn.Sequential(*layers, nn.Flatten(), nn.Linear(6 * 16, 7))
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.shape == other.shape
        other.data = mine.detach() + 0.1
        mine.data = other.data.clone()
    images = torch.randn(5, 3, 16, 16, generator=generator())
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)


def test_initial_vectors_have_the_law_of_reset_parameters():
    module = convnet((3, 8, 8), 10, width=32, depth=2)
    network = FlatNetwork(module)
    parts = network.parts(network.initial(generator(), 50))
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d | nn.Linear):
            half = 1 / math.sqrt(child.weight[0].numel())
            for kind in ("weight", "bias"):
                child.reset_parameters()
                draws, theirs = parts[f"{name}.{kind}"], getattr(child, kind).detach()
                assert draws.abs().max() <= half and theirs.abs().max() <= half
                # The deviation of a uniform law, and no mean.
                error = half / math.sqrt(draws.numel())
                assert abs(draws.std() - half / math.sqrt(3)) < 4 * error
                assert abs(draws.mean()) < 4 * error
        elif isinstance(child, NormReluPool):
            assert (parts[f"{name}.weight"] == 1).all() and (parts[f"{name}.bias"] == 0).all()


def test_initial_vectors_follow_the_generator():
    network = FlatNetwork(perceptron((4, 3, 2)))
    one = network.initial(generator(1))
    assert torch.equal(one, network.initial(generator(1)))
    assert not torch.equal(one, network.initial(generator(2)))
    assert network.initial(generator(), 3, dtype=torch.float64).shape == (3, network.size)


def test_parts_are_views_of_theta():
    network = FlatNetwork(perceptron((4, 3, 2)))
    theta = torch.arange(float(network.size))
    theta[:] = 7
    parts = network.parts(theta)
    assert all(part.untyped_storage().data_ptr() == theta.data_ptr() for part in parts.values())
    assert sum(part.numel() for part in parts.values()) == network.size


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False)])
def test_batch_normalisation_in_training_mode_is_refused(norm):
    module = nn.Sequential(nn.Conv2d(1, 4, 3), norm)
    with pytest.raises(ValueError, match=r"BatchNorm2d '1' in training mode.*no state of theta"):
        FlatNetwork(module)


def test_batch_normalisation_in_eval_mode_is_taken():
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval()
    network = FlatNetwork(module)
    assert network(torch.ones(network.size), torch.ones(2, 4)).shape == (2, 4)
    with pytest.raises(ValueError, match=r"'1.weight' of BatchNorm1d, whose initialisation"):
        network.initial(generator())


def test_dropout_in_training_mode_is_refused():
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    with pytest.raises(ValueError, match="Dropout '1' in training mode: a step that is computed"):
        FlatNetwork(module)
    assert FlatNetwork(module.eval()).size == 20
    assert FlatNetwork(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.0))).size == 20


@pytest.mark.parametrize(
    "child",
    [
        nn.MultiheadAttention(4, 2, dropout=0.5),
        nn.LSTM(4, 4, num_layers=2, dropout=0.5),
        nn.RReLU(),
        nn.InstanceNorm2d(4, track_running_stats=True),
    ],
    ids=lambda child: type(child).__name__,
)
def test_what_draws_or_remembers_is_refused_in_training_mode_alone(child):
    with pytest.raises(ValueError, match=f"module has {type(child).__name__} '0' in training mode"):
        FlatNetwork(nn.Sequential(child))
    FlatNetwork(nn.Sequential(child.eval()))


def test_the_mode_of_the_module_is_that_of_the_beginning():
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).eval()
    network = FlatNetwork(module)
    module.train()
    theta, images = network.initial(generator()), torch.randn(3, 4, generator=generator(1))
    assert torch.equal(network(theta, images), network(theta, images))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="depth is 0; accepted is an integer from 1"):
        convnet((1, 8, 8), depth=0)
    with pytest.raises(ValueError, match="width is 0; accepted"):
        convnet((1, 8, 8), width=0)
    network = FlatNetwork(perceptron((4, 2)))
    with pytest.raises(ValueError, match=r"theta has shape \(3,\); accepted is \[..., 10\]"):
        network(torch.zeros(3), torch.zeros(1, 4))
    with pytest.raises(ValueError, match="image is 8 x 8 and depth 4; accepted are sides from 16"):
        convnet((1, 8, 8), depth=4)


def test_the_block_shows_its_sizes():
    assert repr(NormReluPool(6)) == "NormReluPool(6, eps=1e-05)"
    block = NormReluPool(2)
    images = torch.randn(1, 2, 4, 4, generator=generator())
    expected = F.avg_pool2d(F.relu(F.instance_norm(images)), 2)
    torch.testing.assert_close(block(images), expected, rtol=1e-4, atol=1e-5)
