"""Track B: instruction tuning. Teach a causal LM to do tasks on your code.

    python train_sft.py --model Qwen/Qwen2.5-Coder-0.5B --data pairs/train.jsonl --test pairs/test.jsonl --out runs/sft

Only the answer and its stop token are learnt (data/masking.py). With --test, held-out tasks are answered and graded,
by execution where that is possible, before and after. Change the loss in its one line in `learn`.
"""

from __future__ import annotations

import hashlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from data.masking import Example, encode_prompt, messages_of, tokenize_rows
from data.packing import pack, plan_windows, to_batch
from eval.errors import failures
from eval.instruct import answer_pairs, grade_answers
from eval.sandbox import protection
from lora.inject import DECODER_TARGETS, folded, trainable
from model import load_decoder, load_tokenizer
from model.console import UserError, run_command
from model.decoder import Decoder
from model.device import choose_device, choose_dtype
from model.files import read_jsonl, write_json, write_text
from model.loss import causal_lm_loss, supervised_tokens
from model.tokenizer import Tokenizer
from training.adapter import add_adapter
from training.checkpoint import load_checkpoint, save_checkpoint
from training.finish import copy_data_card, describe_model, finish, save_trained
from training.optim import adamw, make_schedule
from training.options import option, parse
from training.precision import Precision, what_overflowed
from training.run import Run, due
from training.validation import validation_loss


@dataclass(frozen=True)
class Options:
    """Every option of the script; also the keys of a recipe."""

    model: str = option(text="folder, .gguf file, hub id or embedded default (smollm2-135m)")
    data: str = option(text="training pairs, JSON Lines: instruction/input/output, messages, or prompt/completion")
    out: str = option(text="the run's folder")
    validation: str | None = option(None, "pairs for the validation loss, JSON Lines (default: none)")
    test: str | None = option(None, "held-out pairs with checks, answered before and after (default: none)")
    resume: bool = option(False, "go on with the run in --out from its last checkpoint")
    full: bool = option(False, "train all weights instead of a LoRA adapter")
    r: int = option(16, "LoRA rank", least=1)
    alpha: float = option(32.0, "LoRA scale: the low-rank part is multiplied by alpha / r")
    dropout: float = option(0.0, "LoRA dropout, 0 to 1")
    targets: str = option(
        ",".join(DECODER_TARGETS),
        "layers that get an adapter: last names, an expression for whole names, or all-linear",
    )
    rank_pattern: str | None = option(None, "other ranks by layer, as q_proj=8,down_proj=32 (default: all have --r)")
    alpha_pattern: str | None = option(None, "other alphas by layer, written the same way (default: all have --alpha)")
    rslora: bool = option(False, "multiply by alpha / sqrt(r) instead: for ranks above 32 or so")
    dora: bool = option(False, "learn the length of each row of a weight apart from its direction; slower")
    lora_plus_ratio: float = option(1.0, "LoRA+: B learns at this many times --lr (1: as A does; the paper has 16)")
    chat_template: str | None = option(None, "a Jinja file instead of the model's own template (default: its own)")
    train_on_prompt: bool = option(False, "learn the prompt's tokens too")
    epochs: float = option(3.0, "passes over the training pairs")
    max_length: int = option(2048, "tokens of a pair; a longer one is cut at its end")
    step_tokens: int = option(4096, "tokens of an optimiser step, in packed rows of at most --max-length")
    lr: float = option(2e-4, "peak learning rate")
    warmup: float = option(0.1, "share of the steps with a rising rate")
    weight_decay: float = option(0.01, "AdamW's, on matrices")
    max_norm: float = option(1.0, "gradient norm is clipped to this (0: not)")
    checkpointing: bool = option(False, "recompute activations: a third slower, far less memory")
    validate_every: int = option(10, "steps between validations (0: none)")
    checkpoint_every: int = option(10, "steps between checkpoints (0: none)")
    samples: int = option(10, "sampled answers a test task, for pass@3 (at least 4; 0: none)")
    temperature: float = option(0.8, "of the sampled answers")
    top_p: float = option(0.95, "nucleus of the sampled answers")
    max_new_tokens: int = option(256, "tokens that an answer may have")
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    dtype: str = option("auto", "auto, fp32, bf16 or fp16; auto takes what the hardware multiplies itself")
    seed: int = option(0, "of the adapter, the order of rows, dropout and the sampled answers")


def main(arguments: list[str] | None = None) -> dict:
    """Command line. Returns the track's part of metrics.json."""
    resolved = parse(Options, arguments, description=__doc__)
    options: Options = resolved.values
    started = time.perf_counter()
    run = Run(options.out, "sft", resolved, resume=options.resume)
    device = choose_device(options.device)
    dtype = choose_dtype(device, options.dtype)
    torch.manual_seed(options.seed)
    pairs = read_jsonl(options.data)
    test = read_jsonl(options.test) if options.test else []
    if test:
        protection()  # refuse now, not after the training, if generated code cannot be confined here
    tokenizer = load_tokenizer(options.model, chat_template=options.chat_template)
    rows = packed_rows(options.data, pairs, tokenizer, options)
    validation = (
        packed_rows(options.validation, read_jsonl(options.validation), tokenizer, options)
        if options.validation
        else []
    )
    decoder = load_decoder(options.model, dtype=torch.float32 if options.full else dtype, device=device)
    if options.max_length > decoder.config.max_position_embeddings:
        limit = decoder.config.max_position_embeddings
        raise UserError(f"--max-length {options.max_length} exceeds the model's {limit} positions; give less")
    refuse_bad_tasks(test, tokenizer, decoder, options)
    if not options.full:
        add_adapter(decoder, options)
    print(describe_model(options.model, decoder, dtype))
    hashes = {"data_sha256": hashlib.sha256(Path(options.data).read_bytes()).hexdigest()}
    run.start(device=device, dtype=dtype, data=hashes)
    copy_data_card(Path(options.data).parent, run)

    precision = Precision(device, dtype)
    seconds = {"prepare": time.perf_counter() - started}
    if test and run.resume_from is None:  # the adapter is fresh and changes nothing yet
        write_json(run.folder / "before.json", evaluate(decoder, tokenizer, test, precision, options))
    seconds["before"] = time.perf_counter() - started - sum(seconds.values())
    learn(run, decoder, precision, rows, validation)
    seconds["train"] = time.perf_counter() - started - sum(seconds.values())
    save_trained(run, decoder, tokenizer, options.model)
    if test:
        after = evaluate(decoder, tokenizer, test, precision, options)
        write_json(run.folder / "after.json", after)
        write_json(run.folder / "failures.json", failures(test, after["results"], seed=options.seed))
        write_text(run.folder / "samples.md", answers_as_markdown(test, after["results"]))
    seconds["after"] = time.perf_counter() - started - sum(seconds.values())
    data = {"path": options.data, "sha256": hashes["data_sha256"], "rows": len(pairs), "unit": "pairs"}
    return finish(run, seconds=seconds, data=data)


def learn(
    run: Run, decoder: Decoder, precision: Precision, rows: list[list[Example]], validation: list[list[Example]]
) -> None:
    """The training loop. `rows` and `validation` are packed rows of examples."""
    options: Options = run.options.values
    per_step = max(1, options.step_tokens // options.max_length)
    windows = plan_windows(len(rows), rows_per_step=per_step, epochs=options.epochs, seed=options.seed)
    decoder.train()
    decoder.checkpointing = options.checkpointing
    learning = [parameter for _, parameter in trainable(decoder)]
    optimizer = adamw(
        decoder, lr=options.lr, weight_decay=options.weight_decay, lora_plus_ratio=options.lora_plus_ratio
    )
    schedule = make_schedule(optimizer, "cosine", steps=len(windows), warmup=options.warmup)
    done = load_checkpoint(run.resume_from, decoder, optimizer, schedule, precision) if run.resume_from else 0
    print(
        f"plan     {options.epochs:g} epochs · {len(windows)} steps of about {per_step * options.max_length:,} tokens"
    )

    for step in run.steps(done, len(windows)):
        window = [to_batch(rows[row], precision.device) for row in windows[step - 1]]  # one optimiser step
        supervised = sum(supervised_tokens(batch.labels) for batch in window)  # the loss is a mean over exactly these
        for batch in window:
            with precision.autocast():
                hidden_states = decoder.hidden_states(batch.input_ids, batch.lengths)  # [1, T, D]
                loss = (
                    causal_lm_loss(hidden_states, decoder.head_weight, batch.labels, softcap=decoder.softcap)
                    / supervised
                )
            precision.backward(loss)  # scales when fp16
            run.add(loss)
        lr = schedule.get_last_lr()[0]
        stepped, norm = precision.step(optimizer, learning, options.max_norm)
        if stepped:  # a step that was skipped does not advance the schedule
            schedule.step()
        else:
            print(f"step {step} skipped: {what_overflowed(decoder, window, precision)}")
        run.log(step, loss=run.take_loss(), lr=lr, norm=norm, tokens=int(supervised), skipped=not stepped)
        if validation and due(step, options.validate_every, len(windows)):
            run.log(step, validation_loss=validation_loss(decoder, validation, precision))
        if due(step, options.checkpoint_every, len(windows)):
            save_checkpoint(run.checkpoints, step, decoder, optimizer, schedule, precision)


def packed_rows(where: str, pairs: list[dict], tokenizer: Tokenizer, options: Options) -> list[list[Example]]:
    """Rows filled with the pairs of file `where`; says what was cut or dropped. UserError when nothing is left."""
    examples, lost = tokenize_rows(
        pairs, tokenizer, max_length=options.max_length, where=where, train_on_prompt=options.train_on_prompt
    )
    if not examples:
        raise UserError(f"{where}: no pair with something to learn is left (of {len(pairs)}); see --max-length")
    rows = pack(examples, options.max_length)
    tokens = sum(len(example.input_ids) for example in examples)
    supervised = sum(example.supervised for example in examples)
    fill = 100 * tokens / (len(rows) * options.max_length)
    print(
        f"data     {Path(where).name}: {len(examples)} pairs · {tokens:,} tokens, {supervised:,} supervised · "
        f"{lost['cut']} cut off, {lost['dropped']} dropped at {options.max_length} · rows {fill:.1f} % full"
    )
    return rows


def refuse_bad_tasks(test: list[dict], tokenizer: Tokenizer, decoder: Decoder, options: Options) -> None:
    """UserError for a test task that cannot be graded or leaves no room for its answer, before anything is trained."""
    if test and 1 <= options.samples <= 3:
        raise UserError(f"--samples {options.samples}: pass@3 needs at least 4; give 0 for none")
    room = decoder.config.max_position_embeddings - options.max_new_tokens
    for number, row in enumerate(test, 1):
        missing = [key for key in ("id", "category", "instruction", "input", "check") if key not in row]
        if missing:
            raise UserError(
                f"{options.test}:{number}: {', '.join(missing)} missing: only pairs with a check can be graded"
            )
        tokens = len(encode_prompt(tokenizer, messages_of(row)[:1]))
        if tokens > room:
            raise UserError(
                f"{options.test}:{number}: a prompt of {tokens} tokens and an answer of {options.max_new_tokens} "
                f"exceed the model's {decoder.config.max_position_embeddings} positions; see --max-new-tokens"
            )


def evaluate(decoder: Decoder, tokenizer: Tokenizer, test: list[dict], precision: Precision, options: Options) -> dict:
    """Answer the test tasks, greedily and sampled, and grade the answers."""
    with precision.autocast(), folded(decoder):
        answers = answer_pairs(
            decoder,
            tokenizer,
            test,
            samples=options.samples,
            temperature=options.temperature,
            top_p=options.top_p,
            max_new_tokens=options.max_new_tokens,
            seed=options.seed,
        )
    return grade_answers(test, answers)


def answers_as_markdown(test: list[dict], results: list[dict], *, count: int = 6) -> str:
    """The greedy answers to the first tasks of each kind, for samples.md."""
    greedy = {row["id"]: row for row in results if row["sample"] == "greedy"}
    first: dict[str, dict] = {}
    for pair in test:
        first.setdefault(pair["category"], pair)
    parts = ["# Samples\n\nOne held-out task of each category, and the tuned model's greedy answer."]
    for pair in list(first.values())[:count]:
        row = greedy[pair["id"]]
        fence = "`" * 4
        parts.append(
            f"## {pair['category']}: {pair['id']} ({row['status']})\n\n{pair['instruction']}\n\n"
            f"{fence}\n{pair['input']}\n{fence}\n\nanswer\n\n{fence}\n{row['output']}\n{fence}"
        )
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(run_command(main))
