"""Track A: continued pre-training. Adapt a causal LM to the code of a repository.

    python train_cpt.py --model Qwen/Qwen2.5-Coder-0.5B --corpus path/to/repository --out runs/cpt

Perplexity on held-out files is measured before and after. To change the loss, edit its line in `learn`; the mask is in
data/masking.py, the adapter in lora/layer.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from common.console import UserError, run_command
from common.files import write_json
from common.options import option, parse_with_recipe
from common.shuffle import seeded_order
from data.card import write_data_card
from data.corpus import Corpus, open_corpus, save_corpus
from data.masking import Example
from data.packing import in_passes, plan_windows, to_batch
from data.replay import OtherTexts, other_texts_summary, read_other_texts
from eval.continuations import continuations
from eval.forgetting import probe
from eval.nearest_training_example import pieces_of_files, with_nearest
from eval.perplexity import perplexity
from eval.worst_predictions import worst_predictions
from lora.adapter import base_alone
from model import fast, load_tokenizer
from model.decoder import Decoder
from model.device import choose_dtype
from model.loss import causal_lm_loss, supervised_tokens
from model.memory import keep_freed_memory
from model.tokenizer import Tokenizer
from training import parallel
from training.checkpoint import load_checkpoint, save_checkpoint
from training.corpus_rows import corpus_rows
from training.cost import count_trainable
from training.describe import describe_decoder_run, describe_model
from training.finish import finish, save_trained
from training.fit import fitted_options
from training.memory_plan import describe_without_weights, has_no_weights
from training.methods import with_method
from training.overflow import repair_overflow
from training.precision import Precision
from training.run import Run
from training.setup import load_for_training, optimizer_of, prepare, refuse_longer_texts, schedule_of
from training.sharding import own_parts
from training.shared_options import DATA, MEASURING, DecoderOptions
from training.steps import Deadline, Steps
from training.stopwatch import Stopwatch
from training.sweep import sweep
from training.validation import EarlyStopping, validation_loss
from training.virtual_start import describe_start


@dataclass(frozen=True, kw_only=True)
class Options(DecoderOptions):
    """Options of this script, beside those in training/shared_options.py; all are also the keys of a recipe."""

    corpus: str = option(
        help="corpus folder (python -m data.corpus), or any SOURCE to build one from", group=DATA, metavar="SOURCE"
    )
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
        None,
        "other texts to mix in against forgetting: JSON Lines (text or conversations) or a folder",
        DATA,
        metavar="PATH",
    )
    replay_share: float = option(0.05, "share of replayed tokens among the trained ones", DATA, least=0, most=1)
    probe: str | None = option(
        None,
        "texts to measure forgetting on, before and after (default: one in five of --replay)",
        MEASURING,
        metavar="PATH",
    )
    held_out_files: int = option(0, "held-out files to measure on, before and after (0: all)", MEASURING)
    held_out_tokens: int = option(0, "tokens of each held-out file to measure on, from its start (0: all)", MEASURING)


def main(arguments: list[str] | None = None) -> dict:
    """The command line. Returns the track's part of metrics.json."""
    resolved = with_method(parse_with_recipe(Options, arguments, description=__doc__), "cpt")
    options: Options = resolved.values
    stopwatch = Stopwatch()
    keep_freed_memory()  # before the first large allocation
    if options.plain:
        fast.off()  # the textbook forms alone
    if options.dry_run and has_no_weights(options.model):
        print(describe_without_weights(options, limit="--row-tokens", row_tokens=options.row_tokens))
        return {}

    # device, compute dtype, run folder, seed
    device = parallel.start(options.device, shard=options.shard)
    dtype = choose_dtype(device, options.dtype)
    run = Run(options.out, "cpt", resolved, resume=options.resume)
    torch.manual_seed(options.seed)

    # the corpus as packed rows, the held-out files, the model with its adapter
    corpus = open_corpus(options.corpus, seed=options.seed)
    tokenizer = load_tokenizer(options.model)
    decoder = load_for_training(options, dtype, device)
    precision = prepare(decoder, tokenizer, options, device, dtype)
    refuse_longer_texts("--row-tokens", options.row_tokens, decoder)
    texts = read_texts(corpus, tokenizer, options)
    print(describe_model(options, decoder, dtype))
    if decoder.virtual_tokens and run.resume_from is None:
        print(describe_start(decoder, tokenizer, precision, texts.rows[0], options))

    # the plan: which rows make up each step, and how many fit into a pass
    rows_per_step = max(1, options.step_tokens // options.row_tokens)
    windows = plan_windows(len(texts.rows), rows_per_step=rows_per_step, epochs=options.epochs, seed=options.seed)
    if options.fit:
        fitted = fitted_options(run, decoder, precision, texts.rows, rows_per_step=rows_per_step)
        options = run.set_options("--fit", **fitted)
    if options.dry_run:
        capacity = options.row_tokens
        print(describe_decoder_run(options, decoder, tokenizer, precision, texts.rows, windows, row_tokens=capacity))
        return {}
    print(f"plan     {options.epochs:g} epochs · {len(windows)} steps of about {options.step_tokens:,} tokens")

    # all input is read and valid: create the run folder
    run.start(device=device, dtype=dtype, data=texts.hashes(), log_to=options.log_to)
    save_corpus(corpus, run.folder / "corpus")
    write_data_card(run.folder, corpus=corpus)
    stopwatch.split("prepare")

    # measure the untrained model
    measure = partial(write_perplexity, run, decoder, tokenizer, precision, texts)
    sample = partial(sample_continuations, decoder, tokenizer, precision, texts)
    if run.resume_from is None:
        with base_alone(decoder):
            measure("before")
    stopwatch.split("before")

    # train; the evaluation afterwards is assumed to take as long as the one before
    deadline = Deadline(options.max_minutes, stopwatch.started, reserve=stopwatch.seconds["before"])
    with parallel.together(decoder, seed=options.seed, shard=options.shard):  # afterwards only rank 0 is left
        if options.sweep:
            sweep(run, learn, decoder, precision, texts.rows, windows, validation=texts.validation, deadline=deadline)
        learn(
            run, decoder, precision, texts.rows, windows, validation=texts.validation, sample=sample, deadline=deadline
        )
    stopwatch.split("train")

    # save, measure again, compare
    save_trained(run, decoder, tokenizer, options.model)
    measure("after")
    write_failures(run, decoder, tokenizer, precision, texts)
    run.add_samples(None, sample())
    stopwatch.split("after")
    data = {"path": options.corpus, "sha256": corpus.sha256(), "rows": len(corpus.split("train")), "unit": "files"}
    return finish(run, seconds=stopwatch.seconds, data=data, trainable=count_trainable(decoder))


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
class Texts:
    """Everything that a run reads, packed or whole."""

    corpus: Corpus
    rows: list[list[Example]]  # packed rows to train on: the pieces of files in each
    validation: list[list[Example]]
    held_out: list[tuple[str, str]]  # (path, text) of test files
    other: OtherTexts  # to replay, and to measure forgetting on

    def hashes(self) -> dict[str, str]:
        """What a resumed run must find unchanged."""
        hashes = {"corpus": self.corpus.name, "corpus_sha256": self.corpus.sha256()}
        return hashes | ({"other_texts_sha256": self.other.sha256()} if self.other.probe else {})


def read_texts(corpus: Corpus, tokenizer: Tokenizer, options: Options) -> Texts:
    """Pack the corpus. UserError when no training file is left."""
    # texts from outside the corpus: to replay, and to measure forgetting on
    known = {file.text for file in corpus.files}
    other = read_other_texts(options.replay, options.probe, corpus_texts=known, seed=options.seed)
    if other.probe:
        print(other_texts_summary(other))

    # the rows to train on, with the extras that were asked for
    rows = corpus_rows(
        corpus, "train", tokenizer, row_tokens=options.row_tokens, seed=options.seed, most_tokens=options.most_tokens,
        fim=options.fim, repository_order=options.repository_order, replay=other.replay,
        replay_share=options.replay_share,
    )  # fmt: skip
    # without extras, so that validation losses of runs with and without them are comparable
    validation = corpus_rows(
        corpus, "validation", tokenizer, row_tokens=options.row_tokens, seed=options.seed,
        most_tokens=8 * options.row_tokens,
    )  # fmt: skip

    # the files to measure on; a token without an embedding is refused now, not when they are measured
    held_out = held_out_files(corpus, options)
    if tokenizer.without_row:
        tokenizer.encode_batch([text for _, text in held_out])
    if options.sweep and not validation:
        raise UserError(f"--sweep needs validation losses; {options.corpus} has no validation file: give more files")
    if not rows:
        raise UserError(f"{options.corpus}: no training file is left after curation and splitting; give more files")
    return Texts(corpus, rows, validation, held_out, other)


def held_out_files(corpus: Corpus, options: Options) -> list[tuple[str, str]]:
    """(path, text) of the test files, or of a seeded sample of them. UserError when there is none."""
    texts = {file.path: file.text for file in corpus.split("test")}
    if not texts:
        raise UserError(f"{options.corpus}: no test file is left after curation and splitting; give more files")
    # drawn by the seed, measured in the order of their paths
    drawn = seeded_order(list(texts), options.seed)[: options.held_out_files or None]
    return [(path, texts[path]) for path in sorted(drawn)]


def write_perplexity(
    run: Run, decoder: Decoder, tokenizer: Tokenizer, precision: Precision, texts: Texts, when: str
) -> None:
    """WHEN.json: perplexity of the held-out files; probe_WHEN.json: of the texts that forgetting is measured on."""
    options: Options = run.options.values
    rules = {"window": options.row_tokens, "most_tokens": options.held_out_tokens or None}
    with precision.as_loaded(decoder):
        write_json(run.folder / f"{when}.json", perplexity(decoder, tokenizer, texts.held_out, **rules))
        if texts.other.probe:
            write_json(run.folder / f"probe_{when}.json", probe(decoder, tokenizer, texts.other.probe, **rules))


def write_failures(run: Run, decoder: Decoder, tokenizer: Tokenizer, precision: Precision, texts: Texts) -> None:
    """failures.json: the worst predictions, each with the nearest piece of training code."""
    with precision.as_loaded(decoder):
        failures = worst_predictions(decoder, tokenizer, texts.held_out)
    # the nearest training code shows what the model could have learnt from
    training_files = [(file.path, file.text) for file in texts.corpus.split("train")]
    write_json(run.folder / "failures.json", with_nearest(failures, pieces_of_files(training_files)))


def sample_continuations(decoder: Decoder, tokenizer: Tokenizer, precision: Precision, texts: Texts) -> str:
    """Markdown: how the model continues the first lines of a few held-out files."""
    with precision.as_loaded(decoder):
        return continuations(decoder, tokenizer, texts.held_out)


if __name__ == "__main__":
    less = (
        "--checkpointing full and --micro-batch 1 (with --resume, if the run has begun), or a new run with "
        "--fit, --quantize nf4 or fewer --row-tokens"
    )
    sys.exit(run_command(main, needs_less_with=less))
