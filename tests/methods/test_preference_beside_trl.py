"""DPO and E-DPO beside TRL's trainer, on a tiny model that was saved as real ones are.

TRL and what it asks for are some twenty packages, so the tests' environment does without. To run
this: a virtual environment that sees the book's packages, with `pip install trl`.
"""

from importlib.util import find_spec

import pytest
import torch

from kempe_nb.data import import_torchvision
from kempe_nb.methods.preference import (
    completion_log_probabilities,
    preference_loss,
    safe_reference_margin,
)

if find_spec("trl") is None:
    pytest.skip("needs trl", allow_module_level=True)

BETA = 0.3
WORDS = ["<pad>", "<eos>", "<unk>", *"abcdefghij"]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    # transformers imports torchvision where it finds one.
    import_torchvision()
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from trl import DPOConfig, DPOTrainer

    folder = tmp_path_factory.mktemp("model")
    tokens = {word: number for number, word in enumerate(WORDS)}
    words = Tokenizer(models.WordLevel(tokens, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    reference, policy = (LlamaForCausalLM.from_pretrained(folder) for _ in range(2))
    with torch.no_grad():
        for weight in policy.parameters():
            weight += 0.02 * torch.randn_like(weight)
    rows = [
        {"prompt": "a b c", "chosen": " d e", "rejected": " f g"},
        {"prompt": "b b a", "chosen": " h i", "rejected": " d d"},
    ]
    return DPOTrainer(
        model=policy,
        ref_model=reference,
        args=DPOConfig(
            output_dir=str(folder),
            beta=BETA,
            per_device_train_batch_size=len(rows),
            report_to=[],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=PreTrainedTokenizerFast.from_pretrained(folder),
    )


def pairs(model, tokens, prompt=3):
    """Return log-probabilities of winners and losers behind prompts of three tokens, [B, 2]."""
    found = completion_log_probabilities(
        lambda given: model(given).logits, tokens[:, :prompt], tokens[:, prompt:]
    )
    return found.unflatten(0, (2, -1)).T


def compare(theirs, own, model):
    assert abs(float((theirs - own).detach())) < 1e-6
    weights = list(model.parameters())
    slopes = [torch.autograd.grad(loss, weights, retain_graph=True) for loss in (theirs, own)]
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_dpo_has_the_loss_and_the_gradient_of_trl(trainer):
    batch = next(iter(trainer.get_train_dataloader()))
    policy, reference = (pairs(m, batch["input_ids"]) for m in (trainer.model, trainer.ref_model))
    own = preference_loss(policy, reference, beta=BETA).mean()
    assert abs(float((policy - reference).detach().diff(dim=1).abs().max())) > 0.01
    compare(trainer.compute_loss(trainer.model, batch), own, trainer.model)


def test_e_dpo_is_trl_s_loss_with_log_probabilities_at_another_prompt(trainer):
    batch = next(iter(trainer.get_train_dataloader()))
    tokens = batch["input_ids"]
    prefixed = torch.cat([torch.full_like(tokens[:, :1], 12), tokens], 1)
    safe = pairs(trainer.ref_model, prefixed, prompt=4).detach()
    reference = pairs(trainer.ref_model, tokens).detach()
    batch |= {"ref_chosen_logps": safe[:, 0], "ref_rejected_logps": safe[:, 1]}
    trainer.precompute_ref_logps = True
    try:
        theirs = trainer.compute_loss(trainer.model, batch)
    finally:
        trainer.precompute_ref_logps = False
    margin = safe_reference_margin(reference, safe, beta=BETA)
    policy = pairs(trainer.model, tokens)
    compare(
        theirs,
        preference_loss(policy, reference, beta=BETA, margin=margin).mean(),
        trainer.model,
    )
    assert float(margin.abs().min()) > 1e-4
