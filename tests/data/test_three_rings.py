"""Three rings: counts, radii, all angles, and seeds."""

import pytest
import torch

from kempe_nb.data.three_rings import COUNTS, RADII, three_rings


@pytest.mark.parametrize("copies", [1, 3])
def test_counts_and_radii_are_the_published_ones(copies):
    points, labels = three_rings(0, copies)
    assert points.dtype == torch.float32 and labels.dtype == torch.int64
    assert labels.bincount().tolist() == [copies * count for count in COUNTS]
    radius = points.norm(dim=1)
    for label, (inner, outer) in enumerate(RADII):
        own = radius[labels == label]
        assert inner - 1e-6 <= own.min() < inner + 0.01 and outer - 0.01 < own.max() <= outer + 1e-6
        # Uniform: the mean of n numbers is known to 0.3 / sqrt(n) of their range.
        assert own.mean() == pytest.approx((inner + outer) / 2, abs=1.5 * (outer - inner) / 25)


def test_points_stand_all_around():
    points, labels = three_rings(1, 4)
    quarters = 2 * (points[:, 0] > 0) + (points[:, 1] > 0)
    for label, count in enumerate(COUNTS):
        found = quarters[labels == label].bincount() / (4 * count)
        torch.testing.assert_close(found, torch.full((4,), 0.25), rtol=0, atol=0.05)


def test_a_seed_gives_the_same_points_and_another_gives_others():
    one, again, other = three_rings(0)[0], three_rings(0)[0], three_rings(1)[0]
    assert torch.equal(one, again) and not torch.isclose(one, other).any(1).all()


@pytest.mark.parametrize(("seed", "copies"), [(-1, 1), (0.5, 1), (0, 0), (0, 2.0)])
def test_bad_input_is_named(seed, copies):
    with pytest.raises(ValueError, match="(seed|copies) is .*; accepted is an integer"):
        three_rings(seed, copies)
