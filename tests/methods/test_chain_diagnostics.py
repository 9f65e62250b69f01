"""R-hat and effective sample sizes: as NumPyro has them, and near the closed form of AR(1)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from numpyro.diagnostics import effective_sample_size as their_size, split_gelman_rubin
from scipy.signal import lfilter

from kempe_nb.methods import chain_diagnostics
from kempe_nb.methods.chain_diagnostics import effective_sample_size, split_r_hat


def autoregressive(rho, chains=4, length=1000, columns=(), seed=0):
    """Return stationary chains x' = rho x + noise of variance 1 - rho^2, float64 [C, D, ...]."""
    noise = np.random.default_rng(seed).standard_normal((chains, length, *columns))
    noise[:, 1:] *= math.sqrt(1 - rho**2)
    return torch.from_numpy(lfilter([1.0], [1.0, -rho], noise, axis=1))


# The same formulas as NumPyro's


@given(
    st.integers(1, 5),
    st.integers(4, 90),
    st.sampled_from([(), (1,), (3, 2), (0,)]),
    st.floats(-0.5, 0.95),
    st.integers(0, 2**32),
)
@settings(max_examples=60)
def test_as_numpyro(chains, length, columns, rho, seed):
    """To rounding, but for the bound on the ESS, which NumPyro leaves out."""
    draws = autoregressive(rho, chains, length, columns, seed)
    wide = draws.flatten(2).numpy() if columns else draws[..., None].numpy()
    r_hat, size = split_r_hat(draws), effective_sample_size(draws)
    assert r_hat.shape == size.shape == columns and r_hat.dtype == size.dtype == torch.float64
    np.testing.assert_allclose(r_hat.numpy().ravel(), split_gelman_rubin(wide), rtol=1e-12)
    count = chains * length
    with np.errstate(divide="ignore"):
        shares = np.maximum(count / their_size(wide), 1 / math.log10(count))
    # One part in 1e10 of a share: a pair of lags that is zero but for rounding may end the sum.
    np.testing.assert_allclose(count / size.numpy().ravel(), shares, rtol=1e-10)


def test_alternating_chains_are_worth_a_bounded_number_of_draws():
    draws = autoregressive(-0.99)
    assert effective_sample_size(draws) == pytest.approx(4000 * math.log10(4000))
    unbounded = their_size(draws.numpy())
    assert unbounded < 0 or unbounded > 4000 * math.log10(4000)


def test_columns_are_independent_of_each_other_and_of_their_chunks(monkeypatch):
    draws = autoregressive(0.5, length=40, columns=(11, 3))
    for statistic in (split_r_hat, effective_sample_size):
        whole = statistic(draws)
        alone = statistic(draws[:, :, 4, 2])
        torch.testing.assert_close(alone, whole[4, 2], rtol=1e-12, atol=0)
        with monkeypatch.context() as patch:
            patch.setattr(chain_diagnostics, "CHUNK", 5)
            torch.testing.assert_close(statistic(draws), whole, rtol=1e-12, atol=0)


# Closed forms


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, -0.3])
def test_the_size_of_an_autoregressive_chain(rho):
    """N (1 - rho) / (1 + rho); the mean over 200 columns, within five of its standard errors."""
    length = 2000
    sizes = effective_sample_size(autoregressive(rho, 4, length, (200,)))
    expected = 4 * length * (1 - rho) / (1 + rho)
    error = sizes.std() / math.sqrt(200)
    # What Geyer's sequence adds in its tail is a bias that falls with the length: 3 % is allowed.
    assert abs(sizes.mean() - expected) < 5 * error + 0.03 * expected
    assert error < 0.03 * expected


def test_the_size_says_how_precise_a_mean_is():
    """The variance of 2,000 means is the variance over the ESS; a chi-square of 2,000."""
    draws = autoregressive(0.8, 4, 500, (2000,))
    squares = draws.mean((0, 1)).square().mean() * effective_sample_size(draws).mean()
    assert abs(squares - 1) < 5 * math.sqrt(2 / 2000) + 0.03


def test_chains_that_agree_and_chains_that_do_not():
    together = autoregressive(0.5)
    assert split_r_hat(together) < 1.01
    shifted = together + torch.arange(4.0)[:, None]
    assert split_r_hat(shifted) > 1.1
    assert effective_sample_size(shifted) < 0.05 * effective_sample_size(together)


def test_a_drift_that_all_chains_share_is_seen():
    """Whole chains agree; their halves do not."""
    drifting = autoregressive(0.0) + torch.linspace(0, 3, 1000)
    assert split_r_hat(drifting) > 1.1


def test_plain_r_hat_does_not_see_widths():
    """It is not rank-normalised nor folded, as its docstring says."""
    draws = autoregressive(0.0) * torch.tensor([1.0, 1.0, 1.0, 5.0])[:, None]
    assert split_r_hat(draws) < 1.02


@pytest.mark.parametrize("statistic", [split_r_hat, effective_sample_size])
def test_a_shift_of_all_chains_changes_nothing(statistic):
    draws = autoregressive(0.5, length=64)
    expected = statistic(draws)
    torch.testing.assert_close(statistic(draws + 1e6), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(statistic(-3e8 * draws), expected, rtol=1e-9, atol=0)


# Chains that stand still


@given(st.floats(-1e30, 1e30), st.integers(1, 4), st.integers(4, 50))
def test_nothing_is_said_of_one_point(value, chains, length):
    draws = torch.full((chains, length, 2), value, dtype=torch.float64)
    assert split_r_hat(draws).isnan().all() and effective_sample_size(draws).isnan().all()


def test_points_apart_have_not_met():
    draws = torch.tensor([0.1, 0.7, 0.1])[:, None].expand(3, 21)
    assert split_r_hat(draws) == math.inf and effective_sample_size(draws).isnan()


def test_one_chain_of_several_that_stands_still_is_finite():
    draws = autoregressive(0.0)
    draws[2] = 0.3
    assert split_r_hat(draws).isfinite() and effective_sample_size(draws).isfinite()


# Arguments


@pytest.mark.parametrize("statistic", [split_r_hat, effective_sample_size])
@pytest.mark.parametrize(
    ("draws", "error", "message"),
    [
        (np.zeros((4, 9)), TypeError, "draws is a ndarray; accepted is a torch.Tensor"),
        (torch.zeros(4, 9).long(), TypeError, "draws is torch.int64; accepted are float32"),
        (torch.zeros(4, 9).half(), TypeError, "draws is torch.float16"),
        (torch.zeros(9), ValueError, r"draws has shape \(9,\); accepted is \[C, D, ...\]"),
        (torch.zeros(4, 3), ValueError, r"draws has shape \(4, 3\)"),
        (torch.zeros(0, 9), ValueError, r"draws has shape \(0, 9\)"),
        (torch.full((4, 9), math.inf), ValueError, "draws holds 36 elements that are NaN or inf"),
    ],
)
def test_bad_input_is_named(statistic, draws, error, message):
    with pytest.raises(error, match=message):
        statistic(draws)


def test_draws_are_left_as_they_are():
    draws = autoregressive(0.5, length=20, columns=(3,)).requires_grad_()
    before = draws.detach().clone()
    for statistic in (split_r_hat, effective_sample_size):
        assert not statistic(draws).requires_grad
    assert torch.equal(draws, before) and draws.requires_grad and draws.grad is None
