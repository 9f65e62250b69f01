"""All layers under a group-aware prior: one step by hand, statistics, and what is left alone."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kempe_nb.methods.group_aware_training import (
    ascent,
    kept_statistics,
    moved,
    train_group_aware,
)
from kempe_nb.methods.group_weights import group_weights

GROUPS = torch.arange(4).repeat_interleave(torch.tensor([12, 3, 4, 11]))
LABELS = GROUPS // 2


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


INPUTS = torch.randn(30, 5, generator=generator())


def network(*, normalised=False, seed=0):
    torch.manual_seed(seed)
    middle = [nn.BatchNorm1d(6)] if normalised else []
    return nn.Sequential(nn.Linear(5, 6), *middle, nn.ReLU(), nn.Linear(6, 2))


SETTINGS = {"strength": 0.7, "exponent": 2.0, "radius": 0.3, "precision": 0.1}


def train(module, **changed):
    return train_group_aware(
        *(module, INPUTS, LABELS, GROUPS),
        **({"generator": generator(1), "steps": 5, "batch": 16} | SETTINGS | changed),
    )


def parameters(module):
    return [each.detach().clone() for each in module.parameters()]


@pytest.mark.parametrize("normalised", [False, True])
def test_steps_are_those_of_the_stated_objective(normalised):
    start, other = network(normalised=normalised), network(normalised=normalised, seed=5)
    found = train(start, steps=3, rate=0.1, momentum=0.8, centre=parameters(other))
    rng = generator(1)
    uniform = torch.full((30,), 1 / 30, dtype=torch.float64)
    law = group_weights(GROUPS, 2.0, torch.float64)
    w = copy.deepcopy(start).train()
    velocity = [torch.zeros_like(each) for each in w.parameters()]

    def gradients(module, loss):
        return torch.autograd.grad(loss, list(module.parameters()))

    for _ in range(3):
        own, context = (
            torch.multinomial(each, 16, replacement=True, generator=rng) for each in (uniform, law)
        )
        alone = copy.deepcopy(w)
        uphill = gradients(alone, F.cross_entropy(alone(INPUTS[context]), LABELS[context]))
        norm = torch.cat([each.flatten() for each in uphill]).norm()
        there = copy.deepcopy(w)
        with torch.no_grad():
            for parameter, each in zip(there.parameters(), uphill, strict=True):
                parameter += 0.3 * each / norm
        second = gradients(there, F.cross_entropy(there(INPUTS[context]), LABELS[context]))
        joint = w(INPUTS[torch.cat([own, context])])[:16]
        first = gradients(w, F.cross_entropy(joint, LABELS[own]))
        with torch.no_grad():
            for parameter, speed, one, two, mean in zip(
                w.parameters(), velocity, first, second, parameters(other), strict=True
            ):
                speed.mul_(0.8).add_(one + 0.7 * two + 0.1 * (parameter - mean))
                parameter -= 0.1 * speed
    for one, two in zip(found.parameters(), w.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    if normalised:
        torch.testing.assert_close(found[1].running_mean, w[1].running_mean)
        torch.testing.assert_close(found[1].running_var, w[1].running_var)
        assert found[1].num_batches_tracked == 3


def test_without_strength_no_context_is_drawn():
    rng = generator(1)
    train(network(), strength=0.0, exponent=0.0, radius=0.0, generator=rng, steps=2)
    expected = generator(1)
    for _ in range(2):
        torch.multinomial(
            torch.full((30,), 1 / 30).double(), 16, replacement=True, generator=expected
        )
    assert torch.equal(rng.get_state(), expected.get_state())


def test_parameters_that_no_loss_sees_are_only_pulled_to_the_centre():
    module = network()
    module.register_parameter("unused", nn.Parameter(torch.ones(3)))
    found = train(module, precision=0.0)
    assert torch.equal(found.unused, module.unused)
    centre = [0 * each for each in parameters(module)]
    found = train(module, centre=centre, precision=0.5, rate=0.1, momentum=0.0, steps=1)
    torch.testing.assert_close(found.unused.detach(), torch.full((3,), 0.95))


def test_the_given_network_is_left_alone():
    module = network(normalised=True)
    before, statistics = parameters(module), module[1].running_mean.clone()
    found = train(module)
    assert all(map(torch.equal, before, parameters(module)))
    assert torch.equal(module[1].running_mean, statistics) and module.training
    assert not found.training
    assert not torch.equal(before[0], parameters(found)[0])


def test_the_same_generator_gives_the_same_bits():
    first, second = train(network()), train(network())
    assert all(map(torch.equal, parameters(first), parameters(second)))


def test_training_normalises_by_the_batch_however_the_network_comes():
    first, second = train(network(normalised=True)), train(network(normalised=True).eval())
    assert all(map(torch.equal, parameters(first), parameters(second)))


def test_a_strong_prior_holds_the_network_at_its_centre():
    module, other = network(), network(seed=5)
    settings = {"precision": 1e4, "rate": 1e-5, "steps": 500, "momentum": 0.0}
    for centre, expected in ((None, module), (parameters(other), other)):
        found = train(module, centre=centre, **settings)
        for one, two in zip(parameters(found), parameters(expected), strict=True):
            assert (one - two).abs().max() < 0.02


def test_only_the_pass_at_theta_is_kept_in_the_statistics():
    module = network(normalised=True)
    found = train(module, steps=1, rate=0.0)
    assert found[1].num_batches_tracked == 1
    # A radius moves the second pass alone.
    far = train(module, steps=1, rate=0.0, radius=50.0)
    assert torch.equal(found[1].running_mean, far[1].running_mean)
    assert torch.equal(found[1].running_var, far[1].running_var)


def test_statistics_are_kept_also_after_an_error():
    module = network(normalised=True)
    mean = module[1].running_mean.clone()
    with pytest.raises(RuntimeError, match="stop"), kept_statistics(module):
        module(INPUTS)
        raise RuntimeError("stop")
    assert torch.equal(module[1].running_mean, mean) and module[1].track_running_stats


def test_moved_parameters_come_back_to_the_bit():
    module = network()
    before, own = parameters(module), list(module.parameters())
    with pytest.raises(RuntimeError, match="stop"), moved(own, [1e3 * each for each in before]):
        assert not any(map(torch.equal, before, own))
        raise RuntimeError("stop")
    assert all(map(torch.equal, before, own))


def test_the_ascent_has_one_norm_over_all_parameters():
    module = network()
    own = list(module.parameters())
    shift = ascent(F.cross_entropy(module(INPUTS), LABELS), own, 0.25)
    assert torch.cat([each.flatten() for each in shift]).norm() == pytest.approx(0.25, rel=1e-5)
    none = ascent(sum((0.0 * each).sum() for each in own), own, 0.25)
    assert all((each == 0).all() for each in none)


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"strength": -1.0}, "strength is -1.0"),
        ({"radius": math.nan}, "radius is nan"),
        ({"precision": -0.1}, "precision is -0.1"),
        ({"exponent": -1.0}, "exponent is -1.0"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"steps": 0}, "steps is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"rate": 1e30}, "rate is 1e"),
        ({"radius": 1e38, "steps": 1}, "parameters are not finite"),
        ({"centre": [torch.zeros(1)]}, "centre has shapes"),
        ({"centre": [each * math.nan for each in network().parameters()]}, "centre holds"),
    ],
)
def test_bad_settings_are_refused(changed, said):
    with pytest.raises(ValueError, match=said):
        train(network(), **changed)


def test_bad_data_are_refused():
    rest = {"generator": generator(), **SETTINGS}
    with pytest.raises(ValueError, match="30, 29 and 30 rows"):
        train_group_aware(network(), INPUTS, LABELS[:29], GROUPS, **rest)
    with pytest.raises(ValueError, match="inputs holds 150 elements"):
        train_group_aware(network(), INPUTS * math.nan, LABELS, GROUPS, **rest)
    with pytest.raises(ValueError, match="labels lie from 0 to 2; accepted is 0 to 1"):
        train_group_aware(network(), INPUTS, 2 * LABELS, GROUPS, **rest)
    with pytest.raises(ValueError, match="no samples of group 0"):
        train_group_aware(network(), INPUTS, LABELS, GROUPS + 1, **rest)
    with pytest.raises(TypeError, match="labels is torch.int32"):
        train_group_aware(network(), INPUTS, LABELS.int(), GROUPS, **rest)
