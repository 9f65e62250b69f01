"""The augmentations of data set distillation as one linear gather, with its exact transpose.

Differentiable siamese augmentation (Zhao and Bilen 2021) changes colours, crops, cuts a rectangle
out, mirrors, scales and rotates. All of it is affine in the images, and a row of 15 numbers says
what happens to an image. In this order, for an image x [C, H, W]:

    colour    z = k f x + k (1 - f) grey(x) + (1 - k) mean(x) + b,
    frame     y(i, j) = z(i + s_i, j + s_j), zero outside of the image and in the rectangle,
    gather    out(p) = sum_q w(M (p - m) + m + t - q) y(q),   w(u, v) = (1 - |u|)+ (1 - |v|)+ :

brightness b, saturation f, contrast k; grey is the mean over the channels at a pixel, and mean that
over the whole image; shift s, rectangle; matrix M and move t in pixels, m the middle of the image.
The gather is bilinear, that of `grid_sample` with `align_corners=False` and zeros outside. It
counts in pixels, so that a rotation of a rectangle is one.

The published code samples twice, once to scale and once to rotate; here the matrices are multiplied
and the image is sampled once. So it is less blurred, and nothing is lost that a scaling pushes out
of the frame and a rotation would bring back.

Derivatives. Let A be the linear part. The colours are symmetric, A = gather frame colour, so
A^T = colour frame^T gather^T, and gather^T is a gather again, over the few pixels of the result
that touch one of the image. The gradient is A^T v; the gradient of that is A a; and so on, so every
derivative is one of the two. No sum depends on the order in which threads come, and two runs have
equal bits.

Bytes. The images are read once and written once, each way: 2 times their bytes forward, and 4 with
the gradient. The obvious sequence of library calls moves 36 and 84 times the bytes of images of
three channels. Where the contrast changes, an image is read a second time for its mean, from a
cache where it fits.

When not to use it: to learn the augmentation itself, since the row is not differentiated; and to
sample far below the resolution of the image, where a bilinear gather skips pixels.
"""

from functools import lru_cache

import numpy as np
import torch

from kempe_nb.checks import check_dtype, common_device
from kempe_nb.dispatch import Operation, observed

#: What the columns of `parameters` are; lengths and places in pixels, rows of the image first.
COLUMNS = (
    # What is added; how far colours are from grey, and the image from its mean, 1 as they are.
    *("brightness", "saturation", "contrast"),
    # The pixel (i, j) of the frame is (i + shift_y, j + shift_x) of the image: whole numbers.
    *("shift_y", "shift_x"),
    # The rectangle of zeros in the frame; none where a side is 0.
    *("cut_top", "cut_left", "cut_height", "cut_width"),
    # A step by one row (y) or column (x) of the result in rows and columns of the frame: the matrix
    # [[yy, yx], [xy, xx]] about the middle.
    *("yy", "yx", "xy", "xx"),
    # Where the middle of the result lies in the frame, from the middle of the frame.
    *("move_y", "move_x"),
)
#: Where the gather of an unchanged image is in a row.
UNCHANGED = (0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0)
#: The columns that hold integers.
_WHOLE = [3, 4, 5, 6, 7, 8]
#: The matrix may enlarge and shrink by at most so much, in any direction.
MOST_SCALE = 8
#: The most channels of which the Triton code holds one pixel on chip.
MOST_CHANNELS = 64


def affine_augment(
    images: torch.Tensor, parameters: torch.Tensor, *, impl: str | None = None
) -> torch.Tensor:
    """Return augmented images; `methods.augmentation_draws` draws the parameters.

    It can be differentiated any number of times with respect to the images, backwards and forwards,
    by autograd and under `torch.func`, also within `torch.func.vmap` (but not with
    `is_grads_batched=True`, which knows fewer operations). `torch.compile` takes the definition and
    fuses it. NaN stays in its image.

    Parameters
    ----------
    images : float32 or float64 [N, C, H, W]
        C, H and W from 1 on.
    parameters : float64 [N, 15]
        A row for each image, on the device of the images; `COLUMNS` says what the numbers are. They
        are not differentiated. Brightness is any number, saturation and contrast are from 0 on: a
        negative one would turn colours into their opposites. A shift is at most a side of the
        image, a rectangle lies within the frame, a move is at most a side, and the matrix has
        singular values from 1/8 to 8. These values are not checked where others may stand for
        them: under `torch.compile`, `torch.func` and dispatch modes.
    impl : {"definition", "numba", "triton"}, optional
        See `kempe_nb.dispatch`. Triton takes at most 64 channels.

    Returns
    -------
    torch.Tensor
        [N, C, H, W], with the dtype of the images.

    Raises
    ------
    TypeError
        For another dtype, or what is no tensor.
    ValueError
        For another shape, tensors on two devices, parameters that require a gradient, and any
        number of theirs that is out of its range; the column and the row are named.

    Examples
    --------
    >>> mirrored = torch.tensor([UNCHANGED], dtype=torch.float64)
    >>> mirrored[0, COLUMNS.index("xx")] = -1
    >>> affine_augment(torch.tensor([[[[1.0, 2.0, 3.0]]]]), mirrored).tolist()
    [[[[3.0, 2.0, 1.0]]]]
    """
    device = common_device(images=images, parameters=parameters)
    _check(images, parameters)
    compiling = torch.compiler.is_compiling()
    implementation = _chosen(str(device), impl, images.shape[1], compiling)
    if compiling:
        # The compiler fuses it, and loses the second derivatives of an autograd.Function.
        return definition(images, parameters)
    if not observed():
        check_values(parameters.detach().cpu().numpy(), *images.shape[2:])
    return _Map.apply(images, parameters, "affine", implementation)


def minimum_bytes(images: int, channels: int, height: int, width: int, itemsize: int = 4) -> int:
    """Return the bytes that must move one way, forward or backward: the images twice, the rows."""
    return images * (2 * channels * height * width * itemsize + 8 * len(COLUMNS))


OPERATION = Operation(
    "affine_augment",
    # Of the images; the parameters are float64.
    dtypes=(torch.float32, torch.float64),
    minimum_bytes=minimum_bytes,
    implementations=("definition", "numba", "triton"),
)


def definition(
    images: torch.Tensor, parameters: torch.Tensor, *, linear: bool = False
) -> torch.Tensor:
    """Return the augmented images in PyTorch, differentiable in every mode.

    With `linear` the constant is left out, that is, the brightness.
    """
    coloured = _coloured(images, parameters)
    if not linear:
        coloured = coloured + parameters[:, 0, None, None, None].to(images.dtype)
    flat, out = coloured.flatten(2), 0
    for place, weight in _taps(parameters, *images.shape[2:]):
        found = flat.gather(2, place[:, None].expand(flat.shape))
        out = out + weight[:, None].to(images.dtype) * found
    return out.view(images.shape)


def transposed_definition(gradient: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
    """Return A^T v for v [N, C, H, W], in PyTorch, differentiable in every mode."""
    flat = gradient.flatten(2)
    spread = torch.zeros_like(flat)
    for place, weight in _taps(parameters, *gradient.shape[2:]):
        given = weight[:, None].to(gradient.dtype) * flat
        spread = spread.scatter_add(2, place[:, None].expand(flat.shape), given)
    return _coloured(spread.view(gradient.shape), parameters)


def _coloured(images, parameters):
    """Return the colours without the brightness: a symmetric map of an image."""
    saturation, contrast = parameters[:, 1:3, None, None, None].to(images.dtype).unbind(1)
    grey, mean = images.mean(1, keepdim=True), images.mean((1, 2, 3), keepdim=True)
    # So written the image comes back to the last bit where both are one.
    return contrast * saturation * images + (
        contrast * (1 - saturation) * grey + (1 - contrast) * mean
    )


def _taps(parameters, height, width):
    """Yield four times a pixel of the image, int64 [N, H W], and its float64 weight in the result.

    One that is outside or in the rectangle has weight zero, and some place.
    """
    columns = dict(zip(COLUMNS, parameters[:, :, None].unbind(1), strict=True))
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    steps = {"dtype": parameters.dtype, "device": parameters.device}
    y = (torch.arange(height, **steps) - middle_y).repeat_interleave(width)
    x = (torch.arange(width, **steps) - middle_x).repeat(height)
    row = columns["yy"] * y + columns["yx"] * x + (columns["move_y"] + middle_y)
    column = columns["xy"] * y + columns["xx"] * x + (columns["move_x"] + middle_x)
    for down in (0, 1):
        for right in (0, 1):
            q, r = row.floor() + down, column.floor() + right
            weight = (1 - (row - q).abs()) * (1 - (column - r).abs())
            i, j = q + columns["shift_y"], r + columns["shift_x"]
            seen = _within(q, 0, height) & _within(r, 0, width)
            seen &= _within(i, 0, height) & _within(j, 0, width)
            seen &= ~(
                _within(q, columns["cut_top"], columns["cut_height"])
                & _within(r, columns["cut_left"], columns["cut_width"])
            )
            yield torch.where(seen, i * width + j, 0).long(), torch.where(seen, weight, 0)


def _within(number, first, count):
    return (first <= number) & (number < first + count)


class _Map(torch.autograd.Function):
    """The map, its linear part or the transpose of that; each is linear in what it takes."""

    @staticmethod
    def forward(images, parameters, kind, implementation):
        if implementation != "definition":
            code = _device_code(implementation)
            return code.run(images.contiguous(), parameters.contiguous(), kind)
        if kind == "transposed":
            return transposed_definition(images, parameters)
        return definition(images, parameters, linear=kind == "linear")

    @staticmethod
    def setup_context(context, inputs, output):
        _, parameters, context.kind, context.implementation = inputs
        context.save_for_backward(parameters)
        context.save_for_forward(parameters)

    @staticmethod
    def backward(context, gradient):
        (parameters,) = context.saved_tensors
        kind = "linear" if context.kind == "transposed" else "transposed"
        return _Map.apply(gradient, parameters, kind, context.implementation), None, None, None

    @staticmethod
    def jvp(context, tangent, *_):
        (parameters,) = context.saved_tensors
        kind = "transposed" if context.kind == "transposed" else "linear"
        return _Map.apply(tangent, parameters, kind, context.implementation)

    @staticmethod
    def vmap(info, in_dims, images, parameters, kind, implementation):
        # More images: each has a row of its own already.
        folded = (
            (
                each.expand(info.batch_size, *each.shape) if dim is None else each.movedim(dim, 0)
            ).flatten(0, 1)
            for each, dim in zip((images, parameters), in_dims[:2], strict=True)
        )
        made = _Map.apply(*folded, kind, implementation)
        return made.unflatten(0, (info.batch_size, -1)), 0


def _device_code(implementation: str):
    if implementation == "numba":
        from kempe_nb.kernels.numba import affine_augment as device_code
    else:
        from kempe_nb.kernels.triton import affine_augment as device_code
    return device_code


def _chosen(device: str, impl: str | None, channels: int, compiling: bool) -> str:
    """Return the implementation; compiled code keeps the one that was chosen when it was traced."""
    obstacles = dict.fromkeys(("numba", "triton"), "PyTorch compiles the call")
    if not compiling:
        obstacles = {"triton": _triton_obstacle(channels)}
    return OPERATION.choose(torch.device(device), impl, obstacles=obstacles).implementation


# What torch.compiler.assume_constant_result does; that would import the compiler, and Triton.
_chosen._dynamo_marked_constant = True


def _triton_obstacle(channels: int) -> str | None:
    if channels <= MOST_CHANNELS:
        return None
    return f"the images have {channels} channels; on chip there is room for {MOST_CHANNELS}"


def _check(images: torch.Tensor, parameters: torch.Tensor) -> None:
    check_dtype(images, "images", OPERATION.dtypes)
    check_dtype(parameters, "parameters", (torch.float64,))
    if images.ndim != 4 or min(images.shape[1:]) < 1:
        found = f"images has shape {tuple(images.shape)}"
        raise ValueError(f"{found}; accepted is [N, C, H, W], C, H and W from 1 on")
    if parameters.shape != (len(images), len(COLUMNS)):
        found = f"parameters has shape {tuple(parameters.shape)}"
        raise ValueError(f"{found}; accepted is [{len(images)}, {len(COLUMNS)}], a row an image")
    if parameters.requires_grad:
        raise ValueError(
            "parameters is a tensor that requires a gradient; accepted is one without, for the "
            "rows are not differentiated: hand on parameters.detach()"
        )


def check_values(rows: np.ndarray, height: int, width: int) -> None:
    """Refuse rows [N, 15] with a number that is out of its range, by its column and row."""
    low, high = _ends(height, width)
    # NaN is no number between two others.
    wrong = ~((rows >= low) & (rows <= high))
    wrong[:, _WHOLE] |= rows[:, _WHOLE] != np.rint(rows[:, _WHOLE])
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        accepted = _accepted(column, low[column], high[column])
        _refuse(wrong[:, column], COLUMNS[column], rows[:, column], accepted)
    for start, side in ((5, height), (6, width)):
        end = rows[:, start] + rows[:, start + 2]
        name = f"{COLUMNS[start]} + {COLUMNS[start + 2]}"
        _refuse(end > side, name, end, f"a sum of at most {side}")
    _check_matrices(*rows[:, 9:13].T)


@lru_cache
def _ends(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the largest number that each column may hold, [15]."""
    most, sides = np.finfo(np.float64).max, (height, width)
    low = (-most, 0, 0, *(-side for side in sides), 0, 0, 0, 0, *(-most,) * 4, -height, -width)
    return np.array(low), np.array([most] * 3 + [*sides] * 3 + [most] * 4 + [*sides])


def _accepted(column: int, low: float, high: float) -> str:
    kind = "an integer" if column in _WHOLE else "a number"
    if high == np.finfo(np.float64).max:
        return f"{kind} from {low:g} on" if low == 0 else "a finite number"
    return f"{kind} from {low:g} to {high:g}"


def _check_matrices(yy, yx, xy, xx) -> None:
    """Refuse a matrix that is singular, or scales too much in some direction."""
    turning, mirroring = np.hypot(yy + xx, yx - xy) / 2, np.hypot(yy - xx, yx + xy) / 2
    ends = f"a number from 1/{MOST_SCALE} to {MOST_SCALE}"
    for name, value in (
        ("largest", turning + mirroring),
        ("smallest", abs(turning - mirroring)),
    ):
        # What is at the end up to rounding is in.
        outside = (value > MOST_SCALE * (1 + 1e-9)) | (value * MOST_SCALE < 1 - 1e-9)
        _refuse(outside, f"the {name} singular value of the matrix", value, ends)


def _refuse(wrong: np.ndarray, name: str, values: np.ndarray, accepted: str) -> None:
    """Refuse the first value that is wrong."""
    if wrong.any():
        row = int(wrong.argmax())
        found = f"{name} of row {row} of parameters is {float(values[row]):g}"
        raise ValueError(f"{found}; accepted is {accepted}")
