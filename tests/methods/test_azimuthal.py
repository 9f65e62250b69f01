"""Modes about the middle turn as they should, and the mean over rings is a projection."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from kempe_nb.methods.azimuthal import circular_mean, mode_amplitudes, mode_strengths

PICTURES = st.tuples(st.integers(1, 3), st.integers(1, 12)).flatmap(
    lambda shape: arrays(np.float64, (shape[0], shape[1], shape[1]), elements=st.floats(-9, 9))
)


@given(PICTURES, st.integers(0, 3), st.booleans())
def test_the_circular_mean_sees_no_turn_and_does_nothing_twice(pictures, quarters, mirrored):
    images = torch.from_numpy(pictures)
    found = circular_mean(images)
    turned = images.rot90(quarters, (-2, -1))
    turned = turned.flip(-1) if mirrored else turned
    torch.testing.assert_close(circular_mean(turned), found, rtol=0, atol=1e-13)
    torch.testing.assert_close(circular_mean(found), found, rtol=0, atol=1e-13)
    torch.testing.assert_close(found.sum((-2, -1)), images.sum((-2, -1)), rtol=0, atol=1e-10)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_the_circular_mean_is_its_own_transpose(height, width, seed):
    x, y = torch.randn(2, height, width, generator=torch.Generator().manual_seed(seed)).double()
    torch.testing.assert_close((circular_mean(x) * y).sum(), (x * circular_mean(y)).sum())


def test_a_picture_of_its_radius_is_left_as_it_is_where_the_rings_are():
    steps = np.arange(9) - 4.0
    ring = torch.from_numpy(np.hypot(steps[:, None], steps).round())
    assert torch.equal(circular_mean(ring), ring)
    assert circular_mean(ring[None].float()).dtype == torch.float32


def waves(size, m, phase=0.0):
    """A smooth picture with the mode m alone, beside its mean."""
    steps = np.arange(size) - (size - 1) / 2
    x, y = steps[None], -steps[:, None]
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    return np.exp(-((radius / size * 4 - 1) ** 2) * 3) * (1 + np.cos(m * (angle - phase)))


@given(st.integers(1, 4), st.floats(0, 2 * math.pi))
def test_the_strength_of_a_mode_sees_its_number_and_not_its_direction(m, phase):
    plain, turned = (mode_strengths(waves(48, m, own)) for own in (0.0, phase))
    np.testing.assert_allclose(turned, plain, atol=0.01 * plain[0])
    # cos has half of its size in m and half in -m, which is not counted.
    assert plain[m] / plain[0] == pytest.approx(0.5, abs=0.01)
    others = [k for k in range(1, 5) if k != m]
    assert plain[others].max() < 0.02 * plain[0]


@given(st.integers(1, 4), st.floats(-1, 1))
def test_a_turn_multiplies_the_mode_by_its_phase(m, phase):
    plain, turned = (mode_amplitudes(waves(64, m, own))[m] for own in (0.0, phase))
    rings = np.abs(plain) > 0.2 * np.abs(plain).max()
    np.testing.assert_allclose((turned / plain)[rings], np.exp(-1j * m * phase), atol=0.03, rtol=0)


def test_the_strength_of_an_even_sky_is_the_root_of_its_area_over_two_pi():
    # The integral of R dR out to 15 pixels, one less than the edge.
    assert mode_strengths(np.ones((32, 32)), 0)[0] == pytest.approx(15 / np.sqrt(2), rel=1e-12)


def test_strengths_scale_with_the_light_and_keep_its_shape():
    light = np.stack([waves(20, 2), 3 * waves(20, 2)])[None]
    found = mode_strengths(light, 3)
    assert found.shape == (1, 2, 4)
    np.testing.assert_allclose(found[0, 1], 3 * found[0, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("light", "modes", "said"),
    [
        (np.zeros(5), 2, "light is float64"),
        (np.zeros((3, 9)), 2, "light is float64"),
        (np.full((8, 8), np.nan), 2, "light holds values that are not finite"),
        (np.zeros((8, 8), complex), 2, "light is complex128"),
        (np.zeros((8, 8)), 16, "modes is 16"),
        (np.zeros((8, 8)), -1, "modes is -1"),
    ],
)
def test_bad_light_is_refused(light, modes, said):
    with pytest.raises(ValueError, match=said):
        mode_strengths(light, modes)


@pytest.mark.parametrize("images", [torch.zeros(4), torch.zeros(4, 4, dtype=torch.int64), [[1.0]]])
def test_bad_images_are_refused(images):
    with pytest.raises(ValueError, match="images are"):
        circular_mean(images)
