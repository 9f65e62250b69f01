"""Simulated galaxies have the light, the shapes and the symmetries that their numbers say."""

from dataclasses import fields, replace
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from kempe_nb.data.galaxies import (
    BAR_WIDTH,
    CLASSES,
    COLOURS,
    Galaxies,
    draw_galaxies,
    render,
    sersic_b,
    stretched,
)

PLAIN = {
    "flux": 1.0,
    "bulge": 0.0,
    "bar": 0.0,
    "bulge_radius": 0.1,
    "disk_radius": 0.1,
    "bar_length": 0.1,
    "bulge_index": 1.0,
    "bulge_ratio": 1.0,
    "disk_ratio": 1.0,
    "angle": 0.0,
    "bar_angle": 0.0,
    "arms": 0.0,
    "pitch": 0.4,
}

few = settings(max_examples=20, deadline=None)


def galaxy(**changed):
    return Galaxies(**{name: [value] for name, value in (PLAIN | changed).items()})


def grid(size):
    """Return the distances of pixels from the middle of the picture, over its side, x and y."""
    steps = (np.arange(size) - (size - 1) / 2) / size
    return steps[None, :], -steps[:, None]


def rng(seed=0):
    return np.random.default_rng(seed)


@settings(max_examples=15)
@given(st.floats(0.5, 4.0), st.floats(0.4, 1.0))
def test_half_of_the_light_lies_inside_the_radius(index, ratio):
    size = 300
    radius = 0.1
    own = galaxy(bulge=1.0, bulge_radius=radius, bulge_index=index, bulge_ratio=ratio)
    light = render(own, size)[0].mean(0)
    x, y = grid(size)
    inside = np.hypot(x, y / ratio) < radius
    # The edge of the ellipse crosses pixels, and the peak of a high index is narrower than one.
    assert abs(float(light[inside].sum()) - 0.5) < 0.01


@pytest.mark.parametrize("part", ["bulge", "bar", "disk"])
def test_each_part_has_its_share_of_the_light(part):
    shares = {"bulge": 0.0, "bar": 0.0} | ({part: 1.0} if part != "disk" else {})
    own = galaxy(flux=3.0, disk_ratio=0.5, bulge_radius=0.03, disk_radius=0.05, **shares)
    light = render(own, 200)[0].sum((1, 2), dtype=np.float64)
    colour = np.array(COLOURS["disk" if part == "disk" else "bulge"])
    # A disk of index one has (1 + 1.68 r) e^(-1.68 r) of its light beyond r radii: 1e-6 at ten.
    assert np.abs(light / (3 * colour) - 1).max() < 2e-3


@settings(max_examples=15)
@given(st.integers(0, 8), st.integers(0, 99))
def test_a_turned_galaxy_has_a_turned_picture(label, seed):
    own = draw_galaxies([label], rng(seed))
    turned = replace(own, angle=own.angle + np.pi / 2)
    one, other = render(own, 24, blur=0.8), render(turned, 24, blur=0.8)
    np.testing.assert_allclose(np.rot90(one, axes=(2, 3)), other, atol=1e-6 * float(one.max()))


def test_arms_add_no_light_to_any_circle_and_have_two_fold_symmetry():
    size = 180
    plain, armed = (render(galaxy(arms=each, disk_radius=0.15), size)[0] for each in (0.0, 0.8))
    x, y = grid(size)
    circle = np.hypot(x, y)
    wave = (armed - plain).mean(0)
    for low in (0.1, 0.2, 0.3):
        ring = (circle >= low) & (circle < low + 0.05)
        assert abs(float(wave[ring].mean())) < 0.01 * float(np.abs(wave[ring]).max())
        assert np.abs(wave[ring]).max() > 0.3 * plain.mean(0)[ring].min()
    np.testing.assert_allclose(wave, wave[::-1, ::-1], atol=1e-6)


@few
@given(st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_faint_arms_and_bars_are_drawn_in_proportion(contrast, share):
    for whole, part in (({"arms": 1.0}, {"arms": contrast}), ({"bar": 1.0}, {"bar": share})):
        ((name, weight),) = part.items()
        none, all_of_it, some = (render(galaxy(**own), 24) for own in ({name: 0.0}, whole, part))
        expected = none + weight * (all_of_it.astype(np.float64) - none)
        np.testing.assert_allclose(some, expected, rtol=1e-4, atol=1e-6 * float(none.max()))


def test_an_arm_has_its_pitch():
    # Along an arm the logarithm of the radius grows by tan(pitch) a radian.
    size, pitch = 300, 0.4
    own = galaxy(arms=1.0, disk_radius=0.2, pitch=pitch)
    wave = (render(own, size) - render(galaxy(disk_radius=0.2), size))[0].mean(0)
    x, y = grid(size)
    circle, turn = np.hypot(x, y) + 0 * x, np.arctan2(y, x)
    phases = []
    for radius in (0.25, 0.3, 0.35):
        ring = np.abs(circle - radius) < 0.004
        moment = (wave[ring] * np.exp(-2j * turn[ring])).sum()
        phases.append(-np.angle(moment) / 2)
    slope = np.diff(np.unwrap(phases, period=np.pi)) / np.diff(np.log([0.25, 0.3, 0.35]))
    # The angle of a crest: the wave is cos(2 (turn - crest)). It grows with a positive pitch.
    np.testing.assert_allclose(slope, 1 / np.tan(pitch), rtol=0.05)


def test_arms_are_blue_and_a_bulge_is_red():
    armed, plain = (render(galaxy(arms=each, disk_radius=0.2), 64)[0] for each in (1.0, 0.0))
    bright = (armed - plain)[:, (armed - plain).mean(0) > 0].sum(1)
    assert bright[2] > 1.2 * bright[1] > 1.2 * 1.2 * bright[0]
    red, green, blue = render(galaxy(bulge=1.0), 64)[0].sum((1, 2))
    assert red > green > blue


def test_a_bar_has_its_length_its_width_and_its_angle_in_the_plane_of_the_disk():
    x, y = grid(200)
    for turn, ratio in ((0.0, 1.0), (0.7, 1.0), (0.0, 0.5), (np.pi / 2, 0.5)):
        own = galaxy(bar=1.0, bar_length=0.1, bar_angle=turn, disk_ratio=ratio)
        light = render(own, 200)[0].mean(0).astype(float)
        moments = (
            np.array([[(light * a * b).sum() for b in (x, y)] for a in (x + 0 * y, y + 0 * x)])
            / light.sum()
        )
        # For exp(-R^4) a coordinate's mean square is 1 / (2 sqrt(pi)).
        spread = np.diag([0.1, BAR_WIDTH * 0.1]) ** 2 / (2 * np.sqrt(np.pi))
        rotate = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        flatten = np.diag([1.0, ratio])
        expected = flatten @ rotate @ spread @ rotate.T @ flatten
        np.testing.assert_allclose(moments, expected, atol=2e-5)


@pytest.mark.parametrize("size", [32, 33, 64, 65])
def test_no_size_of_the_picture_makes_light(size):
    own = draw_galaxies(np.repeat(np.arange(9), 3), rng())
    light = render(own, size).sum((2, 3), dtype=np.float64).mean(1) / own.flux
    # What lies beyond the picture, and what samples of a cusp or of a thin disk get wrong.
    assert light.max() < 1.03 and light.min() > 0.85


@settings(max_examples=15)
@given(st.floats(0.1, 1.0), st.floats(0.0, 6.0))
def test_moments_have_the_axis_ratio_and_the_angle(ratio, angle):
    own = galaxy(disk_radius=0.04, disk_ratio=ratio, angle=angle)
    light = render(own, 160)[0].mean(0).astype(np.float64)
    x, y = grid(160)
    moments = (
        np.array([[(light * a * b).sum() for b in (x, y)] for a in (x + 0 * y, y + 0 * x)])
        / light.sum()
    )
    spread, axes = np.linalg.eigh(moments)
    # A pixel's own width is a part of the short axis.
    pixel = 1 / 12 / 160**2
    assert abs(np.sqrt((spread[0] - pixel) / (spread[1] - pixel)) - ratio) < 0.02
    if ratio < 0.9:
        along = np.array([np.cos(angle), np.sin(angle)])
        assert abs(abs(float(axes[:, 1] @ along)) - 1) < 1e-3


@settings(max_examples=15)
@given(st.floats(0.5, 3.0))
def test_a_blur_keeps_the_light_and_adds_its_variance(blur):
    size = 64
    own = galaxy(disk_radius=0.05)
    sharp, soft = (render(own, size, blur=each)[0].mean(0).astype(float) for each in (0.0, blur))
    assert abs(soft.sum() - sharp.sum()) < 1e-3
    x, _ = grid(size)
    width = [float((each * x**2).sum() / each.sum()) * size**2 for each in (sharp, soft)]
    assert abs(width[1] - width[0] - blur**2) < 0.05 * blur**2 + 0.02


def test_noise_is_added_last_and_is_the_generator_s():
    own = draw_galaxies([0, 7], rng())
    plain = render(own, 32)
    noisy = [render(own, 32, noise=0.1, generator=rng(3)) for _ in range(2)]
    np.testing.assert_array_equal(*noisy)
    added = noisy[0] - plain
    # 6,144 normal numbers: five standard errors of their deviation.
    assert abs(added.std() / 0.1 - 1) < 5 / np.sqrt(2 * added.size)
    assert abs(added.mean()) < 5 * 0.1 / np.sqrt(added.size)


def test_what_was_checked_stays_as_it_is():
    given = {name: np.array([value]) for name, value in PLAIN.items()}
    own = Galaxies(**given)
    given["bulge"][0] = 9.0
    assert own.bulge[0] == PLAIN["bulge"] and own == own
    with pytest.raises(ValueError, match="read-only"):
        own.bulge[0] = 9.0


def test_a_stretch_keeps_colours_and_order_and_is_the_identity_on_faint_light():
    pictures = render(draw_galaxies(range(9), rng()), 32, blur=1.0)
    shown = stretched(pictures, 1e-3)
    mean, other = pictures.mean(1), shown.mean(1)
    np.testing.assert_allclose(other, 1e-3 * np.arcsinh(mean / 1e-3), rtol=1e-4, atol=1e-9)
    # Colours: each over the mean.
    np.testing.assert_allclose(shown / other[:, None], pictures / mean[:, None], rtol=1e-4)
    np.testing.assert_allclose(stretched(pictures, 1e3), pictures, rtol=1e-5)
    assert not stretched(0 * pictures, 1.0).any()


def test_classes_differ_by_what_their_names_say():
    labels = np.repeat(np.arange(9), 50)
    own = draw_galaxies(labels, rng())
    by_name = {name: labels == number for number, name in enumerate(CLASSES)}
    spiral = by_name["barred spiral"] | by_name["spiral"]
    barred = by_name["barred spiral"] | by_name["barred, no spiral"]
    assert ((own.arms > 0) == spiral).all() and ((own.bar > 0) == barred).all()
    edge = by_name["edge-on, bulge"] | by_name["edge-on, no bulge"]
    assert own.disk_ratio[edge].max() < 0.2 < own.disk_ratio[~edge].min()
    smooth = labels < 3
    assert (own.bulge[smooth] == 1).all() and own.bulge[~smooth].max() < 1
    ratios = [own.bulge_ratio[labels == k] for k in (0, 1, 2)]
    assert ratios[0].min() > ratios[1].max() and ratios[1].min() > ratios[2].max()
    assert {each.name for each in fields(own)} == set(PLAIN)


def test_galaxies_of_a_seed_are_the_same_and_of_another_are_others():
    one, same, other = (draw_galaxies([5, 5], rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.angle, same.angle)
    assert (one.angle != other.angle).all()


@pytest.mark.skipif(find_spec("galsim") is None, reason="needs GalSim")
@pytest.mark.parametrize("index", [1.0, 2.5, 4.0])
def test_profile_and_blur_agree_with_galsim(index):
    import galsim

    size, radius, blur = 64, 0.08, 1.5
    own = galaxy(bulge=1.0, bulge_radius=radius, bulge_index=index, bulge_ratio=0.6, angle=0.5)
    ours = render(own, size, blur=blur)[0].mean(0)
    # GalSim's radius is that of the circle of the same area.
    profile = galsim.Sersic(n=index, half_light_radius=radius * size * np.sqrt(0.6))
    sheared = profile.shear(q=0.6, beta=0.5 * galsim.radians)
    seen = galsim.Convolve(sheared, galsim.Gaussian(sigma=blur))
    theirs = seen.drawImage(nx=size, ny=size, scale=1.0).array[::-1]
    error = np.abs(ours - theirs) / theirs.max()
    # The cusp of a high index is narrower than a sample, so the middle is not as exact.
    middle = slice(size // 2 - 3, size // 2 + 3)
    assert error[middle, middle].max() < 0.03
    error[middle, middle] = 0
    assert error.max() < 0.005


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"flux": 0.0}, "flux holds .*0.0.*; accepted are numbers from 1e-30"),
        ({"flux": "1"}, "flux has dtype"),
        ({"bar_length": 11.0}, "bar_length holds"),
        ({"bulge": 0.7, "bar": 0.5}, "shares above 1 together"),
        ({"bulge": -0.1}, r"bulge holds .*-0.1"),
        ({"disk_ratio": 0.01}, r"disk_ratio holds .*0.01"),
        ({"bulge_index": 0.1}, r"bulge_index holds .*0.1"),
        ({"pitch": np.pi}, "pitch holds a multiple"),
        ({"angle": np.nan}, r"angle holds .*nan"),
        ({"arms": 1.5}, r"arms holds .*1.5"),
    ],
)
def test_bad_galaxies_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        galaxy(**wrong)


def test_bad_arguments_are_refused():
    own = galaxy()
    with pytest.raises(ValueError, match=r"bar has shape \(2,\)"):
        replace(own, bar=[0.0, 0.0])
    with pytest.raises(ValueError, match="size is 3"):
        render(own, 3)
    with pytest.raises(ValueError, match="blur is -1"):
        render(own, 8, blur=-1)
    for wrong in (None, 0, np.random.RandomState(0)):
        with pytest.raises(ValueError, match="generator is a"):
            render(own, 8, noise=0.1, generator=wrong)
        with pytest.raises(ValueError, match="generator is a"):
            draw_galaxies([0], wrong)
    with pytest.raises(ValueError, match="galaxies are a list"):
        render([own], 8)
    with pytest.raises(ValueError, match=r"blur is 0\.1"):
        render(own, 8, blur=0.1)
    with pytest.raises(ValueError, match="index holds"):
        sersic_b([1.0, 0.0])
    with pytest.raises(ValueError, match="pictures are int64"):
        stretched(np.ones((3, 2, 2), np.int64), 1.0)
    with pytest.raises(ValueError, match=r"pictures have shape \(5, 5, 3\)"):
        stretched(np.ones((5, 5, 3)), 1.0)
    with pytest.raises(ValueError, match="labels are 0 to 9; accepted are 0 to 8"):
        draw_galaxies([0, 9], rng())
    with pytest.raises(ValueError, match="labels have shape"):
        draw_galaxies([0.5], rng())
    with pytest.raises(ValueError, match="softening is 0"):
        stretched(np.ones((3, 2, 2)), 0)
    assert sersic_b(4.0) == pytest.approx(7.669, abs=1e-3)
