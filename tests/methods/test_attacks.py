"""Attacks: inside the ball, without a trace in the model, and as strong as two libraries' own."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import stats
from torch import nn
from torch.nn import functional as F

from kempe_nb import Traffic
from kempe_nb.data.torchvision_import import import_torchvision
from kempe_nb.methods import attacks
from kempe_nb.methods.attacks import fgsm, margin, pgd, sign_noise, worst_case
from kempe_nb.networks.modes import evaluating

WIDTH = 128


def network(seed=0, inputs=12, classes=4):
    torch.manual_seed(seed)
    layers = [nn.Linear(inputs, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Dropout(0.1)]
    return nn.Sequential(*layers, nn.Linear(WIDTH, classes))


def drawn(samples=50, inputs=12, classes=4, seed=0):
    rng = torch.Generator().manual_seed(seed)
    images = torch.rand(samples, inputs, generator=rng)
    return images, torch.randint(classes, (samples,), generator=rng)


@pytest.fixture(scope="module")
def trained():
    """A small network that has learnt random labels, its images and labels."""
    model, (images, labels) = network(), drawn(200)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    torch.manual_seed(1)
    for _ in range(300):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    optimizer.zero_grad()
    with torch.no_grad(), evaluating(model):
        assert (model(images).argmax(1) == labels).float().mean() > 0.9
    return model, images, labels


def length(images, norm):
    order = math.inf if norm == "linf" else 2
    return torch.linalg.vector_norm(images.flatten(1).double(), ord=order, dim=1)


# What every attack promises


@given(
    st.sampled_from(["linf", "l2"]),
    st.sampled_from([0.0, 1e-3, 0.1, 3.0]),
    st.sampled_from(["best", "last"]),
    st.booleans(),
    st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=40)
def test_images_stay_in_the_ball_and_in_their_range(norm, epsilon, keep, targeted, seed):
    images, labels = drawn(7, seed=seed)
    rng = torch.Generator().manual_seed(seed)
    settings = {"norm": norm, "keep": keep, "targeted": targeted, "steps": 3, "step": epsilon}
    found = pgd(network(), images, labels, epsilon, generator=rng, restarts=2, **settings)
    assert found.images.amin() >= 0 and found.images.amax() <= 1
    assert (length(found.images - images, norm) <= epsilon * (1 + 1e-5) + 1e-7).all()
    assert not found.images.requires_grad and not found.logits.requires_grad


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_logits_and_verdicts_belong_to_the_images(trained, norm):
    model, images, labels = trained
    for how in ({}, {"keep": "last"}, {"restarts": 3, "loss": margin}, {"targeted": True}):
        found = pgd(model, images, labels, 0.2, norm=norm, **how)
        with evaluating(model), torch.no_grad():
            logits = model(found.images)
        torch.testing.assert_close(found.logits, logits)
        right = logits.argmax(1) == labels
        assert torch.equal(found.fooled, right if how.get("targeted") else ~right)
        assert found.accuracy == 1 - found.fooled.double().mean().item()


def attack_in_every_way(model, images, labels):
    fgsm(model, images, labels, 0.1)
    pgd(model, images, labels, 0.1, norm="l2", steps=2)
    pgd(model, images, labels, 0.1, targeted=True, steps=2, keep="last")
    worst_case(model, images, labels, 0.1, steps=2)


@pytest.mark.parametrize("training", [True, False])
def test_modes_are_the_same_before_and_after(training):
    model = network().train(training)
    model[1].eval()
    modes = [part.training for part in model.modules()]
    attack_in_every_way(model, *drawn())
    assert [part.training for part in model.modules()] == modes
    with pytest.raises(ValueError, match="labels lie from"):
        pgd(model, drawn()[0], drawn()[1] + 4, 0.1)
    assert [part.training for part in model.modules()] == modes


def test_statistics_of_batch_normalisation_are_the_same_before_and_after():
    model = network().train()
    model(drawn()[0])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attack_in_every_way(model, *drawn())
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert before["1.num_batches_tracked"] == 1


def test_gradients_of_parameters_are_the_same_before_and_after():
    model = network()
    attack_in_every_way(model, *drawn())
    assert all(parameter.grad is None for parameter in model.parameters())
    F.cross_entropy(model(drawn()[0]), drawn()[1]).backward()
    before = [parameter.grad.clone() for parameter in model.parameters()]
    attack_in_every_way(model, *drawn())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_no_gradient_of_a_weight_is_computed():
    """A step costs a forward pass and one more product of each layer, where training has two."""
    model, (images, labels) = network(), drawn()
    with Traffic() as traffic:
        pgd(model, images, labels, 0.1, steps=5, keep="last")
    products = {row.operation: row.launches for row in traffic.table()}
    # Two layers, forwards at each step and at the end; backwards towards the images alone.
    assert (products["aten.addmm"], products["aten.mm"]) == (2 * 6, 2 * 5)


def test_a_random_start_depends_on_its_generator_only(trained):
    def run(seed):
        return pgd(*trained, 0.1, steps=1, generator=torch.Generator().manual_seed(seed)).images

    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))
    state = torch.get_rng_state()
    run(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_attack_sees_gradients_where_its_caller_switched_them_off(trained):
    model, images, labels = trained
    outside = pgd(model, images, labels, 0.1, start=images)
    with torch.no_grad():
        inside = pgd(model, images, labels, 0.1, start=images)
    assert torch.equal(outside.images, inside.images)


# Closed forms: a linear model shows the best attack


def linear(inputs=12, classes=2, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(inputs, classes)


@pytest.mark.parametrize(("norm", "order"), [("linf", 1), ("l2", 2)])
@pytest.mark.parametrize("loss", [attacks.log_odds, margin])
def test_the_best_attack_on_a_linear_model(norm, order, loss):
    """Two classes: the margin falls by epsilon times the dual norm of the difference of weights."""
    model, labels = linear(), torch.tensor([0, 1, 0])
    images = torch.full((3, 12), 0.5)
    found = pgd(model, images, labels, 0.1, norm=norm, loss=loss, start=images)
    with torch.no_grad():
        before = margin(model(images), labels)
        dual = torch.linalg.vector_norm(model.weight[0] - model.weight[1], ord=order)
    after = margin(found.logits, labels)
    torch.testing.assert_close(after - before, torch.full_like(after, 0.1 * dual.item()))


def test_fgsm_is_one_step_of_full_length():
    model, (images, labels) = linear(classes=5), drawn(classes=5)
    ahead = images.clone().requires_grad_()
    F.cross_entropy(model(ahead), labels).backward()
    expected = (images + 0.1 * ahead.grad.sign()).clamp(0, 1)
    torch.testing.assert_close(fgsm(model, images, labels, 0.1).images, expected)


class Seeing(nn.Module):
    """A model that remembers the images that it was asked about."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, images):
        self.seen.append(images.detach().clone())
        return self.model(images)


@pytest.mark.parametrize("norm", attacks.NORMS)
@pytest.mark.parametrize(
    ("decay", "lengths"), [(False, [1, 1, 1, 1]), (True, [1, 3 / 4, 2 / 4, 1 / 4])]
)
def test_steps_have_one_length_or_fall_linearly_to_zero(norm, decay, lengths):
    """The first step has the full length, and the one after the last would have none."""
    model, images = Seeing(linear()), torch.zeros(3, 12)
    # Wide bounds and a wide ball: nothing is projected.
    how = {"bounds": (-9.0, 9.0), "start": images, "steps": 4, "step": 0.5, "norm": norm}
    pgd(model, images, torch.tensor([0, 1, 0]), 9.0, decay=decay, **how)
    steps = [length(b - a, norm) for a, b in zip(model.seen[:-1], model.seen[1:], strict=True)]
    expected = 0.5 * torch.tensor(lengths, dtype=torch.float64)[:, None].expand(4, 3)
    torch.testing.assert_close(torch.stack(steps), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("norm", attacks.NORMS)
@pytest.mark.parametrize("scale", [1e-36, 1e-25, 1e18, 1e25])
def test_a_step_does_not_depend_on_the_size_of_the_gradient(norm, scale):
    """Two classes: the gradient has one direction, and in float32 its squares are 0 or infinite."""
    images, labels = drawn(20, classes=2)
    small = linear()
    with torch.no_grad():
        for parameter in small.parameters():
            parameter *= scale
    how = {"norm": norm, "steps": 1, "step": 0.05, "start": images, "keep": "last"}
    found = pgd(small, images, labels, 0.1, loss=margin, **how)
    expected = pgd(linear(), images, labels, 0.1, loss=margin, **how)
    assert not found.blind.any()
    torch.testing.assert_close(found.images, expected.images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("targeted", [False, True])
def test_the_best_point_is_no_worse_than_the_last(trained, targeted):
    model, images, labels = trained
    aims = (labels + 1) % 4 if targeted else labels
    how = {"steps": 9, "step": 0.3, "start": images, "targeted": targeted}
    last = pgd(model, images, aims, 0.3, keep="last", **how)
    best = pgd(model, images, aims, 0.3, **how)
    assert (best.fooled >= last.fooled).all()
    same = best.fooled == last.fooled
    losses = [attacks.log_odds(each.logits, aims) for each in (best, last)]
    if targeted:
        losses.reverse()
    assert (losses[0] >= losses[1])[same].all()


class Line(nn.Module):
    """One pixel x, three classes; the label is 0, and class 1 wins where x < 0.25."""

    def forward(self, x):
        return torch.cat([0 * x, 0.25 - x, x - 2], 1)


def test_the_best_point_is_fooled_first_and_then_of_the_highest_loss():
    """The loss leads away from where the model is fooled, and the last point there is kept."""
    images, labels = torch.zeros(1, 1), torch.tensor([0])
    how = {"steps": 10, "step": 0.1, "start": images, "loss": lambda logits, _: logits[:, 2]}
    best = pgd(Line(), images, labels, 1.0, **how)
    last = pgd(Line(), images, labels, 1.0, keep="last", **how)
    assert best.fooled.all() and best.images.item() == pytest.approx(0.2)
    assert not last.fooled.any() and last.images.item() == pytest.approx(1.0)


def test_fgsm_takes_the_whole_step_even_where_it_is_no_gain():
    class Hill(nn.Module):
        def forward(self, x):
            return torch.cat([0 * x, -((x - 0.5) ** 2)], 1)

    images, labels = torch.full((1, 1), 0.4), torch.tensor([0])
    assert fgsm(Hill(), images, labels, 0.5).images.item() == pytest.approx(0.9)


@pytest.mark.parametrize("norm", attacks.NORMS)
@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_start_outside_the_ball_is_brought_into_it(trained, norm, keep):
    model, images, labels = trained
    how = {"norm": norm, "keep": keep, "steps": 1, "step": 0.0}
    found = pgd(model, images, labels, 0.05, start=1 - images, **how)
    assert (length(found.images - images, norm) <= 0.05 * (1 + 1e-5) + 1e-7).all()


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_random_starts_fill_the_ball(norm):
    """Uniform in the cube; or of a uniform radius, in a uniform direction.

    Each coordinate of such a direction of three is uniform, as Archimedes knew.
    """
    images, labels = torch.full((4000, 3), 0.5), torch.zeros(4000, dtype=torch.int64)
    rng = torch.Generator().manual_seed(0)
    how = {"steps": 1, "step": 0.0, "keep": "last", "norm": norm, "generator": rng}
    away = (pgd(linear(3), images, labels, 0.4, **how).images.double() - 0.5) / 0.4
    if norm == "l2":
        radius = length(away, norm)[:, None]
        away = torch.cat([away / radius, 2 * radius - 1], 1)
    for numbers in away.T:
        # True uniform numbers fall below this once in ten thousand times.
        assert stats.kstest(numbers.numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-4


def test_restarts_only_add(trained):
    model, images, labels = trained

    def run(restarts):
        rng = torch.Generator().manual_seed(0)
        return pgd(model, images, labels, 0.05, steps=2, restarts=restarts, generator=rng)

    one, five = run(1), run(5)
    assert (five.fooled >= one.fooled).all()


def test_radii_of_their_own_for_every_image(trained):
    model, images, labels = trained
    radii = torch.linspace(0, 0.3, len(images))
    for norm in attacks.NORMS:
        found = pgd(model, images, labels, radii, norm=norm)
        assert (length(found.images - images, norm) <= radii * (1 + 1e-5) + 1e-6).all()
    alone = pgd(model, images[-20:], labels[-20:], 0.3, start=images[-20:])
    together = pgd(model, images, labels, torch.full((len(images),), 0.3), start=images)
    torch.testing.assert_close(alone.images, together.images[-20:])


# Gradients that vanish


def test_saturated_logits_hide_nothing(trained):
    """In float32 the cross-entropy of logits 40 times as large is 0, with a gradient of 0."""
    model, images, labels = trained

    class Confident(nn.Module):
        def forward(self, x):
            return 40 * model(x)

    start = {"start": images, "steps": 5}
    plain = pgd(model, images, labels, 0.2, loss=margin, **start)
    found = pgd(Confident(), images, labels, 0.2, **start)
    confident = 40 * model.eval()(images)
    assert (F.cross_entropy(confident, labels, reduction="none") == 0).float().mean() > 0.5
    assert not found.blind.any()
    assert found.accuracy <= plain.accuracy + 0.05


def test_blind_attacks_are_reported():
    class Steps(nn.Module):
        def forward(self, x):
            return (x[:, :3] > 0.5).float() + 0 * x[:, :3]

    images, labels = drawn(classes=3)
    assert pgd(Steps(), images, labels, 0.1).blind.all()
    assert not pgd(linear(classes=3), images, labels, 0.1).blind.any()


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize(("call", "blind"), [*((c, True) for c in (0, 1, 2, 4, 5, 6)), (3, False)])
def test_one_step_without_a_gradient_is_reported(call, blind, keep):
    """Whatever came after it; calls 3 and 7 are the ends of the two paths and take no step."""

    class FlatAtOneCall(nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.calls = linear(classes=3), 0

        def forward(self, x):
            flat = torch.arange(len(x))[:, None] < 20 * (self.calls == call)
            self.calls += 1
            return self.model(torch.where(flat, x.detach(), x))

    model, (images, labels) = FlatAtOneCall(), drawn(classes=3)
    found = pgd(model, images, labels, 0.1, steps=3, restarts=2, keep=keep)
    assert model.calls == 8
    assert found.blind.tolist() == [blind] * 20 + [False] * 30


def test_an_image_is_not_blind_for_pixels_that_do_not_matter():
    model, (images, labels) = linear(classes=3), drawn(classes=3)
    with torch.no_grad():
        model.weight[:, 1:] = 0
    assert not pgd(model, images, labels, 0.1).blind.any()


def test_an_image_without_a_gradient_stays_where_it_is():
    images, labels = drawn(classes=3)
    model = nn.Sequential(linear(classes=3), nn.Threshold(1e9, 0.0))
    for norm in attacks.NORMS:
        found = pgd(model, images, labels, 0.1, norm=norm, start=images, keep="last")
        assert found.blind.all() and torch.equal(found.images, images)


# The ensemble


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_the_worst_case_is_no_better_than_its_parts(trained, norm):
    model, images, labels = trained
    settings = {"norm": norm, "steps": 10}
    rng = torch.Generator().manual_seed(0)
    found = worst_case(model, images, labels, 0.04, generator=rng, **settings)
    for loss in (attacks.log_odds, margin):
        rng = torch.Generator().manual_seed(0)
        part = pgd(model, images, labels, 0.04, loss=loss, restarts=2, generator=rng, **settings)
        assert found.accuracy <= part.accuracy + 0.01
    # The first attack with its own settings and draws: what it fools stays fooled, image by image.
    rng = torch.Generator().manual_seed(0)
    how = {"step": 0.02, "decay": True, "restarts": 2, "generator": rng, **settings}
    assert (found.fooled >= pgd(model, images, labels, 0.04, **how).fooled).all()
    assert (length(found.images - images, norm) <= 0.04 * (1 + 1e-5) + 1e-7).all()
    with evaluating(model), torch.no_grad():
        assert torch.equal(model(found.images).argmax(1) != labels, found.fooled)


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_the_worst_case_is_made_of_the_attacks_that_it_names(monkeypatch, norm):
    """In turn, each with steps that decay, and each on what has survived the others."""
    calls = []

    def recorded(model, images, labels, epsilon, **how):
        calls.append((images, how, pgd(model, images, labels, epsilon, **how)))
        return calls[-1][2]

    monkeypatch.setattr(attacks, "pgd", recorded)
    model, (images, labels) = linear(classes=4), drawn(classes=4)
    rng = torch.Generator().manual_seed(0)
    how = {"norm": norm, "bounds": (-1.0, 2.0), "generator": rng, "steps": 3}
    found = worst_case(model, images, labels, 0.05, restarts=5, **how)
    first, second, *others = (call[1].pop("loss", attacks.log_odds) for call in calls)
    assert (first, second) == (attacks.log_odds, margin)
    assert len(others) == 3 and not {first, second} & {*others}
    assert [call[1].pop("restarts", 1) for call in calls] == [5, 5, 1, 1, 1]
    assert all(call[1] == how | {"decay": True, "step": 0.025} for call in calls)
    left = images
    for attacked, _, result in calls:
        assert torch.equal(attacked, left)
        left = left[~result.fooled]
    assert 0 < len(left) == (~found.fooled).sum() < len(images)


class Decoy(nn.Module):
    """The likelier wrong class never wins; the other one does at the far end of the range."""

    def forward(self, x):
        label, decoy, hidden = 0 * x, -0.1 - 10 * x, 200 * (x - 0.99)
        return torch.cat([label, decoy, hidden], 1)


def test_each_of_the_likeliest_other_classes_is_a_target():
    """What only a step towards the second of two other classes finds takes two targets."""
    images, labels = torch.full((50, 1), 0.3), torch.zeros(50, dtype=torch.int64)

    def found(targets):
        rng = torch.Generator().manual_seed(0)
        return worst_case(Decoy(), images, labels, 0.7, targets=targets, generator=rng)

    assert not found(0).fooled.all() and not found(1).fooled.all()
    assert found(2).fooled.all() and found(9).fooled.all()


@pytest.mark.parametrize("targets", [1, 2, 3, 9])
def test_no_attack_of_the_worst_case_aims_at_the_label(targets):
    """Towards the label itself there is no gradient."""
    found = worst_case(linear(classes=4), *drawn(), 1e-6, targets=targets, steps=2)
    assert not found.fooled.all() and not found.blind.any()


def test_towards_is_the_lead_of_the_target():
    logits = torch.tensor([[1.0, 4.0, 2.0], [0.0, 5.0, 1.0]])
    lead = attacks.towards(torch.tensor([2, 0]))(logits, torch.tensor([1, 2]))
    assert lead.tolist() == [-2, -1]


def test_the_cross_entropy_is_softplus_of_the_log_odds():
    logits, labels = torch.randn(20, 5, dtype=torch.float64), torch.arange(20) % 5
    logits.requires_grad_()
    odds = attacks.log_odds(logits, labels)
    entropy = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(F.softplus(odds), entropy)
    gradients = [torch.autograd.grad(each.sum(), logits)[0] for each in (odds, entropy)]
    cosines = F.cosine_similarity(*gradients)
    torch.testing.assert_close(cosines, torch.ones_like(cosines))


def test_margins():
    logits = torch.tensor([[1.0, 4.0, 2.0], [0.0, 5.0, 1.0]])
    assert margin(logits, torch.tensor([1, 2])).tolist() == [-2, 4]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("loss", [margin, attacks.log_odds, attacks.towards(torch.tensor([1]))])
def test_losses_subtract_logits_exactly(dtype, loss):
    """The difference of these two logits has more digits than their dtype."""
    large, small = 1 / torch.finfo(dtype).eps, 0.25
    assert torch.tensor(large - small, dtype=dtype).item() != large - small
    found = loss(torch.tensor([[small, large]], dtype=dtype), torch.tensor([0]))
    assert found.dtype == torch.float64 and found.item() == large - small


# Other people's attacks


@pytest.fixture
def libraries():
    """torchattacks and foolbox; both import torchvision."""
    import_torchvision()
    return pytest.importorskip("torchattacks"), pytest.importorskip("foolbox")


class Image(nn.Module):
    """Flattens images [N, 1, 3, 4], because the libraries want images."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images.flatten(1))


EPSILONS = {"linf": 0.05, "l2": 0.15}


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_as_strong_as_torchattacks(libraries, trained, norm):
    torchattacks, _ = libraries
    model, images, labels = trained
    whole, images, epsilon = Image(model).eval(), images.reshape(-1, 1, 3, 4), EPSILONS[norm]
    peer = {"linf": torchattacks.PGD, "l2": torchattacks.PGDL2}[norm]
    theirs = peer(whole, eps=epsilon, alpha=epsilon / 4, steps=10, random_start=False)
    other = theirs(images, labels)
    found = pgd(whole, images, labels, epsilon, norm=norm, start=images, keep="last")
    # The same arithmetic, so the same images but for the rounding of signs near zero.
    close = (found.images - other).abs().flatten(1).amax(1) < 1e-4
    assert close.float().mean() > 0.95
    accuracy = (whole(other).argmax(1) == labels).float().mean().item()
    assert 0.05 < accuracy < 0.9
    assert abs(found.accuracy - accuracy) <= 0.02
    rng = torch.Generator().manual_seed(0)
    ensemble = worst_case(whole, images, labels, epsilon, norm=norm, generator=rng)
    assert ensemble.accuracy <= accuracy + 1e-6


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_as_strong_as_foolbox(libraries, trained, norm):
    _, foolbox = libraries
    model, images, labels = trained
    whole, images, epsilon = Image(model).eval(), images.reshape(-1, 1, 3, 4), EPSILONS[norm]
    kinds = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}
    settings = {"steps": 10, "abs_stepsize": epsilon / 4, "random_start": False}
    theirs = kinds[norm](**settings)
    wrapped = foolbox.PyTorchModel(whole, bounds=(0, 1))
    _, other, fooled = theirs(wrapped, images, labels, epsilons=epsilon)
    found = pgd(whole, images, labels, epsilon, norm=norm, start=images, keep="last")
    close = (found.images - other).abs().flatten(1).amax(1) < 1e-4
    assert close.float().mean() > 0.95
    assert abs(found.fooled.float().mean() - fooled.float().mean()) <= 0.02


def test_targeted_as_torchattacks(libraries, trained):
    torchattacks, _ = libraries
    model, images, labels = trained
    whole, images, targets = Image(model).eval(), images.reshape(-1, 1, 3, 4), (labels + 1) % 4
    theirs = torchattacks.PGD(whole, eps=0.1, alpha=0.025, steps=10, random_start=False)
    theirs.set_mode_targeted_by_label(quiet=True)
    other = theirs(images, targets)
    found = pgd(whole, images, targets, 0.1, targeted=True, start=images, keep="last")
    assert (found.images - other).abs().amax() < 1e-4
    assert torch.equal(found.fooled, whole(other).argmax(1) == targets)


# Noise


def test_sign_noise_is_as_long_as_an_attack():
    images = torch.full((200, 50), 0.5)
    noisy = sign_noise(images, 0.1, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close((noisy - images).abs(), torch.full_like(images, 0.1))
    # A fair coin: 10,000 throws, five standard deviations.
    assert abs((noisy > images).float().mean() - 0.5) < 5 * 0.5 / 100
    assert sign_noise(torch.ones(3, 4), 0.1).amax() == 1


# Bad input


class Probabilities(nn.Module):
    def forward(self, x):
        return F.softmax(3 * x[:, :4], 1)


GOOD = {"model": linear(classes=4), "epsilon": 0.1}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"epsilon": -0.1}, ValueError, "epsilon is -0.1; accepted are finite numbers from 0 on"),
        ({"epsilon": math.nan}, ValueError, "epsilon is nan"),
        ({"epsilon": torch.ones(3)}, ValueError, r"epsilon has shape \(3,\)"),
        ({"images": 255 * drawn()[0]}, ValueError, "images lie from .* accepted is 0 to 1, see bo"),
        ({"images": drawn()[0] - 0.5}, ValueError, "images lie from -0"),
        ({"images": drawn()[0] * math.nan}, ValueError, "images lie from nan"),
        ({"images": drawn()[0].byte()}, TypeError, "images is torch.uint8"),
        ({"labels": drawn()[1].float()}, ValueError, "labels is torch.float32"),
        ({"labels": drawn()[1][:3]}, ValueError, r"labels is torch.int64 \(3,\)"),
        ({"labels": drawn()[1] + 4}, ValueError, "labels lie from 4 to 7; accepted is 0 to 3"),
        ({"labels": drawn()[1].to("meta")}, ValueError, "images is on cpu, labels on meta"),
        ({"bounds": (1.0, 0.0)}, ValueError, "bounds is"),
        ({"norm": "l1"}, ValueError, "norm is 'l1'; accepted are 'linf', 'l2'"),
        ({"steps": 0}, ValueError, "steps is 0"),
        ({"restarts": 1.5}, ValueError, "restarts is 1.5"),
        ({"keep": "first"}, ValueError, "keep is 'first'"),
        ({"model": Probabilities()}, ValueError, "model returns probabilities"),
        ({"model": nn.Linear(12, 1)}, ValueError, r"model returns shape \(50, 1\)"),
    ],
)
def test_bad_input_is_named(change, error, message):
    images, labels = drawn()
    with pytest.raises(error, match=message):
        pgd(**{"images": images, "labels": labels, **GOOD, **change})


def test_log_probabilities_are_logits():
    model = nn.Sequential(linear(classes=4), nn.LogSoftmax(1))
    pgd(model, *drawn(), 0.1)


def test_an_empty_batch_is_attacked_in_vain():
    images, labels = drawn(0)
    found = pgd(linear(classes=4), images, labels, 0.1, steps=1)
    assert found.images.shape == (0, 12) and found.fooled.shape == (0,)


# What a reviewer broke


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_gradient_that_is_not_a_number_is_said_and_is_no_robustness(norm):
    def model(x):
        scaled = (x - x.mean(1, keepdim=True)) / x.var(1, keepdim=True).sqrt()
        return scaled[:, :3]

    images = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    images[1] = 0.5
    with pytest.raises(ValueError, match="NaN or infinite at 1 of 3 images"):
        fgsm(model, images, torch.zeros(3, dtype=torch.int64), 0.1, norm=norm)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_images_whose_rounding_would_leave_the_ball_are_refused(dtype):
    images = torch.zeros(2, 4).to(dtype)
    with pytest.raises(TypeError, match="images is torch.*; accepted are float32 and float64"):
        pgd(lambda x: x[:, :3], images, torch.zeros(2, dtype=torch.int64), 0.1)


@pytest.mark.parametrize("step", [-0.1, math.nan, math.inf])
def test_a_step_that_leads_nowhere_is_refused_by_name(step):
    with pytest.raises(ValueError, match="step is .*; accepted are finite numbers from 0 on"):
        pgd(lambda x: x[:, :3], torch.zeros(2, 4), torch.zeros(2).long(), 0.1, step=step)


def test_nothing_hangs_on_the_callers_graph():
    images = torch.rand(2, 4, requires_grad=True)
    found = pgd(lambda x: x[:, :3], images, torch.zeros(2).long(), 0.1, start=images, steps=2)
    assert not found.images.requires_grad and not found.logits.requires_grad
