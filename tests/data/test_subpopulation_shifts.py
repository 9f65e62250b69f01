"""Samples under shifts of groups, by name: what they promise, and files of one's own."""

import numpy as np
import pytest
import torch

from kempe_nb.data.errors import DataError
from kempe_nb.data.subpopulation_shifts import MADE, MULTINLI, subpopulation_shift


def made(name, seed=0):
    return subpopulation_shift(name, torch.Generator().manual_seed(seed))


def share_on_own_ground(painted):
    return float((painted.labels == painted.groups % 2).double().mean())


@pytest.mark.parametrize("name", MADE)
def test_a_generator_gives_the_same_samples_again_and_another_one_others(name):
    one, again, other = made(name), made(name), made(name, seed=1)
    for split in ("train", "annotated", "test"):
        assert all(map(torch.equal, one[split], again[split]))
        assert not torch.equal(one[split].pictures, other[split].pictures)
        assert torch.equal(one[split].groups // 2, one[split].labels)


@pytest.mark.parametrize(("name", "share"), [("even", 0.5), ("skewed", 0.95)])
def test_the_name_says_how_the_annotated_digits_are_split(name, share):
    found = made(name)
    assert abs(share_on_own_ground(found["annotated"]) - share) < 0.01
    assert abs(share_on_own_ground(found["train"]) - 0.95) < 0.01
    assert share_on_own_ground(found["test"]) == 0.5


def test_the_two_annotated_sets_share_all_other_digits():
    # So a difference between them is one of their annotated samples.
    even, skewed = made("even"), made("skewed")
    assert torch.equal(even["train"].pictures, skewed["train"].pictures)
    assert torch.equal(even["annotated"].labels, skewed["annotated"].labels)
    assert torch.equal(even["test"].labels, skewed["test"].labels)


def test_text_has_the_shares_of_multinli_and_an_even_test():
    found = made("text")
    expected = np.array(MULTINLI) / sum(MULTINLI)
    for split, number in (("train", 2000), ("annotated", 600)):
        counts = torch.bincount(found[split].groups).numpy()
        assert abs(counts - number * expected).max() <= 0.5
    assert torch.bincount(found["test"].groups).tolist() == [400] * 6


@pytest.fixture
def file(tmp_path):
    def write(split):
        rng = np.random.default_rng(0)
        place = tmp_path / "features.npz"
        arrays = {"y": np.arange(6) % 2, "group": np.arange(6) % 4, "split": np.array(split)}
        np.savez(place, x=rng.normal(size=(6, 3)).astype("float32"), **arrays)
        return str(place)

    return write


def test_a_file_gives_its_splits_and_the_annotated_one_is_val(file):
    place = file(["train", "val", "test", "train", "val", "test"])
    found = made(place)
    x = np.load(place)["x"]
    for split, rows in (("train", [0, 3]), ("annotated", [1, 4]), ("test", [2, 5])):
        assert np.array_equal(found[split].pictures.numpy(), x[rows])
        assert found[split].labels.tolist() == [row % 2 for row in rows]
        assert found[split].groups.tolist() == [row % 4 for row in rows]


def test_an_unknown_name_and_an_empty_split_are_refused(file):
    with pytest.raises(DataError, match="nowhere.*'even', 'skewed', 'text'"):
        made("nowhere")
    with pytest.raises(DataError, match="no sample in the split 'val'"):
        made(file(["train", "train", "test", "train", "train", "test"]))
