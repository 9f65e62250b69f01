"""Triton code of `kempe_nb.kernels.zipf`: samples, and counts of samples that are never stored.

Bytes: a sample writes 8; a counted sample writes nothing of its own. The thresholds of the bands,
at most 61, stay in the first cache. The counts of the first 128 ranks, where most samples fall, are
kept in registers by each program and added once at its end; only the tail is added one by one.
"""

import numpy as np
import torch
import triton
import triton.language as tl

from kempe_nb.kernels.philox import Purpose
from kempe_nb.kernels.triton import Compilation
from kempe_nb.kernels.triton.elementary import exp_minus, log
from kempe_nb.kernels.triton.philox import block_words, join_words, signed, uniform_53
from kempe_nb.kernels.triton.poisson import draw_63

#: Samples at a time, and their warps. Contraction is off for the sake of equal bits.
CONFIG = {"BLOCK": 256, "num_warps": 4, "enable_fp_fusion": False}
#: Ranks that each program of the counting kernel counts by itself, and its turns.
HEAD, TURNS = 128, 32

PURPOSE = tl.constexpr(int(Purpose.ZIPF))


@triton.jit
def draw_ranks(seed, index, stream, inside, exponent, ends, thresholds, bands):
    """Return one rank for each lane that is `inside`, int64; 1 for the others.

    `exponent` points to one number, `ends` to the last rank and its mask.
    """
    slope, last_rank = tl.load(exponent), tl.load(ends)
    trial = tl.full((1,), 0, tl.uint32)
    w0, w1, _, _ = block_words(seed, index, stream, PURPOSE, trial)
    draw = draw_63(w0, w1)
    band = index * 0
    j = 0
    # Not range: the interpreter of Triton 3.6 fails there with NumPy 2.4.
    while j < bands - 1:
        band += (draw < tl.load(thresholds + j)).to(tl.int64)
        j += 1
    rank = index * 0 + 1
    first = rank << band
    reach = tl.where(band < bands - 1, first - 1, tl.load(ends + 1))
    pending = inside & (band > 0)
    trial += 1
    left = tl.max(pending.to(tl.int32))
    while left > 0:
        w0, w1, w2, w3 = block_words(seed, index, stream, PURPOSE, trial)
        proposed = first + (join_words(w0, w1).to(tl.int64, bitcast=True) & reach)
        chance = exp_minus(slope * log(proposed.to(tl.float64) / first.to(tl.float64)))
        accepted = pending & (uniform_53(w2, w3) < chance) & (proposed <= last_rank)
        rank = tl.where(accepted, proposed, rank)
        pending = pending & (accepted == 0)
        trial += 1
        left = tl.max(pending.to(tl.int32))
    return rank


@triton.jit(do_not_specialize=["seed", "offset", "stream", "bands"])
def samples_kernel(
    out, exponent, ends, thresholds, bands, seed, offset, stream, size, BLOCK: tl.constexpr
):
    """Write one rank for each position."""
    position = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = position < size
    rank = draw_ranks(seed, position + offset, stream, inside, exponent, ends, thresholds, bands)
    tl.store(out + position, rank, mask=inside)


@triton.jit(do_not_specialize=["seed", "offset", "stream", "bands"])
def counts_kernel(
    counts,
    exponent,
    ends,
    thresholds,
    bands,
    seed,
    offset,
    stream,
    size,
    ranks,
    HEAD: tl.constexpr,
    TURNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add the counts of TURNS blocks of samples to `counts` [ranks + 1]."""
    start = tl.program_id(0).to(tl.int64) * BLOCK * TURNS
    head = tl.zeros((HEAD,), tl.int32)
    for turn in range(TURNS):
        position = start + turn * BLOCK + tl.arange(0, BLOCK)
        inside = position < size
        rank = draw_ranks(
            seed, position + offset, stream, inside, exponent, ends, thresholds, bands
        )
        place = tl.minimum(rank - 1, ranks)
        common = place < HEAD
        head += tl.histogram(place.to(tl.int32), HEAD, mask=inside & common)
        tl.atomic_add(counts + place, position * 0 + 1, mask=inside & (common == 0), sem="relaxed")
    bins = tl.arange(0, HEAD)
    tl.atomic_add(
        counts + bins, head.to(tl.int64), mask=(bins <= ranks) & (head > 0), sem="relaxed"
    )


def samples(law, shape, seed: int, offset: int, stream: int, device) -> torch.Tensor:
    """Launch `samples_kernel`; see `kempe_nb.kernels.zipf`."""
    out = torch.empty(shape, dtype=torch.int64, device=device)
    if size := out.numel():
        grid = (triton.cdiv(size, CONFIG["BLOCK"]),)
        draw = (signed(seed), signed(offset), stream, size)
        samples_kernel[grid](out, *_parameters(law, device), *draw, **CONFIG)
    return out


def counts(law, sample_size, seed, ranks, offset, stream, device) -> torch.Tensor:
    """Launch `counts_kernel`; see `kempe_nb.kernels.zipf`."""
    out = torch.zeros(ranks + 1, dtype=torch.int64, device=device)
    if sample_size:
        grid = (triton.cdiv(sample_size, CONFIG["BLOCK"] * TURNS),)
        draw = (signed(seed), signed(offset), stream, sample_size, ranks)
        counts_kernel[grid](out, *_parameters(law, device), *draw, HEAD=HEAD, TURNS=TURNS, **CONFIG)
    return out


def _parameters(law, device) -> tuple:
    """Return exponent, last rank and its mask, thresholds and number of bands.

    All but the last are tensors: a float would become a float32 argument, and change the law.
    """
    exponent = torch.tensor([law.exponent], dtype=torch.float64, device=device)
    ends = torch.tensor([law.last_rank, law.last_mask], dtype=torch.int64, device=device)
    table = np.append(law.thresholds, 0)
    return exponent, ends, torch.from_numpy(table).to(device), len(law.bands)


_DRAW = {
    **{"exponent": "*fp64", "ends": "*i64", "thresholds": "*i64", "bands": "i64"},
    **{"seed": "i64", "offset": "i64", "stream": "i64", "size": "i64:16"},
}

COMPILATIONS = {
    "samples": Compilation(
        "samples_kernel", {"out": "*i64", **_DRAW}, 80, vector=2, rounds_once=True
    ),
    "counts": Compilation(
        "counts_kernel",
        {"counts": "*i64", **_DRAW, "ranks": "i64"},
        96,
        {"HEAD": HEAD, "TURNS": TURNS},
        rounds_once=True,
    ),
}
