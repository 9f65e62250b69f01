"""Pairs of token bags that stand for premise and hypothesis, with a negation token, drawn anew.

A stand-in for natural language inference, in which annotators wrote "not" and "never" mostly into
contradictions (Gururangan et al., arXiv 1803.02324), so that a model can guess the label from the
hypothesis alone. A premise says four of `CONCEPTS` facts. Each of two statements of a hypothesis
repeats a fact of the premise, denies one, or speaks of another fact, to say or deny it:

* contradiction (0): one statement denies a fact of the premise, the other repeats one or is new;
* entailment (1): both repeat;
* neutral (2): one is new and the other repeats, or both are new.

Denying is a token of its own for each fact, and new statements deny as often as not: whether the
hypothesis contradicts is a matter of both sentences. A premise may lose facts, so that no model is
always right. The negation token says nothing about the facts; how often it stands in a hypothesis
depends on the label. Groups are 2 label + negation, as in the published groups of MultiNLI.
"""

import torch

from kempe_nb.checks import checked_fraction, checked_integer

CONCEPTS = 8
SAID = 4
LABELS = ("contradiction", "entailment", "neutral")
#: Facts of the premise; statements of the hypothesis that say, and that deny; the negation token.
DIMENSION = 3 * CONCEPTS + 1


def negation_pairs(
    counts: tuple[int, ...], generator: torch.Generator, *, lost: float = 0.1
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return bags of tokens, labels and groups, group after group.

    Parameters
    ----------
    counts : tuple of int, [6]
        Pairs of each group: for each label without and with the negation token.
    lost : float
        Chance that a fact of the premise is left out of its bag, from 0 to below 1.

    Returns
    -------
    bags : float32 [N, `DIMENSION`]
        0 and 1.
    labels, groups : int64 [N]

    Raises
    ------
    ValueError
        For another number of counts, one below 0, or a chance out of range.
    """
    if len(counts) != 2 * len(LABELS):
        raise ValueError(f"counts are {tuple(counts)}; accepted are six numbers from 0 on")
    for number in counts:
        checked_integer(number, "counts", 0)
    checked_fraction(lost, "lost")
    groups = torch.arange(6).repeat_interleave(torch.tensor([int(each) for each in counts]))
    labels, total = groups // 2, len(groups)
    # A random order of the facts: the first ones are the premise's, two of these and two of the
    # others are what statements may speak of.
    order = torch.rand(total, CONCEPTS, generator=generator).argsort(1)
    premise = torch.zeros(total, CONCEPTS).scatter_(1, order[:, :SAID], 1.0)
    known, new = order[:, :2], order[:, SAID : SAID + 2]
    coin = torch.rand(total, 3, generator=generator) < 0.5

    first_is_new = labels == 2
    second_is_new = (labels == 2) & coin[:, 0] | (labels == 0) & coin[:, 0]
    first = torch.where(first_is_new, new[:, 0], known[:, 0])
    second = torch.where(second_is_new, new[:, 1], known[:, 1])
    denies_first = (labels == 0) | first_is_new & coin[:, 1]
    denies_second = second_is_new & coin[:, 2]
    statements = torch.zeros(total, 2 * CONCEPTS)
    statements.scatter_(1, (first + CONCEPTS * denies_first)[:, None], 1.0)
    statements.scatter_(1, (second + CONCEPTS * denies_second)[:, None], 1.0)
    premise *= torch.rand(total, CONCEPTS, generator=generator) >= lost
    negation = (groups % 2).float()[:, None]
    return torch.cat([premise, statements, negation], 1), labels, groups
