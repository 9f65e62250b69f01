"""Experts: plain descent as PyTorch has it, draws of their own, snapshots, files."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from kempe_nb.methods import checkpoints, expert_trajectories
from kempe_nb.methods.ensembles import accuracies
from kempe_nb.methods.expert_trajectories import Experts, Training, train_experts
from kempe_nb.networks.convnet import convnet
from kempe_nb.networks.flat import FlatNetwork
from kempe_nb.networks.perceptron import perceptron

NETWORK = FlatNetwork(perceptron((16, 8, 3)))
TRAINING = Training(4, rate=0.1, batch=16)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def real(count=40, seed=0, dtype=torch.float32):
    """Return images [count, 1, 4, 4] of three classes that a network can tell apart."""
    y = torch.arange(count) % 3
    means = 2 * torch.randn(3, 1, 4, 4, generator=generator(99), dtype=dtype)
    noise = torch.randn(count, 1, 4, 4, generator=generator(seed), dtype=dtype)
    return means[y] + noise, y


def shifted(images, rng):
    """Add a number drawn for each image."""
    drawn = torch.as_tensor(rng.normal(size=len(images)), dtype=images.dtype)
    return images + drawn.view(-1, 1, 1, 1)


def trained(training=TRAINING, count=2, network=NETWORK, data=None, **more):
    return train_experts(network, *(data or real()), training, count, **more)


# Training


@pytest.mark.parametrize("augment", [None, shifted])
@pytest.mark.parametrize(
    "module", [perceptron((16, 8, 3)), convnet((1, 4, 4), 3, width=2, depth=1)]
)
def test_an_expert_is_what_torch_trains_by_plain_descent(module, augment):
    x, y = real(dtype=torch.float64)
    name = augment and "shifted"
    training = Training(3, rate=0.1, batch=16, augmentation=name, seed=7)
    network = FlatNetwork(module)
    experts = train_experts(network, x, y, training, 2, augment=augment)
    theirs = copy.deepcopy(module).double()
    vector_to_parameters(experts.snapshots[1, 0], theirs.parameters())
    optimiser = torch.optim.SGD(theirs.parameters(), 0.1)
    for epoch in range(3):
        rng = np.random.default_rng([7, 1, epoch, 5])
        order = rng.permutation(len(x))
        for begin in (0, 16, 32):
            chosen = torch.from_numpy(order[begin : begin + 16])
            images = augment(x[chosen], rng) if augment else x[chosen]
            optimiser.zero_grad()
            F.cross_entropy(theirs(images), y[chosen]).backward()
            optimiser.step()
        found = parameters_to_vector(theirs.parameters())
        torch.testing.assert_close(experts.snapshots[1, epoch + 1], found, rtol=1e-10, atol=1e-12)


@settings(max_examples=25)
@given(st.integers(3, 30), st.integers(1, 30), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_an_epoch_takes_every_image_once(count, batch, epochs, seed):
    x, y = real(count)
    seen = []

    def see(images, rng):
        seen.append(images[:, 0, 0, 0].clone())
        return images

    batch = min(batch, count)
    trained(Training(epochs, 0.01, batch, "see", seed=seed), 1, data=(x, y), augment=see)
    steps = -(-count // batch)
    assert [len(each) for each in seen[: steps - 1]] == [batch] * (steps - 1)
    assert len(seen) == epochs * steps
    orders = [torch.cat(seen[k * steps : (k + 1) * steps]) for k in range(epochs)]
    for order in orders:
        assert torch.equal(order.sort().values, x[:, 0, 0, 0].sort().values)
    if count > 20 and epochs > 1:
        assert not torch.equal(orders[0], orders[1])


def test_an_expert_does_not_depend_on_how_many_are_trained():
    training = Training(3, 0.1, 16, "shifted")
    one, three = (trained(training, count, augment=shifted) for count in (1, 3))
    assert torch.equal(one.snapshots[0], three.snapshots[0])
    initial = three.snapshots[:, 0]
    assert not torch.equal(initial[0], initial[1]) and not torch.equal(initial[1], initial[2])
    other = trained(Training(3, 0.1, 16, "shifted", seed=1), 1, augment=shifted)
    assert not torch.equal(other.snapshots[0, 0], initial[0])


def test_a_longer_training_begins_like_a_shorter_one():
    short, long = trained(Training(2, 0.1, 16)), trained(Training(5, 0.1, 16))
    assert torch.equal(short.snapshots, long.snapshots[:, :3])


def test_experts_of_one_start_draw_their_own_order(monkeypatch):
    monkeypatch.setattr(expert_trajectories, "_seed", lambda *parts: 0)
    first, second = trained().snapshots
    assert torch.equal(first[0], second[0]) and not torch.equal(first[1], second[1])


def test_snapshots_are_copies_that_no_later_epoch_changes():
    experts = trained(count=3)
    ways = (experts.snapshots[:, 1:] - experts.snapshots[:, :-1]).norm(dim=2)
    assert experts.snapshots.shape == (3, 5, NETWORK.size) and (ways > 0).all()


def test_experts_learn():
    x, y = real(300)
    experts = trained(Training(10, 0.1, 16), 5, data=(x, y))
    start, end = (accuracies(NETWORK, experts.at(epoch), x, y) for epoch in (0, 10))
    assert end.min() > 0.9 and end.min() > start.max()


def test_the_caller_s_data_stays_as_it_is():
    x, y = real()
    before = x.clone(), y.clone()
    trained(data=(x, y))
    assert torch.equal(x, before[0]) and torch.equal(y, before[1]) and not x.requires_grad


# Snapshots


def test_pairs_are_snapshots_of_one_expert():
    experts = trained(count=3)
    before, after = experts.pair(2, 1, 3)
    assert torch.equal(before, experts.snapshots[2, 1])
    assert torch.equal(after, experts.snapshots[2, 4])
    assert torch.equal(experts.at(4)[2], after)
    # Writing into what was handed out changes no expert.
    kept = experts.snapshots.clone()
    for each in (before, after, experts.at(4)):
        each.zero_()
    assert torch.equal(experts.snapshots, kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_half_precision_rounds_snapshots_and_nothing_else(dtype):
    data = real(dtype=dtype)
    whole = trained(data=data)
    half = trained(Training(4, 0.1, 16, half=True), data=data)
    assert half.snapshots.dtype == torch.float16 and half.dtype == dtype
    exact = whole.snapshots
    error = (half.snapshots.to(dtype) - exact).abs()
    assert (
        error.max() > 0 and (error <= torch.maximum(2**-11 * exact.abs(), exact * 0 + 2**-25)).all()
    )
    for each in (*half.pair(1, 2), half.at(0)):
        assert each.dtype == dtype


# Files


def test_a_second_call_reads_what_is_there(tmp_path, monkeypatch):
    first = trained(count=2, folder=tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["expert_0000.pt", "expert_0001.pt"]
    assert torch.equal(first.snapshots, trained(count=2).snapshots)
    calls, train = [], expert_trajectories._train

    def counted(*arguments):
        calls.append(arguments[5])
        train(*arguments)

    monkeypatch.setattr(expert_trajectories, "_train", counted)
    again = trained(count=2, folder=tmp_path)
    assert calls == [] and torch.equal(again.snapshots, first.snapshots)
    assert again.configuration == first.configuration
    (tmp_path / "expert_0000.pt").unlink()
    more = trained(count=3, folder=tmp_path)
    assert calls == [0, 2]
    assert torch.equal(more.snapshots, trained(count=3).snapshots)


def test_a_file_holds_its_expert_alone(tmp_path):
    trained(count=1, folder=tmp_path)
    (alone,) = tmp_path.iterdir()
    size = alone.stat().st_size
    alone.unlink()
    trained(count=6, folder=tmp_path)
    assert max(each.stat().st_size for each in tmp_path.iterdir()) < 1.1 * size


def test_half_precision_goes_through_a_file(tmp_path):
    training = Training(4, 0.1, 16, half=True)
    first, second = (trained(training, folder=tmp_path) for _ in range(2))
    assert torch.equal(first.snapshots, second.snapshots)
    assert second.snapshots.dtype == torch.float16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": Training(5, 0.1, 16)}, "epochs = 4; here it is 5"),
        ({"training": Training(4, 0.2, 16)}, "rate = 0.1; here it is 0.2"),
        ({"training": Training(4, 0.1, 15)}, "batch = 16; here it is 15"),
        ({"training": Training(4, 0.1, 16, seed=1)}, "seed = 0; here it is 1"),
        ({"training": Training(4, 0.1, 16, half=True)}, "half = False; here it is True"),
        (
            {"training": Training(4, 0.1, 16, "shifted"), "augment": shifted},
            "augmentation = None; here it is 'shifted'",
        ),
        ({"network": FlatNetwork(perceptron((16, 9, 3)))}, "parameters of the network = 163"),
        (
            {"network": FlatNetwork(perceptron((16, 8, 3), activation=torch.nn.Tanh))},
            "network = ",
        ),
        ({"data": real(seed=1)}, "checksum of the real images and classes = "),
        ({"data": real(39)}, r"real images = \[40, 1, 4, 4\]; here it is \[39,"),
        ({"data": real(dtype=torch.float64)}, "dtype = 'torch.float32'; here it is 'torch.float64"),
    ],
)
def test_files_of_other_experts_are_refused_before_any_work(tmp_path, monkeypatch, change, message):
    trained(count=2, folder=tmp_path)
    (tmp_path / "expert_0000.pt").unlink()
    monkeypatch.setattr(expert_trajectories, "_train", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(ValueError, match=f"expert_0001.pt belongs to {message}"):
        trained(count=2, folder=tmp_path, **change)


def test_an_expert_under_another_s_name_is_refused(tmp_path):
    trained(count=1, folder=tmp_path)
    (tmp_path / "expert_0000.pt").rename(tmp_path / "expert_0001.pt")
    with pytest.raises(ValueError, match="number = 0; here it is 1"):
        trained(count=2, folder=tmp_path)


@pytest.mark.parametrize("spoil", ["cut", "empty", "other"])
def test_a_file_that_is_no_expert_is_refused(tmp_path, spoil):
    trained(count=1, folder=tmp_path)
    (file,) = tmp_path.iterdir()
    if spoil == "other":
        torch.save({"step": 5}, file)
    else:
        file.write_bytes(file.read_bytes()[:900] if spoil == "cut" else b"")
    with pytest.raises(ValueError, match="expert_0000.pt holds something else; accepted is a"):
        trained(count=1, folder=tmp_path)


def test_a_failed_write_leaves_nothing_half_done(tmp_path, monkeypatch):
    def fail(state, place):
        place.write_bytes(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(checkpoints.torch, "save", fail)
    with pytest.raises(OSError, match="full"):
        trained(count=1, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


# Divergence


def test_an_expert_that_diverges_is_named_and_those_before_it_are_kept(tmp_path, monkeypatch):
    initial = FlatNetwork.initial
    drawn = []

    def spoilt(self, *arguments, **more):
        drawn.append(1)
        theta = initial(self, *arguments, **more)
        return theta * torch.inf if len(drawn) == 3 else theta

    monkeypatch.setattr(FlatNetwork, "initial", spoilt)
    with pytest.raises(FloatingPointError, match="expert 2 after epoch 1 are not finite"):
        trained(count=4, folder=tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["expert_0000.pt", "expert_0001.pt"]


def test_a_rate_that_is_too_large_is_noticed():
    with pytest.raises(FloatingPointError, match="expert 0 after epoch 1.*take a smaller rate"):
        trained(Training(4, 1e38, 16))


def test_parameters_beyond_half_precision_are_noticed():
    trained(Training(1, 1e5, 16))
    with pytest.raises(FloatingPointError, match="expert 0 after epoch 1 is .*beyond float16"):
        trained(Training(1, 1e5, 16, half=True))


# Bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Training(0), "epochs is 0; accepted is an integer from 1"),
        (lambda: Training(1, 0.0), "rate is 0.0; accepted is a positive finite number"),
        (lambda: Training(1, -0.1), "rate is -0.1"),
        (lambda: Training(1, batch=0), "batch is 0"),
        (lambda: Training(1, seed=-1), "seed is -1"),
        (lambda: Training(1, augmentation=""), "augmentation is ''; accepted is a name, or None"),
        (lambda: Training(1, augmentation=shifted), "accepted is a name, or None"),
        (lambda: trained(count=0), "count is 0"),
        (
            lambda: trained(Training(1, batch=41)),
            "batch is 41 and x has 40 images; accepted is at most as many",
        ),
        (lambda: trained(data=(real()[0], real()[1] + 1)), r"no image of \[0\]"),
        (lambda: trained(data=(real()[0], real()[1].float())), "y is torch.float32"),
        (lambda: trained(data=(real()[0][:39], real()[1])), "x has 39 images"),
        (lambda: trained(data=(real()[0] * torch.nan, real()[1])), "x holds 640 elements"),
        (lambda: trained(data=(real()[0], real()[1].to("meta"))), "y is on meta"),
        (
            lambda: trained(network=FlatNetwork(perceptron((16, 8, 4)))),
            r"network makes \(1, 4\) of one image and y has 3 classes",
        ),
        (lambda: trained(augment=shifted), "augmentation is None and augment <function shifted"),
        (
            lambda: trained(Training(1, batch=16, augmentation="shifted")),
            "augmentation is 'shifted' and augment None; accepted are a function and its name",
        ),
    ],
)
def test_bad_input_is_named_before_any_work(monkeypatch, call, message):
    monkeypatch.setattr(expert_trajectories, "_train", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: trained(training=4), "training is a int; accepted is a Training"),
        (lambda: trained(network=perceptron((16, 3))), "accepted is a FlatNetwork"),
        (lambda: trained(data=(real()[0].long(), real()[1])), "x is torch.int64; accepted are fl"),
        (lambda: trained(data=([1.0], real()[1])), "x is a list; accepted is a torch.Tensor"),
    ],
)
def test_other_kinds_are_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_a_folder_that_is_missing_is_noticed_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(expert_trajectories, "_train", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(FileNotFoundError, match="accepted is a folder that exists"):
        trained(folder=tmp_path / "missing")


def test_an_augmentation_that_changes_the_shape_is_refused():
    training = Training(1, batch=16, augmentation="cut")
    with pytest.raises(ValueError, match=r"augment made torch.float32 \(16, 1, 4, 3\)"):
        trained(training, augment=lambda images, rng: images[..., :3])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.pair(2, 0), "expert is 2; accepted is an integer from 0 to 1"),
        (lambda e: e.pair(0, 4), "epoch is 4; accepted is an integer from 0 to 3"),
        (lambda e: e.pair(0, 2, 3), "epoch is 2; accepted is an integer from 0 to 1"),
        (lambda e: e.pair(0, 0, 5), "distance is 5; accepted is an integer from 1 to 4"),
        (lambda e: e.pair(0, -1), "epoch is -1"),
        (lambda e: e.at(5), "epoch is 5; accepted is an integer from 0 to 4"),
        (
            lambda e: Experts(NETWORK, e.snapshots[0], e.dtype, {}),
            r"snapshots have shape \(5, 163\); accepted is \[count, epochs \+ 1, 163\]",
        ),
        (lambda e: Experts(NETWORK, e.snapshots[:, :1], e.dtype, {}), "one epoch at least"),
    ],
)
def test_snapshots_that_do_not_exist_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(trained())
