"""Ways to train a last layer on samples whose groups are known, by name.

Names are those of the literature; "group NLL" is the group-aware prior without its perturbation.

All but one are settings of one weighted problem, `fit_last_layers`, so any number of
configurations is trained at once. Deep feature reweighting has a penalty of another kind and is
`fit_sparse_last_layers`.
"""

from dataclasses import dataclass

import torch

from kempe_nb.checks import (
    check_dtype,
    checked_choice,
    checked_not_negative,
    checked_positive,
    common_device,
)
from kempe_nb.methods.deep_feature_reweighting import balanced_subsamples, fit_sparse_last_layers
from kempe_nb.methods.frozen_features import check_numbers, check_samples
from kempe_nb.methods.group_weights import group_counts, group_weights
from kempe_nb.methods.last_layer import fit_last_layers


@dataclass(frozen=True)
class Member:
    """One way to train, and what can be set in it besides the descent.

    Attributes
    ----------
    idea : str
        One sentence.
    takes : tuple of str
        Settings of `train_member`; all are needed.
    """

    idea: str
    takes: tuple[str, ...] = ()


MEMBERS = {
    "ERM": Member("the mean loss of the samples"),
    "RWG": Member("the mean of the groups' mean losses"),
    "JTT": Member(
        "the mean loss, in which samples that a first network got wrong count more",
        ("wrong", "upweight"),
    ),
    "group DRO": Member("a mean of the groups' losses that follows the worst", ("group_rate",)),
    "DFR": Member(
        "subsamples with equal groups, an L1 penalty, refits averaged",
        ("penalty", "refits", "generator"),
    ),
    "group NLL": Member(
        "the mean loss, plus the loss on context samples drawn by group", ("strength", "exponent")
    ),
    "GAP": Member(
        "the mean loss, plus the loss on context samples drawn by group, at weights moved uphill",
        ("strength", "exponent", "radius"),
    ),
}
#: What belongs to the descent, and of which `fit_last_layers` says what it means.
DESCENT = ("precision", "centre", "start", "rate", "momentum", "steps", "schedule")


def train_member(
    name: str,
    features: torch.Tensor,
    labels: torch.Tensor,
    groups: torch.Tensor,
    **settings,
) -> torch.Tensor:
    """Return last layers of one member of the family, [G, D + 1, C].

    Parameters
    ----------
    name : one of `MEMBERS`
    features, labels : float32 or float64 [N, D], int64 [N]
    groups : int64 [N]
        Every group from 0 to the largest has a sample.
    strength, radius, precision, rate, group_rate : float or [G]
        See `fit_last_layers`.
    exponent : float or [G]
        s of `group_weights`.
    wrong, upweight : bool [N], float or [G]
        Of JTT (Liu et al., arXiv 2107.09044): samples that the first network got wrong, and how
        often each of them counts, from 1 on. (The authors' script appends copies: its number is
        one less.)
    penalty, refits, generator : float or [G], int, torch.Generator
        Of DFR; `steps` are its proximal steps.
    centre, start, momentum, steps, schedule
        See `fit_last_layers`.

    Raises
    ------
    TypeError
        For a setting that the member does not have, or lacks one.
    ValueError
        For an unknown name, and as `fit_last_layers` and `group_counts`.
    """
    checked_choice(name, "name", MEMBERS)
    takes = MEMBERS[name].takes
    allowed = (*takes, "steps") if name == "DFR" else (*takes, *DESCENT)
    wrong = sorted(set(settings) - set(allowed))
    lacking = sorted(set(takes) - set(settings))
    if wrong or lacking:
        said = "; ".join(
            f"{word} {', '.join(names)}"
            for word, names in (("it has no", wrong), ("it needs", lacking))
            if names
        )
        raise TypeError(f"{name}: {said}; accepted are {', '.join(allowed)}")
    check_samples(features, labels)
    check_numbers(groups, "groups", features)
    group_counts(groups)
    data = features, labels
    uniform = torch.full_like(features[:, 0], 1 / len(features))
    if name == "ERM":
        return fit_last_layers(*data, uniform, **settings)
    if name == "RWG":
        return fit_last_layers(*data, group_weights(groups, 1.0, features.dtype), **settings)
    if name == "group DRO":
        equal = group_weights(groups, 1.0, features.dtype)
        return fit_last_layers(*data, equal, groups=groups, **settings)
    if name == "JTT":
        return fit_last_layers(*data, _upweighted(features, settings), **settings)
    if name == "DFR":
        return _averaged(*data, groups, **settings)
    exponent = settings.pop("exponent")
    context = _contexts(groups, exponent, features.dtype)
    return fit_last_layers(*data, uniform, context, **settings)


def _contexts(groups: torch.Tensor, exponent, dtype: torch.dtype) -> torch.Tensor:
    """Return context weights [N], or [G, N] for several exponents."""
    if not isinstance(exponent, torch.Tensor):
        return group_weights(groups, checked_not_negative(exponent, "exponent"), dtype)
    if exponent.ndim != 1 or not len(exponent):
        raise ValueError(
            f"exponent has shape {tuple(exponent.shape)}; accepted is a number, or [G], G from 1 on"
        )
    values = exponent.tolist()
    made = {value: group_weights(groups, value, dtype) for value in set(values)}
    return torch.stack([made[value] for value in values])


def _upweighted(features: torch.Tensor, settings: dict) -> torch.Tensor:
    """Take JTT's settings out of `settings` and return its weights, [G, N]."""
    wrong, upweight = settings.pop("wrong"), settings.pop("upweight")
    common_device(features=features, wrong=wrong)
    check_dtype(wrong, "wrong", (torch.bool,))
    if wrong.shape != features.shape[:1]:
        raise ValueError(f"wrong has shape {tuple(wrong.shape)}; accepted is ({len(features)},)")
    if not isinstance(upweight, torch.Tensor):
        upweight = torch.tensor(checked_not_negative(upweight, "upweight"))
    upweight = upweight.to(features)
    if not ((upweight >= 1) & (upweight < torch.inf)).all():
        raise ValueError(
            f"upweight holds {upweight.min():g}; accepted are finite numbers from 1 on"
        )
    weights = 1 + (upweight.reshape(-1, 1) - 1) * wrong.to(features)
    return weights / weights.sum(1, keepdim=True)


def _averaged(features, labels, groups, *, penalty, refits, generator, **settings) -> torch.Tensor:
    """Return DFR's averages, one for each penalty; all penalties see the same subsamples."""
    subsamples = balanced_subsamples(groups, refits, generator, features.dtype)
    if not isinstance(penalty, torch.Tensor):
        penalty = torch.tensor([checked_positive(penalty, "penalty")], dtype=features.dtype)
    layers = fit_sparse_last_layers(
        features,
        labels,
        subsamples.repeat(len(penalty), 1),
        penalty.repeat_interleave(refits),
        **settings,
    )
    return layers.unflatten(0, (len(penalty), refits)).mean(1)
