"""HMC: acceptance in closed form, what sampling promises, which chains and arguments it refuses."""

import math
import warnings

import pytest
import torch
from densities import DOUBLE, ERRORS, normals, seeded, standard, wave, within_errors
from hypothesis import given, settings, strategies as st
from scipy import stats

from kempe_nb.methods import hamiltonian_monte_carlo as hmc
from kempe_nb.methods.chain_diagnostics import effective_sample_size, split_r_hat
from kempe_nb.methods.hamiltonian_monte_carlo import DivergentChain, sample

# Trajectories on a standard normal


@pytest.mark.parametrize(("step", "steps"), [(1.5, 1), (1.8, 3), (1.9, 4)])
def test_the_probability_to_accept_in_closed_form(step, steps):
    """(4 / pi) arctan(1 / s) on a standard normal.

    A trajectory is a linear map of determinant 1, with singular values s and 1 / s, s > 1. By
    reversibility the mean of min(1, exp(-error)) is twice the probability that the error is
    negative, which is that of (s^2 - 1) a^2 < (1 - 1 / s^2) b^2 for independent normal a and b.
    """
    whole = torch.eye(2, dtype=DOUBLE)
    kick = torch.tensor([[1, 0], [-step / 2, 1]], dtype=DOUBLE)
    drift = torch.tensor([[1, step], [0, 1]], dtype=DOUBLE)
    for _ in range(steps):
        whole = kick @ drift @ kick @ whole
    stretch = torch.linalg.matrix_norm(whole, ord=2).item()
    assert stretch > 1.2
    settings = {"warmup": 0, "draws": 20, "steps": steps, "step_size": step, "jitter": 0.0}
    chains = sample(standard, normals(1000, 1), generator=seeded(1), **settings)
    error = chains.acceptance.std() / 1000**0.5
    expected = 4 / math.pi * math.atan(1 / stretch)
    assert abs(chains.acceptance.mean() - expected) < ERRORS * error
    # All chains start in the density, and stay in it.
    assert abs(chains.states[:, -1].square().mean() - 1) < ERRORS * (2 / 1000) ** 0.5


def test_without_jitter_an_orbit_may_close():
    """L steps of 2 sin(pi / L) are the period of a leapfrog on a standard normal, 2 pi long."""
    steps = 20
    settings = {"warmup": 0, "draws": 200, "steps": steps, "step_size": 2 * math.sin(math.pi / 20)}
    assert settings["step_size"] * steps == pytest.approx(2 * math.pi, rel=0.01)
    start = normals(4, 2)
    with pytest.warns(RuntimeWarning, match=r"chains \[0, 1, 2, 3\] accepted with probability"):
        closed = sample(standard, start, generator=seeded(), jitter=0.0, **settings)
    torch.testing.assert_close(closed.states, start[:, None].expand(4, 200, 2), rtol=0, atol=1e-10)
    # With jitter a draw keeps the mean of cos(2 pi u) of the one before, u from 0.8 to 1.2.
    kept = math.sin(0.4 * math.pi) / (0.4 * math.pi)
    moving = sample(standard, normals(50, 2), generator=seeded(), **settings)
    expected = 50 * 200 * (1 - kept) / (1 + kept)
    assert effective_sample_size(moving.states).mean() == pytest.approx(expected, rel=0.2)
    assert split_r_hat(moving.states).amax() < 1.05


# What sampling promises


def test_one_gradient_for_each_step():
    calls = []

    def counted(q):
        calls.append(1)
        return standard(q)

    settings = {"warmup": 3, "draws": 5, "steps": 7, "step_size": 1.2, "keep_every": 2}
    sample(counted, normals(2, 3), generator=seeded(), **settings)
    assert len(calls) == 1 + (3 + 5 * 2) * 7


@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 5),
    st.integers(1, 5),
    st.integers(1, 3),
    st.sampled_from([torch.float32, DOUBLE]),
    st.booleans(),
    st.integers(0, 2**32),
)
@settings(max_examples=40)
def test_any_shape(chains, axes, count, warmup, draws, keep_every, dtype, given_step, seed):
    weights = normals(axes, count, seed=1, dtype=dtype)

    def terms(q):
        return (q @ weights).square() / -2 - q.square().sum(1, keepdim=True) / (2 * count)

    start = normals(chains, axes, seed=seed, dtype=dtype)
    before, state = start.clone(), torch.get_rng_state()
    settings = {"warmup": warmup + (not given_step), "draws": draws, "steps": 2}
    settings |= {"keep_every": keep_every, "step_size": 0.3 if given_step else None}

    def run():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            try:
                return sample(terms, start, generator=seeded(seed), **settings)
            except DivergentChain:
                # A step that a warm-up of a few iterations left too long.
                assert not given_step
                return None

    found = run()
    assert torch.equal(start, before) and not start.requires_grad and start.grad is None
    assert torch.equal(torch.get_rng_state(), state)
    if found is None:
        assert run() is None
        return
    assert found.states.shape == (chains, draws, axes) and found.states.dtype == dtype
    assert found.acceptance.shape == found.divergences.shape == (chains,)
    assert found.log_densities.shape == found.energy_errors.shape == (chains, draws)
    assert not found.states.requires_grad and not found.log_densities.requires_grad
    assert ((found.acceptance >= 0) & (found.acceptance <= 1)).all() and found.step_size > 0
    again = terms(found.states.flatten(0, 1)).double().sum(1).view(chains, draws)
    torch.testing.assert_close(found.log_densities, again, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        other = run()
    assert torch.equal(found.states, other.states) and found.step_size == other.step_size


def test_kept_states_are_those_of_the_whole_walk():
    settings = {"warmup": 5, "steps": 3, "step_size": 0.8}
    whole = sample(wave, normals(3, 2), draws=12, generator=seeded(), **settings)
    some = sample(wave, normals(3, 2), draws=4, keep_every=3, generator=seeded(), **settings)
    for name in ("states", "log_densities", "energy_errors"):
        assert torch.equal(getattr(some, name), getattr(whole, name)[:, 2::3])
    assert torch.equal(some.acceptance, whole.acceptance)


def test_acceptance_is_the_mean_of_the_probabilities():
    chains = sample(
        wave, normals(3, 2), warmup=0, draws=50, steps=3, step_size=0.8, generator=seeded()
    )
    expected = (-chains.energy_errors).clamp(max=0).exp().mean(1)
    torch.testing.assert_close(chains.acceptance, expected)


@pytest.mark.parametrize("target", [0.65, 0.8, 0.9])
def test_warm_up_finds_the_acceptance_that_is_asked_for(target):
    settings = {"warmup": 500, "draws": 200, "steps": 6, "target_acceptance": target}
    chains = sample(standard, normals(10, 50), generator=seeded(), **settings)
    # The paper's own adaptation is off by a few hundredths (its figure 4).
    assert chains.acceptance.mean() == pytest.approx(target, abs=0.05)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_first_step_size_is_of_the_order_of_the_density(scale):
    chains = sample(
        lambda q: (q / scale).square() / -2,
        scale * normals(4, 3),
        warmup=100,
        draws=100,
        steps=5,
        generator=seeded(),
    )
    assert 0.1 < chains.step_size / scale < 2
    assert not chains.divergences.any()


def test_another_seed_draws_something_else():
    settings = {"warmup": 0, "draws": 9, "steps": 3, "step_size": 0.8}
    runs = [sample(wave, normals(2, 2), generator=seeded(s), **settings) for s in (0, 0, 1)]
    assert torch.equal(runs[0].states, runs[1].states)
    assert not torch.equal(runs[0].states, runs[2].states)


def test_parameters_of_the_caller_get_no_gradient():
    centre = torch.zeros(3, dtype=DOUBLE, requires_grad=True)
    start = normals(2, 3).requires_grad_()
    settings = {"warmup": 2, "draws": 9, "steps": 3, "step_size": 1.5, "generator": seeded()}
    chains = sample(lambda q: standard(q - centre), start, **settings)
    assert centre.grad is None and start.grad is None and not chains.states.requires_grad
    assert centre.requires_grad and start.requires_grad


# Chains that are not to be used


def test_a_step_too_long_is_named():
    message = r"chain \d diverged in 3 of the 3 iterations .* of 50 asked for: with step size 40 "
    with pytest.raises(DivergentChain, match=message + r"its energy, now .* changed by"):
        sample(
            standard, normals(3, 2), warmup=4, draws=50, steps=9, step_size=40.0, generator=seeded()
        )


def test_the_chain_that_diverges_is_named():
    """The second coordinate of the last chain alone sees a wall."""

    def walled(q):
        wall = torch.where(q[:, 1:] > 50, -1e9 * (q[:, 1:] - 50).square(), 0.0)
        return torch.cat(
            [q[:, :1].square() / -2, (q[:, 1:] % 100).sub(49.9).square() / -2, wall], 1
        )

    start = torch.tensor([[0.0, -60.0], [0.0, 49.9]], dtype=DOUBLE)
    with pytest.raises(DivergentChain, match="chain 1 diverged in"):
        sample(walled, start, warmup=0, draws=50, steps=9, step_size=0.2, generator=seeded())


def test_a_rare_divergence_is_a_rejection():
    """One draw in a hundred falls from a cliff, and stays where it was."""

    def cliff(q):
        return torch.where(q > 2.3, -math.inf, standard(q))

    settings = {"warmup": 0, "draws": 500, "steps": 1, "step_size": 0.9, "generator": seeded()}
    chains = sample(cliff, normals(8, 1).clamp(max=2), **settings)
    lost = ~(chains.energy_errors <= hmc.LOST)
    assert lost.any() and torch.equal(lost.sum(1), chains.divergences)
    assert chains.states.amax() <= 2.3 and chains.log_densities.isfinite().all()
    c, d = torch.nonzero(lost[:, 1:])[0]
    assert torch.equal(chains.states[c, d + 1], chains.states[c, d])
    # The truncated normal: an exact law, divergences and all.
    draws = chains.states[..., 0]
    assert within_errors(draws[..., None], stats.truncnorm(-math.inf, 2.3).mean())


def test_divergences_of_the_warm_up_are_forgiven():
    """From a first step a thousand times too long for where the chain goes."""

    def funnel(q):
        return torch.cat([-1e3 * q.square().square(), q.square() / -2], 1)

    settings = {"warmup": 300, "draws": 100, "steps": 5, "generator": seeded()}
    chains = sample(funnel, 20 + normals(4, 3), **settings)
    assert (chains.states[:, -1].abs() < 1).all()


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (
            lambda q: torch.where(q > 1, math.nan, standard(q)),
            "an energy of nan with 0 coordinates",
        ),
        (lambda q: torch.where(q > 1, -math.inf, standard(q)), "an energy of inf with 0"),
        (lambda q: -q.abs().sqrt(), "an energy of 1.22474 with 1 coordinates of its gradient not"),
    ],
)
def test_a_start_without_density_is_named(terms, message):
    start = torch.tensor([[0.5, 0.5], [0.0, 1.5]])
    with pytest.raises(DivergentChain, match=f"chain 1 starts at {message}"):
        sample(terms, start, warmup=1, draws=1, steps=1, generator=seeded())


def test_a_chain_that_stands_still_is_named():
    """Chain 1 sits at the top of a density so narrow that any step leaves it."""

    def spiked(q):
        widths = torch.tensor([[1.0], [0.25]], dtype=q.dtype)
        return (q / widths).square() / -2

    start = torch.zeros(2, 6, dtype=DOUBLE)
    settings = {"warmup": 0, "draws": 30, "steps": 1, "step_size": 1.0, "generator": seeded()}
    with pytest.warns(RuntimeWarning, match=r"chains \[1\] accepted none of 30 .* step size 1: "):
        chains = sample(spiked, start, **settings)
    assert (chains.states[1] == 0).all() and chains.acceptance[1] < 1e-3


def test_a_chain_that_crawls_is_named():
    settings = {"warmup": 0, "draws": 30, "steps": 2, "step_size": 1e-4, "generator": seeded()}
    with pytest.warns(RuntimeWarning, match=r"chains \[0, 1\] accepted with probability 0.999 or"):
        sample(standard, normals(2, 2), **settings)


def test_a_good_run_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample(wave, normals(3, 2), warmup=200, draws=100, steps=10, generator=seeded())


# Arguments


GOOD = {"start": torch.zeros(2, 3), "warmup": 1, "draws": 1, "steps": 1}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"start": [[0.0]]}, TypeError, "start is a list; accepted is a torch.Tensor"),
        ({"start": torch.zeros(2, 3).half()}, TypeError, "start is torch.float16; accepted are"),
        ({"start": torch.zeros(3)}, ValueError, r"start has shape \(3,\); accepted is \[C, P\]"),
        ({"start": torch.zeros(0, 3)}, ValueError, r"start has shape \(0, 3\)"),
        ({"start": torch.full((2, 3), math.nan)}, ValueError, "start holds 6 elements"),
        ({"warmup": -1}, ValueError, "warmup is -1; accepted is an integer from 0 up"),
        ({"warmup": 0}, ValueError, "warmup is 0 and step_size None; accepted is one of them"),
        ({"draws": 0}, ValueError, "draws is 0; accepted is an integer from 1 up"),
        ({"draws": 2.0}, ValueError, "draws is 2.0"),
        ({"steps": True}, ValueError, "steps is True"),
        ({"keep_every": 0}, ValueError, "keep_every is 0"),
        ({"step_size": 0.0}, ValueError, "step_size is 0.0; accepted is a positive finite number"),
        ({"step_size": math.nan}, ValueError, "step_size is nan"),
        ({"target_acceptance": 1.0}, ValueError, "target_acceptance is 1.0; accepted is a number"),
        ({"target_acceptance": 0.0}, ValueError, "target_acceptance is 0.0"),
        ({"jitter": 1.0}, ValueError, "jitter is 1.0; accepted is a number from 0 to below 1"),
        ({"jitter": -0.1}, ValueError, "jitter is -0.1"),
        ({"generator": 0}, TypeError, "generator is a int; accepted is torch.Generator"),
        (
            {"start": torch.zeros(2, 3, device="meta")},
            ValueError,
            "generator is on cpu, start on meta",
        ),
    ],
)
def test_bad_input_is_named_before_any_work(change, error, message):
    def untouched(q):
        raise AssertionError("the density was computed")

    with pytest.raises(error, match=message):
        sample(untouched, **{**GOOD, "generator": seeded(), **change})


@pytest.mark.parametrize(
    ("terms", "error", "message"),
    [
        (lambda q: q.sum(1), ValueError, r"log_terms returns torch.float32 \(2,\); accepted are"),
        (lambda q: q[:1], ValueError, r"returns torch.float32 \(1, 3\); .* numbers \[2, M\]"),
        (lambda q: q.long(), ValueError, "log_terms returns torch.int64"),
        (lambda q: q.detach(), ValueError, "log_terms returns terms without a gradient"),
        (lambda q: None, TypeError, "terms is a NoneType"),
    ],
)
def test_bad_terms_are_named(terms, error, message):
    with pytest.raises(error, match=message):
        sample(terms, generator=seeded(), **GOOD)
