"""Triton code of `kempe_nb.kernels.class_moments`: two kernels, one read of the features.

The labels are sorted, 8 bytes a sample, so that the rows of a class stand together in `order`. They
are cut into pieces of `ROWS`; each program sums one piece of one class over one tile of columns,
and needs no atomics, no one-hot matrix and no table of the classes. A second kernel adds the pieces
of each class in float64, in their order: two runs have the same bits.

Bytes: features once, 8 a sample and tile for `order`, and the sums of the pieces, about 1 / ROWS of
the features, written and read.
"""

import torch
import triton
import triton.language as tl

from kempe_nb.kernels.triton import Compilation

#: Columns of a tile, and the warps of a program.
CONFIG = {"BLOCK": 512, "num_warps": 4}
#: Rows of a piece, rows that are loaded at a time, and pieces that are added at a time.
ROWS, STEP, PIECES = 128, 8, 16


@triton.jit
def piece_kernel(
    out,
    squares,
    features,
    order,
    shifts,
    pieces,
    row_stride,
    dimensions,
    STEP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum the deviations of one piece over one tile; `pieces` holds class, start and stop."""
    piece = tl.program_id(0).to(tl.int64)
    tile = tl.program_id(1)
    own = tl.load(pieces + 3 * piece)
    start = tl.load(pieces + 3 * piece + 1)
    stop = tl.load(pieces + 3 * piece + 2)
    column = tile * BLOCK + tl.arange(0, BLOCK)
    inside = column < dimensions
    shift = tl.load(shifts + own * dimensions + column, mask=inside, other=0.0)
    kind = shifts.dtype.element_ty
    total = tl.zeros((STEP, BLOCK), kind)
    lengths = tl.zeros((STEP, BLOCK), kind)
    # Not range: the interpreter of Triton 3.6 fails there with NumPy 2.4.
    while start < stop:
        place = start + tl.arange(0, STEP)
        row = tl.load(order + place, mask=place < stop, other=0)
        there = (place < stop)[:, None] & inside[None, :]
        value = tl.load(features + row[:, None] * row_stride + column[None, :], mask=there, other=0)
        deviation = tl.where(there, value.to(kind) - shift[None, :], 0.0)
        total += deviation
        lengths += deviation * deviation
        start += STEP
    tl.store(out + piece * dimensions + column, tl.sum(total, 0), mask=inside)
    # Two sums: over both axes at once Triton would reshape, and lose the layout.
    tl.store(squares + piece * tl.num_programs(1) + tile, tl.sum(tl.sum(lengths, 0), 0))


@triton.jit
def fold_kernel(
    out,
    class_squares,
    partial,
    squares,
    ends,
    dimensions,
    PIECES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add the pieces of one class over one tile in float64; `ends` [K + 1] bounds the classes."""
    own = tl.program_id(0).to(tl.int64)
    tile = tl.program_id(1)
    column = tile * BLOCK + tl.arange(0, BLOCK)
    inside = column < dimensions
    start, stop = tl.load(ends + own), tl.load(ends + own + 1)
    total = tl.zeros((BLOCK,), tl.float64)
    length = tl.zeros((PIECES,), tl.float64)
    while start < stop:
        piece = start + tl.arange(0, PIECES)
        there = piece < stop
        both = there[:, None] & inside[None, :]
        values = tl.load(
            partial + piece[:, None] * dimensions + column[None, :], mask=both, other=0
        )
        total += tl.sum(values.to(tl.float64), 0)
        parts = tl.load(squares + piece * tl.num_programs(1) + tile, mask=there, other=0)
        length += parts.to(tl.float64)
        start += PIECES
    tl.store(out + own * dimensions + column, total, mask=inside)
    tl.store(class_squares + own * tl.num_programs(1) + tile, tl.sum(length, 0))


def moments(features, labels, shifts) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch both kernels; return sums [K, D] and squares [K], float64."""
    (samples, dimensions), num_classes = features.shape, len(shifts)
    if not (samples and dimensions):
        zeros = shifts.new_zeros(num_classes, dimensions + 1, dtype=torch.float64)
        return zeros[:, 1:], zeros[:, 0]
    if features.stride(1) != 1:
        features = features.contiguous()
    order = torch.argsort(labels, stable=True)
    pieces, ends = cut(torch.bincount(labels, minlength=num_classes), samples)
    tiles = triton.cdiv(dimensions, CONFIG["BLOCK"])
    partial = shifts.new_empty(len(pieces), dimensions)
    squares = shifts.new_empty(len(pieces), tiles)
    piece_kernel[(len(pieces), tiles)](
        *(partial, squares, features, order, shifts, pieces, features.stride(0), dimensions),
        STEP=STEP,
        **CONFIG,
    )
    sums = shifts.new_empty(num_classes, dimensions, dtype=torch.float64)
    class_squares = shifts.new_empty(num_classes, tiles, dtype=torch.float64)
    fold_kernel[(num_classes, tiles)](
        sums, class_squares, partial, squares, ends, dimensions, PIECES=PIECES, **CONFIG
    )
    return sums, class_squares.sum(1)


def cut(counts: torch.Tensor, samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut the sorted samples into pieces of one class and at most `ROWS`.

    Their number is not asked of the device, which would wait: there is always room for one piece
    that is not full in every class, and the pieces that are left over are empty.

    Returns
    -------
    pieces : int64 [P, 3]
        Class, start and stop in the sorted samples, of P = K + N // ROWS pieces.
    ends : int64 [K + 1]
        The pieces of class c are ends[c] to ends[c + 1] - 1.
    """
    room = len(counts) + samples // ROWS
    stops = counts.cumsum(0)
    ends = torch.cat([counts.new_zeros(1), ((counts + ROWS - 1) // ROWS).cumsum(0)])
    piece = torch.arange(room, device=counts.device)
    own = torch.searchsorted(ends[1:], piece, right=True).clamp(max=len(counts) - 1)
    start = stops[own] - counts[own] + ROWS * (piece - ends[own])
    stop = torch.minimum(start + ROWS, stops[own])
    return torch.stack([own, start, stop], 1), ends


_PIECES = {
    **{"out": "*fp32", "squares": "*fp32", "features": "*fp32", "order": "*i64"},
    **{"shifts": "*fp32", "pieces": "*i64", "row_stride": "i64:16", "dimensions": "i64:16"},
}
_DOUBLE_PIECES = _PIECES | dict.fromkeys(("out", "squares", "features", "shifts"), "*fp64")
_FOLD = {
    **{"out": "*fp64", "class_squares": "*fp64", "partial": "*fp32", "squares": "*fp32"},
    **{"ends": "*i64", "dimensions": "i64:16"},
}

COMPILATIONS = {
    "pieces": Compilation("piece_kernel", _PIECES, 140, {"STEP": STEP}, vector=4),
    "pieces bfloat16": Compilation(
        "piece_kernel", {**_PIECES, "features": "*bf16"}, 140, {"STEP": STEP}, vector=4
    ),
    "pieces float64": Compilation("piece_kernel", _DOUBLE_PIECES, 245, {"STEP": STEP}, vector=2),
    "fold": Compilation("fold_kernel", _FOLD, 118, {"PIECES": PIECES}, vector=2),
}
