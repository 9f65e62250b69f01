"""Fresh networks on a synthetic set: as trained one by one with PyTorch, and bad input."""

import copy

import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils import vector_to_parameters

from kempe_nb.methods import evaluation
from kempe_nb.methods.augmentation import inner_batches
from kempe_nb.methods.evaluation import evaluate
from kempe_nb.methods.optimisers import SGD
from kempe_nb.networks.flat import FlatNetwork
from kempe_nb.networks.perceptron import perceptron

MODULE = perceptron((6, 8, 3))
NETWORK = FlatNetwork(MODULE)


def problem():
    """Return a set of six images with labels, and real images with classes, float64."""
    draw = torch.Generator().manual_seed(0)
    means = 1.5 * torch.randn(3, 6, generator=draw, dtype=torch.float64)
    y = torch.arange(90) % 3
    x = means[y] + torch.randn(90, 6, generator=draw, dtype=torch.float64)
    classes = torch.arange(6) % 3
    return means[classes], F.one_hot(classes, 3).double(), x, y


def test_the_share_of_right_answers_is_that_of_networks_trained_one_by_one():
    images, labels, x, y = problem()
    found = evaluate(NETWORK, images, labels, x, y, SGD(0.1, 0.9), 9, count=3, seed=5)
    generator = torch.Generator().manual_seed(5)
    expected = []
    for theta in NETWORK.initial(generator, 3, dtype=torch.float64):
        module = copy.deepcopy(MODULE).double()
        vector_to_parameters(theta, module.parameters())
        optimiser = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
        for _ in range(9):
            optimiser.zero_grad()
            F.cross_entropy(module(images), labels).backward()
            optimiser.step()
        expected.append((module(x).argmax(1) == y).double().mean())
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-12)
    assert found.min() > 0.6 and len(set(found.tolist())) > 1


def test_the_seed_decides_and_nothing_is_changed():
    data = problem()
    kept = [each.clone() for each in data]
    first, again, other = (evaluate(NETWORK, *data, SGD(0.1), 5, seed=s) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert all(map(torch.equal, data, kept))


def test_batches_are_taken():
    images, labels, x, y = problem()
    batch = inner_batches(labels.argmax(1), per_class=1)
    seen = []

    def see(synthetic, step):
        seen.append((step, len(batch(synthetic, step)[0])))
        return batch(synthetic, step)

    evaluate(NETWORK, images, labels, x, y, SGD(0.1), 4, batch=see)
    assert seen == [(step, 3) for step in range(4)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, "count is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"labels": torch.arange(6) % 3}, r"labels are torch.int64 \(6,\); accepted is torch.floa"),
        ({"labels": torch.zeros(5, 3).double()}, r"labels are torch.float64 \(5, 3\)"),
        ({"labels": torch.zeros(6, 2).double()}, "labels lie from 0 to 2; accepted is 0 to 1"),
        ({"x": torch.zeros(90, 5).double()}, "accepted are images like the real ones"),
        ({"x": torch.zeros(90, 6)}, "accepted are images like the real ones"),
        ({"y": torch.zeros(90).long().to("meta")}, "y is on meta"),
        ({"y": torch.zeros(89).long()}, r"y is torch.int64 \(89,\) and x has 90 images"),
    ],
)
def test_bad_input_is_named_before_any_work(monkeypatch, change, message):
    monkeypatch.setattr(evaluation, "train", lambda *_, **__: pytest.fail("it was trained"))
    names = "images", "labels", "x", "y"
    given = dict(zip(names, problem(), strict=True)) | {"optimiser": SGD(0.1), "steps": 2} | change
    with pytest.raises(ValueError, match=message):
        evaluate(NETWORK, **given)
