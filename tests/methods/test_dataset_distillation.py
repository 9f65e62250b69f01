"""Distillation: windows and their coverage, one outer step by hand, resuming, sets, evaluation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.nn import functional as F

from kempe_nb.methods import dataset_distillation
from kempe_nb.methods.augmentation import flip_or_rotate, inner_batches
from kempe_nb.methods.coresets import count_classes, herding, k_means, noise, real_images
from kempe_nb.methods.dataset_distillation import Distillation, Settings
from kempe_nb.methods.ensembles import accuracies, train
from kempe_nb.methods.optimisers import SGD, Adam
from kempe_nb.methods.truncation import Truncation
from kempe_nb.methods.unrolled import meta_gradient_by_autograd
from kempe_nb.methods.whitening import ZCA
from kempe_nb.networks.convnet import convnet
from kempe_nb.networks.flat import FlatNetwork
from kempe_nb.networks.perceptron import perceptron

NETWORK = FlatNetwork(perceptron((16, 8, 3)))
RAT = Truncation(6, 2)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def real(count=60, seed=0):
    """Return images [count, 1, 4, 4] of three classes that a network can tell apart."""
    y = torch.arange(count) % 3
    means = 2 * torch.randn(3, 1, 4, 4, generator=generator(99))
    return means[y] + torch.randn(count, 1, 4, 4, generator=generator(seed)), y


def made(truncation=RAT, images_per_class=2, rates=None, network=NETWORK, **more):
    """Return a distillation of the small problem."""
    x, y = real()
    start = noise((1, 4, 4), 3, images_per_class, generator())
    more = {"inner": Adam(0.01), "outer_lr": 0.1, "outer_steps": 20, "real_batch": 30} | more
    return Distillation(network, x, y, *start, Settings(truncation, **more), rates)


# Windows


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32), st.integers(0, 50))
@settings(deadline=None)
def test_draws_of_every_placement(one, other, seed, step):
    unroll, window = max(one, other), min(one, other)

    def draw(placement, **more):
        return Truncation(unroll, window, placement, **more).draw(seed, step, 51)

    assert draw("full") == (unroll, unroll)
    assert draw("last") == (unroll, window)
    drawn, same = draw("random length")
    assert drawn == same and window <= drawn <= unroll
    assert draw("random") == (drawn, window)
    first = (unroll - window) // 2
    assert draw("fixed", first=first) == (first + window, window)
    moved, same = draw("moving")
    assert same == window and window <= moved <= unroll


def test_a_random_window_is_uniform_and_held():
    draws = [Truncation(10, 4).draw(0, step, 1)[0] for step in range(3500)]
    counts = np.bincount(draws, minlength=11)[4:]
    # Seven ends, 500 draws each on average; five standard errors.
    assert counts.sum() == 3500 and np.abs(counts - 500).max() < 5 * math.sqrt(500 * 6 / 7)
    held = [Truncation(10, 4, hold=25).draw(3, step, 1) for step in range(100)]
    assert all(held[k] == held[k - k % 25] for k in range(100)) and len(set(held)) > 1
    assert Truncation(10, 4).draw(0, 5, 1) == Truncation(10, 4).draw(0, 5, 999)


@given(st.integers(1, 30), st.integers(1, 30))
@settings(deadline=None)
def test_coverage_is_the_trapezoid_of_the_formula(one, other):
    unroll, window = max(one, other), min(one, other)
    step = np.arange(unroll)
    expected = (np.minimum(unroll, step + window) - np.maximum(window, step + 1) + 1) / (
        unroll - window + 1
    )
    np.testing.assert_allclose(Truncation(unroll, window).coverage(), expected, atol=1e-12)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 5))
@settings(deadline=None)
def test_a_moving_window_stays_as_long_at_every_end(one, other, times):
    unroll, window = max(one, other), min(one, other)
    moving, ends = Truncation(unroll, window, "moving"), range(window, unroll + 1)
    steps = times * len(ends)
    found = [moving.draw(0, step, steps)[0] for step in range(steps)]
    assert found == [end for end in ends for _ in range(times)]
    # Behind the last step it stays at the end.
    assert moving.draw(0, steps + 7, steps) == (unroll, window)


@pytest.mark.parametrize(
    "placement", ["full", "last", "random length", "random", "fixed", "moving"]
)
def test_coverage_is_how_often_a_step_is_gone_back_through(placement):
    truncation = Truncation(9, 3, placement, first=2 if placement == "fixed" else 0)
    hits = np.zeros(9)
    for step in range(2000):
        end, length = truncation.draw(1, step, 2000)
        hits[end - length : end] += 1
    np.testing.assert_allclose(hits / 2000, truncation.coverage(), atol=5 * 0.5 / math.sqrt(2000))


# An outer step


def test_the_first_step_is_adam_along_the_meta_gradient():
    run = made(clip=None)
    before, gradient = run.images.clone(), run.meta_gradient().gradients[0]
    (record,) = run.advance()
    theirs = before.clone().requires_grad_()
    theirs.grad = gradient
    torch.optim.Adam([theirs], 0.1).step()
    torch.testing.assert_close(run.images, theirs.detach())
    assert (record.step, record.clipped, record.window) == (0, 1.0, 2)
    assert record.norm == pytest.approx(gradient.norm().item())


def test_the_meta_gradient_is_that_of_autograd_on_the_batch_of_the_step():
    run = made(real_batch=200)
    run.network = FlatNetwork(perceptron((16, 8, 3)))
    run.parameters[0], run._labels = run.images.double(), run.labels.double()
    run.x = run.x.double()
    made_ = run.meta_gradient(3, 5, 4)
    rng = np.random.default_rng([0, 3, 2])
    chosen = torch.from_numpy(rng.integers(60, size=200))
    seed = int(np.random.default_rng([0, 3, 1]).integers(2**63))
    theta = run.network.initial(generator(seed), dtype=torch.float64)
    expected = meta_gradient_by_autograd(
        *(run.loss, run.loss.on(run.x[chosen], run.y[chosen])),
        *((run.images, run.labels), theta, Adam(0.01), 5, 4),
    )
    torch.testing.assert_close(made_.gradients, expected.gradients, rtol=1e-9, atol=1e-14)


def test_steps_draw_their_own_parameters_and_batches():
    run = made()
    one, again = run.meta_gradient(0, 4, 4), run.meta_gradient(0, 4, 4)
    other = run.meta_gradient(1, 4, 4)
    assert torch.equal(one.gradients[0], again.gradients[0])
    assert not torch.equal(one.theta, other.theta)


def drawn(monkeypatch, run, step):
    """Return what outer step `step` draws: parameters, real images, those of two inner steps."""
    seen = []

    def record(inner, outer, synthetic, theta, optimiser, unroll, window, *, batch):
        data = [batch(synthetic, inner_step)[0] for inner_step in (0, 1)]
        seen.extend([theta, outer.data[0], *data])

    monkeypatch.setattr(dataset_distillation, "meta_gradient", record)
    run.meta_gradient(step)
    return [each.clone() for each in seen]


def test_seed_and_step_decide_on_all_that_is_drawn(monkeypatch):
    kinds = {"per_class": 2, "images_per_class": 6}
    first, again, next_step, other_seed = (
        drawn(monkeypatch, made(seed=seed, **kinds), step)
        for seed, step in ((0, 3), (0, 3), (0, 4), (1, 3))
    )
    assert all(map(torch.equal, first, again))
    for other in (next_step, other_seed):
        assert not any(map(torch.equal, first, other))
    assert not torch.equal(first[2], first[3])


def test_real_and_synthetic_batches_are_augmented(monkeypatch):
    kinds = {"per_class": 2, "images_per_class": 6}
    _, *plain = drawn(monkeypatch, made(**kinds), 0)
    _, *changed = drawn(monkeypatch, made(flip_and_rotate=True, **kinds), 0)
    for before, after in zip(plain, changed, strict=True):
        same = (before == after).flatten(1).all(1)
        mirrored = (before == after.flip(3)).flatten(1).all(1)
        assert not same.all()
        # Mirrored or left alone, or else every image is turned.
        assert (same | mirrored).all() or not same.any()


def test_a_run_is_what_torch_makes_of_its_meta_gradients():
    """Clip, rates of images, labels with a rate of their own and without the clip."""
    rates = torch.tensor([0.5, 1.0, 0.5, 1.0, 0.5, 1.0])
    run = made(rates=rates, learn_labels=True, label_lr=0.03, clip=0.9)
    images, labels = run.images.clone(), run.labels.clone()
    theirs = [each[None].clone().requires_grad_() for part in (images, labels) for each in part]
    lrs = [0.1 * rate for rate in rates] + [0.03 * rate for rate in rates]
    groups = [{"params": [p], "lr": float(lr)} for p, lr in zip(theirs, lrs, strict=True)]
    optimiser, mean, cut = torch.optim.Adam(groups), None, 0
    for step in range(12):
        of_images, of_labels = run.meta_gradient(step).gradients
        norm = float(of_images.norm())
        mean = norm if mean is None else 0.9 * mean + 0.1 * norm
        cut += norm > 0.9 * mean
        of_images = of_images * min(1.0, 0.9 * mean / norm)
        for own, gradient in zip(theirs, (*of_images, *of_labels), strict=True):
            own.grad = gradient[None].clone()
        optimiser.step()
        with torch.no_grad():
            for own in theirs[6:]:
                own.clamp_(min=0)
        list(run.advance())
        torch.testing.assert_close(run.images, torch.cat(theirs[:6]).detach())
        torch.testing.assert_close(run.labels, torch.cat(theirs[6:]).detach())
    assert 3 < cut < 12


def test_the_images_of_the_caller_stay_as_they_are():
    x, y = real()
    images, classes = noise((1, 4, 4), 3, 2, generator())
    before = images.clone(), x.clone()
    run = Distillation(NETWORK, x, y, images, classes, Settings(RAT, outer_lr=0.1, clip=0.1))
    list(run.advance(3))
    assert torch.equal(images, before[0]) and torch.equal(x, before[1])
    run = Distillation(NETWORK, x, y, images, classes, Settings(RAT, outer_lr=0.1, clip=0.1))
    images.zero_()
    assert torch.equal(run.images, before[0])


def test_two_sweeps_over_the_steps_take_no_more_than_there_are():
    run = made(outer_steps=4)
    first = run.advance(4)
    next(first)
    assert len(list(run.advance(4))) == 3
    assert list(first) == [] and run.step == 4


def test_an_interruption_leaves_a_step_done_or_not_begun(monkeypatch):
    run = made(learn_labels=True)
    list(run.advance(2))
    before = [each.clone() for each in run.parameters]
    moments = [each.clone() for pair in run.moments for each in pair]
    calls = []

    def interrupted(self, theta, slots, gradient, step):
        calls.append(step)
        if len(calls) == 2:  # the images have been moved, the labels have not
            raise KeyboardInterrupt
        return theta + 1, slots

    meta = run.meta_gradient()
    monkeypatch.setattr(run, "meta_gradient", lambda step: meta)
    monkeypatch.setattr(Adam, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(run.advance())
    assert run.step == 2
    assert all(map(torch.equal, run.parameters, before))
    assert all(map(torch.equal, [each for pair in run.moments for each in pair], moments))


def test_clipping_takes_the_new_norm_into_its_mean_first():
    """So a spike k times the mean is cut for k > 2.25, to (1.8 + 0.2 k) times the mean."""
    run = made(outer_steps=400)
    mean, cut = None, 0
    for record in run.advance(400):
        mean = record.norm if mean is None else 0.9 * mean + 0.1 * record.norm
        assert record.clipped == pytest.approx(min(1.0, 2 * mean / record.norm), rel=1e-5)
        cut += record.clipped < 1
    assert run.mean_norm == pytest.approx(mean)
    assert 0 < cut < 200


def test_distilling_lowers_the_loss_of_networks_trained_on_the_images():
    run = made(outer_steps=150, decay=True)
    x, y = run.x, run.y
    thetas = NETWORK.initial(generator(1), 10)
    start = run.images.clone()

    def accuracy(images):
        (trained,) = train(NETWORK, images, run.labels, thetas, Adam(0.01), [6])
        return accuracies(NETWORK, trained, x, y).mean()

    list(run.advance(150))
    assert accuracy(run.images) > accuracy(start) + 0.2
    assert not list(run.advance())


def test_learned_labels_start_one_hot_and_stay_non_negative():
    run = made(learn_labels=True, label_lr=0.5)
    assert torch.equal(run.labels, F.one_hot(run.classes, 3).float())
    list(run.advance(20))
    assert (run.labels >= 0).all() and not torch.equal(run.labels, run._labels)
    fixed = made(learn_labels=False)
    assert not fixed.labels.requires_grad
    list(fixed.advance(3))
    assert torch.equal(fixed.labels, F.one_hot(fixed.classes, 3).float())


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_boosting_slows_old_images_or_keeps_their_bits(beta):
    """The step is scaled: a scaled gradient would change nothing under Adam."""
    rates = torch.tensor([beta, 1.0, beta, 1.0, beta, 1.0])
    run = made(rates=rates, clip=None)
    start = run.images.clone()
    (_,) = run.advance()
    moved = (run.images - start).abs().amax((1, 2, 3))
    # The first step of Adam moves every pixel by its rate.
    torch.testing.assert_close(moved, 0.1 * rates, rtol=1e-3, atol=1e-7)
    list(run.advance(10))
    assert torch.equal(run.images[::2], start[::2]) == (beta == 0)


def test_the_rate_falls_along_half_a_cosine():
    run = made(decay=True, outer_steps=4, clip=None)
    sizes = []
    for _ in range(4):
        before = run.images.clone()
        moments = [m.clone() for m in run.moments[0]]
        gradient = run.meta_gradient().gradients[0]
        list(run.advance())
        step, _ = Adam(1.0).step(0 * before, tuple(moments), gradient, run.step)
        sizes.append(float((run.images - before).norm() / step.norm()))
    expected = [0.1 * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)]
    assert sizes == pytest.approx(expected, rel=1e-4)


# Runs that are interrupted


def test_an_interrupted_run_goes_on_with_the_same_bits(tmp_path):
    kinds = {"learn_labels": True, "decay": True, "per_class": 1}
    whole = made(**kinds)
    whole.run()
    path = tmp_path / "run.pt"
    interrupted = made(**kinds)

    class Stop(Exception):
        pass

    def stop(record):
        if record.step == 12:
            raise Stop

    with pytest.raises(Stop):
        interrupted.run(path, every=5, on_step=stop)
    again = made(**kinds)
    again.run(path, every=5)
    assert again.step == 20
    for one, other in zip(again.parameters, whole.parameters, strict=True):
        assert torch.equal(one, other)
    # A run that is finished does nothing.
    finished = made(**kinds)
    finished.run(path, on_step=stop)
    assert torch.equal(finished.images, whole.images)
    assert [each.name for each in tmp_path.iterdir()] == ["run.pt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inner": SGD(0.1)}, r"a run with inner = 'Adam.*; this one has 'SGD"),
        ({"truncation": Truncation(7, 2)}, "truncation.unroll = 6; this one has 7"),
        ({"seed": 1}, "seed = 0; this one has 1"),
        ({"outer_lr": 0.2}, "outer_lr = 0.1; this one has 0.2"),
        (
            {"rates": torch.tensor([0.0, 1, 1, 1, 1, 1])},
            r"rates = \[1.0, 1.0.*; this one has \[0.0",
        ),
        ({"images_per_class": 3}, r"synthetic images = \[6, 1, 4, 4\]; this one has \[9, "),
        ({"network": FlatNetwork(perceptron((16, 9, 3)))}, "parameters of the network = 163"),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused(tmp_path, change, message):
    path = tmp_path / "run.pt"
    run = made()
    list(run.advance(2))
    run.save(path)
    other = made(**change)
    before = other.images.clone()
    with pytest.raises(ValueError, match=message):
        other.resume(path)
    assert other.step == 0 and torch.equal(other.images, before)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: run.y.__setitem__(0, 1), "checksum of the real images and classes"),
        (lambda run: run.x.mul_(1.001), "checksum of the real images and classes"),
        (
            lambda run: setattr(
                run, "network", FlatNetwork(perceptron((16, 8, 3), activation=torch.nn.Tanh))
            ),
            "network = ",
        ),
        (
            lambda run: setattr(run, "classes", run.classes.flip(0)),
            r"classes = \[0, 0, 1, 1, 2, 2\]",
        ),
        (
            lambda run: run.network.module.register_buffer("scale", torch.ones(1)),
            "checksum of the network's buffers",
        ),
    ],
)
def test_a_checkpoint_knows_its_data_and_its_architecture(tmp_path, spoil, message):
    path = tmp_path / "run.pt"
    made().save(path)
    other = made(network=FlatNetwork(NETWORK.module))
    spoil(other)
    with pytest.raises(ValueError, match=message):
        other.resume(path)


def test_a_checkpoint_knows_where_it_started(tmp_path):
    """With frozen images of another start, resuming would exchange them."""
    path, rates = tmp_path / "run.pt", torch.tensor([0.0, 1.0] * 3)
    made(rates=rates).save(path)
    x, y = real()
    start = noise((1, 4, 4), 3, 2, generator(7))
    run = made(rates=rates)
    other = Distillation(NETWORK, x, y, *start, run.settings, rates)
    with pytest.raises(ValueError, match="checksum of the synthetic images at the start"):
        other.run(path)
    assert torch.equal(other.images, start[0])


def test_numbers_of_numpy_go_into_a_checkpoint_and_come_back(tmp_path):
    def numpy_run():
        truncation = Truncation(np.int64(6), np.int32(2), hold=np.int64(1))
        kinds = {"outer_steps": np.int64(20), "outer_lr": np.float64(0.1), "seed": np.int64(0)}
        return made(truncation, **kinds, decay=np.bool_(True))

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
    before = run.images.clone()
    with pytest.raises(ValueError, match=r"run.pt holds something else; accepted is a checkpoint"):
        run.resume(path)
    assert run.step == 0 and torch.equal(run.images, before)


def test_a_folder_that_is_missing_is_noticed_before_the_first_step(tmp_path):
    run = made()
    with pytest.raises(FileNotFoundError, match="accepted is a file in a folder that exists"):
        run.run(tmp_path / "missing" / "run.pt")
    assert run.step == 0


def test_the_last_step_is_saved_whatever_the_pace(tmp_path):
    path = tmp_path / "run.pt"
    made(outer_steps=7).run(path, every=5)
    again = made(outer_steps=7)
    again.resume(path)
    assert again.step == 7


def test_a_meta_gradient_that_is_not_finite_stops_the_run(tmp_path):
    run = made()
    path = tmp_path / "run.pt"

    def spoil(record):
        if record.step == 6:
            run.x[:] = torch.nan

    with pytest.raises(FloatingPointError) as error:
        run.run(path, every=5, on_step=spoil)
    message = str(error.value)
    assert "outer step 7 (N = " in message and f"the last checkpoint is step 5 in {path}" in message
    assert run.step == 7 and run.images.isfinite().all()
    good = made()
    good.resume(path)
    assert good.step == 5 and good.images.isfinite().all()
    path.unlink()
    with pytest.raises(FloatingPointError, match=r"the last checkpoint is none$"):
        run.run(path)
    assert not path.exists()


@pytest.mark.parametrize("part", ["loss", "labels"])
def test_labels_and_loss_that_are_not_finite_stop_the_run(monkeypatch, part):
    run = made(learn_labels=True)
    good = run.meta_gradient()
    bad = {
        "loss": good._replace(outer_loss=torch.tensor(torch.inf)),
        "labels": good._replace(gradients=(good.gradients[0], good.gradients[1] * torch.nan)),
    }[part]
    monkeypatch.setattr(run, "meta_gradient", lambda step: bad)
    before = run.images.clone()
    with pytest.raises(FloatingPointError, match="outer step 0"):
        list(run.advance())
    assert run.step == 0 and torch.equal(run.images, before)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    run, path = made(), tmp_path / "run.pt"
    run.save(path)
    before = path.read_bytes()

    def fail(state, place):
        place.write_bytes(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="full"):
        run.save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


# Batches


def test_batches_take_so_many_of_each_class_and_the_same_again():
    classes = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
    images = torch.arange(8.0).view(8, 1, 1, 1)
    batch = inner_batches(classes, per_class=2, seed=[5])
    seen = set()
    for step in range(30):
        chosen, own = batch((images, classes), step)
        assert own.tolist() == [0, 0, 1, 1, 2, 2]
        assert len(set(chosen.flatten().tolist())) == 6
        assert torch.equal(chosen, batch((images, classes), step)[0])
        seen |= set(chosen.flatten().tolist())
    assert seen == set(range(8))


def test_mirrors_and_rotations():
    images = torch.randn(40, 2, 9, 9, generator=generator())
    kinds = set()
    for seed in range(12):
        out = flip_or_rotate(images, np.random.default_rng(seed))
        same = (out == images).flatten(1).all(1)
        mirrored = (out == images.flip(3)).flatten(1).all(1)
        if same.any():
            kinds.add("mirror")
            assert (same ^ mirrored).all() and 5 < same.sum() < 35
        else:
            kinds.add("rotation")
            # The middle pixel stays where it is.
            torch.testing.assert_close(out[..., 4, 4], images[..., 4, 4], rtol=1e-4, atol=1e-4)
    assert kinds == {"mirror", "rotation"}


def test_a_rotation_turns_by_its_angle():
    class Fixed:
        def random(self):
            return 0.9

        def uniform(self, low, high, count):
            return np.full(count, 90.0)

    image = torch.arange(9.0).view(1, 1, 3, 3)
    found = flip_or_rotate(image, Fixed())
    torch.testing.assert_close(found, torch.rot90(image, 1, (2, 3)), rtol=1e-4, atol=1e-4)


def test_a_rotation_does_not_depend_on_the_shape_of_the_image():
    """A wide image turns as it does in the middle of a square one."""
    wide = torch.randn(5, 1, 9, 33, generator=generator(), dtype=torch.float64)
    square = F.pad(wide, (0, 0, 12, 12))
    seed = next(s for s in range(20) if np.random.default_rng(s).random() >= 0.5)
    one, other = (flip_or_rotate(each, np.random.default_rng(seed)) for each in (wide, square))
    torch.testing.assert_close(one, other[:, :, 12:-12])
    assert not torch.allclose(one, wide)


def test_distillation_with_augmentation_of_images_of_three_colours():
    x = torch.randn(12, 3, 8, 8, generator=generator())
    y = torch.arange(12) % 2
    network = FlatNetwork(convnet((3, 8, 8), 2, width=4, depth=2))
    start = noise((3, 8, 8), 2, 3, generator())
    kinds = Settings(RAT, per_class=2, flip_and_rotate=True, outer_steps=5, real_batch=6)
    run = Distillation(network, x, y, *start, kinds)
    records = list(run.advance(5))
    assert len(records) == 5 and all(math.isfinite(r.norm) and r.norm > 0 for r in records)


# Sets


def test_noise_has_norm_one_and_every_class():
    images, classes = noise((1, 5, 5), 4, 3, generator(), dtype=torch.float64)
    torch.testing.assert_close(images.flatten(1).norm(dim=1), torch.ones(12).double())
    assert torch.bincount(classes).tolist() == [3] * 4


def test_real_images_are_real_and_not_repeated():
    x, y = real()
    images, classes = real_images(x, y, 5, np.random.default_rng(0))
    rows = {tuple(each.flatten().tolist()): c for each, c in zip(x, y.tolist(), strict=True)}
    found = [tuple(each.flatten().tolist()) for each in images]
    assert len(set(found)) == 15
    assert [rows[each] for each in found] == classes.tolist()
    everything, _ = real_images(x, y, 20, np.random.default_rng(0))
    assert len(everything) == 60


def test_whitening_leaves_what_the_formula_says():
    rng = generator()
    mixing = torch.randn(12, 12, generator=rng, dtype=torch.float64)
    images = (torch.randn(500, 12, generator=rng).double() @ mixing).view(500, 3, 2, 2)
    whitening = ZCA(images)
    white = whitening(images).flatten(1)
    flat = F.normalize(images.flatten(1) - images.flatten(1).mean(1, keepdim=True), dim=1)
    values = torch.linalg.eigvalsh(flat.T @ flat / 500)
    expected = values / (values + 0.1 * values.mean())
    found = torch.linalg.eigvalsh(white.T @ white / 500)
    torch.testing.assert_close(found, expected.sort().values, rtol=1e-8, atol=1e-10)
    seen = whitening.visible(whitening(images)).flatten(1)
    torch.testing.assert_close(seen, flat, rtol=1e-8, atol=1e-10)
    # Brightness and contrast of an image do not matter.
    torch.testing.assert_close(whitening(3 * images + 5), whitening(images))


def test_one_centre_is_the_mean_and_many_lie_closer():
    x, y = real()
    centres, _ = k_means(x, y, 1, np.random.default_rng(0))
    torch.testing.assert_close(centres, torch.stack([x[y == c].mean(0) for c in range(3)]))
    spread = []
    for count in (1, 4):
        centres, classes = k_means(x, y, count, np.random.default_rng(0))
        own = x[y == 0].flatten(1)
        spread.append(torch.cdist(own, centres[classes == 0].flatten(1)).amin(1).square().sum())
    assert spread[1] < spread[0]


@given(st.integers(1, 6), st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_herding_is_greedy(per_class, seed):
    x, y = real(21, seed)
    images, classes = herding(x, y, per_class)
    for c in range(3):
        own, chosen = x[y == c].flatten(1), images[classes == c].flatten(1)
        best = min(
            (((chosen[:-1].sum(0) + each) / per_class - own.mean(0)).square().sum().item())
            for each in own
            if not any(torch.equal(each, before) for before in chosen[:-1])
        )
        found = (chosen.mean(0) - own.mean(0)).square().sum().item()
        assert found == pytest.approx(best, rel=1e-4, abs=1e-9)


# Evaluation


@pytest.mark.parametrize("optimiser", [SGD(0.1, 0.9), Adam(0.01)], ids=str)
def test_networks_trained_at_once_are_those_trained_one_by_one(optimiser):
    x, y = real()
    labels = F.one_hot(y, 3).float()
    thetas = NETWORK.initial(generator(), 3)
    two, five = train(NETWORK, x, labels, thetas, optimiser, [2, 5])
    theta = thetas[1].clone().requires_grad_()
    kind = torch.optim.SGD([theta], 0.1, momentum=0.9)
    theirs = kind if isinstance(optimiser, SGD) else torch.optim.Adam([theta], 0.01)
    for step in range(5):
        theirs.zero_grad()
        F.cross_entropy(NETWORK(theta, x), labels).backward()
        theirs.step()
        if step == 1:
            torch.testing.assert_close(two[1], theta.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(five[1], theta.detach(), rtol=1e-4, atol=1e-5)


def test_each_network_may_have_a_set_of_its_own():
    x, y = real()
    labels = F.one_hot(y, 3).float()
    thetas = NETWORK.initial(generator(), 2)
    sets = torch.stack([x[:30], x[30:]]), torch.stack([labels[:30], labels[30:]])
    (both,) = train(NETWORK, *sets, thetas, Adam(0.01), [4])
    (second,) = train(NETWORK, x[30:], labels[30:], thetas[1:], Adam(0.01), [4])
    torch.testing.assert_close(both[1], second[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="images hold 2 sets and thetas 3 networks"):
        train(NETWORK, *sets, NETWORK.initial(generator(), 3), Adam(0.01), [4])
    with pytest.raises(ValueError, match=r"checkpoints are \[4, 2\]"):
        train(NETWORK, *sets, thetas, Adam(0.01), [4, 2])


def test_accuracy_counts_right_answers():
    x, y = real()
    thetas = NETWORK.initial(generator(), 3)
    found = accuracies(NETWORK, thetas, x, y, chunk=7)
    for theta, accuracy in zip(thetas, found, strict=True):
        expected = (NETWORK(theta, x).argmax(1) == y).double().mean()
        assert accuracy == pytest.approx(float(expected), abs=1e-12)


# Bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Truncation(5, 6), "window is 6 and unroll 5"),
        (lambda: Truncation(0, 1), "unroll is 0"),
        (lambda: Truncation(5, -1), "window is -1"),
        (lambda: Truncation(5, 2, "later"), "placement is 'later'; accepted are 'full', 'last'"),
        (lambda: Truncation(5, 2, "fixed", first=4), "first is 4; accepted is an integer from 0"),
        (lambda: Truncation(5, 2, hold=0), "hold is 0"),
        (lambda: Settings(RAT, outer_steps=0), "outer_steps is 0"),
        (lambda: Settings(RAT, outer_lr=-1.0), "outer_lr is -1.0"),
        (lambda: Settings(RAT, clip=0.0), "clip is 0.0"),
        (lambda: Settings(RAT, seed=-1), "seed is -1"),
        (
            lambda: flip_or_rotate(torch.zeros(2, 3, 1, 4, 4), np.random.default_rng(0)),
            r"images have shape \(2, 3, 1, 4, 4\); accepted is \[N, C, H, W\]",
        ),
        (
            lambda: train(
                *(NETWORK, torch.zeros(2, 3, 16), torch.zeros(2, 3, 3), torch.zeros(2, 163)),
                *(SGD(0.1), [1]),
                batch=lambda data, step: data,
            ),
            "batch is given for a set for each network",
        ),
        (
            lambda: accuracies(NETWORK, torch.zeros(1, 163), torch.zeros(4, 16), torch.zeros(1)),
            "x has 4 images and y 1 classes",
        ),
        (
            lambda: count_classes(torch.zeros(3, 1), torch.tensor([-1, 0, 1])),
            "classes -1 to 1; acc",
        ),
        (lambda: made(rates=torch.full((6,), 1e300, dtype=torch.float64)), "rates are"),
        (lambda: Settings(RAT, per_class=0), "per_class is 0"),
        (
            lambda: made().meta_gradient(0, unroll=5),
            "unroll is 5 and window None; accepted are both",
        ),
        (lambda: made().meta_gradient(0, window=5), "unroll is None and window 5"),
        (
            lambda: made(network=FlatNetwork(perceptron((16, 8, 4)))),
            r"network makes \(1, 4\) of one image and y has 3 classes; accepted is \(1, 3\)",
        ),
        (lambda: made(rates=torch.ones(5)), "accepted is a number from 0 on for each of the 6"),
        (lambda: made(rates=-torch.ones(6)), "accepted is a number from 0 on"),
        (lambda: noise((1, 2, 2), 3, 0, generator()), "per_class is 0"),
        (
            lambda: real_images(*real(), 21, np.random.default_rng(0)),
            "per_class is 21, and class 0 has 20 images; accepted is at most the size",
        ),
        (lambda: herding(*real(), 99), "per_class is 99, and class 0 has 20 images"),
        (lambda: k_means(*real(), 99, np.random.default_rng(0)), "per_class is 99"),
        (
            lambda: count_classes(torch.zeros(3, 1), torch.tensor([0, 1, 3])),
            r"no image of \[2\]; accepted are classes from 0 on",
        ),
        (lambda: count_classes(torch.zeros(3, 1), torch.zeros(3)), "y is torch.float32"),
        (lambda: count_classes(torch.zeros(0, 1), torch.zeros(0).long()), "at least one image"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_kinds_and_devices_that_do_not_fit_are_refused():
    with pytest.raises(TypeError, match="truncation is a tuple; accepted is a Truncation"):
        Settings((6, 2))
    x, y = real()
    start = noise((1, 4, 4), 3, 1, generator())
    with pytest.raises(ValueError, match="x is torch.int64; accepted are floating-point images"):
        Distillation(NETWORK, x.long(), y, *start, Settings(RAT))
    with pytest.raises(ValueError, match="y is on meta.*accepted are tensors on one device"):
        Distillation(NETWORK, x, y.to("meta"), *start, Settings(RAT))


@pytest.mark.parametrize(
    ("images", "classes", "more", "message"),
    [
        (torch.zeros(3, 1, 4, 5), [0, 1, 2], {}, "accepted are images like the real ones"),
        (torch.zeros(3, 1, 4, 4).double(), [0, 1, 2], {}, "accepted are images like the real"),
        (torch.zeros(3, 1, 4, 4), [0, 1], {}, r"accepted is int64 \[3\]"),
        (torch.zeros(3, 1, 4, 4), [0, 1, 3], {}, "and classes from 0 to 2"),
        (torch.zeros(3, 1, 4, 4), [0, 1, 2], {"per_class": 2}, "a class has 1 synthetic images"),
    ],
)
def test_synthetic_sets_that_do_not_fit_are_refused(images, classes, more, message):
    with pytest.raises(ValueError, match=message):
        Distillation(NETWORK, *real(), images, torch.tensor(classes), Settings(RAT, **more))
