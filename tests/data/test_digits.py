"""The digits of scikit-learn, and the choice of items."""

import numpy as np
import torch
from sklearn.datasets import load_digits

from kempe_nb import data


def test_digits_are_those_of_scikit_learn():
    bunch = load_digits()
    train, test = data.load("digits"), data.load("digits", "test")
    at_test = list(range(4, len(bunch.target), 5))
    at_train = [i for i in range(len(bunch.target)) if i not in set(at_test)]
    for part, positions in ((train, at_train), (test, at_test)):
        assert part.images.dtype == torch.uint8 and part.labels.dtype == torch.int64
        assert part.images.shape == (len(positions), 1, 8, 8)
        np.testing.assert_array_equal(part.images[:, 0].numpy(), bunch.images[positions])
        np.testing.assert_array_equal(part.labels.numpy(), bunch.target[positions])
        assert part.classes == tuple("0123456789")
        assert f"{len(positions):,} images" in part.description
        assert "0 to 16" in part.description and "scikit-learn" in part.description


def test_limit_takes_the_start_of_a_seeded_permutation():
    whole = data.load("digits", "test")
    size = len(whole.labels)

    def rows(part):
        pairs = zip(part.images, part.labels, strict=True)
        return [(tuple(image.flatten().tolist()), int(label)) for image, label in pairs]

    permuted = rows(data.load("digits", "test", limit=size, seed=3))
    assert sorted(permuted) == sorted(rows(whole))
    assert permuted != rows(whole)
    some = data.load("digits", "test", limit=40, seed=3)
    assert rows(some) == permuted[:40]
    assert rows(data.load("digits", "test", limit=40, seed=4)) != permuted[:40]
    assert "40 images" in some.description and f"{size} images" in some.description
