"""What affine_augment says of its peers: what they compute, and how often they move the images."""

import numpy as np
import pytest
import torch

from benchmarks.operations import affine_augment as operation
from benchmarks.peers import dsa_sequence as peers
from kempe_nb import Traffic, affine_augment

SIZES = {"images": 20, "channels": 3, "side": 64, "flip_only": 0}


def arguments(dtype="float32"):
    images, rows, v = operation.inputs(SIZES, dtype, "cpu")
    return images, operation.effects(rows, images.dtype, flip_only=False), v


@pytest.mark.parametrize(("gradient", "times"), [(False, 36), (True, 84)])
def test_the_sequence_moves_the_images_so_often(gradient, times):
    images, effects, v = arguments()
    with Traffic() as moved:
        if gradient:
            peers.by_autograd(peers.sequence, images, effects, v)
        else:
            peers.sequence(images, effects)
    assert moved.bytes / (4 * images.numel()) == pytest.approx(times, abs=1)


def test_two_samples_are_another_thing_where_both_do_something():
    """So the benchmark scales by one; sampled once, the sequence is ours with any scale."""
    images, effects, _ = arguments("float64")
    _, rows, _ = operation.inputs(SIZES, "float64", "cpu")
    scales = torch.from_numpy(np.random.default_rng(0).uniform(0.8, 1.2, (20, 2)))
    effects = effects._replace(scales=scales)
    down, right = scales.T
    for name, factor in (("yy", down), ("yx", down), ("xy", right), ("xx", right)):
        rows[:, operation.module.COLUMNS.index(name)] *= factor
    ours = affine_augment(images, rows)
    torch.testing.assert_close(peers.one_sample(images, effects), ours, rtol=0, atol=1e-10)
    assert (peers.sequence(images, effects) - ours).abs().max() > 0.1
