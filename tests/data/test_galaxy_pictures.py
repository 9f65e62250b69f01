"""Sets of galaxy pictures are standardised by what they train on, and read from true files."""

import numpy as np
import pytest
import torch
from PIL import Image

from kempe_nb.data.errors import DataError
from kempe_nb.data.galaxies import CLASSES, draw_galaxies, render
from kempe_nb.data.galaxy_pictures import BLUR, exposed, from_folder, photographed, simulated


def drawn(count=40, seed=0):
    labels = np.arange(count) % len(CLASSES)
    return draw_galaxies(labels, np.random.default_rng(seed))


def test_a_simulated_set_is_balanced_and_standardised_by_its_training_pictures():
    found = simulated(3, 2, np.random.default_rng(0), size=16)
    assert found.train.images.shape == (27, 3, 16, 16)
    assert found.test.images.shape == (18, 3, 16, 16)
    assert found.train.images.dtype == torch.float32
    assert found.test.labels.tolist() == [c for c in range(9) for _ in range(2)]
    assert found.classes == CLASSES
    flat = found.train.images.transpose(0, 1).flatten(1)
    torch.testing.assert_close(flat.mean(1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(flat.std(1), torch.ones(3), atol=1e-4, rtol=0)
    shown = found.shown(found.test.images)
    torch.testing.assert_close(found.standardised(shown), found.test.images, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found.test.images.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)


def test_the_same_generator_gives_the_same_pictures():
    one, two = (simulated(1, 1, np.random.default_rng(5), size=12) for _ in range(2))
    assert torch.equal(one.train.images, two.train.images)


def test_noise_has_the_spread_that_was_asked_for():
    galaxies = drawn()
    plain, noisy = (
        photographed(galaxies, 32, np.random.default_rng(0), noise=noise) for noise in (0.0, 0.01)
    )
    # Far out, where a picture is hardly stretched.
    grain = (noisy - plain)[:, :, :3, :3] * 32**2
    assert float(grain.std()) == pytest.approx(0.01, rel=0.1)


def test_individual_galaxies_differ_in_colour_and_brightness_alone():
    galaxies = drawn(300)
    plain, own = (
        photographed(galaxies, 32, np.random.default_rng(0), noise=0.0, individual=s)
        for s in (0.0, 0.3)
    )
    # Faint light is not stretched, so there the factor is seen.
    factor = (own[:, :, 2:5, 16] / plain[:, :, 2:5, 16]).log().mean(2)
    assert float(factor.std()) == pytest.approx(0.3, rel=0.25)
    assert float(np.corrcoef(factor[:, 0], factor[:, 1])[0, 1]) < 0.3


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"size": 9}, "size is 9"),
        ({"noise": -0.1}, "noise is -0.1"),
        ({"individual": -0.1}, "individual is -0.1"),
    ],
)
def test_bad_settings_of_a_photograph_are_refused(changed, said):
    settings = {"size": 16, "generator": np.random.default_rng(0)} | changed
    with pytest.raises(ValueError, match=said):
        photographed(drawn(2), **settings)


def test_a_photograph_is_light_that_was_exposed():
    galaxies = drawn(3)
    whole = photographed(galaxies, 16, np.random.default_rng(1), individual=0.2)
    light = render(galaxies, 16, blur=16 * BLUR)
    before = light.copy()
    assert torch.equal(exposed(light, np.random.default_rng(1), individual=0.2), whole)
    assert (light == before).all()


def test_without_noise_light_is_stretched_from_twice_the_mean_of_a_galaxy_on():
    light = np.linspace(0, 1, 3 * 16, dtype=np.float32).reshape(1, 3, 4, 4)
    mean = light.mean(1, keepdims=True, dtype=np.float64)
    softening = 2 / 16
    expected = light * np.arcsinh(mean / softening) / (mean / softening)
    found = exposed(light, np.random.default_rng(0), noise=0.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("light", [[1.0], np.zeros((1, 3, 4, 4)), np.zeros((3, 4, 4), np.float32)])
def test_light_that_is_none_is_refused(light):
    with pytest.raises(ValueError, match="light is"):
        exposed(light, np.random.default_rng(0))


def test_a_class_without_galaxies_is_refused():
    with pytest.raises(ValueError, match="test_per_class is 0"):
        simulated(1, 0, np.random.default_rng(0))


def written(folder, sizes=(40,), classes=("round", "spiral"), splits=("train", "test")):
    """A folder of pictures whose middle half is white on black."""
    rng = np.random.default_rng(0)
    for split in splits:
        for number, name in enumerate(classes):
            place = folder / split / name
            place.mkdir(parents=True)
            for index, size in enumerate((*sizes, *sizes)):
                pixels = rng.integers(0, 60, (size, size, 3), dtype=np.uint8)
                edge = size // 4
                pixels[edge:-edge, edge:-edge, number] = 200
                Image.fromarray(pixels).save(place / f"{index}.png")
    return folder


def test_a_folder_keeps_the_middle_half_and_averages_it(tmp_path):
    found = from_folder(written(tmp_path), size=10)
    assert found.train.images.shape == (4, 3, 10, 10)
    assert found.classes == ("round", "spiral")
    shown = found.shown(found.train.images)
    # The middle alone: red is white all over in the first class, green in the second.
    torch.testing.assert_close(shown[:2, 0], torch.full((2, 10, 10), 200 / 255), atol=1e-5, rtol=0)
    torch.testing.assert_close(shown[2:, 1], torch.full((2, 10, 10), 200 / 255), atol=1e-5, rtol=0)
    first = np.asarray(Image.open(tmp_path / "train/round/0.png"), np.float64)[10:30, 10:30, 2]
    averaged = first.reshape(10, 2, 10, 2).mean((1, 3)) / 255
    np.testing.assert_allclose(shown[0, 2], averaged, atol=1e-5)


def test_other_classes_for_testing_are_refused(tmp_path):
    written(tmp_path, splits=("train",))
    written(tmp_path, splits=("test",), classes=("round", "cigar"))
    with pytest.raises(DataError, match="cigar"):
        from_folder(tmp_path, size=10)


def test_pictures_of_two_sizes_are_refused(tmp_path):
    with pytest.raises(DataError, match="different sizes"):
        from_folder(written(tmp_path, sizes=(40, 44)), size=10)


def test_small_pictures_are_refused(tmp_path):
    with pytest.raises(DataError, match="40 x 40"):
        from_folder(written(tmp_path), size=21)
