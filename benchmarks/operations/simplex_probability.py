"""Probabilities of harmful mass on a simplex: ours, without points, beside draws of all points."""

import functools

import numpy as np
import torch
from scipy import integrate, stats

from benchmarks.peers import simplex_draws as peers
from benchmarks.registry import Case, Implementation, Operation, Sizes, ours, within_five_errors
from kempe_nb import dispatch
from kempe_nb.kernels import simplex_probability as module
from kempe_nb.kernels.simplex_laws import DirichletLaw, LogisticNormalLaw

#: The Dirichlet parameter of each explanation, of which one in eight is harmful.
ALPHA, SHARE = 0.5, 8
#: The probabilities that are estimated of a Dirichlet law, and the rare ones with a tilt.
COMMON, RARE = (0.9, 0.5, 0.1, 0.01), (1e-7, 1e-8)
#: The thresholds of a logistic-normal law, whose logits are standard normal.
MASSES = (0.1, 0.125, 0.15)
#: Plain draws that stand for the truth of a logistic-normal law, for which there is no formula.
PLAIN = 400_000

TORCH, NUMPY = "torch, all points", "numpy, all points"
BETA, LOOP = "numpy beta or gamma", "loop over all points, Numba"


def _case(explanations: int, draws: int, *over_a_minute: str, normal=0, tilted=0) -> Case:
    """Return a case; its small version has another simplex, and draws that fill no block."""
    sizes = {"explanations": explanations, "draws": draws, "normal": normal, "tilted": tilted}
    return Case(sizes, sizes | {"explanations": 16, "draws": 100_001}, over_a_minute)


CASES = (
    _case(16, 10**6),
    _case(64, 10**6),
    _case(1_024, 10**5),
    _case(16_384, 10**4),
    # So many points that a GPU has work to do.
    _case(16_384, 10**6, TORCH, NUMPY, LOOP),
    # No aggregation: every logit has to be drawn.
    _case(1_024, 10**5, normal=1),
    # Events that plain draws never see.
    _case(64, 10**6, tilted=1),
)


def _law(sizes: Sizes) -> tuple[int, float, float]:
    """Return how many explanations are harmful, and the sums of the parameters of both sides."""
    harmful = max(1, sizes["explanations"] // SHARE)
    return harmful, ALPHA * harmful, ALPHA * (sizes["explanations"] - harmful)


def _thresholds(sizes: Sizes) -> np.ndarray:
    if sizes["normal"]:
        return np.array(MASSES)
    _, own, other = _law(sizes)
    return stats.beta.isf(RARE if sizes["tilted"] else COMMON, own, other)


def _tilt(sizes: Sizes) -> float:
    _, own, other = _law(sizes)
    return DirichletLaw(own, other).centring_tilt(_thresholds(sizes)[0])


def minimum_bytes(sizes: Sizes, dtype: str) -> int:
    """Return the bytes of thresholds and estimates, and of the logits' law; no point is stored."""
    explanations = sizes["explanations"] if sizes["normal"] else 0
    return module.OPERATION.minimum_bytes(len(_thresholds(sizes)), explanations)


def check(found: list[np.ndarray], sizes: Sizes, dtype: str) -> str:
    """Hold probabilities and their errors to the Beta law, or to many plain draws."""
    thresholds, draws = _thresholds(sizes), sizes["draws"]
    if any(each.shape != thresholds.shape for each in found):
        return f"the outputs have the shapes {[each.shape for each in found]}"
    probability, error = found
    if sizes["normal"]:
        expected = _plain(sizes["explanations"])
        variance = expected * (1 - expected)
        allowed = variance * (1 + draws / PLAIN)
    else:
        expected, variance = _exact(sizes["explanations"], sizes["tilted"])
        allowed = variance
    if fault := within_five_errors("the probability", probability, expected, allowed, draws):
        return fault
    # An error is known much better than its estimate, but for weights, of which few are large.
    off = np.abs(error / np.sqrt(variance / draws) - 1).max()
    return "" if off < 0.5 else f"the standard error is off by {off:.2g} of itself"


@functools.cache
def _exact(explanations: int, tilted: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities of a Dirichlet law, and the variances of one draw."""
    sizes = {"explanations": explanations, "normal": 0, "tilted": tilted}
    _, own, other = _law(sizes)
    thresholds = _thresholds(sizes)
    expected = stats.beta.sf(thresholds, own, other)
    if not tilted:
        return expected, expected * (1 - expected)
    h = _tilt(sizes)

    def square(s):
        log_weight = own * h + (own + other) * np.log(1 - s + s * np.exp(-h))
        return np.exp(log_weight + stats.beta.logpdf(s, own, other))

    squares = [integrate.quad(square, t, 1, epsrel=1e-6, epsabs=0)[0] for t in thresholds]
    return expected, np.array(squares) - expected**2


@functools.cache
def _plain(explanations: int) -> np.ndarray:
    """Return the probabilities of a logistic-normal law by draws of all its logits."""
    rng = np.random.default_rng(1)
    harmful, *_ = _law({"explanations": explanations})
    odds = np.exp(rng.standard_normal((PLAIN, explanations)))
    mass = odds[:, :harmful].sum(1) / odds.sum(1)
    return (mass[:, None] >= np.array(MASSES)).mean(0)


def _ours(impl: str):
    def prepare(sizes: Sizes, dtype: str, device: str):
        harmful, own, other = _law(sizes)
        law = DirichletLaw(own, other)
        if sizes["normal"]:
            law = LogisticNormalLaw(0.0, 1.0, np.arange(sizes["explanations"]) < harmful)
        thresholds = torch.from_numpy(_thresholds(sizes)).to(device)
        tilt = _tilt(sizes) if sizes["tilted"] else 0.0

        def call():
            found = module.simplex_probability(
                law, thresholds, sizes["draws"], 0, tilt=tilt, impl=impl
            )
            return found.probability, found.standard_error

        return call

    return prepare


def _torch(sizes: Sizes, dtype: str, device: str):
    torch.manual_seed(0)
    harmful, *_ = _law(sizes)
    thresholds = torch.from_numpy(_thresholds(sizes)).to(device)
    ones = torch.ones(sizes["explanations"], dtype=torch.float64, device=device)
    if sizes["normal"]:
        return lambda: peers.torch_softmax(0 * ones, ones, harmful, thresholds, sizes["draws"])
    return lambda: peers.torch_dirichlet(ALPHA * ones, harmful, thresholds, sizes["draws"])


def _numpy(sizes: Sizes, dtype: str, device: str):
    harmful, *_ = _law(sizes)
    rest = harmful, _thresholds(sizes), sizes["draws"], np.random.default_rng(0)
    ones = np.ones(sizes["explanations"])
    if sizes["normal"]:
        return lambda: peers.numpy_softmax(0 * ones, ones, *rest)
    return lambda: peers.numpy_dirichlet(ALPHA * ones, *rest)


def _aggregated(sizes: Sizes, dtype: str, device: str):
    _, *sums = _law(sizes)
    rest = _thresholds(sizes), sizes["draws"], np.random.default_rng(0)
    if sizes["tilted"]:
        tilt = _tilt(sizes)
        return lambda: peers.numpy_tilted(*sums, tilt, *rest)
    return lambda: peers.numpy_beta(*sums, *rest)


def _loop(sizes: Sizes, dtype: str, device: str):
    harmful, *_ = _law(sizes)
    rest = harmful, _thresholds(sizes), sizes["draws"]
    ones = np.ones(sizes["explanations"])
    if sizes["normal"]:
        return lambda: peers.loop_softmax(0 * ones, ones, *rest)
    return lambda: peers.loop_dirichlet(ALPHA * ones, *rest)


def _rare_obstacle(sizes: Sizes, device: str) -> str:
    return "without weights such an event takes more than 1e9 draws" if sizes["tilted"] else ""


def _loop_obstacle(sizes: Sizes, device: str) -> str:
    return _rare_obstacle(sizes, device) or dispatch.numba_obstacle(torch.device(device)) or ""


def _sums_obstacle(sizes: Sizes, device: str) -> str:
    return "a logistic-normal law has no aggregated form" if sizes["normal"] else ""


OPERATION = Operation(
    name=module.OPERATION.name,
    dtypes=("float64",),
    cases=CASES,
    implementations=(
        *ours(module.OPERATION, _ours),
        Implementation(TORCH, _torch, obstacle=_rare_obstacle),
        Implementation(NUMPY, _numpy, ("cpu",), eager=False, obstacle=_rare_obstacle),
        Implementation(BETA, _aggregated, ("cpu",), eager=False, obstacle=_sums_obstacle),
        Implementation(LOOP, _loop, ("cpu",), eager=False, obstacle=_loop_obstacle),
    ),
    minimum_bytes=minimum_bytes,
    check=check,
)
