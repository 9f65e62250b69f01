"""Have Markov chains met, and how many independent draws are theirs worth?

Both answers are for each number by itself: draws [C, D, ...] of C chains give one answer for each
place in [...], be it a weight, or the log probability of a class at a test input. For a Bayesian
neural network the second is the question: its weights may be exchanged and change their sign
without any change of the function, so that chains that agree on every prediction may never agree on
a weight.
"""

import math
from collections.abc import Callable

import torch

from kempe_nb.checks import check_dtype, check_finite, common_device

#: Columns whose spectra are in memory at once.
CHUNK = 512


def split_r_hat(draws: torch.Tensor) -> torch.Tensor:
    """Return R-hat of the halves of chains: how much wider all are together than each by itself.

    Each chain is cut into its first and its last D // 2 draws, so that a drift of one chain counts
    like the distance of two. With the mean W of the variances of the halves, and the variance B of
    their means,

        R-hat = sqrt((W (n - 1) / n + B) / W),   n = D // 2.

    About 1 where the halves agree; Gelman et al. (Bayesian Data Analysis, 3rd edition, 11.4). It
    is not rank-normalised: chains of equal means and different widths have R-hat 1, and it says
    nothing about numbers without a variance (Vehtari et al., arXiv 1903.08008).

    Parameters
    ----------
    draws : float32 or float64 [C, D, ...]
        D from 4 up; finite. Computed in float64.

    Returns
    -------
    float64 [...]
        NaN where every draw of every chain is the same number, about which nothing can be said;
        infinite where no half moves, but not all are at the same place.

    Raises
    ------
    TypeError, ValueError
        If `draws` is of another dtype or shape, or not finite.
    """
    _check(draws)
    return _by_columns(_r_hat, draws)


def effective_sample_size(draws: torch.Tensor) -> torch.Tensor:
    """Return how many independent draws would give a mean as precise as that of these.

    The autocorrelations of all chains together are

        rho(t) = 1 - (W - mean over chains of the autocovariance at lag t) / (W (D - 1) / D + B)

    with W and B as in `split_r_hat`, but of whole chains, so that chains that have not met count
    for little; B is left out for a single chain, whose rho(t) are the common ones. Then

        ESS = C D / (-1 + 2 sum over t of the pairs rho(2t) + rho(2t + 1)),

    the sum being Geyer's initial monotone sequence: pairs as long as they are positive, none above
    one before it (Statistical Science 7, 1992, section 3.3; Stan reference manual, 15.4). Draws
    that alternate around the mean are worth more than independent ones; as in Stan, an ESS above
    C D log10(C D) is not believed.

    Parameters, errors
        As `split_r_hat`.

    Returns
    -------
    float64 [...]
        NaN where no chain moves.
    """
    _check(draws)
    return _by_columns(_sample_size, draws)


def _r_hat(draws: torch.Tensor) -> torch.Tensor:
    """Return R-hat [K] of draws [C, K, D]."""
    half = draws.shape[2] // 2
    halves = torch.cat([draws[..., :half], draws[..., -half:]])
    within, between = _variances(halves)
    return ((within * (half - 1) / half + between) / within).sqrt()


def _sample_size(draws: torch.Tensor) -> torch.Tensor:
    """Return the effective sample size [K] of draws [C, K, D]."""
    chains, _, length = draws.shape
    within, between = _variances(draws)
    total = within * (length - 1) / length + between
    if chains == 1:
        within = total
    rho = 1 - (within[:, None] - _autocovariance(draws).mean(0)) / total[:, None]
    rho[:, 0] = 1.0
    pairs = rho[:, : length // 2 * 2].unflatten(1, (-1, 2)).sum(2)
    pairs[:, 1:] = pairs[:, 1:].clamp(min=0.0).cummin(1).values
    count = chains * length
    shares = (2 * pairs.sum(1) - 1).clamp(min=1 / math.log10(count))
    return torch.where(within > 0, count / shares, math.nan)


def _variances(draws: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean variance of a chain, and the variance of the means, [K] each."""
    # Less its first draw, a chain that stands still is exactly zero, and so is its variance; its
    # own mean may differ from it in the last digit.
    moved = draws - draws[..., :1]
    means = moved.mean(2) + (draws[..., 0] - draws[:1, :, 0])
    between = means.var(0) if len(draws) > 1 else torch.zeros_like(means[0])
    return moved.var(2).mean(0), between


def _autocovariance(draws: torch.Tensor) -> torch.Tensor:
    """Return the biased autocovariance of each chain at all lags, [C, K, D]."""
    length = draws.shape[2]
    # As many zeros as draws at least, or the ends of a chain would meet.
    size = 2 ** math.ceil(math.log2(2 * length))
    spectrum = torch.fft.rfft(draws - draws.mean(2, keepdim=True), n=size)
    return torch.fft.irfft(spectrum.abs().square(), n=size)[..., :length] / length


def _by_columns(statistic: Callable, draws: torch.Tensor) -> torch.Tensor:
    """Return a statistic of each column of draws [C, D, ...] as [...], some columns at a time."""
    columns = draws.detach().flatten(2) if draws.ndim > 2 else draws.detach()[..., None]
    if not columns.shape[2]:
        # There is no transform of no signals.
        return torch.empty(draws.shape[2:], dtype=torch.float64, device=draws.device)
    found = [statistic(part.double().mT.contiguous()) for part in columns.split(CHUNK, 2)]
    return torch.cat(found).reshape(draws.shape[2:])


def _check(draws: torch.Tensor) -> None:
    common_device(draws=draws)
    check_dtype(draws, "draws", (torch.float32, torch.float64))
    if draws.ndim < 2 or draws.shape[0] < 1 or draws.shape[1] < 4:
        raise ValueError(
            f"draws has shape {tuple(draws.shape)}; accepted is [C, D, ...] with a chain or more, "
            "of 4 draws or more"
        )
    check_finite(draws, "draws")
