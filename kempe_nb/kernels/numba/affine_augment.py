"""Numba code of `kempe_nb.kernels.affine_augment`: an image after the other, through its frame.

The frame of an image, coloured, moved and cut, stays in the cache. It has a border of zeros, to
which what lies outside is moved, so that no pixel asks where it is. Places and weights of a row of
the result are computed once for all channels. Matrices of whole steps, mirrors and none, copy rows
in place of sampling. In the transpose a pixel of the result adds to four of the frame, in the order
of the pixels; an image belongs to one thread.

Arrays are flat and places in them unsigned: of an index that might be negative the compiler makes
no vector instructions.
"""

import numpy as np
import torch

from kempe_nb.kernels.numba import compiled, in_threads, inlined

#: The fewest elements that a thread takes.
GRAIN = 32_768
#: Rows and columns of zeros: one before the frame, two behind it.
BORDER = 3


def run(images: torch.Tensor, parameters: torch.Tensor, kind: str) -> torch.Tensor:
    """Return the map, its linear part or its transpose of images [N, C, H, W]; see `_Map`."""
    x, rows = images.detach().numpy(), parameters.detach().numpy()
    out = np.empty_like(x)
    part = _transposed if kind == "transposed" else _forward

    def work(start: int, stop: int) -> None:
        part(x.reshape(-1), rows, start, stop, x.shape[1:], kind == "affine", out.reshape(-1))

    in_threads(work, len(x), max(1, GRAIN // x[:1].size) if len(x) else 1)
    return torch.from_numpy(out)


@compiled
def _forward(x, rows, start, stop, shape, constant, out):
    channels, height, width = shape
    frame, base, places, weights = _scratch(x, shape)
    for n in range(start, stop):
        row = rows[n]
        first = n * channels * height * width
        own, grey, whole = _colours(x, first, row, shape)
        added = whole + row[0] if constant else whole
        colours = x.dtype.type(own), x.dtype.type(grey), x.dtype.type(added)
        if _is_whole(row):
            for i in range(height):
                q = _step(i, row[9], row[13], height)
                _write_row(x, first, q, row, shape, colours, base, frame, 0)
                _copy_row(frame, row, shape, out, first + i * width)
            # The row that was used for copies is one of the border.
            _clear_row(frame, 0, shape)
        else:
            for q in range(height):
                _write_row(x, first, q, row, shape, colours, base, frame, q + 1)
            for i in range(height):
                _place(i, row, shape, places, weights)
                _sample(frame, places, weights, shape, out, first + i * width)


@compiled
def _transposed(v, rows, start, stop, shape, constant, out):
    channels, height, width = shape
    frame, base, places, weights = _scratch(v, shape)
    for n in range(start, stop):
        row = rows[n]
        first = n * channels * height * width
        whole_steps = _is_whole(row)
        if not whole_steps:
            frame[:] = 0
            for i in range(height):
                _place(i, row, shape, places, weights)
                _spread(v, first + i * width, places, weights, shape, frame)
        for i in range(height):
            q = i - np.int64(row[3])
            at = q + 1
            if whole_steps:
                at = 0
                p = _step(q, row[9], -row[9] * row[13], height)
                _clear_row(frame, 0, shape)
                if 0 <= p < height:
                    _copy_back(v, first + p * width, row, shape, frame)
            _read_row(frame, at, q, row, shape, out, first + i * width)
        own, grey, whole = _colours(out, first, row, shape)
        colours = v.dtype.type(own), v.dtype.type(grey), v.dtype.type(whole)
        _colour(out, first, shape, colours, base)


@compiled
def _scratch(x, shape):
    """Return a frame with its border, a row of numbers, of places and of pairs of weights."""
    channels, height, width = shape
    return (
        np.zeros(channels * (height + BORDER) * (width + BORDER), dtype=x.dtype),
        np.empty(width, dtype=x.dtype),
        np.empty(width, dtype=np.int32),
        np.empty((2, width), dtype=x.dtype),
    )


@compiled
def _is_whole(row):
    """Return whether the frame is mirrored and moved by whole pixels, and nothing else."""
    return (
        abs(row[9]) == 1.0
        and row[10] == 0.0
        and row[11] == 0.0
        and abs(row[12]) == 1.0
        and row[13] == np.floor(row[13])
        and row[14] == np.floor(row[14])
    )


@compiled
def _step(i, sign, move, size):
    """Return the place of row or column i in a frame that is mirrored, or not, and moved."""
    return (i if sign > 0 else size - 1 - i) + np.int64(move)


# Loops over neighbours, from a place in a flat array on.


@inlined
def _fill(made, at, value, count):
    at = np.uint64(at)
    for j in range(np.uint64(count)):
        made[at + j] = value


@inlined
def _copy(made, at, source, start, count):
    at, start = np.uint64(at), np.uint64(start)
    for j in range(np.uint64(count)):
        made[at + j] = source[start + j]


@inlined
def _copy_mirrored(made, at, source, last, count):
    at, last = np.uint64(at), np.uint64(last)
    for j in range(np.uint64(count)):
        made[at + j] = source[last - j]


@inlined
def _add(base, at, factor, source, start, count):
    at, start = np.uint64(at), np.uint64(start)
    for j in range(np.uint64(count)):
        base[at + j] += factor * source[start + j]


@inlined
def _blend(made, at, factor, source, start, base, first, count):
    at, start, first = np.uint64(at), np.uint64(start), np.uint64(first)
    for j in range(np.uint64(count)):
        made[at + j] = factor * source[start + j] + base[first + j]


@compiled
def _colours(x, first, row, shape):
    """Return the factors of a pixel, of the sum of its channels, and what is added for the mean."""
    channels, height, width = shape
    saturation, contrast = row[1], row[2]
    whole = 0.0
    if contrast != 1.0:
        # Sums side by side, which are vector instructions.
        sums = np.zeros(width)
        for line in range(channels * height):
            _add(sums, 0, 1.0, x, first + line * width, width)
        whole = (1.0 - contrast) * (sums.sum() / (channels * height * width))
    return contrast * saturation, contrast * (1.0 - saturation) / channels, whole


@compiled
def _write_row(x, first, q, row, shape, colours, base, frame, at):
    """Write row q of the frame, coloured, moved and cut, into row `at` of the array."""
    channels, height, width = shape
    own, grey, added = colours
    i, shift = q + np.int64(row[3]), np.int64(row[4])
    if not (0 <= q < height and 0 <= i < height):
        _clear_row(frame, at, shape)
        return
    left, right = max(0, -shift), min(width, width - shift)
    place = first + i * width + left + shift
    _fill(base, 0, added, width)
    if grey != 0:
        for c in range(channels):
            _add(base, left, grey, x, place + c * height * width, right - left)
    for c in range(channels):
        start = _row_of(c, at, shape)
        _fill(frame, start, 0, left)
        _blend(
            *(frame, start + left, own, x, place + c * height * width),
            *(base, left, right - left),
        )
        _fill(frame, start + right, 0, width - right)
    _cut(frame, at, q, row, shape)


@inlined
def _row_of(c, at, shape):
    """Return the place of the first pixel of a row of the array, behind its border."""
    return (c * (shape[1] + BORDER) + at) * (shape[2] + BORDER) + 1


@compiled
def _clear_row(frame, at, shape):
    for c in range(shape[0]):
        _fill(frame, _row_of(c, at, shape), 0, shape[2])


@compiled
def _cut(frame, at, q, row, shape):
    """Write the zeros of the rectangle into row q of the frame, which stands in row `at`."""
    top = np.int64(row[5])
    if top <= q < top + np.int64(row[7]):
        for c in range(shape[0]):
            _fill(frame, _row_of(c, at, shape) + np.int64(row[6]), 0, np.int64(row[8]))


@compiled
def _place(i, row, shape, places, weights):
    """Write where in the frame row i of the result is: a place in the array, and two weights."""
    _, height, width = shape
    middle_y, middle_x = 0.5 * (height - 1), 0.5 * (width - 1)
    y = row[9] * (i - middle_y) + row[13] + middle_y + 1.0
    x = row[11] * (i - middle_y) + row[14] + middle_x + 1.0
    down, right = row[10], row[12]
    stride = np.int32(width + BORDER)
    for j in range(width):
        # From 0 to the side and one: both ends lie among the zeros.
        at_y = min(max(y + down * (j - middle_x), 0.0), height + 1.0)
        at_x = min(max(x + right * (j - middle_x), 0.0), width + 1.0)
        q, r = np.int32(at_y), np.int32(at_x)
        places[j] = q * stride + r
        weights[0, j] = at_y - q
        weights[1, j] = at_x - r


@compiled
def _sample(frame, places, weights, shape, out, at):
    channels, height, width = shape
    stride = np.uint64(width + BORDER)
    one = np.uint64(1)
    for c in range(channels):
        plane = np.uint64(c * (height + BORDER)) * stride
        place = np.uint64(at + c * height * width)
        for j in range(np.uint64(width)):
            p = plane + np.uint64(places[j])
            below = p + stride
            right = weights[1, j]
            upper = frame[p] + right * (frame[p + one] - frame[p])
            lower = frame[below] + right * (frame[below + one] - frame[below])
            out[place + j] = upper + weights[0, j] * (lower - upper)


@compiled
def _spread(v, at, places, weights, shape, frame):
    """Add a row of the result to the pixels of the frame that it was made of."""
    channels, height, width = shape
    stride = np.uint64(width + BORDER)
    one = np.uint64(1)
    for c in range(channels):
        plane = np.uint64(c * (height + BORDER)) * stride
        place = np.uint64(at + c * height * width)
        for j in range(np.uint64(width)):
            p = plane + np.uint64(places[j])
            below = p + stride
            lower = weights[0, j] * v[place + j]
            upper = v[place + j] - lower
            lower_right, upper_right = weights[1, j] * lower, weights[1, j] * upper
            frame[p] += upper - upper_right
            frame[p + one] += upper_right
            frame[below] += lower - lower_right
            frame[below + one] += lower_right


@inlined
def _overlap(row, width):
    """Return the first column of the result that shows the frame, and the one behind the last."""
    move = np.int64(row[14]) if row[12] < 0 else -np.int64(row[14])
    return max(0, move), min(width, width + move)


@compiled
def _copy_row(frame, row, shape, out, at):
    """Write a row of the result from row 0 of the array, mirrored and moved."""
    channels, height, width = shape
    left, right = _overlap(row, width)
    source = _step(left, row[12], row[14], width)
    for c in range(channels):
        start, place = _row_of(c, 0, shape) + source, at + c * height * width
        _fill(out, place, 0, left)
        if row[12] > 0:
            _copy(out, place + left, frame, start, right - left)
        else:
            _copy_mirrored(out, place + left, frame, start, right - left)
        _fill(out, place + right, 0, width - right)


@compiled
def _copy_back(v, at, row, shape, frame):
    """Write a row of the result back to row 0 of the array, where it came from."""
    channels, height, width = shape
    left, right = _overlap(row, width)
    for c in range(channels):
        start, place = _row_of(c, 0, shape), at + c * height * width
        if row[12] > 0:
            _copy(frame, start + left + np.int64(row[14]), v, place + left, right - left)
        else:
            end = _step(right - 1, row[12], row[14], width)
            _copy_mirrored(frame, start + end, v, place + right - 1, right - left)


@compiled
def _read_row(frame, at, q, row, shape, out, place):
    """Write a row of the image from row q of the frame, which stands in row `at` of the array."""
    channels, height, width = shape
    shift = np.int64(row[4])
    seen = 0 <= q < height
    left, right = (max(0, shift), min(width, width + shift)) if seen else (width, width)
    if seen:
        _cut(frame, at, q, row, shape)
    for c in range(channels):
        own = place + c * height * width
        _fill(out, own, 0, left)
        if seen:
            _copy(out, own + left, frame, _row_of(c, at, shape) + left - shift, right - left)
        _fill(out, own + right, 0, width - right)


@compiled
def _colour(out, first, shape, colours, base):
    """Colour an image where it stands."""
    channels, height, width = shape
    own, grey, added = colours
    if own == 1 and grey == 0 and added == 0:
        return
    for i in range(height):
        _fill(base, 0, added, width)
        if grey != 0:
            for c in range(channels):
                _add(base, 0, grey, out, first + (c * height + i) * width, width)
        for c in range(channels):
            place = first + (c * height + i) * width
            _blend(out, place, own, out, place, base, 0, width)
