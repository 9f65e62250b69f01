"""Projected curvature: against exact Hessians, Euler's identities, curvlinops, random matrices."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kempe_nb import projected_curvature, which
from kempe_nb.dispatch import ImplementationUnavailable
from kempe_nb.kernels.projected_curvature import OPERATION, contraction, general
from kempe_nb.kernels.projected_curvature.directions import sparse_directions
from kempe_nb.kernels.projected_curvature.matrix import (
    SymmetricMatrix,
    full_space_ratio,
    noise_floor,
    noise_floor_of_fraction,
)

ACTIVATIONS = [nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Identity]
each_implementation = pytest.mark.parametrize("impl", OPERATION.implementations)


def perceptron(*sizes, activation=nn.ReLU, bias=False, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    layers = [nn.Flatten()]
    for before, after in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(before, after, bias=bias), activation()]
    return nn.Sequential(*layers[:-1]).to(dtype)


def draw(samples, pixels, classes, dtype=torch.float64, seed=1):
    rng = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, pixels, generator=rng, dtype=torch.float64)
    return inputs.to(dtype), torch.randint(classes, (samples,), generator=rng)


def size_of(model):
    return sum(p.numel() for p in model.parameters())


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def outputs_at(model, theta, inputs):
    """Return the outputs of a model with other parameters, given as one vector."""
    named = dict(model.named_parameters())
    parts = theta.split([p.numel() for p in named.values()])
    state = {n: t.view(p.shape) for (n, p), t in zip(named.items(), parts, strict=True)}
    return torch.func.functional_call(model, state, (inputs,))


def exact(model, data, temperature=1.0):
    """Return loss, gradient, G and H in the full space, by autograd of one vector."""
    inputs, labels = data
    theta = flat(model)

    def loss(t):
        return F.cross_entropy(outputs_at(model, t, inputs) / temperature, labels)

    jacobian = torch.func.jacrev(lambda t: outputs_at(model, t, inputs))(theta)
    p = torch.softmax(outputs_at(model, theta, inputs) / temperature, 1)
    middle = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    g = torch.einsum("nkd,nkl,nle->de", jacobian, middle, jacobian)
    g = g / len(inputs) / temperature**2
    hessian = torch.autograd.functional.hessian(loss, theta)
    return loss(theta).item(), torch.func.grad(loss)(theta), g, hessian


def assert_exact(found, model, data, directions, temperature=1.0, rtol=1e-10):
    loss, gradient, g, hessian = exact(model, data, temperature)
    dense = directions.to_dense()
    assert found.loss == pytest.approx(loss, rel=1e-12)
    scale = torch.linalg.matrix_norm(dense.T @ hessian @ dense) + 1e-300
    for name, matrix in (("gauss_newton", g), ("remainder", hessian - g), ("hessian", hessian)):
        own = getattr(found, name).matrix
        assert torch.linalg.matrix_norm(own - dense.T @ matrix @ dense) <= rtol * scale, name
        assert torch.equal(own, own.T)
    torch.testing.assert_close(found.gradient, dense.T @ gradient, rtol=rtol, atol=1e-13)


@each_implementation
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("sizes", [(4, 8, 7, 3), (4, 5, 2), (6, 3)], ids=str)
def test_the_exact_hessian_of_a_small_network(impl, activation, bias, sizes):
    model = perceptron(*sizes, activation=activation, bias=bias)
    data = draw(11, sizes[0], sizes[-1])
    for temperature in (1.0, 0.3):
        for directions in (
            torch.randn(size_of(model), 5, dtype=torch.float64),
            sparse_directions(size_of(model), 5, dtype=torch.float64),
        ):
            found = projected_curvature(
                model, F.cross_entropy, data, directions, temperature=temperature, impl=impl
            )
            assert_exact(found, model, data, directions, temperature)


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=3),
    st.integers(2, 4),
    st.integers(1, 40),
    st.booleans(),
    st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=25)
def test_both_implementations_agree_on_any_perceptron(hidden, classes, samples, bias, seed):
    model = perceptron(3, *hidden, classes, bias=bias, seed=seed)
    data = draw(samples, 3, classes, seed=seed)
    count = min(4, size_of(model))
    directions = sparse_directions(
        size_of(model), count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    one, other = (
        projected_curvature(model, F.cross_entropy, data, directions, impl=impl)
        for impl in OPERATION.implementations
    )
    for name in ("gauss_newton", "remainder"):
        torch.testing.assert_close(
            getattr(one, name).matrix, getattr(other, name).matrix, rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("block", [1, 2**14])
def test_parts_of_any_size(monkeypatch, block):
    model, data = perceptron(4, 8, 7, 3), draw(50, 4, 3)
    directions = sparse_directions(size_of(model), 6, dtype=torch.float64)
    monkeypatch.setattr(contraction, "TANGENT_BYTES", {False: block})
    monkeypatch.setattr(general, "PRODUCT_BYTES", {False: block})
    monkeypatch.setattr(general, "SAMPLES", 7)
    for impl in OPERATION.implementations:
        found = projected_curvature(model, F.cross_entropy, data, directions, impl=impl)
        assert_exact(found, model, data, directions)


def test_two_runs_have_the_same_bits():
    model, data = perceptron(9, 8, 7, 3, dtype=torch.float32), draw(500, 9, 3, torch.float32)
    directions = sparse_directions(size_of(model), 6)
    one, other = (projected_curvature(model, F.cross_entropy, data, directions) for _ in range(2))
    assert torch.equal(one.hessian.matrix, other.hessian.matrix)


def test_single_precision():
    model, data = perceptron(20, 30, 10, 3, dtype=torch.float32), draw(200, 20, 3, torch.float32)
    directions = sparse_directions(size_of(model), 8)
    found = projected_curvature(model, F.cross_entropy, data, directions)
    double = model.double()
    truth = projected_curvature(
        double, F.cross_entropy, (data[0].double(), data[1]), directions.double()
    )
    for name in ("gauss_newton", "remainder"):
        own, expected = getattr(found, name).matrix, getattr(truth, name).matrix
        error = torch.linalg.matrix_norm(own - expected) / torch.linalg.matrix_norm(expected)
        assert error < 1e-5


def test_single_precision_of_a_confident_network():
    """With p = 1 - 1e-6 at the label p - 1 has no digits; minus the sum of the others has."""
    model, (inputs, _) = perceptron(20, 30, 10, 3, dtype=torch.float32), draw(200, 20, 3)
    inputs = inputs.float()
    top = model(inputs).detach().topk(2).values
    labels = model(inputs).argmax(1)
    # The median of the gaps between the first two logits becomes 14, and exp(-14) is 1e-6.
    temperature = float((top[:, 0] - top[:, 1]).median() / 14)
    confident = top[:, 0] - top[:, 1] > 10 * temperature
    data = inputs[confident], labels[confident]
    directions = sparse_directions(size_of(model), 8)
    found = projected_curvature(
        model, F.cross_entropy, data, directions, temperature=temperature, impl="contraction"
    )
    truth = projected_curvature(
        model.double(),
        F.cross_entropy,
        (data[0].double(), data[1]),
        directions.double(),
        temperature=temperature,
    )
    assert len(data[0]) > 50
    for name in ("gauss_newton", "remainder"):
        own, expected = getattr(found, name).matrix, getattr(truth, name).matrix
        error = torch.linalg.matrix_norm(own - expected) / torch.linalg.matrix_norm(expected)
        # As for any network; a logit of 14 adds some roundings of itself to log p.
        assert error < 1e-5, name
    error = torch.linalg.vector_norm(found.gradient - truth.gradient)
    assert error < 1e-5 * torch.linalg.vector_norm(truth.gradient)


@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_csc, torch.strided])
@each_implementation
def test_layouts_of_directions(impl, layout):
    model, data = perceptron(4, 8, 3), draw(9, 4, 3)
    usual = sparse_directions(size_of(model), 5, dtype=torch.float64)
    other = usual.to_dense() if layout == torch.strided else usual.to_sparse(layout=layout)
    one, two = (
        projected_curvature(model, F.cross_entropy, data, each, impl=impl)
        for each in (usual, other)
    )
    torch.testing.assert_close(one.hessian.matrix, two.hessian.matrix)


# Theory


@given(st.integers(2, 4), st.floats(0.2, 5), st.floats(0.2, 5), st.integers(0, 2**32))
@settings(deadline=None, max_examples=25)
def test_eulers_identities(depth, scale, temperature, seed):
    model = perceptron(3, *[5] * (depth - 1), 4, seed=seed)
    with torch.no_grad():
        for p in model.parameters():
            p *= scale
    inputs, labels = draw(12, 3, 4, seed=seed)
    theta = flat(model)[:, None]
    found = projected_curvature(
        model, F.cross_entropy, (inputs, labels), theta, temperature=temperature
    )
    z = model(inputs).detach() / temperature
    p = z.softmax(1)
    slope = ((p - F.one_hot(labels, 4)) * z).sum(1).mean()
    variance = ((p * z * z).sum(1) - (p * z).sum(1) ** 2).mean()
    torch.testing.assert_close(found.gradient[0], depth * slope, rtol=1e-9, atol=1e-12)
    r, g = found.remainder.matrix[0, 0], found.gauss_newton.matrix[0, 0]
    torch.testing.assert_close(r, depth * (depth - 1) * slope, rtol=1e-8, atol=1e-11)
    torch.testing.assert_close(g, depth**2 * variance, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize(
    ("activation", "has_none"),
    [(nn.ReLU, True), (nn.LeakyReLU, True), (nn.Identity, True), (nn.Tanh, False)],
)
def test_the_remainder_has_no_trace_where_activations_are_piecewise_linear(activation, has_none):
    model, data = perceptron(4, 8, 7, 3, activation=activation), draw(20, 4, 3)
    everything = torch.eye(size_of(model), dtype=torch.float64)
    r = projected_curvature(model, F.cross_entropy, data, everything).remainder
    assert r.frobenius_norm > 1e-3
    assert (abs(r.positive_curvature) < 1e-12) == has_none


def test_scale_is_temperature():
    model, data = perceptron(4, 8, 7, 3), draw(20, 4, 3)
    directions = torch.randn(size_of(model), 5, dtype=torch.float64)
    one = projected_curvature(model, F.cross_entropy, data, directions)
    with torch.no_grad():
        for p in model.parameters():
            p *= 100
    other = projected_curvature(model, F.cross_entropy, data, directions, temperature=1e6)
    torch.testing.assert_close(1e4 * other.hessian.matrix, one.hessian.matrix, rtol=1e-10, atol=0)


def test_collapsed_answers_keep_their_curvature():
    """With gaps of 60 between logits G is 1e-26 and R is no larger; neither drowns."""
    model, (inputs, _) = perceptron(4, 8, 7, 3), draw(20, 4, 3)
    labels = model(inputs).argmax(1)
    directions = torch.randn(size_of(model), 5, dtype=torch.float64)
    gaps = model(inputs).detach().sort(1).values.diff(dim=1)[:, -1]
    temperature = float(gaps.min() / 60)
    found = projected_curvature(
        model, F.cross_entropy, (inputs, labels), directions, temperature=temperature
    )
    assert 0 < found.gauss_newton.frobenius_norm * temperature**2 < 1e-22
    # One direction, by hand: a sum over the small probabilities alone.
    z = model(inputs).detach()
    _, moved = torch.func.jvp(
        lambda t: outputs_at(model, t, inputs), (flat(model),), (directions[:, 0],)
    )
    top = z.argmax(1, keepdim=True)
    p = torch.exp((z - z.gather(1, top)) / temperature).scatter(1, top, 0.0)
    expected = (p * (moved - moved.gather(1, top)) ** 2).sum(1).mean() / temperature**2
    torch.testing.assert_close(found.gauss_newton.matrix[0, 0], expected, rtol=1e-9, atol=0)


# Other modules and losses


def test_a_convolutional_network_takes_the_general_path():
    torch.manual_seed(0)
    model = nn.Sequential(
        *[nn.Conv2d(1, 2, 3, bias=False), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten()],
        *[nn.Linear(8, 3), nn.LayerNorm(3)],
    ).double()
    inputs, labels = draw(6, 36, 3)
    data = inputs.view(6, 1, 6, 6), labels
    directions = torch.randn(size_of(model), 4, dtype=torch.float64)
    found = projected_curvature(model, nn.CrossEntropyLoss(), data, directions)
    assert_exact(found, model, data, directions)


def test_batch_normalisation_in_evaluation_mode():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)).double()
    data = draw(30, 4, 3)
    model(data[0])
    model.eval()
    before = model[1].running_mean.clone()
    directions = torch.randn(size_of(model), 4, dtype=torch.float64)
    assert_exact(
        projected_curvature(model, F.cross_entropy, data, directions), model, data, directions
    )
    assert torch.equal(model[1].running_mean, before)


def test_instance_normalisation_mixes_no_samples():
    torch.manual_seed(0)
    layers = [nn.Conv1d(1, 2, 2), nn.InstanceNorm1d(2), nn.Tanh(), nn.Flatten(), nn.Linear(6, 3)]
    model = nn.Sequential(*layers).double()
    inputs, labels = draw(9, 4, 3)
    data = inputs[:, None], labels
    directions = torch.randn(size_of(model), 4, dtype=torch.float64)
    found = projected_curvature(model, F.cross_entropy, data, directions)
    assert_exact(found, model, data, directions)


def squares(outputs, targets):
    return (outputs - targets).square().mean()


def test_another_loss_without_its_gauss_newton_part():
    model, (inputs, _) = perceptron(4, 8, 3), draw(9, 4, 3)
    data = inputs, torch.randn(9, 3, dtype=torch.float64)
    directions = torch.randn(size_of(model), 4, dtype=torch.float64)
    found = projected_curvature(model, squares, data, directions, gauss_newton=False)
    hessian = torch.autograd.functional.hessian(
        lambda t: F.mse_loss(outputs_at(model, t, inputs), data[1]), flat(model)
    )
    expected = directions.T @ hessian @ directions
    torch.testing.assert_close(found.hessian.matrix, expected, rtol=1e-10, atol=1e-12)
    assert found.gauss_newton is None and found.remainder is None


@pytest.mark.filterwarnings("ignore")
def test_curvlinops_agrees():
    curvlinops = pytest.importorskip("curvlinops")
    model, data = perceptron(6, 12, 8, 4, bias=True), draw(40, 6, 4)
    directions = torch.randn(size_of(model), 7, dtype=torch.float64)
    found = projected_curvature(model, F.cross_entropy, data, directions)
    parameters = list(model.parameters())
    for name, kind in (
        ("hessian", curvlinops.HessianLinearOperator),
        ("gauss_newton", curvlinops.GGNLinearOperator),
    ):
        operator = kind(model, nn.CrossEntropyLoss(), parameters, [data])
        expected = directions.T @ (operator @ directions)
        torch.testing.assert_close(getattr(found, name).matrix, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (perceptron(4, 5, 3), "contraction (the model is a multilayer perceptron"),
        (
            nn.Sequential(perceptron(4, 5), nn.ReLU(), perceptron(5, 3)),
            "definition (the model flat",
        ),
        (nn.Sequential(nn.Linear(4, 3), nn.Softplus()), "definition (the model has a Softplus"),
        (
            nn.Sequential(nn.Linear(4, 3), nn.ReLU()),
            "definition (the model ends with an activation",
        ),
        (nn.Sequential(nn.ReLU(), nn.Linear(4, 3)), "definition (the model has a ReLU that fol"),
        (nn.Sequential(nn.Linear(4, 4), *[nn.Tanh()] * 2), "definition (the model has a Tanh that"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), "definition (the model has hooks"),
        (nn.Sequential(*[nn.Linear(4, 4)] * 2), "definition (the model shares parameters"),
    ],
)
def test_which_tells_the_path_and_why(capsys, model, reason):
    model = model.double()
    data = draw(3, 4, 3)
    directions = torch.eye(size_of(model), 1, dtype=torch.float64)
    which(projected_curvature, model, F.cross_entropy, data, directions)
    assert capsys.readouterr().out.startswith(f"projected_curvature: {reason}")


def test_what_the_contraction_cannot_take_is_refused_with_the_reason():
    model = nn.Sequential(nn.Linear(4, 3), nn.Softplus(), nn.Linear(3, 3)).double()
    directions = torch.eye(size_of(model), 1, dtype=torch.float64)
    with pytest.raises(ImplementationUnavailable, match="has a Softplus, and is no multilayer"):
        projected_curvature(model, F.cross_entropy, draw(3, 4, 3), directions, impl="contraction")


# Memory


class Largest(TorchDispatchMode):
    """Remembers the bytes of the largest tensor that an operation returned."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided:
                self.bytes = max(self.bytes, leaf.numel() * leaf.element_size())
        return result


@pytest.mark.parametrize("count", [5, 50])
def test_nothing_of_the_size_of_parameters_times_directions_is_made(count):
    model = perceptron(784, 300, 100, 10, dtype=torch.float32)
    data = draw(64, 784, 10, torch.float32)
    directions = sparse_directions(size_of(model), count)
    with Largest() as largest:
        projected_curvature(model, F.cross_entropy, data, directions)
    # A matrix of parameters is the largest, or the tangents of the widest layer.
    tangents = 300 * count * len(data[0]) * 4
    assert largest.bytes <= max(4 * size_of(model), tangents) < 4 * size_of(model) * count


def test_the_model_stays_as_it_is():
    model, data = perceptron(4, 8, 3), draw(9, 4, 3)
    before = flat(model)
    model[1].weight.requires_grad_(False)
    directions = torch.randn(size_of(model), 4, dtype=torch.float64)
    for impl in OPERATION.implementations:
        with torch.no_grad():
            found = projected_curvature(model, F.cross_entropy, data, directions, impl=impl)
        assert_exact(found, model, data, directions)
    assert torch.equal(flat(model), before) and model.training
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == [False, True]


# Matrices and random planes


def test_what_a_matrix_says():
    matrix = SymmetricMatrix(torch.diag(torch.tensor([3.0, 1.0, 0.0, -2.0], dtype=torch.float64)))
    assert (matrix.trace, matrix.spectral_norm) == (2.0, 3.0)
    assert matrix.frobenius_norm == pytest.approx(math.sqrt(14))
    assert matrix.positive_curvature == pytest.approx(2 / math.sqrt(14))
    assert matrix.fraction_positive == 0.5
    nothing = SymmetricMatrix(torch.zeros(3, 3, dtype=torch.float64))
    assert nothing.positive_curvature == nothing.fraction_positive == 0
    # One eigenvalue, and rounding about zero.
    v = torch.randn(6, 1, dtype=torch.float64)
    assert SymmetricMatrix(v @ v.T).fraction_positive == 1 / 6
    assert SymmetricMatrix(v @ v.T).positive_curvature == pytest.approx(1)


def projected_ratios(diagonal, count, planes=300):
    """Return Tr / Frobenius norm of random projections of a diagonal matrix."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(planes):
        p = rng.standard_normal((len(diagonal), count))
        found.append(SymmetricMatrix(torch.from_numpy(p.T @ (diagonal[:, None] * p))))
    return np.array([matrix.positive_curvature for matrix in found])


@pytest.mark.parametrize("count", [10, 50])
def test_the_noise_floor_of_a_matrix_without_trace(count):
    ratios = projected_ratios(np.tile([1.0, -1.0], 500), count)
    assert abs(ratios.mean()) < 5 * ratios.std() / np.sqrt(len(ratios))
    # The deviation of 300 normal numbers is known to 4 %.
    assert ratios.std() == pytest.approx(noise_floor(count), rel=0.16)


def test_the_noise_floor_of_a_fraction_in_one_and_two_dimensions():
    # A number is positive or not. Of two eigenvalues of a symmetric Gaussian matrix both have the
    # same sign with probability 1 - 1 / sqrt(2): then the fraction is off by a half.
    assert noise_floor_of_fraction(1) == 0.5
    exact = math.sqrt((1 - math.sqrt(0.5)) / 4)
    assert noise_floor_of_fraction(2) == pytest.approx(exact, rel=0.04)


def test_the_noise_floor_of_a_fraction_is_that_of_projections():
    rng = np.random.default_rng(0)
    diagonal = np.tile([1.0, -1.0], 400)
    shares = []
    for _ in range(300):
        p = rng.standard_normal((800, 20))
        projection = SymmetricMatrix(torch.from_numpy(p.T @ (diagonal[:, None] * p)))
        shares.append(projection.fraction_positive)
    assert np.std(shares) == pytest.approx(noise_floor_of_fraction(20), rel=0.16)


@pytest.mark.parametrize("unit", [1e-300, 1e-200, 1e200])
def test_positive_curvature_does_not_depend_on_the_unit(unit):
    matrix = torch.tensor([[3.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    expected = SymmetricMatrix(matrix).positive_curvature
    found = SymmetricMatrix(unit * matrix).positive_curvature
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("count", [10, 50])
def test_the_projection_shrinks_the_ratio_and_this_is_undone(count):
    diagonal = np.concatenate([np.ones(600), -np.ones(400)])
    ratio = diagonal.sum() / np.sqrt(1000)
    found = projected_ratios(diagonal, count).mean()
    assert found < 0.9 * ratio
    assert full_space_ratio(found, count) == pytest.approx(ratio, rel=0.1)


@given(st.floats(-20, 20), st.integers(1, 200))
def test_full_space_ratio_is_an_inverse(ratio, count):
    projected = ratio * math.sqrt(count) / math.sqrt(count + 1 + ratio**2)
    assert full_space_ratio(projected, count) == pytest.approx(ratio, rel=1e-6, abs=1e-9)


def test_a_ratio_at_its_bound_has_no_finite_inverse():
    assert full_space_ratio(5.0, 25) == math.inf and full_space_ratio(-6.0, 25) == -math.inf


def test_sparse_directions():
    size, count = 250_000, 20
    made = sparse_directions(size, count, generator=torch.Generator().manual_seed(0))
    assert made.shape == (size, count) and made.dtype == torch.float32
    lengths = torch.zeros(count).index_add(0, made.indices()[1], made.values() ** 2)
    torch.testing.assert_close(lengths, torch.ones(count))
    # 500 entries a column are expected, with a deviation of 22.
    assert made.values().numel() == pytest.approx(500 * count, abs=5 * math.sqrt(500 * count))
    assert abs(made.values().sign().sum()) < 5 * math.sqrt(500 * count)
    again = sparse_directions(size, count, generator=torch.Generator().manual_seed(0))
    assert torch.equal(made.to_dense(), again.to_dense())


@pytest.mark.parametrize("size", [1, 2, 5])
def test_no_column_is_empty(size):
    for seed in range(20):
        made = sparse_directions(size, size, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(made.to_dense().square().sum(0), torch.ones(size))


# Bad input


MODEL = perceptron(4, 5, 3)
INPUTS, LABELS = draw(6, 4, 3)
P = torch.eye(35, 4, dtype=torch.float64)
GOOD = {"model": MODEL, "loss": F.cross_entropy, "data": (INPUTS, LABELS), "directions": P}


def with_nan():
    model = perceptron(4, 5, 3)
    with torch.no_grad():
        model[1].weight[0, 0] = torch.nan
    return model


def in_training(layer):
    return nn.Sequential(nn.Linear(4, 5), layer, nn.Linear(5, 3)).double()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"directions": torch.zeros(35, 0).double()},
            ValueError,
            r"\(35, 0\); accepted is \[35, d\]",
        ),
        ({"directions": torch.zeros(35, 36).double()}, ValueError, "d from 1 to 35"),
        (
            {"directions": torch.zeros(34, 4).double()},
            ValueError,
            r"directions has shape \(34, 4\)",
        ),
        ({"directions": P.float()}, TypeError, "directions is torch.float32; accepted is torch.fl"),
        ({"directions": P / 0}, ValueError, "directions holds 140 elements that are NaN or inf"),
        ({"directions": P.to("meta")}, ValueError, "directions is on meta; accepted are tensors"),
        ({"data": (INPUTS[:0], LABELS[:0])}, ValueError, "inputs holds no samples"),
        ({"data": (INPUTS.float(), LABELS)}, TypeError, "inputs is torch.float32"),
        ({"data": (INPUTS / 0, LABELS)}, ValueError, "inputs holds 24 elements"),
        (
            {"data": (INPUTS, LABELS[:5])},
            ValueError,
            r"labels has shape \(5,\); accepted is \(6,\)",
        ),
        ({"data": (INPUTS, LABELS.int())}, TypeError, "labels is torch.int32; accepted are int64"),
        ({"data": (INPUTS, LABELS + 1)}, ValueError, "labels lie from . to 3; accepted is 0 to 2"),
        ({"data": (INPUTS, LABELS - 1)}, ValueError, "labels lie from -1"),
        ({"loss": F.mse_loss}, ValueError, "loss is mse_loss; accepted for the Gauss-Newton part"),
        (
            {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)},
            ValueError,
            "loss is CrossEntropyLoss",
        ),
        ({"loss": nn.CrossEntropyLoss(reduction="sum")}, ValueError, "loss is CrossEntropyLoss"),
        ({"loss": nn.CrossEntropyLoss(ignore_index=0)}, ValueError, "loss is CrossEntropyLoss"),
        ({"temperature": 0.0}, ValueError, "temperature is 0.0; accepted is a positive finite"),
        ({"temperature": -2}, ValueError, "temperature is -2"),
        ({"model": with_nan()}, ValueError, "parameter 0 holds 1 elements that are NaN"),
        ({"model": MODEL.__class__(nn.Flatten())}, ValueError, "model has no parameters"),
        (
            {"model": perceptron(4, 5, 3, dtype=torch.float16)},
            TypeError,
            "parameter 0 is torch.float16; accepted are float32, float64",
        ),
        (
            {"model": in_training(nn.BatchNorm1d(5))},
            ValueError,
            "BatchNorm1d '1' in training mode, wh",
        ),
        (
            {"model": in_training(nn.Dropout())},
            ValueError,
            "Dropout '1' in training mode, which is r",
        ),
        ({"impl": "triton"}, ValueError, "impl is 'triton'; accepted are definition, contraction"),
    ],
)
def test_bad_input_is_named(change, error, message):
    arguments = GOOD | change
    if "model" in change and "directions" not in change:
        kind = next((p.dtype for p in change["model"].parameters()), torch.float64)
        arguments["directions"] = torch.eye(size_of(change["model"]), 1, dtype=kind)
        arguments["data"] = INPUTS.to(kind), LABELS
    with pytest.raises(error, match=message):
        projected_curvature(**arguments)


@pytest.mark.parametrize(("size", "count"), [(0, 1), (5, 0), (5, 6), (2.0, 1)])
def test_sizes_of_directions_are_checked(size, count):
    with pytest.raises(ValueError, match="accepted is an integer"):
        sparse_directions(size, count)


@pytest.mark.parametrize("data", [torch.ones(2, 4), [torch.ones(2, 4)], {"x": 1, "y": 2}])
def test_data_that_are_no_pair_are_named(data):
    with pytest.raises(TypeError, match=r"data is a .*; accepted is \(inputs, labels\)"):
        projected_curvature(nn.Linear(4, 2), F.cross_entropy, data, torch.ones(10, 1))
