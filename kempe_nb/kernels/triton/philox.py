"""Triton code of `kempe_nb.kernels.philox`: the shared device functions, three kernels, launchers.

Bytes: nothing is read; every number is written once. The rest is integer arithmetic: about ten
instructions for each of the ten rounds of a block.
"""

import torch
import triton
import triton.language as tl

from kempe_nb.kernels.triton import Compilation

#: Numbers of one program, and its warps.
CONFIG = {"BLOCK": 1024, "num_warps": 4}

# The device functions take the constants of the counter as arguments, because a kernel may not read
# Python globals; `Purpose` in kempe_nb.kernels.philox holds the values.
WORDS, INTEGERS = tl.constexpr(0), tl.constexpr(1)


@triton.jit
def block_words(seed, index, stream, purpose: tl.constexpr, trial):
    """Return the four uint32 words of the blocks `index` (int64) of a stream."""
    low = (index & 0xFFFFFFFF).to(tl.uint32)
    high = ((index >> 32) & 0xFFFFFFFF).to(tl.uint32)
    zero = low * 0
    third = zero + stream.to(tl.uint32)
    fourth = zero + trial.to(tl.uint32) + (purpose << 24)
    return tl.philox(seed, low, high, third, fourth)


@triton.jit
def join_words(low, high):
    """Return 64 bits as uint64."""
    return (high.to(tl.uint64) << 32) | low.to(tl.uint64)


@triton.jit
def uniform_53(low, high):
    """Return float64 in [0, 1) from the upper 53 bits of two words."""
    return (join_words(low, high) >> 11).to(tl.float64) * 1.1102230246251565e-16


@triton.jit(do_not_specialize=["seed", "offset", "stream"])
def read_kernel(out, seed, offset, stream, size, KIND: tl.constexpr, BLOCK: tl.constexpr):
    """Write words, float32 or float64 numbers of a sequence; `offset` is a multiple of the words
    of one number away from a block's start by `offset % 4`."""
    position = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = position < size
    trial = tl.full((1,), 0, tl.uint32)
    word = position + offset
    if KIND == "float64":
        word = 2 * position + offset
    # Dividing as unsigned: offsets go up to 2**64 - 1.
    unsigned = word.to(tl.uint64, bitcast=True)
    index, lane = (unsigned >> 2).to(tl.int64), (unsigned & 3).to(tl.int32)
    w0, w1, w2, w3 = block_words(seed, index, stream, WORDS, trial)
    value = tl.where(lane < 2, tl.where(lane == 0, w0, w1), tl.where(lane == 2, w2, w3))
    if KIND == "bits":
        tl.store(out + position, value.to(tl.int64), mask=inside)
    elif KIND == "float32":
        scaled = (value >> 8).to(tl.int32).to(tl.float32) * 5.9604644775390625e-08
        tl.store(out + position, scaled, mask=inside)
    else:
        following = ((unsigned + 1) >> 2).to(tl.int64)
        v0, _, v2, _ = block_words(seed, following, stream, WORDS, trial)
        high = tl.where(lane < 2, tl.where(lane == 0, w1, w2), tl.where(lane == 2, w3, v0))
        tl.store(out + position, uniform_53(value, high), mask=inside)


@triton.jit(do_not_specialize=["seed", "offset", "stream", "low", "last", "mask"])
def integers_kernel(out, seed, offset, stream, low, last, mask, size, BLOCK: tl.constexpr):
    """Write integers from `low` to `low + last` by rejection; `mask` has the bits of `last`."""
    position = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = position < size
    limit = last.to(tl.uint64)
    value = tl.zeros((BLOCK,), tl.uint64)
    pending = inside
    trial = tl.full((1,), 0, tl.uint32)
    left = tl.max(pending.to(tl.int32))
    while left > 0:
        w0, w1, _, _ = block_words(seed, position + offset, stream, INTEGERS, trial)
        proposed = join_words(w0, w1) & mask.to(tl.uint64)
        value = tl.where(pending, proposed, value)
        pending = pending & (proposed > limit)
        trial += 1
        left = tl.max(pending.to(tl.int32))
    tl.store(out + position, value.to(tl.int64, bitcast=True) + low, mask=inside)


def signed(value: int) -> int:
    """Return the int64 with the same 64 bits; Triton types an integer argument by its size."""
    return value - 2**64 if value >= 2**63 else value


def read(kind: str, shape, seed: int, offset: int, stream: int, device) -> torch.Tensor:
    """Launch `read_kernel`; see `kempe_nb.kernels.philox`."""
    dtype = {"bits": torch.int64, "float32": torch.float32, "float64": torch.float64}[kind]
    out = torch.empty(shape, dtype=dtype, device=device)
    if size := out.numel():
        grid = (triton.cdiv(size, CONFIG["BLOCK"]),)
        read_kernel[grid](out, signed(seed), signed(offset), stream, size, KIND=kind, **CONFIG)
    return out


def integers(shape, seed, offset, stream, low, span, device) -> torch.Tensor:
    """Launch `integers_kernel`; see `kempe_nb.kernels.philox`."""
    out = torch.empty(shape, dtype=torch.int64, device=device)
    if size := out.numel():
        mask = (1 << (span - 1).bit_length()) - 1
        bounds = (low, signed(span - 1), signed(mask))
        grid = (triton.cdiv(size, CONFIG["BLOCK"]),)
        integers_kernel[grid](out, signed(seed), signed(offset), stream, *bounds, size, **CONFIG)
    return out


_DRAW = {"seed": "i64", "offset": "i64", "stream": "i64", "size": "i64:16"}
_BOUNDS = {"low": "i64", "last": "i64", "mask": "i64"}

COMPILATIONS = {
    "bits": Compilation("read_kernel", {"out": "*i64", **_DRAW}, 64, {"KIND": "bits"}, vector=2),
    "float32": Compilation(
        "read_kernel", {"out": "*fp32", **_DRAW}, 64, {"KIND": "float32"}, vector=4
    ),
    "float64": Compilation(
        "read_kernel", {"out": "*fp64", **_DRAW}, 64, {"KIND": "float64"}, vector=2
    ),
    "integers": Compilation("integers_kernel", {"out": "*i64", **_DRAW, **_BOUNDS}, 80, vector=2),
}
