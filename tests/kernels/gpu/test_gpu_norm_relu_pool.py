"""Norm, ReLU and pooling on a GPU: errors beside the library's, equal bits, large sizes."""

import pytest
import torch

from kempe_nb import dispatch
from kempe_nb.kernels.norm_relu_pool import composite, norm_relu_pool

READY = torch.cuda.is_available() and dispatch.triton_version()
pytestmark = pytest.mark.skipif(not READY, reason="no CUDA device with Triton")

SHAPES = [
    (0, 3, 8, 8),
    (1, 1, 2, 2),
    (10, 128, 32, 32),
    (100, 128, 16, 16),
    (100, 128, 8, 8),
    (7, 5, 64, 64),
    (3, 7, 28, 28),
    (3, 7, 9, 12),
]


def draw(shape, dtype=torch.float32):
    rng = torch.Generator("cuda").manual_seed(0)
    x = torch.randn(shape, generator=rng, device="cuda")
    weight, bias = torch.randn(2, shape[1], generator=rng, device="cuda")
    return tuple(each.to(dtype) for each in (x, weight, bias))


def derivatives(function, inputs):
    """Return the value and two orders of derivatives."""
    inputs = [each.detach().requires_grad_() for each in inputs]
    made = [function(*inputs)]
    found = [*made]
    for order in range(2):
        total = sum((each.float() ** 2).mean() for each in made if each.numel())
        if not isinstance(total, torch.Tensor):
            break
        made = torch.autograd.grad(total, inputs, create_graph=order == 0)
        found += made
    return [each.detach() for each in found]


def triton(*inputs):
    return norm_relu_pool(*inputs, impl="triton")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_errors_are_no_larger_than_those_of_the_library(shape, dtype):
    inputs = draw(shape, dtype)
    truth = derivatives(composite, [each.double() for each in inputs])
    for own, simple, exact in zip(
        derivatives(triton, inputs), derivatives(composite, inputs), truth, strict=True
    ):
        if exact.numel():
            floor = torch.finfo(dtype).eps * exact.abs().amax()
            error = (own.double() - exact).abs().amax()
            assert error <= 2 * (simple.double() - exact).abs().amax() + 16 * floor


def test_the_definition_on_a_gpu():
    inputs = draw((5, 6, 9, 12), torch.float64)
    found = derivatives(lambda *a: norm_relu_pool(*a, impl="definition"), inputs)
    torch.testing.assert_close(found, derivatives(composite, inputs), rtol=1e-9, atol=1e-11)


def test_nan_stays_in_its_plane():
    x, weight, bias = draw((2, 2, 8, 8))
    x[0, 1, 3, 3] = torch.nan
    bad = triton(x, weight, bias).isnan().flatten(2)
    assert bad.all(2).tolist() == bad.any(2).tolist() == [[False, True], [False, False]]


def test_the_same_bits_twice():
    inputs = draw((100, 128, 16, 16))
    for one, other in zip(derivatives(triton, inputs), derivatives(triton, inputs), strict=True):
        assert torch.equal(one, other)


def test_more_than_two_to_the_31_elements():
    x = torch.zeros(2**13 + 1, 64, 64, 64, dtype=torch.float16, device="cuda")
    x[-1, -1, :, ::2] = 1
    ones = torch.ones(64, dtype=torch.float16, device="cuda")
    y = norm_relu_pool(x, ones, 0 * ones, impl="triton")
    assert y[:-1].count_nonzero() == 0
    torch.testing.assert_close(y[-1, -1], torch.full_like(y[-1, -1], 0.5), rtol=1e-2, atol=0)


def test_vmap_and_func():
    x, weight, bias = (torch.stack([each, 2 * each]) for each in draw((3, 4, 8, 8)))
    found = [
        torch.func.vmap(torch.func.grad(lambda *a, f=f: (f(*a) ** 2).sum(), argnums=(0, 1, 2)))(
            x, weight, bias
        )
        for f in (triton, composite)
    ]
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)
