r"""How far an adversary of bounded power lowers the threshold of the harmful mass.

On the simplex of n explanations, n_h of them harmful, the harmful zone is {s >= p} for the harmful
mass s. Its expansion by epsilon holds all points within a distance epsilon of it (*Mission
Impossible*, Su, Kempe and Ullrich, arXiv 2408.01420, definitions 4.2 and 4.4). For three distances
it is a zone of the same kind, {s >= t} with a lower threshold t:

* `l1`: whoever moves the mass p - s to the harmful side pays 2 (p - s), so t = p - epsilon / 2;
* `tv`: total variation is half of it, so t = p - epsilon;
* `jsd`: the Jensen-Shannon divergence in nats, not its root. It is least if the proportions within
  both sides are kept, and then it is that of (s, 1 - s) and (p, 1 - p). So t <= p is the root of
  JSD((t, 1 - t), (p, 1 - p)) = epsilon.

For `l2` it is one in the interior alone. A step that spreads the mass d evenly over the harmful
side, and takes it evenly from the safe one, has the length d sqrt(1/n_h + 1/n_s), and no shorter
one moves as much. Near the boundary there may be nothing to take.
"""

import math

from scipy.optimize import brentq
from scipy.special import xlogy

from kempe_nb.checks import checked_choice, checked_integer, checked_number

#: The largest value of each distance on a simplex.
RANGES = {"l1": 2.0, "tv": 1.0, "jsd": math.log(2), "l2": math.sqrt(2)}
#: How the largest values are written.
SPOKEN = {"l1": "2", "tv": "1", "jsd": "log 2", "l2": "sqrt 2"}
#: Below this ratio the divergence is summed without the logarithm of a small number.
NEAR = 0.5


def lowered_threshold(
    p: float,
    epsilon: float,
    distance: str,
    *,
    harmful: int | None = None,
    explanations: int | None = None,
) -> float:
    """Return t such that the points within epsilon of {s >= p} are those with s >= t.

    For `l2` t ignores the boundary of the simplex: {s >= t} holds all these points and maybe
    others, so its probability is an upper bound.

    Parameters
    ----------
    p : float
        The threshold of the harmful zone, between 0 and 1.
    epsilon : float
        From 0 to the largest value of the distance: 2, 1, log 2 and sqrt 2.
    distance : {"l1", "tv", "jsd", "l2"}
    harmful, explanations : int, optional
        n_h from 1 to n - 1, and n from 2 on. Needed for `l2` alone.

    Returns
    -------
    float
        At most p. Where it is 0 or less, the probability is 1: every point is within epsilon of the
        harmful zone (with `l2`, whose probability is an upper bound, that says nothing).

    Raises
    ------
    ValueError
        For an argument out of its range, a distance of another name, and `l2` without the numbers
        of explanations.

    Examples
    --------
    >>> lowered_threshold(0.5, 0.25, "l1")
    0.375
    """
    accepted = "a number between 0 and 1"
    p = checked_number(p, "p", math.nextafter(0.0, 1.0), 1.0, accepted)
    checked_choice(distance, "distance", RANGES)
    beyond = math.nextafter(RANGES[distance], math.inf)
    accepted = f"a number from 0 to {SPOKEN[distance]} for {distance}"
    epsilon = checked_number(epsilon, "epsilon", 0.0, beyond, accepted)
    if distance == "l2" or not harmful is explanations is None:
        explanations = checked_integer(explanations, "explanations", 2)
        harmful = checked_integer(harmful, "harmful", 1, explanations - 1)
    if distance == "l1":
        return p - epsilon / 2
    if distance == "tv":
        return p - epsilon
    if distance == "jsd":
        return p - _drop(p, epsilon)
    return p - epsilon / math.sqrt(1 / harmful + 1 / (explanations - harmful))


def two_point_divergence(t: float, p: float) -> float:
    """Return the Jensen-Shannon divergence of (t, 1 - t) and (p, 1 - p) in nats.

    It is right to rounding where t and p are close, too. Both are numbers from 0 to 1.
    """
    return _divergence(p, p - t)


def _drop(p: float, epsilon: float) -> float:
    """Return by how much the divergence `epsilon` lowers p; at most by p."""
    if epsilon == 0:
        return 0.0
    if epsilon >= _divergence(p, p):
        return p
    # In terms of the drop, which may be tiny, and not of t.
    root = brentq(
        lambda drop: _divergence(p, drop) - epsilon, 0.0, p, xtol=1e-300, rtol=1e-14, maxiter=2000
    )
    return float(root)


def _divergence(p: float, drop: float) -> float:
    """Return the divergence of (p - drop, ...) and (p, ...) from p's distance to the middle."""
    half = drop / 2
    return sum(
        middle * _spread(min(half / middle, 1.0)) / 2 if half else 0.0
        for middle in (p - half, 1 - p + half)
    )


def _spread(ratio: float) -> float:
    """Return (1 - r) log(1 - r) + (1 + r) log(1 + r), of which r^2 is the first term."""
    r = abs(ratio)
    if r < NEAR:
        return math.log1p(-r * r) + 2 * r * math.atanh(r)
    return float(xlogy(1 - r, 1 - r) + xlogy(1 + r, 1 + r))
