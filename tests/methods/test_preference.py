"""DPO, E-DPO and their optimum: closed forms, equivalences, and what is refused."""

import itertools
import math

import pytest
import torch
from hypothesis import given, strategies as st

from kempe_nb.methods.preference import (
    PAD,
    aligned_optimum,
    completion_log_probabilities,
    completion_tokens,
    preference_loss,
    safe_reference_margin,
)
from kempe_nb.networks.transformer import Shape, Transformer


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pairs(count, seed):
    return torch.randn(count, 2, generator=generator(seed), dtype=torch.float64) * 3 - 8


@pytest.fixture(scope="module")
def model():
    shape = Shape(vocabulary=5, context=8, width=8, layers=1, heads=2)
    return Transformer(shape, generator()).double().requires_grad_(False)


def test_all_completions_of_a_prompt_have_probability_one(model):
    completions = torch.tensor(list(itertools.product(range(5), repeat=3)))
    prompts = torch.tensor([[3, 1]]).expand(len(completions), -1)
    found = completion_log_probabilities(model, prompts, completions)
    assert abs(float(found.exp().sum()) - 1) < 1e-12


def test_a_completion_is_read_token_by_token(model):
    prompts, completions = torch.tensor([[0, 4, 2]]), torch.tensor([[1, 1, 3]])
    tokens, expected = prompts, 0.0
    for token in completions[0]:
        expected += float(model(tokens)[0, -1].log_softmax(0)[token])
        tokens = torch.cat([tokens, token.reshape(1, 1)], 1)
    found = completion_log_probabilities(model, prompts, completions)
    assert abs(float(found) - expected) < 1e-12


def test_padding_adds_nothing(model):
    prompts = torch.tensor([[0, 4], [2, 2]])
    short = completion_log_probabilities(model, prompts, torch.tensor([[1], [3]]))
    padded = completion_log_probabilities(model, prompts, torch.tensor([[1, PAD], [3, PAD]]))
    torch.testing.assert_close(padded, short, rtol=0, atol=1e-14)


def test_half_precision_is_added_in_single():
    def logits(tokens):
        return torch.zeros(*tokens.shape, 8, dtype=torch.bfloat16)

    found = completion_log_probabilities(
        logits, torch.zeros(1, 1).long(), torch.zeros(1, 512).long()
    )
    assert found.dtype == torch.float32
    # In bfloat16 the sum would stop growing long before.
    assert abs(float(found) + 512 * math.log(8)) < 0.1


@pytest.mark.parametrize(
    ("completions", "said"),
    [
        ([[1, 2], [PAD, PAD]], "number 1 is empty"),
        ([[1, PAD], [PAD, 2]], "number 1 is empty"),
        ([[1, 2], [-3, 2]], "negative tokens"),
        ([[1, 2]], "as many of each"),
        ([[], []], r"completions have shape \(2, 0\)"),
    ],
)
def test_bad_completions_are_refused(model, completions, said):
    with pytest.raises(ValueError, match=said):
        completion_log_probabilities(
            model, torch.zeros(2, 1).long(), torch.tensor(completions).long()
        )


def test_a_token_behind_the_padding_is_refused(model):
    with pytest.raises(ValueError, match="behind -1"):
        completion_log_probabilities(model, torch.zeros(1, 1).long(), torch.tensor([[1, PAD, 2]]))


def by_words(text):
    """Tokenise into letters, but join "ab" to one token, as a byte-pair encoding would."""
    tokens, place = [], 0
    while place < len(text):
        width = 2 if text[place : place + 2] == "ab" else 1
        tokens.append(sum(256**k * ord(letter) for k, letter in enumerate(text[place:][:width])))
        place += width
    return tokens


def test_tokens_of_a_completion_are_those_behind_either_prompt():
    assert completion_tokens(by_words, "x:", "yes", "safe x:") == [ord(each) for each in "yes"]


def test_prompts_that_change_the_completion_are_refused():
    with pytest.raises(ValueError, match=r"^prompt is joined .* token 1 is 25185 in place of 97"):
        completion_tokens(by_words, "xa", "bc")
    with pytest.raises(ValueError, match="^reference_prompt is joined"):
        completion_tokens(by_words, "x", "bc", "a")
    with pytest.raises(ValueError, match="completion is empty"):
        completion_tokens(by_words, "x", "")

    def counting(text):
        # A tokeniser whose tokens depend on what stands before.
        return [ord(letter) + (text[0] == "s") * (place > 3) for place, letter in enumerate(text)]

    with pytest.raises(ValueError, match="token 2 is 100 in place of 99; accepted"):
        completion_tokens(counting, "xy", "abc", "sy")


@given(st.integers(1, 8), st.integers(0, 99), st.floats(0.05, 3))
def test_dpo_starts_at_log_two_and_e_dpo_at_its_margin(count, seed, beta):
    policy, safe = pairs(count, seed), pairs(count, seed + 100)
    start = preference_loss(policy, policy, beta=beta)
    assert (start - math.log(2)).abs().max() < 1e-12
    margin = safe_reference_margin(policy, safe, beta=beta)
    found = preference_loss(policy, safe, beta=beta)
    assert (found + torch.nn.functional.logsigmoid(-margin)).abs().max() < 1e-9


@given(st.integers(1, 8), st.integers(0, 99), st.floats(0.05, 3))
def test_e_dpo_is_dpo_with_a_margin_in_loss_and_gradient(count, seed, beta):
    policy = pairs(count, seed).requires_grad_()
    reference, safe = pairs(count, seed + 100), pairs(count, seed + 200)
    margin = safe_reference_margin(reference, safe, beta=beta)
    losses = (
        preference_loss(policy, safe, beta=beta),
        preference_loss(policy, reference, beta=beta, margin=margin),
    )
    gradients = [torch.autograd.grad(each.sum(), policy)[0] for each in losses]
    assert (losses[0] - losses[1]).abs().max() < 1e-8
    assert (gradients[0] - gradients[1]).abs().max() < 1e-8


def test_a_margin_is_negative_where_the_safe_reference_prefers_the_loser():
    reference = torch.tensor([[-2.0, -2.0], [-2.0, -2.0]])
    safe = torch.tensor([[-1.0, -4.0], [-4.0, -1.0]])
    assert safe_reference_margin(reference, safe, beta=0.5).tolist() == [1.5, -1.5]


def test_the_reference_gets_no_gradient_and_stays_as_it_is():
    policy, reference = pairs(3, 0), pairs(3, 1).requires_grad_()
    before = reference.detach().clone()
    loss = preference_loss(policy.requires_grad_(), reference, beta=1.0).sum()
    assert torch.autograd.grad(loss, reference, allow_unused=True) == (None,)
    assert torch.equal(reference, before)


@given(st.integers(2, 6), st.integers(0, 99), st.floats(0.2, 3))
def test_with_all_pairs_dpo_is_stationary_at_the_optimum_of_the_objective(count, seed, beta):
    rng = generator(seed)
    log_reference = torch.randn(count, generator=rng, dtype=torch.float64).log_softmax(0)
    reward = torch.randn(count, generator=rng, dtype=torch.float64)
    logits = aligned_optimum(log_reference, reward, beta=beta).requires_grad_()
    winner, loser = torch.tensor(list(itertools.permutations(range(count), 2))).T
    # Bradley and Terry: how often each answer wins.
    wins = (reward[winner] - reward[loser]).sigmoid()
    law = logits.log_softmax(0)
    loss = preference_loss(
        torch.stack([law[winner], law[loser]], 1),
        torch.stack([log_reference[winner], log_reference[loser]], 1),
        beta=beta,
    )
    (gradient,) = torch.autograd.grad((wins * loss).sum(), logits)
    assert gradient.abs().max() < 1e-10


@given(st.integers(2, 6), st.integers(0, 99), st.floats(0.2, 3))
def test_no_other_law_has_a_higher_objective(count, seed, beta):
    rng = generator(seed)

    def law():
        return torch.randn(count, generator=rng, dtype=torch.float64).log_softmax(0)

    reference, reward = law(), torch.randn(count, generator=rng, dtype=torch.float64)

    def objective(found):
        return float((found.exp() * (reward - beta * (found - reference))).sum())

    best = objective(aligned_optimum(reference, reward, beta=beta))
    # Its value is beta times the logarithm of the normaliser.
    assert abs(best - beta * float((reference + reward / beta).logsumexp(0))) < 1e-10
    assert all(objective(law()) <= best + 1e-12 for _ in range(20))


def test_what_the_reference_never_says_stays_unsaid():
    reference = torch.tensor([0.5, 0.5, 0.0]).log()
    found = aligned_optimum(reference, torch.tensor([0.0, 0.0, 9.0]), beta=0.1)
    assert found.exp().tolist() == [0.5, 0.5, 0.0]


@pytest.mark.parametrize("beta", [0, -1.0, math.nan, math.inf, True])
def test_bad_beta_is_refused(beta):
    policy = pairs(1, 0)
    for call in (
        lambda: preference_loss(policy, policy, beta=beta),
        lambda: safe_reference_margin(policy, policy, beta=beta),
        lambda: aligned_optimum(torch.zeros(1), torch.zeros(1), beta=beta),
    ):
        with pytest.raises(ValueError, match="beta is"):
            call()


def test_bad_pairs_are_refused():
    policy, lost = pairs(2, 0), pairs(2, 1)
    lost[1, 0] = math.nan
    with pytest.raises(ValueError, match="reference holds 1 elements that are NaN"):
        preference_loss(policy, lost, beta=1.0)
    with pytest.raises(ValueError, match="policy has 2, reference has 1 pairs"):
        preference_loss(policy, policy[:1], beta=1.0)
    with pytest.raises(ValueError, match=r"policy has shape \(2,\)"):
        preference_loss(policy[:, 0], policy, beta=1.0)
    with pytest.raises(ValueError, match=r"margin has shape \(3,\)"):
        preference_loss(policy, policy, beta=1.0, margin=torch.zeros(3))
    for margin in (math.nan, math.inf, None, "a", True):
        with pytest.raises(ValueError, match="margin is"):
            preference_loss(policy, policy, beta=1.0, margin=margin)
    with pytest.raises(ValueError, match="margin holds 1 elements"):
        preference_loss(policy, policy, beta=1.0, margin=torch.tensor(math.nan))
    with pytest.raises(TypeError, match="margin is torch.int64"):
        preference_loss(policy, policy, beta=1.0, margin=torch.zeros(2).long())
    with pytest.raises(TypeError, match="policy is torch.int64"):
        preference_loss(policy.long(), policy, beta=1.0)
    with pytest.raises(ValueError, match="sum to 2"):
        aligned_optimum(torch.zeros(2), torch.zeros(2), beta=1.0)
    law = torch.tensor([0.25, 0.75]).log()
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(1,\)"):
        aligned_optimum(law, torch.zeros(1), beta=1.0)
    with pytest.raises(TypeError, match="reward is torch.float16"):
        aligned_optimum(law, torch.zeros(2).half(), beta=1.0)


def test_what_is_beyond_the_numbers_is_refused_and_what_is_large_is_not():
    large = torch.tensor([[3e38, 3e38]])
    assert abs(float(preference_loss(large, -large, beta=1.0)) - math.log(2)) < 1e-6
    with pytest.raises(ValueError, match=r"beta is 1e\+39, with log-ratios up to 1;"):
        preference_loss(torch.tensor([[0.0, -1.0]]), torch.zeros(1, 2), beta=1e39)
    with pytest.raises(ValueError, match="beta is 1e-50, with rewards up to 3;"):
        aligned_optimum(torch.zeros(1), torch.tensor([3.0]), beta=1e-50)
