"""The Triton code of class_moments in the interpreter: the numbers, and the fewest bytes."""

import pytest
import torch
from guard import guarded

from kempe_nb.kernels.class_moments import class_moments
from kempe_nb.kernels.triton import class_moments as device_code

BLOCK, ROWS, STEP = device_code.CONFIG["BLOCK"], device_code.ROWS, device_code.STEP


def draw(samples, dimensions, num_classes, dtype=torch.float32, spread=1.0):
    rng = torch.Generator().manual_seed(samples + dimensions)
    labels = torch.randint(num_classes, (samples,), generator=rng)
    means = 3 + torch.randn(num_classes, dimensions, generator=rng)
    noise = torch.randn(samples, dimensions, generator=rng)
    return (means[labels] + spread * noise).to(dtype), labels


def moments(features, labels, num_classes, **kwargs):
    """Return what Triton finds, held to the definition in float64, and the bytes it moved."""
    with guarded() as moved:
        found = class_moments(features, labels, num_classes, impl="triton", **kwargs)
    truth = class_moments(features.double(), labels, num_classes)
    eps = torch.finfo(found.shifts.dtype).eps
    spread = (truth.scatter.sum() / max(len(features), 1)).sqrt().item()
    assert torch.equal(found.counts, truth.counts)
    torch.testing.assert_close(
        found.class_means, truth.class_means, rtol=1e-12, atol=16 * eps * spread + 1e-12
    )
    torch.testing.assert_close(found.scatter, truth.scatter, rtol=16 * eps, atol=1e-9)
    return found, moved


@pytest.mark.parametrize("samples", [0, 1, STEP, ROWS, ROWS + 1, 2 * ROWS + STEP + 3])
@pytest.mark.parametrize("num_classes", [1, 3])
def test_samples(samples, num_classes):
    moments(*draw(samples, 5, num_classes), num_classes)


@pytest.mark.parametrize("dimensions", [0, 1, 37, BLOCK, BLOCK + 1])
def test_dimensions(dimensions):
    moments(*draw(40, dimensions, 3), 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype):
    moments(*draw(150, 20, 4, dtype), 4)


def test_one_long_class_among_empty_ones(monkeypatch):
    monkeypatch.setattr(device_code, "ROWS", 16)
    features, _ = draw(700, 4, 1)
    # 44 pieces of one class: the second kernel turns three times.
    moments(features, torch.full((700,), 2), 5)


def test_more_classes_than_samples():
    moments(*draw(9, 4, 50), 50)


def test_collapsed_features():
    moments(*draw(200, 16, 4, spread=1e-4), 4)


def test_a_stream():
    features, labels = draw(90, 8, 3)
    first = class_moments(features[:50], labels[:50], 3, impl="triton")
    found = class_moments(features[50:], labels[50:], 3, before=first, impl="triton")
    whole = class_moments(features.double(), labels, 3)
    torch.testing.assert_close(found.class_means, whole.class_means, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layout", ["transposed", "columns", "expanded"])
def test_layouts(layout):
    features, labels = draw(40, 12, 3)
    views = {
        "transposed": features.T.contiguous().T,
        "columns": features[:, ::2],
        "expanded": features[0].expand(40, 12),
    }
    moments(views[layout], labels, 3)


def test_gradients_are_those_of_the_definition():
    features, labels = draw(30, 6, 3, torch.float64)
    gradients = []
    for impl in ("definition", "triton"):
        own = features.clone().requires_grad_()
        found = class_moments(own, labels, 3, impl=impl)
        (found.scatter.square().sum() + (found.class_means**3).sum()).backward()
        gradients.append(own.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("dimensions", "tiles"), [(64, 1), (BLOCK + 8, 2)])
def test_features_are_read_once_and_never_written(dimensions, tiles):
    samples, num_classes = 300, 3
    _, moved = moments(*draw(samples, dimensions, num_classes), num_classes)
    pieces = num_classes + samples // ROWS
    assert moved.read["features"] == 4 * samples * dimensions
    assert moved.read["order"] == 8 * samples * tiles
    # The sums of the pieces are read by the second kernel as often as there are true pieces.
    assert moved.read["shifts"] == 4 * pieces * dimensions
    assert moved.read["partial"] <= 4 * pieces * dimensions
    assert moved.written["out"] == (4 * pieces + 8 * num_classes) * dimensions
    assert not moved.atomics
    assert "features" not in moved.written


@pytest.mark.parametrize("counts", [[0], [5], [128, 129], [0, 300, 0, 1], [1] * 20])
def test_pieces_cover_every_sample_once(counts):
    counts = torch.tensor(counts)
    pieces, ends = device_code.cut(counts, int(counts.sum()))
    labels = torch.repeat_interleave(torch.arange(len(counts)), counts)
    covered = [row for own, a, b in pieces.tolist() for row in range(a, b) if labels[row] == own]
    assert sorted(covered) == list(range(len(labels)))
    assert all(b - a <= ROWS for _, a, b in pieces.tolist())
    assert ends[-1] <= len(pieces)
    owners = [own for own, a, b in pieces[: ends[-1]].tolist()]
    assert owners == torch.repeat_interleave(torch.arange(len(counts)), ends.diff()).tolist()
