"""Triton code of `kempe_nb.kernels.softmax_hessian`.

Two kernels. `rows_kernel` holds whole rows on chip, as many of them in a program as make up a tile,
and takes the vectors one after another: logits in once, each vector in, each product out.
`long_rows_kernel` goes over a row in blocks, for one vector: in a first turn it carries the largest
logit so far, the entry of the vector there, and two sums relative to both; in a second it writes.

Bytes, in units of N K elements: 1 + 2 V for rows on chip, if there are enough rows to fill the
device (else the logits are read once for each group of vectors); 5 V for long rows.
"""

import torch
import triton
import triton.language as tl

from kempe_nb.kernels.triton import Compilation

#: The kernel for rows that fit on chip, by the largest number of classes: elements of a tile, and
#: warps of a program.
TILES = ((1_024, 2_048, 4), (4_096, 4_096, 8), (8_192, 8_192, 8))
#: Bytes of the longest row that is held on chip: 8,192 classes in float32, 4,096 in float64.
ON_CHIP = 2**15
#: Columns that the kernel for long rows takes at a time, and the warps of a program.
CONFIG = {"BLOCK": 4096, "num_warps": 8}
#: Programs that fill a device, and then some.
PROGRAMS = 1_024


@triton.jit
def rows_kernel(
    out,
    logits,
    vectors,
    temperatures,
    rows,
    classes,
    count,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Take `ROWS` rows, and of `count` vectors every one whose turn it is."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    there = (row < rows)[:, None] & (column < classes)[None, :]
    place = row[:, None] * classes + column[None, :]
    kind = temperatures.dtype.element_ty
    t = tl.load(temperatures)
    z = tl.load(logits + place, mask=there, other=0.0).to(kind)
    # Rows behind the last one are rows of zeros: nothing of theirs is stored.
    z = tl.where((column < classes)[None, :], z, float("-inf"))
    e = tl.exp((z - tl.max(z, 1)[:, None]) / t)
    p = e / tl.sum(e, 1)[:, None]
    is_top = column[None, :] == tl.argmax(z, 1)[:, None]
    index = tl.program_id(1).to(tl.int64)
    while index < count:
        own = index * rows * classes + place
        v = tl.load(vectors + own, mask=there, other=0.0).to(kind)
        at_top = tl.sum(tl.where(is_top, v, 0.0), 1)
        away = tl.where(there, v - at_top[:, None], 0.0)
        away -= tl.sum(p * away, 1)[:, None]
        tl.store(out + own, p * away / t / t, mask=there)
        index += tl.num_programs(1)


@triton.jit
def long_rows_kernel(
    out,
    logits,
    vectors,
    temperatures,
    rows,
    classes,
    BLOCK: tl.constexpr,
):
    """Take one row and one vector, in two turns over the row."""
    row = tl.program_id(0).to(tl.int64)
    own = (tl.program_id(1).to(tl.int64) * rows + row) * classes
    kind = temperatures.dtype.element_ty
    t = tl.load(temperatures)
    # The largest logit so far and the entry of the vector there; sums of e and e (v - entry).
    top = tl.load(logits + row * classes).to(kind)
    at_top = tl.load(vectors + own).to(kind)
    total = t * 0.0
    moment = t * 0.0
    start = row * 0
    while start < classes:
        column = start + tl.arange(0, BLOCK)
        there = column < classes
        z = tl.load(logits + row * classes + column, mask=there, other=float("-inf")).to(kind)
        v = tl.load(vectors + own + column, mask=there, other=0.0).to(kind)
        here = tl.max(z, 0)
        entry = tl.sum(tl.where(tl.arange(0, BLOCK) == tl.argmax(z, 0), v, 0.0), 0)
        new_top = tl.maximum(top, here)
        new_at_top = tl.where(here > top, entry, at_top)
        # A row may begin with classes that cannot occur; their sums are zero.
        finite = tl.where(new_top > float("-inf"), new_top, 0.0)
        shrink = tl.exp((top - finite) / t)
        e = tl.exp((z - finite) / t)
        moment = shrink * (moment + (at_top - new_at_top) * total)
        moment += tl.sum(e * tl.where(there, v - new_at_top, 0.0), 0)
        total = shrink * total + tl.sum(e, 0)
        top = new_top
        at_top = new_at_top
        start += BLOCK
    mean = moment / total
    start = row * 0
    while start < classes:
        column = start + tl.arange(0, BLOCK)
        there = column < classes
        z = tl.load(logits + row * classes + column, mask=there, other=float("-inf")).to(kind)
        v = tl.load(vectors + own + column, mask=there, other=0.0).to(kind)
        p = tl.exp((z - top) / t) / total
        tl.store(out + own + column, p * ((v - at_top) - mean) / t / t, mask=there)
        start += BLOCK


def product(logits: torch.Tensor, vectors: torch.Tensor, temperature: float) -> torch.Tensor:
    """Launch the kernel for logits [N, K] and vectors [V, N, K]; return the products."""
    (count, rows, classes) = vectors.shape
    logits, vectors = logits.contiguous(), vectors.contiguous()
    out = torch.empty_like(vectors)
    if not out.numel():
        return out
    # As a tensor, because Triton takes numbers as float32; filled on the device, nobody waits.
    kind = torch.promote_types(logits.dtype, torch.float32)
    temperatures = torch.full((1,), temperature, dtype=kind, device=logits.device)
    tensors = out, logits, vectors, temperatures
    if classes * temperatures.element_size() > ON_CHIP:
        long_rows_kernel[(rows, count)](*tensors, rows, classes, **CONFIG)
        return out
    tile = tile_of(classes)
    programs = triton.cdiv(rows, tile["ROWS"])
    groups = min(count, triton.cdiv(PROGRAMS, programs))
    rows_kernel[(programs, groups)](*tensors, rows, classes, count, **tile)
    return out


def tile_of(classes: int) -> dict:
    """Return the rows and columns of a tile, and the warps of a program, for rows on chip."""
    block = triton.next_power_of_2(classes)
    _, elements, warps = next(tile for tile in TILES if classes <= tile[0])
    return {"ROWS": max(1, elements // block), "BLOCK": block, "num_warps": warps}


_PRODUCT = {
    **{"out": "*fp32", "logits": "*fp32", "vectors": "*fp32", "temperatures": "*fp32"},
    **{"rows": "i64", "classes": "i64:16"},
}
_ROWS = _PRODUCT | {"count": "i64"}
_LOW_ROWS = _ROWS | dict.fromkeys(("out", "logits", "vectors"), "*bf16")
_DOUBLE_PRODUCT = _PRODUCT | dict.fromkeys(("out", "logits", "vectors", "temperatures"), "*fp64")
_DOUBLE_ROWS = _DOUBLE_PRODUCT | {"count": "i64"}

COMPILATIONS = {
    "short rows": Compilation("rows_kernel", _ROWS, 225, vector=4, shape=(10,)),
    "rows": Compilation("rows_kernel", _ROWS, 140, vector=4, shape=(4_096,)),
    "rows bfloat16": Compilation("rows_kernel", _LOW_ROWS, 140, vector=4, shape=(4_096,)),
    "rows float64": Compilation("rows_kernel", _DOUBLE_ROWS, 210, vector=2, shape=(4_096,)),
    "widest rows": Compilation("rows_kernel", _ROWS, 255, vector=4, shape=(8_192,)),
    "long rows": Compilation("long_rows_kernel", _PRODUCT, 140, vector=4),
    "long rows float64": Compilation("long_rows_kernel", _DOUBLE_PRODUCT, 208, vector=2),
}
