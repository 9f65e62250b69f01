"""Moments and losses of an ensemble: exact arithmetic, invariances, derivatives, refusals."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from mpmath import mp
from torch.fx.experimental.proxy_tensor import make_fx

from kempe_nb import dispatch, ensemble_moments, ensemble_nll, which
from kempe_nb.dispatch import ImplementationUnavailable
from kempe_nb.kernels.ensemble_moments import (
    OPERATION,
    definition,
    loss_definition,
    minimum_bytes,
)

CPU = ["definition", "numba"] if dispatch.numba_version() else ["definition"]
each_implementation = pytest.mark.parametrize("impl", CPU)
#: Relative errors that pass, in units of the last place.
ULPS = 16


def draw(networks, inputs, classes, scale=3.0, dtype=torch.float64, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(networks, inputs, classes, generator=rng)).to(dtype)


def exact(logits):
    """Return log mean, total, expected and mutual information in 60 digits, then rounded."""
    with mp.workdps(60):
        found = ([], [], [], [])
        for n in range(logits.shape[1]):
            rows = [[mp.mpf(z) for z in row] for row in logits[:, n].tolist()]
            p = [[mp.e**z / mp.fsum(mp.e**w for w in row) for z in row] for row in rows]
            mean = [mp.fsum(column) / len(p) for column in zip(*p, strict=True)]
            total = -mp.fsum(q * mp.log(q) for q in mean)
            expected = -mp.fsum(q * mp.log(q) for row in p for q in row) / len(p)
            found[0].append([float(mp.log(q)) for q in mean])
            for values, value in zip(found[1:], (total, expected, total - expected), strict=True):
                values.append(float(value))
        return tuple(torch.tensor(values, dtype=torch.float64) for values in found)


def relative(found, truth):
    return ((found.double() - truth).abs() / truth.abs()).max().item()


@each_implementation
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("classes", "scale"), [(2, 1), (3, 30), (10, 3), (10, 100), (37, 10)])
def test_every_digit_is_right_from_undecided_to_saturated(classes, scale, dtype, impl):
    # Gaps beyond 87 are zero odds in float32: such entropies are not asked for here.
    logits = draw(6, 5, classes, scale, dtype).clamp(-40, 40)
    found, truth = ensemble_moments(logits, impl=impl), exact(logits)
    # A difference of logits is rounded once, and an exponential makes a relative error of it.
    allowed = ULPS * torch.finfo(dtype).eps * max(1, scale / 4)
    assert all(each.dtype == dtype for each in found)
    for name, one, other in zip(found._fields[:3], found, truth, strict=False):
        assert relative(one, other) < allowed, name
    of_total = (found.mutual_information.double() - truth[3]).abs() / truth[1]
    assert of_total.max() < allowed


@each_implementation
@pytest.mark.parametrize("gap", [20.0, 60.0, 80.0])
def test_what_is_nearly_sure_keeps_its_digits_in_float32(gap, impl):
    """The textbook formulas find exactly zero here."""
    logits = torch.zeros(4, 3, 10)
    logits[:, :, 7] = gap
    found, truth = ensemble_moments(logits, impl=impl), exact(logits)
    naive = torch.softmax(logits, 2).mean(0)
    assert (naive[:, 7].log() == 0).all()
    assert relative(found.log_mean[:, 7], truth[0][:, 7]) < 1e-5
    assert relative(found.total_entropy, truth[1]) < 1e-5
    values, gradient = ensemble_nll(logits, torch.full((3,), 7), impl=impl)
    assert relative(-values, truth[0][:, 7]) < 1e-5
    # Its gradient: the odds of the nine others, shared by the four networks.
    assert relative(gradient[0, :, 7], torch.full((3,), -9 / 4 * math.exp(-gap))) < 1e-5


@each_implementation
def test_means_are_log_sum_exps_where_probabilities_underflow(impl):
    logits = torch.tensor([[[0.0, -300.0, 5.0]], [[0.0, -500.0, 5.0]]])
    found = ensemble_moments(logits, impl=impl).log_mean[0, 1].item()
    log_z = math.log(1 + math.exp(5))
    assert found == pytest.approx(-300 - log_z - math.log(2), rel=1e-6)


@each_implementation
def test_two_networks_that_contradict_each_other(impl):
    found = ensemble_moments(torch.tensor([[[60.0, 0.0]], [[0.0, 60.0]]]), impl=impl)
    assert found.total_entropy.item() == pytest.approx(math.log(2), rel=1e-6)
    assert found.expected_entropy.item() == pytest.approx(61 * math.exp(-60), rel=1e-5)
    assert found.mutual_information.item() == pytest.approx(math.log(2), rel=1e-6)


@each_implementation
def test_one_network_agrees_with_itself_exactly(impl):
    found = ensemble_moments(draw(1, 50, 7, dtype=torch.float32), impl=impl)
    assert not found.mutual_information.any()
    torch.testing.assert_close(found.total_entropy, found.expected_entropy, rtol=1e-6, atol=0)


@each_implementation
def test_ties_at_the_top(impl):
    logits = torch.zeros(3, 2, 4)
    logits[:, :, 3] = -50
    found = ensemble_moments(logits, impl=impl)
    torch.testing.assert_close(found.log_mean[:, :3], torch.full((2, 3), -math.log(3)))
    assert found.total_entropy.tolist() == pytest.approx([math.log(3)] * 2)


shapes = st.tuples(st.integers(1, 9), st.integers(0, 70), st.integers(2, 40))


@settings(deadline=None, max_examples=40)
@given(shape=shapes, seed=st.integers(0, 10**6), scale=st.sampled_from([0.1, 3.0, 100.0]))
@each_implementation
def test_bounds_and_invariances(impl, shape, seed, scale):
    logits = draw(*shape, scale, torch.float64, seed)
    found = ensemble_moments(logits, impl=impl)
    assert found.log_mean.shape == shape[1:]
    slack = 1e-12
    assert (found.mutual_information >= 0).all()
    assert (found.total_entropy <= math.log(shape[2]) + slack).all()
    assert (found.expected_entropy >= 0).all()
    torch.testing.assert_close(found.log_mean.exp().sum(1), torch.ones(shape[1]).double())
    order = torch.randperm(shape[0])
    for same in (
        ensemble_moments(logits + 5.0, impl=impl),
        ensemble_moments(logits[order], impl=impl),
        ensemble_moments(torch.cat([logits, logits]), impl=impl),
        ensemble_moments(logits.flip(2), impl=impl)._replace(
            log_mean=ensemble_moments(logits.flip(2), impl=impl).log_mean.flip(1)
        ),
    ):
        torch.testing.assert_close(same, found, rtol=1e-9, atol=1e-11)


def test_derivatives_of_the_definition():
    logits = draw(3, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: tuple(definition(z)), logits)
    assert torch.autograd.gradgradcheck(lambda z: tuple(definition(z)), logits)


@pytest.mark.parametrize("impl", CPU[1:])
def test_derivatives_of_compiled_code_are_those_of_the_definition(impl):
    logits = draw(3, 4, 5).requires_grad_()
    weights = [torch.randn(4, 5).double(), *torch.randn(3, 4).double()]

    def derivatives(impl):
        found = ensemble_moments(logits, impl=impl)
        value = sum((w * each).sum() for w, each in zip(weights, found, strict=True))
        (first,) = torch.autograd.grad(value, logits, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), logits)
        return first, second

    torch.testing.assert_close(derivatives(impl), derivatives("definition"), rtol=1e-10, atol=1e-12)


@each_implementation
@pytest.mark.parametrize("objective", ["nll", "margin"])
@pytest.mark.parametrize(("classes", "scale"), [(2, 3), (10, 3), (10, 60), (70, 10)])
def test_the_gradient_is_that_of_the_values(classes, scale, objective, impl):
    logits = draw(5, 90, classes, scale).requires_grad_()
    labels = torch.arange(90) % classes
    log_mean = definition(logits).log_mean
    of_label = log_mean.gather(1, labels[:, None]).squeeze(1)
    if objective == "nll":
        values = -of_label
    else:
        values = of_label - log_mean.scatter(1, labels[:, None], -math.inf).max(1).values
    (truth,) = torch.autograd.grad(values.sum(), logits)
    found = ensemble_nll(logits, labels, objective=objective, impl=impl)
    assert not found.gradient.requires_grad and not found.values.requires_grad
    torch.testing.assert_close(found.values, values.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.gradient, truth, rtol=1e-8, atol=1e-12)


@each_implementation
def test_responsibilities_weight_the_gradients_of_the_networks(impl):
    """- grad log mean p_y = sum_s r_s (- grad log p_sy), r_s = p_sy / sum_t p_ty."""
    logits, labels = draw(6, 20, 10), torch.arange(20) % 10
    p = torch.softmax(logits, 2)
    of_label = p[:, torch.arange(20), labels]
    shares = of_label / of_label.sum(0)
    own = p - torch.nn.functional.one_hot(labels, 10)
    found = ensemble_nll(logits, labels, impl=impl).gradient
    torch.testing.assert_close(found, shares[:, :, None] * own, rtol=1e-10, atol=1e-14)
    # The mean of the networks' gradients is another thing.
    assert (found - own / 6).abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_computed_with_in_float32(dtype):
    logits = draw(4, 6, 10, dtype=dtype)
    found, truth = ensemble_moments(logits), ensemble_moments(logits.float(), impl="definition")
    assert found.log_mean.dtype == torch.float32
    torch.testing.assert_close(found, truth)
    loss = ensemble_nll(logits, torch.zeros(6, dtype=torch.int64))
    assert (loss.values.dtype, loss.gradient.dtype) == (torch.float32, dtype)


def test_nothing_of_the_callers_is_changed_and_any_strides_are_taken():
    logits = draw(5, 8, 12, dtype=torch.float32)
    turned = logits.permute(2, 1, 0)
    before = logits.clone()
    for impl in CPU:
        found = ensemble_moments(turned, impl=impl)
        torch.testing.assert_close(found, ensemble_moments(turned.contiguous(), impl=impl))
    assert torch.equal(logits, before)


def test_under_compile_vmap_and_make_fx_the_definition_runs(capsys):
    logits = draw(3, 4, 5)
    replay = make_fx(lambda z: tuple(ensemble_moments(z)))(logits)
    other = draw(3, 4, 5, seed=1)
    torch.testing.assert_close(replay(other), tuple(ensemble_moments(other)))
    which(ensemble_moments, logits)
    expected = "numba (the tensors are on cpu)" if CPU[1:] else "definition (Numba is not installed"
    assert capsys.readouterr().out.startswith(f"ensemble_moments: {expected}")
    with pytest.raises(ImplementationUnavailable, match="a transform of torch.func is active"):
        torch.func.jacrev(lambda z: ensemble_moments(z, impl="numba").log_mean)(logits)


BAD = [
    (torch.zeros(2, 3), ValueError, r"logits has shape \(2, 3\); accepted is \[S, N, K\]"),
    (torch.zeros(0, 3, 4), ValueError, r"logits has shape \(0, 3, 4\).*S >= 1 networks"),
    (torch.zeros(2, 3, 1), ValueError, r"logits has shape \(2, 3, 1\).*K >= 2 classes"),
    (torch.zeros(2, 3, 4).long(), TypeError, "logits is torch.int64; accepted are float16"),
    ([[[1.0, 2.0]]], TypeError, "logits is a list; accepted is a torch.Tensor"),
    (torch.full((2, 3, 4), math.nan), ValueError, "logits holds 24 elements that are NaN"),
    (torch.tensor([[[1.0, math.inf]]]), ValueError, "logits holds 1 elements that are NaN or inf"),
    (torch.tensor([[[1.0, -math.inf]]]), ValueError, "logits holds 1 elements that are NaN or inf"),
    (torch.tensor([[[3e38, -3e38]]]), ValueError, "logits is so large that differences overflow"),
    (torch.softmax(draw(2, 3, 4), 2), ValueError, "which look like probabilities; accepted are lo"),
]


@each_implementation
@pytest.mark.parametrize(("logits", "error", "message"), BAD)
def test_bad_logits_are_named(logits, error, message, impl):
    with pytest.raises(error, match=message):
        ensemble_moments(logits, impl=impl)
    labels = torch.zeros(3, dtype=torch.int64)
    if isinstance(logits, torch.Tensor) and logits.ndim == 3:
        with pytest.raises(error, match=message):
            ensemble_nll(logits, labels[: logits.shape[1]], impl=impl)


@pytest.mark.parametrize(
    ("labels", "options", "error", "message"),
    [
        (torch.tensor([0, 4, 1]), {}, ValueError, "labels lie from 0 to 4; accepted is 0 to 3"),
        (torch.tensor([0, -1, 1]), {}, ValueError, "labels lie from -1 to 1; accepted is 0 to 3"),
        (torch.tensor([0, 1]), {}, ValueError, r"labels has shape \(2,\); accepted is \[3\]"),
        (torch.zeros(3), {}, TypeError, "labels is torch.float32; accepted are int64"),
        (torch.zeros(3).long(), {"objective": "ce"}, ValueError, "objective is 'ce'; accepted are"),
        (torch.zeros(3).long(), {"impl": "cuda"}, ValueError, "impl is 'cuda'; accepted are de"),
    ],
)
def test_bad_labels_and_options_are_named(labels, options, error, message):
    with pytest.raises(error, match=message):
        ensemble_nll(torch.zeros(2, 3, 4), labels, **options)


def test_minimum_bytes():
    assert minimum_bytes(5, 7, 10) == 4 * (5 * 70 + 70 + 21)
    assert minimum_bytes(5, 7, 10, 8, gradient=True) == 8 * (2 * 5 * 70 + 7) + 8 * 7
    assert OPERATION.minimum_bytes is minimum_bytes


def test_no_inputs():
    logits = torch.zeros(3, 0, 4)
    for impl in CPU:
        assert [each.shape for each in ensemble_moments(logits, impl=impl)] == [(0, 4), *[(0,)] * 3]
        found = ensemble_nll(logits, torch.zeros(0, dtype=torch.int64), impl=impl)
        assert [each.shape for each in found] == [(0,), (3, 0, 4)]
    loss, sums = loss_definition(logits, torch.zeros(0, dtype=torch.int64), "margin")
    assert loss.values.shape == sums.shape == (0,)


# What a reviewer broke


def test_a_row_or_two_that_sum_to_one_by_chance_are_logits():
    logits = torch.tensor([[[0.75, 0.25]], [[0.5, 0.5]], [[0.125, 0.875]]])
    assert ensemble_moments(logits).log_mean.shape == (1, 2)
    with pytest.raises(ValueError, match="which look like probabilities"):
        ensemble_moments(logits.expand(-1, 2, -1))


@pytest.mark.parametrize("impl", CPU)
@pytest.mark.parametrize("objective", ["nll", "margin"])
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_no_infinity_slips_through_the_loss(value, objective, impl):
    logits = torch.zeros(2, 3, 4)
    logits[1, 2, 3] = value
    for label in (0, 3):
        labels = torch.full((3,), label)
        with pytest.raises(ValueError, match="logits holds 1 elements that are NaN or infinite"):
            ensemble_nll(logits, labels, objective=objective, impl=impl)


def test_forward_derivatives_go_by_the_definition():
    logits = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    tangent = torch.ones_like(logits) * torch.arange(4.0)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(logits, tangent)
        found = torch.autograd.forward_ad.unpack_dual(ensemble_moments(dual).total_entropy)
    _, expected = torch.func.jvp(lambda z: definition(z).total_entropy, (logits,), (tangent,))
    torch.testing.assert_close(found.tangent, expected)


@pytest.mark.parametrize("impl", CPU)
def test_the_entropies_are_tensors_of_their_own(impl):
    """One may be written to, also where a derivative hangs on it."""
    found = ensemble_moments(torch.eye(3)[None] * 4, impl=impl)
    weight = torch.ones(3, requires_grad=True)
    kept = found.expected_entropy.clone()
    found.total_entropy.mul_(2 * weight)
    assert torch.equal(found.expected_entropy, kept) and found.total_entropy.requires_grad


@pytest.mark.parametrize("impl", CPU)
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_no_infinity_slips_through_the_moments(value, impl):
    for column in (0, 3):
        logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
        logits[1, 2, column] = value
        with pytest.raises(ValueError, match="logits holds 1 elements that are NaN or infinite"):
            ensemble_moments(logits, impl=impl)
