"""Triton code of `kempe_nb.kernels.affine_augment`: a gather each way, and the means before it.

A program takes some pixels of an image with all their channels, [CHANNELS, BLOCK]. Forward it reads
the four pixels that each is made of, and colours what it has sampled: colours and sampling commute,
but for what is added, which counts as often as the pixel shows the image. In the transpose it looks
at the window of the result that can touch its pixels, which the inverse of the matrix bounds, with
the same weights. Nobody adds to what another program writes, so two runs have the same bits.

Places are float64, as in the other implementations: they are few beside the numbers that are moved,
and equal places are what makes one gather the transpose of the other.

Bytes, in units of the images: 2 each way, and the row of an image in each program. Where the
contrast changes, a program for each image reads it before for its mean, 1 more, which the L2 cache
may hold.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kempe_nb.kernels.triton import Compilation

#: Elements of a tile, unless a few pixels have more; the most pixels, whose places take registers;
#: and elements of a warp. With twice as many, float32 images of many channels spill.
TILE, MOST_PIXELS, PER_WARP = 512, 256, 128
#: More rows or columns of the result than any matrix lets touch a pixel.
WIDEST = tl.constexpr(24)


@triton.jit
def _integer(rows, column: tl.constexpr):
    return tl.load(rows + column).to(tl.int32)


@triton.jit
def _place(rows, i, j, H: tl.constexpr, W: tl.constexpr):
    """Return where in the frame pixel (i, j) of the result is, float64."""
    y = i.to(tl.float64) - (H - 1) * 0.5
    x = j.to(tl.float64) - (W - 1) * 0.5
    row = tl.load(rows + 9) * y + tl.load(rows + 10) * x + (tl.load(rows + 13) + (H - 1) * 0.5)
    column = tl.load(rows + 11) * y + tl.load(rows + 12) * x + (tl.load(rows + 14) + (W - 1) * 0.5)
    # Far outside is as good as outside, and fits into an integer.
    return _between(row, -2.0, H + 1.0), _between(column, -2.0, W + 1.0)


@triton.jit
def _between(number, low, high):
    return tl.minimum(tl.maximum(number, low), high)


@triton.jit
def _seen(rows, q, r, H: tl.constexpr, W: tl.constexpr):
    """Return whether pixel (q, r) of the frame shows the image, and which pixel of it."""
    i = q + _integer(rows, 3)
    j = r + _integer(rows, 4)
    top = _integer(rows, 5)
    left = _integer(rows, 6)
    cut = (q >= top) & (q < top + _integer(rows, 7))
    cut = cut & (r >= left) & (r < left + _integer(rows, 8))
    inside = (q >= 0) & (q < H) & (r >= 0) & (r < W)
    return inside & (i >= 0) & (i < H) & (j >= 0) & (j < W) & (cut == 0), i * W + j


@triton.jit
def _hat(distance):
    return tl.maximum(1.0 - tl.abs(distance), 0.0)


@triton.jit
def _corner(rows, i, j, H: tl.constexpr, W: tl.constexpr, KIND: tl.constexpr):
    """Return the upper left one of four pixels around a place, and how far the place is from it."""
    y, x = _place(rows, i, j, H, W)
    q = tl.floor(y)
    r = tl.floor(x)
    return q.to(tl.int32), r.to(tl.int32), (y - q).to(KIND), (x - r).to(KIND)


@triton.jit
def _tap(rows, q, r, below, beside, TAP: tl.constexpr, H: tl.constexpr, W: tl.constexpr):
    """Return the weight of one of the four pixels, zero where it is not seen, and its place."""
    down: tl.constexpr = TAP // 2
    right: tl.constexpr = TAP % 2
    seen, pixel = _seen(rows, q + down, r + right, H, W)
    weight = (below if down else 1.0 - below) * (beside if right else 1.0 - beside)
    return tl.where(seen, weight, 0.0), pixel


@triton.jit
def _coloured(rows, tile, mean, shown, CHANNELS: tl.constexpr, KIND: tl.constexpr):
    """Return the colours of a tile [CHANNELS, BLOCK]; what is added counts `shown` times."""
    saturation = tl.load(rows + 1).to(KIND)
    contrast = tl.load(rows + 2).to(KIND)
    grey = tl.sum(tile, 0) / CHANNELS
    rest = contrast * (1.0 - saturation) * grey + mean * shown
    return contrast * saturation * tile + rest[None, :]


@triton.jit
def means_kernel(
    means,
    source,
    rows,
    TRANSPOSED: tl.constexpr,
    CHANNELS: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    KIND: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write (1 - contrast) times the mean of each image; of what is spread over it, transposed."""
    n = tl.program_id(0).to(tl.int64)
    rows += n * 15
    contrast = tl.load(rows + 2).to(KIND)
    channel = tl.arange(0, PADDED)[:, None]
    total = tl.zeros([PADDED, BLOCK], KIND)
    if contrast != 1.0:
        for start in range(0, H * W, BLOCK):
            pixel = start + tl.arange(0, BLOCK)
            there = (channel < CHANNELS) & (pixel < H * W)[None, :]
            place = (n * CHANNELS + channel) * (H * W) + pixel[None, :]
            tile = tl.load(source + place, mask=there, other=0.0).to(KIND)
            if TRANSPOSED:
                q, r, below, beside = _corner(rows, pixel // W, pixel % W, H, W, KIND)
                shown = tl.zeros([BLOCK], KIND)
                for tap in tl.static_range(4):
                    weight, _ = _tap(rows, q, r, below, beside, tap, H, W)
                    shown += weight
                tile = tile * shown[None, :]
            total += tile
    mean = tl.sum(tl.sum(total, 1), 0) / (CHANNELS * H * W)
    tl.store(means + n, (1.0 - contrast) * mean)


@triton.jit
def forward_kernel(
    out,
    source,
    rows,
    means,
    CONSTANT: tl.constexpr,
    CHANNELS: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    KIND: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write sampled and coloured pixels; without CONSTANT the linear part, without brightness."""
    blocks: tl.constexpr = (H * W + BLOCK - 1) // BLOCK
    n = (tl.program_id(0) // blocks).to(tl.int64)
    pixel = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    rows += n * 15
    channel = tl.arange(0, PADDED)[:, None]
    first = (n * CHANNELS + channel) * (H * W)
    there = (channel < CHANNELS) & (pixel < H * W)[None, :]
    q, r, below, beside = _corner(rows, pixel // W, pixel % W, H, W, KIND)
    total = tl.zeros([PADDED, BLOCK], KIND)
    shown = tl.zeros([BLOCK], KIND)
    for tap in tl.static_range(4):
        weight, origin = _tap(rows, q, r, below, beside, tap, H, W)
        touched = there & (weight > 0.0)[None, :]
        found = tl.load(source + first + origin[None, :], mask=touched, other=0.0).to(KIND)
        total += weight[None, :] * found
        shown += weight
    added = tl.load(means + n)
    if CONSTANT:
        added += tl.load(rows).to(KIND)
    made = _coloured(rows, total, added, shown, CHANNELS, KIND)
    tl.store(out + first + pixel[None, :], made, mask=there)


@triton.jit
def transposed_kernel(
    out,
    source,
    rows,
    means,
    CHANNELS: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    KIND: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write what the pixels of the image receive from the window of the result that shows them."""
    blocks: tl.constexpr = (H * W + BLOCK - 1) // BLOCK
    n = (tl.program_id(0) // blocks).to(tl.int64)
    pixel = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    rows += n * 15
    channel = tl.arange(0, PADDED)[:, None]
    first = (n * CHANNELS + channel) * (H * W)
    there = (channel < CHANNELS) & (pixel < H * W)[None, :]
    q = pixel // W - _integer(rows, 3)
    r = pixel % W - _integer(rows, 4)
    seen, _ = _seen(rows, q, r, H, W)
    above, height, left, width = _window(rows, q, r, H, W)
    total = tl.zeros([PADDED, BLOCK], KIND)
    down = height * 0
    while down < height:
        right = width * 0
        while right < width:
            i = above + down
            j = left + right
            y, x = _place(rows, i, j, H, W)
            weight = _hat((y - q).to(KIND)) * _hat((x - r).to(KIND))
            inside = (i >= 0) & (i < H) & (j >= 0) & (j < W)
            touched = there & (seen & inside & (weight > 0.0))[None, :]
            found = tl.load(source + first + (i * W + j)[None, :], mask=touched, other=0.0)
            total += weight[None, :] * found.to(KIND)
            right += 1
        down += 1
    made = _coloured(rows, total, tl.load(means + n), 1.0, CHANNELS, KIND)
    tl.store(out + first + pixel[None, :], made, mask=there)


@triton.jit
def _window(rows, q, r, H: tl.constexpr, W: tl.constexpr):
    """Return first row, number of rows, first column, number of columns around a frame's pixel.

    What lies less than a pixel from it in the frame is a parallelogram in the result.
    """
    yy = tl.load(rows + 9)
    yx = tl.load(rows + 10)
    xy = tl.load(rows + 11)
    xx = tl.load(rows + 12)
    determinant = yy * xx - yx * xy
    y = q.to(tl.float64) - (H - 1) * 0.5 - tl.load(rows + 13)
    x = r.to(tl.float64) - (W - 1) * 0.5 - tl.load(rows + 14)
    middle_i = (xx * y - yx * x) / determinant + (H - 1) * 0.5
    middle_j = (yy * x - xy * y) / determinant + (W - 1) * 0.5
    half = 0.5 * WIDEST
    reach_i = _between((tl.abs(xx) + tl.abs(yx)) / tl.abs(determinant), 0.0, half)
    reach_j = _between((tl.abs(yy) + tl.abs(xy)) / tl.abs(determinant), 0.0, half)
    above = tl.ceil(_between(middle_i - reach_i, -WIDEST, H + 1.0)).to(tl.int32)
    left = tl.ceil(_between(middle_j - reach_j, -WIDEST, W + 1.0)).to(tl.int32)
    # An open interval of length d holds at most so many integers.
    height = tl.ceil(2.0 * reach_i).to(tl.int32)
    width = tl.ceil(2.0 * reach_j).to(tl.int32)
    return above, height, left, width


def run(images: Tensor, parameters: Tensor, kind: str) -> Tensor:
    """Return the map, its linear part or its transpose of images [N, C, H, W]; see `_Map`."""
    out, means = torch.empty_like(images), images.new_empty(len(images))
    if not len(images):
        return out
    channels, height, width = images.shape[1:]
    tile = tile_of(channels)
    shape = {
        **{"CHANNELS": channels, "H": height, "W": width},
        "KIND": tl.float64 if images.dtype == torch.float64 else tl.float32,
        **tile,
    }
    transposed = kind == "transposed"
    means_kernel[(len(images),)](means, images, parameters, TRANSPOSED=transposed, **shape)
    grid = (len(images) * triton.cdiv(height * width, tile["BLOCK"]),)
    if transposed:
        transposed_kernel[grid](out, images, parameters, means, **shape)
    else:
        constant = kind == "affine"
        forward_kernel[grid](out, images, parameters, means, CONSTANT=constant, **shape)
    return out


def tile_of(channels: int) -> dict:
    """Return the channels with padding, the pixels of a program, and the warps."""
    padded = triton.next_power_of_2(channels)
    block = min(MOST_PIXELS, max(16, TILE // padded))
    return {"PADDED": padded, "BLOCK": block, "num_warps": max(4, padded * block // PER_WARP)}


def _compilation(
    kernel: str, registers: int, vector: int, channels: int = 3, side=(64, 64), **constants
) -> Compilation:
    """Return a kernel for images of a shape; KIND says which dtype they have."""
    pointer = "*fp64" if constants.get("KIND") == "tl.float64" else "*fp32"
    names = ("means", "source") if kernel == "means" else ("out", "source", "means")
    return Compilation(
        f"{kernel}_kernel",
        dict.fromkeys(names, pointer) | {"rows": "*fp64"},
        registers,
        {"KIND": "tl.float32", "CHANNELS": channels, "H": side[0], "W": side[1]} | constants,
        vector,
        (channels,),
    )


_DOUBLE = {"KIND": "tl.float64"}
COMPILATIONS = {
    "means": _compilation("means", 36, 1, TRANSPOSED=False),
    "means transposed": _compilation("means", 70, 1, TRANSPOSED=True),
    "forward": _compilation("forward", 70, 4, CONSTANT=True),
    "forward linear": _compilation("forward", 62, 4, CONSTANT=False),
    "forward one channel": _compilation("forward", 54, 2, 1, (28, 28), CONSTANT=True),
    "forward many channels": _compilation("forward", 76, 4, 64, (9, 12), CONSTANT=True),
    "forward float64": _compilation("forward", 60, 2, CONSTANT=True, **_DOUBLE),
    "transposed": _compilation("transposed", 106, 4),
    "transposed one channel": _compilation("transposed", 70, 2, 1, (28, 28)),
    "transposed many channels": _compilation("transposed", 100, 4, 64, (9, 12)),
    "transposed float64": _compilation("transposed", 86, 2, **_DOUBLE),
}
