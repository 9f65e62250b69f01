"""The softmax Hessian: against dense matrices, derivatives of log sum exp, and exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from kempe_nb import Traffic, softmax_hessian
from kempe_nb.kernels import softmax_hessian as module
from kempe_nb.kernels.softmax_hessian import minimum_bytes

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def draw(rows, classes, *vectors, dtype=torch.float64, scale=2.0, seed=0):
    """Return logits [rows, classes] and vectors [*vectors, rows, classes]."""
    rng = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(rows, classes, generator=rng, dtype=torch.float64)
    v = torch.randn(*vectors, rows, classes, generator=rng, dtype=torch.float64)
    return logits.to(dtype), v.to(dtype)


def dense(logits, temperature=1.0):
    """Return the matrices (diag(p) - p p^T) / T^2 in NumPy's float64, [N, K, K].

    Rows sum to zero, and this gives the diagonal: p - p^2 loses the digits of a p that is nearly 1.
    """
    z = logits.double().numpy() / temperature
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    off = -p[:, :, None] * p[:, None, :] * (1 - np.eye(p.shape[1]))
    return (off - off.sum(2)[:, :, None] * np.eye(p.shape[1])) / temperature**2


@given(
    st.integers(0, 5),
    st.integers(2, 30),
    st.lists(st.integers(0, 3), max_size=1),
    st.sampled_from(DTYPES),
    st.floats(0.1, 10),
    st.integers(0, 2**32),
)
@settings(deadline=None)
def test_products_with_the_dense_matrix(rows, classes, vectors, dtype, temperature, seed):
    logits, v = draw(rows, classes, *vectors, dtype=dtype, seed=seed)
    found = softmax_hessian(logits, v, temperature=temperature)
    assert (found.dtype, found.shape) == (dtype, v.shape)
    matrices = dense(logits, temperature)
    expected = np.einsum("nij,...nj->...ni", matrices, v.double().numpy())
    eps = torch.finfo(dtype).eps
    # A logit that is rounded by eps of itself changes its exponential by as much times the logit.
    gap = float((logits.amax(1) - logits.amin(1)).max()) / temperature if rows else 0.0
    # What is smaller than this has fewer digits, or none.
    smallest = eps * torch.finfo(dtype).smallest_normal
    atol = 16 * eps * np.abs(expected).max(initial=0) + smallest
    np.testing.assert_allclose(found.double(), expected, rtol=(4 + gap) * eps, atol=atol)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_it_is_the_hessian_of_the_cross_entropy(temperature):
    logits, v = draw(1, 6)
    label = torch.tensor([2])

    def loss(z):
        return torch.nn.functional.cross_entropy(z / temperature, label)

    matrix = torch.autograd.functional.hessian(loss, logits)[0, :, 0]
    found = softmax_hessian(logits, v, temperature=temperature)
    torch.testing.assert_close(found[0], matrix @ v[0], rtol=1e-12, atol=1e-14)


@given(st.floats(-50, 50), st.integers(0, 2**32))
@settings(deadline=None)
def test_constants_change_nothing(constant, seed):
    logits, v = draw(3, 7, seed=seed)
    one = softmax_hessian(logits, v)
    torch.testing.assert_close(softmax_hessian(logits + constant, v), one, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(softmax_hessian(logits, v + constant), one, rtol=1e-9, atol=1e-12)


@given(st.integers(0, 2**32))
@settings(deadline=None)
def test_symmetric_positive_and_without_a_sum(seed):
    logits, (v, w) = draw(4, 9, 2, seed=seed)
    of_v, of_w = softmax_hessian(logits, torch.stack([v, w]))
    torch.testing.assert_close((w * of_v).sum(1), (v * of_w).sum(1), rtol=1e-9, atol=1e-12)
    assert ((v * of_v).sum(1) > 0).all()
    torch.testing.assert_close(of_v.sum(1), torch.zeros(4).double(), rtol=0, atol=1e-13)


# Confident rows


def exact(gap: int, v: list[int]) -> list[Fraction]:
    """Return S v for two classes whose logits differ by `gap`, in exact arithmetic but for exp."""
    odds = Fraction(float(np.exp(-np.float64(gap))))
    p = 1 / (1 + odds)
    return [p * (1 - p) * (v[0] - v[1]), p * (1 - p) * (v[1] - v[0])]


@pytest.mark.parametrize(
    ("dtype", "gaps"), [(torch.float32, (5, 20, 80)), (torch.float64, (40, 700))]
)
def test_no_digit_is_lost_when_a_probability_rounds_to_one(dtype, gaps):
    for gap in gaps:
        logits, v = torch.tensor([[gap, 0]], dtype=dtype), torch.tensor([[3, 1]], dtype=dtype)
        expected = [float(number) for number in exact(gap, [3, 1])]
        found = softmax_hessian(logits, v)[0]
        np.testing.assert_allclose(found.double(), expected, rtol=8 * torch.finfo(dtype).eps)


def test_the_formula_as_written_loses_them_all():
    logits, v = torch.tensor([[20.0, 0.0]]), torch.tensor([[3.0, 1.0]])
    p = logits.softmax(1)
    written = p * (v - (p * v).sum(1, keepdim=True))
    assert written[0, 0] == 0
    assert softmax_hessian(logits, v)[0, 0] == pytest.approx(2 * np.exp(-20.0), rel=1e-6)


def test_extreme_scales_stay_finite():
    logits, v = draw(3, 5, dtype=torch.float32)
    for scale in (1e-30, 1e30):
        assert torch.isfinite(softmax_hessian(scale * logits, v)).all()
    # The quotient of logits and temperature would overflow; every row is sure of its answer.
    assert softmax_hessian(1e30 * logits, v, temperature=1e-20).abs().max() == 0
    # And the square of the temperature would underflow.
    found = softmax_hessian(1e-20 * logits, 1e-36 * v, temperature=1e-20)
    expected = softmax_hessian(logits, v).double() * 1e4
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-2)


def test_a_class_that_cannot_occur():
    logits = torch.tensor([[1.0, -torch.inf, 0.5]])
    v = torch.tensor([[1.0, 100.0, 2.0]])
    found = softmax_hessian(logits, v)
    torch.testing.assert_close(found[:, [0, 2]], softmax_hessian(logits[:, [0, 2]], v[:, [0, 2]]))
    assert found[0, 1] == 0


def test_nan_goes_through():
    logits = torch.tensor([[0.0, torch.nan], [0.0, 1.0]])
    found = softmax_hessian(logits, torch.ones(2, 2).cumsum(1))
    assert found[0].isnan().all() and found[1].isfinite().all()


# Derivatives


@pytest.mark.parametrize("vectors", [(), (2,)])
def test_first_and_second_derivatives(vectors):
    logits, v = draw(2, 4, *vectors)
    pair = logits.requires_grad_(), v.requires_grad_()

    def call(z, w):
        return softmax_hessian(z, w, temperature=0.7)

    assert torch.autograd.gradcheck(call, pair, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(call, pair)


def test_torch_func_and_compile():
    logits, v = draw(3, 5, 4)
    expected = softmax_hessian(logits, v)
    one_by_one = torch.func.vmap(softmax_hessian, in_dims=(None, 0))(logits, v)
    torch.testing.assert_close(one_by_one, expected)
    compiled = torch.compile(module.definition, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, v), expected)


# Memory


def test_inputs_of_any_layout_stay_as_they_are():
    logits, v = draw(6, 8, 3)
    views = [
        (logits.T.contiguous().T, v.transpose(0, 1).contiguous().transpose(0, 1)),
        (logits[:, ::2], v[..., ::2]),
        (logits[0].expand(6, 8), v[0, 0].expand(3, 6, 8)),
    ]
    for z, w in views:
        before = z.clone(), w.clone()
        torch.testing.assert_close(softmax_hessian(z, w), softmax_hessian(*before))
        assert torch.equal(z, before[0]) and torch.equal(w, before[1])


def test_the_docstring_counts_the_passes_of_the_definition():
    logits, v = draw(100, 1000, dtype=torch.float32)
    with Traffic() as traffic:
        softmax_hessian(logits, v)
    assert traffic.passes(logits) == pytest.approx(22, abs=1)


def test_minimum_bytes():
    assert minimum_bytes(7, 10, 50) == 4 * 7 * 10 * 101


# Bad input


GOOD = {"logits": torch.zeros(3, 4), "vectors": torch.zeros(3, 4)}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"logits": torch.zeros(3, 4).long()}, TypeError, "logits is torch.int64; accepted are fl"),
        ({"vectors": torch.zeros(3, 4).long()}, TypeError, "vectors is torch.int64"),
        (
            {"vectors": torch.zeros(3, 4).double()},
            TypeError,
            "vectors torch.float64; accepted is",
        ),
        ({"logits": [[0.0]]}, TypeError, "logits is a list"),
        (
            {"vectors": torch.zeros(4, 3)},
            ValueError,
            r"vectors \(4, 3\); accepted are \[N, K\]",
        ),
        ({"vectors": torch.zeros(1, 2, 3, 4)}, ValueError, r"vectors \(1, 2, 3, 4\)"),
        (
            {"logits": torch.zeros(4), "vectors": torch.zeros(4)},
            ValueError,
            r"logits has shape",
        ),
        ({"logits": torch.zeros(3, 1), "vectors": torch.zeros(3, 1)}, ValueError, "has 1 cl"),
        ({"temperature": 0.0}, ValueError, "temperature is 0.0; accepted is a positive finite"),
        ({"temperature": -1}, ValueError, "temperature is -1"),
        ({"temperature": float("inf")}, ValueError, "temperature is inf"),
        ({"temperature": float("nan")}, ValueError, "temperature is nan"),
        ({"temperature": True}, ValueError, "temperature is True"),
        ({"temperature": torch.tensor(1.0)}, ValueError, "temperature is tensor"),
        ({"vectors": torch.zeros(3, 4, device="meta")}, ValueError, "accepted are tensors on one"),
        ({"impl": "fast"}, ValueError, "impl is 'fast'"),
    ],
)
def test_bad_input_is_named(change, error, message):
    with pytest.raises(error, match=message):
        softmax_hessian(**{**GOOD, **change})
