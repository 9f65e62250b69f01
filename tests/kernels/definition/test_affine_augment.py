"""Augmentation: against grid_sample and other libraries, as a linear map, and by closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from kempe_nb import affine_augment, dispatch
from kempe_nb.data.torchvision_import import import_torchvision
from kempe_nb.kernels.affine_augment import (
    COLUMNS,
    MOST_SCALE,
    UNCHANGED,
    definition,
    minimum_bytes,
    transposed_definition,
)

CPU = ["definition", "numba"] if dispatch.numba_version() else ["definition"]
each_implementation = pytest.mark.parametrize("impl", CPU)
SHAPES = [(2, 3, 8, 8), (1, 1, 1, 1), (3, 2, 1, 9), (2, 4, 7, 1), (2, 3, 5, 12), (2, 3, 33, 18)]
shapes = st.tuples(*(st.integers(low, high) for low, high in ((0, 3), (1, 4), (1, 13), (1, 13))))
seeds = st.integers(0, 2**32)


def draw(*shape, dtype=torch.float64, seed=0):
    """Return images [N, C, H, W]."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype)


def row(**columns):
    """Return a row for one image that changes the named columns alone."""
    values = dict(zip(COLUMNS, UNCHANGED, strict=True)) | columns
    return torch.tensor([list(values.values())], dtype=torch.float64)


def turned(degrees, scale=1.0, **columns):
    """Return a row that rotates and scales about the middle."""
    cos, sin = (
        scale * float(f(torch.deg2rad(torch.tensor(degrees).double())))
        for f in (torch.cos, torch.sin)
    )
    return row(yy=cos, yx=sin, xy=-sin, xx=cos, **columns)


def wild(count, height, width, seed=0):
    """Return rows of any kind: any rotation, scales from 1/8 to 8, mirrors, and whole steps."""
    rng = np.random.default_rng(seed)
    rows = np.empty((count, len(COLUMNS)))
    for each in rows:
        colours = rng.normal(), 2 * rng.random(), 2 * rng.random()
        shift = rng.integers(-height, height + 1), rng.integers(-width, width + 1)
        if rng.random() < 0.7:
            shift = shift[0] // 4, shift[1] // 4
        top, left = rng.integers(0, height + 1), rng.integers(0, width + 1)
        cut = top, left, rng.integers(0, height + 1 - top), rng.integers(0, width + 1 - left)
        if rng.random() < 0.3:
            matrix = np.diag(rng.choice([-1.0, 1.0], 2))
            move = rng.integers(-(height // 2), height // 2 + 1), rng.integers(0, width // 2 + 1)
        else:
            one, other = (np.linalg.qr(rng.normal(size=(2, 2)))[0] for _ in range(2))
            # Mostly near one, so that most of the image is in the result.
            log_scales = rng.uniform(-1, 1, 2) ** 3 * np.log(MOST_SCALE)
            matrix = one @ np.diag(np.exp(log_scales)) @ other
            move = rng.uniform(-height, height) / 4, rng.uniform(-width, width) / 4
        each[:] = (*colours, *shift, *cut, *matrix.flatten(), *move)
    return torch.from_numpy(rows)


def library(images, parameters):
    """Return the augmented images step by step, sampled once by PyTorch."""
    made = [
        _one_by_library(image[None], dict(zip(COLUMNS, p.tolist(), strict=True)))
        for image, p in zip(images, parameters, strict=True)
    ]
    return torch.cat(made) if made else images.clone()


def _one_by_library(image, p):
    height, width = image.shape[2:]
    image = image + p["brightness"]
    grey = image.mean(1, keepdim=True)
    image = (image - grey) * p["saturation"] + grey
    mean = image.mean((1, 2, 3), keepdim=True)
    image = (image - mean) * p["contrast"] + mean
    # Moved inside of a border of zeros as wide as the image itself.
    down, right = int(p["shift_y"]), int(p["shift_x"])
    whole = F.pad(image, (width, width, height, height))
    image = whole[
        :, :, height + down : 2 * height + down, width + right : 2 * width + right
    ].clone()
    top, left = int(p["cut_top"]), int(p["cut_left"])
    image[:, :, top : top + int(p["cut_height"]), left : left + int(p["cut_width"])] = 0
    theta = [
        [p["xx"], p["xy"] * height / width, 2 * p["move_x"] / width],
        [p["yx"] * width / height, p["yy"], 2 * p["move_y"] / height],
    ]
    grid = F.affine_grid(torch.tensor([theta], dtype=image.dtype), image.shape, align_corners=False)
    return F.grid_sample(image, grid, align_corners=False)


def close(found, expected, tolerance=1e-11):
    """Compare relative to the largest entry."""
    size = float(expected.detach().abs().amax()) if expected.numel() else 0.0
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * size + 1e-13)


# Against libraries


@each_implementation
@given(shapes, seeds)
@settings(max_examples=150)
def test_it_is_one_bilinear_sample_of_what_is_coloured_moved_and_cut(impl, shape, seed):
    images, rows = draw(*shape, seed=seed), wild(shape[0], *shape[2:], seed=seed)
    close(affine_augment(images, rows, impl=impl), library(images, rows))


@each_implementation
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("seed", range(6))
def test_errors_in_float32_are_no_larger_than_those_of_the_library(impl, shape, seed):
    images, rows = draw(*shape, dtype=torch.float32), wild(shape[0], *shape[2:], seed=seed)
    truth = library(images.double(), rows)
    found = affine_augment(images, rows, impl=impl)
    assert found.dtype == torch.float32
    floor = torch.finfo(torch.float32).eps * max(1.0, float(truth.abs().amax()))
    simple = (library(images, rows).double() - truth).abs().amax()
    assert (found.double() - truth).abs().amax() <= 2 * simple + 16 * floor


@each_implementation
@pytest.mark.parametrize("size", [(9, 9), (6, 11)], ids=str)
@pytest.mark.parametrize("angle", [-170, -15, 1, 33, 90])
def test_a_rotation_is_that_of_torchvision_on_rectangles_too(impl, size, angle):
    import_torchvision()
    from torchvision.transforms.functional import InterpolationMode, rotate

    images = draw(1, 3, *size)
    expected = rotate(images, angle, InterpolationMode.BILINEAR)
    # It makes its grid in float32.
    close(affine_augment(images, turned(angle), impl=impl), expected, 1e-5)


@each_implementation
@given(st.integers(2, 12), st.integers(2, 12), seeds)
@settings(max_examples=25)
def test_an_affine_map_is_that_of_kornia(impl, height, width, seed):
    """It takes the matrix from the image to the result, in pixels, columns first."""
    kornia = pytest.importorskip("kornia")
    images, rows = draw(2, 3, height, width, seed=seed), wild(2, height, width, seed=seed)
    rows[:, :9] = torch.tensor(UNCHANGED[:9], dtype=torch.float64)
    back = torch.eye(3).double().repeat(2, 1, 1)
    back[:, :2, :2] = rows[:, [12, 11, 10, 9]].view(2, 2, 2)
    middle = torch.tensor([width - 1, height - 1]).double() / 2
    back[:, :2, 2] = middle + rows[:, [14, 13]] - back[:, :2, :2] @ middle
    there = torch.linalg.inv(back)[:, :2]
    # In pixels its corners are the middles of the outer pixels.
    expected = kornia.geometry.warp_affine(images, there, (height, width), align_corners=True)
    close(affine_augment(images, rows, impl=impl), expected, 1e-9)


# A linear map and its transpose


def pair(impl, images, rows, v):
    """Return A x and A^T v from the value and the gradient of the function."""
    images = images.detach().requires_grad_()
    made = affine_augment(images, rows, impl=impl)
    (back,) = torch.autograd.grad(made, images, v)
    nothing = affine_augment(torch.zeros_like(images), rows, impl=impl)
    return made.detach() - nothing, back


@each_implementation
@given(shapes, seeds)
@settings(max_examples=150)
def test_the_gradient_is_the_exact_transpose(impl, shape, seed):
    images, v = draw(*shape, seed=seed), draw(*shape, seed=seed + 1)
    rows = wild(shape[0], *shape[2:], seed=seed)
    rows[:, 0] = 0
    forward, back = pair(impl, images, rows, v)
    one, other = (forward * v).sum(), (images * back).sum()
    assert abs(one - other) <= 1e-12 * max(
        1, forward.norm() * v.norm(), images.norm() * back.norm()
    )


@each_implementation
@given(shapes, seeds)
@settings(max_examples=60)
def test_the_gradient_is_that_of_the_library(impl, shape, seed):
    images, v = draw(*shape, seed=seed), draw(*shape, seed=seed + 1)
    rows = wild(shape[0], *shape[2:], seed=seed)
    found = []
    for call in (lambda x: affine_augment(x, rows, impl=impl), lambda x: library(x, rows)):
        x = images.clone().requires_grad_()
        found.append(torch.autograd.grad(call(x), x, v)[0])
    close(*found)


@each_implementation
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 1, 1, 3), (2, 2, 5, 5)], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_finite_differences_at_both_orders(impl, shape, seed):
    images, rows = draw(*shape).requires_grad_(), wild(shape[0], *shape[2:], seed=seed)
    call = lambda x: affine_augment(x, rows, impl=impl)  # noqa: E731
    assert torch.autograd.gradcheck(call, images, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(call, images)


@each_implementation
@given(shapes, seeds)
@settings(max_examples=40)
def test_the_derivative_of_the_gradient_is_the_linear_part_again(impl, shape, seed):
    v, a = (draw(*shape, seed=seed + n).requires_grad_() for n in (1, 2))
    rows = wild(shape[0], *shape[2:], seed=seed)
    images = draw(*shape, seed=seed).requires_grad_()
    (back,) = torch.autograd.grad(
        affine_augment(images, rows, impl=impl), images, v, create_graph=True
    )
    (again,) = torch.autograd.grad(back, v, a, create_graph=True)
    linear = rows.clone()
    linear[:, 0] = 0
    close(again.detach(), library(a.detach(), linear))
    (third,) = torch.autograd.grad(again, a, v)
    close(third, back.detach())


@each_implementation
@given(shapes, seeds, st.floats(-3, 3))
@settings(max_examples=40)
def test_it_is_affine(impl, shape, seed, t):
    x, y = draw(*shape, seed=seed), draw(*shape, seed=seed + 1)
    rows = wild(shape[0], *shape[2:], seed=seed)
    call = lambda z: affine_augment(z, rows, impl=impl)  # noqa: E731
    close(call(t * x + (1 - t) * y), t * call(x) + (1 - t) * call(y), 1e-10)


# Closed forms


@each_implementation
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_unchanged_row_returns_the_bits(impl, shape, dtype):
    images = draw(*shape, dtype=dtype)
    made = affine_augment(images, row().expand(len(images), -1), impl=impl)
    assert torch.equal(made, images) and made.data_ptr() != images.data_ptr()


@each_implementation
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_mirrors_shifts_and_rectangles_return_the_bits_of_the_image(impl, shape, dtype):
    images = draw(*shape, dtype=dtype)
    count, _, height, width = shape
    call = lambda **columns: affine_augment(  # noqa: E731
        images, row(**columns).expand(count, -1), impl=impl
    )
    assert torch.equal(call(xx=-1), images.flip(3))
    assert torch.equal(call(yy=-1), images.flip(2))
    assert torch.equal(call(yy=-1, xx=-1), images.flip(2, 3))
    down, right = -(height // 2), width // 3
    moved = torch.zeros_like(images)
    moved[:, :, -down:, : width - right] = images[:, :, : height + down, right:]
    assert torch.equal(call(shift_y=down, shift_x=right), moved)
    # A move of the matrix is a shift of the result.
    assert torch.equal(call(move_y=down, move_x=right), moved)
    cut = images.clone()
    cut[:, :, height // 3 : height // 3 + 2, width // 2 :] = 0
    sides = {"cut_height": min(2, height - height // 3), "cut_width": width - width // 2}
    assert torch.equal(call(cut_top=height // 3, cut_left=width // 2, **sides), cut)
    # The rectangle stands in the frame, which is mirrored behind it.
    assert torch.equal(call(cut_top=height // 3, cut_left=width // 2, xx=-1, **sides), cut.flip(3))


@each_implementation
def test_a_quarter_turn_is_counter_clockwise(impl):
    images = draw(1, 3, 7, 7)
    close(affine_augment(images, turned(90), impl=impl), torch.rot90(images, 1, (2, 3)))
    images = draw(1, 3, 6, 9)
    close(affine_augment(images, turned(180), impl=impl), images.flip(2, 3))


@each_implementation
@given(seeds)
def test_a_smooth_image_is_sampled_where_it_should_be(impl, seed):
    """A plane a + b i + c j is met exactly wherever the four pixels are inside."""
    rng = np.random.default_rng(seed)
    height, width = 17, 23
    a, b, c = rng.normal(size=3)
    i, j = torch.meshgrid(
        torch.arange(height).double(), torch.arange(width).double(), indexing="ij"
    )
    rows = turned(rng.uniform(0, 360), rng.uniform(0.2, 1.5), move_y=rng.normal(), move_x=0.3)
    columns = dict(zip(COLUMNS, rows[0].tolist(), strict=True))
    y, x = i - 8, j - 11
    at_i = columns["yy"] * y + columns["yx"] * x + 8 + columns["move_y"]
    at_j = columns["xy"] * y + columns["xx"] * x + 11 + columns["move_x"]
    found = affine_augment((a + b * i + c * j)[None, None], rows, impl=impl)[0, 0]
    inside = (at_i >= 0) & (at_i <= height - 1) & (at_j >= 0) & (at_j <= width - 1)
    close(found[inside], (a + b * at_i + c * at_j)[inside])
    beyond = (at_i <= -1) | (at_i >= height) | (at_j <= -1) | (at_j >= width)
    assert not found[beyond].any()


@each_implementation
@given(shapes.filter(lambda shape: shape[0] > 0), seeds, st.floats(0, 4), st.floats(0, 4))
def test_colours(impl, shape, seed, saturation, contrast):
    images = draw(*shape, seed=seed)
    call = lambda **columns: affine_augment(  # noqa: E731
        images, row(**columns).expand(len(images), -1), impl=impl
    )
    made = call(saturation=saturation, contrast=contrast)
    # Neither changes the mean of an image, and the first one no mean over channels either.
    close(made.mean((1, 2, 3)), images.mean((1, 2, 3)), 1e-10)
    close(call(saturation=saturation).mean(1), images.mean(1), 1e-10)
    close(call(saturation=0), images.mean(1, keepdim=True).expand(shape))
    flat = images.mean((1, 2, 3), keepdim=True).expand(shape)
    close(call(contrast=0), flat)
    close(call(brightness=0.3), images + 0.3)
    # One after the other, in either order.
    once = call(saturation=saturation)
    twice = affine_augment(once, row(contrast=contrast).expand(len(images), -1), impl=impl)
    close(made, twice)


# What must not matter


@each_implementation
@pytest.mark.parametrize("layout", ["transposed", "columns", "expanded", "channels last"])
def test_images_gradients_and_rows_of_any_layout(impl, layout):
    whole, v = draw(4, 4, 8, 8), draw(4, 4, 8, 8, seed=1)
    views = {
        "transposed": lambda z: z.transpose(0, 1).contiguous().transpose(0, 1),
        "columns": lambda z: z.repeat_interleave(2, 3)[..., ::2],
        "expanded": lambda z: z[:1, :1].expand(4, 4, 8, 8),
        "channels last": lambda z: z.to(memory_format=torch.channels_last),
    }
    view, rows = views[layout], wild(4, 8, 8, seed=5)
    strided = rows.T.contiguous().T
    for one, other in (
        pairs
        for pairs in zip(
            pair(impl, view(whole), strided, view(v)),
            pair(impl, view(whole).contiguous(), rows, view(v).contiguous()),
            strict=True,
        )
    ):
        assert torch.equal(one, other)


@each_implementation
def test_nothing_of_the_callers_is_changed(impl):
    images, v, rows = draw(3, 3, 8, 8), draw(3, 3, 8, 8, seed=1), wild(3, 8, 8, seed=1)
    before = [each.clone() for each in (images, v, rows)]
    pair(impl, images, rows, v)
    assert all(map(torch.equal, before, (images, v, rows)))


@each_implementation
def test_an_image_has_the_same_bits_in_any_company_and_twice(impl):
    images, v, rows = draw(9, 3, 9, 7), draw(9, 3, 9, 7, seed=1), wild(9, 9, 7, seed=2)
    whole = pair(impl, images, rows, v)
    assert all(map(torch.equal, whole, pair(impl, images, rows, v)))
    for part in (slice(0, 1), slice(3, 8)):
        alone = pair(impl, images[part], rows[part], v[part])
        assert all(map(torch.equal, alone, (each[part] for each in whole)))


@each_implementation
def test_nan_stays_in_its_image(impl):
    images, rows = draw(3, 2, 5, 5), wild(3, 5, 5, seed=4)
    images[1] = torch.nan
    found = affine_augment(images, rows, impl=impl)
    assert found[[0, 2]].isfinite().all()


@each_implementation
@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (0, 1, 1, 1)], ids=str)
def test_no_image(impl, shape):
    images = torch.zeros(shape, requires_grad=True)
    made = affine_augment(images, torch.zeros(0, 15).double(), impl=impl)
    (slope,) = torch.autograd.grad(made.sum(), images)
    assert made.shape == slope.shape == shape


@each_implementation
def test_what_is_cut_or_outside_has_no_gradient(impl):
    images = draw(1, 2, 6, 6).requires_grad_()
    rows = row(cut_top=1, cut_left=2, cut_height=2, cut_width=3, shift_y=1)
    (slope,) = torch.autograd.grad(affine_augment(images, rows, impl=impl).sum(), images)
    expected = torch.ones(6, 6).double()
    # The frame is the image without its first row, and row 1 of the frame is row 2 of the image.
    expected[0], expected[2:4, 2:5] = 0, 0
    assert torch.equal(slope, expected.expand(1, 2, 6, 6))


# Transforms of PyTorch


def test_vmap_folds_into_images():
    images, rows = draw(5, 3, 2, 6, 7), wild(15, 6, 7).view(5, 3, 15)
    loss = lambda x, p: (affine_augment(x, p) ** 3).sum()  # noqa: E731
    one = lambda x, p: (library(x, p) ** 3).sum()  # noqa: E731
    for dims, args in (((0, 0), (images, rows)), ((0, None), (images, rows[0]))):
        found = torch.func.vmap(torch.func.grad(loss), in_dims=dims)(*args)
        for k in range(5):
            own = args[1][k] if dims[1] == 0 else args[1]
            close(found[k], torch.func.grad(one)(images[k], own))


def test_forward_mode_is_the_linear_part():
    images, tangent, rows = draw(2, 3, 5, 6), draw(2, 3, 5, 6, seed=1), wild(2, 5, 6)
    value, slope = torch.func.jvp(lambda x: affine_augment(x, rows), (images,), (tangent,))
    close(value, library(images, rows))
    close(slope, definition(tangent, rows, linear=True))
    _, slope = torch.func.jvp(
        torch.func.grad(lambda x: (affine_augment(x, rows) ** 2).sum()), (images,), (tangent,)
    )
    close(slope, 2 * transposed_definition(definition(tangent, rows, linear=True), rows))


@pytest.mark.parametrize("impl", [None, "definition"])
def test_compiled(impl):
    images, rows = draw(2, 3, 6, 5), wild(2, 6, 5)
    call = lambda x: affine_augment(x, rows, impl=impl)  # noqa: E731
    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    found = []
    for each in (compiled, call):
        x = images.clone().requires_grad_()
        found.append(torch.autograd.grad((each(x) ** 2).sum(), x)[0])
    close(*found)


@pytest.mark.parametrize("impl", CPU[1:])
def test_compiled_code_that_was_asked_for_is_not_replaced(impl):
    compiled = torch.compile(
        lambda x: affine_augment(x, row(), impl=impl), fullgraph=True, backend="eager"
    )
    with pytest.raises(Exception, match="PyTorch compiles the call"):
        compiled(draw(1, 1, 2, 2))


def test_a_recording_replays_other_images():
    rows = wild(2, 6, 6)
    step = lambda x: torch.func.grad(lambda z: (affine_augment(z, rows) ** 2).sum())(x)  # noqa: E731
    recorded = make_fx(step)(draw(2, 3, 6, 6))
    other = draw(2, 3, 6, 6, seed=9)
    close(recorded(other), step(other))


def test_what_runs_on_a_cpu(capsys):
    dispatch.which(affine_augment, draw(1, 1, 2, 2), row())
    expected = "numba (the tensors are on cpu)" if CPU[1:] else "definition"
    assert capsys.readouterr().out.startswith(f"affine_augment: {expected}")


# What the module says


def test_minimum_bytes():
    assert minimum_bytes(7, 3, 5, 4, 8) == 7 * (2 * 3 * 5 * 4 * 8 + 15 * 8)


# Bad input

IMAGES, GOOD = torch.zeros(2, 3, 4, 6), row().expand(2, -1)


def second(**columns):
    """Return two rows, of which the second one is wrong."""
    return torch.cat([row(), row(**columns)])


@pytest.mark.parametrize(
    ("images", "parameters", "error", "message"),
    [
        (IMAGES.long(), GOOD, TypeError, "images is torch.int64; accepted are float32, float64"),
        (IMAGES.half(), GOOD, TypeError, "images is torch.float16; accepted are float32"),
        (IMAGES, GOOD.float(), TypeError, "parameters is torch.float32; accepted are float64"),
        ([0.0], GOOD, TypeError, "images is a list; accepted is a torch.Tensor"),
        (IMAGES, None, TypeError, "parameters is a NoneType; accepted is a torch.Tensor"),
        (IMAGES[0], GOOD, ValueError, r"images has shape \(3, 4, 6\); accepted is \[N, C, H, W\]"),
        (IMAGES[:, :0], GOOD, ValueError, r"images has shape \(2, 0, 4, 6\); accepted is"),
        (IMAGES[..., :0], GOOD, ValueError, r"images has shape \(2, 3, 4, 0\); accepted is"),
        (IMAGES, GOOD[:1], ValueError, r"parameters has shape \(1, 15\); accepted is \[2, 15\]"),
        (IMAGES, GOOD[:, 1:], ValueError, r"parameters has shape \(2, 14\); accepted is \[2, 15\]"),
        (IMAGES, GOOD.to("meta"), ValueError, "accepted are tensors on one device"),
        (IMAGES, row().requires_grad_().expand(2, -1), ValueError, "hand on parameters.detach"),
    ],
)
def test_bad_tensors_are_named(images, parameters, error, message):
    with pytest.raises(error, match=message):
        affine_augment(images, parameters)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"brightness": torch.inf}, "brightness of row 1 of parameters is inf; accepted is a fin"),
        ({"xx": torch.nan}, "xx of row 1 of parameters is nan; accepted is a finite number"),
        ({"saturation": -0.1}, "saturation of row 1 of parameters is -0.1; accepted is a number"),
        ({"contrast": -1}, "contrast of row 1 of parameters is -1; accepted is a number from 0 on"),
        ({"shift_y": 0.5}, "shift_y of row 1 of parameters is 0.5; accepted is an integer from -4"),
        (
            {"shift_y": 5},
            "shift_y of row 1 of parameters is 5; accepted is an integer from -4 to 4",
        ),
        ({"shift_x": -7}, "shift_x of row 1 of parameters is -7; accepted is an integer from -6"),
        ({"cut_top": -1}, "cut_top of row 1 of parameters is -1; accepted is an integer from 0 to"),
        ({"cut_left": 1.5}, "cut_left of row 1 of parameters is 1.5; accepted is an integer"),
        ({"cut_width": 7}, "cut_width of row 1 of parameters is 7; accepted is an integer from 0"),
        (
            {"cut_top": 3, "cut_height": 2},
            r"cut_top \+ cut_height of row 1 of parameters is 5; accepted is a sum of at most 4",
        ),
        (
            {"move_x": 6.1},
            "move_x of row 1 of parameters is 6.1; accepted is a number from -6",
        ),
        ({"xx": 0}, "the smallest singular value of the matrix of row 1 of parameters is 0; acc"),
        ({"xx": 8.1}, "the largest singular value of the matrix of row 1 of parameters is 8.1; a"),
        ({"yx": 1, "xy": 1}, "the smallest singular value of the matrix of row 1 of parameters is"),
        ({"yy": 0.124}, "smallest singular value of the matrix .* 0.124; accepted is a number fr"),
    ],
    ids=str,
)
def test_a_number_out_of_its_range_is_named(columns, message):
    with pytest.raises(ValueError, match=message):
        affine_augment(IMAGES, second(**columns))


@each_implementation
@pytest.mark.parametrize(
    "rows",
    [
        row(saturation=0, contrast=0, brightness=-1e6),
        row(shift_y=4, shift_x=-6),
        row(cut_height=4, cut_width=6),
        row(cut_top=4, cut_left=6),
        row(move_y=-4, move_x=6),
        turned(30, 8.0),
        turned(77, 0.125),
        row(yy=-8, xx=0.125),
    ],
    ids=lambda rows: str(rows.tolist()),
)
def test_the_ends_of_the_ranges_are_inside(impl, rows):
    images = draw(1, 3, 4, 6)
    close(affine_augment(images, rows, impl=impl), library(images, rows))


def test_numbers_that_stand_for_others_are_not_looked_at():
    """Under vmap the rows are not there yet, and a recording may be replayed with others."""
    images, rows = draw(3, 1, 2, 4, 4), row(shift_x=99).expand(3, 1, -1)
    assert not torch.func.vmap(affine_augment)(images, rows).any()
