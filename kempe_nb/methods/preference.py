"""Alignment by preferences: DPO, E-DPO, and what they aim at.

A language model answers a prompt x with a completion e. DPO (Rafailov et al., arXiv 2305.18290)
descends on

    -log sigmoid(beta [log pi(w | x) / ref(w | x) - log pi(l | x) / ref(l | x)])

over pairs of a winner w and a loser l. E-DPO (after Su, Kempe and Ullrich, arXiv 2408.01420; the
formula is our reconstruction from quotations of their equation 3) takes the reference of a harmful
prompt at another prompt x_s, which was made safe; the policy still sees x. So nothing is new but
two numbers a pair, and E-DPO is DPO with a margin

    beta [(log ref(w | x_s) - log ref(l | x_s)) - (log ref(w | x) - log ref(l | x))]

that the winner has to be ahead by; it is negative where the safe reference prefers the loser.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from kempe_nb.checks import (
    check_dtype,
    check_finite,
    checked_number,
    checked_positive,
    common_device,
)

FLOATS = torch.float32, torch.float64
#: Behind the last token of a completion that is shorter than the others.
PAD = -1


def completion_log_probabilities(
    model: nn.Module, prompts: torch.Tensor, completions: torch.Tensor
) -> torch.Tensor:
    """Return the logarithms of the probabilities of completions after their prompts, [B].

    Logarithms are added in float32, or float64 where the logits are: a sum over hundreds of tokens
    loses whole units in half precision.

    Parameters
    ----------
    model : nn.Module
        tokens int64 [B, L] -> logits [B, L, V] of the next tokens.
    prompts : int64 [B, P]
        At least one token each; all of one length.
    completions : int64 [B, T]
        At least one token each; shorter ones are filled up with `PAD` at the end.

    Raises
    ------
    ValueError
        For other shapes, an empty completion, which is numbered, or a token behind a `PAD`.
    """
    check_completions(prompts, completions)
    whole = torch.cat([prompts, completions.clamp_min(0)], 1)
    logits = model(whole[:, :-1])[:, prompts.shape[1] - 1 :]
    if logits.dtype != torch.float64:
        logits = logits.float()
    losses = F.cross_entropy(logits.mT, completions, ignore_index=PAD, reduction="none")
    return -losses.sum(1)


def check_completions(prompts: torch.Tensor, completions: torch.Tensor) -> None:
    """Refuse prompts and completions that `completion_log_probabilities` does not accept."""
    common_device(prompts=prompts, completions=completions)
    for name, tokens in {"prompts": prompts, "completions": completions}.items():
        check_dtype(tokens, name, (torch.int64,))
        if tokens.ndim != 2 or not tokens.shape[1]:
            raise ValueError(
                f"{name} have shape {tuple(tokens.shape)}; accepted is [B, L], L at least 1"
            )
    if len(prompts) != len(completions):
        raise ValueError(
            f"prompts and completions are {len(prompts)} and {len(completions)}; accepted are as "
            "many of each"
        )
    said = completions != PAD
    if empty := (~said[:, 0]).nonzero()[:, 0].tolist():
        raise ValueError(
            f"completions: number {empty[0]} is empty; accepted is at least one token each"
        )
    if (said[:, 1:] & ~said[:, :-1]).any():
        raise ValueError(f"completions hold a token behind {PAD}; accepted is {PAD} at the end")
    if (completions[said] < 0).any() or (prompts < 0).any():
        raise ValueError(
            f"prompts or completions hold negative tokens; accepted are tokens from 0 on, and {PAD}"
            " at the end of completions"
        )


def completion_tokens(
    tokenise: Callable[[str], Sequence[int]],
    prompt: str,
    completion: str,
    reference_prompt: str | None = None,
) -> list[int]:
    """Return the tokens of a completion, which have to be the same after both prompts.

    A tokeniser may join the end of a prompt with the start of a completion. Then policy and
    reference would be asked about different tokens, and their ratio would mean nothing.

    Parameters
    ----------
    tokenise : callable
        Text -> tokens.
    prompt, completion : str
        The completion follows the prompt without anything between.
    reference_prompt : str, optional
        x_s; by default the prompt itself.

    Raises
    ------
    ValueError
        For an empty completion, a prompt whose tokens change when the completion follows, or
        completions that differ; the first differing token is told.
    """
    found = _behind(tokenise, prompt, completion, "prompt")
    if reference_prompt is None:
        return found
    other = _behind(tokenise, reference_prompt, completion, "reference_prompt")
    if (place := _first_difference(found, other)) is not None:
        raise ValueError(
            f"reference_prompt changes the completion: token {place} is {_said(other, place)} in "
            f"place of {_said(found, place)}; accepted is a prompt after which the tokens are the "
            "same"
        )
    return found


def _behind(tokenise, prompt: str, completion: str, name: str) -> list[int]:
    first, whole = list(tokenise(prompt)), list(tokenise(prompt + completion))
    place = _first_difference(first, whole[: len(first)])
    if place is not None:
        raise ValueError(
            f"{name} is joined with the completion: token {place} is {_said(whole, place)} in place"
            f" of {_said(first, place)}; accepted is a prompt whose tokens stay as they are"
        )
    if len(whole) == len(first):
        raise ValueError("completion is empty; accepted is at least one token")
    return whole[len(first) :]


def _first_difference(one: list[int], other: list[int]) -> int | None:
    places = range(max(len(one), len(other)))
    return next((k for k in places if one[k : k + 1] != other[k : k + 1]), None)


def _said(tokens: list[int], place: int) -> str:
    return str(tokens[place]) if place < len(tokens) else "nothing"


def preference_loss(
    policy: torch.Tensor,
    reference: torch.Tensor,
    *,
    beta: float,
    margin: torch.Tensor | float = 0.0,
) -> torch.Tensor:
    """Return the loss of each pair, [B]: DPO, or E-DPO with the reference at other prompts.

    Parameters
    ----------
    policy, reference : float32 or float64 [B, 2]
        Log-probabilities of winner and loser. No gradient goes to the reference.
    beta : float
        Positive; how dear it is to leave the reference.
    margin : float, or float32 or float64 [B]
        By how much the winner has to be ahead, in units of the argument of the sigmoid.

    Raises
    ------
    ValueError
        For other shapes, a beta that is not positive, or log-probabilities or margins that are NaN
        or infinite.
    """
    beta = checked_positive(beta, "beta")
    _check_pairs(policy=policy, reference=reference)
    if not isinstance(margin, torch.Tensor):
        margin = torch.tensor(checked_number(margin, "margin", -math.inf, math.inf, "a number"))
    margin = margin.to(policy.device) if margin.ndim == 0 else margin
    common_device(policy=policy, margin=margin)
    check_dtype(margin, "margin", FLOATS)
    if margin.shape not in ((), policy.shape[:1]):
        raise ValueError(
            f"margin has shape {tuple(margin.shape)}; accepted is a number, or ({len(policy)},)"
        )
    check_finite(margin, "margin")
    # Of each model first: its two log-probabilities may be large and are close to each other.
    ahead = _ahead(policy) - _ahead(reference.detach())
    return -F.logsigmoid(_scaled(ahead, beta) - margin.to(policy.dtype))


def safe_reference_margin(
    reference: torch.Tensor, safe_reference: torch.Tensor, *, beta: float
) -> torch.Tensor:
    """Return the margins with which DPO is E-DPO, [B].

    Parameters
    ----------
    reference, safe_reference : float32 or float64 [B, 2]
        Log-probabilities of winner and loser at the prompt, and at the prompt that was made safe.
    beta : float
        Positive.
    """
    beta = checked_positive(beta, "beta")
    _check_pairs(reference=reference, safe_reference=safe_reference)
    return _scaled(_ahead(safe_reference) - _ahead(reference), beta)


def _ahead(pair: torch.Tensor) -> torch.Tensor:
    """Return by how much the winner is ahead of the loser, [B]."""
    return pair[:, 0] - pair[:, 1]


def _scaled(ahead: torch.Tensor, beta: float) -> torch.Tensor:
    """Return beta times a difference of log-ratios, or refuse what is beyond the numbers."""
    scaled = beta * ahead
    if not torch.isfinite(scaled).all():
        raise ValueError(
            f"beta is {beta:g}, with log-ratios up to {float(ahead.detach().abs().max()):g}; "
            f"accepted are numbers whose product is finite in {ahead.dtype}"
        )
    return scaled


def _check_pairs(**pairs: torch.Tensor) -> None:
    common_device(**pairs)
    for name, pair in pairs.items():
        check_dtype(pair, name, FLOATS)
        if pair.ndim != 2 or pair.shape[1] != 2:
            raise ValueError(f"{name} has shape {tuple(pair.shape)}; accepted is [B, 2]")
        check_finite(pair, name)
    if len({len(pair) for pair in pairs.values()}) > 1:
        said = ", ".join(f"{name} has {len(pair)}" for name, pair in pairs.items())
        raise ValueError(f"{said} pairs; accepted are as many in each")


def aligned_optimum(
    log_reference: torch.Tensor, reward: torch.Tensor, *, beta: float
) -> torch.Tensor:
    """Return log-probabilities of the law that maximises E reward - beta KL(law || reference).

    It is in proportion to reference * exp(reward / beta) (proposition C.1 of the paper for a
    reference at x_s): what the reference never says stays unsaid, whatever its reward.

    Parameters
    ----------
    log_reference : float32 or float64 [..., E]
        Logarithms of probabilities; -inf for what is never said.
    reward : [E] or [..., E]
        Finite.
    beta : float
        Positive.

    Raises
    ------
    ValueError
        For a reference that is no law, or rewards that are not finite.
    """
    beta = checked_positive(beta, "beta")
    common_device(log_reference=log_reference, reward=reward)
    check_dtype(log_reference, "log_reference", FLOATS)
    check_dtype(reward, "reward", FLOATS)
    if not log_reference.ndim or reward.shape not in (
        log_reference.shape,
        log_reference.shape[-1:],
    ):
        raise ValueError(
            f"log_reference and reward have shapes {tuple(log_reference.shape)} and "
            f"{tuple(reward.shape)}; accepted are [..., E], and the same or [E]"
        )
    total = log_reference.exp().sum(-1)
    if not torch.allclose(total, torch.ones_like(total), atol=1e-4):
        raise ValueError(
            f"log_reference: probabilities sum to {float(total.min()):.6g} to "
            f"{float(total.max()):.6g}; accepted is a sum of 1"
        )
    check_finite(reward, "reward")
    tilt = reward / beta
    if not torch.isfinite(tilt).all():
        raise ValueError(
            f"beta is {beta:g}, with rewards up to {float(reward.detach().abs().max()):g}; "
            f"accepted are numbers whose ratio is finite in {reward.dtype}"
        )
    return (log_reference + tilt).log_softmax(-1)
