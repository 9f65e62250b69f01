"""Triton code of `kempe_nb.kernels.simplex_probability`: one draw for each lane of a warp.

Bytes: a draw reads the parameters of its law, which stay in the first cache, and writes nothing of
its own. A program keeps the sums of the first 32 thresholds in registers, one in each lane, and
adds them once at its end; those of later thresholds are added for every 32 draws. The thresholds
are in an order in which events come first, so a program stops at the first one that none of its
draws reaches. All sums are of integers, so the order of the programs does not matter.
"""

import numpy as np
import torch
import triton
import triton.language as tl

from kempe_nb.kernels import simplex_laws
from kempe_nb.kernels.triton import Compilation
from kempe_nb.kernels.triton.elementary import exp_minus, log
from kempe_nb.kernels.triton.normal_gamma import gamma_logs, gamma_pair, normal_pair
from kempe_nb.kernels.triton.philox import block_words, signed

#: One warp with one draw for each lane: a rejection lasts until the last lane has its number.
#: Contraction is off for the sake of equal bits.
CONFIG = {"BLOCK": 32, "HEAD": 32, "num_warps": 1, "enable_fp_fusion": False}
#: Turns of a program: of a Dirichlet law, and of a logistic-normal one, whose draws are long.
TURNS, LONG_TURNS = 8, 1

PURPOSE, LOWEST = tl.constexpr(simplex_laws.PURPOSE), tl.constexpr(simplex_laws.LOWEST)


@triton.jit
def add(
    head,
    squares,
    mass,
    inside,
    sums,
    thresholds,
    logs,
    rule,
    count,
    TILTED: tl.constexpr,
    BELOW: tl.constexpr,
    HEAD: tl.constexpr,
):
    """Return the sums of the first thresholds with the events of some draws; add the others."""
    lane = tl.arange(0, HEAD)
    if TILTED:
        whole, near = tl.load(rule), tl.load(rule + 1)
        far, scale = tl.load(rule + 2), tl.load(rule + 3)
        log_mass = log((1.0 - mass) * near + mass * far)
    k = 0
    reached = tl.max(inside.to(tl.int32))
    while (reached > 0) & (k < count):
        threshold = tl.load(thresholds + k)
        event = inside & (mass < threshold if BELOW else mass >= threshold)
        if TILTED:
            weight = exp_minus(tl.maximum(whole * (tl.load(logs + k) - log_mass), 0.0))
            weight = tl.where(event, weight, 0.0)
            total = tl.sum(tl.floor(weight * scale + 0.5).to(tl.int64))
            square = tl.sum(tl.floor(weight * weight * scale + 0.5).to(tl.int64))
            squares += tl.where(lane == k, square, 0)
        else:
            total = tl.sum(event.to(tl.int64))
        head += tl.where(lane == k, total, 0)
        if k >= HEAD:
            tl.atomic_add(sums + k, total, sem="relaxed")
            if TILTED:
                tl.atomic_add(sums + count + k, square, sem="relaxed")
        reached = tl.max(event.to(tl.int32))
        k += 1
    return head, squares


@triton.jit
def add_head(head, squares, sums, count, TILTED: tl.constexpr, HEAD: tl.constexpr):
    """Add what a program has kept."""
    lane = tl.arange(0, HEAD)
    tl.atomic_add(sums + lane, head, mask=(lane < count) & (head > 0), sem="relaxed")
    if TILTED:
        tl.atomic_add(
            sums + count + lane, squares, mask=(lane < count) & (squares > 0), sem="relaxed"
        )


@triton.jit(do_not_specialize=["seed", "offset", "stream", "count"])
def dirichlet_kernel(
    sums,
    shapes,
    thresholds,
    logs,
    rule,
    seed,
    offset,
    stream,
    draws,
    count,
    BOOSTED: tl.constexpr,
    TILTED: tl.constexpr,
    BELOW: tl.constexpr,
    TURNS: tl.constexpr,
    HEAD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add the events of TURNS blocks of draws of a Dirichlet law to `sums` [2, K].

    `shapes` points to the constants of the two shapes, and the tilt behind them.
    """
    start = tl.program_id(0).to(tl.int64) * BLOCK * TURNS
    head = tl.zeros((HEAD,), tl.int64)
    squares = tl.zeros((HEAD,), tl.int64)
    for turn in range(TURNS):
        position = start + turn * BLOCK + tl.arange(0, BLOCK)
        inside = position < draws
        index = position + offset
        own, other = gamma_pair(shapes, seed, index, stream, inside, PURPOSE)
        if BOOSTED or TILTED:
            shift = own * 0.0 - tl.load(shapes + 6)
            if BOOSTED:
                one, two = gamma_logs(shapes, seed, index, stream, PURPOSE)
                shift = (two - one) - tl.load(shapes + 6)
            factor = exp_minus(tl.abs(shift))
            own = tl.where(shift >= 0.0, own * factor, own)
            other = tl.where(shift >= 0.0, other, other * factor)
        mass = own / (own + other)
        head, squares = add(
            head, squares, mass, inside, sums, thresholds, logs, rule, count, TILTED, BELOW, HEAD
        )
    add_head(head, squares, sums, count, TILTED, HEAD)


@triton.jit(do_not_specialize=["seed", "offset", "stream", "count", "size"])
def logistic_normal_kernel(
    sums,
    law,
    thresholds,
    logs,
    rule,
    seed,
    offset,
    stream,
    draws,
    count,
    size,
    TURNS: tl.constexpr,
    HEAD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add the events of TURNS blocks of draws of a logistic-normal law to `sums` [2, K].

    `law` points to means, scales and whether harmful, [3, n].
    """
    start = tl.program_id(0).to(tl.int64) * BLOCK * TURNS
    head = tl.zeros((HEAD,), tl.int64)
    squares = tl.zeros((HEAD,), tl.int64)
    for turn in range(TURNS):
        position = start + turn * BLOCK + tl.arange(0, BLOCK)
        inside = position < draws
        own = (position * 0).to(tl.float64)
        whole = own
        top = own + LOWEST
        trial = tl.full((1,), 0, tl.uint32)
        i = 0
        while i < size:
            w0, w1, w2, w3 = block_words(seed, position + offset, stream, PURPOSE, trial)
            first, second = normal_pair(w0, w1, w2, w3)
            own, whole, top = add_logit(first, law + i, size, own, whole, top)
            if i + 1 < size:
                own, whole, top = add_logit(second, law + i + 1, size, own, whole, top)
            trial += 1
            i += 2
        mass = own / whole
        head, squares = add(
            head, squares, mass, inside, sums, thresholds, logs, rule, count, False, False, HEAD
        )
    add_head(head, squares, sums, count, False, HEAD)


@triton.jit
def add_logit(normal, number, size, own, whole, top):
    """Return the sums of e^logit with one more number, relative to the largest logit, and that."""
    mean, scale = tl.load(number), tl.load(number + size)
    logit = mean + scale * normal
    gap = logit - top
    factor = exp_minus(tl.abs(gap))
    kept = tl.where(gap > 0.0, factor, 1.0)
    added = tl.where(gap > 0.0, 1.0, factor)
    own = own * kept + added * tl.load(number + 2 * size)
    return own, whole * kept + added, tl.maximum(top, logit)


def dirichlet(constants, tally, draw, device) -> np.ndarray:
    """Launch `dirichlet_kernel`; see `kempe_nb.kernels.simplex_probability`."""
    harmful, safe, tilt = constants
    shapes = np.array([*harmful.constants, *safe.constants, tilt])
    how = {
        "BOOSTED": bool(shapes[2] or shapes[5]),
        "TILTED": tally.tilted,
        "BELOW": tally.below,
        "TURNS": TURNS,
    }
    return _launch(dirichlet_kernel, shapes, (), how, tally, draw, device)


def logistic_normal(constants, tally, draw, device) -> np.ndarray:
    """Launch `logistic_normal_kernel`; see `kempe_nb.kernels.simplex_probability`."""
    law = np.stack([each.astype(np.float64) for each in constants])
    how = {"TURNS": LONG_TURNS}
    return _launch(logistic_normal_kernel, law, (law.shape[1],), how, tally, draw, device)


def _launch(kernel, law, sizes, how, tally, draw, device) -> np.ndarray:
    """Return the sums [2, K] on the host; numbers go by tensors, for a float would be a float32."""
    seed, offset, stream, draws = draw
    count = len(tally.thresholds)
    sums = torch.zeros((2, count), dtype=torch.int64, device=device)
    arrays = law, tally.thresholds, tally.logs, tally.constants
    tensors = [torch.from_numpy(each).to(device) for each in arrays]
    place = signed(seed), signed(offset), stream, draws, count
    grid = (triton.cdiv(draws, CONFIG["BLOCK"] * how["TURNS"]),)
    kernel[grid](sums, *tensors, *place, *sizes, **how, **CONFIG)
    return sums.cpu().numpy()


_DRAW = {
    **{"sums": "*i64", "thresholds": "*fp64", "logs": "*fp64", "rule": "*fp64", "seed": "i64"},
    **{"offset": "i64", "stream": "i64", "draws": "i64:16", "count": "i64"},
}


def _dirichlet_case(registers: int, boosted: bool, tilted: bool, below: bool) -> Compilation:
    how = {"BOOSTED": boosted, "TILTED": tilted, "BELOW": below, "TURNS": TURNS}
    types = {"shapes": "*fp64", **_DRAW}
    return Compilation("dirichlet_kernel", types, registers, how, rounds_once=True)


COMPILATIONS = {
    "dirichlet": _dirichlet_case(84, False, False, False),
    "dirichlet small": _dirichlet_case(88, True, False, False),
    "dirichlet tilted": _dirichlet_case(88, False, True, False),
    "dirichlet small tilted": _dirichlet_case(92, True, True, False),
    "dirichlet tilted down": _dirichlet_case(92, True, True, True),
    "logistic normal": Compilation(
        "logistic_normal_kernel",
        {"law": "*fp64", **_DRAW, "size": "i64"},
        68,
        {"TURNS": LONG_TURNS},
        rounds_once=True,
    ),
}
