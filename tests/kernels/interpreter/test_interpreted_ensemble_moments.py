"""The Triton code of ensemble_moments in the interpreter: the numbers, and the bytes."""

import pytest
import torch
from guard import guarded

from kempe_nb.kernels.ensemble_moments import ensemble_moments, ensemble_nll, minimum_bytes

SHAPES = [(1, 1, 2), (3, 7, 2), (5, 70, 10), (4, 9, 37), (2, 3, 1_000), (2, 2, 1_025)]


def draw(networks, inputs, classes, scale=3.0, dtype=torch.float32):
    rng = torch.Generator().manual_seed(networks + inputs + classes)
    return (scale * torch.randn(networks, inputs, classes, generator=rng)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_moments(shape, scale, dtype):
    logits = draw(*shape, scale, dtype)
    with guarded() as moved:
        found = ensemble_moments(logits, impl="triton")
    truth = ensemble_moments(logits.double(), impl="definition")
    rtol = 16 * torch.finfo(found.log_mean.dtype).eps * max(1.0, scale / 4)
    for name, one, other in zip(found._fields[:3], found, truth, strict=False):
        torch.testing.assert_close(one.double(), other, rtol=rtol, atol=0, msg=name)
    away = (found.mutual_information.double() - truth.mutual_information).abs()
    assert (away <= rtol * truth.total_entropy).all()
    total = sum(moved.read.values()) + sum(moved.written.values())
    size, out = logits.element_size(), found.log_mean.element_size()
    assert moved.read["logits"] == size * logits.numel()
    if size == out:
        assert total == minimum_bytes(*shape, size)


@pytest.mark.parametrize("objective", ["nll", "margin"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_loss(shape, objective):
    logits, labels = draw(*shape), torch.arange(shape[1]) % shape[2]
    with guarded() as moved:
        found = ensemble_nll(logits, labels, objective=objective, impl="triton")
    truth = ensemble_nll(logits.double(), labels, objective=objective, impl="definition")
    torch.testing.assert_close(found.values.double(), truth.values, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(found.gradient.double(), truth.gradient, rtol=1e-4, atol=1e-9)
    # Once from memory and once more, which a GPU finds in its second-level cache.
    assert moved.read["logits"] == 2 * 4 * logits.numel()
    assert moved.written["gradient"] == 4 * logits.numel()


def test_one_network_agrees_with_itself_exactly():
    found = ensemble_moments(draw(1, 20, 10), impl="triton")
    assert not found.mutual_information.any()


@pytest.mark.parametrize("gap", [20.0, 60.0, 80.0])
def test_what_is_nearly_sure_keeps_its_digits(gap):
    logits = torch.zeros(4, 3, 10)
    logits[:, :, 7] = gap
    found = ensemble_nll(logits, torch.full((3,), 7), impl="triton")
    truth = ensemble_nll(logits.double(), torch.full((3,), 7), impl="definition")
    torch.testing.assert_close(found.values.double(), truth.values, rtol=1e-5, atol=0)
    torch.testing.assert_close(found.gradient.double(), truth.gradient, rtol=1e-5, atol=0)


@pytest.mark.parametrize("objective", ["nll", "margin"])
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_no_infinity_slips_through_the_loss(value, objective):
    logits = draw(2, 3, 4)
    logits[1, 2, 3] = value
    for label in (0, 3):
        labels = torch.full((3,), label)
        with pytest.raises(ValueError, match="logits holds 1 elements that are NaN or infinite"):
            ensemble_nll(logits, labels, objective=objective, impl="triton")


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_no_infinity_slips_through_the_moments(value):
    for column in (0, 3):
        logits = draw(2, 3, 4)
        logits[1, 2, column] = value
        with pytest.raises(ValueError, match="logits holds 1 elements that are NaN or infinite"):
            ensemble_moments(logits, impl="triton")
