"""Moments of classes: against NumPy sums of one class at a time, and exact counts of bytes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from kempe_nb import Traffic, class_moments
from kempe_nb.kernels import class_moments as module
from kempe_nb.kernels.class_moments import ClassMoments, minimum_bytes

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
#: What one element of a sum may be off, in units of the dtype that deviations are formed in.
ROUNDINGS = 16


def draw(samples, dimensions, num_classes, dtype=torch.float32, spread=1.0, seed=0):
    """Return features with class means about 3 from zero, and labels."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_classes, (samples,), generator=rng)
    means = 3 + torch.randn(num_classes, dimensions, generator=rng, dtype=torch.float64)
    noise = torch.randn(samples, dimensions, generator=rng, dtype=torch.float64)
    return (means[labels] + spread * noise).to(dtype), labels


def expected(features, labels, num_classes):
    """Return counts, means and scatter of each class in NumPy's float64, one class at a time."""
    h, y = features.double().numpy(), labels.numpy()
    own = [h[y == c] for c in range(num_classes)]
    means = [rows.mean(0) if len(rows) else np.zeros(h.shape[1]) for rows in own]
    scatter = [((rows - mean) ** 2).sum() for rows, mean in zip(own, means, strict=True)]
    return np.array([len(rows) for rows in own]), np.array(means), np.array(scatter)


def assert_right(found: ClassMoments, features, labels, num_classes):
    counts, means, scatter = expected(features, labels, num_classes)
    # Deviations are formed in the dtype of the features, at least in float32.
    assert found.shifts.dtype == torch.promote_types(features.dtype, torch.float32)
    eps = torch.finfo(found.shifts.dtype).eps
    assert found.counts.tolist() == counts.tolist()
    spread = np.sqrt(scatter.sum() / max(len(features), 1)) + 1e-12
    np.testing.assert_allclose(found.class_means, means, atol=ROUNDINGS * eps * spread, rtol=1e-12)
    np.testing.assert_allclose(found.scatter, scatter, rtol=ROUNDINGS * eps, atol=1e-12 * spread)


@given(
    st.integers(0, 40),
    st.integers(0, 12),
    st.integers(1, 9),
    st.sampled_from(DTYPES),
    st.integers(0, 2**32),
)
@settings(deadline=None)
def test_moments_of_any_shape(samples, dimensions, num_classes, dtype, seed):
    features, labels = draw(samples, dimensions, num_classes, dtype, seed=seed)
    found = class_moments(features, labels, num_classes)
    assert (found.samples, found.num_classes) == (samples, num_classes)
    assert_right(found, features, labels, num_classes)
    assert all(torch.isfinite(t).all() for t in (found.sums, found.squares, found.global_mean))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("block_bytes", [1, 4096, 2**21])
def test_blocks_of_any_size(monkeypatch, dtype, block_bytes):
    monkeypatch.setitem(module.BLOCK_BYTES, False, block_bytes)
    features, labels = draw(1000, 33, 7, dtype)
    assert_right(class_moments(features, labels, 7), features, labels, 7)


def test_three_lines_of_the_module():
    features, labels = draw(500, 20, 4, torch.float64)
    found = class_moments(features, labels, 4)
    deviations = features - found.shifts[labels]
    sums = torch.zeros(4, 20, dtype=torch.float64).index_add(0, labels, deviations)
    squares = torch.zeros(4, dtype=torch.float64).index_add(0, labels, deviations.square().sum(1))
    torch.testing.assert_close(found.sums, sums, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.squares, squares, rtol=1e-12, atol=0)


# Collapsed features


@pytest.mark.parametrize("spread", [1e-1, 1e-2, 1e-3, 1e-4])
def test_collapsed_features_keep_their_digits(spread):
    features, labels = draw(400, 32, 10, spread=spread)
    _, _, scatter = expected(features, labels, 10)
    np.testing.assert_allclose(class_moments(features, labels, 10).scatter, scatter, rtol=2e-6)


def test_the_textbook_formula_loses_them():
    features, labels = draw(400, 32, 1, spread=1e-4)
    truth = expected(features, labels, 1)[2][0]
    textbook = features.square().sum() - len(features) * features.mean(0).square().sum()
    assert abs(textbook.item() / truth - 1) > 0.5
    assert abs(class_moments(features, labels, 1).scatter.item() / truth - 1) < 2e-6


@given(st.floats(-1e4, 1e4), st.integers(0, 2**32))
@settings(deadline=None)
def test_a_common_offset_changes_no_scatter(offset, seed):
    features, labels = draw(60, 5, 3, torch.float64, seed=seed)
    one = class_moments(features, labels, 3).scatter
    other = class_moments(features + offset, labels, 3).scatter
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_equal_samples_have_no_scatter_at_all():
    found = class_moments(torch.full((1000, 7), 0.1), torch.zeros(1000, dtype=torch.int64), 1)
    assert found.scatter.tolist() == [0.0]
    assert found.class_means.float().tolist() == torch.full((1, 7), 0.1).tolist()


def test_classes_with_no_sample_and_with_one():
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 4.0]])
    found = class_moments(features, torch.tensor([2, 0, 0]), 4)
    assert found.counts.tolist() == [2, 0, 1, 0]
    assert found.class_means.tolist() == [[4, 4], [0, 0], [1, 2], [0, 0]]
    assert found.scatter.tolist() == [2, 0, 0, 0]
    assert found.global_mean.tolist() == pytest.approx([3, 10 / 3])


# Streams


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(0, 2**32))
@settings(deadline=None)
def test_batches_change_rounding_only(sizes, seed):
    features, labels = draw(sum(sizes), 6, 4, seed=seed)
    moments = None
    for own, classes in zip(features.split(sizes), labels.split(sizes), strict=True):
        moments = class_moments(own, classes, 4, before=moments)
    whole = class_moments(features, labels, 4)
    assert torch.equal(moments.counts, whole.counts) and torch.equal(moments.shifts, whole.shifts)
    torch.testing.assert_close(moments.sums, whole.sums, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(moments.squares, whole.squares, rtol=1e-5, atol=1e-6)


def test_two_runs_have_the_same_bits():
    features, labels = draw(5000, 65, 13)
    one, other = (class_moments(features, labels, 13) for _ in range(2))
    assert torch.equal(one.sums, other.sums) and torch.equal(one.squares, other.squares)


# Derivatives


def total(features, labels):
    """Return a function of all moments; one without counts in it would hide the shifts."""
    moments = class_moments(features, labels, 3)
    return (moments.class_means**3).sum() + moments.scatter.square().sum()


def test_first_and_second_derivatives():
    features, labels = draw(9, 2, 3, torch.float64)
    features.requires_grad_()
    assert torch.autograd.gradcheck(total, (features, labels))
    assert torch.autograd.gradgradcheck(total, (features, labels))


def test_derivatives_through_torch_func():
    features, labels = draw(9, 2, 3, torch.float64)
    found = torch.func.grad(total)(features, labels)
    by_hand = features.clone().requires_grad_()
    total(by_hand, labels).backward()
    torch.testing.assert_close(found, by_hand.grad)


def test_an_expanded_gradient_is_read_as_what_it_is():
    features, labels = draw(9, 4, 3, torch.float64)
    features.requires_grad_()
    class_moments(features, labels, 3).sums.sum().backward()
    assert torch.equal(features.grad, torch.ones_like(features))


# Memory


@pytest.mark.parametrize("num_classes", [10, 100])
def test_the_features_are_read_once(num_classes):
    features, labels = draw(20_000, 64, num_classes)
    with Traffic(features=features, labels=labels) as traffic:
        class_moments(features, labels, num_classes)
    # The shifts: one row of each class, once more.
    assert traffic.reads("features") == 1 + num_classes / len(features)


def test_inputs_of_any_layout_stay_as_they_are():
    features, labels = draw(30, 8, 3)
    for view in (features.T.contiguous().T, features[:, ::2], features[0].expand(30, 8)):
        before = view.clone()
        assert_right(class_moments(view, labels, 3), before, labels, 3)
        assert torch.equal(view, before)


def test_minimum_bytes():
    assert minimum_bytes(50_000, 512, 10) == 50_000 * (4 * 512 + 8) + 10 * (8 * 512 + 16)


# Bad input


GOOD = {"features": torch.zeros(3, 2), "labels": torch.tensor([0, 1, 1]), "num_classes": 2}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"features": torch.zeros(3, 2).long()}, TypeError, "features is torch.int64; accepted"),
        ({"features": [[0.0]]}, TypeError, "features is a list"),
        ({"labels": torch.zeros(3)}, TypeError, "labels is torch.float32; accepted are int64"),
        ({"labels": torch.tensor([0, 1])}, ValueError, r"features has shape \(3, 2\), labels"),
        ({"features": torch.zeros(3)}, ValueError, r"features has shape \(3,\)"),
        ({"labels": torch.tensor([0, 1, 2])}, ValueError, "labels lie from 0 to 2; accepted is 0"),
        ({"labels": torch.tensor([0, -1, 1])}, ValueError, "labels lie from -1 to 1"),
        ({"num_classes": 0}, ValueError, "num_classes is 0"),
        ({"num_classes": 2.0}, (TypeError, ValueError), "num_classes is 2.0"),
        ({"features": torch.tensor([[0.0, torch.nan]] * 3)}, ValueError, "features holds 3 elem"),
        ({"features": torch.tensor([[0.0, -torch.inf]] * 3)}, ValueError, "features holds 3 elem"),
        ({"features": torch.tensor([[0.0], [3e38], [-3e38]])}, ValueError, "differences over"),
        ({"labels": torch.zeros(3, dtype=torch.int64, device="meta")}, ValueError, "one device"),
        ({"before": 3}, TypeError, "before is a int"),
        ({"impl": "fast"}, ValueError, "impl is 'fast'"),
    ],
)
def test_bad_input_is_named(change, error, message):
    with pytest.raises(error, match=message):
        class_moments(**{**GOOD, **change})


def test_moments_of_another_stream_are_refused():
    moments = class_moments(**GOOD)
    with pytest.raises(ValueError, match=r"before has classes and dimensions \(2, 2\)"):
        class_moments(torch.zeros(3, 5), GOOD["labels"], 2, before=moments)
    with pytest.raises(ValueError, match="before holds torch.float32"):
        class_moments(torch.zeros(3, 2).double(), GOOD["labels"], 2, before=moments)


def test_an_empty_batch_changes_nothing():
    moments = class_moments(**GOOD)
    empty = torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)
    after = class_moments(*empty, 2, before=moments)
    assert torch.equal(after.counts, moments.counts) and torch.equal(after.sums, moments.sums)
    assert class_moments(*empty, 2).scatter.tolist() == [0.0, 0.0]
