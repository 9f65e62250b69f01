"""An associative memory of limited size: what it recalls, by simulation and by formula.

The model of Cabannes, Dohmatob and Bietti (ICLR 2024, arXiv 2310.02984), which *A Tale of Tails*
uses in its section 5. Inputs i = 1, ..., N have random embeddings e_i, classes y random embeddings
u_y, all in R^d. The memory is one matrix, M = sum_i q_i e_i u_{y_i}^T, a superposition of all
stored pairs; asked about i it answers argmax_y e_i^T M u_y. The storage scheme is the choice of q.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from kempe_nb.checks import checked_choice, checked_integer

SCHEMES = ("frequency", "threshold", "equal")


def storage_weights(frequencies: ArrayLike, scheme: str, kept: int | None = None) -> np.ndarray:
    """Return q for what was seen of each input, float64 [N].

    Parameters
    ----------
    frequencies : array_like [N]
        Non-negative: how often each input was seen, as counts or shares.
    scheme : {"frequency", "threshold", "equal"}
        Store a pair with the weight of its frequency; the `kept` most frequent pairs with weight 1
        and no others; or every pair that was seen with weight 1.
    kept : int, optional
        For "threshold" only; about d/8 pairs fit into a memory of width d without confusion.

    Raises
    ------
    ValueError
        For an unknown scheme, a `kept` that is missing, not positive or not wanted, or frequencies
        that are empty, negative or not finite.
    """
    seen = np.asarray(frequencies, dtype=np.float64)
    if seen.ndim != 1 or not seen.size or not np.isfinite(seen).all() or (seen < 0).any():
        raise ValueError(f"frequencies is {frequencies!r}; accepted are non-negative numbers [N]")
    checked_choice(scheme, "scheme", SCHEMES)
    if (kept is not None) != (scheme == "threshold"):
        raise ValueError(f"kept is {kept!r} with scheme {scheme!r}; it belongs to 'threshold'")
    if scheme == "frequency":
        return seen / max(seen.sum(), 1e-300)
    stored = seen > 0
    if scheme == "threshold":
        checked_integer(kept, "kept", 1)
        often = np.zeros(len(seen), bool)
        often[np.argsort(-seen, kind="stable")[:kept]] = True
        stored &= often
    return stored.astype(np.float64)


def memory_scores(
    labels: np.ndarray, weights: np.ndarray, width: int, classes: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the scores e_i^T M u_y of one memory with fresh embeddings, float64 [N, classes].

    Embeddings are normal with variance 1/d in each coordinate, so of length one on average. M
    itself is d x d, but M u_y = sum_c (sum over inputs of class c of q_i e_i) (u_c . u_y) needs d x
    classes.
    """
    inputs = rng.standard_normal((len(labels), width)) / np.sqrt(width)
    outputs = rng.standard_normal((classes, width)) / np.sqrt(width)
    sums = inputs.T @ (weights[:, None] * (labels[:, None] == np.arange(classes)))
    return inputs @ (sums @ (outputs @ outputs.T))


def recall_error(
    law: ArrayLike,
    labels: ArrayLike,
    weights: ArrayLike,
    width: int,
    rng: np.random.Generator,
) -> float:
    """Return the share of a law that one memory with fresh embeddings answers wrongly.

    Parameters
    ----------
    law : array_like [N]
        Probabilities of the inputs in the test.
    labels : array_like [N]
        The right class of each input, integers from 0.
    weights : array_like [N]
        q, from `storage_weights`. Without anything stored all scores are zero, and class 0 wins.
    width : int
        d, the dimension of the embeddings.
    rng : numpy.random.Generator

    Raises
    ------
    ValueError
        For lengths that differ, labels below zero or a width that is not a positive integer.
    """
    law, labels, weights = np.asarray(law, np.float64), np.asarray(labels), np.asarray(weights)
    if not len(law) == len(labels) == len(weights):
        raise ValueError(
            f"law, labels and weights have lengths {len(law)}, {len(labels)} and {len(weights)}; "
            "accepted are equal ones"
        )
    width = checked_integer(width, "width", 1)
    if labels.dtype.kind not in "iu" or not len(labels) or labels.min() < 0:
        raise ValueError(f"labels is {labels.tolist()!r}; accepted are integers from 0 up [N]")
    scores = memory_scores(labels, weights, width, int(labels.max()) + 1, rng)
    return float(law[scores.argmax(1) != labels].sum())


def expected_recall_error(
    law: ArrayLike, labels: ArrayLike, weights: ArrayLike, width: int
) -> float:
    """Return the expected error of `recall_error`, with the scores taken as independent normals.

    The right class has the score q_i plus noise, another one noise alone. A stored pair j of class
    c disturbs the score of class c with variance q_j^2/d, and that of every other class with
    variance q_j^2/d^2, because embeddings of classes overlap as well. The input's own pair disturbs
    the other classes with variance q_i^2/d. The probability that the right class wins is then an
    integral over one normal variable. Where all scores are equal, as with nothing stored, the
    formula counts a guess among the classes.
    """
    law, labels = np.asarray(law, np.float64), np.asarray(labels)
    weights = np.asarray(weights, np.float64)
    classes = int(labels.max()) + 1
    own_class = labels[:, None] == np.arange(classes)
    # Noise of class y in the score of input i, from all other pairs and from its own.
    power = np.bincount(labels, weights**2, classes) - own_class * weights[:, None] ** 2
    noise = power / width + (power.sum(1, keepdims=True) - power) / width**2
    noise += ~own_class * weights[:, None] ** 2 / width
    spread = np.sqrt(noise) + 1e-300
    # Inputs that the test never asks about disturb the others, and need no integral of their own.
    asked = np.flatnonzero(law)
    spread, own_class, weights = spread[asked], own_class[asked], weights[asked]
    right = spread[np.arange(len(asked)), labels[asked]][:, None]
    nodes, step = _nodes_around(-weights[:, None] / right)
    level = weights[:, None] + right * nodes
    wins = np.ones_like(level)
    for y in range(classes):
        others = special.ndtr(level / spread[:, y : y + 1])
        wins *= np.where(own_class[:, y : y + 1], 1.0, others)
    density = np.exp(-(nodes**2) / 2) / np.sqrt(2 * np.pi)
    return float(law[asked] @ (1 - (wins * density * step).sum(1)))


def _nodes_around(steep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and steps of an integral over a normal variable, dense around one place.

    Where the right class is far noisier than the others, its chance to win is a step at the level
    zero: hyperbolic sines put nodes there at any scale, and still reach ten standard deviations.
    """
    reach = np.arcsinh(2e4)
    grid, step = np.linspace(-reach, reach, 401, retstep=True)
    nodes = np.clip(steep, -10, 10) + 1e-3 * np.sinh(grid)
    return nodes, 1e-3 * np.cosh(grid) * step
