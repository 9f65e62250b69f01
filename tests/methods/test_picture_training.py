"""A classifier is trained as said: by momentum, on pictures that are turned at random."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from kempe_nb.methods.picture_training import Classifier, taught, turned_at_random


def labelled(count=24, side=16, seed=0):
    """Pictures of two classes: light in the middle, or light all around."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    steps = np.arange(side) - (side - 1) / 2
    inside = np.hypot(steps[:, None], steps) < side / 4
    images = np.where(labels[:, None, None] == 1, ~inside, inside)[:, None] + np.zeros((1, 3, 1, 1))
    images = images + 0.3 * rng.standard_normal(images.shape)
    return torch.from_numpy(images.astype(np.float32)), torch.from_numpy(labels)


@given(st.integers(0, 40), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_each_picture_is_turned_into_one_of_its_eight(count, side, seed):
    images = torch.randn(count, 2, side, side, generator=torch.Generator().manual_seed(seed))
    before = images.clone()
    found = turned_at_random(images, np.random.default_rng(seed))
    assert torch.equal(images, before)
    quarters = [images.rot90(k, (2, 3)) for k in range(4)]
    eight = [own for turned in quarters for own in (turned, turned.flip(3))]
    same = torch.stack([(found == own).flatten(1).all(1) for own in eight])
    assert same.any(0).all()


def test_all_eight_come_up_equally_often():
    images = torch.arange(4.0).view(1, 1, 2, 2).expand(8000, 1, 2, 2)
    found = turned_at_random(images, np.random.default_rng(0))
    kinds, counts = found.flatten(1).unique(dim=0, return_counts=True)
    assert len(kinds) == 8
    # Five standard deviations of a binomial.
    assert (counts - 1000).abs().max() < 5 * math.sqrt(8000 * 7 / 64)


def test_it_learns_what_can_be_learnt():
    classifier, (images, labels) = Classifier((3, 16, 16), 2, width=4, depth=2), labelled()
    theta = classifier.train(images, labels, np.random.default_rng(0), steps=60, rate=0.05)
    other, classes = labelled(200, seed=1)
    assert classifier.accuracy(theta, other, classes) > 0.9
    p = classifier.probabilities(theta, other)
    assert p.shape == (200, 2) and torch.allclose(p.sum(1), torch.ones(200))
    assert classifier.accuracy(theta, other, 1 - classes) == pytest.approx(
        1 - classifier.accuracy(theta, other, classes)
    )


def test_one_step_is_that_of_pytorch():
    classifier, (images, labels) = Classifier((3, 16, 16), 2, width=4, depth=2), labelled()
    # A picture that no turn changes, so that the draw of turns does not matter.
    images = torch.stack([(images + k).mean((2, 3), keepdim=True) for k in range(2)])[1]
    images = images.expand(-1, -1, 16, 16).contiguous()
    theta = classifier.train(images, labels, np.random.default_rng(3), steps=2, rate=0.1, batch=99)
    rng = np.random.default_rng(3)
    start = torch.Generator().manual_seed(int(rng.integers(2**63)))
    own = classifier.network.initial(start).requires_grad_()
    sgd = torch.optim.SGD([own], 0.1, momentum=0.9, weight_decay=5e-4)
    for rate in (0.1, 0.05):
        sgd.param_groups[0]["lr"] = rate
        sgd.zero_grad()
        torch.nn.functional.cross_entropy(classifier.network(own, images), labels).backward()
        sgd.step()
    # Without the decay weights would be off by 1e-5.
    torch.testing.assert_close(theta, own.detach(), rtol=0, atol=2e-6)


def test_the_same_generator_gives_the_same_network():
    classifier, (images, labels) = Classifier((3, 16, 16), 2, width=4, depth=2), labelled()
    one, two, three = (
        classifier.train(images, labels, np.random.default_rng(s), steps=3, rate=0.1, batch=8)
        for s in (0, 0, 1)
    )
    assert torch.equal(one, two) and not torch.equal(one, three)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"rate": 0.0}, "rate is 0.0"),
        ({"rate": -1.0}, "rate is -1.0"),
        ({"batch": 0}, "batch is 0"),
    ],
)
def test_bad_settings_are_refused(changed, said):
    classifier, (images, labels) = Classifier((3, 16, 16), 2, width=4, depth=2), labelled()
    with pytest.raises(ValueError, match=said):
        classifier.train(
            images, labels, np.random.default_rng(0), **({"steps": 1, "rate": 0.1} | changed)
        )


def test_labels_that_do_not_fit_are_refused():
    classifier, (images, labels) = Classifier((3, 16, 16), 2, width=4, depth=2), labelled()
    with pytest.raises(ValueError, match="y is"):
        classifier.train(images, labels[1:], np.random.default_rng(0), steps=1, rate=0.1)


def test_a_training_that_diverges_says_so():
    classifier, (images, labels) = Classifier((3, 16, 16), 2, width=4, depth=2), labelled()
    with pytest.raises(FloatingPointError, match="rate 1e\\+30 diverged"):
        classifier.train(images, labels, np.random.default_rng(0), steps=30, rate=1e30)


def test_pictures_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match="accepted is"):
        turned_at_random(torch.zeros(1, 3, 4, 5), np.random.default_rng(0))


def test_taught_judges_by_the_rate_that_is_best_on_the_first_part():
    classifier, (images, labels) = Classifier((3, 16, 16), 2, width=4, depth=2), labelled()
    parts = [labelled(100, seed=1), labelled(100, seed=2)]
    rates, networks = (1e-6, 0.05), 2

    def each_rate(parts):
        rng = np.random.default_rng(3)
        thetas = [
            [
                classifier.train(images, labels, rng, steps=30, rate=rate, batch=len(images))
                for _ in range(networks)
            ]
            for rate in rates
        ]
        return np.array(
            [[np.mean([classifier.accuracy(t, *p) for t in own]) for p in parts] for own in thetas]
        )

    for first in (0, 1):
        ordered = [parts[first], parts[1 - first]]
        by_rate = each_rate(ordered)
        found = taught(
            classifier,
            *(images, labels, ordered, np.random.default_rng(3)),
            rates=rates,
            steps=30,
            networks=networks,
        )
        assert found == pytest.approx(by_rate[by_rate[:, 0].argmax()])
    # Read backwards, the rate that hardly learns is the better one.
    images_of, classes = parts[0]
    swapped = each_rate([(images_of, 1 - classes), parts[1]])
    assert swapped[:, 0].argmax() == 0
    found = taught(
        classifier,
        *(images, labels, [(images_of, 1 - classes), parts[1]], np.random.default_rng(3)),
        rates=rates,
        steps=30,
        networks=networks,
    )
    assert found == pytest.approx(swapped[0])


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"rates": ()}, "rates is empty"),
        ({"parts": []}, "parts is empty"),
        ({"networks": 0}, "networks is 0"),
        ({"rates": (-0.1,)}, "rate is -0.1"),
    ],
)
def test_taught_refuses_what_teaches_nothing(wrong, message):
    classifier, (images, labels) = Classifier((3, 16, 16), 2, width=4, depth=2), labelled()
    kinds = {"parts": [(images, labels)], "rates": (0.01,), "networks": 1, "steps": 1} | wrong
    parts = kinds.pop("parts")
    with pytest.raises(ValueError, match=message):
        taught(classifier, images, labels, parts, np.random.default_rng(0), **kinds)
