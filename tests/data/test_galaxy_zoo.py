"""The curated Galaxy Zoo 2, from small catalogues and small pictures."""

import numpy as np
import pytest
import torch
from galaxy_tables import FIRST, LAYOUTS, MANY, columns_of, small_counts, write
from hypothesis import given, strategies as st
from PIL import Image

from kempe_nb.data.errors import DataError
from kempe_nb.data.galaxies import CLASSES
from kempe_nb.data.galaxy_catalogue import WILLETT, votes_from_catalogue
from kempe_nb.data.galaxy_pictures import middle_half
from kempe_nb.data.galaxy_votes import class_scores, curated
from kempe_nb.data.galaxy_zoo import curated_set

#: Galaxies of a class that are kept, and how many of these are for testing.
KEPT, TESTED = 4, 1


@pytest.fixture
def catalogue(tmp_path):
    return write(tmp_path / "gz2.csv", columns_of(WILLETT, small_counts()))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Return a folder with a picture of noise for each galaxy, by its number."""
    folder, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(2)
    for row in range(MANY * len(CLASSES)):
        coarse = draw.integers(0, 256, (8, 8, 3), np.uint8)
        pixels = coarse.repeat(5, 0).repeat(5, 1)
        Image.fromarray(pixels).save(folder / f"{FIRST + 11 * row}.jpg", quality=95)
    return folder


def small_set(catalogue, pictures, **given):
    given = {"per_class": KEPT, "test_per_class": TESTED, "size": 10} | given
    return curated_set(catalogue, pictures, **given)


def same(first, second):
    return all(
        torch.equal(*each)
        for part in ("train", "test")
        for each in zip(getattr(first, part), getattr(second, part), strict=True)
    )


def middle(path, size):
    """Return the middle half of a picture as its blocks' means, [3, size, size]."""
    pixels = np.asarray(Image.open(path).convert("RGB"), np.float64).transpose(2, 0, 1) / 255
    quarter, block = pixels.shape[1] // 4, pixels.shape[1] // 2 // size
    kept = pixels[:, quarter:-quarter, quarter:-quarter]
    return kept.reshape(3, size, block, size, block).mean((2, 4))


def test_a_layout_and_a_packing_do_not_change_the_set(tmp_path, catalogue, pictures):
    expected = small_set(catalogue, pictures)
    for layout in LAYOUTS:
        path = write(tmp_path / "packed.csv.gz", columns_of(layout, small_counts()))
        assert same(small_set(path, pictures), expected)
    with_mark = tmp_path / "mark.csv"
    with_mark.write_text("\ufeff" + catalogue.read_text() + "\n", encoding="utf-8")
    assert same(small_set(with_mark, pictures), expected)


def test_the_order_of_a_catalogue_does_not_change_the_set(tmp_path, catalogue, pictures):
    columns = columns_of(WILLETT, small_counts())
    order = np.random.default_rng(3).permutation(len(columns["dr7objid"]))
    shuffled = {name: [cells[row] for row in order] for name, cells in columns.items()}
    path = write(tmp_path / "shuffled.csv", shuffled)
    assert same(small_set(path, pictures), small_set(catalogue, pictures))


def test_the_surest_galaxies_are_shown_each_once(catalogue, pictures):
    found = small_set(catalogue, pictures)
    assert found.classes == CLASSES
    assert found.train.images.shape == (27, 3, 10, 10) and found.test.images.shape == (9, 3, 10, 10)
    assert found.train.labels.tolist() == np.repeat(np.arange(9), 3).tolist()
    assert found.test.labels.tolist() == list(range(9))
    fractions, ids = votes_from_catalogue(catalogue)
    rows, labels = curated(class_scores(fractions), KEPT)
    images, own = (torch.cat(each) for each in zip(found.train, found.test, strict=True))
    shown = found.shown(images).double()
    expected = np.stack([middle(pictures / f"{number}.jpg", 10) for number in ids[rows]])
    gaps = torch.cdist(shown.flatten(1), torch.from_numpy(expected).flatten(1))
    assert gaps.min(1).values.max() < 1e-5
    assert sorted(gaps.argmin(1).tolist()) == list(range(len(rows)))
    assert (torch.from_numpy(labels)[gaps.argmin(1)] == own).all()


def test_pictures_for_training_have_no_mean_and_a_spread_of_one(catalogue, pictures):
    found = small_set(catalogue, pictures)
    assert found.train.images.mean((0, 2, 3)).abs().max() < 1e-6
    assert (found.train.images.std((0, 2, 3)) - 1).abs().max() < 1e-6
    assert found.test.images.mean((0, 2, 3)).abs().max() > 1e-4


def test_a_seed_says_which_galaxies_are_for_testing(catalogue, pictures):
    assert same(small_set(catalogue, pictures), small_set(catalogue, pictures, seed=1))
    first, *others = (small_set(catalogue, pictures, seed=seed) for seed in range(4))
    expected = first.shown(first.test.images)
    alike = [
        int(torch.isclose(each.shown(each.test.images), expected, atol=1e-5).all((1, 2, 3)).sum())
        for each in others
    ]
    # Each class draws for itself: of nine draws of one in four neither all nor none are the same.
    assert max(alike) < 9 and sum(alike) > 0


def test_pictures_in_folders_of_six_digits_are_found(tmp_path, catalogue, pictures):
    for path in pictures.iterdir():
        place = tmp_path / "nested" / path.name[:6] / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    assert same(small_set(catalogue, tmp_path / "nested"), small_set(catalogue, pictures))


def test_turns_are_of_training_pictures_one_after_the_other(catalogue, pictures):
    upright, turned = (small_set(catalogue, pictures, turns=turns) for turns in (1, 4))
    assert torch.equal(turned.train.labels, upright.train.labels.repeat_interleave(4))
    shown = turned.shown(turned.train.images).unflatten(0, (-1, 4))
    torch.testing.assert_close(shown[:, 0], upright.shown(upright.train.images))
    for turn in range(1, 4):
        torch.testing.assert_close(shown[:, turn], torch.rot90(shown[:, 0], turn, (2, 3)))
    torch.testing.assert_close(turned.shown(turned.test.images), upright.shown(upright.test.images))


def test_a_turn_brings_nothing_in_from_outside(tmp_path, catalogue, pictures):
    # White discs on white: a corner left empty would be black.
    for path in pictures.iterdir():
        pixels = np.full((40, 40, 3), 255, np.uint8)
        pixels[18:22, 18:22] = np.asarray(Image.open(path))[:4, :4]
        Image.fromarray(pixels).save(tmp_path / path.name, quality=100)
    found = small_set(catalogue, tmp_path, turns=10)
    assert found.train.images.shape == (270, 3, 10, 10)
    corners = found.shown(found.train.images)[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.min() > 0.97


@given(
    st.integers(1, 3), st.integers(1, 6), st.integers(0, 40), st.integers(0, 40), st.integers(0, 99)
)
def test_the_middle_half_is_averaged(count, size, more, wider, seed):
    height, width = 2 * size + more, 2 * size + wider
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 256, (count, 3, height, width), np.uint8)
    found = middle_half(torch.from_numpy(pixels), size, "here")
    assert found.shape == (count, 3, size, size) and found.dtype == torch.float32
    top, left = (height - height // 2) // 2, (width - width // 2) // 2
    kept = np.s_[:, :, top : top + height // 2, left : left + width // 2]
    # With each pixel repeated `size` times along each side, the new pixels are whole blocks.
    fine = (pixels[kept] / 255).repeat(size, 2).repeat(size, 3)
    blocks = fine.reshape(count, 3, size, height // 2, size, width // 2)
    np.testing.assert_allclose(found, blocks.mean((3, 5)), atol=1e-6)
    outside = np.full_like(pixels, 7)
    outside[kept] = pixels[kept]
    assert torch.equal(middle_half(torch.from_numpy(outside), size, "here"), found)


def test_missing_pictures_are_named_before_any_is_read(tmp_path, catalogue, pictures):
    with pytest.raises(DataError, match="images_folder is .*none; accepted is a folder"):
        small_set(catalogue, tmp_path / "none")
    names = sorted(path.name for path in pictures.iterdir())
    for name in names:
        (tmp_path / name).write_bytes(b"no picture")
    (tmp_path / names[7]).unlink()
    with pytest.raises(DataError, match=f"lacks {names[7]}; accepted is a picture of each"):
        small_set(catalogue, tmp_path, per_class=MANY)
    for name in names[8:]:
        (tmp_path / name).unlink()
    with pytest.raises(DataError, match=r"lacks (\d+.jpg, ){2}\d+.jpg and 35 other pictures"):
        small_set(catalogue, tmp_path, per_class=MANY)


def test_pictures_that_do_not_fit_are_refused(tmp_path, catalogue, pictures):
    def folder(size, odd=None):
        for path in pictures.iterdir():
            Image.new("RGB", size, (9, 9, 9)).save(tmp_path / path.name)
        if odd:
            Image.new("RGB", odd).save(tmp_path / path.name)
        return tmp_path

    given = {"per_class": MANY}
    with pytest.raises(DataError, match="40 x 42 pixels.*accepted is one size"):
        small_set(catalogue, folder((40, 40), odd=(42, 40)), **given)
    with pytest.raises(DataError, match="pictures of 19 x 40; accepted are sides from 20 on"):
        small_set(catalogue, folder((40, 19)), **given)
    with pytest.raises(DataError, match="pictures of 40 x 42; accepted are square ones"):
        small_set(catalogue, folder((42, 40)), turns=2, **given)
    with pytest.raises(DataError, match="a colour is the same in all pixels"):
        small_set(catalogue, folder((42, 40)), **given)
    folder((40, 40))
    whole = next(pictures.iterdir())
    for content in (b"no picture", whole.read_bytes()[:700]):
        (tmp_path / whole.name).write_bytes(content)
        with pytest.raises(DataError, match=f"{whole.name} is not a readable image"):
            small_set(catalogue, tmp_path, **given)


def test_a_galaxy_in_several_rows_is_refused_if_it_is_kept(tmp_path, pictures):
    columns = columns_of(WILLETT, small_counts())
    columns["dr7objid"] = [FIRST, *columns["dr7objid"][:-1]]
    path = write(tmp_path / "gz2.csv", columns)
    with pytest.raises(DataError, match=f"has galaxy {FIRST} in several rows that are kept"):
        small_set(path, pictures, per_class=MANY)


@pytest.mark.parametrize(
    "given, said",
    [
        ({"per_class": 1}, "per_class is 1; accepted is an integer from 2 up"),
        ({"test_per_class": KEPT}, "test_per_class is 4; accepted is an integer from 1 to 3"),
        ({"test_per_class": 0}, "test_per_class is 0"),
        ({"size": 3}, "size is 3; accepted is an integer from 4 up"),
        ({"seed": -1}, "seed is -1; accepted is an integer from 0 up"),
        ({"turns": 0}, "turns is 0; accepted is an integer from 1 up"),
        ({"per_class": MANY + 1}, "per_class is 6, but '.*' has 5 galaxies"),
    ],
)
def test_numbers_out_of_range_are_refused(catalogue, pictures, given, said):
    with pytest.raises(ValueError, match=said):
        small_set(catalogue, pictures, **given)
