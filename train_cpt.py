"""Track A: continued pre-training. Teach a causal LM to predict your code.

    python train_cpt.py --model Qwen/Qwen2.5-Coder-0.5B --corpus path/to/repository --out runs/cpt

Held-out files are measured before and after. Change the loss in its one line in `learn`, the mask in data/masking.py,
the adapter in lora/layer.py.
"""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch

from common.console import UserError, run_command
from common.files import write_json
from common.options import option, parse_with_recipe
from common.shuffle import seeded_order
from data.card import write_data_card
from data.corpus import Corpus, open_corpus, save_corpus
from data.fim import FimTokens, fim_pieces, fim_tokens
from data.import_order import repository_text
from data.masking import Example, plain_document
from data.packing import in_passes, pack, pieces, plan_windows, to_batch
from data.replay import OtherTexts, other_texts_summary, read_other_texts, replay_examples
from eval.forgetting import probe
from eval.nearest_training_example import add_nearest, pieces_of_files
from eval.perplexity import continuations, perplexity, worst_predictions
from model import load_tokenizer
from model.decoder import Decoder
from model.device import choose_dtype
from model.loss import causal_lm_loss, supervised_tokens
from model.tokenizer import Tokenizer
from training import parallel
from training.checkpoint import load_checkpoint, save_checkpoint
from training.dry_run import describe_run
from training.finish import describe_model, finish, save_trained
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

    corpus: str = option(help="corpus folder (python -m data.corpus), or any SOURCE to build one from", group=DATA)
    row_tokens: int = option(1024, "tokens of a packed row; longer files are cut into pieces", DATA, least=2)
    most_tokens: int = option(0, "tokens to train on, from files drawn by the seed (0: all)", DATA)
    fim: float = option(
        0.0, "fill-in-the-middle: share of texts whose middle is moved to the end (0: none; usual: 0.5)",
        DATA, least=0, most=1,
    )  # fmt: skip
    repository_order: bool = option(
        False, "join all files into one text in import order, so that each sees the files it imports", DATA
    )
    replay: str | None = option(
        None, "other texts to mix in against forgetting: JSON Lines (text or conversations) or a folder", DATA
    )
    replay_share: float = option(0.05, "share of replayed tokens among the trained ones", DATA, least=0, most=1)
    probe: str | None = option(
        None, "texts to measure forgetting on, before and after (default: one in five of --replay)", MEASURING
    )
    lr: float = option(4e-4, "peak learning rate", OPTIMISER, least=0)
    held_out_files: int = option(0, "held-out files to measure on, before and after (0: all)", MEASURING)
    held_out_tokens: int = option(0, "tokens of each held-out file to measure on, from its start (0: all)", MEASURING)


def main(arguments: list[str] | None = None) -> dict:
    """Command line. Returns the track's part of metrics.json."""
    resolved = parse_with_recipe(Options, arguments, description=__doc__)
    options: Options = resolved.values
    started = time.perf_counter()
    keep_freed_memory()
    device = parallel.start(options.device, shard=options.shard)
    run = Run(options.out, "cpt", resolved, resume=options.resume)
    dtype = choose_dtype(device, options.dtype)
    torch.manual_seed(options.seed)
    corpus = open_corpus(options.corpus, seed=options.seed)
    tokenizer = load_tokenizer(options.model)
    decoder = load_for_training(options, dtype, device)
    if options.row_tokens > decoder.config.max_position_embeddings:
        limit = decoder.config.max_position_embeddings
        raise UserError(f"--row-tokens {options.row_tokens} exceeds the model's {limit} positions; give fewer")
    other = read_other_texts(
        options.replay, options.probe, corpus_texts={file.text for file in corpus.files}, seed=options.seed
    )
    if other.probe:
        print(other_texts_summary(other))
    rows = packed_rows("train", corpus, tokenizer, options, most_tokens=options.most_tokens, other=other)
    validation = packed_rows("validation", corpus, tokenizer, options, most_tokens=8 * options.row_tokens)
    held_out = held_out_files(corpus, options)
    if tokenizer.without_row:  # refuse now, not when these are measured
        tokenizer.encode_batch([text for _, text in held_out])
    if not rows:
        raise UserError(f"{options.corpus}: no training file is left after curation and splitting; give more files")
    precision = prepare(decoder, options, device, dtype)
    print(describe_model(options.model, decoder, dtype))
    per_step = max(1, options.step_tokens // options.row_tokens)
    windows = plan_windows(len(rows), rows_per_step=per_step, epochs=options.epochs, seed=options.seed)
    if options.fit:
        fit_run(run, decoder, precision, rows, rows_per_step=per_step)
    if options.dry_run:
        print(describe_run(run, decoder, tokenizer, precision, rows, windows, row_tokens=options.row_tokens))
        return {}
    hashes = {"corpus": corpus.name, "corpus_sha256": corpus.sha256()}
    if other.probe:
        hashes["other_texts_sha256"] = other.sha256()
    run.start(device=device, dtype=dtype, data=hashes, log_to=options.log_to)
    save_corpus(corpus, run.folder / "corpus")
    write_data_card(run.folder, corpus=corpus)

    seconds = {"prepare": time.perf_counter() - started}
    if run.resume_from is None:  # the adapter is fresh and changes nothing yet
        with precision.as_loaded(decoder):
            measure(run, "before", decoder, tokenizer, held_out, other)
    seconds["before"] = time.perf_counter() - started - sum(seconds.values())
    run.seconds_after = seconds["before"]
    sample = partial(sample_continuations, decoder, tokenizer, held_out, precision)
    with parallel.together(decoder, seed=options.seed, shard=options.shard):  # after it one process is left
        learn(run, decoder, precision, rows, windows, validation=validation, sample=sample)
    seconds["train"] = time.perf_counter() - started - sum(seconds.values())
    save_trained(run, decoder, tokenizer, options.model)
    with precision.as_loaded(decoder):
        measure(run, "after", decoder, tokenizer, held_out, other)
        failures = worst_predictions(decoder, tokenizer, held_out)
    add_nearest(failures, pieces_of_files([(file.path, file.text) for file in corpus.split("train")]))
    write_json(run.folder / "failures.json", failures)
    run.add_samples(None, sample())
    seconds["after"] = time.perf_counter() - started - sum(seconds.values())
    data = {"path": options.corpus, "sha256": corpus.sha256(), "rows": len(corpus.split("train")), "unit": "files"}
    return finish(run, seconds=seconds, data=data)


def measure(
    run: Run, when: str, decoder: Decoder, tokenizer: Tokenizer, held_out: list[tuple[str, str]], other: OtherTexts
) -> None:
    """Write the perplexity of held-out files, and of texts to probe forgetting with: WHEN.json, probe_WHEN.json."""
    options: Options = run.options.values
    rules = {"window": options.row_tokens, "most_tokens": options.held_out_tokens or None}
    write_json(run.folder / f"{when}.json", perplexity(decoder, tokenizer, held_out, **rules))
    if other.probe:
        write_json(run.folder / f"probe_{when}.json", probe(decoder, tokenizer, other.probe, **rules))


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


def sample_continuations(decoder: Decoder, tokenizer: Tokenizer, held_out: list[tuple[str, str]], precision) -> str:
    """Markdown: how the model continues the first lines of a few held-out files."""
    with precision.as_loaded(decoder):
        return continuations(decoder, tokenizer, held_out)


def held_out_files(corpus: Corpus, options: Options) -> list[tuple[str, str]]:
    """(path, text) of the test files, or of a seeded draw of them. UserError when there is none."""
    texts = {file.path: file.text for file in corpus.split("test")}
    if not texts:
        raise UserError(f"{options.corpus}: no test file is left after curation and splitting; give more files")
    drawn = seeded_order(list(texts), options.seed)[: options.held_out_files or None]
    return [(path, texts[path]) for path in sorted(drawn)]


def packed_rows(
    split: str,
    corpus: Corpus,
    tokenizer: Tokenizer,
    options: Options,
    *,
    most_tokens: int,
    other: OtherTexts | None = None,
) -> list[list[Example]]:
    """Rows filled with the pieces of files, in an order drawn by the seed, until most_tokens (0: all) are used.

    Training rows alone are filled in the middle, ordered by imports and joined by replayed texts (`other`): a
    validation loss can then be compared between runs with and without.
    """
    texts = {file.path: file.text for file in corpus.split(split)}
    documents = {path: texts[path] for path in seeded_order(list(texts), options.seed)}
    if split == "train" and options.repository_order and texts:
        documents = {corpus.name: repository_text(texts)}
    fim = fim_tokens(tokenizer) if split == "train" and options.fim else None
    examples: list[Example] = []
    used, room = set(), most_tokens or math.inf
    for path, piece in cut_up(documents, tokenizer, options, fim):
        room -= len(piece.input_ids)
        if room < 0:
            break
        examples.append(piece)
        used.add(path)
    as_one = documents.keys() != texts.keys()
    what = f"{len(texts)} files as one text" if as_one else f"{len(used)} of {len(texts)} files"
    if fim:
        what += f" · middle last in {sum(fim.middle in e.input_ids for e in examples)} of {len(examples)} pieces"
    if examples and other is not None and other.replay:
        examples += replayed(other, examples, tokenizer, options)
        what += " and replay"
    tokens = sum(len(example.input_ids) for example in examples)
    rows = pack(examples, options.row_tokens)
    print(f"data     {split}: {what} · {tokens:,} tokens in {len(rows)} rows")
    return rows


def cut_up(
    documents: dict[str, str], tokenizer: Tokenizer, options: Options, fim: FimTokens | None
) -> Iterator[tuple[str, Example]]:
    """(path, piece) of {path: text}; a piece fits a row, and with `fim` the middle of some comes last."""
    for path, text in documents.items():
        if fim is None:
            parts = pieces(plain_document(tokenizer, text), options.row_tokens)
        else:
            rng = random.Random(f"{options.seed}/{path}")
            parts = fim_pieces(tokenizer, fim, text, size=options.row_tokens, rate=options.fim, rng=rng)
        yield from ((path, part) for part in parts)


def replayed(other: OtherTexts, examples: list[Example], tokenizer: Tokenizer, options: Options) -> list[Example]:
    """The share of other texts to learn beside the corpus's examples; says how much that is and what was lost."""
    learnt = sum(example.supervised for example in examples)
    drawn, counts = replay_examples(
        other.replay, tokenizer, size=options.row_tokens, beside=learnt, share=options.replay_share, seed=options.seed
    )
    tokens = sum(example.supervised for example in drawn)
    print(
        f"replay   {len(drawn)} of {counts['pieces']} pieces · {tokens:,} learnt tokens, "
        f"{100 * tokens / (learnt + tokens):.1f} % of all · {counts['cut']} cut off, {counts['dropped']} dropped"
    )
    return drawn


if __name__ == "__main__":
    less = (
        "--checkpointing full and --micro-batch 1 (with --resume, if the run has begun), or a new run with "
        "--fit, --quantize nf4 or fewer --row-tokens"
    )
    sys.exit(run_command(main, needs_less_with=less))
