"""Images of one's own in folders: read in colour, in order, and refused with the file's name."""

import numpy as np
import pytest
from PIL import Image

from kempe_nb.data.errors import DataError
from kempe_nb.data.image_folder import images_from_folder


def write(folder, name, colour, size=(5, 4)):
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(folder / name)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "train" / "cat", "1.png", (10, 20, 30))
    write(tmp_path / "train" / "dog", "1.png", (200, 0, 0))
    write(tmp_path / "train" / "dog", "2.jpg", (0, 0, 250))
    write(tmp_path / "test" / "cat", "1.png", (1, 2, 3))
    write(tmp_path / "test" / "dog", "9.png", (3, 2, 1))
    return tmp_path


def test_images_come_with_the_names_of_their_folders(folder):
    found = images_from_folder(folder)
    assert found.classes == ("cat", "dog") and found.labels.tolist() == [0, 1, 1]
    assert found.images.shape == (3, 3, 4, 5)
    assert found.images[0, :, 0, 0].tolist() == [10, 20, 30]
    assert found.images[1, :, 3, 4].tolist() == [200, 0, 0]
    # A JPEG is near, not equal.
    assert abs(int(found.images[2, 2, 0, 0]) - 250) < 5
    assert "3 images of 4 x 5 pixels" in found.description
    assert images_from_folder(str(folder), "test").images[0, :, 0, 0].tolist() == [1, 2, 3]


def test_grey_images_are_read_in_colour(tmp_path):
    place = tmp_path / "train" / "a"
    place.mkdir(parents=True)
    Image.fromarray(np.full((3, 3), 77, np.uint8)).save(place / "g.png")
    assert images_from_folder(tmp_path).images[0, :, 1, 1].tolist() == [77, 77, 77]


def test_a_missing_folder_is_named(folder, tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        images_from_folder(tmp_path / "nowhere")
    (folder / "train" / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        images_from_folder(folder)


def test_images_of_different_sizes_are_refused(folder):
    write(folder / "train" / "cat", "2.png", (0, 0, 0), size=(7, 7))
    with pytest.raises(DataError, match="images of different sizes"):
        images_from_folder(folder)


def test_a_broken_image_is_named(folder):
    (folder / "train" / "dog" / "3.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match="3.png is not a readable image"):
        images_from_folder(folder)


def test_another_split_is_refused(folder):
    with pytest.raises(ValueError, match="split"):
        images_from_folder(folder, "validation")
