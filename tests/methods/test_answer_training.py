"""Training on answers weighs parts by their rows, and refuses bad ones before the first step."""

import pytest
import torch
from torch import nn

from kempe_nb.methods.answer_training import train_on_answers

VOCABULARY = 12


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Shares(nn.Module):
    """A model that knows the shares of the openings only: one number for each token."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(VOCABULARY))

    def forward(self, tokens):
        return self.logits.expand(*tokens.shape, -1)


def test_training_on_answers_weighs_the_parts_by_their_rows():
    # The best law of one token's answers is the mean of the parts' shares, by rows.
    prompt, said = torch.zeros(50, 4, dtype=torch.int64), torch.arange(50)[:, None] % 2 + 6
    parts = [(prompt, torch.full_like(said, 5), 30), (torch.cat([prompt, prompt], 1), said, 10)]
    model = train_on_answers(Shares(), parts, generator=generator(), rate=0.1, steps=300)
    law = model.logits.detach().softmax(0)
    assert abs(float(law[5]) - 0.75) < 0.03 and abs(float(law[6]) - 0.125) < 0.03


def test_training_on_answers_changes_the_model_that_is_given_and_is_the_same_twice():
    found = []
    for _ in range(2):
        model = Shares()
        parts = [(torch.zeros(3, 1).long(), torch.tensor([[1], [2], [2]]), 2)]
        assert train_on_answers(model, parts, generator=generator(4), steps=5) is model
        found.append(model.logits.detach())
    assert torch.equal(*found) and not torch.equal(found[0], torch.zeros(VOCABULARY))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rate": 0.0}, "rate is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"parts": []}, "parts are empty"),
        ({"parts": [(torch.zeros(0, 1).long(), torch.zeros(0, 1).long(), 2)]}, "number 1 is empty"),
        ({"parts": [(torch.zeros(2, 1).long(), torch.zeros(2, 1).long(), 0)]}, "rows of part 1"),
        ({"parts": [(torch.zeros(2, 1).long(), torch.zeros(3, 1).long(), 2)]}, "2 and 3"),
        ({"parts": [(torch.zeros(2, 1).long(), torch.zeros(2, 1).long())]}, "has 2 entries"),
        (
            {"parts": [(torch.zeros(200, 1).long(), torch.arange(200)[:, None] - 199, 2)]},
            "number 1: completions",
        ),
    ],
)
def test_bad_training_is_refused_before_any_step(wrong, said):
    model = Shares()
    good = {"parts": [(torch.zeros(2, 1).long(), torch.ones(2, 1).long(), 2)]}
    given = good | {"generator": generator()} | wrong
    if "parts" in wrong:
        given["parts"] = [*good["parts"], *wrong["parts"]] if wrong["parts"] else []
    with pytest.raises(ValueError, match=said):
        train_on_answers(model, given.pop("parts"), **given)
    assert not model.logits.any()
    with pytest.raises(TypeError, match="generator is a NoneType"):
        train_on_answers(model, good["parts"], generator=None)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter"):
        train_on_answers(model, good["parts"], generator=generator())


def test_the_rate_rises_and_falls():
    rates = []

    class Watched(Shares):
        def forward(self, tokens):
            rates.append(self.logits.detach().clone())
            return super().forward(tokens)

    parts = [(torch.zeros(3, 1).long(), torch.ones(3, 1).long(), 2)]
    train_on_answers(Watched(), parts, generator=generator(), rate=0.1, steps=40)
    # With one answer a step of Adam is about as long as its rate.
    steps = torch.stack(rates).diff(dim=0)[:, 1]
    peak = int(steps.argmax())
    assert 8 < peak < 18 and 0.07 < float(steps[peak]) < 0.105
    assert steps[0] < 0.02 and steps[-1] < 0.02
