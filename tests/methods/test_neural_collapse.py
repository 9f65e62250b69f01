"""The metrics of neural collapse: against dense float64 matrices, closed forms and scikit-learn."""

import math

import numpy as np
import pytest
import scipy
import torch
from hypothesis import given, settings, strategies as st
from sklearn.neighbors import NearestCentroid

from kempe_nb import Traffic, neural_collapse_metrics
from kempe_nb.methods.neural_collapse import (
    nearest_centre,
    simplex_etf,
    streamed_neural_collapse_metrics,
)


def draw(samples, dimensions, classes, spread=1.0, seed=0, dtype=torch.float32, offset=5):
    """Return features about a common offset, labels with every class, weight and bias."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples)[torch.randperm(samples, generator=rng)] % classes
    place = {"generator": rng, "dtype": torch.float64}
    means = offset + 3 * torch.randn(classes, dimensions, **place)
    features = means[labels] + spread * torch.randn(samples, dimensions, **place)
    weight, bias = torch.randn(classes, dimensions, **place), torch.randn(classes, **place)
    return features.to(dtype), labels, weight.to(dtype), bias.to(dtype)


def dense(features, labels, weight, bias):
    """Return all metrics from D x D matrices and loops over classes, in NumPy's float64."""
    h, y, w, b = (each.double().numpy() for each in (features, labels, weight, bias))
    y = y.astype(int)
    count, classes = len(h), len(w)
    means = np.array([h[y == c].mean(0) for c in range(classes)])
    centred = means - h.mean(0)
    within = sum((h[i] - means[y[i]])[:, None] * (h[i] - means[y[i]])[None] for i in range(count))
    within = within / count
    between = centred.T @ centred / classes
    nc1 = np.trace(within @ scipy.linalg.pinv(between))
    distances = ((h[:, None, :] - means[None]) ** 2).sum(2)
    answer = (h @ w.T + b).argmax(1)

    def equinorm(v):
        lengths = np.linalg.norm(v, axis=1)
        return lengths.std(ddof=1) / lengths.mean()

    def equiangular(v):
        units = v / np.linalg.norm(v, axis=1, keepdims=True)
        pairs = [
            abs(units[i] @ units[j] + 1 / (classes - 1))
            for i, j in np.ndindex(classes, classes)
            if i != j
        ]
        return np.mean(pairs)

    return {
        "nc1": nc1,
        "nc1_over_k": nc1 / classes,
        "trace_ratio": np.trace(within) / np.trace(between),
        "nc2_equinorm_means": equinorm(centred),
        "nc2_equinorm_weights": equinorm(w),
        "nc2_equiangular_means": equiangular(centred),
        "nc2_equiangular_weights": equiangular(w),
        "nc3": ((w / np.linalg.norm(w) - centred / np.linalg.norm(centred)) ** 2).sum(),
        "nc4": (distances.argmin(1) != answer).mean(),
        "nearest_centre_accuracy": (distances.argmin(1) == y).mean(),
        "network_accuracy": (answer == y).mean(),
        "classes": classes,
        "samples": count,
    }


def six_digits(metrics):
    """Return metrics to compare with; what is small at collapse has no absolute tolerance."""
    small = ("nc1", "nc1_over_k", "trace_ratio")
    return {
        name: pytest.approx(value, rel=1e-6, abs=0 if name in small else 1e-12)
        for name, value in metrics.items()
    }


@given(
    st.integers(2, 6),
    st.integers(2, 12),
    st.integers(0, 40),
    st.sampled_from([1.0, 1e-2, 1e-4]),
    st.integers(0, 2**32),
)
@settings(deadline=None)
def test_agreement_with_dense_matrices(classes, dimensions, more, spread, seed):
    # In float64, because a small random simplex may be so flat that float32 has no digits of it.
    drawn = draw(2 * classes + more, dimensions, classes, spread, seed, torch.float64)
    assert vars(neural_collapse_metrics(*drawn)) == six_digits(dense(*drawn))


@pytest.mark.parametrize("spread", [1.0, 1e-2, 1e-4])
def test_agreement_with_dense_matrices_in_float32(spread):
    drawn = draw(900, 64, 10, spread)
    assert vars(neural_collapse_metrics(*drawn)) == six_digits(dense(*drawn))


@pytest.mark.parametrize("spread", [1e-5, 1e-6])
def test_collapsed_features_far_from_zero_keep_their_digits(spread):
    """The means are rounded to float32 by a good part of the spread, and NC1 does not tell."""
    drawn = draw(900, 64, 10, spread, offset=30)
    assert vars(neural_collapse_metrics(*drawn)) == six_digits(dense(*drawn))


def test_nearest_centre_accuracy_is_that_of_scikit_learn():
    features, labels, weight, _ = draw(500, 8, 5, spread=6.0)
    fitted = NearestCentroid().fit(features.numpy(), labels.numpy())
    found = neural_collapse_metrics(features, labels, weight)
    assert found.nearest_centre_accuracy == fitted.score(features.numpy(), labels.numpy())
    centres = torch.from_numpy(fitted.centroids_)
    assert torch.equal(
        nearest_centre(features, centres), torch.from_numpy(fitted.predict(features.numpy()))
    )


@pytest.mark.parametrize("offset", [0, 1e4, -1e6])
def test_a_common_offset_costs_no_digits_of_the_nearest_centre(offset):
    """Multiples of 1/16 up to 4: in float32 the offset is added exactly, and its square is not."""
    rng = torch.Generator().manual_seed(0)
    features, centres = (torch.randint(-64, 65, (n, 6), generator=rng) / 16 for n in (400, 4))
    expected = (features[:, None] - centres).square().sum(2).argmin(1)
    assert len(expected.unique()) == 4
    assert torch.equal(nearest_centre(features + offset, centres + offset), expected)


def test_the_lowest_of_equally_near_centres():
    centres = torch.tensor([[5.0], [1.0], [-1.0], [1.0]])
    assert nearest_centre(torch.zeros(2, 1), centres).tolist() == [1, 1]


# Closed forms


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_a_simplex_etf(classes):
    frame = simplex_etf(classes, classes + 3)
    cosines = frame @ frame.T
    expected = torch.full((classes, classes), -1 / (classes - 1), dtype=torch.float64)
    torch.testing.assert_close(cosines, expected.fill_diagonal_(1.0), rtol=0, atol=1e-12)
    torch.testing.assert_close(frame.sum(0), torch.zeros(classes + 3, dtype=torch.float64))
    distance = math.sqrt(2 * classes / (classes - 1))
    assert torch.pdist(frame).tolist() == pytest.approx([distance] * math.comb(classes, 2))


def test_perfect_collapse_is_zero_everywhere():
    frame, labels = simplex_etf(10, 32), torch.arange(400) % 10
    found = neural_collapse_metrics(3 * frame[labels], labels, 0.2 * frame)
    ideal = {**dict.fromkeys(vars(found), 0.0), "classes": 10, "samples": 400}
    ideal |= {"nearest_centre_accuracy": 1.0, "network_accuracy": 1.0}
    assert vars(found) == pytest.approx(ideal, abs=1e-12)


def test_isotropic_noise_about_a_simplex():
    """NC1 = (K - 1)^2 sigma^2 / m^2 and the trace ratio is D sigma^2 / m^2."""
    classes, dimensions, sigma, radius = 10, 40, 0.1, 2.0
    labels = torch.arange(200_000) % classes
    rng = torch.Generator().manual_seed(3)
    noise = torch.randn(len(labels), dimensions, generator=rng, dtype=torch.float64)
    frame = simplex_etf(classes, dimensions)
    found = neural_collapse_metrics(radius * frame[labels] + sigma * noise, labels, frame)
    # The sum of N D squares has a relative deviation of sqrt(2 / (N D)); five of them.
    assert found.nc1 == pytest.approx((classes - 1) ** 2 * sigma**2 / radius**2, rel=0.012)
    assert found.nc1_over_k == found.nc1 / classes
    assert found.trace_ratio == pytest.approx(dimensions * sigma**2 / radius**2, rel=0.006)


@pytest.mark.parametrize("classes", [3, 10])
def test_an_untargeted_leap(classes):
    """Every class leaps to all others alike: the simplex shrinks (K - 1)-fold and turns over."""
    frame = simplex_etf(classes)
    labels, landed = (pair.flatten() for pair in torch.where(~torch.eye(classes).bool()))
    found = neural_collapse_metrics(frame[landed], labels, frame)
    assert found.nc1 == pytest.approx((classes - 1) * ((classes - 1) ** 2 - 1))
    assert found.trace_ratio == pytest.approx((classes - 1) ** 2 - 1)
    # Still a simplex, but antipodal: |W/|W| + W/|W||^2.
    assert found.nc2_equiangular_means == pytest.approx(0, abs=1e-9)
    assert found.nc3 == pytest.approx(4)


def test_a_leap_of_every_class_to_its_own_target_keeps_the_simplex():
    frame, labels = simplex_etf(10), torch.arange(100) % 10
    landed = (labels + 1) % 10
    under_targets = neural_collapse_metrics(frame[landed], landed, frame)
    under_labels = neural_collapse_metrics(frame[landed], labels, frame)
    assert under_targets.nc1 == pytest.approx(0, abs=1e-20)
    assert under_targets.nc3 == pytest.approx(0, abs=1e-20)
    # A permuted simplex is one too; only the weights have the old order.
    assert under_labels.nc1 == pytest.approx(0, abs=1e-20)
    assert under_labels.nc3 == pytest.approx(2 + 2 / 9)


@given(st.integers(0, 2**32), st.floats(0.01, 100), st.floats(-50, 50))
@settings(deadline=None)
def test_rotation_scale_and_offset_change_no_geometry(seed, scale, offset):
    features, labels, weight, bias = draw(60, 5, 4, seed=seed, dtype=torch.float64)
    rng = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=rng, dtype=torch.float64)).Q
    one = neural_collapse_metrics(features, labels, weight, bias)
    moved = scale * features @ rotation + offset
    # The logits stay the same: the weights turn and shrink, and the bias takes the offset back.
    turned = weight @ rotation / scale
    other = neural_collapse_metrics(moved, labels, turned, bias - offset * turned.sum(1))
    assert vars(other) == pytest.approx(vars(one), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("weakest", [1e-2, 1e-4])
def test_no_linear_map_changes_nc1_where_the_means_span_the_space(weakest):
    """Tr((A W A^T) (A B A^T)^-1) is Tr(W B^-1): directions count alike, however weak they are."""
    features, labels, weight, _ = draw(300, 3, 10, dtype=torch.float64)
    squeezed = features * torch.tensor([1.0, 1e-1, weakest], dtype=torch.float64)
    one, other = (neural_collapse_metrics(each, labels, weight) for each in (features, squeezed))
    assert other.nc1 == pytest.approx(one.nc1, rel=1e-6)


@pytest.mark.parametrize("offset", [1e6, 1e9, 1e11])
def test_an_offset_far_larger_than_the_means_adds_no_direction(offset):
    """The rounded means span one dimension more than the exact ones, in which NC1 has no part."""
    features, labels, weight, _ = draw(60, 5, 4, dtype=torch.float64)
    moved = features + offset
    # This difference is exact: both hold the same digits.
    near, far = (neural_collapse_metrics(h, labels, weight) for h in (moved - offset, moved))
    # Means are rounded to some units of 1e-16 of the offset, and lie apart by about 5.
    assert far.nc1 == pytest.approx(near.nc1, rel=1e-15 * offset + 1e-9)
    assert far.trace_ratio == pytest.approx(near.trace_ratio, rel=1e-15 * offset + 1e-9)


# Classes and dimensions at the edge


def test_classes_without_samples_take_no_part():
    features, labels, weight, _ = draw(60, 6, 4, dtype=torch.float64)
    found = neural_collapse_metrics(features, 2 * labels, weight.repeat_interleave(2, 0))
    alone = neural_collapse_metrics(features, labels, weight)
    assert found.classes == 4
    for name in ("nc1", "trace_ratio", "nc2_equiangular_weights", "nc3", "nearest_centre_accuracy"):
        assert getattr(found, name) == pytest.approx(getattr(alone, name), rel=1e-9), name


def test_one_sample_of_each_class_is_collapsed():
    features, _, weight, _ = draw(4, 6, 4, dtype=torch.float64)
    found = neural_collapse_metrics(features, torch.arange(4), weight)
    assert found.nc1 == 0 and found.trace_ratio == 0 and found.nearest_centre_accuracy == 1


def test_class_means_that_almost_coincide_are_told_apart():
    """Their distance is 1e-9 of their size, and its square has no digits in a difference."""
    place = torch.tensor([[1e3], [1e3 + 1e-6], [-2e3]], dtype=torch.float64)
    features, labels = place.expand(3, 7).repeat(5, 1), torch.arange(3).repeat(5)
    found = neural_collapse_metrics(features, labels, torch.ones(3, 7, dtype=torch.float64))
    assert found.nearest_centre_accuracy == 1


def test_fewer_dimensions_than_classes():
    drawn = draw(300, 3, 10, dtype=torch.float64)
    assert vars(neural_collapse_metrics(*drawn)) == pytest.approx(dense(*drawn), rel=1e-6)


def test_dead_features_give_numbers():
    labels = torch.arange(20) % 4
    found = neural_collapse_metrics(torch.ones(20, 3), labels, torch.randn(4, 3))
    assert found.nc1 == 0 and found.trace_ratio == 0 and found.nc2_equinorm_means == 0
    assert found.nc2_equiangular_means == pytest.approx(1 / 3)
    assert not any(math.isnan(value) for value in vars(found).values())


def test_means_that_coincide_have_no_finite_nc1():
    features = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    found = neural_collapse_metrics(features, torch.tensor([0, 0, 1, 1]), torch.ones(2, 1))
    assert found.nc1 == math.inf and found.trace_ratio == math.inf


# Streams and memory


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_the_size_of_batches_changes_rounding_only(size):
    features, labels, weight, bias = draw(300, 16, 5)

    def batches():
        return zip(features.split(size), labels.split(size), strict=True)

    found = streamed_neural_collapse_metrics(batches, weight, bias)
    whole = neural_collapse_metrics(features, labels, weight, bias)
    assert vars(found) == pytest.approx(vars(whole), rel=1e-6, abs=1e-9)


def test_features_are_read_twice_and_no_square_matrix_of_them_is_made():
    samples, dimensions, classes = 20_000, 256, 10
    features, labels, weight, bias = draw(samples, dimensions, classes)
    with Traffic(features=features) as traffic:
        neural_collapse_metrics(features, labels, weight, bias)
    assert traffic.reads("features") == 2 + classes / samples
    # The dense form writes a copy of all deviations and the D x D matrices.
    with Traffic(features=features) as simple:
        means = torch.zeros(classes, dimensions).index_add_(0, labels, features)
        deviations = features - means[labels]
        deviations.T @ deviations
    assert simple.reads("features") == 2


# Bad input


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"weight": torch.zeros(1, 3)}, ValueError, r"weight has shape \(1, 3\); accepted is"),
        ({"weight": torch.zeros(2, 4)}, ValueError, "features has 3 columns, weight 4"),
        (
            {"weight": torch.full((2, 3), torch.nan)},
            ValueError,
            "weight holds . elements that are NaN",
        ),
        ({"bias": torch.zeros(3)}, ValueError, r"bias has shape \(3,\); accepted is \(2,\)"),
        ({"bias": torch.full((2,), torch.inf)}, ValueError, "bias holds . elements that are NaN"),
        ({"labels": torch.zeros(4, dtype=torch.int64)}, ValueError, "samples of 1 classes"),
        ({"labels": torch.tensor([0, 1, 2, 0])}, ValueError, "labels lie from 0 to 2"),
        ({"features": torch.ones(4, 3).int()}, TypeError, "features is torch.int32"),
        ({"features": torch.full((4, 3), torch.nan)}, ValueError, "features holds 12 elements"),
    ],
)
def test_bad_input_is_named(change, error, message):
    good = {
        "features": torch.randn(4, 3),
        "labels": torch.tensor([0, 1, 0, 1]),
        "weight": torch.zeros(2, 3),
    }
    with pytest.raises(error, match=message):
        neural_collapse_metrics(**{**good, **change})


def test_passes_that_cannot_be_repeated_are_refused():
    features, labels, weight, _ = draw(20, 3, 2)
    with pytest.raises(TypeError, match="batches is a list; accepted is a function"):
        streamed_neural_collapse_metrics([(features, labels)], weight)
    once = iter([(features, labels)])
    with pytest.raises(ValueError, match="other labels in its second pass"):
        streamed_neural_collapse_metrics(lambda: once, weight)
    passes = iter([[(features, labels)], [(features, torch.zeros_like(labels))]])
    with pytest.raises(ValueError, match="other labels in its second pass"):
        streamed_neural_collapse_metrics(lambda: next(passes), weight)
    with pytest.raises(ValueError, match="samples of 0 classes"):
        streamed_neural_collapse_metrics(lambda: [], weight)


def test_centres_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"features has shape \(2, 3\), centres \(4, 5\)"):
        nearest_centre(torch.zeros(2, 3), torch.zeros(4, 5))


@pytest.mark.parametrize(("classes", "dimensions"), [(1, None), (4, 2), (2.5, None)])
def test_a_simplex_that_does_not_exist_is_refused(classes, dimensions):
    with pytest.raises((TypeError, ValueError), match="num_classes is|dimensions is"):
        simplex_etf(classes, dimensions)
