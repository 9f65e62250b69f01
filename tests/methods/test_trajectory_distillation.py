"""Distillation by trajectories: by hand with autograd, pools in a run, probes, going on, input."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.nn import functional as F

from kempe_nb.methods import trajectory_distillation
from kempe_nb.methods.augmentation import inner_batches
from kempe_nb.methods.epoch_pools import Fixed, Growing, SelfAdaptive
from kempe_nb.methods.evaluation import evaluate
from kempe_nb.methods.expert_trajectories import Experts, Training, train_experts
from kempe_nb.methods.level_up import NEITHER, decision
from kempe_nb.methods.optimisers import SGD
from kempe_nb.methods.trajectory_distillation import Settings, TrajectoryDistillation
from kempe_nb.methods.trajectory_matching import Student, probe
from kempe_nb.methods.unrolled import Loss
from kempe_nb.networks.flat import FlatNetwork
from kempe_nb.networks.perceptron import perceptron

NETWORK = FlatNetwork(perceptron((6, 5, 3), activation=nn.Tanh))
INNER = Loss(lambda theta, images, labels: F.cross_entropy(NETWORK(theta, images), labels))
CLASSES = torch.tensor([0, 0, 1, 1, 2, 2])
#: A test that decides often.
QUICK = SelfAdaptive(threshold=1.0, rise=1.0, every=4, patience=12, decay_every=3, floor=3.0)


def real(seed=0):
    """Return real images [60, 6] of three classes, float64."""
    draw = torch.Generator().manual_seed(seed)
    means = 1.5 * torch.randn(3, 6, generator=draw, dtype=torch.float64)
    y = torch.arange(60) % 3
    return means[y] + torch.randn(60, 6, generator=draw, dtype=torch.float64), y


def experts_of(count=3, epochs=5, network=NETWORK, data=None, **more):
    kinds = {"rate": 0.2, "batch": 10} | more
    return train_experts(network, *(data or real()), Training(epochs, **kinds), count)


EXPERTS = experts_of()


def images_of(seed=1):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(6, 6, generator=draw, dtype=torch.float64)


def made(pool=None, experts=EXPERTS, images=None, classes=CLASSES, augment=None, **more):
    """Return a distillation of the small problem."""
    kinds = {"steps": 3, "image_rate": 5.0, "alpha": 0.3, "iterations": 40} | more
    images = images_of() if images is None else images
    chosen = Settings(pool or Fixed(2), **kinds)
    return TrajectoryDistillation(experts, images, classes, chosen, augment=augment)


def scaled(images, rng):
    """Multiply each image with a number drawn for it."""
    return images * torch.as_tensor(rng.uniform(0.5, 2.0, len(images))).view(-1, 1)


# An iteration


def by_hand(run, iterations, *, distance=1, batch=None):
    """Return images and log alphas by autograd through all steps and PyTorch's descent."""
    chosen, experts = run.settings, run.experts
    images = images_of().requires_grad_()
    count = run.pool if chosen.alphas == "each epoch" else 1
    logs = [images.new_tensor(math.log(0.3), requires_grad=True) for _ in range(count)]
    descent = torch.optim.SGD([images], chosen.image_rate, momentum=chosen.momentum)
    of_logs = torch.optim.SGD(logs, chosen.log_alpha_rate * count, momentum=chosen.momentum)
    labels = F.one_hot(CLASSES, 3).double()
    for number in range(iterations):
        rng = np.random.default_rng([chosen.seed, number // experts.count, 6])
        expert = rng.permutation(experts.count)[number % experts.count]
        start = number % run.pool
        before, after = experts.snapshots[expert, [start, start + distance]]
        theta, log = before.clone().requires_grad_(), logs[min(start, count - 1)]
        for step in range(chosen.steps):
            data = batch(number, step, images, labels) if batch else (images, labels)
            # TESLA takes the gradient of a step as if the state before did not know the images.
            at = theta if chosen.gradient == "exact" else theta.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(INNER.loss(at, *data), at, create_graph=True)
            theta = theta - log.exp() * gradient
        loss = (theta - after).square().sum() / (before - after).square().sum()
        descent.zero_grad()
        of_logs.zero_grad()
        loss.backward()
        descent.step()
        of_logs.step()
    return images.detach(), [each.item() for each in logs]


def assert_by_hand(run, iterations=9, **more):
    images, logs = by_hand(run, iterations, **more)
    list(run.advance(iterations))
    torch.testing.assert_close(run.images, images, rtol=1e-10, atol=1e-10)
    assert run.log_alphas == pytest.approx(logs, rel=1e-10)
    assert not torch.allclose(run.images, images_of(), atol=1e-3)


@pytest.mark.parametrize("momentum", [0.5, 0.0])
def test_one_expert_and_one_epoch_are_the_published_loop_by_hand(momentum):
    assert_by_hand(made(Fixed(1), experts_of(count=1), momentum=momentum))


@pytest.mark.parametrize("alphas", ["one", "each epoch"])
@pytest.mark.parametrize("distance", [1, 2])
def test_many_experts_and_epochs_are_the_loop_by_hand(alphas, distance):
    run = made(Fixed(3), alphas=alphas, distance=distance, log_alpha_rate=0.05, seed=4)
    assert_by_hand(run, distance=distance)


def test_the_gradient_without_hessians_is_that_of_states_which_do_not_know_the_images():
    assert_by_hand(made(Fixed(2), gradient="without hessians", seed=3))


def test_without_hessians_one_step_is_exact_and_more_are_not():
    found = {}
    for kind in ("exact", "without hessians"):
        for steps in (1, 3):
            run = made(Fixed(2), gradient=kind, steps=steps)
            list(run.advance(6))
            found[kind, steps] = run.images
    torch.testing.assert_close(found["exact", 1], found["without hessians", 1], rtol=0, atol=1e-10)
    apart = (found["exact", 3] - found["without hessians", 3]).norm()
    assert apart > 1e-3 * found["exact", 3].norm()


def test_a_step_takes_its_batch_and_its_augmentation():
    run = made(augment=scaled, augmentation="scaled", per_class=1, seed=2)

    def batch(number, step, images, labels):
        drawn = inner_batches(CLASSES, per_class=1, seed=[2, number])
        chosen, own = drawn((images, labels), step)
        return scaled(chosen, np.random.default_rng([2, number, step, 9])), own

    assert_by_hand(run, batch=batch)


def test_records_say_what_an_iteration_did():
    run, experts = made(Fixed(2), seed=3), EXPERTS
    for number in range(7):
        before, losses = run.images.clone(), run.losses()
        (record,) = run.advance()
        assert record == run.records[-1] and record.number == number
        assert record.start == number % 2
        assert record.loss == pytest.approx(float(losses[record.expert, record.start]), rel=1e-12)
        assert (record.probe, record.said, record.pool) == (None, None, 2)
        assert record.log_alpha == run.log_alphas[0] and record.image_rate == 5.0
        assert not torch.equal(run.images, before)
    assert losses.shape == (experts.count, experts.epochs)


def test_the_caller_s_tensors_stay_as_they_are():
    images, classes, kept = images_of(), CLASSES.clone(), EXPERTS.snapshots.clone()
    run = made(QUICK, images=images, classes=classes)
    list(run.advance(10))
    assert torch.equal(images, images_of()) and torch.equal(classes, CLASSES)
    assert torch.equal(EXPERTS.snapshots, kept) and not images.requires_grad
    fresh = made(images=images)
    images.zero_()
    assert torch.equal(fresh.images, images_of())


def test_experts_in_half_precision_are_matched_in_the_type_of_training():
    images = images_of().float()
    x, y = real()
    half = experts_of(data=(x.float(), y), half=True)
    whole = experts_of(data=(x.float(), y))
    (one,), (other,) = (made(images=images, experts=e).advance() for e in (half, whole))
    assert one.loss == pytest.approx(other.loss, rel=0.01) and one.loss != other.loss
    run = made(QUICK, half, images=images)
    list(run.advance(20))
    assert run.images.dtype == torch.float32 and run.images.isfinite().all()


def test_distilling_makes_images_that_teach():
    data = real()
    run = made(Fixed(3), experts_of(6), image_rate=2.0, iterations=150, steps=8)
    first = run.losses().mean()

    def accuracy(images):
        return evaluate(NETWORK, images, run.labels, *data, SGD(0.3), 8, count=8).mean()

    before = accuracy(run.images)
    run.run()
    assert run.losses()[:, :3].mean() < 0.7 * first and accuracy(run.images) > before + 0.2


# What is drawn


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_every_round_takes_every_expert_once(seed):
    run = made(seed=seed, iterations=30)
    drawn = []
    for step in range(30):
        run._state = run._state._replace(step=step)
        drawn.append(run._expert())
    rounds = [tuple(drawn[k : k + 3]) for k in range(0, 30, 3)]
    assert all(sorted(each) == [0, 1, 2] for each in rounds) and len(set(rounds)) > 1


def test_start_epochs_are_met_in_a_cycle_or_uniformly():
    cycle = made(Fixed(4), steps=1)
    assert [r.start for r in cycle.advance(9)] == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    kinds = {"steps": 1, "start": "uniform", "image_rate": 1e-3, "iterations": 400}
    uniform = made(Fixed(4), **kinds)
    drawn = [record.start for record in uniform.advance(400)]
    # A hundred each on average; five standard errors.
    counts = np.bincount(drawn)
    assert len(counts) == 4 and np.abs(counts - 100).max() < 5 * math.sqrt(75)
    assert [r.start for r in made(Fixed(4), **kinds).advance(30)] == drawn[:30]
    assert [r.start for r in made(Fixed(4), **kinds, seed=1).advance(30)] != drawn[:30]


# Pools in a run


def test_a_schedule_is_followed():
    pool = Growing(1, 4, 12)
    run = made(pool, steps=1, iterations=20)
    records = list(run.advance(20))
    assert [r.pool for r in records] == [pool.bound(r.number + 1) for r in records]
    assert [r.start for r in records] == [r.number % pool.bound(r.number) for r in records]
    assert {r.probe for r in records} == {None} and run.done


@pytest.mark.parametrize("panel", [0, 2])
def test_levels_rise_exactly_when_the_test_says_so_of_the_recorded_probes(panel):
    pool = replace(QUICK, panel=panel, patience=1000, last=4)
    run = made(pool, iterations=120, image_rate=4.0)
    size, probes, ups = 1, [], 0
    for record in run.advance(120):
        assert record.start == record.number % size
        probes.append(record.probe)
        said = decision(probes, threshold=1.0, rise=1.0, every=4)
        if said != NEITHER:
            size, probes, ups = min(size + 1, 4), [], ups + 1
        assert (record.said, record.pool) == (said, size)
    assert ups >= 4 and size == 4


def test_a_run_ends_when_its_rate_has_annealed_to_the_floor():
    pool = replace(QUICK, threshold=1e6, rise=math.inf)
    run = made(pool, image_rate=5.0, iterations=1000)
    run.run()
    # Patience 12; 5, 4, 3.2 are at or above the floor of 3 for three iterations each.
    rates = [record.image_rate for record in run.records]
    assert rates == pytest.approx([5.0] * 15 + [4.0] * 3 + [3.2] * 3)
    assert [record.probe is None for record in run.records] == [False] * 12 + [True] * 9
    assert run.done and run.step == 21 and not list(run.advance())
    # It moved in the last iterations as well, with that rate.
    assert {record.pool for record in run.records} == {1}


def test_iterations_are_an_end_as_well():
    run = made(QUICK, iterations=5)
    assert len(list(run.advance(99))) == 5 and run.done and run.step == 5


def test_probes_change_nothing_while_no_level_rises():
    silent = SelfAdaptive(threshold=1e6, rise=math.inf, floor=0.0)
    kinds = {"augment": scaled, "augmentation": "scaled", "per_class": 1}
    runs = [
        made(pool, **kinds)
        for pool in (Fixed(1), silent, replace(silent, panel=2), replace(silent, panel=3))
    ]
    for run in runs:
        list(run.advance(15))
    for run in runs[1:]:
        assert torch.equal(run.images, runs[0].images) and run.log_alphas == runs[0].log_alphas
        assert [r.loss for r in run.records] == [r.loss for r in runs[0].records]
    probes = [[record.probe for record in run.records] for run in runs]
    assert probes[0] == [None] * 15 and None not in probes[1]
    assert len({tuple(each) for each in probes}) == 4


@pytest.mark.parametrize("panel", [0, 2, 3])
def test_a_probe_is_the_loss_at_the_epoch_beyond_the_pool(panel):
    pool = replace(QUICK, first=2, panel=panel, threshold=1e6, rise=math.inf)
    run = made(pool, seed=1, alphas="each epoch", log_alpha_rate=0.1)
    asked = set()
    for _ in range(8):
        losses = run.losses()[:, run.pool]
        (record,) = run.advance()
        some = tuple(run._panel) if panel else (record.expert,)
        assert record.probe == pytest.approx(float(losses[list(some)].mean()), rel=1e-12)
        asked.add(some)
    # Beyond the pool the student has the last alpha; it is not the first.
    assert run.log_alphas[0] != run.log_alphas[1]
    # The panel is a fixed set; without one the expert of the iteration is asked.
    assert len(asked) == (1 if panel else 3)
    assert len(set(run._panel)) == panel


def test_a_probe_takes_the_batches_of_its_iteration():
    run = made(replace(QUICK, panel=1), augment=scaled, augmentation="scaled")
    data = run.images.clone(), run.labels
    (record,) = run.advance()

    def batch(synthetic, step):
        return scaled(synthetic[0], np.random.default_rng([0, 0, step, 9])), synthetic[1]

    student = Student(INNER, data, math.log(0.3), 3, batch)
    expected = probe(student, *EXPERTS.pair(run._panel[0], 1))
    assert record.probe == pytest.approx(float(expected), rel=1e-10)


def test_an_alpha_joins_as_a_copy_of_the_last():
    run = made(replace(QUICK, last=4, patience=99), alphas="each epoch", iterations=60)
    before = run.log_alphas
    for record in run.advance(60):
        now = run.log_alphas
        changed = [k for k, old in enumerate(before) if old != now[k]]
        assert changed == [record.start] and record.log_alpha == now[record.start]
        assert len(now) == record.pool
        assert now[len(before) :] == now[len(before) - 1 : len(before)] * (len(now) - len(before))
        before = now
    assert len(before) == 4 and len(set(before)) == 4


def test_a_rate_of_zero_keeps_alpha():
    run = made(log_alpha_rate=0.0)
    list(run.advance(5))
    assert run.log_alphas == (math.log(0.3),)


# Runs that are interrupted


def long_run(**more):
    """Return a run that passes levels, a silent stage, and annealing."""
    kinds = {"alphas": "each epoch", "augment": scaled, "augmentation": "scaled", "seed": 1}
    return made(replace(QUICK, last=3, panel=2), **(kinds | {"iterations": 200} | more))


def assert_same(one, other):
    assert torch.equal(one.images, other.images)
    assert torch.equal(one._state.velocity, other._state.velocity)
    for name in ("step", "rates", "stage", "records"):
        assert getattr(one._state, name) == getattr(other._state, name)


def test_a_run_goes_on_with_the_same_bits_wherever_it_was_interrupted(tmp_path):
    whole, path = long_run(), tmp_path / "run.pt"
    while not whole.done:
        whole.save(path)
        again = long_run()
        again.resume(path)
        assert_same(again, whole)
        list(whole.advance())
        list(again.advance())
        assert_same(again, whole)
    said = [record.said for record in whole.records]
    # The run has seen levels, looks that said nothing, and annealing.
    assert whole.pool == 3 and "neither" in said and None in said and whole.step < 200


def test_a_run_saves_as_it_goes(tmp_path):
    whole, broken, path = long_run(), long_run(), tmp_path / "run.pt"
    whole.run()

    class Stop(Exception):
        pass

    def stop(record):
        if record.number == 12:
            raise Stop

    with pytest.raises(Stop):
        broken.run(path, every=5, on_step=stop)
    again = long_run()
    seen = []
    again.run(path, every=5, on_step=seen.append)
    assert seen[0].number == 10 and torch.equal(again.images, whole.images)
    # A run that is finished does nothing.
    finished = long_run()
    finished.run(path, on_step=stop)
    assert finished.records == whole.records
    assert [each.name for each in tmp_path.iterdir()] == ["run.pt"]


def test_an_interruption_leaves_an_iteration_done_or_not_begun(monkeypatch):
    run = long_run()
    list(run.advance(3))
    before = run._state

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(SelfAdaptive, "after", interrupted)
    kept = before.images.clone()
    with pytest.raises(KeyboardInterrupt):
        list(run.advance())
    assert run._state is before and torch.equal(before.images, kept)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pool": Fixed(3)}, "epochs = 2; here it is 3"),
        ({"pool": Growing(2, 2, 1)}, "pool = 'Fixed'; here it is 'Growing'"),
        ({"steps": 4}, "steps = 3; here it is 4"),
        ({"distance": 2}, "distance = 1; here it is 2"),
        ({"image_rate": 6.0}, "image_rate = 5.0; here it is 6.0"),
        ({"momentum": 0.9}, "momentum = 0.5; here it is 0.9"),
        ({"alpha": 0.4}, "alpha = 0.3; here it is 0.4"),
        ({"log_alpha_rate": 0.02}, "log_alpha_rate = 0.01; here it is 0.02"),
        ({"alphas": "each epoch"}, "alphas = 'one'"),
        ({"start": "uniform"}, "start = 'cycle'"),
        ({"gradient": "without hessians"}, "gradient = 'exact'"),
        ({"iterations": 41}, "iterations = 40"),
        ({"per_class": 1}, "per_class = None; here it is 1"),
        ({"seed": 1}, "seed = 0; here it is 1"),
        (
            {"augment": scaled, "augmentation": "scaled"},
            "augmentation = None; here it is 'scaled'",
        ),
        ({"images": images_of(2)}, "checksum of the synthetic images at the start"),
        ({"classes": CLASSES.flip(0)}, "classes = "),
        ({"experts": experts_of(2)}, "experts = 3; here it is 2"),
        ({"experts": experts_of(rate=0.1)}, "experts.rate = 0.2; here it is 0.1"),
        ({"experts": experts_of(data=real(1))}, "experts.checksum of the real images"),
        (
            {"experts": experts_of(network=FlatNetwork(perceptron((6, 5, 3))))},
            "experts.network = ",
        ),
        (
            {"experts": replace(EXPERTS, snapshots=EXPERTS.snapshots * 1.001)},
            "checksum of the experts = ",
        ),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused(tmp_path, change, message):
    path, run = tmp_path / "run.pt", made()
    list(run.advance(2))
    run.save(path)
    other = made(**change)
    before = other._state
    with pytest.raises(ValueError, match=f"run.pt belongs to .*{message}"):
        other.resume(path)
    with pytest.raises(ValueError, match=f"run.pt belongs to .*{message}"):
        other.run(path)
    assert other._state is before


def test_the_settings_of_a_pool_count(tmp_path):
    path = tmp_path / "run.pt"
    made(QUICK).save(path)
    with pytest.raises(ValueError, match="pool.threshold = 1.0; here it is 2.0"):
        made(replace(QUICK, threshold=2.0)).resume(path)
    rises = replace(QUICK, rise=math.inf)
    made(rises).save(path)
    made(rises).resume(path)


def test_numbers_of_numpy_go_into_a_checkpoint_and_come_back(tmp_path):
    def numpy_run():
        pool = SelfAdaptive(np.int64(1), np.int64(3), np.float64(1.0), floor=np.float64(0.5))
        kinds = {"steps": np.int64(2), "image_rate": np.float64(5.0), "seed": np.int64(0)}
        return made(pool, **kinds, iterations=np.int32(4))

    path, run = tmp_path / "run.pt", numpy_run()
    list(run.advance(2))
    run.save(path)
    again = numpy_run()
    again.resume(path)
    assert again.step == 2 and torch.equal(again.images, run.images)


@pytest.mark.parametrize("content", [{"step": 5}, [1, 2]])
def test_a_file_that_is_no_checkpoint_changes_nothing(tmp_path, content):
    path, run = tmp_path / "run.pt", made()
    torch.save(content, path)
    before = run._state
    with pytest.raises(ValueError, match="run.pt holds something else; accepted is a checkpoint"):
        run.resume(path)
    assert run._state is before


def test_a_folder_that_is_missing_is_noticed_before_the_first_iteration(tmp_path):
    run = made()
    with pytest.raises(FileNotFoundError, match="accepted is a file in a folder that exists"):
        run.run(tmp_path / "missing" / "run.pt")
    assert run.step == 0


# Numbers that are not finite


@pytest.mark.parametrize("part", ["loss", "gradients", "log_rate"])
def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path, monkeypatch, part):
    run, path = made(), tmp_path / "run.pt"
    good = trajectory_distillation.match

    def spoilt(*arguments):
        found = good(*arguments)
        value = getattr(found, part)
        bad = tuple(v * torch.nan for v in value) if part == "gradients" else value * torch.inf
        return found._replace(**{part: bad}) if run.step == 7 else found

    monkeypatch.setattr(trajectory_distillation, "match", spoilt)
    with pytest.raises(FloatingPointError) as error:
        run.run(path, every=5)
    message = str(error.value)
    assert "the gradient of iteration 7 (expert " in message
    assert f"the last checkpoint is step 5 in {path}" in message
    assert run.step == len(run.records) == 7 and run.images.isfinite().all()
    path.unlink()
    run.settings = replace(run.settings, iterations=8)
    with pytest.raises(FloatingPointError, match=r"the last checkpoint is none$"):
        run.run()


def test_a_probe_that_is_not_finite_stops_the_run(monkeypatch):
    run = made(QUICK)
    monkeypatch.setattr(
        trajectory_distillation, "probe", lambda *_: torch.tensor(torch.inf).double()
    )
    before = run._state
    with pytest.raises(FloatingPointError, match="the probe of iteration 0"):
        list(run.advance())
    assert run._state is before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {
                "image_rate": 1e308,
                "images": images_of().float(),
                "experts": experts_of(data=(real()[0].float(), real()[1])),
            },
            "an image after iteration 0",
        ),
        ({"log_alpha_rate": 1e6}, "log alpha after iteration .* no logarithm of a number"),
        ({"alpha": 1e200, "steps": 9}, "the gradient of iteration 0"),
    ],
)
def test_steps_that_lead_beyond_all_numbers_stop_the_run(change, message):
    run = made(**change)
    with pytest.raises(FloatingPointError, match=message):
        run.run()
    assert run.images.isfinite().all() and run.step == len(run.records)


# Bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: made(steps=0), "steps is 0; accepted is an integer from 1"),
        (lambda: made(distance=0), "distance is 0"),
        (lambda: made(distance=6), "distance is 6; accepted is an integer from 1 to 5"),
        (lambda: made(image_rate=0.0), "image_rate is 0.0"),
        (lambda: made(image_rate=-1.0), "image_rate is -1.0"),
        (lambda: made(QUICK, image_rate=3.0), "image_rate is 3; .* above the floor of the pool"),
        (lambda: made(momentum=1.0), "momentum is 1.0"),
        (lambda: made(alpha=-0.1), "alpha is -0.1"),
        (lambda: made(alpha=1e-320), "alpha is .*; accepted is a number that torch.float64 holds"),
        (lambda: made(log_alpha_rate=-0.1), "log_alpha_rate is -0.1"),
        (lambda: made(alphas="many"), "alphas is 'many'; accepted are 'one', 'each epoch'"),
        (lambda: made(gradient="fast"), "gradient is 'fast'; accepted are 'exact', 'without hess"),
        (lambda: made(start="first"), "start is 'first'; accepted are 'cycle', 'uniform'"),
        (lambda: made(iterations=0), "iterations is 0"),
        (lambda: made(per_class=0), "per_class is 0"),
        (lambda: made(per_class=3), "per_class is 3; accepted is an integer from 1 to 2"),
        (lambda: made(seed=-1), "seed is -1"),
        (lambda: made(augmentation="scaled"), "augmentation is 'scaled' and augment None"),
        (lambda: made(augment=scaled), "augmentation is None and augment <function scaled"),
        (lambda: made(Fixed(6)), "epochs of the pool is 6; accepted is an integer from 1 to 5"),
        (lambda: made(Fixed(4), distance=3), "epochs of the pool is 4; .* from 1 to 3"),
        (lambda: made(Growing(1, 6, 9)), "last of the pool is 6"),
        (lambda: made(replace(QUICK, last=5)), "last of the pool is 5; .* from 1 to 4"),
        (lambda: made(replace(QUICK, panel=4)), "panel is 4; accepted is an integer from 0 to 3"),
        (lambda: made(images=images_of().float()), "images are torch.float32"),
        (lambda: made(images=images_of()[:, :5]), r"accepted are .*real ones, torch.float64 \('n'"),
        (lambda: made(images=images_of()[:0], classes=CLASSES[:0]), "at least one"),
        (lambda: made(images=images_of() * torch.nan), "images holds 36 elements"),
        (lambda: made(classes=CLASSES[:5]), r"accepted is int64 \[6\], one for each"),
        (lambda: made(classes=CLASSES.double()), "classes are torch.float64"),
        (lambda: made(classes=CLASSES + 1), "labels lie from 1 to 3; accepted is 0 to 2"),
        (lambda: made(classes=CLASSES.to("meta")), "classes is on meta"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Settings(5, 3), "pool is a int; accepted is Fixed, Growing or SelfAdaptive"),
        (lambda: made(experts=EXPERTS.snapshots), "experts is a Tensor; accepted are Experts"),
        (
            lambda: TrajectoryDistillation(EXPERTS, images_of(), CLASSES, 4),
            "settings is a int; accepted is a Settings",
        ),
    ],
)
def test_other_kinds_are_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_an_expert_that_did_not_move_is_refused():
    still = EXPERTS.snapshots[:, :1].repeat(1, 6, 1)
    experts = Experts(NETWORK, still, EXPERTS.dtype, EXPERTS.configuration)
    with pytest.raises(ValueError, match="accepted are two snapshots of an expert that moved"):
        list(made(experts=experts).advance())
