"""Triton code of `kempe_nb.kernels.ensemble_moments`: a few inputs and all networks in a program.

A program holds [ROWS, BLOCK] running log-sum-exps over the networks. Nothing waits for another
program, and two runs have the same bits.

Bytes: the moments read the logits once. The loss goes over its part of the logits twice, and the
second time finds it in the L2 cache where the running programs' parts fit into it; it writes as
much. The number of classes is a constant of the kernel, so that ten of them are loaded in pairs.
"""

import torch
import triton
import triton.language as tl

from kempe_nb.kernels.triton import Compilation

#: Elements of a tile with few and with many classes.
TILE = 1_024


@triton.jit
def _log_1p(x):
    """Return log(1 + x) for x > -0.5, with a small relative error for tiny x."""
    v = x / (2.0 + x)
    w = v * v
    series = w * 0.0 + 1.0 / 23
    for step in tl.static_range(11):
        series = series * w + 1.0 / (21 - 2 * step)
    return tl.where(tl.abs(x) < 0.3, 2.0 * v * series, tl.log(1.0 + x))


@triton.jit
def _network(logits, there, column, CLASSES: tl.constexpr, KIND: tl.constexpr):
    """Load the logits of a network; return gaps, odds without the top's, and their sum."""
    z = tl.load(logits, mask=there, other=0.0).to(KIND)
    # No probability would show minus infinity.
    z = tl.where(z > float("-inf"), z, float("nan"))
    z = tl.where((column < CLASSES)[None, :], z, float("-inf"))
    gaps = tl.max(z, 1)[:, None] - z
    # The odds of the top class are one: a sum with them would lose the others.
    is_top = column[None, :] == tl.argmax(z, 1)[:, None]
    odds = tl.where(is_top, 0.0, tl.exp(-gaps))
    return gaps, odds, tl.sum(odds, 1), is_top


@triton.jit
def _log_mean(highest, total, networks, column, inside, KIND: tl.constexpr):
    """Return the logarithm of the mean over the networks, right where it is nearly zero."""
    mean = highest + tl.log(total) - tl.log(networks.to(KIND))
    mean = tl.where(inside, mean, float("-inf"))
    is_best = column[None, :] == tl.argmax(mean, 1)[:, None]
    rest = tl.sum(tl.where(is_best, 0.0, tl.exp(mean)), 1)
    own = tl.where(rest < 0.5, _log_1p(-tl.minimum(rest, 0.5)), tl.max(mean, 1))
    return tl.where(is_best, own[:, None], mean)


@triton.jit
def _add(highest, total, log_p):
    """Add a probability to a running log-sum-exp."""
    new = tl.maximum(highest, log_p)
    # The columns behind the last class stay at minus infinity.
    finite = tl.where(new > float("-inf"), new, 0.0)
    return new, total * tl.exp(highest - finite) + tl.exp(log_p - finite)


@triton.jit
def moments_kernel(
    log_mean,
    entropies,
    logits,
    networks,
    inputs,
    CLASSES: tl.constexpr,
    KIND: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write log mean [N, K], and total, expected and mutual entropy [3, N]."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    inside = (column < CLASSES)[None, :]
    there = (row < inputs)[:, None] & inside
    place = row[:, None] * CLASSES + column[None, :]
    highest = tl.full([ROWS, BLOCK], float("-inf"), KIND)
    total = tl.zeros([ROWS, BLOCK], KIND)
    expected = tl.zeros([ROWS], KIND)
    s = tl.program_id(0).to(tl.int64) * 0
    while s < networks:
        gaps, odds, rest, _ = _network(
            logits + s * inputs * CLASSES + place, there, column, CLASSES, KIND
        )
        log_z = _log_1p(rest)
        expected += log_z + tl.sum(tl.where(inside, odds * gaps, 0.0), 1) / (1.0 + rest)
        highest, total = _add(highest, total, -gaps - log_z[:, None])
        s += 1
    # By now s is the number of networks, and a tensor even where that is the constant one.
    mean = _log_mean(highest, total, s, column, inside, KIND)
    own = -tl.sum(tl.where(inside, tl.exp(mean) * mean, 0.0), 1)
    expected = expected / s.to(KIND)
    # One network agrees with itself to the last bit.
    mutual = tl.where(s > 1, tl.maximum(own - expected, 0.0), 0.0)
    tl.store(log_mean + place, mean, mask=there)
    tl.store(entropies + row, own, mask=row < inputs)
    tl.store(entropies + inputs + row, expected, mask=row < inputs)
    tl.store(entropies + 2 * inputs + row, mutual, mask=row < inputs)


@triton.jit
def _at(values, chosen):
    """Return the entry of each row that is chosen; others may be infinite."""
    return tl.sum(tl.where(chosen, values, 0.0), 1)


@triton.jit
def _away(p, chosen):
    """Return p - e of the chosen class, its entry as the sum of the others."""
    others = tl.where(chosen, 0.0, p)
    return tl.where(chosen, -tl.sum(others, 1)[:, None], others)


@triton.jit
def loss_kernel(
    values,
    log_sums,
    gradient,
    logits,
    labels,
    networks,
    inputs,
    CLASSES: tl.constexpr,
    KIND: tl.constexpr,
    MARGIN: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the loss [N], what is finite where all logits are [N], and the gradient [S, N, K]."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    inside = (column < CLASSES)[None, :]
    there = (row < inputs)[:, None] & inside
    place = row[:, None] * CLASSES + column[None, :]
    label = tl.load(labels + row, mask=row < inputs, other=0)
    is_label = column[None, :] == label[:, None]
    highest = tl.full([ROWS, BLOCK], float("-inf"), KIND)
    total = tl.zeros([ROWS, BLOCK], KIND)
    s = tl.program_id(0).to(tl.int64) * 0
    while s < networks:
        gaps, odds, rest, _ = _network(
            logits + s * inputs * CLASSES + place, there, column, CLASSES, KIND
        )
        highest, total = _add(highest, total, -gaps - _log_1p(rest)[:, None])
        s += 1
    # The logarithm of the sum, to which the shares relate, and of the mean.
    log_sum = highest + tl.log(total)
    mean = _log_mean(highest, total, s, column, inside, KIND)
    # The total has what is no number, the mean what is too large; each may hide the other.
    tl.store(log_sums + row, tl.sum(tl.where(inside, mean + total, 0.0), 1), mask=row < inputs)
    of_others = tl.where(is_label, float("-inf"), mean)
    is_rival = column[None, :] == tl.argmax(of_others, 1)[:, None]
    if MARGIN:
        tl.store(values + row, _at(mean, is_label) - tl.max(of_others, 1), mask=row < inputs)
    else:
        tl.store(values + row, -_at(mean, is_label), mask=row < inputs)
    s = tl.program_id(0).to(tl.int64) * 0
    while s < networks:
        start = s * inputs * CLASSES
        gaps, odds, rest, is_top = _network(logits + start + place, there, column, CLASSES, KIND)
        log_p = -gaps - _log_1p(rest)[:, None]
        p = tl.where(is_top, 1.0, odds) / (1.0 + rest)[:, None]
        share = tl.exp(_at(log_p, is_label) - _at(log_sum, is_label))
        made = share[:, None] * _away(p, is_label)
        if MARGIN:
            share = tl.exp(_at(log_p, is_rival) - _at(log_sum, is_rival))
            made = share[:, None] * _away(p, is_rival) - made
        tl.store(gradient + start + place, made, mask=there)
        s += 1


def moments(logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Launch `moments_kernel` for contiguous logits [S, N, K]."""
    networks, inputs, classes = logits.shape
    kind = torch.promote_types(logits.dtype, torch.float32)
    log_mean = torch.empty(inputs, classes, dtype=kind, device=logits.device)
    entropies = torch.empty(3, inputs, dtype=kind, device=logits.device)
    if inputs:
        tile = tile_of(classes)
        moments_kernel[(triton.cdiv(inputs, tile["ROWS"]),)](
            *(log_mean, entropies, logits, networks, inputs),
            **_constants(logits),
            **tile,
        )
    return log_mean, *entropies


def loss(logits: torch.Tensor, labels: torch.Tensor, margin: bool) -> tuple[torch.Tensor, ...]:
    """Launch `loss_kernel` for contiguous logits [S, N, K] and labels [N]."""
    networks, inputs, classes = logits.shape
    kind = torch.promote_types(logits.dtype, torch.float32)
    values, logs = torch.empty(2, inputs, dtype=kind, device=logits.device)
    gradient = torch.empty_like(logits)
    if inputs:
        tile = tile_of(classes)
        loss_kernel[(triton.cdiv(inputs, tile["ROWS"]),)](
            *(values, logs, gradient, logits, labels.contiguous(), networks, inputs),
            **_constants(logits),
            MARGIN=margin,
            **tile,
        )
    return values, gradient, logs


def tile_of(classes: int) -> dict:
    """Return the inputs and columns of a tile, and the warps of a program."""
    block = triton.next_power_of_2(classes)
    return {"ROWS": max(1, TILE // block), "BLOCK": block, "num_warps": 8 if block > TILE else 4}


def _constants(logits: torch.Tensor) -> dict:
    double = logits.dtype == torch.float64
    return {"CLASSES": logits.shape[2], "KIND": tl.float64 if double else tl.float32}


_MOMENTS = {
    **{"log_mean": "*fp32", "entropies": "*fp32", "logits": "*fp32"},
    **{"networks": "i64", "inputs": "i64:16"},
}
_LOSS = {
    **{"values": "*fp32", "log_sums": "*fp32", "gradient": "*fp32", "logits": "*fp32"},
    **{"labels": "*i64", "networks": "i64", "inputs": "i64:16"},
}


def _compilation(kernel, types, classes, registers, vector, dtype="fp32", **constants):
    types = {name: kind.replace("fp32", dtype) for name, kind in types.items()}
    kind = "tl.float64" if dtype == "fp64" else "tl.float32"
    constants |= {"CLASSES": classes, "KIND": kind}
    return Compilation(kernel, types, registers, constants, vector, shape=(classes,))


COMPILATIONS = {
    "moments 10": _compilation("moments_kernel", _MOMENTS, 10, 70, 2),
    "moments 1000": _compilation("moments_kernel", _MOMENTS, 1_000, 70, 4),
    "moments 8192": _compilation("moments_kernel", _MOMENTS, 8_192, 255, 4),
    "moments 10 float64": _compilation("moments_kernel", _MOMENTS, 10, 185, 2, "fp64"),
    "loss 10": _compilation("loss_kernel", _LOSS, 10, 70, 2, MARGIN=False),
    "margin 10": _compilation("loss_kernel", _LOSS, 10, 88, 2, MARGIN=True),
    "margin 1000": _compilation("loss_kernel", _LOSS, 1_000, 80, 4, MARGIN=True),
    "margin 8192": _compilation("loss_kernel", _LOSS, 8_192, 255, 4, MARGIN=True),
    "margin 10 float64": _compilation("loss_kernel", _LOSS, 10, 178, 2, "fp64", MARGIN=True),
    "margin 4096 float64": _compilation("loss_kernel", _LOSS, 4_096, 255, 2, "fp64", MARGIN=True),
}
