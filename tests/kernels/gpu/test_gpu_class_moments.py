"""Moments of classes on a GPU: the definition's numbers, the same bits twice, large tensors."""

import pytest
import torch

from kempe_nb import dispatch
from kempe_nb.kernels.class_moments import class_moments
from kempe_nb.methods.neural_collapse import neural_collapse_metrics

READY = torch.cuda.is_available() and dispatch.triton_version()
pytestmark = pytest.mark.skipif(not READY, reason="no CUDA device with Triton")

SHAPES = [(0, 4, 3), (1, 1, 1), (1000, 37, 10), (5003, 512, 10), (5000, 2048, 1000)]


def draw(samples, dimensions, num_classes, dtype=torch.float32, spread=1.0):
    rng = torch.Generator("cuda").manual_seed(samples)
    place = {"generator": rng, "device": "cuda"}
    labels = torch.randint(num_classes, (samples,), **place)
    means = 3 + torch.randn(num_classes, dimensions, **place)
    return (means[labels] + spread * torch.randn(samples, dimensions, **place)).to(dtype), labels


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_errors_are_no_larger_than_those_of_the_definition(shape, dtype):
    features, labels = draw(*shape, dtype)
    found = class_moments(features, labels, shape[2], impl="triton")
    simple = class_moments(features, labels, shape[2], impl="definition")
    truth = class_moments(features.double(), labels, shape[2], impl="definition")
    assert torch.equal(found.counts, truth.counts)
    floor = torch.finfo(found.shifts.dtype).eps
    for name in ("class_means", "scatter"):
        exact = getattr(truth, name)
        size = exact.abs().amax() + 1 if exact.numel() else 1
        own = (getattr(found, name) - exact).abs()
        assert (own <= 2 * (getattr(simple, name) - exact).abs().amax() + 4 * floor * size).all()


@pytest.mark.parametrize("spread", [1e-2, 1e-4])
def test_collapsed_features(spread):
    features, labels = draw(5000, 512, 10, spread=spread)
    truth = class_moments(features.double().cpu(), labels.cpu(), 10).scatter
    found = class_moments(features, labels, 10, impl="triton").scatter.cpu()
    torch.testing.assert_close(found, truth, rtol=2e-6, atol=0)


def test_two_runs_have_the_same_bits():
    features, labels = draw(100_003, 512, 100)
    one, other = (class_moments(features, labels, 100, impl="triton") for _ in range(2))
    assert torch.equal(one.sums, other.sums) and torch.equal(one.squares, other.squares)


def test_more_than_two_to_the_31_elements():
    features = torch.ones(2**20 + 5, 2**11, device="cuda", dtype=torch.float16)
    features[-1] = 3.0
    labels = torch.zeros(len(features), dtype=torch.int64, device="cuda")
    labels[-2:] = 1
    found = class_moments(features, labels, 2, impl="triton")
    assert found.class_means[:, 0].tolist() == [1.0, 2.0]
    assert found.scatter.tolist() == [0.0, 2.0 * 2**11]


def test_metrics_are_those_of_the_cpu():
    features, labels = draw(5000, 64, 10, torch.float64)
    weight = torch.randn(10, 64, device="cuda", dtype=torch.float64)
    found = neural_collapse_metrics(features, labels, weight)
    expected = neural_collapse_metrics(features.cpu(), labels.cpu(), weight.cpu())
    assert vars(found) == pytest.approx(vars(expected), rel=1e-9)


def test_labels_on_another_device_are_refused():
    features, labels = draw(10, 4, 3)
    with pytest.raises(ValueError, match="accepted are tensors on one device"):
        class_moments(features, labels.cpu(), 3)
