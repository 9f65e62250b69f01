"""Laws over parameters: their moments, their masks against explicit ones, and what they refuse."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from kempe_nb.methods.posteriors import Dropout, Gaussian, Samples
from kempe_nb.networks.flat import FlatNetwork
from kempe_nb.networks.perceptron import perceptron

#: Standard errors that a mean over draws may be off; the seeds are fixed.
ERRORS = 5


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(4, 5, 3, bias=False), nn.Tanh(), nn.MaxPool2d(2)),
        nn.Flatten(),
        nn.Linear(5, 6),
        nn.ReLU(),
        nn.Linear(6, 3),
    )


NETWORKS = {"perceptron": perceptron([36, 5, 4, 3]), "convolutional": convolutional()}


def images(count=7, seed=0, dtype=torch.float64):
    return torch.rand(count, 1, 6, 6, generator=generator(seed), dtype=dtype)


def law(kind, module=None, seed=0, dtype=torch.float64, count=6):
    network = FlatNetwork(module or NETWORKS["perceptron"])
    theta = network.initial(generator(seed), count, dtype=dtype)
    if kind == "samples":
        return Samples(network, theta)
    if kind == "gaussian":
        return Gaussian(network, theta[0], theta[1].abs())
    return Dropout(network, theta[0], 0.3)


KINDS = ["samples", "gaussian", "dropout"]


# What every law promises


@given(
    st.sampled_from(KINDS),
    st.sampled_from(sorted(NETWORKS)),
    st.integers(1, 6),
    st.integers(0, 5),
    st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=40)
def test_logits_are_those_of_each_drawn_network(kind, name, samples, count, dtype):
    drawn_from, x = law(kind, NETWORKS[name], dtype=dtype), images(count, dtype=dtype)
    thetas = drawn_from.draw(samples, generator(1))
    assert thetas.shape == (samples, drawn_from.network.size) and thetas.dtype == dtype
    found = drawn_from.logits(x, samples, generator(1))
    assert found.shape == (samples, count, 3) and found.dtype == dtype
    for theta, one in zip(thetas, found, strict=True):
        torch.testing.assert_close(one, drawn_from.network(theta, x))


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_bits_and_leaves_the_rest_alone(kind):
    drawn_from, x = law(kind), images()
    before = {k: v.clone() for k, v in vars(drawn_from).items() if isinstance(v, torch.Tensor)}
    weights = [p.clone() for p in NETWORKS["perceptron"].parameters()]
    hidden, old = torch.get_rng_state(), x.clone()
    first = drawn_from.logits(x, 3, generator(4))
    assert torch.equal(first, drawn_from.logits(x, 3, generator(4)))
    assert not torch.equal(first, drawn_from.logits(x, 3, generator(5)))
    rng = generator(4)
    drawn_from.draw(3, rng)
    assert not torch.equal(first, drawn_from.logits(x, 3, rng))
    assert torch.equal(hidden, torch.get_rng_state()) and torch.equal(x, old)
    assert all(torch.equal(vars(drawn_from)[name], value) for name, value in before.items())
    after = NETWORKS["perceptron"].parameters()
    assert all(torch.equal(a, b) for a, b in zip(weights, after, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_fixed_networks_are_drawn_once(kind):
    drawn_from, x = law(kind), images()
    kept = drawn_from.fixed(4, generator(2))
    assert isinstance(kept, Samples)
    assert torch.equal(kept.logits(x), drawn_from.logits(x, 4, generator(2)))
    assert torch.equal(kept.logits(x), kept.logits(x))


def test_fixed_networks_keep_no_graph():
    given_one = law("gaussian")
    moving = Gaussian(given_one.network, given_one.mean.requires_grad_(), given_one.scale)
    assert moving.draw(2, generator()).requires_grad
    assert not moving.fixed(2, generator()).theta.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives(kind):
    """With respect to images and to the tensors of the law, against differences."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    network, x = FlatNetwork(module), images()[:2, :, :2, :2]
    theta = network.initial(generator(), 3, dtype=torch.float64)
    build = {
        "samples": lambda a: Samples(network, a),
        "gaussian": lambda a: Gaussian(network, a[0], a[1].abs()),
        "dropout": lambda a: Dropout(network, a[2], 0.4),
    }[kind]

    def of(theta, x):
        return build(theta).logits(x, 2, generator(1))

    assert torch.autograd.gradcheck(of, (theta.requires_grad_(), x.clone().requires_grad_()))


# Given networks


@given(st.integers(1, 12), st.data())
def test_given_networks_are_drawn_without_replacement(there, data):
    samples = data.draw(st.integers(1, there))
    states = law("samples", nn.Linear(2, 3), count=there)
    rows = [states.theta.tolist().index(row) for row in states.draw(samples, generator(3)).tolist()]
    assert rows == sorted(set(rows)) and len(rows) == samples
    assert states.draw() is states.theta
    assert torch.equal(states.draw(there, generator()), states.theta)


def test_each_given_network_is_drawn_as_often():
    states, rng, draws = law("samples", nn.Linear(2, 3), count=9), generator(), 2000
    found = torch.cat([states.draw(2, rng)[:, 0] for _ in range(draws)])
    counts = (found[:, None] == states.theta[:, 0]).sum(0)
    assert counts.sum() == 2 * draws
    error = math.sqrt(draws * 2 / 9 * 7 / 9)
    assert ((counts - draws * 2 / 9).abs() < ERRORS * error).all()


def test_nine_states_are_not_a_hundred():
    with pytest.raises(ValueError, match="samples is 100; accepted is 1 to 9.*without replacement"):
        law("samples", count=9).draw(100, generator())


# The Gaussian


def test_moments_of_the_gaussian():
    one, draws = law("gaussian", nn.Linear(2, 3)), 20_000
    half = Gaussian(one.network, one.mean, one.scale * (torch.arange(9) % 2))
    found = half.draw(draws, generator())
    away = (found - half.mean) / one.scale
    still = half.scale == 0
    assert still.sum() == 5 and (found[:, still] == half.mean[still]).all()
    assert (away.mean(0).abs() < ERRORS / math.sqrt(draws)).all()
    products = away[:, ~still].T @ away[:, ~still] / draws
    # The variance of a square is 2, of a product of independent ones 1.
    bound = ERRORS * (1 + torch.eye(4)).sqrt() / math.sqrt(draws)
    assert ((products - torch.eye(4)).abs() < bound).all()


# Dropout


def masked(module, theta, dropped, x):
    """Return logits with explicit masks on the inputs of the layers, by the names of these."""
    state = dict(zip((name for name, _ in module.named_parameters()), theta, strict=True))

    def walk(layer, prefix, h):
        if isinstance(layer, nn.Sequential):
            for name, child in layer.named_children():
                h = walk(child, f"{prefix}{name}.", h)
            return h
        if f"{prefix}weight" in dropped:
            mask = dropped[f"{prefix}weight"]
            h = h * mask.view(1, -1, *[1] * (h.ndim - 2))
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        return torch.func.functional_call(layer, own, (h,))

    return walk(module, "", x)


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_masked_parameter_vector_is_dropout_of_units(name, rate):
    """`nn.Dropout` before a linear layer and `nn.Dropout2d` before a convolution, mask by mask."""
    module, x = NETWORKS[name], images()
    network = FlatNetwork(module)
    theta = network.initial(generator(1), dtype=torch.float64)
    thetas = Dropout(network, theta, rate).draw(30, generator(2))
    factors = network.parts(thetas / theta)
    weights = {n: p for n, p in factors.items() if n.endswith("weight")}
    first, *others = weights
    kept_whole = [first, *(n for n in factors if n.endswith("bias"))]
    assert all((factors[n] == 1).all() for n in kept_whole)
    found = torch.func.vmap(network, (0, None))(thetas, x)
    for s in range(30):
        dropped = {}
        for n in others:
            # One factor for all outgoing weights of a unit, 0 or 1 / (1 - rate).
            dropped[n] = weights[n][s].movedim(1, 0).flatten(1)[:, 0]
            torch.testing.assert_close(
                weights[n][s].movedim(1, 0).flatten(1),
                dropped[n][:, None].expand(len(dropped[n]), weights[n][s][:, 0].numel()),
            )
            sizes = torch.tensor([0, 1 / (1 - rate)], dtype=torch.float64)
            assert torch.isclose(dropped[n][:, None], sizes).any(1).all()
        expected = masked(module, list(network.parts(theta).values()), dropped, x)
        torch.testing.assert_close(found[s], expected, rtol=1e-12, atol=1e-12)


def test_as_the_modules_of_pytorch():
    """The first two moments of the logits of an image, with and without `nn.Dropout`."""
    hidden, rate, draws = nn.Sequential(nn.Linear(36, 8), nn.ReLU()), 0.3, 20_000
    network = FlatNetwork(nn.Sequential(nn.Flatten(), *hidden, nn.Linear(8, 3)))
    theta, x = network.initial(generator(3), dtype=torch.float64), images(1)
    ours = Dropout(network, theta, rate).logits(x, draws, generator())[:, 0]
    weights = list(network.parts(theta).values())
    units = torch.relu(x.flatten(1) @ weights[0].T + weights[1])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dropped = nn.Dropout(rate)(units.expand(draws, -1))
    theirs = dropped @ weights[2].T + weights[3]
    for power in (1, 2):
        a, b = ours**power, theirs**power
        error = ((a.var(0) + b.var(0)) / draws).sqrt()
        assert ((a.mean(0) - b.mean(0)).abs() < ERRORS * error).all()


@given(st.floats(0, 0.95), st.integers(0, 1000))
@settings(max_examples=20)
def test_each_unit_is_dropped_by_itself(rate, seed):
    """At the rate, and independently of its neighbours."""
    network, draws = FlatNetwork(perceptron([3, 4, 2])), 3000
    theta = torch.ones(network.size, dtype=torch.float64)
    thetas = Dropout(network, theta, rate).draw(draws, generator(seed))
    kept = (network.parts(thetas)["3.weight"][:, 0] > 0).double()
    both = kept[:, 0] * kept[:, 1]
    for found, share in ((kept, 1 - rate), (both, (1 - rate) ** 2)):
        # Six: twenty examples of five numbers, at seeds that Hypothesis draws.
        bound = 6 * math.sqrt(share * (1 - share) / draws) + 6 / draws
        assert ((found.mean(0) - share).abs() <= bound).all()


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return x + self.layer(x)


def test_the_first_layer_may_be_a_whole_network():
    """Only the outgoing weights of its features are masked."""
    network = FlatNetwork(nn.Sequential(Residual(), nn.ReLU(), nn.Linear(3, 2)))
    drawn = Dropout(network, torch.ones(network.size), 0.5).draw(50, generator(1))
    changed = (drawn != 1).any(0)
    expected = {"0.layer.weight": 9 * [False], "0.layer.bias": 3 * [False]}
    expected |= {"2.weight": 6 * [True], "2.bias": 2 * [False]}
    assert {k: v.flatten().tolist() for k, v in network.parts(changed).items()} == expected


def tied():
    layers = [nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)]
    layers[1].weight = layers[0].weight
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 2)), "LayerNorm '1'"),
        (nn.Sequential(nn.Linear(3, 3), Residual(), nn.Linear(3, 2)), "Residual '1'"),
        (Residual(), "module has 1 layers with weights"),
        (nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1, groups=2)), "Conv2d '1'"),
        (nn.Sequential(nn.Conv1d(1, 4, 1), nn.Conv1d(4, 4, 1)), "Conv1d '1'"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3, 2)), "module has 1 layers with weights"),
        (tied(), "shares the weights of '1'"),
    ],
)
def test_dropout_refuses_networks_by_name(module, message):
    network = FlatNetwork(module)
    with pytest.raises(ValueError, match=message):
        Dropout(network, torch.zeros(network.size), 0.2)


# Bad input

NET = FlatNetwork(perceptron([36, 5, 3]))
THETA = torch.zeros(NET.size)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Samples(NET, THETA), ValueError, r"theta has shape .*; accepted is \[S, 203\], S"),
        (lambda: Samples(NET, THETA[None, :-1]), ValueError, r"theta has shape \(1, 202\)"),
        (lambda: Samples(NET, THETA.expand(0, -1)), ValueError, r"theta has shape \(0, 203\)"),
        (lambda: Samples(NET, THETA.expand(2, 3, -1)), ValueError, r"theta has shape \(2, 3, 203"),
        (lambda: Samples(NET, THETA[None] * math.nan), ValueError, "theta holds 203 elements"),
        (lambda: Samples(NET, THETA[None].int()), TypeError, "theta is torch.int32"),
        (lambda: Samples(NET, [0.0] * NET.size), TypeError, "theta is a list"),
        (lambda: Samples(NET.module, THETA[None]), TypeError, "network is a Sequential"),
        (lambda: Gaussian(NET, THETA[None], THETA), ValueError, r"mean has shape \(1, 203\)"),
        (lambda: Gaussian(NET, THETA, THETA[:1]), ValueError, r"scale has shape \(1,\)"),
        (lambda: Gaussian(NET, THETA, THETA - 0.5), ValueError, "scale holds -0.5"),
        (lambda: Gaussian(NET, THETA, THETA + math.inf), ValueError, "scale holds 203 elements"),
        (lambda: Gaussian(NET, THETA, THETA.double()), TypeError, "scale is torch.float64"),
        (lambda: Gaussian(NET, THETA, THETA.to("meta")), ValueError, "scale is on meta"),
        (lambda: Dropout(NET, THETA, 1.0), ValueError, "rate is 1.0; accepted is a number from 0"),
        (lambda: Dropout(NET, THETA, math.nan), ValueError, "rate is nan"),
        (lambda: Dropout(NET, THETA[None], 0.1), ValueError, r"theta has shape \(1, 203\)"),
    ],
)
def test_bad_laws_are_named(build, error, message):
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["draw", "logits", "fixed"])
@pytest.mark.parametrize(
    ("samples", "rng", "error", "message"),
    [
        (0, generator(), ValueError, "samples is 0; accepted is an integer from 1 up"),
        (1.5, generator(), ValueError, "samples is 1.5"),
        (2, None, TypeError, "generator is None; accepted is a torch.Generator"),
        (2, 7, TypeError, "generator is 7"),
    ],
)
def test_bad_draws_are_named(kind, method, samples, rng, error, message):
    one = law(kind)
    call = getattr(one, method)
    with pytest.raises(error, match=message):
        call(images(), samples, rng) if method == "logits" else call(samples, rng)


@pytest.mark.parametrize("kind", ["gaussian", "dropout"])
def test_only_given_networks_know_what_all_are(kind):
    with pytest.raises(ValueError, match="samples is None"):
        law(kind).logits(images(), generator=generator())
    assert law("samples").logits(images()).shape == (6, 7, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_images_have_the_dtype_and_device_of_the_parameters(kind):
    with pytest.raises(TypeError, match="x is torch.float32; accepted are float64"):
        law(kind).logits(images(dtype=torch.float32), 2, generator())
    with pytest.raises(ValueError, match="theta is on cpu, x is on meta"):
        law(kind).logits(images().to("meta"), 2, generator())
