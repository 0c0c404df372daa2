"""A hundred steps beside trl's SFTTrainer with peft: the same adapter, rows and settings give the same losses."""

from __future__ import annotations

import random

import pytest
import torch

from data.masking import Example
from data.packing import to_batch
from lora.adapter import trainable
from lora.adapter_file import save_adapter
from lora.inject import DECODER_TARGETS, inject
from model.loss import IGNORE, causal_lm_loss, supervised_tokens
from training.optim import adamw
from training.precision import Precision

STEPS, BATCH, LR = 100, 4, 2e-3


def rows_of(seed: int) -> list[Example]:
    """Rows of mixed length, each with a prompt that is not learnt; a few phrases that can be."""
    draw = random.Random(seed)
    phrases = [[draw.randrange(5, 320) for _ in range(6)] for _ in range(8)]
    rows = []
    for _ in range(STEPS * BATCH):
        prompt = [draw.randrange(5, 320) for _ in range(draw.randrange(1, 12))]
        answer = [token for _ in range(draw.randrange(1, 5)) for token in draw.choice(phrases)]
        rows.append(Example(prompt + answer, [IGNORE] * len(prompt) + answer))
    return rows


@pytest.mark.slow
def test_the_losses_of_a_hundred_steps_are_those_of_trl(tiny, tiny_folder, tmp_path):
    trl = pytest.importorskip("trl", reason="trl is not installed (make slow does it)")
    import peft
    import transformers
    from datasets import Dataset

    rows = rows_of(0)
    torch.manual_seed(0)
    inject(tiny, r=8, alpha=16, targets=DECODER_TARGETS)
    save_adapter(tiny, tmp_path / "adapter", base_model=str(tiny_folder), task_type="CAUSAL_LM")
    ours = our_losses(tiny, rows)

    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, tmp_path / "adapter", is_trainable=True)
    config = trl.SFTConfig(
        output_dir=tmp_path / "theirs", per_device_train_batch_size=BATCH, max_steps=STEPS, learning_rate=LR,
        lr_scheduler_type="constant", adam_beta2=0.95, weight_decay=0.0, max_grad_norm=1.0, logging_steps=1,
        report_to=[], save_strategy="no", use_cpu=True, bf16=False, max_length=None, gradient_checkpointing=False,
        dataset_kwargs={"skip_prepare_dataset": True}, train_sampling_strategy="sequential", disable_tqdm=True,
    )  # fmt: skip
    data = [{"input_ids": e.input_ids, "labels": e.labels, "attention_mask": [1] * len(e.input_ids)} for e in rows]
    trainer = trl.SFTTrainer(
        model=model, args=config, train_dataset=Dataset.from_list(data),
        processing_class=transformers.AutoTokenizer.from_pretrained(tiny_folder),
    )  # fmt: skip
    trainer.train()
    theirs = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert len(theirs) == len(ours) == STEPS and ours[-1] < ours[0] - 0.5  # they learn something
    assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 1e-4


def our_losses(decoder, rows: list[Example]) -> list[float]:
    precision = Precision(torch.device("cpu"), torch.float32)
    optimizer = adamw(decoder, lr=LR, weight_decay=0.0)
    learning = [parameter for _, parameter in trainable(decoder)]
    decoder.train()
    losses = []
    for start in range(0, len(rows), BATCH):
        batch = to_batch(rows[start : start + BATCH], "cpu")
        hidden_states = decoder.hidden_states(batch.input_ids, batch.lengths)
        loss = causal_lm_loss(hidden_states, decoder.head_weight, batch.labels) / supervised_tokens(batch.labels)
        precision.backward(loss)
        precision.step(optimizer, learning, 1.0)
        losses.append(loss.item())
    return losses
