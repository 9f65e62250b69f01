"""Norm, ReLU and pooling: against torch.nn at every order, finite differences and invariances."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch._subclasses import FakeTensorMode

from kempe_nb import Traffic, norm_relu_pool
from kempe_nb.kernels import norm_relu_pool as norm_relu_pool_module
from kempe_nb.kernels.norm_relu_pool import ONE_PRODUCT, composite, minimum_bytes

#: Planes pooled by one product, by rows, and of odd sizes on both sides of that border.
SIZES = [(2, 2), (3, 2), (5, 7), (8, 8), (9, 12), (13, 11), (2, 33)]


def draw(*shape, dtype=torch.float64, seed=0):
    """Return x [N, C, H, W], weight and bias [C]; weights of both signs."""
    rng = torch.Generator().manual_seed(seed)
    x = 3 + 2 * torch.randn(shape, generator=rng, dtype=torch.float64)
    weight, bias = torch.randn(2, shape[1], generator=rng, dtype=torch.float64)
    return tuple(each.to(dtype) for each in (x, weight, bias))


def library(x, weight, bias, eps=1e-5):
    """Return the block of modules that the papers' networks are made of."""
    channels = x.shape[1]
    norm = nn.GroupNorm(channels, channels, eps=eps).to(x.dtype)
    after = torch.func.functional_call(norm, {"weight": weight, "bias": bias}, x)
    return nn.AvgPool2d(2)(nn.ReLU()(after))


def derivatives(function, inputs, orders, seed=1):
    """Return the value and the derivatives up to an order, each along fixed random directions."""
    inputs = [each.detach().requires_grad_() for each in inputs]
    made = [function(*inputs)]
    found = [*made]
    rng = torch.Generator().manual_seed(seed)
    for order in range(orders):
        slope = sum(
            (each * torch.randn(each.shape, generator=rng, dtype=torch.float64).to(each)).sum()
            for each in made
        )
        made = torch.autograd.grad(slope**2, inputs, create_graph=order + 1 < orders)
        found += made
    return [each.detach() for each in found]


def assert_same(found, expected, tolerance, by_order=False):
    """Compare lists of tensors, each relative to the largest entry of the expected one.

    With `by_order` to the largest entry of all three derivatives of its order, as `derivatives`
    returns them: one of them may vanish, and then is the rounding of what it is made of.
    """
    assert len(found) == len(expected)
    sizes = [float(each.detach().abs().amax()) if each.numel() else 0.0 for each in expected]
    if by_order:
        orders = [sizes[:1], *(sizes[n : n + 3] for n in range(1, len(sizes), 3))]
        sizes = [max(order) for order in orders for _ in order]
    for one, other, size in zip(found, expected, sizes, strict=True):
        one, other = one.detach(), other.detach()
        assert one.shape == other.shape and one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * size + 1e-15)


# Against the library


@given(
    st.integers(0, 3),
    st.integers(1, 4),
    st.integers(2, 13),
    st.integers(2, 13),
    st.floats(1e-6, 1),
    st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=60)
def test_three_orders_of_derivatives_are_those_of_torch_nn(n, c, height, width, eps, seed):
    inputs = draw(n, c, height, width, seed=seed)
    found = derivatives(lambda *a: norm_relu_pool(*a, eps), inputs, 3)
    expected = derivatives(lambda *a: library(*a, eps), inputs, 3)
    # Nearly flat planes (a few pixels, nearly equal) lose digits in either.
    assert_same(found, expected, 1e-6, by_order=True)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_to_the_last_digits(size):
    inputs = draw(3, 4, *size)
    assert_same(derivatives(norm_relu_pool, inputs, 3), derivatives(library, inputs, 3), 1e-11)
    assert_same(derivatives(composite, inputs, 3), derivatives(library, inputs, 3), 1e-11)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_errors_are_no_larger_than_those_of_the_library(dtype):
    inputs = draw(4, 5, 8, 8, dtype=dtype)
    truth = derivatives(library, [each.double() for each in inputs], 2)
    found = derivatives(norm_relu_pool, inputs, 2)
    simple = derivatives(library, inputs, 2)
    for own, other, exact in zip(found, simple, truth, strict=True):
        assert own.dtype == dtype
        floor = torch.finfo(dtype).eps * exact.abs().amax()
        error = (own.double() - exact).abs().amax()
        assert error <= 2 * (other.double() - exact).abs().amax() + 8 * floor


def test_both_sides_of_the_border_of_pooling_by_one_product():
    sizes = [(height, width) for height in (7, 8, 9) for width in (7, 8, 9)]
    assert {h * w <= ONE_PRODUCT for h, w in sizes} == {True, False}
    for size in sizes:
        inputs = draw(2, 3, *size)
        assert_same(derivatives(norm_relu_pool, inputs, 2), derivatives(library, inputs, 2), 1e-11)


# Derivatives by themselves


@pytest.mark.parametrize("size", [(2, 2), (5, 4), (9, 10)], ids=str)
def test_finite_differences(size):
    inputs = [each.requires_grad_() for each in draw(2, 2, *size)]
    assert torch.autograd.gradcheck(norm_relu_pool, inputs)
    assert torch.autograd.gradgradcheck(norm_relu_pool, inputs)


def test_the_second_derivatives_are_symmetric():
    x, weight, bias = draw(2, 3, 6, 5)
    rng = torch.Generator().manual_seed(3)
    a, b = (
        tuple(torch.randn(each.shape, generator=rng).double() for each in (x, weight, bias))
        for _ in range(2)
    )

    def loss(*inputs):
        return (norm_relu_pool(*inputs) ** 3).sum()

    def product(direction):
        inputs = [each.clone().requires_grad_() for each in (x, weight, bias)]
        slopes = torch.autograd.grad(loss(*inputs), inputs, create_graph=True)
        return torch.autograd.grad(slopes, inputs, direction)

    def inner(one, other):
        return sum((p * q).sum() for p, q in zip(one, other, strict=True))

    torch.testing.assert_close(inner(b, product(a)), inner(a, product(b)), rtol=1e-10, atol=0)


def test_torch_func_and_vmap_at_every_order():
    x, weight, bias = (torch.stack([each, 1.5 * each]) for each in draw(3, 4, 6, 7))

    def grads(function, order):
        call = lambda *a: (function(*a) ** 3).sum()  # noqa: E731
        for _ in range(order):
            inner = torch.func.grad(call, argnums=(0, 1, 2))
            call = lambda *a, inner=inner: sum((g**2).sum() for g in inner(*a))  # noqa: E731
        return torch.func.grad(call, argnums=(0, 1, 2))

    for order in range(3):
        for dims in ((0, 0, 0), (0, None, 0), (None, 0, None)):
            args = [a if d == 0 else a[0] for a, d in zip((x, weight, bias), dims, strict=True)]
            found, expected = (
                torch.func.vmap(grads(f, order), in_dims=dims)(*args)
                for f in (norm_relu_pool, composite)
            )
            assert_same(found, expected, 1e-10)
    # Two axes, one of them not the first.
    both = torch.stack([x, -x], 3)
    found = torch.func.vmap(torch.func.vmap(norm_relu_pool), in_dims=(3, None, None))(
        both, weight, bias
    )
    for index, sign in enumerate((1, -1)):
        for own, w, b, each in zip(found[index], weight, bias, x, strict=True):
            torch.testing.assert_close(own, composite(sign * each, w, b))


@pytest.mark.parametrize("backend", ["aot_eager"])
def test_compiled_with_first_and_second_derivatives(backend):
    inputs = draw(2, 3, 8, 8)
    torch._dynamo.reset()
    compiled = torch.compile(norm_relu_pool, fullgraph=True, backend=backend)
    assert_same(derivatives(compiled, inputs, 1), derivatives(library, inputs, 1), 1e-11)

    def slopes(x, weight, bias):
        return torch.func.grad(lambda *a: (norm_relu_pool(*a) ** 3).sum(), argnums=(0, 1))(
            x, weight, bias
        )

    torch._dynamo.reset()
    compiled = torch.compile(slopes, fullgraph=True, backend=backend)
    found, expected = [], []
    for call, into in ((compiled, found), (slopes, expected)):
        args = [each.clone().requires_grad_() for each in inputs]
        total = sum((each**2).sum() for each in call(*args))
        into += torch.autograd.grad(total, args)
    assert_same(found, expected, 1e-11)


# What must not matter


@given(st.floats(-20, 20), st.floats(0.1, 10), st.integers(0, 2**32))
@settings(deadline=None)
def test_offset_and_scale_of_a_plane_change_nothing(offset, scale, seed):
    x, weight, bias = draw(2, 3, 6, 6, seed=seed)
    one = norm_relu_pool(x, weight, bias, 1e-12)
    torch.testing.assert_close(norm_relu_pool(scale * x + offset, weight, bias, 1e-12), one)


def test_the_derivative_does_not_see_offset_and_scale():
    """So the gradient of x is orthogonal to constants and to x itself, as far as eps is small."""
    x, weight, bias = draw(2, 3, 6, 6)
    x.requires_grad_()
    (slope,) = torch.autograd.grad((norm_relu_pool(x, weight, bias, 1e-14) ** 3).sum(), x)
    size = slope.abs().amax()
    assert slope.sum((2, 3)).abs().max() < 1e-12 * size
    assert (slope * x).sum((2, 3)).abs().max() < 1e-11 * size


def test_images_and_channels_do_not_mix():
    x, weight, _ = draw(3, 4, 5, 6)
    bias = torch.full_like(weight, 3.0)
    one = norm_relu_pool(x, weight, bias)
    other = x.clone()
    other[1, 2] *= torch.linspace(0, 1, 6)
    changed = (norm_relu_pool(other, weight, bias) != one).flatten(2).any(2)
    assert changed.nonzero().tolist() == [[1, 2]]


@pytest.mark.parametrize("layout", ["transposed", "columns", "expanded", "channels last"])
def test_inputs_and_gradients_of_any_layout(layout):
    x, weight, bias = draw(4, 6, 8, 8)
    views = {
        "transposed": (x.transpose(0, 1).contiguous().transpose(0, 1), weight, bias),
        "columns": (x[:, ::2, :, ::2], weight[::2], bias[::2]),
        "expanded": (x[:1, :1].expand(4, 6, 8, 8), weight[:1].expand(6), bias[:1].expand(6)),
        "channels last": (x.to(memory_format=torch.channels_last), weight, bias),
    }
    inputs = views[layout]
    before = [each.clone() for each in inputs]
    # Gradients: expanded ones by the sum, strided ones by the transposition.
    for reduce in (lambda y: y.sum(), lambda y: (y.transpose(2, 3) ** 2).sum()):
        found, expected = [], []
        for function, into in ((norm_relu_pool, found), (library, expected)):
            args = [each.detach().requires_grad_() for each in inputs]
            slopes = torch.autograd.grad(reduce(function(*args)), args, create_graph=True)
            into += torch.autograd.grad(sum(each.sum() ** 2 for each in slopes[1:]), args[:2])
            into += slopes
        assert_same(found, expected, 1e-10)
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))


def test_a_flat_plane_has_no_nan():
    x, weight, bias = draw(1, 2, 4, 4)
    inputs = [torch.full_like(x, 3.0), weight, bias]
    for each in derivatives(norm_relu_pool, inputs, 2):
        assert each.isfinite().all()


def test_nan_stays_in_its_plane():
    x, weight, bias = draw(2, 2, 4, 4)
    x[0, 1, 2, 2] = torch.nan
    bad = norm_relu_pool(x, weight, bias).isnan().flatten(2).any(2)
    assert bad.tolist() == [[False, True], [False, False]]


# What the module says


def test_passes_and_launches_of_the_composite():
    x, weight, bias = (each.float().requires_grad_() for each in draw(20, 16, 32, 32))
    rng = torch.Generator().manual_seed(0)
    v = torch.randn(20, 16, 16, 16, generator=rng, requires_grad=True)
    a, p = torch.randn(x.shape, generator=rng), torch.randn(16, generator=rng)
    with Traffic() as traffic:
        slopes = torch.autograd.grad(
            composite(x, weight, bias), (x, weight, bias), v, create_graph=True
        )
        torch.autograd.grad(slopes, (x, weight, v), (a, p, p))
    assert traffic.passes(x) == pytest.approx(91, abs=1)
    assert traffic.launches == pytest.approx(135, abs=10)


def test_minimum_bytes():
    bytes_ = minimum_bytes(7, 8, 6)
    assert [each / (4 * 7 * 48) for each in bytes_] == [1.25, 2.25, 3.5]
    # Of odd sizes the pooled planes are smaller than a quarter.
    assert minimum_bytes(1, 5, 5) == (4 * 29, 4 * 54, 4 * 83)


# Bad input


GOOD = {"x": torch.zeros(2, 3, 4, 4), "weight": torch.zeros(3), "bias": torch.zeros(3)}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.zeros(2, 3, 4, 4).long()}, TypeError, "x is torch.int64; accepted are fl"),
        ({"x": [0.0]}, TypeError, "x is a list; accepted is a torch.Tensor"),
        ({"weight": torch.zeros(3).double()}, TypeError, "weight torch.float64; accepted is one"),
        ({"bias": torch.zeros(3).half()}, TypeError, "bias torch.float16; accepted is one"),
        ({"x": torch.zeros(3, 4, 4)}, ValueError, r"x has shape \(3, 4, 4\); accepted is \[N, C"),
        ({"x": torch.zeros(2, 3, 1, 4)}, ValueError, r"\(2, 3, 1, 4\); accepted is \[N, C, H, W"),
        ({"weight": torch.zeros(4)}, ValueError, r"weight has shape \(4,\); accepted is \[3\]"),
        ({"bias": torch.zeros(3, 1)}, ValueError, r"bias has shape \(3, 1\); accepted is \[3\]"),
        ({"eps": 0.0}, ValueError, "eps is 0.0; accepted is a positive finite number"),
        ({"eps": float("nan")}, ValueError, "eps is nan"),
        ({"eps": True}, ValueError, "eps is True"),
        ({"bias": torch.zeros(3, device="meta")}, ValueError, "accepted are tensors on one device"),
        ({"impl": "fast"}, ValueError, "impl is 'fast'"),
    ],
)
def test_bad_input_is_named(change, error, message):
    with pytest.raises(error, match=message):
        norm_relu_pool(**{**GOOD, **change})


@pytest.mark.parametrize("size", [(6, 6), (10, 12)], ids=["one product", "rows"])
def test_what_was_made_among_fake_or_inference_tensors_is_not_kept(size):
    """The matrices of the pooling are kept for later calls."""
    inputs = draw(2, 3, *size)
    expected = derivatives(composite, inputs, 3)
    for clear in (norm_relu_pool_module._kept_quarters.cache_clear, lambda: None):
        clear()
        with FakeTensorMode() as mode:
            fake = norm_relu_pool(*map(mode.from_tensor, inputs))
        assert fake.shape == (2, 3, size[0] // 2, size[1] // 2)
        with torch.inference_mode():
            norm_relu_pool(*inputs)
        assert_same(derivatives(norm_relu_pool, inputs, 3), expected, 1e-10, by_order=True)


@pytest.mark.parametrize("size", [(6, 6), (10, 12)], ids=["one product", "rows"])
def test_autocast_lowers_nothing(size):
    inputs = draw(2, 3, *size, dtype=torch.float32)
    expected = derivatives(norm_relu_pool, inputs, 2)
    with torch.autocast("cpu", torch.bfloat16):
        found = derivatives(norm_relu_pool, inputs, 2)
    assert all(map(torch.equal, found, expected))
    assert {each.dtype for each in found} == {torch.float32}


def test_forward_mode_is_refused_and_not_silently_zero():
    x, weight, bias = draw(1, 2, 4, 4)
    with pytest.raises((RuntimeError, NotImplementedError), match="jvp"):
        torch.func.jvp(lambda z: norm_relu_pool(z, weight, bias), (x,), (x,))
    _, slope = torch.func.jvp(lambda z: composite(z, weight, bias), (x,), (x,))
    assert slope.isfinite().all()
