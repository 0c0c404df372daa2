"""Track C: embedding tuning. Teach an encoder to find your code.

    python train_embed.py --model BAAI/bge-small-en-v1.5 --data codes/train.jsonl --test codes/test.jsonl \\
        --candidates codes/candidates.jsonl --out runs/embed

InfoNCE with in-batch negatives: every other code of a batch is wrong for a query, unless it is as good as the right
one. With --test, held-out queries are ranked against all candidates before and after. Change the loss in `learn`, what
a step sees in data/search/batches.py.
"""

from __future__ import annotations

import hashlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from data.index import build_index
from data.search.batches import PairTable, plan_batches
from eval.retrieval import evaluate_retrieval, own_candidates, relevance, worst_queries
from lora.adapter_file import save_adapter
from lora.inject import lora_layers, remove, trainable
from model import load_encoder, save_encoder
from model.console import UserError, run_command
from model.device import choose_dtype
from model.encoder import Encoder
from model.files import read_jsonl, write_json
from model.loss import info_nce
from model.weights import weights_sha256
from training import parallel
from training.checkpoint import load_checkpoint, save_checkpoint
from training.finish import copy_data_card, describe_model, finish
from training.memory import held_memory, keep_freed_memory, peak_memory, reset_peak
from training.optim import STATE_BYTES
from training.options import option, parse
from training.precision import Precision
from training.run import Run
from training.setup import add_adapter, optimizer_of, schedule_of
from training.shared_options import TrainOptions


@dataclass(frozen=True, kw_only=True)
class Options(TrainOptions):
    """What this script asks beside training/shared_options.py; all are also the keys of a recipe."""

    data: str = option(text='training pairs, JSON Lines: {"id", "query", "code", "negatives"}')
    test: str | None = option(None, "held-out queries, ranked before and after (default: none)")
    candidates: str | None = option(None, "all codes to find the right one among (default: those of --test)")
    lora: bool = option(False, "train a LoRA adapter instead of all weights")
    dropout: float = option(0.0, "LoRA dropout, 0 to 1; the encoder's own is that of its config.json", least=0, most=1)
    targets: str = option(
        "all-linear", "layers that get an adapter: last names, an expression for whole names, or all-linear"
    )
    pooling: str | None = option(None, "mean, cls or lasttoken (default: as the model's files say)")
    query_prefix: str | None = option(None, "text before a query (default: as the model's files say)")
    passage_prefix: str | None = option(None, "text before a code (default: as the model's files say)")
    max_length: int | None = option(None, "tokens of a text; longer ones are cut (default: as the model's files say)")
    epochs: float = option(4.0, "passes over the pairs", least=0)
    batch: int = option(32, "pairs of a step at most; the other codes of a step are a query's negatives", least=2)
    negatives: int = option(4, 'hard negatives of a pair that are used, the first of its "negatives"', least=0)
    temperature: float = option(0.05, "of the softmax over similarities")
    symmetric: bool = option(True, "let each code find its query too")
    lr: float = option(1e-4, "peak learning rate", least=0)
    final_lr: float = option(0.0, "where the schedule ends, a share of --lr", least=0, most=1)
    checkpoint_every: int = option(20, "steps between checkpoints (0: none)", least=0)


def main(arguments: list[str] | None = None) -> dict:
    """Command line. Returns the track's part of metrics.json."""
    resolved = parse(Options, arguments, description=__doc__)
    options: Options = resolved.values
    started = time.perf_counter()
    keep_freed_memory()
    device = parallel.start(options.device)
    run = Run(options.out, "embed", resolved, resume=options.resume)
    dtype = choose_dtype(device, options.dtype)
    torch.manual_seed(options.seed)
    pairs = read_pairs(options.data)
    test = read_pairs(options.test) if options.test else []
    test, candidates = (test, read_jsonl(options.candidates)) if options.candidates else own_candidates(test)
    if test:
        relevance(test, candidates)  # refuse now what could not be evaluated after the training
    encoder = load_encoder(
        options.model,
        device=device,
        pooling=options.pooling,
        query_prefix=options.query_prefix,
        passage_prefix=options.passage_prefix,
        max_length=options.max_length,
    )
    if options.lora:
        add_adapter(encoder, options)
    print(describe_model(options.model, encoder, dtype))
    print(f"data     {len(pairs)} pairs · {len(test)} held-out queries against {len(candidates):,} codes")
    for name, rows in (("training", pairs), ("candidate", candidates)):
        cut = encoder.reach_the_limit([row["code"] for row in rows], kind="passage")
        print(f"cut      {cut} of {len(rows):,} {name} codes reach {encoder.embedding.max_length} tokens and end there")
    table = PairTable(pairs, encoder, negatives=options.negatives)
    plan = plan_batches(table.lengths(), pairs_per_step=options.batch, epochs=options.epochs, seed=options.seed)
    precision = Precision(device, dtype)
    if options.dry_run:
        print(describe_steps(run, encoder, precision, table, plan))
        return {}
    hashes = {"data_sha256": hashlib.sha256(Path(options.data).read_bytes()).hexdigest()}
    run.start(device=device, dtype=dtype, data=hashes, log_to=options.log_to)
    copy_data_card(Path(options.data).parent, run)

    seconds = {"prepare": time.perf_counter() - started}
    if test and run.resume_from is None:
        with precision.autocast():
            write_json(run.folder / "before.json", evaluate_retrieval(encoder, test, candidates))
    seconds["before"] = time.perf_counter() - started - sum(seconds.values())
    run.seconds_after = seconds["before"]
    with parallel.together(encoder, seed=options.seed):  # behind it one process is left
        learn(run, encoder, precision, table, plan)
    seconds["train"] = time.perf_counter() - started - sum(seconds.values())
    save_trained_encoder(run, encoder)
    if test:
        with precision.autocast():
            vectors = encoder.encode([row["code"] for row in candidates], kind="passage").numpy()
            after = evaluate_retrieval(encoder, test, candidates, vectors)
        write_json(run.folder / "after.json", after)
        write_json(run.folder / "failures.json", worst_queries(after, test, candidates))
        run.add_samples(None, rankings_as_markdown(after, test, candidates))
        build_index(run.folder / "index", vectors, candidates, manifest=encoder.describe())
    seconds["after"] = time.perf_counter() - started - sum(seconds.values())
    data = {"path": options.data, "sha256": hashes["data_sha256"], "rows": len(pairs), "unit": "pairs"}
    return finish(run, seconds=seconds, data=data)


def learn(
    run: Run, encoder: Encoder, precision: Precision, table: PairTable, plan: list[tuple[int, list[int]]]
) -> None:
    """The training loop; `plan` says which pairs of the table make up each step."""
    options: Options = run.options.values
    learning = [parameter for _, parameter in trainable(encoder)]
    optimizer = optimizer_of(encoder, options)
    schedule = schedule_of(optimizer, options, steps=len(plan))
    done = load_checkpoint(run.resume_from, encoder, optimizer, schedule, precision) if run.resume_from else 0
    print(f"plan     {options.epochs:g} epochs · {len(plan)} steps of up to {options.batch} pairs")
    encoder.train()

    for step in run.steps(done, len(plan), max_minutes=options.max_minutes):
        _, chosen = plan[step - 1]
        batch = table.batch(chosen)
        with precision.autocast():
            q = parallel.joined(encoder.embed, batch.queries)  # [B, D] fp32, unit length
            c = parallel.joined(encoder.embed, batch.documents)  # [M, D] own codes, then hard negatives
            same = batch.same.to(q.device)
            loss = info_nce(q, c, temperature=options.temperature, same=same, symmetric=options.symmetric)
        precision.backward(loss)  # scales when fp16
        run.add(loss)
        parallel.sum_gradients(learning)
        lr = schedule.get_last_lr()[0]
        stepped, norm = precision.step(optimizer, learning, options.max_norm)
        if stepped:  # a step that was skipped does not advance the schedule
            schedule.step()
        run.log(
            step, loss=run.take_loss(), lr=lr, norm=norm, scale=precision.scale, pairs=len(chosen), tokens=batch.tokens,
            skipped=not stepped, **run.costs(batch.tokens),
        )  # fmt: skip
        if run.due(step, options.checkpoint_every):
            save_checkpoint(run.checkpoints, step, encoder, optimizer, schedule, precision)
    encoder.eval()


def describe_steps(run: Run, encoder: Encoder, precision: Precision, table: PairTable, plan: list) -> str:
    """For --dry-run: steps, memory and time, by one pass over the largest batch that is really made."""
    options: Options = run.options.values
    batch = max((table.batch(chosen) for _, chosen in plan), key=lambda batch: batch.tokens)
    held, started = held_memory(precision.device), time.perf_counter()
    reset_peak(precision.device)
    with precision.autocast():
        q, c = encoder.embed(batch.queries), encoder.embed(batch.documents)
        loss = info_nce(q, c, temperature=options.temperature, symmetric=options.symmetric)
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


def read_pairs(path: str) -> list[dict]:
    """Text–code pairs. UserError names file and line of a row that is none."""
    rows = read_jsonl(path)
    for number, row in enumerate(rows, 1):
        for key in ("query", "code"):
            if not isinstance(row.get(key), str) or not row[key].strip():
                raise UserError(f'{path}:{number}: "{key}" is missing or empty (this line has: {", ".join(row)})')
        negatives = row.get("negatives") or []
        if not isinstance(negatives, list) or not all(isinstance(code, str) and code.strip() for code in negatives):
            raise UserError(f'{path}:{number}: "negatives" must be a list of codes, none of them empty')
    if len(rows) < 2:
        raise UserError(f"{path}: {len(rows)} pairs; contrastive training needs at least two")
    return rows


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


def rankings_as_markdown(result: dict, test: list[dict], candidates: list[dict], *, count: int = 5) -> str:
    """What the tuned encoder finds for the first held-out queries, for samples.md."""
    code_of = {row["id"]: row["code"] for row in candidates}
    parts = ["# Samples\n\nHeld-out queries, and the first lines of what the tuned encoder finds."]
    for query, row in list(zip(test, result["results"], strict=True))[:count]:
        found = "\n".join(f"{n}. `{code_of[i].strip().splitlines()[0]}`" for n, i in enumerate(row["top"][:3], 1))
        parts.append(f"## {query['query']}\n\nThe right one is at rank {row['rank']}.\n\n{found}")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(run_command(main))
