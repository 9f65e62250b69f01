"""What an ensemble predicts and how sure it is, in one read of its logits.

For logits z_snk of S networks (samples of a posterior, masks of dropout, members of an ensemble), N
inputs and K classes, with p_sn = softmax(z_sn):

    mean         pbar_nk = (1/S) sum_s p_snk                      the prediction
    total        H[pbar_n] = - sum_k pbar_nk log pbar_nk          how unsure the prediction is
    expected     (1/S) sum_s H[p_sn]                              how unsure each network is
    mutual       total - expected >= 0                            how much the networks disagree

all entropies in nats. The mutual information is that between the label and the network; it is zero
where all networks say the same, and for one network.

Attacks need the gradient of log pbar. With the responsibilities

    r_s = p_sy / sum_t p_ty,    d(- log pbar_y) / d z_s = r_s (p_s - e_y):

of two classes a network pulls as p_sy (1 - p_sy), so the undecided networks have most of the
gradient, and those that are sure, of the label or against it, little. The mean of the networks' own
gradients is another thing.

Accuracy. A posterior network may be so sure that p rounds to one. Then log p of the other classes
is a difference of logits and right, but log p of the top class is not: it is -log1p(r), with r the
sum of the odds of the others, and a logarithm of 1 + r has lost r. So r is formed without the top
class everywhere: entropies of 1e-20 have their digits, and so has the loss of a prediction that is
nearly sure. The mean is a log-sum-exp over the networks, never the logarithm of a mean. The mutual
information is right to rounding of the total entropy.

Bytes. The logits are read once; [N, K] and [N] are written. The obvious chain of library calls
moves nine to ten times the bytes of the logits. With the gradient the logits are read once and as
much is written, where the chain moves eight to nine times their bytes.

When not to use it: with S = 1 a log-softmax does; and for logits of a language model, where K is
large and S is small, a fused cross-entropy.
"""

import math
from typing import NamedTuple

import torch
from torch.autograd import forward_ad

from kempe_nb.checks import (
    check_dtype,
    check_finite,
    check_labels,
    checked_choice,
    common_device,
)
from kempe_nb.dispatch import Operation, observed

#: Rows of each network that are looked at for probabilities in place of logits, and the fewest rows
#: that tell anything: a row of two logits may sum to 1 by chance.
LOOKED_AT, TELLING = 64, 4
#: Bytes of the longest row that the Triton code holds on chip: 8,192 classes in float32.
ON_CHIP = 2**15
OBJECTIVES = ("nll", "margin")


class EnsembleMoments(NamedTuple):
    """What an ensemble says of N inputs; float32, or float64 for logits in float64."""

    #: log pbar [N, K].
    log_mean: torch.Tensor
    #: H[pbar] in nats [N].
    total_entropy: torch.Tensor
    #: The mean of the networks' entropies in nats [N].
    expected_entropy: torch.Tensor
    #: Their difference in nats [N], never negative.
    mutual_information: torch.Tensor


class EnsembleLoss(NamedTuple):
    """The loss of an ensemble at N inputs, and its derivative."""

    #: [N], float32, or float64 for logits in float64.
    values: torch.Tensor
    #: d values_n / d z_sn, the shape and dtype of the logits [S, N, K].
    gradient: torch.Tensor


def ensemble_moments(logits: torch.Tensor, *, impl: str | None = None) -> EnsembleMoments:
    """Return log of the mean probability, total and expected entropy, and mutual information.

    The result is differentiable any number of times with respect to the logits; the derivative is
    that of the definition.

    Parameters
    ----------
    logits : float16, bfloat16, float32 or float64 [S, N, K]
        S networks, S >= 1; K >= 2 classes.
    impl : {"definition", "numba", "triton"}, optional
        See `kempe_nb.dispatch`. Numba takes float32 and float64.

    Raises
    ------
    TypeError
        For logits that are no floating-point tensor.
    ValueError
        For another shape, no network, fewer than two classes, NaN or infinity, and probabilities in
        place of logits.

    Examples
    --------
    >>> z = torch.tensor([[[9.0, 0.0]], [[0.0, 9.0]]])
    >>> moments = ensemble_moments(z)
    >>> [round(each.item(), 3) for each in moments[1:]]
    [0.693, 0.001, 0.692]
    """
    choice = _checked_choice(logits, impl, "ensemble_moments")
    if choice == "definition":
        return EnsembleMoments(*_checked_results(logits, definition(logits)))
    return EnsembleMoments(*_checked_results(logits, _Moments.apply(logits, choice)))


def ensemble_nll(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    objective: str = "nll",
    impl: str | None = None,
) -> EnsembleLoss:
    """Return the loss of the mean prediction at each input and its gradient, in one read.

    Parameters
    ----------
    logits : float16, bfloat16, float32 or float64 [S, N, K]
        S networks, S >= 1; K >= 2 classes.
    labels : int64 [N]
        From 0 to K - 1, on the device of the logits.
    objective : {"nll", "margin"}
        "nll" is - log pbar_y; "margin" is log pbar_y - max over the others of log pbar, positive
        where the prediction is right.
    impl : {"definition", "numba", "triton"}, optional
        See `kempe_nb.dispatch`. Numba takes float32 and float64.

    Returns
    -------
    EnsembleLoss
        Neither is recorded by autograd: the gradient is handed on, as `logits.backward(gradient)`.

    Raises
    ------
    TypeError, ValueError
        As `ensemble_moments`; and for labels of another dtype or shape, or out of range, tensors on
        two devices, and an objective that is not one of the two.
    """
    common_device(logits=logits, labels=labels)
    checked_choice(objective, "objective", OBJECTIVES)
    choice = _checked_choice(logits, impl, "ensemble_nll")
    _check_labels(logits, labels)
    logits = logits.detach()
    if choice == "definition":
        loss, logs = loss_definition(logits, labels, objective)
    else:
        *loss, logs = _device_code(choice).loss(logits.contiguous(), labels, objective == "margin")
    _checked_results(logits, (logs,))
    return EnsembleLoss(*loss)


def minimum_bytes(
    networks: int, inputs: int, classes: int, itemsize: int = 4, *, gradient: bool = False
) -> int:
    """Return the bytes of the logits in and the moments out, or with the gradient of the loss."""
    elements = networks * inputs * classes
    if gradient:
        return itemsize * (2 * elements + inputs) + 8 * inputs
    return itemsize * (elements + inputs * (classes + 3))


OPERATION = Operation(
    "ensemble_moments",
    # Of the logits; the low ones are computed with in float32.
    dtypes=(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    minimum_bytes=minimum_bytes,
    implementations=("definition", "numba", "triton"),
    functions=("ensemble_moments", "ensemble_nll"),
)


def definition(logits: torch.Tensor) -> EnsembleMoments:
    """Return the moments in PyTorch, differentiable in every mode."""
    gaps, log_z = _gaps_and_normaliser(logits)
    log_p = -gaps - log_z
    log_mean = _log_mean(log_p)
    total = -(log_mean.exp() * log_mean).sum(-1)
    # Sums of positive terms: log z, and p times the gap for every class but the top one.
    expected = (log_z.squeeze(-1) + (log_p.exp() * gaps).sum(-1)).mean(0)
    # One network agrees with itself to the last bit.
    mutual = (total - expected).clamp(min=0) if len(logits) > 1 else 0 * total
    return EnsembleMoments(log_mean, total, expected, mutual)


def loss_definition(
    logits: torch.Tensor, labels: torch.Tensor, objective: str
) -> tuple[EnsembleLoss, torch.Tensor]:
    """Return the loss in PyTorch, with the closed form of its gradient, and a number [N].

    The number is finite where all logits are, so that nobody has to look at them again.
    """
    gaps, log_z = _gaps_and_normaliser(logits)
    log_p = -gaps - log_z
    log_mean = _log_mean(log_p)
    finite = log_mean.sum(1) + (log_p.exp() * gaps).sum((0, 2))
    of_label = log_mean.gather(1, labels[:, None])
    gradient = _gradient_of_nll(log_p, labels)
    if objective == "nll":
        return EnsembleLoss(-of_label.squeeze(1), gradient.to(logits.dtype)), finite
    highest, rival = log_mean.scatter(1, labels[:, None], -torch.inf).max(1, keepdim=True)
    gradient = _gradient_of_nll(log_p, rival.squeeze(1)) - gradient
    values = (of_label - highest).squeeze(1)
    return EnsembleLoss(values, gradient.to(logits.dtype)), finite


def _gaps_and_normaliser(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how far each logit lies below the top one, and log sum exp relative to the top one."""
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    highest, top = z.max(-1, keepdim=True)
    gaps = highest - z
    odds = torch.exp(-gaps).scatter(-1, top, 0.0).sum(-1, keepdim=True)
    return gaps, torch.log1p(odds)


def _log_mean(log_p: torch.Tensor) -> torch.Tensor:
    """Return the logarithm of the mean over the networks, [N, K], right where it is nearly zero."""
    mean = torch.logsumexp(log_p, 0) - math.log(len(log_p))
    highest, top = mean.max(-1, keepdim=True)
    rest = mean.exp().scatter(-1, top, 0.0).sum(-1, keepdim=True)
    # Bounded, because the other branch is differentiated, too.
    sure = torch.log1p(-rest.clamp(max=0.5))
    return mean.scatter(-1, top, torch.where(rest < 0.5, sure, highest))


def _gradient_of_nll(log_p: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return r_s (p_s - e_y), [S, N, K]; see the module."""
    own = labels[None, :, None].expand(*log_p.shape[:2], 1)
    shares = torch.softmax(log_p.gather(2, own), 0)
    away = log_p.exp().scatter(2, own, 0.0)
    # p_y - 1 as the sum of the others: it is right where p_y rounds to one.
    return shares * away.scatter(2, own, -away.sum(2, keepdim=True))


class _Moments(torch.autograd.Function):
    """Compiled code; its derivatives are those of the definition."""

    @staticmethod
    def forward(logits, implementation):
        return _device_code(implementation).moments(logits.contiguous())

    @staticmethod
    def setup_context(context, inputs, output):
        context.save_for_backward(inputs[0])

    @staticmethod
    def backward(context, *gradients):
        _, pull = torch.func.vjp(definition, *context.saved_tensors)
        return pull(EnsembleMoments(*gradients))[0], None


def _device_code(implementation: str):
    if implementation == "numba":
        from kempe_nb.kernels.numba import ensemble_moments as device_code
    else:
        from kempe_nb.kernels.triton import ensemble_moments as device_code
    return device_code


def _checked_choice(logits: torch.Tensor, impl: str | None, function: str) -> str:
    """Check the logits and return the implementation."""
    device = common_device(logits=logits)
    check_dtype(logits, "logits", OPERATION.dtypes)
    if logits.ndim != 3 or logits.shape[0] < 1 or logits.shape[2] < 2:
        raise ValueError(
            f"logits has shape {tuple(logits.shape)}; accepted is [S, N, K] with S >= 1 networks "
            "and K >= 2 classes"
        )
    obstacles = {"numba": _numba_obstacle(logits), "triton": _triton_obstacle(logits)}
    choice = OPERATION.choose(device, impl, function=function, obstacles=obstacles)
    _check_no_probabilities(logits.detach())
    return choice.implementation


def _numba_obstacle(logits: torch.Tensor) -> str | None:
    if logits.dtype not in (torch.float32, torch.float64):
        return f"the logits are {logits.dtype}; Numba takes float32 and float64"
    if forward_ad._current_level >= 0 and forward_ad.unpack_dual(logits).tangent is not None:
        return "the logits carry a tangent, and compiled code has no forward derivative"
    return None


def _triton_obstacle(logits: torch.Tensor) -> str | None:
    classes = logits.shape[2]
    if classes * max(logits.element_size(), 4) <= ON_CHIP:
        return None
    return f"a row has {classes} classes; on chip there is room for {ON_CHIP} bytes"


def _check_no_probabilities(logits: torch.Tensor) -> None:
    """Refuse what looks like probabilities; a second softmax would go unnoticed."""
    if observed():
        return
    rows = logits[:, :LOOKED_AT]
    # One look in most calls: logits are negative somewhere.
    if rows[..., 0].numel() < TELLING or rows.min() < 0:
        return
    rounding = 1e-2 if logits.dtype in (torch.float16, torch.bfloat16) else 1e-4
    if ((rows.double().sum(2) - 1).abs() < rounding).all():
        raise ValueError(
            "logits holds rows of numbers from 0 on that sum to 1, which look like probabilities; "
            "accepted are logits, or the logarithms of the probabilities"
        )


def _check_labels(logits: torch.Tensor, labels: torch.Tensor) -> None:
    check_dtype(labels, "labels", (torch.int64,))
    if labels.shape != logits.shape[1:2]:
        shape = tuple(labels.shape)
        raise ValueError(f"labels has shape {shape}; accepted is [{logits.shape[1]}]")
    if not observed():
        check_labels(labels, logits.shape[2])


def _checked_results(logits: torch.Tensor, found: tuple) -> tuple:
    """Return the results; NaN and infinity are looked for there, where a look costs no read."""
    if observed():
        return found
    total = sum(each.detach().sum(dtype=torch.float64) for each in found)
    if not math.isfinite(total):
        check_finite(logits, "logits")
        raise ValueError("logits is so large that differences overflow; accepted is less")
    return found
