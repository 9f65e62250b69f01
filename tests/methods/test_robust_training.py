"""Training for robustness: what the loop keeps, and numbers that other libraries give, too."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from sklearn.neighbors import NearestCentroid
from torch.nn import functional as F

from kempe_nb.methods import robust_training
from kempe_nb.methods.neural_collapse import simplex_etf


@pytest.fixture(scope="module")
def images():
    """Sixty images of three classes, apart from each other."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    noise = torch.rand(60, 1, 4, 4, generator=generator)
    return (0.5 * noise + labels[:, None, None, None] / 4).clamp(0, 1), labels


FAST = {"epochs": 3, "batch_size": 20, "inner_steps": 2}


def train(images, **settings):
    return robust_training.train_classifier(*images, **(FAST | settings))


@pytest.mark.parametrize("objective", ["standard", "adversarial", "trades"])
def test_a_seed_gives_the_same_bits_and_touches_nothing_of_the_caller(images, objective):
    before = [values.clone() for values in images]
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, second = (train(images, objective=objective, watched=(1, 3)) for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    assert all(map(torch.equal, before, images))
    for name, value in first["weights"].items():
        assert torch.equal(value, second["weights"][name])
    assert [entry["epoch"] for entry in first["diary"]] == [1, 3]
    for one, other in zip(first["diary"], second["diary"], strict=True):
        assert one["clean"] == other["clean"] and one["attacked"] == other["attacked"]
        assert len(one["clean"]) == len(robust_training.MEASURES)
        assert one["means"].shape == (3, 128)


def test_another_seed_gives_another_network(images):
    one, other = (train(images, seed=seed)["weights"] for seed in (0, 1))
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


def test_watching_does_not_change_what_is_trained(images):
    plain, watched = (
        train(images, objective="adversarial", watched=w)["weights"] for w in ((), (1, 2, 3))
    )
    assert all(torch.equal(value, watched[name]) for name, value in plain.items())


@pytest.mark.parametrize("objective", ["standard", "adversarial", "trades"])
@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_statistics_are_those_of_the_start_and_others_are_not(images, objective, frozen):
    start = robust_training.new_classifier("mlp", images[0], 3, seed=0).state_dict()
    found = train(images, objective=objective, frozen=frozen)["weights"]
    kept = {
        name: torch.equal(value, start[name])
        for name, value in found.items()
        if "running" in name or "num_batches" in name
    }
    assert kept and set(kept.values()) == {frozen}
    assert not torch.equal(found["head.weight"], start["head.weight"])


@pytest.mark.parametrize(
    ("epochs", "drops", "rates"),
    [
        (10, (0.3, 0.6), [0.1] * 3 + [0.01] * 3 + [0.001] * 4),
        (3, (0.3, 0.6), [0.1, 0.01, 0.001]),
        (5, (0.4, 0.7), [0.1, 0.1, 0.01, 0.01, 0.001]),
        (1, (0.3, 0.6), [0.1]),
        (4, (), [0.1] * 4),
    ],
)
def test_the_rate_drops_to_a_tenth_after_these_shares(images, monkeypatch, epochs, drops, rates):
    seen = []

    class Watched(torch.optim.SGD):
        def step(self, *args, **kwargs):
            seen.append(self.param_groups[0]["lr"])
            return super().step(*args, **kwargs)

    monkeypatch.setattr(torch.optim, "SGD", Watched)
    train(images, epochs=epochs, drops=drops)
    assert np.allclose(seen, np.repeat(rates, 3), rtol=1e-12)


def test_a_variant_is_its_recipe_with_a_diary_at_nine_epochs(images, monkeypatch):
    recipe = robust_training.RECIPES["cpu"] | {"epochs": 12, "batch_size": 20}
    monkeypatch.setitem(robust_training.RECIPES, "cpu", recipe)
    found = robust_training.train_variant("standard, frozen", "cpu", *images, network="mlp", seed=3)
    again = robust_training.train_classifier(*images, seed=3, frozen=True, **recipe)
    assert all(torch.equal(v, again["weights"][n]) for n, v in found["weights"].items())
    epochs = [entry["epoch"] for entry in found["diary"]]
    assert epochs[0] == 2 and epochs[-1] == 12 and epochs == sorted(set(epochs))


def test_a_restored_network_answers_as_the_trained_one_and_asks_for_no_gradient(images):
    found = train(images, watched=(3,))
    model = robust_training.restored(found, "mlp", images[0], 3)
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    metrics = robust_training.collapse_metrics(model, *images)
    assert robust_training.measures_of(metrics) == found["diary"][-1]["clean"]


def test_an_untrained_classifier_has_the_weights_of_the_start_and_statistics_of_the_images(images):
    start = robust_training.new_classifier("mlp", images[0], 3, seed=5)
    model = robust_training.untrained_classifier("mlp", images[0], 3, seed=5)
    assert not model.training
    for (name, one), (_, other) in zip(
        start.named_parameters(), model.named_parameters(), strict=True
    ):
        assert torch.equal(one, other), name
    # After sixty batches the running means have forgotten their start.
    first = next(m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d))
    inner = next(m for m in start.modules() if isinstance(m, torch.nn.Linear))
    expected = inner(images[0].flatten(1)).mean(0)
    assert torch.allclose(first.running_mean, expected, atol=0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "TRADES"}, "objective is 'TRADES'; accepted are 'standard', 'adversarial'"),
        ({"attack_mode": "Train"}, "attack_mode is 'Train'; accepted are 'eval', 'train'"),
        ({"network": "resnet"}, "network is 'resnet'; accepted are 'mlp', 'vgg11_bn'"),
        ({"batch_size": 1}, "batch_size is 1; accepted is one that leaves more than one of 60"),
        ({"batch_size": 59}, "batch_size is 59; accepted is one that leaves more than one of 60"),
    ],
)
def test_bad_settings_are_named_before_anything_is_trained(images, monkeypatch, settings, message):
    monkeypatch.setattr(robust_training, "observe", None)
    with pytest.raises(ValueError, match=message):
        train(images, **settings)


@pytest.mark.parametrize(
    ("name", "profile", "message"),
    [("trades", "cpu", "name is 'trades'"), ("TRADES", "tpu", "profile is 'tpu'")],
)
def test_unknown_variants_and_profiles_are_named(images, name, profile, message):
    with pytest.raises(ValueError, match=message):
        robust_training.train_variant(name, profile, *images, network="mlp", seed=0)


def test_a_class_without_images_is_named_before_anything_is_trained(images, monkeypatch):
    monkeypatch.setattr(robust_training, "new_classifier", None)
    with pytest.raises(ValueError, match=r"labels has no sample of the classes \[1\]"):
        train((images[0], 2 * (images[1] % 2)))


def test_a_class_without_images_is_named():
    with pytest.raises(ValueError, match=r"labels has no sample of the classes \[1, 2\]"):
        robust_training.class_means(torch.rand(4, 2), torch.tensor([0, 3, 3, 0]))


@given(st.integers(2, 8), st.integers(0, 10**6))
@settings(max_examples=30)
def test_the_angle_error_is_zero_for_a_simplex_and_knows_no_scale_shift_or_rotation(k, seed):
    generator = torch.Generator().manual_seed(seed)
    corners = simplex_etf(k, 9)
    assert robust_training.angle_error(corners) < 1e-9
    means = torch.randn(k, 9, generator=generator, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(9, 9, generator=generator, dtype=torch.float64))
    moved = 3.7 * means @ turn + 5
    assert math.isclose(
        robust_training.angle_error(means),
        robust_training.angle_error(moved),
        rel_tol=1e-6,
        abs_tol=1e-9,
    )
    units = F.normalize(means - means.mean(0), dim=1).numpy()
    pairs = [abs(a @ b + 1 / (k - 1)) for i, a in enumerate(units) for b in units[:i]]
    assert math.isclose(
        robust_training.angle_error(means), np.mean(pairs), rel_tol=1e-9, abs_tol=1e-9
    )


@given(st.floats(1, 179))
def test_the_angle_between_turned_means_is_the_turn(degrees):
    turn = math.radians(degrees)
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    turned = torch.tensor([[math.cos(turn), math.sin(turn)]], dtype=torch.float64)
    others = 2 * torch.cat([turned, -turned]) + 5
    found = robust_training.angle_between(means, others)
    assert torch.allclose(found, torch.full((2,), degrees, dtype=torch.float64), atol=1e-5)


def test_the_divergence_is_that_of_distributions():
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 5, 4, generator=generator)
    found = robust_training.divergence_from(one.log_softmax(1))(other, None)
    p, q = (torch.distributions.Categorical(logits=logits) for logits in (one, other))
    assert torch.allclose(found, torch.distributions.kl_divergence(p, q), atol=1e-6)


def test_trades_has_no_price_where_the_attack_changes_nothing(images):
    model = robust_training.new_classifier("mlp", images[0], 3, seed=0).eval()
    same = robust_training.trades(model, *images, lambda m, x, y, loss=None: x)
    assert torch.allclose(same, F.cross_entropy(model(images[0]), images[1]), atol=1e-6)


@pytest.mark.filterwarnings("ignore:self.within_class_std_dev_")
def test_the_nearest_centre_is_that_of_scikit_learn_behind_every_layer(images):
    pictures, labels = images
    model = robust_training.restored(train(images), "mlp", pictures, 3)
    for layer in range(len(model.blocks) + 1):
        parts = list(robust_training.layer_batches(model, layer, pictures, labels, size=25))
        features = torch.cat([part for part, _ in parts])
        assert torch.equal(torch.cat([own for _, own in parts]), labels)
        centres = robust_training.class_means(features, labels)
        rule = robust_training.centre_classifier(model, layer, centres)
        expected = NearestCentroid().fit(features.numpy(), labels.numpy()).predict(features.numpy())
        assert rule(pictures).argmax(1).tolist() == expected.tolist()
    assert torch.equal(
        robust_training.by_centres(model, centres, pictures), torch.as_tensor(expected)
    )
    assert torch.allclose(features, robust_training.features_of(model, pictures), atol=1e-6)


@pytest.mark.parametrize("size", [7, 60, 1000])
def test_parts_change_no_answer(images, size):
    model = robust_training.restored(train(images), "mlp", images[0], 3)
    whole = model(images[0]).argmax(1)
    assert torch.equal(robust_training.answers_of(model, images[0], size), whole)
    assert torch.allclose(
        robust_training.features_of(model, images[0], size), model.features(images[0]), atol=1e-6
    )
