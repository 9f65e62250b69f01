"""The Triton code of norm_relu_pool in the interpreter: numbers, bounds, and the fewest bytes."""

import pytest
import torch
from guard import guarded

from kempe_nb.kernels.norm_relu_pool import composite, minimum_bytes, norm_relu_pool
from kempe_nb.kernels.triton import norm_relu_pool as device_code

SIZES = [(2, 2), (8, 8), (16, 16), (32, 32), (64, 64), (3, 2), (5, 7), (9, 12), (28, 28), (2, 33)]


def draw(*shape, dtype=torch.float32):
    """Return x, weight, bias, and what comes back at both orders: v, a, p, q."""
    rng = torch.Generator().manual_seed(sum(shape))
    n, c, height, width = shape
    shapes = (shape, (n, c), (n, c), (n, c, height // 2, width // 2), shape, (n, c), (n, c))
    return [torch.randn(each, generator=rng).to(dtype) for each in shapes]


def composite_orders(x, weight, bias, v, a, p, q):
    """Return value, first and second derivatives by autograd, planes with their own weights."""
    n, c = weight.shape
    x, weight, bias, v = (each.detach().requires_grad_() for each in (x, weight, bias, v))
    flat = composite(x.reshape(1, n * c, *x.shape[2:]), weight.flatten(), bias.flatten())
    y = flat.view(v.shape)
    first = torch.autograd.grad(y, (x, weight, bias), v, create_graph=True)
    second = torch.autograd.grad(first, (x, weight, v), (a, p, q))
    return [y.detach()], [each.detach() for each in first], list(second)


def launched(x, weight, bias, v, a, p, q):
    """Return the same from the three kernels, and what each of them moved."""
    found, moved = [], []
    for call, inputs in (
        (lambda *t: (device_code.forward(*t, 1e-5),), (x, weight, bias)),
        (lambda *t: device_code.backward(*t, 1e-5), (x, weight, bias, v)),
        (lambda *t: device_code.double_backward(*t, 1e-5), (x, weight, bias, v, a, p, q)),
    ):
        with guarded() as each:
            found.append(call(*inputs))
        moved.append(each)
    return found, moved


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_order(size, dtype):
    inputs = draw(2, 3, *size, dtype=dtype)
    found, _ = launched(*inputs)
    truth = composite_orders(*(each.double() for each in inputs))
    library = composite_orders(*inputs)
    for own, exact, other in zip(found, truth, library, strict=True):
        for one, true, simple in zip(own, exact, other, strict=True):
            assert one.dtype == dtype
            floor = torch.finfo(dtype).eps * true.abs().amax()
            error = (one.double() - true).abs().amax()
            assert error <= 2 * (simple.double() - true).abs().amax() + 16 * floor


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_dtypes(dtype):
    inputs = draw(2, 3, 8, 8, dtype=dtype)
    found, _ = launched(*inputs)
    truth = composite_orders(*(each.double() for each in inputs))
    # The interpreter cuts bfloat16 off where a GPU rounds it.
    tolerance = 2 * torch.finfo(dtype).eps
    for own, exact in zip(found, truth, strict=True):
        for one, true in zip(own, exact, strict=True):
            torch.testing.assert_close(
                one.double(), true, rtol=tolerance, atol=tolerance * float(true.abs().amax())
            )


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_bytes_are_the_fewest(size):
    planes, (_, moved) = 6, launched(*draw(2, 3, *size))
    numbers = ("weight", "bias", "of_weight", "of_bias", "p", "q")
    for least, each, affine in zip(minimum_bytes(planes, *size), moved, (2, 4, 5), strict=True):
        whole = each.read + each.written
        assert sum(n for name, n in whole.items() if name not in numbers) == least
        # And one number for each plane of every weight that is read or written.
        assert [whole[name] for name in numbers if name in whole] == [4 * planes] * affine


@pytest.mark.parametrize("planes", [(1, 1), (1, 17), (5, 13), (16, 2)], ids=str)
def test_the_last_program_may_have_planes_left_over(planes):
    # Tiles hold 16 planes of 8 x 8.
    assert device_code.tile_of(8, 8)["PLANES"] == 16
    inputs = draw(*planes, 8, 8, dtype=torch.float64)
    found, _ = launched(*inputs)
    for own, exact in zip(found, composite_orders(*inputs), strict=True):
        for one, true in zip(own, exact, strict=True):
            torch.testing.assert_close(one, true, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4)], ids=str)
def test_nothing(shape):
    found, _ = launched(*draw(*shape))
    assert [[each.shape for each in own] for own in found] == [
        [(*shape[:2], 2, 2)],
        [shape, shape[:2], shape[:2]],
        [shape, shape[:2], (*shape[:2], 2, 2)],
    ]


def derivatives(inputs, impl):
    """Return three orders of derivatives of the public function."""
    inputs = [each.clone().requires_grad_() for each in inputs]
    made = [norm_relu_pool(*inputs, impl=impl)]
    found = [*made]
    for _ in range(3):
        total = sum((each**2).sum() for each in made)
        made = torch.autograd.grad(total, inputs, create_graph=True)
        found += made
    return [each.detach() for each in found]


@pytest.mark.parametrize("size", [(8, 8), (5, 7)], ids=str)
def test_the_operation_is_that_of_the_definition_up_to_third_derivatives(size):
    x, weight, bias, *_ = draw(3, 4, *size, dtype=torch.float64)
    inputs = x, weight[0], bias[0]
    for one, other in zip(
        derivatives(inputs, "triton"), derivatives(inputs, "definition"), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * float(other.abs().amax()))


@pytest.mark.parametrize("layout", ["transposed", "columns", "expanded"])
def test_layouts_and_expanded_gradients(layout):
    x, weight, bias, *_ = draw(4, 4, 8, 8, dtype=torch.float64)
    views = {
        "transposed": x.transpose(0, 1).contiguous().transpose(0, 1),
        "columns": x[..., ::2],
        "expanded": x[:1, :, :, :1].expand(4, 4, 8, 8),
    }
    found = []
    for impl in ("triton", "definition"):
        args = [each.clone().requires_grad_() for each in (weight[0, ::2], bias[0, ::2])]
        z = views[layout].detach()[:, ::2].requires_grad_()
        slopes = torch.autograd.grad(
            norm_relu_pool(z, *args, impl=impl).sum(), (z, *args), create_graph=True
        )
        second = torch.autograd.grad(slopes[1].sum() + slopes[2].sum() ** 2, (z, args[0]))
        found.append([*(each.detach() for each in slopes), *second])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11)


def test_vmap_folds_networks_into_images():
    x, weight, bias, *_ = draw(3, 4, 8, 8, dtype=torch.float64)
    x = torch.stack([x, 2 * x + 1])
    loss = lambda z, w, b, impl: (norm_relu_pool(z, w, b, impl=impl) ** 3).sum()  # noqa: E731
    found = [
        torch.func.vmap(torch.func.grad(lambda *a, impl=impl: loss(*a, impl), argnums=(0, 1)))(
            x, weight[:2], bias[:2]
        )
        for impl in ("triton", "definition")
    ]
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11)


def test_the_operations_for_the_compiler_are_well_formed():
    x, weight, bias, v, a, p, q = draw(2, 3, 8, 8)
    for op, inputs in (
        (device_code.forward_op, (x, weight, bias)),
        (device_code.backward_op, (x, weight, bias, v)),
        (device_code.double_backward_op, (x, weight, bias, v, a, p, q)),
    ):
        tests = "test_schema", "test_faketensor"
        torch.library.opcheck(op, (*inputs, 1e-5), test_utils=tests)


def test_compiled_with_its_first_derivatives():
    x, weight, bias, *_ = draw(2, 3, 8, 8, dtype=torch.float64)
    call = lambda *a: norm_relu_pool(*a, impl="triton")  # noqa: E731
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    found = []
    for each in (compiled, composite):
        args = [t.clone().requires_grad_() for t in (x, weight[0], bias[0])]
        found.append(torch.autograd.grad((each(*args) ** 2).sum(), args))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-11)


def test_nan_stays_in_its_plane():
    x, weight, bias, *_ = draw(2, 2, 8, 8)
    x[0, 1, 3, 3] = torch.nan
    bad = norm_relu_pool(x, weight[0], bias[0], impl="triton").isnan().flatten(2)
    assert bad.all(2).tolist() == bad.any(2).tolist() == [[False, True], [False, False]]


def test_planes_that_do_not_fit_on_chip_are_refused():
    x = torch.zeros(1, 1, 65, 64)
    with pytest.raises(RuntimeError, match=r"\(65, 64\) pixels; on chip there is room for 64 x 64"):
        norm_relu_pool(x, torch.ones(1), torch.zeros(1), impl="triton")


def test_a_small_variance_keeps_its_eps_in_float64():
    """An eps that went through float32 would be off in the eighth digit."""
    x, weight, bias, *_ = draw(1, 2, 4, 4, dtype=torch.float64)
    inputs = 1e-4 * x, weight[0], bias[0] + 1
    found = norm_relu_pool(*inputs, impl="triton")
    torch.testing.assert_close(found, composite(*inputs), rtol=1e-12, atol=0)
