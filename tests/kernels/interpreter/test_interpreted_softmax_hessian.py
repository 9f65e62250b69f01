"""The Triton code of softmax_hessian in the interpreter: the numbers, and the fewest bytes."""

import pytest
import torch
from guard import guarded

from kempe_nb.kernels.softmax_hessian import minimum_bytes, softmax_hessian
from kempe_nb.kernels.triton import softmax_hessian as device_code

#: A long row in blocks of this size costs the interpreter little.
SMALL = 16


@pytest.fixture
def long_rows(monkeypatch):
    """Hold nothing on chip, and take small blocks."""
    monkeypatch.setattr(device_code, "ON_CHIP", 0)
    monkeypatch.setattr(device_code, "CONFIG", {**device_code.CONFIG, "BLOCK": SMALL})


def draw(rows, classes, *vectors, dtype=torch.float32, scale=2.0):
    rng = torch.Generator().manual_seed(rows + classes)
    logits = scale * torch.randn(rows, classes, generator=rng)
    return logits.to(dtype), torch.randn(*vectors, rows, classes, generator=rng).to(dtype)


def product(logits, vectors, temperature=1.0):
    """Return what Triton finds, held to the definition in float64, and the bytes it moved."""
    with guarded() as moved:
        found = softmax_hessian(logits, vectors, temperature=temperature, impl="triton")
    truth = softmax_hessian(logits.double(), vectors.double(), temperature=temperature)
    eps = torch.finfo(found.dtype).eps
    largest = truth.abs().amax().item() if truth.numel() else 0.0
    torch.testing.assert_close(found.double(), truth, rtol=16 * eps, atol=16 * eps * largest)
    return found, moved


@pytest.mark.parametrize("classes", [2, 3, 10, 16, 37, 1_000])
@pytest.mark.parametrize("rows", [1, 7, 130])
def test_rows_on_chip(rows, classes):
    product(*draw(rows, classes))


@pytest.mark.parametrize("classes", [1_024, 1_025, 4_096, 4_097, 8_192, 8_193])
def test_both_sides_of_every_tile(classes):
    product(*draw(2, classes))


@pytest.mark.parametrize(
    ("dtype", "classes"), [(torch.float32, 8_192), (torch.float16, 8_192), (torch.float64, 4_096)]
)
def test_the_longest_row_on_chip(dtype, classes):
    for more, reads in ((0, 1), (1, 2)):
        logits, v = draw(1, classes + more, dtype=dtype)
        _, moved = product(logits, v)
        # The kernel for long rows looks at the first entry, too.
        expected = logits.element_size() * (reads * (classes + more) + more)
        assert moved.read["logits"] == expected


@pytest.mark.parametrize("classes", [2, SMALL - 1, SMALL, SMALL + 1, 3 * SMALL + 5])
@pytest.mark.parametrize("vectors", [(), (3,)])
def test_long_rows(long_rows, classes, vectors):
    product(*draw(3, classes, *vectors), temperature=0.5)


@pytest.mark.parametrize("shape", [(0, 4), (3, 5, 0), (0, 4, 2)], ids=str)
def test_nothing(shape):
    product(*draw(*shape))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("on_chip", [True, False])
def test_dtypes(request, dtype, on_chip):
    if not on_chip:
        request.getfixturevalue("long_rows")
    product(*draw(5, 40, 2, dtype=dtype))


@pytest.mark.parametrize("groups", [1, 2, 50])
def test_many_vectors_are_shared_among_programs(monkeypatch, groups):
    # Three rows of ten classes are one program.
    monkeypatch.setattr(device_code, "PROGRAMS", groups)
    _, moved = product(*draw(3, 10, 5))
    assert moved.read["logits"] == 4 * 30 * min(groups, 5)
    assert moved.read["vectors"] == moved.written["out"] == 4 * 150


@pytest.mark.parametrize("on_chip", [True, False])
@pytest.mark.parametrize("place", [0, 20, 39])
def test_confident_rows_keep_their_digits(request, on_chip, place):
    if not on_chip:
        request.getfixturevalue("long_rows")
    logits, v = draw(2, 40)
    logits[:, place] += 60
    found, _ = product(logits, v)
    truth = softmax_hessian(logits.double(), v.double())
    # Each entry, also the smallest. An error of 60 eps in a logit is one of 60 eps in exp.
    torch.testing.assert_close(found.double(), truth, rtol=1e-4, atol=0)


@pytest.mark.parametrize("on_chip", [True, False])
def test_classes_that_cannot_occur(request, on_chip):
    if not on_chip:
        request.getfixturevalue("long_rows")
    logits, v = draw(2, 40)
    # The first block is empty, and so is an entry of each other one.
    logits[:, : SMALL + 1] = -torch.inf
    logits[:, 35] = -torch.inf
    found, _ = product(logits, v)
    assert (found[:, 35] == 0).all()


@pytest.mark.parametrize("layout", ["transposed", "columns", "expanded"])
def test_layouts(layout):
    logits, v = draw(6, 12)
    views = {
        "transposed": (logits.T.contiguous().T, v.T.contiguous().T),
        "columns": (logits[:, ::2], v[:, ::2]),
        "expanded": (logits[0].expand(6, 12), v[0].expand(6, 12)),
    }
    product(*views[layout])


@pytest.mark.parametrize("vectors", [(), (4,)])
def test_rows_on_chip_move_the_minimum(monkeypatch, vectors):
    monkeypatch.setattr(device_code, "PROGRAMS", 1)
    _, moved = product(*draw(300, 10, *vectors))
    total = moved.read["logits"] + moved.read["vectors"] + moved.written["out"]
    assert total == minimum_bytes(300, 10, *vectors)
    # Each program reads the temperature.
    assert moved.read["temperatures"] == 4 * -(-300 // device_code.tile_of(10)["ROWS"])


def test_long_rows_move_five_passes(long_rows):
    _, moved = product(*draw(3, 100))
    # And each program looks at the first entries before it starts.
    assert moved.read["logits"] == moved.read["vectors"] == 4 * (2 * 300 + 3)
    assert moved.written["out"] == 4 * 300


def test_derivatives_are_those_of_the_definition():
    logits, v = draw(3, 5, 2, dtype=torch.float64)
    found = []
    for impl in ("definition", "triton"):
        pair = logits.clone().requires_grad_(), v.clone().requires_grad_()
        out = softmax_hessian(*pair, temperature=0.7, impl=impl)
        first = torch.autograd.grad((out**3).sum(), pair, create_graph=True)
        second = torch.autograd.grad(sum((g**2).sum() for g in first), pair)
        found.append([out.detach(), *(g.detach() for g in first), *second])
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)


def test_an_expanded_gradient_is_read_as_what_it_is():
    logits, v = draw(3, 5)
    v.requires_grad_()
    softmax_hessian(logits, v, impl="triton").sum().backward()
    # S is symmetric and S 1 = 0.
    torch.testing.assert_close(v.grad, torch.zeros(3, 5), rtol=0, atol=1e-7)
