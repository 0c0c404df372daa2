"""Track B: instruction tuning. Teach a causal LM to do tasks on your code.

    python train_sft.py --model Qwen/Qwen2.5-Coder-0.5B --data pairs/train.jsonl --test pairs/test.jsonl --out runs/sft

Only the answer and its stop token are learnt (data/masking.py). With --test, held-out tasks are answered and graded,
by execution where that is possible, before and after. Change the loss in its one line in `learn`.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from common.console import UserError, run_command
from common.files import read_jsonl, write_json
from common.markdown import fenced
from common.options import option, parse_with_recipe
from data.masking import ONLY_READ, Example, encode_prompt, tokenize_rows
from data.packing import in_passes, pack, plan_windows, to_batch
from data.rows import conversation_of, named_line, training_conversation, unread_fields
from eval.failure_causes import failures
from eval.instruct import answer_pairs, grade_answers
from lora.inject import folded
from model import Stop, generate, load_tokenizer
from model.decoder import Decoder
from model.device import choose_dtype
from model.loss import causal_lm_loss, supervised_tokens
from model.tokenizer import Tokenizer
from sandbox.run import protection
from training import parallel
from training.checkpoint import load_checkpoint, save_checkpoint
from training.dry_run import describe_run
from training.finish import copy_data_card, describe_model, finish, save_trained
from training.fit import fit_run
from training.memory import keep_freed_memory
from training.precision import Precision, mend_overflow
from training.run import Run
from training.setup import load_for_training, optimizer_of, prepare, schedule_of
from training.sharding import own_parts
from training.shared_options import DATA, MEASURING, OPTIMISER, DecoderOptions
from training.validation import Best, validation_loss


@dataclass(frozen=True, kw_only=True)
class Options(DecoderOptions):
    """Options of this script, beside those in training/shared_options.py; all are also the keys of a recipe."""

    data: str = option(
        help="training pairs, JSON Lines: instruction/input/output, messages, or prompt/completion", group=DATA
    )
    validation: str | None = option(None, "pairs for the validation loss, JSON Lines", DATA)
    test: str | None = option(None, "held-out pairs with checks, answered and graded before and after", DATA)
    max_length: int = option(
        2048, "tokens of a pair and of a packed row; longer pairs are cut at the end", DATA, least=2
    )
    chat_template: str | None = option(None, "Jinja file (default: the model's own template)", DATA, metavar="FILE")
    train_on_prompt: bool = option(False, "include the prompt's tokens in the loss", DATA)
    epochs: float = option(3.0, "passes over the training pairs", OPTIMISER, least=0)
    samples: int = option(10, "sampled answers per test task, for pass@3 (at least 4; 0: none)", MEASURING)
    temperature: float = option(0.8, "temperature of the sampled answers", MEASURING)
    top_p: float = option(0.95, "nucleus (top-p) of the sampled answers", MEASURING)
    max_new_tokens: int = option(256, "tokens of an answer at most", MEASURING)


def main(arguments: list[str] | None = None) -> dict:
    """Command line. Returns the track's part of metrics.json."""
    resolved = parse_with_recipe(Options, arguments, description=__doc__)
    options: Options = resolved.values
    started = time.perf_counter()
    keep_freed_memory()
    device = parallel.start(options.device, shard=options.shard)
    run = Run(options.out, "sft", resolved, resume=options.resume)
    dtype = choose_dtype(device, options.dtype)
    torch.manual_seed(options.seed)
    pairs = read_jsonl(options.data)
    test = read_jsonl(options.test) if options.test else []
    if options.patience and not options.validation:
        raise UserError("--patience counts validations; give --validation too")
    if test:
        protection()  # refuse now, not after the training, if generated code cannot be confined here
    tokenizer = load_tokenizer(options.model, chat_template=options.chat_template)
    rows = packed_rows(options.data, pairs, tokenizer, options)
    validation = (
        packed_rows(options.validation, read_jsonl(options.validation), tokenizer, options)
        if options.validation
        else []
    )
    decoder = load_for_training(options, dtype, device)
    if options.max_length > decoder.config.max_position_embeddings:
        limit = decoder.config.max_position_embeddings
        raise UserError(f"--max-length {options.max_length} exceeds the model's {limit} positions; give less")
    refuse_bad_tasks(test, tokenizer, decoder, options)
    precision = prepare(decoder, options, device, dtype)
    print(describe_model(options.model, decoder, dtype))
    per_step = max(1, options.step_tokens // options.max_length)
    windows = plan_windows(len(rows), rows_per_step=per_step, epochs=options.epochs, seed=options.seed)
    if options.fit:
        fit_run(run, decoder, precision, rows, rows_per_step=per_step)
    if options.dry_run:
        print(describe_run(run, decoder, tokenizer, precision, rows, windows, row_tokens=options.max_length))
        return {}
    hashes = {"data_sha256": hashlib.sha256(Path(options.data).read_bytes()).hexdigest()}
    run.start(device=device, dtype=dtype, data=hashes, log_to=options.log_to)
    copy_data_card(Path(options.data).parent, run)

    seconds = {"prepare": time.perf_counter() - started}
    if test and run.resume_from is None:  # the adapter is fresh and changes nothing yet
        write_json(run.folder / "before.json", evaluate(decoder, tokenizer, test, precision, options))
    seconds["before"] = time.perf_counter() - started - sum(seconds.values())
    run.seconds_after = seconds["before"]
    sample = partial(answer_some, decoder, tokenizer, pairs, precision, options)
    with parallel.together(decoder, seed=options.seed, shard=options.shard):  # behind it one process is left
        learn(run, decoder, precision, rows, windows, validation=validation, sample=sample)
    seconds["train"] = time.perf_counter() - started - sum(seconds.values())
    save_trained(run, decoder, tokenizer, options.model)
    if test:
        after = evaluate(decoder, tokenizer, test, precision, options)
        write_json(run.folder / "after.json", after)
        write_json(run.folder / "failures.json", failures(test, after["results"], seed=options.seed, train=pairs))
        run.add_samples(None, answers_as_markdown(test, after["results"]))
    seconds["after"] = time.perf_counter() - started - sum(seconds.values())
    data = {"path": options.data, "sha256": hashes["data_sha256"], "rows": len(pairs), "unit": "pairs"}
    return finish(run, seconds=seconds, data=data)


def learn(
    run: Run,
    decoder: Decoder,
    precision: Precision,
    rows: list[list[Example]],
    windows: list[list[int]],
    *,
    validation: list[list[Example]],
    sample: Callable[[], str],
) -> None:
    """The training loop.

    rows, validation  packed rows of examples
    windows           which rows make up each optimiser step
    sample            what the model says now, as Markdown
    """
    options: Options = run.options.values
    decoder.train()
    optimizer = optimizer_of(decoder, options)
    learning = own_parts(optimizer)  # all that learns, unless each process has a part of it
    schedule = schedule_of(optimizer, options, steps=len(windows))
    done = load_checkpoint(run.resume_from, decoder, optimizer, schedule, precision) if run.resume_from else 0
    best = Best(run.shared / "best.safetensors", decoder, options.patience, run.validations())
    print(f"plan     {options.epochs:g} epochs · {len(windows)} steps of about {options.step_tokens:,} tokens")

    for step in run.steps(done, len(windows), max_minutes=options.max_minutes):
        in_step = [rows[row] for row in windows[step - 1]]  # one optimiser step, of which each process has a share
        window = [to_batch(row, precision.device) for row in in_passes(parallel.share(in_step), options.micro_batch)]
        supervised = parallel.total(sum(supervised_tokens(batch.labels) for batch in window))  # the loss is their mean
        for batch in window:
            with precision.autocast():
                hidden_states = decoder.hidden_states(batch.input_ids, batch.lengths)  # [1, T, D]
                loss = (
                    causal_lm_loss(hidden_states, decoder.head_weight, batch.labels, softcap=decoder.softcap)
                    / supervised
                )
            precision.backward(loss)  # scales when fp16
            run.add(loss)
        parallel.sum_gradients(learning)
        lr = schedule.get_last_lr()[0]
        stepped, norm = precision.step(optimizer, learning, options.max_norm)
        if stepped:  # a step that was skipped does not advance the schedule
            schedule.step()
        else:
            print(f"step {step} skipped: {mend_overflow(decoder, window, precision)}")
        tokens = sum(len(example.input_ids) for row in in_step for example in row)
        run.log(
            step, loss=parallel.total(run.take_loss()), lr=lr, norm=norm, scale=precision.scale, tokens=tokens,
            supervised=int(supervised), skipped=not stepped, **run.costs(tokens),
        )  # fmt: skip
        if validation and run.due(step, options.validate_every):
            held_out_loss = validation_loss(decoder, validation, precision)
            run.log(step, validation_loss=held_out_loss)
            if best.offer(step, held_out_loss):
                run.stop()
        if run.due(step, options.sample_every) and not run.is_last:
            run.add_samples(step, sample())
        if run.due(step, options.checkpoint_every):
            save_checkpoint(run.checkpoints, step, decoder, optimizer, schedule, precision)
    best.restore()


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
    if lost["read"]:
        print(f"note     {ONLY_READ.format(lost['read'])}")
    if unread := unread_fields(pairs):
        print(f"fields   not part of what is trained: {', '.join(unread)}")
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
        with named_line(f"{options.test}:{number}"):
            asked = conversation_of(row).question
            tokens = len(encode_prompt(tokenizer, asked.messages, tools=asked.tools))
        if tokens > room:
            raise UserError(
                f"{options.test}:{number}: a prompt of {tokens} tokens and an answer of {options.max_new_tokens} "
                f"exceed the model's {decoder.config.max_position_embeddings} positions; see --max-new-tokens"
            )


def evaluate(decoder: Decoder, tokenizer: Tokenizer, test: list[dict], precision: Precision, options: Options) -> dict:
    """Answer the test tasks, greedily and sampled, and grade the answers."""
    with precision.as_loaded(decoder), folded(decoder):
        answers = answer_pairs(
            decoder,
            tokenizer,
            test,
            samples=options.samples,
            temperature=options.temperature,
            top_p=options.top_p,
            max_new_tokens=options.max_new_tokens,
            seed=options.seed,
            where=options.test,
        )
    return grade_answers(test, answers)


def answer_some(decoder: Decoder, tokenizer: Tokenizer, pairs: list[dict], precision, options: Options) -> str:
    """Markdown: what the model answers to the first training pairs, greedily."""
    chosen = [training_conversation(pair).question for pair in pairs[:3]]
    prompts = [encode_prompt(tokenizer, asked.messages, tools=asked.tools) for asked in chosen]
    stop = Stop(max_new_tokens=min(64, options.max_new_tokens), ids=tokenizer.stop_ids)
    with precision.as_loaded(decoder), folded(decoder):
        answers = generate(decoder, prompts, stop, unused_ids=tokenizer.unused_ids, what="samples")
    return "\n\n".join(
        f"{fenced(asked.messages[-1]['content'])}\n\nanswer\n\n{fenced(tokenizer.decode(ids))}"
        for asked, (ids,) in zip(chosen, answers, strict=True)
    )


def answers_as_markdown(test: list[dict], results: list[dict], *, count: int = 6) -> str:
    """The greedy answers to the first tasks of each kind, for samples.md."""
    greedy = {row["id"]: row for row in results if row["sample"] == "greedy"}
    first: dict[str, dict] = {}
    for pair in test:
        first.setdefault(pair["category"], pair)
    parts = ["# Samples\n\nOne held-out task of each category, and the tuned model's greedy answer."]
    for pair in list(first.values())[:count]:
        row = greedy[pair["id"]]
        parts.append(
            f"## {pair['category']}: {pair['id']} ({row['status']})\n\n{pair['instruction']}\n\n"
            f"{fenced(pair['input'])}\n\nanswer\n\n{fenced(row['output'])}"
        )
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    less = (
        "--checkpointing full and --micro-batch 1 (with --resume, if the run has begun), or a new run with "
        "--fit, --quantize nf4 or a smaller --max-length"
    )
    sys.exit(run_command(main, needs_less_with=less))
