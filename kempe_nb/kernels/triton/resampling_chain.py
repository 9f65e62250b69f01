"""Triton code of `kempe_nb.kernels.resampling_chain`: all generations of 32 atoms in one program.

Bytes of one program: it reads the probabilities of its atoms once, from which everything follows in
registers, and adds three integers for every generation in which one of its atoms still lives. With
S seeds the probabilities are read S times, from the L2 cache while the law fits into it (a law of
6e6 atoms does on an H200), so the law crosses the memory bus once. Arithmetic is the limit: about
a hundred integer instructions for each block of Philox.
"""

import numpy as np
import torch
import triton
import triton.language as tl

from kempe_nb.kernels.philox import Purpose
from kempe_nb.kernels.poisson import stirling_table, table_thresholds
from kempe_nb.kernels.triton import Compilation
from kempe_nb.kernels.triton.poisson import poisson

#: One warp with one atom for each lane: a program runs until its last atom is dead, so the fewer
#: atoms share it the fewer lanes idle; and 64 or 128 atoms would need 128 or 252 registers a thread
#: where 32 need 72. Contraction is off for the sake of equal bits.
CONFIG = {"BLOCK": 32, "num_warps": 1, "enable_fp_fusion": False}
#: CUDA's limit of the second axis of a grid.
LARGEST_GRID = 65_535

PURPOSE = tl.constexpr(int(Purpose.RESAMPLING_CHAIN))


@triton.jit(do_not_specialize=["generations"])
def chain_kernel(
    law, ratios, seeds, thresholds, stirling, sums, atoms, generations, BLOCK: tl.constexpr
):
    """Add living mass, survivors and tokens of 32 atoms to `sums` [3, S, G], until all are dead."""
    atom = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row = tl.program_id(1).to(tl.int64)
    stride = tl.num_programs(1).to(tl.int64) * generations
    probability = tl.load(law + atom, mask=atom < atoms, other=0.0).to(tl.float64)
    mass = round_to_even(probability * 4611686018427387904.0)
    seed = tl.load(seeds + row)
    # The first generation samples the law itself: its mean is the probability times T_1.
    count = probability
    generation = 0
    living = tl.max(atom * 0) + 1
    while (living > 0) & (generation < generations):
        mean = count * tl.load(ratios + generation)
        drawn = poisson(mean, seed, atom, generation + 1, thresholds, stirling, PURPOSE)
        count = drawn.to(tl.float64)
        alive = drawn > 0
        living = tl.sum(alive.to(tl.int64))
        if living > 0:
            place = sums + row * generations + generation
            tl.atomic_add(place, tl.sum(tl.where(alive, mass, 0)), sem="relaxed")
            tl.atomic_add(place + stride, living, sem="relaxed")
            tl.atomic_add(place + 2 * stride, tl.sum(drawn), sem="relaxed")
        generation += 1


@triton.jit
def round_to_even(x):
    """Return the nearest integers to x from 0 to 2**62, int64; halves go to the even one."""
    low = tl.floor(x)
    rest = x - low
    whole = low.to(tl.int64)
    up = (rest > 0.5) | ((rest == 0.5) & ((whole & 1) == 1))
    return whole + up.to(tl.int64)


def run(
    law: torch.Tensor, ratios: np.ndarray, keys: np.ndarray, mass_scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mass of the law and [living mass, survivors, tokens], int64 [3, S, G]."""
    total = torch.round(law.to(torch.float64) * mass_scale).to(torch.int64).sum()
    sums = torch.zeros((3, len(keys), len(ratios)), dtype=torch.int64, device=law.device)
    if not law.numel() or not sums.numel():
        return total, sums
    law = law.contiguous()
    tables = [
        torch.from_numpy(np.ascontiguousarray(table)).to(law.device)
        for table in (ratios, keys.view(np.int64), table_thresholds(), stirling_table())
    ]
    for start in range(0, len(keys), LARGEST_GRID):
        part = slice(start, start + LARGEST_GRID)
        own = torch.zeros_like(sums[:, part])
        grid = (triton.cdiv(len(law), CONFIG["BLOCK"]), own.shape[1])
        chain_kernel[grid](
            law, tables[0], tables[1][part], *tables[2:], own, len(law), len(ratios), **CONFIG
        )
        sums[:, part] = own
    return total, sums


_CHAIN = {
    **{"law": "*fp64", "ratios": "*fp64", "seeds": "*i64", "thresholds": "*i64"},
    **{"stirling": "*fp64", "sums": "*i64", "atoms": "i64", "generations": "i64"},
}

COMPILATIONS = {
    "float64": Compilation("chain_kernel", _CHAIN, 80, rounds_once=True),
    "float32": Compilation("chain_kernel", {**_CHAIN, "law": "*fp32"}, 80, rounds_once=True),
}
