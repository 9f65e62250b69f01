"""The Triton code of affine_augment in the interpreter: numbers, bounds, and the fewest bytes."""

import numpy as np
import pytest
import torch
from guard import guarded

from kempe_nb.kernels.affine_augment import (
    COLUMNS,
    MOST_CHANNELS,
    UNCHANGED,
    affine_augment,
    definition,
    minimum_bytes,
    transposed_definition,
)
from kempe_nb.kernels.triton import affine_augment as device_code

ROW_BYTES = 8 * len(COLUMNS)
#: Channels and sides; the last one has more pixels than a program.
SHAPES = [(3, 8, 8), (1, 1, 1), (4, 1, 9), (2, 7, 1), (3, 5, 13), (5, 9, 8)]


def row(**columns):
    values = dict(zip(COLUMNS, UNCHANGED, strict=True)) | columns
    return torch.tensor([list(values.values())], dtype=torch.float64)


def turned(degrees, down, right, **columns):
    """Return a row that rotates, and scales both axes on their own."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix = {"yy": down * cos, "yx": down * sin, "xy": -right * sin, "xx": right * cos}
    return row(**matrix, **columns)


COLOURS = {"brightness": 0.3, "saturation": 1.6, "contrast": 0.7}
ROWS = {
    "unchanged": row(),
    "mirrored": row(xx=-1, move_y=1),
    "colours": row(**COLOURS),
    "moved and cut": row(shift_y=1, shift_x=-1, cut_height=1, cut_width=1),
    "all": turned(12, 1.1, 0.9, shift_x=1, cut_height=1, cut_width=1, **COLOURS),
    "turned far": turned(-131, -1.0, 1.2, move_x=0.4, contrast=1.5),
    "shrunk": turned(75, 8.0, 0.5, saturation=0),
    "out of sight": row(shift_y=1, move_x=-1, contrast=0.5),
}


def draw(*shape, dtype=torch.float32):
    """Return images and what comes back."""
    rng = torch.Generator().manual_seed(sum(shape))
    return torch.randn(2, *shape, generator=rng).to(dtype)


def launched(images, v, rows):
    """Return the map, its linear part and its transpose, and what each of them moved."""
    found, moved = [], []
    for kind, given in (("affine", images), ("linear", images), ("transposed", v)):
        with guarded() as each:
            found.append(device_code.run(given, rows, kind))
        moved.append(each)
    return found, moved


def agree(images, v, rows):
    found, _ = launched(images, v, rows)
    wide, back = images.double(), v.double()
    expected = (
        definition(wide, rows),
        definition(wide, rows, linear=True),
        transposed_definition(back, rows),
    )
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == images.dtype
        tolerance = 16 * torch.finfo(one.dtype).eps * max(1.0, float(other.abs().amax()))
        torch.testing.assert_close(one.double(), other, rtol=0, atol=tolerance)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_all_three_are_those_of_the_definition(shape):
    rows = torch.cat([*ROWS.values()])
    agree(*draw(len(rows), *shape, dtype=torch.float64), rows)


def test_in_float32_they_are_that_to_its_rounding():
    rows = torch.cat([*ROWS.values()])
    agree(*draw(len(rows), 3, 5, 7), rows)


def test_an_image_that_is_enlarged_eight_times():
    agree(*draw(1, 2, 4, 5), turned(40, 0.125, 0.3, contrast=0.2))


@pytest.mark.parametrize("degrees", [0, 45, 90, 200])
@pytest.mark.parametrize("scale", [0.3, 0.7, 1.0, 1.3, 8.0])
def test_the_window_leaves_no_pixel_out(degrees, scale):
    """Whatever the matrix, the transpose is that of what forward does."""
    (images, v), rows = draw(1, 1, 7, 9, dtype=torch.float64), turned(degrees, scale, 1.0)
    (_, forward, back), _ = launched(images, v, rows)
    one, other = (forward * v).sum(), (images * back).sum()
    assert abs(one - other) <= 1e-12 * max(forward.norm() * v.norm(), images.norm() * back.norm())


def test_bytes_are_the_fewest_where_nothing_is_sampled():
    shape = (2, 3, 8, 8)
    images, v = draw(*shape)
    _, moved = launched(images, v, row().expand(2, -1).contiguous())
    least = minimum_bytes(*shape) - 2 * ROW_BYTES
    for each in moved:
        # The weights of the other three pixels are zero, and these are not touched.
        assert each.read["source"] + each.written["out"] == least
        assert each.written["means"] == 4 * 2 and not each.atomics


def test_a_contrast_reads_the_images_once_more():
    shape = (2, 3, 8, 8)
    images, v = draw(*shape)
    _, moved = launched(images, v, row(contrast=0.5).expand(2, -1).contiguous())
    for each in moved:
        assert each.read["source"] == 2 * each.written["out"] == 2 * images.numel() * 4


def test_a_turned_image_is_read_at_most_four_times():
    images, v = draw(1, 3, 11, 11)
    _, moved = launched(images, v, turned(17, 1.0, 1.0))
    assert all(1 < each.read["source"] / each.written["out"] <= 4 for each in moved[:2])
    # Back: pixels of the result whose weight is not zero, which are four on average.
    assert 1 < moved[2].read["source"] / moved[2].written["out"] <= 4


def test_no_image():
    with guarded() as moved:
        made = device_code.run(torch.zeros(0, 3, 4, 4), torch.zeros(0, 15).double(), "affine")
    assert made.shape == (0, 3, 4, 4) and not moved.written


def test_the_operation_at_every_order_and_of_any_layout():
    rows = torch.cat([ROWS["all"], ROWS["turned far"]])
    images, v = draw(2, 3, 6, 7, dtype=torch.float64)
    strided = images.transpose(2, 3).contiguous().transpose(2, 3)
    found = []
    for impl, x in (("triton", strided), ("definition", images)):
        x, back = x.detach().requires_grad_(), v[:, :1].expand(2, 3, 6, 7).requires_grad_()
        made = affine_augment(x, rows, impl=impl)
        (slope,) = torch.autograd.grad(made, x, back, create_graph=True)
        (again,) = torch.autograd.grad((slope**2).sum(), back)
        found.append([made.detach(), slope.detach(), again])
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-12)


def test_vmap_folds_into_images():
    rows = torch.cat([ROWS["all"], ROWS["turned far"]])
    images = draw(2, 3, 5, 5, dtype=torch.float64)
    loss = lambda x, impl: (affine_augment(x, rows, impl=impl) ** 3).sum()  # noqa: E731
    found = [
        torch.func.vmap(torch.func.grad(lambda x, impl=impl: loss(x, impl)))(images)
        for impl in ("triton", "definition")
    ]
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-12)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, 0.0])
def test_rows_that_nobody_looked_at_touch_no_strange_memory_and_end(wrong):
    """Under vmap rows are not checked."""
    rows = torch.cat([row(xx=wrong), row(yy=wrong, yx=wrong, move_y=wrong), row(move_x=wrong)])
    images, v = draw(3, 1, 6, 6)
    found, _ = launched(images, v, rows)
    assert all(each.shape == images.shape for each in found)


def test_more_channels_than_fit_are_refused():
    images = torch.zeros(1, MOST_CHANNELS + 1, 2, 2)
    with pytest.raises(RuntimeError, match="have 65 channels; on chip there is room for 64"):
        affine_augment(images, row(), impl="triton")
    images = draw(1, MOST_CHANNELS, 2, 3)[0]
    torch.testing.assert_close(affine_augment(images, row(xx=-1), impl="triton"), images.flip(3))
