"""The softmax Hessian on a GPU: no larger errors than the definition's, large tensors."""

import pytest
import torch

from kempe_nb import dispatch
from kempe_nb.kernels.softmax_hessian import softmax_hessian

READY = torch.cuda.is_available() and dispatch.triton_version()
pytestmark = pytest.mark.skipif(not READY, reason="no CUDA device with Triton")

SHAPES = [
    (0, 4),
    (1, 2),
    (60_001, 10),
    (50, 999, 10),
    (333, 1_000),
    (77, 8_192),
    (77, 8_193),
    (9, 200_000),
]


def draw(shape, dtype=torch.float32, scale=2.0):
    rng = torch.Generator("cuda").manual_seed(0)
    place = {"generator": rng, "device": "cuda"}
    return scale * torch.randn(shape[-2:], **place).to(dtype), torch.randn(shape, **place).to(dtype)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_errors_are_no_larger_than_those_of_the_definition(shape, dtype):
    logits, v = draw(shape, dtype)
    truth = softmax_hessian(logits.double(), v.double(), impl="definition")
    own = (softmax_hessian(logits, v, impl="triton").double() - truth).abs()
    simple = (softmax_hessian(logits, v, impl="definition").double() - truth).abs()
    if own.numel():
        floor = torch.finfo(dtype).eps * truth.abs().amax()
        assert own.amax() <= 2 * simple.amax() + 4 * floor


@pytest.mark.parametrize("classes", [40, 20_000])
def test_confident_rows_keep_their_digits(classes):
    logits, v = draw((3, classes), scale=1.0)
    logits[:, 7] += 60
    truth = softmax_hessian(logits.double(), v.double(), impl="definition")
    found = softmax_hessian(logits, v, impl="triton").double()
    torch.testing.assert_close(found, truth, rtol=1e-3, atol=0)


def test_more_than_two_to_the_31_elements():
    rows, classes = 2**17 + 3, 2**14
    logits = torch.zeros(rows, classes, dtype=torch.float16, device="cuda")
    v = torch.zeros_like(logits)
    v[-1, -1] = 512
    found = softmax_hessian(logits, v, impl="triton")
    assert found[:-1].count_nonzero() == 0
    assert found[-1, -1].item() == pytest.approx(512 / classes, rel=1e-3)


def test_derivatives_are_those_of_the_definition():
    logits, v = draw((2, 33, 10), torch.float64)
    found = []
    for impl in ("definition", "triton"):
        pair = logits.clone().requires_grad_(), v.clone().requires_grad_()
        out = softmax_hessian(*pair, impl=impl)
        found.append(torch.autograd.grad((out**3).sum(), pair))
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)
