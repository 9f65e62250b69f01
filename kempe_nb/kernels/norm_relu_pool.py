"""Instance normalisation, ReLU and 2 x 2 average pooling in one, with closed first and second
derivatives: the block between two convolutions of the ConvNet that data sets are distilled with.

For one plane x of n = H W pixels (one channel of one image), gamma and beta its weight and bias:

    h = (x - mean x) / s,    s = sqrt(var x + eps),    y = pool(relu(gamma h + beta)).

In three lines of PyTorch, which the tests hold every implementation to, it is `composite`.

First derivatives. With the mask m = [gamma h + beta > 0], v the gradient of y, unpool(v) its values
on the four pixels of each window, and u = m unpool(v) / 4:

    d gamma = sum u h,    d beta = sum u,    dx = gamma J u,
    J z = (z - mean z - h mean(z h)) / s,    which is symmetric.

Second derivatives. Let a, p, q be what comes back for dx, d gamma, d beta. Then
phi = <a, dx> + p d gamma + q d beta has the derivatives

    of v:      pool(m (gamma J a + p h + q)),
    of gamma:  <a, J u>,    of beta: 0,
    of x:      p J u - gamma / (n s) (<a, J u> h + <a, h> J u + <u, h> J a).

(Derived here; the mask counts as a constant, which it is almost everywhere.) All sums are over one
plane, so each of the three orders is one turn over a plane that stays on chip.

Passes over x, forward and backward and double backward together: composite operations move 91 to
94 under autograd, in some 130 kernels. The Triton code moves 7: x in and a quarter out; x and a
quarter in, dx out; x, a and a quarter in, one and a quarter out.

On a CPU the definition is a sequence of PyTorch operations. It pools by a product with a matrix of
quarters, which is several times faster there than PyTorch's pooling, and saves nothing but x.

When not to use it: for a forward pass alone, or in forward-mode derivatives; take `composite`.
"""

from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional as F

from kempe_nb.checks import check_dtype, checked_positive, common_device
from kempe_nb.dispatch import Operation

#: The largest plane that the Triton code holds on chip, in pixels after padding to powers of two.
ON_CHIP = 64 * 64
#: Pixels of the largest plane that is pooled by one product with a matrix [pixels, pixels / 4].
ONE_PRODUCT = 64

_aten = torch.ops.aten
_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


def norm_relu_pool(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float = 1e-5,
    *,
    impl: str | None = None,
) -> torch.Tensor:
    """Return avg_pool2d(relu(instance_norm(x) weight + bias), 2).

    It can be differentiated any number of times backwards, by autograd and under `torch.func`, also
    within `torch.func.vmap` (but not with `is_grads_batched=True`, which knows fewer operations).
    First and second derivatives are closed forms; from the third on autograd differentiates these.
    Forward-mode derivatives are not implemented. `torch.compile` takes `composite` in place of the
    definition, and fuses it; for second derivatives call `torch.func.vjp` or `grad` inside the
    compiled function. The Triton code can be compiled into a larger function with its first
    derivatives; PyTorch 2.13 loses the second ones there.

    Parameters
    ----------
    x : float16, bfloat16, float32 or float64 [N, C, H, W]
        H and W from 2 on. Of an odd size the last row or column counts for mean and variance, and
        is left out by the pooling, as in PyTorch.
    weight, bias : the dtype of x [C]
        `nn.GroupNorm(C, C)` calls them so, too.
    eps : float
        What is added to the variance, positive.
    impl : {"definition", "triton"}, optional
        See `kempe_nb.dispatch`. Triton takes planes of at most 64 x 64 pixels.

    Returns
    -------
    torch.Tensor
        [N, C, H // 2, W // 2], with the dtype of x.

    Raises
    ------
    TypeError
        For anything but floating-point tensors of one dtype.
    ValueError
        For shapes that do not fit, planes with a side below 2, an eps that is not a positive finite
        number, or tensors on different devices.

    Examples
    --------
    >>> x = torch.tensor([[[[0.0, 2.0], [0.0, 2.0]]]])
    >>> norm_relu_pool(x, torch.ones(1), torch.zeros(1)).item()
    0.5
    """
    device = common_device(x=x, weight=weight, bias=bias)
    _check(x, weight, bias)
    eps = checked_positive(eps, "eps")
    implementation = _chosen(str(device), impl, _obstacle(x))
    if implementation == "definition" and torch.compiler.is_compiling():
        # The compiler fuses it, and loses the second derivatives of an autograd.Function.
        return composite(x, weight, bias, eps)
    # One weight for each plane: expanding is a view, and its derivative is the sum over images.
    own = (each.expand(x.shape[:2]) for each in (weight, bias))
    return _Forward.apply(x, *own, eps, implementation)


def composite(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float = 1e-5
) -> torch.Tensor:
    """Return the same by operations of PyTorch, differentiable in every mode: the specification."""
    normalised = F.group_norm(x, x.shape[1], weight, bias, eps)
    return F.avg_pool2d(F.relu(normalised), 2)


def minimum_bytes(planes: int, height: int, width: int, itemsize: int = 4) -> tuple[int, int, int]:
    """Return the bytes that forward, backward and double backward must move, without weights."""
    pixels, pooled = height * width, (height // 2) * (width // 2)
    turns = (pixels + pooled, 2 * pixels + pooled, 3 * pixels + 2 * pooled)
    return tuple(planes * itemsize * each for each in turns)


OPERATION = Operation(
    "norm_relu_pool",
    # Of images; the low ones are computed with in float32.
    dtypes=(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    minimum_bytes=minimum_bytes,
)


class _Forward(torch.autograd.Function):
    """The operation; weight and bias are [N, C], one number for each plane."""

    @staticmethod
    def forward(x, weight, bias, eps, implementation):
        if implementation == "triton":
            return _device_code("forward")(x, weight, bias, eps)
        return _low_precision_aside(_forward, x, weight, bias, eps=eps)

    @staticmethod
    def setup_context(context, inputs, output):
        *tensors, context.eps, context.implementation = inputs
        context.save_for_backward(*tensors)

    @staticmethod
    def backward(context, gradient):
        made = _Backward.apply(
            *context.saved_tensors, gradient, context.eps, context.implementation
        )
        return *made, None, None

    @staticmethod
    def vmap(info, in_dims, *inputs):
        return _folded(_Forward, info, in_dims, inputs)


class _Backward(torch.autograd.Function):
    """The first derivatives as a function of x, weight, bias and the gradient of the output."""

    @staticmethod
    def forward(x, weight, bias, gradient, eps, implementation):
        if implementation == "triton":
            return _device_code("backward")(x, weight, bias, gradient, eps)
        return _low_precision_aside(_backward, x, weight, bias, gradient, eps=eps)

    @staticmethod
    def setup_context(context, inputs, output):
        *tensors, context.eps, context.implementation = inputs
        context.save_for_backward(*tensors)

    @staticmethod
    def backward(context, *returned):
        of_x, of_weight, of_gradient = _DoubleBackward.apply(
            *context.saved_tensors, *returned, context.eps, context.implementation
        )
        # The bias moves the mask alone.
        return of_x, of_weight, None, of_gradient, None, None

    @staticmethod
    def vmap(info, in_dims, *inputs):
        return _folded(_Backward, info, in_dims, inputs)


class _DoubleBackward(torch.autograd.Function):
    """The second derivatives as a function; from here on autograd differentiates the formula."""

    @staticmethod
    def forward(x, weight, bias, gradient, a, p, q, eps, implementation):
        if implementation == "triton":
            return _device_code("double_backward")(x, weight, bias, gradient, a, p, q, eps)
        return _low_precision_aside(_double_backward, x, weight, bias, gradient, a, p, q, eps=eps)

    @staticmethod
    def setup_context(context, inputs, output):
        *tensors, context.eps, _ = inputs
        context.save_for_backward(*tensors)

    @staticmethod
    def backward(context, *returned):
        def formula(*tensors):
            eps = context.eps
            return _low_precision_aside(_differentiable_double_backward, *tensors, eps=eps)

        _, pull = torch.func.vjp(formula, *context.saved_tensors)
        return *pull(returned), None, None

    @staticmethod
    def vmap(info, in_dims, *inputs):
        return _folded(_DoubleBackward, info, in_dims, inputs)


def _chosen(device: str, impl: str | None, obstacle: str | None) -> str:
    """Return the implementation; compiled code keeps the one that was chosen when it was traced."""
    obstacles = {"triton": obstacle}
    return OPERATION.choose(torch.device(device), impl, obstacles=obstacles).implementation


# What torch.compiler.assume_constant_result does; that would import the compiler, and Triton.
_chosen._dynamo_marked_constant = True


def _device_code(name: str):
    """Return a launcher of the Triton code, for compiled code the operation that stands for it."""
    from kempe_nb.kernels.triton import norm_relu_pool as device_code

    return getattr(device_code, f"{name}_op" if torch.compiler.is_compiling() else name)


def _folded(function, info, in_dims, inputs):
    """Take the new axis as more images: every plane has its own weights already."""
    count, folded = info.batch_size, []
    for value, dim in zip(inputs, in_dims, strict=True):
        if isinstance(value, torch.Tensor):
            whole = value.expand(count, *value.shape) if dim is None else value.movedim(dim, 0)
            value = whole.flatten(0, 1)
        folded.append(value)
    made = function.apply(*folded)
    parts = made if isinstance(made, tuple) else (made,)
    apart = tuple(part.unflatten(0, (count, -1)) for part in parts)
    return (apart, (0,) * len(apart)) if isinstance(made, tuple) else (apart[0], 0)


def _low_precision_aside(function, *tensors, eps):
    """Call a function in float32 where the dtype is lower, and return the dtype as it was.

    Autocast would lower the products with matrices again.
    """
    dtype, place = tensors[0].dtype, tensors[0].device.type
    if torch.is_autocast_enabled(place):
        with torch.autocast(place, enabled=False):
            return _low_precision_aside(function, *tensors, eps=eps)
    if dtype in (torch.float32, torch.float64):
        return function(*tensors, eps)
    made = function(*(each.float() for each in tensors), eps)
    return tuple(each.to(dtype) for each in made) if isinstance(made, tuple) else made.to(dtype)


def _forward(x, weight, bias, eps):
    h, _, _ = _normalised(x, eps)
    return _pool(torch.relu(_affine(h, weight, bias)))


def _backward(x, weight, bias, gradient, eps):
    """Return dx [N, C, H, W], d weight and d bias [N, C]."""
    h, mean, rs = _normalised(x, eps)
    u = _through_mask(gradient, h, weight, bias)
    planes = mean.numel()
    shape = 1, planes, *x.shape[2:]
    # PyTorch's kernel takes every tensor for contiguous, and does not check the weights.
    u, flat, own = (
        each.reshape(size).contiguous() for each, size in ((u, shape), (x, shape), (weight, planes))
    )
    of_x, of_weight, of_bias = _aten.native_group_norm_backward(
        u, flat, mean, rs, own, 1, planes, x.shape[2] * x.shape[3], planes, [True, True, True]
    )
    of_weight, of_bias = (each.view(weight.shape) for each in (of_weight, of_bias))
    return of_x.view(x.shape), of_weight, of_bias


def _double_backward(x, weight, bias, v, a, p, q, eps):
    """Return the second derivatives: of x [N, C, H, W], weight [N, C] and v."""
    h, _, rs = _normalised(x, eps)
    return _second_derivatives(h, rs.view(weight.shape), weight, bias, v, a, p, q)


def _differentiable_double_backward(x, weight, bias, v, a, p, q, eps):
    """Return the same; PyTorch's group norm does not differentiate the 1 / s that it returns."""
    centred = x - x.mean((2, 3), keepdim=True)
    rs = torch.rsqrt(centred.square().mean((2, 3)) + eps)
    h = centred * rs[..., None, None]
    return _second_derivatives(h, rs, weight, bias, v, a, p, q)


def _second_derivatives(h, rs, weight, bias, v, a, p, q):
    """Return the formulas of the module from h [N, C, H, W] and 1 / s [N, C].

    Each of h, u and a enters the derivative of x with one factor for the plane, and that of v
    likewise; the factors are [N, C, 1].
    """
    size = h.shape[2:]
    pixels = size[0] * size[1]
    u, before = _through_mask(v, h, weight, bias).flatten(2), _affine(h, weight, bias)
    gamma, p, q, rs = (each[..., None] for each in (weight, p, q, rs))
    h, a = h.flatten(2), a.flatten(2)
    mean_u, mean_a = (each.mean(2, keepdim=True) for each in (u, a))
    uh, ah, ua = (
        torch.linalg.vecdot(one, other)[..., None] / pixels
        for one, other in ((u, h), (a, h), (u, a))
    )
    # <a, J u> / n, and the factors of h, u and a.
    aju = rs * (ua - mean_u * mean_a - uh * ah)
    scale = gamma * rs
    of_u = rs * (p - scale * ah)
    of_a = -scale * rs * uh
    of_h = -(scale * aju + of_u * uh + of_a * ah)
    rest = -(of_u * mean_u + of_a * mean_a)
    of_x = h * of_h + u * of_u + a * of_a + rest
    inner = a * scale + h * (p - scale * ah) + (q - scale * mean_a)
    masked = _aten.threshold_backward(inner.unflatten(2, size), before, 0)
    return of_x.unflatten(2, size), (pixels * aju).squeeze(2), _pool(masked)


def _normalised(x, eps):
    """Return h [N, C, H, W], and mean and 1 / s of each plane, [1, N C]."""
    planes = x.shape[0] * x.shape[1]
    if not planes:
        return torch.zeros_like(x), x.new_zeros(1, 0), x.new_zeros(1, 0)
    flat = x.reshape(1, planes, *x.shape[2:]).contiguous()
    pixels = x.shape[2] * x.shape[3]
    h, mean, rs = torch.native_group_norm(flat, None, None, 1, planes, pixels, planes, eps)
    return h.view(x.shape), mean, rs


def _affine(h, weight, bias):
    """Return gamma h + beta, whose sign is the mask."""
    return h * weight[..., None, None] + bias[..., None, None]


def _through_mask(gradient, h, weight, bias):
    """Return u = m unpool(v) / 4."""
    spread = _unpool(gradient, *h.shape[2:])
    return _aten.threshold_backward(spread, _affine(h, weight, bias), 0)


def _pool(x):
    """Return the means of the 2 x 2 windows, [N, C, H // 2, W // 2]."""
    height, width = x.shape[2:]
    if x.is_cuda:
        return F.avg_pool2d(x, 2)
    if height * width <= ONE_PRODUCT:
        matrix = _quarters(height, width, x.dtype)
        return (x.flatten(2) @ matrix).unflatten(2, (height // 2, width // 2))
    even = 2 * (height // 2)
    rows = x[:, :, 0:even:2] + x[:, :, 1:even:2]
    return rows @ _quarters(1, width, x.dtype)


def _unpool(v, height, width):
    """Return a quarter of each number on the four pixels of its window, [N, C, H, W]."""
    if height * width <= ONE_PRODUCT and not v.is_cuda:
        return (v.flatten(2) @ _quarters(height, width, v.dtype).T).unflatten(2, (height, width))
    rows = v.repeat_interleave(2, 3) / 4 if v.is_cuda else v @ _quarters(1, width, v.dtype).T
    spread = torch.stack([rows, rows], 3).flatten(2, 3)
    return F.pad(spread, (0, width - spread.shape[3], 0, height - spread.shape[2]))


def _quarters(height: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    """Return the matrix of 2 x 2 pooling, [pixels, pooled pixels], or for one row alone."""
    if torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is None:
        return _kept_quarters(height, width, dtype)
    # Among fake tensors it is a fake one, too, and must not be kept.
    return _made_quarters(height, width, dtype)


@lru_cache(maxsize=64)
def _kept_quarters(height: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    """Return the matrix, always the same tensor: a record of operations holds it once."""
    with torch.inference_mode(False):
        return _made_quarters(height, width, dtype)


def _made_quarters(height: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    """Make the matrix in NumPy: what PyTorch computes during a trace belongs to the trace."""
    rows, columns = max(height // 2, 1), width // 2
    matrix = np.zeros((height, width, rows, columns), _NUMPY[dtype])
    for i in range(min(height, 2 * rows)):
        for j in range(2 * columns):
            matrix[i, j, i // 2, j // 2] = 0.25
    return torch.from_numpy(matrix.reshape(height * width, -1))


def _obstacle(x: torch.Tensor) -> str | None:
    height, width = (1 << (size - 1).bit_length() for size in x.shape[2:])
    if height * width <= ON_CHIP:
        return None
    return f"a plane has {tuple(x.shape[2:])} pixels; on chip there is room for 64 x 64"


def _check(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> None:
    check_dtype(x, "x", OPERATION.dtypes)
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor.dtype != x.dtype:
            raise TypeError(f"x is {x.dtype}, {name} {tensor.dtype}; accepted is one dtype")
    if x.ndim != 4 or min(x.shape[2:]) < 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; accepted is [N, C, H, W], H and W above 1")
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor.shape != x.shape[1:2]:
            found = f"{name} has shape {tuple(tensor.shape)}"
            raise ValueError(f"{found}; accepted is [{x.shape[1]}], the channels of x")
