"""Augmentation on a GPU: errors beside the library's, equal bits, large sizes."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kempe_nb import dispatch
from kempe_nb.kernels.affine_augment import (
    COLUMNS,
    UNCHANGED,
    affine_augment,
    definition,
    transposed_definition,
)
from kempe_nb.methods.augmentation_draws import draw_augmentations

READY = torch.cuda.is_available() and dispatch.triton_version()
pytestmark = pytest.mark.skipif(not READY, reason="no CUDA device with Triton")

SHAPES = [(0, 3, 8, 8), (1, 1, 1, 1), (100, 3, 64, 64), (256, 1, 28, 28), (7, 5, 33, 70)]


def draw(shape, dtype=torch.float32):
    """Return images, what comes back, and drawn rows."""
    rng = torch.Generator("cuda").manual_seed(0)
    images, v = torch.randn((2, *shape), generator=rng, device="cuda").to(dtype)
    rows = draw_augmentations(shape[0], shape[2:], np.random.default_rng(0))
    return images, v, rows.cuda()


def pair(images, v, rows, impl="triton"):
    images = images.detach().requires_grad_()
    made = affine_augment(images, rows, impl=impl)
    return made.detach(), torch.autograd.grad(made, images, v)[0]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("impl", ["triton", "definition"])
def test_values_and_gradients_are_right_to_rounding(shape, dtype, impl):
    images, v, rows = draw(shape, dtype)
    truth = definition(images.double(), rows), transposed_definition(v.double(), rows)
    for one, other in zip(pair(images, v, rows, impl), truth, strict=True):
        if other.numel():
            tolerance = 32 * torch.finfo(dtype).eps * max(1.0, float(other.abs().amax()))
            assert (one.double() - other).abs().amax() <= tolerance


def test_the_gather_is_that_of_the_library():
    images, v, rows = draw((10, 3, 64, 64), torch.float64)
    rows[:, :9] = torch.tensor(UNCHANGED[:9], dtype=torch.float64)
    columns = [COLUMNS.index(name) for name in ("xx", "xy", "move_x", "yx", "yy", "move_y")]
    theta = rows[:, columns].view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    expected = F.grid_sample(images, grid, align_corners=False)
    found, _ = pair(images, v, rows)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_it_is_affine_and_its_gradient_the_transpose():
    images, v, rows = draw((20, 3, 40, 50), torch.float64)
    rows[:, 0] = 0
    found, back = pair(images, v, rows)
    one, other = (found * v).sum(), (images * back).sum()
    assert abs(one - other) <= 1e-12 * found.norm() * v.norm()


def test_the_same_bits_twice():
    inputs = draw((100, 3, 64, 64))
    for one, other in zip(pair(*inputs), pair(*inputs), strict=True):
        assert torch.equal(one, other)


def test_more_than_two_to_the_31_elements():
    images = torch.zeros(2**11 + 1, 4, 512, 512, device="cuda")
    images[-1, -1, :, :7] = 1
    row = torch.tensor([UNCHANGED], dtype=torch.float64, device="cuda")
    row[0, COLUMNS.index("xx")] = -1
    made, back = pair(images, images, row.expand(len(images), -1))
    for each in (made, back):
        assert each[:-1].count_nonzero() == 0
        assert torch.equal(each[-1], images[-1].flip(2))
