"""Numba code of `kempe_nb.kernels.affine_augment`: an image after the other, through its frame.

The frame of an image, coloured, moved and cut, stays in the cache; it has a border of zeros, to
which what lies outside is moved, so that no pixel asks where it is. Places and weights of a row of
the result are computed once for all channels. Matrices of whole steps, mirrors and none, copy rows
in place of sampling. In the transpose a pixel of the result adds to four of the frame, in the order
of the pixels; an image belongs to one thread.
"""

import numpy as np
import torch

from kempe_nb.kernels.numba import compiled, in_threads

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
        part(x, rows, start, stop, kind == "affine", out)

    in_threads(work, len(x), max(1, GRAIN // x[:1].size) if len(x) else 1)
    return torch.from_numpy(out)


@compiled
def _forward(x, rows, start, stop, constant, out):
    _, channels, height, width = x.shape
    frame = np.zeros((channels, height + BORDER, width + BORDER), dtype=x.dtype)
    base = np.empty(width, dtype=x.dtype)
    places, weights = np.empty(width, dtype=np.int32), np.empty((2, width), dtype=x.dtype)
    for n in range(start, stop):
        row = rows[n]
        own, grey, whole = _colours(x, n, row)
        added = whole + row[0] if constant else whole
        colours = x.dtype.type(own), x.dtype.type(grey), x.dtype.type(added)
        if _is_whole(row):
            for i in range(height):
                q = _step(i, row[9], row[13], height)
                _write_row(x, n, q, row, colours, base, frame, 0)
                _copy_row(frame, row, out, n, i)
        else:
            for q in range(height):
                _write_row(x, n, q, row, colours, base, frame, q + 1)
            for i in range(height):
                _place(i, row, height, width, places, weights)
                _sample(frame, places, weights, out, n, i)
            continue
        # The row that was used for copies is one of the border.
        frame[:, 0] = 0


@compiled
def _transposed(v, rows, start, stop, constant, out):
    _, channels, height, width = v.shape
    frame = np.zeros((channels, height + BORDER, width + BORDER), dtype=v.dtype)
    base = np.empty(width, dtype=v.dtype)
    places, weights = np.empty(width, dtype=np.int32), np.empty((2, width), dtype=v.dtype)
    for n in range(start, stop):
        row = rows[n]
        whole_steps = _is_whole(row)
        if not whole_steps:
            frame[:] = 0
            for i in range(height):
                _place(i, row, height, width, places, weights)
                _spread(v, n, i, places, weights, frame)
        for i in range(height):
            q = i - np.int64(row[3])
            at = q + 1
            if whole_steps and 0 <= q < height:
                _copy_back(v, n, _step(q, row[9], -row[9] * row[13], height), row, frame)
                at = 0
            _read_row(frame, at, q, row, out, n, i)
        own, grey, whole = _colours(out, n, row)
        colours = v.dtype.type(own), v.dtype.type(grey), v.dtype.type(whole)
        _colour(out, n, colours, base)


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


@compiled
def _colours(x, n, row):
    """Return the factors of a pixel, of the sum of its channels, and what is added for the mean."""
    _, channels, height, width = x.shape
    saturation, contrast = row[1], row[2]
    whole = 0.0
    if contrast != 1.0:
        # Sums side by side, which are vector instructions.
        sums = np.zeros(width)
        for c in range(channels):
            for i in range(height):
                for j in range(width):
                    sums[j] += x[n, c, i, j]
        whole = (1.0 - contrast) * (sums.sum() / (channels * height * width))
    return contrast * saturation, contrast * (1.0 - saturation) / channels, whole


@compiled
def _seen(row, height, width):
    """Return the first column of the frame that shows the image, and the one behind the last."""
    shift = np.int64(row[4])
    return max(0, -shift), min(width, width - shift)


@compiled
def _write_row(x, n, q, row, colours, base, frame, at):
    """Write row q of the frame, coloured, moved and cut, into row `at` of the array."""
    _, channels, height, width = x.shape
    own, grey, added = colours
    i, shift = q + np.int64(row[3]), np.int64(row[4])
    if not (0 <= q < height and 0 <= i < height):
        frame[:, at] = 0
        return
    first, last = _seen(row, height, width)
    for r in range(width):
        base[r] = added
    if grey != 0:
        for c in range(channels):
            for r in range(first, last):
                base[r] += grey * x[n, c, i, r + shift]
    for c in range(channels):
        for r in range(first):
            frame[c, at, r + 1] = 0
        for r in range(first, last):
            frame[c, at, r + 1] = own * x[n, c, i, r + shift] + base[r]
        for r in range(last, width):
            frame[c, at, r + 1] = 0
    _cut(frame, at, q, row)


@compiled
def _cut(frame, at, q, row):
    """Write the zeros of the rectangle into row q of the frame, which stands in row `at`."""
    top, left = np.int64(row[5]), np.int64(row[6])
    if top <= q < top + np.int64(row[7]):
        for c in range(len(frame)):
            for r in range(left, left + np.int64(row[8])):
                frame[c, at, r + 1] = 0


@compiled
def _place(i, row, height, width, places, weights):
    """Write where in the frame row i of the result is: a place in the array, and two weights."""
    middle_y, middle_x = 0.5 * (height - 1), 0.5 * (width - 1)
    y = row[9] * (i - middle_y) + row[13] + middle_y + 1.0
    x = row[11] * (i - middle_y) + row[14] + middle_x + 1.0
    stride = np.int32(width + BORDER)
    for j in range(width):
        # From 0 to the side and one: both ends lie among the zeros.
        at_y = min(max(y + row[10] * (j - middle_x), 0.0), height + 1.0)
        at_x = min(max(x + row[12] * (j - middle_x), 0.0), width + 1.0)
        q, r = np.int32(at_y), np.int32(at_x)
        places[j] = q * stride + r
        weights[0, j] = at_y - q
        weights[1, j] = at_x - r


@compiled
def _sample(frame, places, weights, out, n, i):
    channels, _, stride = frame.shape
    flat = frame.reshape((channels, -1))
    for c in range(channels):
        for j in range(out.shape[3]):
            p, down, right = places[j], weights[0, j], weights[1, j]
            upper = flat[c, p] + right * (flat[c, p + 1] - flat[c, p])
            below = p + stride
            lower = flat[c, below] + right * (flat[c, below + 1] - flat[c, below])
            out[n, c, i, j] = upper + down * (lower - upper)


@compiled
def _spread(v, n, i, places, weights, frame):
    """Add row i of the result to the pixels of the frame that it was made of."""
    channels, _, stride = frame.shape
    flat = frame.reshape((channels, -1))
    for c in range(channels):
        for j in range(v.shape[3]):
            p, down, right = places[j], weights[0, j], weights[1, j]
            lower = down * v[n, c, i, j]
            upper = v[n, c, i, j] - lower
            flat[c, p] += upper - right * upper
            flat[c, p + 1] += right * upper
            below = p + stride
            flat[c, below] += lower - right * lower
            flat[c, below + 1] += right * lower


@compiled
def _copy_row(frame, row, out, n, i):
    """Write row i of the result from row 0 of the array, mirrored and moved."""
    channels, width = out.shape[1], out.shape[3]
    move = np.int64(row[14])
    forward = row[12] > 0
    first = max(0, -move) if forward else max(0, move)
    last = min(width, width - move) if forward else min(width, width + move)
    for c in range(channels):
        for j in range(first):
            out[n, c, i, j] = 0
        if forward:
            for j in range(first, last):
                out[n, c, i, j] = frame[c, 0, j + move + 1]
        else:
            for j in range(first, last):
                out[n, c, i, j] = frame[c, 0, width - j + move]
        for j in range(max(first, last), width):
            out[n, c, i, j] = 0


@compiled
def _copy_back(v, n, i, row, frame):
    """Write row i of the result back to row 0 of the array, where it came from."""
    channels, height, width = v.shape[1:]
    frame[:, 0] = 0
    if not 0 <= i < height:
        return
    move = np.int64(row[14])
    forward = row[12] > 0
    first = max(0, -move) if forward else max(0, move)
    last = min(width, width - move) if forward else min(width, width + move)
    for c in range(channels):
        if forward:
            for j in range(first, last):
                frame[c, 0, j + move + 1] = v[n, c, i, j]
        else:
            for j in range(first, last):
                frame[c, 0, width - j + move] = v[n, c, i, j]


@compiled
def _read_row(frame, at, q, row, out, n, i):
    """Write row i of the image from row q of the frame, which stands in row `at` of the array."""
    channels, height, width = out.shape[1:]
    shift = np.int64(row[4])
    if not 0 <= q < height:
        out[n, :, i] = 0
        return
    _cut(frame, at, q, row)
    first, last = _seen(row, height, width)
    for c in range(channels):
        for j in range(first + shift):
            out[n, c, i, j] = 0
        for r in range(first, last):
            out[n, c, i, r + shift] = frame[c, at, r + 1]
        for j in range(max(0, last + shift), width):
            out[n, c, i, j] = 0


@compiled
def _colour(out, n, colours, base):
    """Colour an image where it stands."""
    _, channels, height, width = out.shape
    own, grey, added = colours
    if own == 1 and grey == 0 and added == 0:
        return
    for i in range(height):
        for j in range(width):
            base[j] = added
        if grey != 0:
            for c in range(channels):
                for j in range(width):
                    base[j] += grey * out[n, c, i, j]
        for c in range(channels):
            for j in range(width):
                out[n, c, i, j] = own * out[n, c, i, j] + base[j]
