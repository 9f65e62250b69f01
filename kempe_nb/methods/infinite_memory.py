"""A learner with infinite memory on a Zipf law: exact test errors and their scaling laws.

The setting of *A Tale of Tails* (Dohmatob et al., ICML 2024, arXiv 2402.07043), after Hutter's
learning-curve theory (2021): tokens i = 1, 2, ... with probabilities p_i = A i^-beta, each with one
right answer, and a learner that knows exactly the tokens of its training set. Trained on T
independent draws from q and tested on p, its expected error is sum_i p_i (1 - q_i)^T.

All functions work in float64, take scalars or arrays for the sizes, and never truncate the Zipf
law: the ranks beyond the explicit sum enter by an incomplete gamma function.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from kempe_nb.checks import checked_integer, checked_probabilities

#: Ranks that enter one by one; the sum over those beyond is an integral (see `clean_error`).
EXPLICIT_RANKS = 20_000
#: Sizes of samples up to here are exact in float64.
LARGEST_SIZE = 2**53


def zipf_constant(beta: float) -> float:
    """Return A = 1/zeta(beta), the probability of the most frequent token.

    Raises
    ------
    ValueError
        Unless beta is a finite number above 1; at 1 and below the law has no finite mass.
    """
    return float(1 / special.zeta(_checked_beta(beta)))


def zipf_probabilities(beta: float, ranks: int) -> np.ndarray:
    """Return p_1, ..., p_ranks of the infinite Zipf law, float64 [ranks]; their sum is below 1."""
    ranks = _checked_rank(ranks, "ranks")
    return zipf_constant(beta) * np.arange(1, ranks + 1, dtype=np.float64) ** -beta


def tail_mass(beta: float, rank: ArrayLike) -> np.ndarray:
    """Return the mass of all tokens behind `rank`, sum over i > rank of p_i, exactly."""
    return zipf_constant(beta) * special.zeta(beta, np.asarray(rank, dtype=np.float64) + 1)


def scaling_exponent(beta: float) -> float:
    """Return c = 1 - 1/beta, the exponent of the clean law."""
    return 1 - 1 / _checked_beta(beta)


def clean_constant(beta: float) -> float:
    """Return C = A^(1/beta) Gamma(1 - 1/beta) / beta, the sharp constant of the clean law."""
    c = scaling_exponent(beta)
    return zipf_constant(beta) ** (1 - c) * special.gamma(c) / beta


def clean_law(samples: ArrayLike, beta: float) -> np.ndarray:
    """Return C T^-c, the error of a learner trained on T true samples as T grows."""
    return clean_constant(beta) * _checked_sizes(samples, "samples") ** -scaling_exponent(beta)


def clean_error(samples: ArrayLike, beta: float) -> np.ndarray:
    """Return the exact expected error after T draws from the Zipf law itself.

    The first `EXPLICIT_RANKS` terms of sum_i p_i (1 - p_i)^T are summed; `error_behind` gives the
    others, with (1 - p)^T replaced by e^(-T p), right up to a relative error below 1e-5.
    """
    sizes = _checked_sizes(samples, "samples")
    head = _missed_mass(zipf_probabilities(beta, EXPLICIT_RANKS), None, sizes)
    return head + error_behind(sizes, beta, EXPLICIT_RANKS)


def error_behind(samples: ArrayLike, beta: float, rank: int) -> np.ndarray:
    """Return sum over i > rank of p_i e^(-T p_i): what the ranks behind add to an expected error.

    The midpoint rule turns the sum into an incomplete gamma function,
    A^(1/beta) T^-c gamma(c, T A N^-beta) / beta with N = rank + 1/2; its relative error is of the
    order of 1/rank^2. A simulation that follows the first ranks alone adds this for the others.
    """
    return _error_behind(_checked_sizes(samples, "samples"), beta, _checked_rank(rank, "rank"))


def cut_error(samples: ArrayLike, beta: float, cut: int) -> np.ndarray:
    """Return the exact expected error after T draws from the Zipf law cut behind rank `cut`.

    The training law is q_i = p_i / (p_1 + ... + p_cut) for i <= cut and zero behind; the test law
    is the full one.
    """
    p = zipf_probabilities(beta, _checked_rank(cut, "cut"))
    sizes = _checked_sizes(samples, "samples")
    return _missed_mass(p, p / p.sum(), sizes) + tail_mass(beta, cut)


def cut_floor(beta: float, cut: ArrayLike) -> np.ndarray:
    """Return B = A k^-(beta-1) / (beta-1), the sharp form of the error that no data removes."""
    return zipf_constant(beta) * _checked_sizes(cut, "cut") ** (1 - beta) / (beta - 1)


def cut_crossover(beta: float, cut: ArrayLike) -> np.ndarray:
    """Return T* = k^beta / A, the sample size at which the rarest kept token is seen about once."""
    return _checked_sizes(cut, "cut") ** beta / zipf_constant(beta)


def narrowed_error(samples: ArrayLike, beta: float, training_beta: float) -> np.ndarray:
    """Return the exact expected error after T draws from the Zipf law with another exponent.

    The training law is q_i = A' i^-beta' with A' = 1/zeta(beta'), the test law has `beta`. Softmax
    sampling at temperature tau turns beta into beta/tau. Ranks behind `EXPLICIT_RANKS` enter by an
    incomplete gamma function, as in `clean_error`.
    """
    sizes, s = _checked_sizes(samples, "samples"), narrowed_exponent(beta, training_beta)
    p, q = (zipf_probabilities(exponent, EXPLICIT_RANKS) for exponent in (beta, training_beta))
    scale = sizes * zipf_constant(training_beta)
    edge = scale * (EXPLICIT_RANKS + 0.5) ** -training_beta
    behind = zipf_constant(beta) / training_beta * special.gamma(s) * special.gammainc(s, edge)
    return _missed_mass(p, q, sizes) + behind * scale**-s


def narrowed_exponent(beta: float, training_beta: float) -> float:
    """Return (beta - 1)/beta', the exponent of the law of `narrowed_law`."""
    return (_checked_beta(beta) - 1) / _checked_beta(training_beta, "training_beta")


def narrowed_law(samples: ArrayLike, beta: float, training_beta: float) -> np.ndarray:
    """Return (A/beta') Gamma(s) (A' T)^-s with s = (beta-1)/beta', the error as T grows."""
    s, sizes = narrowed_exponent(beta, training_beta), _checked_sizes(samples, "samples")
    constant = zipf_constant(beta) / training_beta * special.gamma(s)
    return constant * (zipf_constant(training_beta) * sizes) ** -s


def mixed_error(samples: ArrayLike, beta: float, cut: int, real_share: float) -> np.ndarray:
    """Return the exact expected error after T draws, a share of them real and the others cut.

    The training law is pi p + (1 - pi) q, where q is the Zipf law p cut behind rank `cut` and pi is
    `real_share`. Behind the cut this is the error of pi T true samples.
    """
    share, sizes = _checked_share(real_share), _checked_sizes(samples, "samples")
    p = zipf_probabilities(beta, _checked_rank(cut, "cut"))
    head = _missed_mass(p, share * p + (1 - share) * p / p.sum(), sizes)
    if share == 0:
        return head + tail_mass(beta, cut)
    explicit = max(cut, EXPLICIT_RANKS)
    rest = zipf_probabilities(beta, explicit)[cut:]
    return (
        head + _missed_mass(rest, share * rest, sizes) + error_behind(share * sizes, beta, explicit)
    )


def mixed_narrowed_error(
    samples: ArrayLike, beta: float, training_beta: float, real_share: float
) -> np.ndarray:
    """Return the expected error after T draws, a share of them real and the others narrowed.

    The training law is pi p + (1 - pi) q with p_i = A i^-beta and q_i = A' i^-beta'. Ranks behind
    `EXPLICIT_RANKS` enter by an integral over the logarithm of the rank, up to rank 10^18.
    """
    share, sizes = _checked_share(real_share), _checked_sizes(samples, "samples")
    constants = zipf_constant(beta), zipf_constant(_checked_beta(training_beta, "training_beta"))

    def laws(rank):
        p = constants[0] * rank**-beta
        return p, share * p + (1 - share) * constants[1] * rank**-training_beta

    head = _missed_mass(*laws(np.arange(1.0, EXPLICIT_RANKS + 1)), sizes)
    nodes, weights = np.polynomial.legendre.leggauss(400)
    low, high = np.log(EXPLICIT_RANKS + 0.5), np.log(1e18)
    rank = np.exp(low + (high - low) * (nodes + 1) / 2)
    p, q = laws(rank)
    density = weights * (high - low) / 2 * rank * p
    behind = [density @ np.exp(-size * q) for size in np.ravel(sizes)]
    return head + np.reshape(behind, np.shape(sizes)) + tail_mass(beta, 1e18)


def mixed_narrowed_crossover(
    beta: float, training_beta: float, real_share: float
) -> tuple[float, float]:
    """Return the rank at which real and narrowed data show a token equally often, and its T.

    With pi A i^-beta = (1 - pi) A' i^-beta', the rank is ((1-pi) A' / (pi A))^(1/(beta'-beta)) and
    the sample size at which real data shows it once is i^beta / (pi A).

    Raises
    ------
    ValueError
        Unless training_beta > beta and the share is above 0 and below 1.
    """
    share = _checked_share(real_share)
    if not (_checked_beta(training_beta, "training_beta") > _checked_beta(beta) and 0 < share < 1):
        raise ValueError(
            f"training_beta is {training_beta!r} with beta={beta!r} and real_share={real_share!r}; "
            "accepted are training_beta above beta and a share between 0 and 1"
        )
    real, narrowed = share * zipf_constant(beta), (1 - share) * zipf_constant(training_beta)
    rank = (narrowed / real) ** (1 / (training_beta - beta))
    return rank, rank**beta / real


def bought_error(
    samples: ArrayLike, beta: float, cut: int, bought_from: int, bought_share: float
) -> np.ndarray:
    """Return the exact expected error of cut data with bought data on the far tail.

    A share of the T draws comes from the Zipf law behind rank `bought_from`, the others from the
    law cut behind rank `cut`; what lies between the two is never seen.

    Raises
    ------
    ValueError
        Unless cut <= bought_from and the share is above 0 and below 1.
    """
    share = _checked_share(bought_share)
    cut, start = _checked_rank(cut, "cut"), _checked_rank(bought_from, "bought_from")
    if cut > start or not 0 < share < 1:
        raise ValueError(
            f"bought_from is {bought_from!r} with cut={cut!r} and bought_share={bought_share!r}; "
            "accepted are a rank from cut on and a share between 0 and 1"
        )
    sizes = _checked_sizes(samples, "samples")
    p = zipf_probabilities(beta, cut)
    head = _missed_mass(p, (1 - share) * p / p.sum(), sizes)
    between = tail_mass(beta, cut) - tail_mass(beta, start)
    # Behind `start` the bought data is a clean sample, denser by the inverse of the mass there.
    density = share / tail_mass(beta, start)
    explicit = start + EXPLICIT_RANKS
    near = zipf_constant(beta) * np.arange(start + 1.0, explicit + 1) ** -beta
    behind = _missed_mass(near, density * near, sizes)
    return head + between + behind + _error_behind(density * sizes, beta, explicit)


def survival_multiplier(ratio: ArrayLike, generations: int = 1) -> np.ndarray:
    """Return h(h(...h(ratio))), `generations` times, with h(s) = 1 - e^-s.

    h is the probability that a Poisson number of offspring with mean s is not zero, so the iterate
    says how much of a sample is left after so many rounds of resampling. `ratio` may be infinite.
    """
    generations = checked_integer(generations, "generations", 0)
    value = np.asarray(ratio, dtype=np.float64)
    if np.isnan(value).any() or (value <= 0).any():
        raise ValueError(f"ratio is {ratio!r}; accepted are positive numbers and infinity")
    for _ in range(generations):
        value = -np.expm1(-value)
    return value


def effective_samples(samples: ArrayLike, generator_samples: float, generations: int = 1):
    """Return T_eff: how many true samples T samples of the last generator are worth.

    T_eff = T_0 h(h(...h(T/T_0))) with h(s) = 1 - e^-s, `generations` times; T may be infinite. It
    is exact for Poissonised counts and derived in the chapter on model collapse.
    """
    size = _checked_sizes(generator_samples, "generator_samples")
    wanted = np.asarray(samples, dtype=np.float64)
    finite = _checked_sizes(np.where(np.isinf(wanted) & (wanted > 0), 1, wanted), "samples")
    ratio = np.where(np.isinf(wanted), np.inf, finite / size)
    return size * survival_multiplier(ratio, generations)


def missed_mass(p: ArrayLike, q: ArrayLike, samples: ArrayLike) -> np.ndarray:
    """Return sum_i p_i (1 - q_i)^T for two laws on the same finite vocabulary.

    Parameters
    ----------
    p, q : array_like [V]
        The test law and the training law; each sums to 1.
    samples : array_like
        T, one or many sizes.

    Raises
    ------
    ValueError
        For laws that are empty, negative, not finite, not normalised or of different lengths, and
        for sizes that are not in (0, 2**53].
    """
    p, q = checked_probabilities(p, "p"), checked_probabilities(q, "q")
    if len(p) != len(q):
        raise ValueError(f"p has {len(p)} entries and q has {len(q)}; accepted are equal lengths")
    return _missed_mass(p, q, _checked_sizes(samples, "samples"))


def top_k(p: ArrayLike, k: int) -> np.ndarray:
    """Return the law cut to its k most probable tokens and rescaled, float64 [V].

    Raises
    ------
    ValueError
        For a bad law, or a k that is not an integer from 1 to the size of the vocabulary.
    """
    law = checked_probabilities(p, "p")
    k = checked_integer(k, "k", 1, len(law))
    cut = np.zeros_like(law)
    keep = np.argsort(-law, kind="stable")[:k]
    cut[keep] = law[keep] / law[keep].sum()
    return cut


def nucleus_rank(beta: float, mass: float) -> int:
    """Return the smallest k such that the first k tokens of the infinite Zipf law hold `mass`.

    Raises
    ------
    ValueError
        Unless mass is in (0, 1) and k is at most 2**53.
    """
    _checked_beta(beta)
    if not 0 < mass < 1:
        raise ValueError(f"mass is {mass!r}; accepted is a number between 0 and 1, both excluded")
    low, high = 0, 1
    while 1 - tail_mass(beta, high) < mass:
        low, high = high, 2 * high
        if high > LARGEST_SIZE:
            raise ValueError(f"mass is {mass!r}; at beta={beta} it needs more than 2**53 ranks")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if 1 - tail_mass(beta, middle) < mass else (low, middle)
    return high


def _missed_mass(p: np.ndarray, q: np.ndarray | None, sizes: np.ndarray) -> np.ndarray:
    """Return the sum for each size; log1p keeps (1 - q)^T right for the rarest tokens."""
    with np.errstate(divide="ignore"):
        log_miss = np.log1p(-(p if q is None else q))
    # No dot product: BLAS would share it between threads, which wait for each other.
    flat = [np.sum(p * np.exp(size * log_miss)) for size in np.ravel(sizes)]
    return np.reshape(flat, np.shape(sizes))


def _error_behind(sizes: np.ndarray, beta: float, rank: int) -> np.ndarray:
    c, edge = scaling_exponent(beta), sizes * zipf_constant(beta) * (rank + 0.5) ** -beta
    return clean_constant(beta) * sizes**-c * special.gammainc(c, edge)


def _checked_beta(beta: float, name: str = "beta") -> float:
    if not np.isscalar(beta) or not np.isfinite(beta) or beta <= 1:
        raise ValueError(f"{name} is {beta!r}; accepted is a finite number above 1")
    return float(beta)


def _checked_share(share: float) -> float:
    if not np.isscalar(share) or not 0 <= share <= 1:
        raise ValueError(f"the share is {share!r}; accepted is a number from 0 to 1")
    return float(share)


def _checked_rank(rank: int, name: str) -> int:
    return checked_integer(rank, name, 1, 10**8)


def _checked_sizes(sizes: ArrayLike, name: str) -> np.ndarray:
    values = np.asarray(sizes, dtype=np.float64)
    if not ((values > 0) & (values <= LARGEST_SIZE)).all():
        raise ValueError(f"{name} is {sizes!r}; accepted are positive numbers up to 2**53")
    return values
