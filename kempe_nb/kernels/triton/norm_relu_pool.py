"""Triton code of `kempe_nb.kernels.norm_relu_pool`: one kernel for each order of derivatives.

A program takes a few whole planes, [PLANES, BH BW], where BH and BW are height and width padded to
powers of two. The planes stay in registers while their sums are taken. For pooling a plane is seen
as [BH / 2, 2, BW / 2, 2]; a row or column that the pooling leaves out falls into windows that are
not there.

Bytes, in units of planes times pixels: 1.25 forward, 2.25 backward, 3.5 double backward, which is
the least. Each program also reads two numbers for each plane, and at the second and third order
reads or writes two more.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kempe_nb.kernels.triton import Compilation

#: Elements of a tile, unless one plane has more.
TILE = 1_024
#: Elements that a warp takes; with twice as many the first derivatives of 64 x 64 planes spill.
PER_WARP = 256


@triton.jit
def _plane_sums(z):
    return tl.sum(z, 1)[:, None]


@triton.jit
def _pooled(z, PLANES: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr):
    """Return the sums over 2 x 2 windows, [PLANES, BH / 2, BW / 2]."""
    windows = tl.reshape(z, (PLANES, BH // 2, 2, BW // 2, 2))
    return tl.sum(tl.sum(windows, 4), 2)


@triton.jit
def _spread(v, PLANES: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr):
    """Return each number on the four pixels of its window, [PLANES, BH BW]."""
    shape: tl.constexpr = (PLANES, BH // 2, 2, BW // 2, 2)
    return tl.reshape(tl.broadcast_to(v[:, :, None, :, None], shape), (PLANES, BH * BW))


@triton.jit
def _pixels(
    planes,
    H: tl.constexpr,
    W: tl.constexpr,
    PLANES: tl.constexpr,
    BH: tl.constexpr,
    BW: tl.constexpr,
):
    """Return the numbers of the planes, where pixels lie in memory, and which are there."""
    plane = tl.program_id(0).to(tl.int64) * PLANES + tl.arange(0, PLANES)
    pixel = tl.arange(0, BH * BW)
    row = pixel // BW
    column = pixel % BW
    there = (plane < planes)[:, None] & ((row < H) & (column < W))[None, :]
    return plane, plane[:, None] * (H * W) + (row * W + column)[None, :], there


@triton.jit
def _windows(plane, planes, H: tl.constexpr, W: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr):
    """Return where the pooled numbers lie in memory, and which are there, [PLANES, BH/2, BW/2]."""
    row = tl.arange(0, BH // 2)[None, :, None]
    column = tl.arange(0, BW // 2)[None, None, :]
    own = plane[:, None, None]
    there = (own < planes) & (row < H // 2) & (column < W // 2)
    return own * ((H // 2) * (W // 2)) + row * (W // 2) + column, there


@triton.jit
def _of_planes(values, plane, planes, channels, stride, kind: tl.constexpr):
    """Return one number for each plane from [N, C] with the given stride of images."""
    place = (plane // channels) * stride + plane % channels
    return tl.load(values + place, mask=plane < planes, other=0.0).to(kind)[:, None]


@triton.jit
def _normalised(z, there, EPS: tl.constexpr, PIXELS: tl.constexpr):
    """Return h, zero where no pixel is, and 1 / s."""
    centred = tl.where(there, z - _plane_sums(z) / PIXELS, 0.0)
    rs = 1.0 / tl.sqrt(_plane_sums(centred * centred) / PIXELS + EPS)
    return centred * rs, rs


@triton.jit
def _before_relu(
    x,
    weight,
    bias,
    plane,
    place,
    there,
    planes,
    channels,
    stride,
    KIND: tl.constexpr,
    EPS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Load the planes; return h, 1 / s, gamma and gamma h + beta."""
    z = tl.load(x + place, mask=there, other=0.0).to(KIND)
    h, rs = _normalised(z, there, EPS, PIXELS)
    gamma = _of_planes(weight, plane, planes, channels, stride, KIND)
    beta = _of_planes(bias, plane, planes, channels, stride, KIND)
    return h, rs, gamma, gamma * h + beta


@triton.jit
def forward_kernel(
    out,
    x,
    weight,
    bias,
    planes,
    channels,
    stride,
    KIND: tl.constexpr,
    EPS: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    PLANES: tl.constexpr,
    BH: tl.constexpr,
    BW: tl.constexpr,
):
    """Write the pooled planes."""
    plane, place, there = _pixels(planes, H, W, PLANES, BH, BW)
    _, _, _, before = _before_relu(
        x, weight, bias, plane, place, there, planes, channels, stride, KIND, EPS, H * W
    )
    # A plane with NaN stays NaN, as in PyTorch.
    active = tl.maximum(before, 0.0, propagate_nan=tl.PropagateNan.ALL)
    window, inside = _windows(plane, planes, H, W, BH, BW)
    tl.store(out + window, 0.25 * _pooled(active, PLANES, BH, BW), mask=inside)


@triton.jit
def backward_kernel(
    of_x,
    of_weight,
    of_bias,
    x,
    weight,
    bias,
    v,
    planes,
    channels,
    stride,
    KIND: tl.constexpr,
    EPS: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    PLANES: tl.constexpr,
    BH: tl.constexpr,
    BW: tl.constexpr,
):
    """Write dx, and one number for each plane of d weight and d bias."""
    plane, place, there = _pixels(planes, H, W, PLANES, BH, BW)
    h, rs, gamma, before = _before_relu(
        x, weight, bias, plane, place, there, planes, channels, stride, KIND, EPS, H * W
    )
    window, inside = _windows(plane, planes, H, W, BH, BW)
    spread = _spread(tl.load(v + window, mask=inside, other=0.0).to(KIND), PLANES, BH, BW)
    u = tl.where(before > 0, 0.25 * spread, 0.0)
    total = _plane_sums(u)
    moment = _plane_sums(u * h)
    made = gamma * rs * (u - total / (H * W) - h * (moment / (H * W)))
    tl.store(of_x + place, made, mask=there)
    tl.store(of_weight + plane[:, None], moment, mask=(plane < planes)[:, None])
    tl.store(of_bias + plane[:, None], total, mask=(plane < planes)[:, None])


@triton.jit
def double_backward_kernel(
    of_x,
    of_weight,
    of_v,
    x,
    weight,
    bias,
    v,
    a,
    p,
    q,
    planes,
    channels,
    stride,
    back_stride,
    KIND: tl.constexpr,
    EPS: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    PLANES: tl.constexpr,
    BH: tl.constexpr,
    BW: tl.constexpr,
):
    """Write the second derivatives of x, weight and v; the factors are those of the definition."""
    plane, place, there = _pixels(planes, H, W, PLANES, BH, BW)
    h, rs, gamma, before = _before_relu(
        x, weight, bias, plane, place, there, planes, channels, stride, KIND, EPS, H * W
    )
    p = _of_planes(p, plane, planes, channels, back_stride, KIND)
    q = _of_planes(q, plane, planes, channels, back_stride, KIND)
    window, inside = _windows(plane, planes, H, W, BH, BW)
    spread = _spread(tl.load(v + window, mask=inside, other=0.0).to(KIND), PLANES, BH, BW)
    u = tl.where(before > 0, 0.25 * spread, 0.0)
    a = tl.load(a + place, mask=there, other=0.0).to(KIND)
    mean_u = _plane_sums(u) / (H * W)
    mean_a = _plane_sums(a) / (H * W)
    uh = _plane_sums(u * h) / (H * W)
    ah = _plane_sums(a * h) / (H * W)
    aju = rs * (_plane_sums(u * a) / (H * W) - mean_u * mean_a - uh * ah)
    scale = gamma * rs
    of_u = rs * (p - scale * ah)
    of_a = -scale * rs * uh
    of_h = -(scale * aju + of_u * uh + of_a * ah)
    made = h * of_h + (u - mean_u) * of_u + (a - mean_a) * of_a
    tl.store(of_x + place, made, mask=there)
    tl.store(of_weight + plane[:, None], aju * (H * W), mask=(plane < planes)[:, None])
    inner = tl.where(before > 0, (a - mean_a - ah * h) * scale + p * h + q, 0.0)
    tl.store(of_v + window, 0.25 * _pooled(inner, PLANES, BH, BW), mask=inside)


def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Launch the kernel for x [N, C, H, W], weight and bias [N, C]; return [N, C, H/2, W/2]."""
    x = x.contiguous()
    out = x.new_empty(*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2)
    (weight, bias), stride = _rows(weight, bias)
    _launch(forward_kernel, x, eps, out, x, weight, bias, strides=(stride,))
    return out


def backward(
    x: Tensor, weight: Tensor, bias: Tensor, v: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Launch the kernel of the first derivatives; return those of x, weight and bias."""
    x, v = x.contiguous(), v.contiguous()
    (weight, bias), stride = _rows(weight, bias)
    made = x.new_empty(x.shape), x.new_empty(x.shape[:2]), x.new_empty(x.shape[:2])
    _launch(backward_kernel, x, eps, *made, x, weight, bias, v, strides=(stride,))
    return made


def double_backward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    v: Tensor,
    a: Tensor,
    p: Tensor,
    q: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Launch the kernel of the second derivatives; return those of x, weight and v."""
    x, v, a = x.contiguous(), v.contiguous(), a.contiguous()
    (weight, bias), stride = _rows(weight, bias)
    (p, q), back_stride = _rows(p, q)
    made = x.new_empty(x.shape), x.new_empty(x.shape[:2]), v.new_empty(v.shape)
    tensors = *made, x, weight, bias, v, a, p, q
    _launch(double_backward_kernel, x, eps, *tensors, strides=(stride, back_stride))
    return made


def tile_of(height: int, width: int) -> dict:
    """Return the planes of a program, their padded sides, and the warps."""
    sides = triton.next_power_of_2(height), triton.next_power_of_2(width)
    planes = max(1, TILE // (sides[0] * sides[1]))
    warps = max(4, planes * sides[0] * sides[1] // PER_WARP)
    return {"PLANES": planes, "BH": sides[0], "BW": sides[1], "num_warps": warps}


def _rows(*pair: Tensor) -> tuple[tuple[Tensor, ...], int]:
    """Return two [N, C] tensors with the same stride of images, zero where both are expanded."""
    if any(each.stride(1) != 1 for each in pair) or pair[0].stride(0) != pair[1].stride(0):
        pair = tuple(each.contiguous() for each in pair)
    return pair, pair[0].stride(0)


def _launch(kernel, x, eps, *tensors, strides) -> None:
    planes = x.shape[0] * x.shape[1]
    if not planes:
        return
    double = x.dtype == torch.float64
    tile = tile_of(*x.shape[2:])
    kernel[(triton.cdiv(planes, tile["PLANES"]),)](
        *(*tensors, planes, x.shape[1], *strides),
        KIND=tl.float64 if double else tl.float32,
        EPS=eps,
        H=x.shape[2],
        W=x.shape[3],
        **tile,
    )


#: The launchers as operations that `torch.compile` takes as they are.
forward_op = torch.library.custom_op("kempe_nb::norm_relu_pool", forward, mutates_args=())
backward_op = torch.library.custom_op(
    "kempe_nb::norm_relu_pool_backward", backward, mutates_args=()
)
double_backward_op = torch.library.custom_op(
    "kempe_nb::norm_relu_pool_double_backward", double_backward, mutates_args=()
)


@forward_op.register_fake
def _(x, weight, bias, eps):
    return x.new_empty(*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2)


@backward_op.register_fake
def _(x, weight, bias, v, eps):
    return x.new_empty(x.shape), x.new_empty(x.shape[:2]), x.new_empty(x.shape[:2])


@double_backward_op.register_fake
def _(x, weight, bias, v, a, p, q, eps):
    return x.new_empty(x.shape), x.new_empty(x.shape[:2]), v.new_empty(v.shape)


_PLANES = {
    **dict.fromkeys(("out", "of_x", "of_weight", "of_bias", "of_v"), "*fp32"),
    **dict.fromkeys(("x", "weight", "bias", "v", "a", "p", "q"), "*fp32"),
    **{"planes": "i64", "channels": "i64", "stride": "i64:16", "back_stride": "i64:16"},
}
_ARGUMENTS = {
    "forward": "out x weight bias planes channels stride",
    "backward": "of_x of_weight of_bias x weight bias v planes channels stride",
    "double_backward": "of_x of_weight of_v x weight bias v a p q planes channels stride "
    "back_stride",
}


def _compilation(order, side, registers, dtype="fp32", vector=4) -> Compilation:
    """Return an order of derivatives for planes of some side; a low dtype computes in float32."""
    types = {name: _PLANES[name].replace("fp32", dtype) for name in _ARGUMENTS[order].split()}
    kind = "tl.float64" if dtype == "fp64" else "tl.float32"
    constants = {"H": side[0], "W": side[1], "EPS": 1e-5, "KIND": kind}
    return Compilation(f"{order}_kernel", types, registers, constants, vector, side)


COMPILATIONS = {
    "forward 8": _compilation("forward", (8, 8), 36, vector=2),
    "forward 64": _compilation("forward", (64, 64), 34, vector=2),
    "backward 8": _compilation("backward", (8, 8), 47),
    "backward 64": _compilation("backward", (64, 64), 36),
    "backward 64 float64": _compilation("backward", (64, 64), 80, "fp64", vector=2),
    "double backward 8": _compilation("double_backward", (8, 8), 62),
    "double backward 32 bfloat16": _compilation("double_backward", (32, 32), 62, "bf16"),
    "double backward 9 x 12": _compilation("double_backward", (9, 12), 80),
    "double backward 64": _compilation("double_backward", (64, 64), 70),
    "double backward 8 float64": _compilation("double_backward", (8, 8), 180, "fp64", vector=2),
    "double backward 64 float64": _compilation("double_backward", (64, 64), 126, "fp64", vector=2),
}
