"""Homogeneous networks: their degree is seen in their outputs, and what breaks it is named."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from kempe_nb.networks import homogeneous as networks
from kempe_nb.networks.homogeneous import homogeneous_perceptron as perceptron
from kempe_nb.networks.lenet import lenet_5

MODELS = {
    "lenet 300-100": (
        lambda: perceptron([784, 300, 100, 10]),
        (1, 28, 28),
        3,
        266_200,
    ),
    "small": (lambda: perceptron([2, 32, 32, 3]), (2,), 3, 1_184),
    "leaky": (
        lambda: perceptron([4, 5, 3], activation=nn.LeakyReLU),
        (4,),
        2,
        35,
    ),
    "lenet 5": (lenet_5, (3, 32, 32), 5, 61_770),
}


@pytest.mark.parametrize("name", MODELS)
@given(scale=st.floats(0.1, 10))
@settings(deadline=None, max_examples=10)
def test_outputs_grow_with_the_degree(name, scale):
    make, shape, degree, parameters = MODELS[name]
    model = make().double()
    assert networks.degree(model) == degree
    assert sum(p.numel() for p in model.parameters()) == parameters
    x = torch.randn(3, *shape, dtype=torch.float64)
    with torch.no_grad():
        expected = scale**degree * model(x)
        torch.testing.assert_close(networks.at_scale(model, scale)(x), expected)


def test_the_model_itself_is_not_scaled():
    model = perceptron([4, 5, 3])
    before = [p.clone() for p in model.parameters()]
    networks.at_scale(model, 3.0)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_weights_have_the_deviation_of_he():
    model = perceptron([500, 400, 10], generator=torch.Generator().manual_seed(0))
    first, second = model.parameters()
    assert first.std().item() == pytest.approx((2 / 500) ** 0.5, rel=0.01)
    assert second.std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.05)
    convolution = next(lenet_5().parameters())
    assert convolution.std().item() == pytest.approx((2 / 75) ** 0.5, rel=0.15)


def test_a_seed_gives_the_same_weights():
    one, other = (
        lenet_5(generator=torch.Generator().manual_seed(3)).state_dict() for _ in range(2)
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


LINEAR = nn.Linear(4, 4, bias=False)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Linear(4, 3)], "Linear '0' has a bias"),
        ([LINEAR, nn.Sequential(nn.ReLU(), nn.Linear(4, 3))], "Linear '1.1' has a bias"),
        ([LINEAR, nn.Tanh(), LINEAR], "Tanh '1' is not piecewise linear"),
        ([LINEAR, nn.LayerNorm(4)], "LayerNorm '1' divides by the size"),
        ([LINEAR, nn.BatchNorm1d(4)], "BatchNorm1d in training mode '1' divides by the size"),
        ([LINEAR, nn.BatchNorm1d(4).eval()], "BatchNorm1d '1' shifts by a running mean"),
        ([LINEAR, nn.Dropout()], "Dropout '1' is not known to be homogeneous"),
        ([nn.ReLU()], "model has no layer with weights"),
    ],
)
def test_what_is_not_homogeneous_is_named(layers, message):
    model = nn.Sequential(*layers)
    with pytest.raises(ValueError, match=message):
        networks.degree(model)
    with pytest.raises(ValueError, match=message):
        networks.at_scale(model, 2.0)


def test_a_module_of_ones_own_is_not_judged():
    class Own(nn.Module):
        pass

    with pytest.raises(ValueError, match="Own '' is not known to be homogeneous"):
        networks.degree(Own())


@pytest.mark.parametrize("scale", [0, -1.0, float("nan"), float("inf"), "2"])
def test_a_scale_is_positive(scale):
    with pytest.raises(ValueError, match="scale is .*; accepted is a positive finite number"):
        networks.at_scale(perceptron([4, 3]), scale)
