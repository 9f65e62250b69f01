"""Projected curvature on a GPU: the numbers of the CPU, by both implementations."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kempe_nb.kernels.projected_curvature import OPERATION, projected_curvature
from kempe_nb.kernels.projected_curvature.directions import sparse_directions

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def draw(samples, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(
        *[nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.Tanh()],
        nn.Linear(100, 10),
    ).to(dtype)
    data = torch.randn(samples, 28, 28, dtype=dtype), torch.randint(10, (samples,))
    size = sum(p.numel() for p in model.parameters())
    return model, data, sparse_directions(size, 20, dtype=dtype)


@pytest.mark.parametrize("impl", OPERATION.implementations)
@pytest.mark.parametrize("layout", ["sparse", "dense"])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-4), (torch.float64, 1e-11)])
def test_numbers_are_those_of_the_cpu(impl, layout, dtype, error):
    model, data, directions = draw(500, dtype)
    if layout == "dense":
        directions = directions.to_dense()
    expected = projected_curvature(model, F.cross_entropy, data, directions, impl="definition")
    found = projected_curvature(
        model.cuda(),
        F.cross_entropy,
        tuple(each.cuda() for each in data),
        directions.cuda(),
        impl=impl,
    )
    for name in ("gauss_newton", "remainder", "hessian"):
        own, truth = getattr(found, name).matrix.cpu(), getattr(expected, name).matrix
        assert torch.linalg.matrix_norm(own - truth) <= error * torch.linalg.matrix_norm(truth)


def test_data_on_another_device_are_refused():
    model, data, directions = draw(10, torch.float32)
    with pytest.raises(ValueError, match="accepted are tensors on one device"):
        projected_curvature(model.cuda(), F.cross_entropy, data, directions.cuda())
