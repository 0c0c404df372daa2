"""Track C: embedding tuning. Teach an encoder to find the code of a repository.

    python train_embed.py --model BAAI/bge-small-en-v1.5 --data codes/train.jsonl --test codes/test.jsonl \\
        --candidates codes/candidates.jsonl --out runs/embed

InfoNCE with in-batch negatives: every other code of a batch is a negative, unless it is as good as the query's own.
With --test, held-out queries are ranked against all candidates before and after. The loss is called in `learn` and
defined in training/contrastive_loss.py; batches are made in data/contrastive.py.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from common.console import UserError, run_command
from common.files import read_json, read_objects, write_json
from common.options import option, parse_with_recipe
from data.contrastive import PairBatch, PairTable, plan_batches
from data.pair_rows import read_feedback, read_pairs, read_pool
from eval.retrieval import own_candidates, relevance
from lora.adapter import trainable
from model import fast, load_encoder
from model.device import choose_dtype
from model.encoder import Encoder
from model.encoder_options import VECTORS, EncoderOptions
from model.memory import keep_freed_memory
from training import parallel
from training.checkpoint import load_checkpoint, save_checkpoint
from training.contrastive_loss import ContrastiveLoss
from training.cost import count_trainable
from training.describe import describe_encoder_run, describe_model
from training.finish import copy_data_card, finish, save_trained_encoder
from training.fit_chunks import fitted_chunk_tokens
from training.grad_cache import embedder
from training.methods import with_method
from training.overflow import locate_overflow
from training.precision import Precision
from training.retrieval_results import write_after, write_before
from training.run import Run
from training.setup import add_lora, optimizer_of, schedule_of, train_top_layers
from training.shared_options import (
    ADAPTER,
    DATA,
    LOSS,
    MEASURING,
    MEMORY,
    METHOD_HELP,
    MODEL,
    OPTIMISER,
    RUN,
    TARGETS_HELP,
    TrainOptions,
)
from training.steps import Deadline, Steps
from training.stopwatch import Stopwatch


@dataclass(frozen=True, kw_only=True)
class Options(EncoderOptions, TrainOptions):
    """Options of this script, beside those in training/shared_options.py; all are also the keys of a recipe."""

    GROUPS = (DATA, MODEL, VECTORS, RUN, OPTIMISER, LOSS, ADAPTER, MEMORY, MEASURING)

    data: str = option(
        help='training pairs, JSON Lines: {"id", "query", "code"}, optionally "negatives" and "scores"',
        group=DATA,
        metavar="FILE",
    )
    from_feedback: str | None = option(
        None, "further pairs: what was marked on the page of search.py serve --feedback", DATA, metavar="FILE"
    )
    test: str | None = option(None, "held-out queries, ranked before and after", DATA, metavar="FILE")
    candidates: str | None = option(
        None, "codes among which the queries of --test search (default: those of --test)", DATA, metavar="FILE"
    )
    negatives: int = option(4, "hard negatives per pair, at most", DATA, least=0)
    mine: bool = option(False, "mine hard negatives before each epoch, with the encoder as trained so far", DATA)
    pool: str | None = option(
        None, "further codes to mine among, JSON Lines; those that --test asks for are left out", DATA, metavar="FILE"
    )
    probe: str | None = option(
        None, "general queries to measure forgetting on, before and after", MEASURING, metavar="FILE"
    )
    method: str = option("full", METHOD_HELP, ADAPTER, choices=("full", "lora"))
    top_layers: int = option(0, "train only this many layers, the last ones (0: all)", ADAPTER, least=0)
    dropout: float = option(
        0.0, "LoRA dropout, 0 to 1; the encoder's own is that of its config.json", ADAPTER, least=0, most=1
    )
    targets: str = option("all-linear", TARGETS_HELP, ADAPTER)
    epochs: float = option(4.0, "passes over the pairs", OPTIMISER, least=0)
    batch: int = option(
        32, "pairs per step at most; the other codes of a step are each query's negatives", OPTIMISER, least=2
    )
    chunk_tokens: int = option(
        0, "tokens per pass; a larger batch is computed in chunks, twice (0: what fits)", MEMORY, least=0
    )
    temperature: float = option(0.05, "temperature of the softmax over similarities", LOSS, least=1e-3)
    learn_temperature: bool = option(
        False, "train the temperature too, starting from --temperature; it stays above 0.01", LOSS
    )
    symmetric: bool = option(True, "do not train codes to find their queries too", LOSS)
    dimensions: str | None = option(
        None,
        "Matryoshka: widths whose leading dimensions are trained as embeddings too, such as 256,128,64",
        LOSS,
        metavar="WIDTHS",
    )
    distill: float = option(0.0, 'weight of distillation from the "scores" of a stronger model', LOSS, least=0)
    teacher_temperature: float = option(1.0, 'divisor of the "scores"', LOSS, least=1e-3)
    final_lr: float = option(0.0, "learning rate at the last step, as a share of --lr", OPTIMISER, least=0, most=1)
    checkpoint_every: int = option(20, "steps between checkpoints (0: none)", RUN, least=0)


def main(arguments: list[str] | None = None) -> dict:
    """The command line. Returns the track's part of metrics.json."""
    resolved = with_method(parse_with_recipe(Options, arguments, description=__doc__), "embed")
    options: Options = resolved.values
    stopwatch = Stopwatch()
    keep_freed_memory()  # before the first large allocation
    if options.plain:
        fast.off()  # the textbook forms alone

    # device, compute dtype, run folder, seed
    device = parallel.start(options.device)
    dtype = choose_dtype(device, options.dtype)
    run = Run(options.out, "embed", resolved, resume=options.resume)
    torch.manual_seed(options.seed)

    # the pairs, the held-out queries, the encoder with what it trains
    data = read_data(options)
    encoder = load_for_training(options, dtype, device)
    precision = Precision(device, dtype)
    print(describe_model(options, encoder, dtype))
    print_data(encoder, data)
    table = PairTable(data.pairs, encoder, negatives=options.negatives, pool=data.pool)
    if options.mine:
        table.use(mine(run, table, epoch=0))

    # the plan: which pairs make up each step, and how many of their tokens fit into a pass
    plan = plan_batches(table.lengths(), pairs_per_step=options.batch, epochs=options.epochs, seed=options.seed)
    if plan and not options.chunk_tokens:
        options = run.set_options("--fit", chunk_tokens=fitted_chunk_tokens(run, encoder, precision, table, plan))
    if options.dry_run:
        print(describe_plan(options, encoder, precision, table, plan))
        return {}
    print(f"plan     {options.epochs:g} epochs · {len(plan)} steps of up to {options.batch} pairs")

    # all input is read and valid: create the run folder
    run.start(device=device, dtype=dtype, data={"data_sha256": data.sha256}, log_to=options.log_to)
    copy_data_card(Path(options.data).parent, run)
    stopwatch.split("prepare")

    # rank the held-out queries with the untrained encoder
    if run.resume_from is None:
        write_before(run, encoder, data.queries, data.candidates, data.probe)
    stopwatch.split("before")

    # train; the evaluation afterwards is assumed to take as long as the one before
    trainable_parameters = count_trainable(encoder)
    deadline = Deadline(options.max_minutes, stopwatch.started, reserve=stopwatch.seconds["before"])
    with parallel.together(encoder, seed=options.seed):  # afterwards only rank 0 is left
        learn(run, encoder, precision, table, plan, deadline=deadline)
    stopwatch.split("train")

    # save, evaluate again, compare
    save_trained_encoder(run, encoder)
    widths = make_loss(encoder, options).dimensions
    write_after(run, encoder, data.queries, data.candidates, data.probe, pairs=data.pairs, widths=widths)
    stopwatch.split("after")
    trained_on = {"path": options.data, "sha256": data.sha256, "rows": len(data.pairs), "unit": "pairs"}
    return finish(run, seconds=stopwatch.seconds, data=trained_on, trainable=trainable_parameters)


def learn(
    run: Run, encoder: Encoder, precision: Precision, table: PairTable, plan: list[tuple[int, list[int]]],
    *, deadline: Deadline,
) -> None:  # fmt: skip
    """The training loop; `plan` is (epoch, pairs of the table) for each step."""
    # loss, optimiser, schedule
    options: Options = run.options.values
    contrastive_loss = make_loss(encoder, options)
    network = nn.ModuleDict({"encoder": encoder, "objective": contrastive_loss})  # the temperature may be trainable
    optimizer = optimizer_of(network, options)
    parameters = [parameter for _, parameter in trainable(network)]
    schedule = schedule_of(optimizer, options, steps=len(plan))
    # with --resume, the state of the last checkpoint
    done = load_checkpoint(run.resume_from, network, optimizer, schedule, precision) if run.resume_from else 0

    # the steps that remain
    steps = Steps(done, len(plan), deadline)
    run.add_tracker(steps)  # the progress bar shows what is logged
    encoder.train()
    mined_epoch = 0

    for step in steps:
        # a batch of pairs; with --mine, each epoch begins with new hard negatives
        epoch, chosen = plan[step - 1]
        if options.mine and epoch > mined_epoch:
            table.use(mine(run, table, epoch))
            mined_epoch = epoch
        batch = table.batch(chosen)

        # every rank embeds its share of the texts and sees the vectors of all
        embed = embedder(encoder, batch, options.chunk_tokens)  # encoder.embed, in chunks if the batch is too large
        with precision.autocast():
            q = parallel.joined(embed, batch.queries)  # [B, D] fp32, unit length
            c = parallel.joined(embed, batch.documents)  # [M, D] own codes, then hard negatives
            loss = contrastive_loss(q, c, batch)  # InfoNCE
        precision.backward(loss)  # scales the loss in fp16
        parallel.sum_gradients(parameters)

        # the optimiser step: unscale, clip, update, clear; a step that fp16 skips does not advance the schedule
        lr = schedule.get_last_lr()[0]
        stepped, norm = precision.step(optimizer, parameters, options.max_norm)
        if stepped:
            schedule.step()
        else:
            print(f"step {step} skipped: {overflow_in(encoder, embed, batch, precision)}")

        # one row of the log, and a checkpoint if it is due
        run.log(
            step, loss=loss.item(), lr=lr, norm=norm, scale=precision.scale, pairs=len(chosen), tokens=batch.tokens,
            temperature=contrastive_loss.temperature.item(), skipped=not stepped,
            **steps.costs(batch.tokens, precision.device),
        )  # fmt: skip
        if steps.due(options.checkpoint_every):
            save_checkpoint(run.checkpoints, step, network, optimizer, schedule, precision)
    encoder.eval()


@dataclass(frozen=True)
class Data:
    """Everything that a run reads."""

    pairs: list[dict]  # to train on
    sha256: str  # of their file
    queries: list[dict]  # held-out
    candidates: list[dict]  # the codes that they are ranked against
    probe: tuple[list[dict], list[dict]]  # general queries and their codes, to measure forgetting
    pool: list[dict]  # more codes to mine negatives from


def read_data(options: Options) -> Data:
    """Read every file. UserError for a bad row, or for options that contradict each other or the rows."""
    # what to train on, what to measure on, what to mine negatives from
    pairs = read_pairs(options.data) + (read_feedback(options.from_feedback) if options.from_feedback else [])
    queries, candidates = read_queries(options.test, options.candidates)
    probe = read_queries(options.probe)
    pool = read_pool(options.pool, queries)
    refuse_contradictions(options, pairs)
    sha256 = hashlib.sha256(Path(options.data).read_bytes()).hexdigest()
    return Data(pairs, sha256, queries, candidates, probe, pool)


def read_queries(path: str | None, candidates: str | None = None) -> tuple[list[dict], list[dict]]:
    """Queries, and the codes that they are ranked against. UserError if that could not be evaluated later."""
    # without a file of candidates, the queries' own codes
    queries = read_pairs(path) if path else []
    queries, codes = (queries, read_objects(candidates)) if candidates else own_candidates(queries)
    if queries:
        relevance(queries, codes)
    return queries, codes


def refuse_contradictions(options: Options, pairs: list[dict]) -> None:
    """UserError for options that contradict each other or the pairs."""
    if options.pool and not options.mine:
        raise UserError("--pool holds codes to mine negatives from; give --mine, too")
    if options.mine and not options.negatives:
        raise UserError("--mine with --negatives 0 mines nothing; give at least 1")
    if options.distill and options.mine:
        raise UserError("--distill uses scores of the rows' own negatives, --mine replaces these; drop one of them")
    if options.distill and not any(row.get("scores") for row in pairs):
        raise UserError(f'{options.data}: no row has "scores" for --distill to follow')


def print_data(encoder: Encoder, data: Data) -> None:
    """How texts become vectors, how many there are, and how many are truncated."""
    # how texts become vectors
    how = encoder.embedding
    print(f"vectors  {how.pooling} pooling · prefixes: query {how.query_prefix!r}, code {how.passage_prefix!r}")

    # how many there are, and how many lose their end
    against = f"{len(data.queries)} held-out queries against {len(data.candidates):,} codes"
    print(f"data     {len(data.pairs)} pairs · {against}")
    for name, rows in (("training", data.pairs), ("candidate", data.candidates)):
        cut = encoder.count_at_limit([row["code"] for row in rows], kind="passage")
        print(f"cut      {cut} of {len(rows):,} {name} codes are truncated at {how.max_length} tokens")


def load_for_training(options: Options, dtype: torch.dtype, device: torch.device) -> Encoder:
    """The encoder with fp32 weights; trainable are all of them, those of the adapter, or --top-layers.

    dtype  for encoding: evaluation and mining
    """
    encoder = load_encoder(options.model, device=device, **options.overrides())
    encoder.compute_dtype = dtype

    # what is trained
    if options.method == "lora":
        add_lora(encoder, options)
    elif options.top_layers:
        train_top_layers(encoder, options.top_layers)
    return encoder


def make_loss(encoder: Encoder, options: Options) -> ContrastiveLoss:
    """The contrastive loss with the options' settings, on the encoder's device."""
    return ContrastiveLoss(
        encoder.config.hidden_size,
        temperature=options.temperature,
        learn_temperature=options.learn_temperature,
        symmetric=options.symmetric,
        dimensions=options.dimensions,
        distill=options.distill,
        teacher_temperature=options.teacher_temperature,
    ).to(encoder.device)


def mine(run: Run, table: PairTable, epoch: int) -> list[list[int]]:
    """Hard negatives for an epoch. Those of epochs after the first are saved, for a run that is resumed within one."""
    # resumed within this epoch: the same negatives again, for the same steps
    path = run.shared / "mined" / f"epoch-{epoch}.json"
    if epoch and run.resume_from and path.is_file():
        return read_json(path)["negatives"]

    # mined by every rank, but all use rank 0's: the last digit of a score may differ between ranks
    found = parallel.of_every_rank(table.mine())[0]
    print(f"mined    {sum(map(len, found))} hard negatives for {len(found)} pairs from {len(table.codes):,} codes")
    if epoch and parallel.rank() == 0:
        write_json(path, {"negatives": found})
    return found


def overflow_in(encoder: Encoder, embed, batch: PairBatch, precision: Precision) -> str:
    """A sentence for the log: the first module that overflowed in a skipped step."""

    def forward() -> None:
        embed(batch.queries)
        embed(batch.documents)

    return locate_overflow(encoder, forward, precision)[1]


def describe_plan(options: Options, encoder: Encoder, precision: Precision, table: PairTable, plan: list) -> str:
    """For --dry-run: steps, memory and time."""
    # too little data for a single step
    if not plan:
        return "steps    0: each needs at least two pairs"

    # measured on the batch with the most tokens
    batch = table.largest(plan)
    embed = embedder(encoder, batch, options.chunk_tokens)
    loss = make_loss(encoder, options)
    return describe_encoder_run(options, encoder, embed, loss, precision, batch, steps=len(plan))


if __name__ == "__main__":
    less = (
        "--chunk-tokens 1024 and the same gradients (with --resume, if the run has begun), or a new run "
        "with a smaller --max-length or --batch"
    )
    sys.exit(run_command(main, needs_less_with=less))
