"""Track C: embedding tuning. Teach an encoder to find your code.

    python train_embed.py --model BAAI/bge-small-en-v1.5 --data codes/train.jsonl --test codes/test.jsonl \\
        --candidates codes/candidates.jsonl --out runs/embed

InfoNCE with in-batch negatives: every other code of a batch is wrong for a query, unless it is as good as the right
one. With --test, held-out queries are ranked against all candidates before and after. Change the loss in `learn`.
"""

from __future__ import annotations

import hashlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from data.index import build_index
from data.packing import plan_windows
from eval.retrieval import evaluate_retrieval, own_candidates, relevance, worst_queries
from lora.adapter_file import save_adapter
from lora.inject import lora_layers, remove, trainable
from model import load_encoder, save_encoder
from model.console import UserError, run_command
from model.device import choose_device, choose_dtype
from model.encoder import Encoder
from model.files import read_jsonl, write_json, write_text
from model.loss import info_nce
from model.weights import weights_sha256
from training.adapter import add_adapter
from training.checkpoint import load_checkpoint, save_checkpoint
from training.finish import copy_data_card, describe_model, finish
from training.optim import adamw, make_schedule
from training.options import option, parse
from training.precision import Precision
from training.run import Run, due


@dataclass(frozen=True)
class Options:
    """Every option of the script; also the keys of a recipe."""

    model: str = option(text="folder, hub id or embedded default (all-minilm-l6-v2)")
    data: str = option(text='training pairs, JSON Lines: {"id", "query", "code"}')
    out: str = option(text="the run's folder")
    test: str | None = option(None, "held-out queries, ranked before and after (default: none)")
    candidates: str | None = option(None, "all codes to find the right one among (default: those of --test)")
    resume: bool = option(False, "go on with the run in --out from its last checkpoint")
    lora: bool = option(False, "train a LoRA adapter instead of all weights")
    r: int = option(16, "LoRA rank", least=1)
    alpha: float = option(32.0, "LoRA scale: the low-rank part is multiplied by alpha / r")
    dropout: float = option(0.0, "LoRA dropout, 0 to 1; the encoder's own is that of its config.json")
    targets: str = option(
        "all-linear", "layers that get an adapter: last names, an expression for whole names, or all-linear"
    )
    rank_pattern: str | None = option(None, "other ranks by layer, as q_proj=8,down_proj=32 (default: all have --r)")
    alpha_pattern: str | None = option(None, "other alphas by layer, written the same way (default: all have --alpha)")
    rslora: bool = option(False, "multiply by alpha / sqrt(r) instead: for ranks above 32 or so")
    dora: bool = option(False, "learn the length of each row of a weight apart from its direction; slower")
    lora_plus_ratio: float = option(1.0, "LoRA+: B learns at this many times --lr (1: as A does; the paper has 16)")
    pooling: str | None = option(None, "mean, cls or lasttoken (default: as the model's files say)")
    query_prefix: str | None = option(None, "text before a query (default: as the model's files say)")
    passage_prefix: str | None = option(None, "text before a code (default: as the model's files say)")
    max_length: int | None = option(None, "tokens of a text; longer ones are cut (default: as the model's files say)")
    epochs: float = option(4.0, "passes over the pairs")
    batch: int = option(32, "pairs of a step; each query has batch - 1 negatives", least=2)
    temperature: float = option(0.05, "of the softmax over similarities")
    symmetric: bool = option(True, "let each code find its query too")
    lr: float = option(1e-4, "peak learning rate")
    warmup: float = option(0.1, "share of the steps with a rising rate")
    weight_decay: float = option(0.01, "AdamW's, on matrices")
    max_norm: float = option(1.0, "gradient norm is clipped to this (0: not)")
    checkpoint_every: int = option(20, "steps between checkpoints (0: none)")
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    dtype: str = option("auto", "auto, fp32, bf16 or fp16; auto takes what the hardware multiplies itself")
    seed: int = option(0, "of the adapter, the order of pairs and dropout")


def main(arguments: list[str] | None = None) -> dict:
    """Command line. Returns the track's part of metrics.json."""
    resolved = parse(Options, arguments, description=__doc__)
    options: Options = resolved.values
    started = time.perf_counter()
    run = Run(options.out, "embed", resolved, resume=options.resume)
    device = choose_device(options.device)
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
    hashes = {"data_sha256": hashlib.sha256(Path(options.data).read_bytes()).hexdigest()}
    run.start(device=device, dtype=dtype, data=hashes)
    copy_data_card(Path(options.data).parent, run)

    precision = Precision(device, dtype)
    seconds = {"prepare": time.perf_counter() - started}
    if test and run.resume_from is None:
        with precision.autocast():
            write_json(run.folder / "before.json", evaluate_retrieval(encoder, test, candidates))
    seconds["before"] = time.perf_counter() - started - sum(seconds.values())
    learn(run, encoder, precision, pairs)
    seconds["train"] = time.perf_counter() - started - sum(seconds.values())
    save_trained_encoder(run, encoder)
    if test:
        with precision.autocast():
            vectors = encoder.encode([row["code"] for row in candidates], kind="passage").numpy()
            after = evaluate_retrieval(encoder, test, candidates, vectors)
        write_json(run.folder / "after.json", after)
        write_json(run.folder / "failures.json", worst_queries(after, test, candidates))
        write_text(run.folder / "samples.md", rankings_as_markdown(after, test, candidates))
        build_index(run.folder / "index", vectors, candidates, manifest=encoder.describe())
    seconds["after"] = time.perf_counter() - started - sum(seconds.values())
    data = {"path": options.data, "sha256": hashes["data_sha256"], "rows": len(pairs), "unit": "pairs"}
    return finish(run, seconds=seconds, data=data)


def learn(run: Run, encoder: Encoder, precision: Precision, pairs: list[dict]) -> None:
    """The training loop."""
    options: Options = run.options.values
    queries = encoder.tokenize([pair["query"] for pair in pairs], kind="query")
    codes = encoder.tokenize([pair["code"] for pair in pairs], kind="passage")
    batches = plan_windows(len(pairs), rows_per_step=options.batch, epochs=options.epochs, seed=options.seed)
    batches = [batch for batch in batches if len(batch) > 1]  # one pair alone has no negative
    learning = [parameter for _, parameter in trainable(encoder)]
    optimizer = adamw(
        encoder, lr=options.lr, weight_decay=options.weight_decay, lora_plus_ratio=options.lora_plus_ratio
    )
    schedule = make_schedule(optimizer, "cosine", steps=len(batches), warmup=options.warmup, floor=0.0)
    done = load_checkpoint(run.resume_from, encoder, optimizer, schedule, precision) if run.resume_from else 0
    print(f"plan     {options.epochs:g} epochs · {len(batches)} steps of {options.batch} pairs")
    encoder.train()

    for step in run.steps(done, len(batches)):
        batch = batches[step - 1]
        with precision.autocast():
            q = encoder.embed([queries[i] for i in batch])  # [B, D] fp32, unit length
            c = encoder.embed([codes[i] for i in batch])  # [B, D]
            same = equally_good([pairs[i] for i in batch]).to(q.device)  # [B, B]
            loss = info_nce(q, c, temperature=options.temperature, same=same, symmetric=options.symmetric)
        precision.backward(loss)  # scales when fp16
        run.add(loss)
        lr = schedule.get_last_lr()[0]
        stepped, norm = precision.step(optimizer, learning, options.max_norm)
        if stepped:  # a step that was skipped does not advance the schedule
            schedule.step()
        run.log(step, loss=run.take_loss(), lr=lr, norm=norm, pairs=len(batch), skipped=not stepped)
        if due(step, options.checkpoint_every, len(batches)):
            save_checkpoint(run.checkpoints, step, encoder, optimizer, schedule, precision)
    encoder.eval()


def equally_good(pairs: list[dict]) -> torch.Tensor:
    """[B, B] bool: code j answers query i as well as its own does, since query or code are the same text."""

    def same(key: str) -> torch.Tensor:
        numbers = {text: i for i, text in enumerate({pair[key] for pair in pairs})}
        ids = torch.tensor([numbers[pair[key]] for pair in pairs])
        return ids[:, None] == ids[None, :]

    return same("query") | same("code")


def read_pairs(path: str) -> list[dict]:
    """Text–code pairs. UserError names file and line of a row without a query or a code."""
    rows = read_jsonl(path)
    for number, row in enumerate(rows, 1):
        for key in ("query", "code"):
            if not isinstance(row.get(key), str) or not row[key].strip():
                raise UserError(f'{path}:{number}: "{key}" is missing or empty (this line has: {", ".join(row)})')
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
