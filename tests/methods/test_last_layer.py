"""Many last layers at once against a plain loop with autograd."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from layer_problems import generator, gradient_of, nll, normal, problem, weights

from kempe_nb.methods.frozen_features import perturbed_logits, with_ones
from kempe_nb.methods.last_layer import ROUTES, SCHEDULES, fit_last_layers
from kempe_nb.traffic import Traffic

SAMPLES = problem(8, 3)
UNIFORM = torch.full((8,), 1 / 8, dtype=torch.float64)
NAN = SAMPLES[0].clone()
NAN[2, 1] = math.nan


def plain_loop(
    features,
    labels,
    likelihood,
    context,
    *,
    strength,
    radius,
    precision,
    centre,
    start,
    rate,
    schedule,
):
    """Descend on the stated objective with autograd, 12 steps, momentum 0.9."""
    x, w = with_ones(features), start
    velocity = torch.zeros_like(w)
    for step in range(12):
        here = w.clone().requires_grad_()
        uphill = gradient_of(x, labels, context, here)
        norm = uphill.norm()
        eps = radius * uphill / norm if norm > 0 else torch.zeros_like(w)
        loss = nll(x, labels, here) @ likelihood
        loss = loss + strength * nll(x, labels, here + eps) @ context
        loss = loss + precision / 2 * (here - centre).square().sum()
        velocity = 0.9 * velocity + torch.autograd.grad(loss, here)[0]
        w = w - rate * velocity * (1 - step / 12 if schedule == "linear" else 1)
    return w


@given(
    st.sampled_from(ROUTES),
    st.sampled_from(SCHEDULES),
    st.integers(2, 4),
    st.integers(1, 30),
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_every_configuration_follows_the_plain_loop(
    route, schedule, classes, more, dimension, count, seed
):
    features, labels = problem(classes + more, dimension, classes, seed)
    likelihood, context = (weights(count, len(labels), seed=seed + k) for k in (1, 2))
    centre, start = (normal(count, dimension + 1, classes, seed=seed + k) for k in (3, 4))
    numbers = {
        name: torch.rand(count, generator=generator(seed + k), dtype=torch.float64) / scale
        for k, (name, scale) in enumerate(
            {"strength": 0.3, "radius": 2, "precision": 5, "rate": 10}.items()
        )
    }
    found = fit_last_layers(
        *(features, labels, likelihood, context),
        **numbers,
        centre=centre,
        start=start,
        steps=12,
        schedule=schedule,
        route=route,
    )
    for g in range(count):
        expected = plain_loop(
            *(features, labels, likelihood[g], context[g]),
            **{name: value[g] for name, value in numbers.items()},
            centre=centre[g],
            start=start[g],
            schedule=schedule,
        )
        torch.testing.assert_close(found[g], expected, rtol=1e-9, atol=1e-9)


def test_a_zero_gradient_has_no_direction():
    features, labels = torch.zeros(4, 2, dtype=torch.float64), torch.tensor([0, 1, 0, 1])
    even = torch.full((4,), 0.25, dtype=torch.float64)
    found = perturbed_logits(features, labels, torch.zeros(3, 2).double(), even, 1.0)
    assert (found == 0).all()
    for route in ROUTES:
        layers = fit_last_layers(features, labels, even, even, radius=1.0, steps=3, route=route)
        assert (layers == 0).all()


def test_a_falling_rate_settles_where_a_constant_one_goes_on_moving():
    features, labels = problem(40, 60)
    uniform = torch.full((40,), 1 / 40, dtype=torch.float64)

    def late_change(schedule):
        ends = [
            fit_last_layers(
                *(features, labels, uniform, uniform),
                **{"radius": 2.0, "precision": 0.01, "rate": 1.0, "schedule": schedule},
                steps=steps,
            )
            for steps in (600, 601)
        ]
        return float((ends[0] - ends[1]).norm())

    assert 10 * late_change("linear") < late_change("constant")


def test_the_same_arguments_give_the_same_bits():
    features, labels = problem(50, 20, dtype=torch.float32)
    context = weights(3, 50, dtype=torch.float32)
    arguments = features, labels, context.mean(0), context
    settings = {"radius": 0.1, "rate": torch.tensor([0.1, 0.2, 0.3])}
    first = fit_last_layers(*arguments, **settings)
    assert torch.equal(first, fit_last_layers(*arguments, **settings))


def test_neighbours_in_the_batch_change_a_configuration_by_rounding_only():
    features, labels = problem(40, 6)
    context, rate = weights(5, 40), torch.linspace(0.05, 0.3, 5, dtype=torch.float64)
    uniform = torch.full((40,), 1 / 40, dtype=torch.float64)
    # The first is not perturbed at all.
    radius = torch.tensor([0.0, 0.1, 0.1, 0.2, 0.2], dtype=torch.float64)
    together = fit_last_layers(features, labels, uniform, context, radius=radius, rate=rate)
    for g in range(5):
        alone = fit_last_layers(
            *(features, labels, uniform, context[g]), radius=float(radius[g]), rate=float(rate[g])
        )
        torch.testing.assert_close(together[g : g + 1], alone, rtol=1e-9, atol=1e-11)


def test_what_is_left_out_has_the_stated_value():
    features, labels = problem(20, 4)
    uniform = torch.full((20,), 1 / 20, dtype=torch.float64)
    centre, context = normal(5, 3), weights(20, seed=1)
    found = fit_last_layers(features, labels, uniform, context, precision=0.1, centre=centre)
    stated = {"strength": 1.0, "radius": 0.0, "rate": 0.1, "momentum": 0.9, "steps": 300}
    stated |= {"schedule": "constant", "group_rate": 0.0, "start": centre, "centre": centre}
    again = fit_last_layers(features, labels, uniform, context, precision=0.1, **stated)
    assert torch.equal(found, again)
    zero = torch.zeros_like(centre)
    found = fit_last_layers(features, labels, uniform, precision=0.1, steps=3)
    again = fit_last_layers(
        *(features, labels, uniform), precision=0.1, steps=3, start=zero, centre=zero
    )
    assert torch.equal(found, again)


@given(st.permutations(range(12)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_samples_does_not_matter(order):
    features, labels = problem(12, 4)
    context = weights(12, seed=1)
    uniform = torch.full((12,), 1 / 12, dtype=torch.float64)
    found = fit_last_layers(features, labels, uniform, context, radius=0.2)
    again = fit_last_layers(
        features[list(order)], labels[list(order)], uniform, context[list(order)], radius=0.2
    )
    torch.testing.assert_close(again, found, rtol=1e-9, atol=1e-11)


def test_long_descents_reach_the_minimum_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    features, labels = problem(60, 4)
    likelihood = weights(60, seed=3)
    layer = fit_last_layers(features, labels, likelihood, precision=0.05, rate=0.3, steps=4000)[0]
    # Their intercept has no penalty; so the column of ones is given to them as a feature.
    peer = LogisticRegression(C=1 / 0.05, fit_intercept=False, tol=1e-12, max_iter=10_000)
    peer.fit(with_ones(features).numpy(), labels.numpy(), sample_weight=likelihood.numpy())
    torch.testing.assert_close(layer.T, torch.from_numpy(peer.coef_), rtol=1e-5, atol=1e-6)


def test_a_sample_without_weight_does_not_count():
    features, labels = problem(12, 3)
    likelihood = weights(12, seed=2)
    assert (likelihood == 0).any()
    found = fit_last_layers(features, labels, likelihood, likelihood, radius=0.1)
    features[likelihood == 0] += 100
    again = fit_last_layers(features, labels, likelihood, likelihood, radius=0.1)
    torch.testing.assert_close(again, found, rtol=1e-8, atol=1e-10)


def test_group_weights_that_follow_the_worst_are_exponentiated_gradients():
    features, labels = problem(12, 3, classes=2)
    groups = torch.arange(12) % 3
    uniform, rate = torch.full((12,), 1 / 12, dtype=torch.float64), 0.4
    found = fit_last_layers(
        *(features, labels, uniform), groups=groups, group_rate=rate, rate=0.1, steps=8
    )[0]
    w = torch.zeros(4, 2, dtype=torch.float64)
    velocity, share = torch.zeros_like(w), torch.full((3,), 1 / 3, dtype=torch.float64)
    x = with_ones(features)
    for _ in range(8):
        here = w.clone().requires_grad_()
        losses = torch.stack([nll(x, labels, here)[groups == g].mean() for g in range(3)])
        share = share * (rate * losses.detach()).exp()
        share = share / share.sum()
        velocity = 0.9 * velocity + torch.autograd.grad(share @ losses, here)[0]
        w = w - 0.1 * velocity
    torch.testing.assert_close(found, w, rtol=1e-10, atol=1e-12)


def test_group_rates_weights_and_centres_differ_between_configurations():
    # Groups of three sizes and uneven weights, with a context: no symmetry hides an error.
    features, labels = problem(14, 3)
    groups = torch.tensor([0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2])
    likelihood = torch.rand(3, 14, generator=generator(7), dtype=torch.float64) + 0.05
    likelihood /= likelihood.sum(1, keepdim=True)
    context, group_rate = weights(3, 14, seed=8), torch.tensor([0.0, 0.3, 1.0]).double()
    centre, start = normal(3, 4, 3, seed=9), normal(3, 4, 3, seed=10)
    found = fit_last_layers(
        *(features, labels, likelihood, context),
        **{"strength": 0.5, "radius": 0.2, "precision": 0.1, "rate": 0.1, "momentum": 0.8},
        **{"centre": centre, "start": start, "groups": groups, "group_rate": group_rate},
        steps=9,
    )
    x = with_ones(features)
    for k in range(3):
        w = torch.nn.Parameter(start[k].clone())
        optimiser = torch.optim.SGD([w], lr=0.1, momentum=0.8)
        mass = torch.stack([likelihood[k][groups == group].sum() for group in range(3)])
        share = mass
        for _ in range(9):
            terms = likelihood[k] * nll(x, labels, w)
            losses = torch.stack([terms[groups == g].sum() / mass[g] for g in range(3)])
            share = share * (group_rate[k] * losses.detach()).exp()
            share = share / share.sum()
            uphill = gradient_of(x, labels, context[k], w)
            eps = 0.2 * uphill / uphill.norm()
            loss = share @ losses + 0.5 * nll(x, labels, w + eps) @ context[k]
            optimiser.zero_grad()
            (loss + 0.05 * (w - centre[k]).square().sum()).backward()
            optimiser.step()
        torch.testing.assert_close(found[k], w.detach(), rtol=1e-9, atol=1e-11)


def test_the_cheaper_route_is_taken():
    for samples, dimension, expected in ((10, 8, "samples"), (40, 8, "features")):
        features, labels = problem(samples, dimension)
        uniform = torch.full((samples,), 1 / samples, dtype=torch.float64)
        bits = {r: fit_last_layers(features, labels, uniform, route=r) for r in ROUTES}
        other = next(route for route in ROUTES if route != expected)
        found = fit_last_layers(features, labels, uniform)
        assert torch.equal(found, bits[expected]) and not torch.equal(found, bits[other])


def test_what_the_arguments_are_is_left_alone_and_no_graph_is_kept():
    features, labels = problem(8, 3)
    features.requires_grad_()
    found = fit_last_layers(features, labels, UNIFORM, UNIFORM, radius=0.1, steps=3)
    assert not found.requires_grad and features.grad is None


@pytest.mark.parametrize("route", ROUTES)
def test_bytes_grow_in_proportion_to_the_configurations(route):
    features, labels = problem(60, 25)
    uniform = torch.full((60,), 1 / 60, dtype=torch.float64)

    def moved(count):
        with Traffic() as traffic:
            fit_last_layers(
                *(features, labels, uniform, uniform.expand(count, -1)),
                radius=0.1,
                steps=3,
                route=route,
            )
        return traffic.bytes

    assert moved(66) - moved(34) == moved(34) - moved(2)


@pytest.mark.parametrize(
    "arguments, settings, said",
    [
        ((NAN, SAMPLES[1], UNIFORM), {}, "features holds 1 elements"),
        (
            (SAMPLES[0], SAMPLES[1][:7], UNIFORM),
            {},
            r"labels are .* \(7,\); accepted is torch.int64 \(8",
        ),
        ((SAMPLES[0], SAMPLES[1] - 1, UNIFORM), {}, "labels holds -1"),
        ((SAMPLES[0], 0 * SAMPLES[1], UNIFORM), {}, "accepted are at least two classes"),
        ((*SAMPLES, UNIFORM[:7]), {}, r"likelihood is .* \(7,\)"),
        ((*SAMPLES, 2 * UNIFORM), {}, "likelihood has sums from 2"),
        ((*SAMPLES, 1.01 * UNIFORM), {}, "likelihood has sums from 1.01"),
        ((*SAMPLES, UNIFORM, -UNIFORM), {}, "context has sums from -1"),
        ((*SAMPLES, UNIFORM * torch.tensor([-1.0, 3] + 6 * [1])), {}, "a least weight of -0.125"),
        ((*SAMPLES, UNIFORM, UNIFORM), {"radius": -0.1}, "radius is -0.1"),
        ((*SAMPLES, UNIFORM, UNIFORM), {"strength": math.inf}, "strength is inf"),
        ((*SAMPLES, UNIFORM), {"rate": torch.tensor([0.1, math.nan])}, "rate holds"),
        ((*SAMPLES, UNIFORM), {"momentum": 1.0}, "momentum is 1.0"),
        ((*SAMPLES, UNIFORM), {"steps": 0}, "steps is 0"),
        ((*SAMPLES, UNIFORM), {"route": "both"}, "route is 'both'; accepted are 'samples', 'feat"),
        ((*SAMPLES, UNIFORM), {"schedule": "cosine"}, "schedule is 'cosine'"),
        ((*SAMPLES, UNIFORM), {"group_rate": 0.1}, "groups is None"),
        ((*SAMPLES, UNIFORM), {"centre": UNIFORM}, "centre is"),
        (
            (*SAMPLES, UNIFORM.expand(3, -1)),
            {"rate": torch.ones(2)},
            "likelihood has 3, rate has 2",
        ),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, settings, said):
    with pytest.raises(ValueError, match=said):
        fit_last_layers(*arguments, **settings)


def test_a_group_without_weight_is_refused_by_name():
    likelihood = torch.tensor([0.5, 0.5, 0, 0, 0, 0, 0, 0]).double()
    with pytest.raises(ValueError, match="no sample of group 2 has weight"):
        fit_last_layers(
            *SAMPLES, likelihood, groups=torch.tensor([0, 1, 2, 2, 2, 2, 2, 2]), group_rate=0.1
        )


def test_a_descent_that_diverges_says_so():
    features = 1e30 * SAMPLES[0].float()
    with pytest.raises(
        ValueError, match=r"1 of 2 configurations do not stay finite, the first of them \[1\]"
    ):
        rates = torch.tensor([0.0, 1e30])
        fit_last_layers(features, SAMPLES[1], UNIFORM.float(), rate=rates, steps=50)
    with pytest.raises(ValueError, match="strength holds inf to inf; .* in torch.float32"):
        fit_last_layers(features, SAMPLES[1], *2 * (UNIFORM.float(),), strength=1e39)


def test_a_dtype_that_is_not_accepted_is_named():
    with pytest.raises(TypeError, match="features is torch.float16"):
        fit_last_layers(SAMPLES[0].half(), SAMPLES[1], UNIFORM.half())
    with pytest.raises(ValueError, match="likelihood is torch.float32"):
        fit_last_layers(*SAMPLES, UNIFORM.float())
