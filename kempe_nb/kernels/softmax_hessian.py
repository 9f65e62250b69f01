"""The Hessian of the cross-entropy with respect to the logits, times one vector or many.

For logits z in R^K, a temperature T and p = softmax(z / T), the second derivative of the
cross-entropy (and of log sum exp(z / T)) with respect to z is

    S = (diag(p) - p p^T) / T^2,      (S v)_k = p_k (v_k - p . v) / T^2.

It is the middle factor of the Gauss-Newton matrix J^T S J.

Accuracy. A constant added to v changes nothing, so the entry of v at the largest logit is taken
away first: u = v - v_top. Then p . u is a sum over the other classes alone, and no digit is lost
when p_top rounds to 1. The formula as it is written above has lost all of them by then: v_top - p.v
is the difference of two equal numbers. Here every entry is as right as the exponential of its gap,
until that underflows: at gaps of logits of 87 T in float32 and 708 T in float64.

Passes over one row and vector, in units of K elements: the definition moves 22. The Triton code
moves 3 where a row fits on chip, up to 8,192 classes in float32 and 4,096 in float64 (logits and
vector in, product out; with many vectors the logits are read once), and 5 where it does not: logits
and vector are read by the sums, and again for the product.

When not to use it: for P^T J^T S J P one product of B = sqrt(p) (u - p . u) with itself is enough
(see `projected_curvature`), and with ten classes everything is bound by launches, not by bytes.
"""

import torch

from kempe_nb.checks import check_dtype, checked_positive, common_device
from kempe_nb.dispatch import Operation


def softmax_hessian(
    logits: torch.Tensor,
    vectors: torch.Tensor,
    *,
    temperature: float = 1.0,
    impl: str | None = None,
) -> torch.Tensor:
    """Return (diag(p) - p p^T) v / T^2 for each row of logits, with p = softmax(z / T).

    The result is differentiable any number of times with respect to logits and vectors. On a CPU it
    also has forward derivatives and works under `torch.func`. For `torch.compile` take
    `definition`.

    Parameters
    ----------
    logits : float16, bfloat16, float32 or float64 [N, K]
        K from 2 on. A logit of -inf is a class that cannot occur; NaN goes through to the result.
    vectors : the dtype of logits [N, K] or [V, N, K]
        One vector for each row, or V of them.
    temperature : float
        T, positive.
    impl : {"definition", "triton"}, optional
        See `kempe_nb.dispatch`.

    Returns
    -------
    torch.Tensor
        The products, with the shape and dtype of `vectors`.

    Raises
    ------
    TypeError
        For logits or vectors that are not floating-point numbers, or of two dtypes.
    ValueError
        For shapes that do not fit, fewer than two classes, a temperature that is not a positive
        finite number, or tensors on two devices.

    Examples
    --------
    >>> softmax_hessian(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    tensor([[ 0.2500, -0.2500]])
    """
    device = common_device(logits=logits, vectors=vectors)
    _check(logits, vectors)
    temperature = checked_positive(temperature, "temperature")
    choice = OPERATION.choose(device, impl)
    if choice.implementation == "triton":
        many = vectors if vectors.ndim == 3 else vectors[None]
        return _Product.apply(logits, many, temperature).view(vectors.shape)
    return definition(logits, vectors, temperature)


def minimum_bytes(rows: int, classes: int, vectors: int = 1, itemsize: int = 4) -> int:
    """Return the bytes that must be moved: logits in once, every vector in and its product out."""
    return rows * classes * itemsize * (1 + 2 * vectors)


OPERATION = Operation(
    "softmax_hessian",
    # Of logits and vectors; the low ones are computed with in float32.
    dtypes=(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    minimum_bytes=minimum_bytes,
)


def definition(
    logits: torch.Tensor, vectors: torch.Tensor, temperature: float = 1.0, dim: int = -1
) -> torch.Tensor:
    """Return the products in PyTorch; the classes stand along `dim`, the shapes broadcast."""
    p, away = probabilities_and_deviations(logits, vectors, temperature, dim)
    # Divided twice: the square of a small temperature would underflow.
    return (p * away / temperature / temperature).to(vectors.dtype)


def probabilities_and_deviations(
    logits: torch.Tensor, vectors: torch.Tensor, temperature: float = 1.0, dim: int = -1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return p = softmax(z / T) and v - p . v, both right to rounding; see the module."""
    kind = torch.promote_types(logits.dtype, torch.float32)
    z, v = logits.to(kind), vectors.to(kind)
    highest, top = z.max(dim, keepdim=True)
    # First the difference, then the quotient: z / T may overflow where this does not.
    p = torch.softmax((z - highest.detach()) / temperature, dim)
    sizes = list(v.shape)
    sizes[dim] = 1
    away = v - v.gather(dim, top.expand(sizes))
    return p, away - (p * away).sum(dim, keepdim=True)


class _Product(torch.autograd.Function):
    """The Triton code with its derivatives; vectors are [V, N, K].

    With deviations v' = v - p . v and g' of the incoming gradient g, the derivative with respect to
    the vectors is S g, and with respect to the logits p (g' v' - p . (g' v')) / T^3.
    """

    @staticmethod
    def forward(logits, vectors, temperature):
        from kempe_nb.kernels.triton import softmax_hessian as device_code

        return device_code.product(logits, vectors, temperature)

    @staticmethod
    def setup_context(context, inputs, output):
        logits, vectors, context.temperature = inputs
        context.save_for_backward(logits, vectors)

    @staticmethod
    def backward(context, gradient):
        logits, vectors = context.saved_tensors
        t = context.temperature
        of_logits = of_vectors = None
        if context.needs_input_grad[1]:
            of_vectors = _Product.apply(logits, gradient, t)
        if context.needs_input_grad[0]:
            p, v = probabilities_and_deviations(logits, vectors, t)
            _, g = probabilities_and_deviations(logits, gradient, t)
            both = g * v
            third = p * (both - (p * both).sum(-1, keepdim=True)) / t / t / t
            of_logits = third.sum(0).to(logits.dtype)
        return of_logits, of_vectors, None


def _check(logits: torch.Tensor, vectors: torch.Tensor) -> None:
    for name, tensor in (("logits", logits), ("vectors", vectors)):
        check_dtype(tensor, name, OPERATION.dtypes)
    if logits.dtype != vectors.dtype:
        raise TypeError(f"logits is {logits.dtype}, vectors {vectors.dtype}; accepted is one dtype")
    fits = vectors.ndim in (2, 3) and vectors.shape[-2:] == logits.shape
    if logits.ndim != 2 or not fits:
        shapes = f"logits has shape {tuple(logits.shape)}, vectors {tuple(vectors.shape)}"
        raise ValueError(f"{shapes}; accepted are [N, K] and [N, K] or [V, N, K]")
    if logits.shape[1] < 2:
        raise ValueError(f"logits has {logits.shape[1]} classes; accepted are 2 or more")
