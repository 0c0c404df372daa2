"""Track B: instruction tuning. Teach a causal LM to do tasks on the code of a repository, or on text.

    python train_sft.py --model Qwen/Qwen2.5-Coder-0.5B --data pairs/train.jsonl --test pairs/test.jsonl --out runs/sft

Only the answer and its stop token are supervised (data/masking.py). With --test, held-out tasks are answered before
and after, and graded: by execution where possible, text rows by their references (training/held_out.py). To change the
loss, edit its line in `learn`.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from common.console import UserError, run_command
from common.markdown import fenced
from common.options import option, parse_with_recipe
from data.masking import ONLY_READ, Example, encode_prompt, tokenize_rows
from data.packing import in_passes, pack, plan_windows, to_batch
from data.rows import read_rows, training_conversation, unread_fields
from data.text_rows import common_task
from lora.adapter import base_alone, folded
from model import Stop, fast, generate, load_tokenizer
from model.decoder import Decoder
from model.device import choose_dtype
from model.loss import causal_lm_loss, supervised_tokens
from model.memory import keep_freed_memory
from model.tokenizer import Tokenizer
from sandbox.run import protection
from training import parallel
from training.checkpoint import load_checkpoint, save_checkpoint
from training.cost import count_trainable
from training.describe import describe_decoder_run, describe_model
from training.finish import copy_data_card, finish, save_trained
from training.fit import fitted_options
from training.held_out import (
    HeldOutOptions,
    evaluate,
    held_out_tasks,
    write_after,
    write_before,
)
from training.memory_plan import describe_without_weights, has_no_weights
from training.methods import with_method
from training.overflow import repair_overflow
from training.precision import Precision
from training.run import Run
from training.setup import load_for_training, optimizer_of, prepare, refuse_longer_texts, schedule_of
from training.sharding import own_parts
from training.shared_options import DATA, OPTIMISER
from training.steps import Deadline, Steps
from training.stopwatch import Stopwatch
from training.sweep import sweep
from training.validation import EarlyStopping, validation_loss
from training.virtual_start import describe_start


@dataclass(frozen=True, kw_only=True)
class Options(HeldOutOptions):
    """Options of this script, beside those in training/; all are also the keys of a recipe."""

    data: str = option(
        help="training rows (JSON Lines, a JSON list or Parquet): instruction/input/output, messages, "
        "prompt/completion, or text rows", group=DATA, metavar="FILE",
    )  # fmt: skip
    validation: str | None = option(None, "rows for the validation loss", DATA, metavar="FILE")
    step_pairs: int | None = option(
        None, "pairs of an optimiser step, each in a row of its own; micro-batches count pairs then "
        "(default: packed rows, as many as --step-tokens)", OPTIMISER, least=1,
    )  # fmt: skip
    chat_template: str | None = option(None, "Jinja file (default: the model's own template)", DATA, metavar="FILE")
    train_on_prompt: bool = option(False, "include the prompt's tokens in the loss", DATA)
    epochs: float = option(3.0, "passes over the training pairs", OPTIMISER, least=0)


def main(arguments: list[str] | None = None) -> dict:
    """The command line. Returns the track's part of metrics.json."""
    resolved = with_method(parse_with_recipe(Options, arguments, description=__doc__), "sft")
    options: Options = resolved.values
    stopwatch = Stopwatch()
    keep_freed_memory()  # before the first large allocation
    if options.plain:
        fast.off()  # the textbook forms alone
    if options.dry_run and has_no_weights(options.model):
        print(describe_without_weights(options, limit="--max-length", row_tokens=options.max_length))
        return {}

    # device, compute dtype, run folder, seed
    device = parallel.start(options.device, shard=options.shard)
    dtype = choose_dtype(device, options.dtype)
    run = Run(options.out, "sft", resolved, resume=options.resume)
    torch.manual_seed(options.seed)

    # the pairs as packed rows, the held-out tasks, the model with its adapter
    tokenizer = load_tokenizer(options.model, chat_template=options.chat_template)
    data = read_data(tokenizer, options)
    decoder = load_for_training(options, dtype, device)
    precision = prepare(decoder, tokenizer, options, device, dtype)
    refuse_longer_texts("--max-length", options.max_length, decoder)
    held_out = held_out_tasks(data.test, data.pairs, tokenizer, decoder, options)
    print(describe_model(options, decoder, dtype))
    if decoder.virtual_tokens and run.resume_from is None:
        print(describe_start(decoder, tokenizer, precision, data.rows[0], options))

    # the plan: which rows make up each step, and how many fit into a pass
    rows_per_step = options.step_pairs or max(1, options.step_tokens // options.max_length)
    windows = plan_windows(len(data.rows), rows_per_step=rows_per_step, epochs=options.epochs, seed=options.seed)
    if options.fit:
        fitted = fitted_options(run, decoder, precision, data.rows, rows_per_step=rows_per_step)
        options = run.set_options("--fit", **fitted)
    if options.dry_run:
        capacity = options.max_length
        print(describe_decoder_run(options, decoder, tokenizer, precision, data.rows, windows, row_tokens=capacity))
        return {}
    each = f"{options.step_pairs} pairs" if options.step_pairs else f"about {options.step_tokens:,} tokens"
    print(f"plan     {options.epochs:g} epochs · {len(windows)} steps of {each}")

    # all input is read and valid: create the run folder
    run.start(device=device, dtype=dtype, data={"data_sha256": data.sha256}, log_to=options.log_to)
    copy_data_card(Path(options.data).parent, run)
    stopwatch.split("prepare")

    # answer and grade the held-out tasks with the untrained model
    sample = partial(answer_some, decoder, tokenizer, data.pairs, precision, options)
    if held_out and run.resume_from is None:
        with base_alone(decoder):
            write_before(run, evaluate(decoder, tokenizer, held_out, precision, options), held_out, options)
    stopwatch.split("before")

    # train; the evaluation afterwards is assumed to take as long as the one before
    deadline = Deadline(options.max_minutes, stopwatch.started, reserve=stopwatch.seconds["before"])
    with parallel.together(decoder, seed=options.seed, shard=options.shard):  # afterwards only rank 0 is left
        if options.sweep:
            sweep(run, learn, decoder, precision, data.rows, windows, validation=data.validation, deadline=deadline)
        learn(run, decoder, precision, data.rows, windows, validation=data.validation, sample=sample, deadline=deadline)
    stopwatch.split("train")

    # save, evaluate again, compare
    save_trained(run, decoder, tokenizer, options.model)
    if held_out:
        write_after(run, evaluate(decoder, tokenizer, held_out, precision, options), held_out, options)
    stopwatch.split("after")
    trained_on = {"path": options.data, "sha256": data.sha256, "rows": len(data.pairs), "unit": "pairs"}
    return finish(run, seconds=stopwatch.seconds, data=trained_on, trainable=count_trainable(decoder))


def learn(
    run: Run, decoder: Decoder, precision: Precision, rows: list[list[Example]], windows: list[list[int]],
    *, validation: list[list[Example]], sample: Callable[[], str], deadline: Deadline,
) -> None:  # fmt: skip
    """The training loop.

    rows, validation  packed rows: the documents of each
    windows           the rows of each optimiser step (its accumulation window)
    sample            generates text with the current model, as Markdown
    """
    # optimiser and schedule
    options: Options = run.options.values
    optimizer = optimizer_of(decoder, options)
    parameters = own_parts(optimizer)  # the trainable parameters (this rank's shard under FSDP)
    schedule = schedule_of(optimizer, options, steps=len(windows))
    # with --resume, the state of the last checkpoint
    done = load_checkpoint(run.resume_from, decoder, optimizer, schedule, precision) if run.resume_from else 0

    # the steps that remain, and what may end them early: --patience, --max-minutes
    stopping = EarlyStopping(run.shared / "best.safetensors", decoder, options.patience, run.validations())
    steps = Steps(done, len(windows), deadline)
    run.add_tracker(steps)  # the progress bar shows what is logged
    decoder.train()

    for step in steps:
        # the accumulation window: this rank's share of the step's packed rows, as micro-batches [1, T]
        step_rows = [rows[index] for index in windows[step - 1]]
        batches = [to_batch(row, precision.device) for row in in_passes(parallel.share(step_rows), options.micro_batch)]
        supervised = parallel.total(sum(supervised_tokens(batch.labels) for batch in batches))

        # forward and backward: each loss is a sum, divided by the supervised tokens of the whole window
        losses = []
        for batch in batches:
            with precision.autocast():
                hidden_states = decoder.hidden_states(batch.input_ids, batch.lengths)  # [1, T, D]
                loss = causal_lm_loss(hidden_states, decoder.head_weight, batch.labels, softcap=decoder.softcap)
            loss = loss / supervised
            precision.backward(loss)  # scales the loss in fp16
            losses.append(loss.detach())  # stays on the device: no wait here
        parallel.sum_gradients(parameters)

        # the optimiser step: unscale, clip, update, clear; after inf or NaN neither weights nor schedule change
        lr = schedule.get_last_lr()[0]
        stepped, norm = precision.step(optimizer, parameters, options.max_norm)
        if stepped:
            schedule.step()
        else:
            cause = repair_overflow(decoder, batches, precision)  # may move the layer at fault to fp32
            print(f"step {step} skipped: {cause}")

        # one row of the log, then whatever is due: validation, samples, a checkpoint
        tokens = sum(len(example.input_ids) for row in step_rows for example in row)
        run.log(
            step, loss=parallel.total(torch.stack(losses).sum().item()), lr=lr, norm=norm, scale=precision.scale,
            tokens=tokens, supervised=int(supervised), skipped=not stepped, **steps.costs(tokens, precision.device),
        )  # fmt: skip
        if validation and steps.due(options.validate_every):
            held_out_loss = validation_loss(decoder, validation, precision)
            run.log(step, validation_loss=held_out_loss, seconds=steps.seconds)
            if stopping.update(step, held_out_loss):
                steps.stop("the validation loss no longer improves (--patience)")
        if steps.due(options.sample_every) and not steps.is_last:
            run.add_samples(step, sample())
        if steps.due(options.checkpoint_every):
            save_checkpoint(run.checkpoints, step, decoder, optimizer, schedule, precision)
    stopping.restore()  # with --patience: the weights of the lowest validation loss


@dataclass(frozen=True)
class Data:
    """Everything that a run reads."""

    pairs: list[dict]  # rows to train on
    sha256: str  # of their file
    rows: list[list[Example]]  # the pairs, packed: the conversations of each row
    validation: list[list[Example]]
    test: list[dict]  # held-out pairs with checks, or text rows


def read_data(tokenizer: Tokenizer, options: Options) -> Data:
    """Read and pack the pairs. UserError for an unusable line, and where generated code could not be confined."""
    # refused now, not after an hour of training
    if (options.patience or options.sweep) and not options.validation:
        raise UserError(f"--{'sweep' if options.sweep else 'patience'} needs validation losses; give --validation, too")
    pairs = read_rows(options.data)
    test = read_rows(options.test, trained=pairs) if options.test else []
    if test and common_task(test) is None:
        protection()  # raises if there is no sandbox for generated code

    # the pairs as packed rows
    rows = packed_rows(options.data, pairs, tokenizer, options)
    validation = []
    if options.validation:
        held_back = read_rows(options.validation, trained=pairs)
        validation = packed_rows(options.validation, held_back, tokenizer, options)
    sha256 = hashlib.sha256(Path(options.data).read_bytes()).hexdigest()
    return Data(pairs, sha256, rows, validation, test)


def packed_rows(where: str, pairs: list[dict], tokenizer: Tokenizer, options: Options) -> list[list[Example]]:
    """The pairs of file `where`, packed; prints what was truncated or dropped. UserError when nothing is left."""
    examples, lost = tokenize_rows(
        pairs, tokenizer, max_length=options.max_length, where=where, train_on_prompt=options.train_on_prompt
    )
    if not examples:
        raise UserError(f"{where}: no pair with a supervised token is left (of {len(pairs)}); see --max-length")

    # packed, with a line that accounts for every pair
    rows = [[example] for example in examples] if options.step_pairs else pack(examples, options.max_length)
    tokens = sum(len(example.input_ids) for example in examples)
    supervised = sum(example.supervised for example in examples)
    fill = (
        "a row each" if options.step_pairs else f"packed {100 * tokens / (len(rows) * options.max_length):.1f} % full"
    )
    print(
        f"data     {Path(where).name}: {len(examples)} pairs · {tokens:,} tokens, {supervised:,} supervised · "
        f"{lost['cut']} truncated, {lost['dropped']} dropped at {options.max_length} · {fill}"
    )
    if lost["shortened"]:
        print(f"note     {lost['shortened']} texts were cut at their end, so that the answer fits")
    if lost["read"]:
        print(f"note     {ONLY_READ.format(lost['read'])}")
    if unread := unread_fields(pairs):
        print(f"fields   ignored: {', '.join(unread)}")
    return rows


def answer_some(
    decoder: Decoder, tokenizer: Tokenizer, pairs: list[dict], precision: Precision, options: Options
) -> str:
    """Markdown: greedy answers to the first training pairs."""
    # the prompts: each conversation without its final answer
    questions = [training_conversation(pair).question for pair in pairs[:3]]
    prompts = [encode_prompt(tokenizer, question.messages, tools=question.tools) for question in questions]

    # short greedy answers: this interrupts training
    stop = Stop(max_new_tokens=min(64, options.max_new_tokens or 64), ids=tokenizer.stop_ids)
    with precision.as_loaded(decoder), folded(decoder):
        answers = generate(decoder, prompts, stop, unused_ids=tokenizer.unused_ids, what="samples")
    return "\n\n".join(
        f"{fenced(question.messages[-1]['content'])}\n\nanswer\n\n{fenced(tokenizer.decode(ids))}"
        for question, (ids,) in zip(questions, answers, strict=True)
    )


if __name__ == "__main__":
    less = (
        "--checkpointing full and --micro-batch 1 (with --resume, if the run has begun), or a new run with "
        "--fit, --quantize nf4 or a smaller --max-length"
    )
    sys.exit(run_command(main, needs_less_with=less))
