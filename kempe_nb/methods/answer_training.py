"""Training a language model on prompts and their answers: supervised fine-tuning."""

from collections.abc import Sequence

import torch
from torch import nn

from kempe_nb.checks import checked_integer, checked_positive
from kempe_nb.methods.preference import check_completions, completion_log_probabilities


def train_on_answers(
    model: nn.Module,
    parts: Sequence[tuple[torch.Tensor, torch.Tensor, int]],
    *,
    generator: torch.Generator,
    rate: float = 0.008,
    steps: int = 700,
) -> nn.Module:
    """Train a model in place to give answers, by AdamW and PyTorch's one-cycle schedule.

    Each step takes rows of every part, so prompts of several lengths are learnt together.

    Parameters
    ----------
    model : nn.Module
        As in `completion_log_probabilities`.
    parts : sequence of (prompts int64 [N, P], answers int64 [N, T], rows)
        Rows of the part in each step, drawn with replacement.
    generator : torch.Generator
        On the device of the prompts.
    rate : float
        The highest one.
    steps : int
        At least 1.

    Returns
    -------
    nn.Module
        The model that was given.

    Raises
    ------
    TypeError
        For another kind of generator.
    ValueError
        Before the first step: for no parts, parts that `completion_log_probabilities` refuses or
        that are empty, a rate that is not positive, or a model with nothing to train.
    """
    rate = checked_positive(rate, "rate")
    steps = checked_integer(steps, "steps", 1)
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator is a {type(generator).__name__}; accepted is a torch.Generator")
    if not any(each.requires_grad for each in model.parameters()):
        raise ValueError(
            "model has no parameter that requires a gradient; accepted is at least one"
        )
    parts = list(parts)
    if not parts:
        raise ValueError("parts are empty; accepted is at least one")
    for number, part in enumerate(parts):
        if len(part) != 3:
            raise ValueError(
                f"parts: number {number} has {len(part)} entries; accepted are prompts, answers "
                "and rows"
            )
        prompts, answers, own = part
        checked_integer(own, f"rows of part {number}", 1)
        try:
            check_completions(prompts, answers)
        except ValueError as error:
            raise ValueError(f"parts: number {number}: {error}") from error
        if not len(prompts):
            raise ValueError(f"parts: number {number} is empty; accepted is at least one prompt")
    batch = sum(own for _, _, own in parts)
    adam = torch.optim.AdamW(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, rate, total_steps=steps)
    for _ in range(steps):
        loss = 0.0
        for prompts, answers, own in parts:
            rows = torch.randint(len(prompts), (own,), generator=generator, device=prompts.device)
            said = completion_log_probabilities(model, prompts[rows], answers[rows])
            loss = loss - said.sum() / batch
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    return model
