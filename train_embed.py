"""Track C: embedding tuning. Teach an encoder to find your code.

    python train_embed.py --model BAAI/bge-small-en-v1.5 --data codes/train.jsonl --test codes/test.jsonl \\
        --candidates codes/candidates.jsonl --out runs/embed

InfoNCE with in-batch negatives: every other code of a batch is wrong for a query, unless it is as good as the right
one. With --test, held-out queries are ranked against all candidates before and after. Change the loss in `learn`, what
a step sees in data/contrastive.py.
"""

from __future__ import annotations

import hashlib
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from common.console import UserError, run_command
from common.files import read_json, read_jsonl, write_json
from common.options import option, parse_with_recipe
from data.contrastive import PairTable, plan_batches
from data.search.index import build_index
from eval.nearest_training_example import add_nearest
from eval.retrieval import evaluate_retrieval, own_candidates, relevance, worst_queries
from lora.adapter_file import save_adapter
from lora.inject import lora_layers, remove, trainable
from model import load_encoder, save_encoder
from model.device import choose_dtype
from model.encoder import Encoder
from model.weights import weights_sha256
from training import parallel
from training.checkpoint import load_checkpoint, save_checkpoint
from training.contrastive import Objective
from training.finish import copy_data_card, describe_model, finish
from training.grad_cache import embedder, fit_chunks
from training.memory import held_memory, keep_freed_memory, peak_memory, reset_peak
from training.optim import STATE_BYTES
from training.precision import Precision, told_overflow
from training.run import Run
from training.setup import add_adapter, optimizer_of, schedule_of, train_top_layers
from training.shared_options import (
    ADAPTER,
    DATA,
    LOSS,
    MEASURING,
    MEMORY,
    MODEL,
    OPTIMISER,
    RUN,
    TARGETS_HELP,
    TrainOptions,
)


@dataclass(frozen=True, kw_only=True)
class Options(TrainOptions):
    """Options of this script, beside those in training/shared_options.py; all are also the keys of a recipe."""

    data: str = option(
        help='training pairs, JSON Lines: {"id", "query", "code"}, optionally "negatives" and "scores"', group=DATA
    )
    test: str | None = option(None, "held-out queries, ranked before and after", DATA)
    candidates: str | None = option(
        None, "codes among which the queries of --test search (default: those of --test)", DATA
    )
    max_length: int | None = option(
        None, "tokens of a text; longer ones are cut (default: from the model's files)", DATA
    )
    negatives: int = option(4, "hard negatives per pair, at most", DATA, least=0)
    mine: bool = option(False, "mine hard negatives before each epoch, with the encoder as trained so far", DATA)
    pool: str | None = option(
        None, "further codes to mine among, JSON Lines; those that --test asks for are left out", DATA
    )
    probe: str | None = option(None, "general queries to measure forgetting on, before and after", MEASURING)
    pooling: str | None = option(None, "mean, cls or lasttoken (default: from the model's files)", MODEL)
    query_prefix: str | None = option(
        None, "text before a query (default: from the model's files)", MODEL, metavar="TEXT"
    )
    passage_prefix: str | None = option(
        None, "text before a code (default: from the model's files)", MODEL, metavar="TEXT"
    )
    lora: bool = option(False, "train a LoRA adapter instead of all weights", ADAPTER)
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
        None, "Matryoshka: widths whose leading dimensions are trained as embeddings too, such as 256,128,64", LOSS
    )
    distill: float = option(0.0, 'weight of distillation from the "scores" of a stronger model', LOSS, least=0)
    teacher_temperature: float = option(1.0, 'divisor of the "scores"', LOSS, least=1e-3)
    lr: float = option(1e-4, "peak learning rate", OPTIMISER, least=0)
    final_lr: float = option(0.0, "learning rate at the last step, as a share of --lr", OPTIMISER, least=0, most=1)
    checkpoint_every: int = option(20, "steps between checkpoints (0: none)", RUN, least=0)


def main(arguments: list[str] | None = None) -> dict:
    """Command line. Returns the track's part of metrics.json."""
    resolved = parse_with_recipe(Options, arguments, description=__doc__)
    options: Options = resolved.values
    started = time.perf_counter()
    keep_freed_memory()
    device = parallel.start(options.device)
    run = Run(options.out, "embed", resolved, resume=options.resume)
    dtype = choose_dtype(device, options.dtype)
    torch.manual_seed(options.seed)
    pairs = read_pairs(options.data)
    test, candidates = read_test(options.test, options.candidates)
    probe = read_test(options.probe)
    pool = read_pool(options.pool, test)
    refuse_what_does_not_fit(options, pairs)
    encoder = load_for_training(options, dtype, device)
    print(describe_model(options.model, encoder, dtype))
    how = encoder.embedding
    print(f"vectors  {how.pooling} pooling · {how.query_prefix!r} before a query, {how.passage_prefix!r} before a code")
    print(f"data     {len(pairs)} pairs · {len(test)} held-out queries against {len(candidates):,} codes")
    for name, rows in (("training", pairs), ("candidate", candidates)):
        cut = encoder.count_at_limit([row["code"] for row in rows], kind="passage")
        print(f"cut      {cut} of {len(rows):,} {name} codes reach {encoder.embedding.max_length} tokens and end there")
    precision = Precision(device, dtype)
    table = PairTable(pairs, encoder, negatives=options.negatives, pool=pool)
    if options.mine:
        table.use(mine(run, table, epoch=0))
    plan = plan_batches(table.lengths(), pairs_per_step=options.batch, epochs=options.epochs, seed=options.seed)
    fit_chunks(run, encoder, precision, table, plan)
    if options.dry_run:
        print(describe_steps(run, encoder, precision, table, plan))
        return {}
    hashes = {"data_sha256": hashlib.sha256(Path(options.data).read_bytes()).hexdigest()}
    run.start(device=device, dtype=dtype, data=hashes, log_to=options.log_to)
    copy_data_card(Path(options.data).parent, run)

    seconds = {"prepare": time.perf_counter() - started}
    if test and run.resume_from is None:
        write_json(run.folder / "before.json", evaluate_retrieval(encoder, test, candidates))
    if options.probe and run.resume_from is None:
        write_json(run.folder / "probe_before.json", evaluate_retrieval(encoder, *probe))
    seconds["before"] = time.perf_counter() - started - sum(seconds.values())
    run.seconds_after = seconds["before"]
    with parallel.together(encoder, seed=options.seed):  # behind it one process is left
        learn(run, encoder, precision, table, plan)
    seconds["train"] = time.perf_counter() - started - sum(seconds.values())
    save_trained_encoder(run, encoder)
    if test:
        measure_after(run, encoder, pairs, test, candidates)
    if options.probe:
        write_json(run.folder / "probe_after.json", evaluate_retrieval(encoder, *probe))
    seconds["after"] = time.perf_counter() - started - sum(seconds.values())
    data = {"path": options.data, "sha256": hashes["data_sha256"], "rows": len(pairs), "unit": "pairs"}
    return finish(run, seconds=seconds, data=data)


def learn(
    run: Run, encoder: Encoder, precision: Precision, table: PairTable, plan: list[tuple[int, list[int]]]
) -> None:
    """The training loop; `plan` says which pairs of the table make up each step."""
    options: Options = run.options.values
    objective = make_objective(encoder, options)
    network = nn.ModuleDict({"encoder": encoder, "objective": objective})
    learning = [parameter for _, parameter in trainable(network)]
    optimizer = optimizer_of(network, options)
    schedule = schedule_of(optimizer, options, steps=len(plan))
    done = load_checkpoint(run.resume_from, network, optimizer, schedule, precision) if run.resume_from else 0
    print(f"plan     {options.epochs:g} epochs · {len(plan)} steps of up to {options.batch} pairs")
    encoder.train()
    mined_for = 0

    for step in run.steps(done, len(plan), max_minutes=options.max_minutes):
        epoch, chosen = plan[step - 1]
        if options.mine and epoch > mined_for:
            table.use(mine(run, table, epoch))
            mined_for = epoch
        batch = table.batch(chosen)
        embed = embedder(encoder, batch, options.chunk_tokens)  # encoder.embed, in chunks if the batch is too large
        with precision.autocast():
            q = parallel.joined(embed, batch.queries)  # [B, D] fp32, unit length
            c = parallel.joined(embed, batch.documents)  # [M, D] own codes, then hard negatives
            loss = objective(q, c, batch)  # InfoNCE
        precision.backward(loss)  # scales when fp16
        run.add(loss)
        parallel.sum_gradients(learning)
        lr = schedule.get_last_lr()[0]
        stepped, norm = precision.step(optimizer, learning, options.max_norm)
        if stepped:  # a step that was skipped does not advance the schedule
            schedule.step()
        else:
            again = lambda embed=embed, batch=batch: (embed(batch.queries), embed(batch.documents))  # noqa: E731
            print(f"step {step} skipped: {told_overflow(encoder, again, precision)[1]}")
        run.log(
            step, loss=run.take_loss(), lr=lr, norm=norm, scale=precision.scale, pairs=len(chosen), tokens=batch.tokens,
            temperature=objective.temperature.item(), skipped=not stepped, **run.costs(batch.tokens),
        )  # fmt: skip
        if run.due(step, options.checkpoint_every):
            save_checkpoint(run.checkpoints, step, network, optimizer, schedule, precision)
    encoder.eval()


def load_for_training(options: Options, dtype: torch.dtype, device: torch.device) -> Encoder:
    """The encoder with fp32 weights, of which those that --lora and --top-layers name are trainable.

    dtype  that it encodes in, to be measured and to mine negatives
    """
    encoder = load_encoder(
        options.model,
        device=device,
        pooling=options.pooling,
        query_prefix=options.query_prefix,
        passage_prefix=options.passage_prefix,
        max_length=options.max_length,
    )
    encoder.compute_dtype = dtype
    if options.lora:
        add_adapter(encoder, options)
    elif options.top_layers:
        train_top_layers(encoder, options.top_layers)
    return encoder


def make_objective(encoder: Encoder, options: Options) -> Objective:
    """What is minimised, as the options ask."""
    return Objective(
        encoder.config.hidden_size,
        temperature=options.temperature,
        learn_temperature=options.learn_temperature,
        symmetric=options.symmetric,
        dimensions=options.dimensions,
        distill=options.distill,
        teacher_temperature=options.teacher_temperature,
    ).to(encoder.device)


def mine(run: Run, table: PairTable, epoch: int) -> list[list[int]]:
    """Hard negatives for an epoch; those of a later epoch than the first are kept for a run that is resumed in it."""
    path = run.shared / "mined" / f"epoch-{epoch}.json"
    if epoch and run.resume_from and path.is_file():
        return read_json(path)["negatives"]
    found = parallel.of_every_rank(table.mine())[0]  # a last digit may differ between ranks
    print(f"mined    {sum(map(len, found))} hard negatives of {len(found)} pairs among {len(table.codes):,} codes")
    if epoch and parallel.rank() == 0:
        write_json(path, {"negatives": found})
    return found


def describe_steps(run: Run, encoder: Encoder, precision: Precision, table: PairTable, plan: list) -> str:
    """For --dry-run: steps, memory and time, by one pass over the largest batch that is really made."""
    options: Options = run.options.values
    if not plan:
        return "steps    0: each needs two pairs at least"
    batch = table.largest(plan)
    embed = embedder(encoder, batch, options.chunk_tokens)
    held, started = held_memory(precision.device), time.perf_counter()
    reset_peak(precision.device)
    with precision.autocast():
        loss = make_objective(encoder, options)(embed(batch.queries), embed(batch.documents), batch)
    loss.backward()
    encoder.zero_grad(set_to_none=True)
    seconds, learning = time.perf_counter() - started, sum(p.numel() for _, p in trainable(encoder))
    peak = peak_memory(precision.device) + STATE_BYTES[options.optimizer] * learning
    return (
        f"steps    {len(plan):,} of {len(batch.queries)} pairs · padding 0 %\n"
        f"memory   about {peak / 2**30:.2f} GiB: {held / 2**30:.2f} held now, the rest in a step\n"
        f"time     about {len(plan) * seconds / 60:.1f} minutes at {seconds:.2f} s a step, without what is measured "
        "before and after"
    )


def refuse_what_does_not_fit(options: Options, pairs: list[dict]) -> None:
    """UserError for options that contradict each other or the pairs."""
    if options.lora and options.top_layers:
        raise UserError("--lora trains an adapter, --top-layers the model's own layers; leave out one")
    if options.pool and not options.mine:
        raise UserError("--pool has codes to mine negatives among; give --mine too")
    if options.mine and not options.negatives:
        raise UserError("--mine with --negatives 0: nothing is mined; give at least 1")
    if options.distill and options.mine:
        raise UserError("--distill follows scores of the rows' own negatives, --mine takes others; leave out one")
    if options.distill and not any(row.get("scores") for row in pairs):
        raise UserError(f'{options.data}: no row has "scores" for --distill to follow')


def read_pairs(path: str) -> list[dict]:
    """Text–code pairs. UserError names file and line of a row that is none."""
    rows = read_jsonl(path)
    for number, row in enumerate(rows, 1):
        for key in ("query", "code"):
            if not isinstance(row.get(key), str) or not row[key].strip():
                raise UserError(f'{path}:{number}: "{key}" is missing or empty (this line has: {", ".join(row)})')
        negatives, scores = row.get("negatives") or [], row.get("scores")
        if not isinstance(negatives, list) or not all(isinstance(code, str) and code.strip() for code in negatives):
            raise UserError(f'{path}:{number}: "negatives" must be a list of codes, none of them empty')
        is_list = isinstance(scores, list) and all(type(score) in (int, float) for score in scores)
        if scores is not None and not (is_list and len(scores) == 1 + len(negatives)):
            raise UserError(f'{path}:{number}: "scores" must be {1 + len(negatives)} numbers: of code and negatives')
    if len(rows) < 2:
        raise UserError(f"{path}: {len(rows)} pairs; contrastive training needs at least two")
    return rows


def read_test(path: str | None, candidates: str | None = None) -> tuple[list[dict], list[dict]]:
    """Queries and the codes that they are searched among. UserError for what could not be evaluated later."""
    queries = read_pairs(path) if path else []
    queries, codes = (queries, read_jsonl(candidates)) if candidates else own_candidates(queries)
    if queries:
        relevance(queries, codes)
    return queries, codes


def read_pool(path: str | None, test: list[dict]) -> list[dict]:
    """Codes to mine among; what is tested on, and what else stands in its files, is nobody's negative."""
    if path is None:
        return []
    rows = read_jsonl(path)
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("code"), str) or not row["code"].strip():
            raise UserError(f'{path}:{number}: "code" is missing or empty (this line has: {", ".join(row)})')
    codes, files = {query["code"] for query in test}, {_file(query) for query in test} - {None}
    kept = [row for row in rows if row["code"] not in codes and _file(row) not in files]
    print(f"pool     {len(kept):,} codes · {len(rows) - len(kept):,} left out, as --test asks for their files")
    return kept


def _file(row: dict) -> str | None:
    return (row.get("source") or {}).get("path")


def save_trained_encoder(run: Run, encoder: Encoder) -> None:
    """The model in sentence-transformers' layout, and before that the adapter in PEFT's, if there is one.

    From here on the encoder is the saved model, and says so when an index asks what made its vectors.
    """
    options: Options = run.options.values
    if lora_layers(encoder):
        save_adapter(encoder, run.folder / "adapter", base_model=options.model, task_type="FEATURE_EXTRACTION")
        remove(encoder, merge=True)
    save_encoder(encoder, run.folder / "model")
    encoder.source = str(run.folder / "model")
    encoder.weights_sha256 = weights_sha256(run.folder / "model")


def measure_after(run: Run, encoder: Encoder, pairs: list[dict], test: list[dict], candidates: list[dict]) -> None:
    """Rank the held-out queries by the trained encoder; leave the result, failures, samples, and the index."""
    vectors = encoder.encode([row["code"] for row in candidates], kind="passage").numpy()
    after = evaluate_retrieval(encoder, test, candidates, vectors)
    for width in make_objective(encoder, run.options.values).dimensions[1:]:
        short = SimpleNamespace(encode=partial(encoder.encode, dimension=width), identity=encoder.identity)
        passages = vectors[:, :width] / np.linalg.norm(vectors[:, :width], axis=1, keepdims=True)
        metrics = evaluate_retrieval(short, test, candidates, passages)["metrics"]
        after.setdefault("dimensions", {})[str(width)] = metrics
        print(f"width    {width}: " + " · ".join(f"{name} {value:.3f}" for name, value in metrics.items()))
    write_json(run.folder / "after.json", after)
    failures = worst_queries(after, test, candidates)
    add_nearest(
        failures,
        [
            {"id": pair.get("id", f"line {number}"), "prompt": pair["query"], "answer": pair["code"]}
            for number, pair in enumerate(pairs, 1)
        ],
    )
    write_json(run.folder / "failures.json", failures)
    run.add_samples(None, rankings_as_markdown(after, test, candidates))
    build_index(run.folder / "index", vectors, candidates, manifest=encoder.identity())


def rankings_as_markdown(result: dict, test: list[dict], candidates: list[dict], *, count: int = 5) -> str:
    """What the tuned encoder finds for the first held-out queries, for samples.md."""
    code_of = {row["id"]: row["code"] for row in candidates}
    parts = ["# Samples\n\nHeld-out queries, and the first lines of what the tuned encoder finds."]
    for query, row in list(zip(test, result["results"], strict=True))[:count]:
        found = "\n".join(f"{n}. `{code_of[i].strip().splitlines()[0]}`" for n, i in enumerate(row["top"][:3], 1))
        parts.append(f"## {query['query']}\n\nThe right one is at rank {row['rank']}.\n\n{found}")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    less = (
        "--chunk-tokens 1024 and the same gradients (with --resume, if the run has begun), or a new run "
        "with a smaller --max-length or --batch"
    )
    sys.exit(run_command(main, needs_less_with=less))
