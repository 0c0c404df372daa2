"""Fine-tuning an encoder and encoding with it, against sentence-transformers, on the installed networkx.

    python -m bench.embed --out runs/bench/embed.json

quality   nDCG@10 on held-out files after train_embed.py, against the base, BM25, and SentenceTransformerTrainer at its
          defaults with the same pairs, epochs and batch; docstrings are removed from the codes
training  pairs per second on pairs of mixed lengths, without the first steps
encoding  texts per second on all functions and files, in fp32
memory    peak of one step above the loaded weights; theirs with its cached loss

Each figure comes from its own process, and the sides take turns. Theirs uses its fastest settings, found by one trial
each: bf16 or fp32 for training, the batch size for encoding.
"""

from __future__ import annotations

import json
import random
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

import train_embed
from bench.measure import Memory, RunOptions, in_turn, report, row
from bench.train import Clock
from common.console import UserError, need, run_command
from common.files import read_json, read_jsonl, write_json, write_jsonl
from common.options import HIDDEN, option, parse
from data.corpus import Corpus, build_corpus
from data.pairs import ORIGINS, build_text_code_pairs
from eval.change_table import number, verdict_phrase
from eval.compare import compare_runs
from eval.retrieval import evaluate_retrieval, ranking_table
from model import load_encoder, save_encoder
from model.device import choose_device, choose_dtype, cpu_has_bf16

QUERIES = 200  # held-out
PEER = "sentence-transformers"
ROWS = ("quality", "training", "encoding", "memory")


@dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    """Options of this command."""

    model: str = option("all-minilm-l6-v2", "encoder to tune")
    rows: tuple[str, ...] = option(ROWS, "figures to measure", choices=ROWS)
    pairs: int = option(300, "training pairs, for quality")
    epochs: float = option(4.0, "passes over the pairs")
    batch: int = option(32, "pairs per step")
    seeds: tuple[int, ...] = option((0,), "seeds of training, for quality: one, or three and more")
    runs: int = option(5, "runs of each side for speed, in turn", least=1)
    steps: int = option(8, "steps to measure, for speed")
    warmup: int = option(2, "steps before those")
    memory_batch: int = option(512, "pairs of the single step for memory")
    ours: str = option("", "further options of train_embed.py, in one text")
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    child: Path | None = option(None, HIDDEN)


def main() -> None:
    """Command line."""
    options = parse(Options, description=__doc__)
    if options.child:
        work = read_json(options.child)
        print(json.dumps(MEASURES[work["measure"]](work)))
        return
    need("sentence_transformers", why="the comparison")
    device = choose_device(options.device)
    corpus = build_corpus("package:networkx", seed=0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_encoder(load_encoder(options.model), folder / "model")
        rows = [line for kind in options.rows for line in FIGURES[kind](corpus, options, folder, str(device))]
    report(rows, device=device, dtype=choose_dtype(device), peers=[PEER, "transformers"], out=options.out)


def quality(corpus: Corpus, options: Options, folder: Path, device: str) -> list[dict]:
    """nDCG@10 in percent, and the paired difference in percentage points."""
    pairs = build_text_code_pairs(corpus, count=options.pairs, test_count=QUERIES, min_lines=5, max_lines=60)
    base = evaluate_retrieval(load_encoder(str(folder / "model"), device=device), pairs.test, pairs.candidates)
    print(ranking_table(base, "base"), flush=True)
    tuned: dict[str, list[dict]] = {"ours": [], "theirs": []}
    for seed in options.seeds:
        for side, results in tuned.items():
            work = _work(options, folder, device, f"train {side}", pairs.train) | {"seed": seed, "warmup": 0}
            encoder = load_encoder(in_a_process(work, folder)["model"], device=device)
            results.append(evaluate_retrieval(encoder, pairs.test, pairs.candidates))
            print(f"quality, {side}, seed {seed}: nDCG@10 {results[-1]['metrics']['ndcg@10']:.3f}", flush=True)
    rows = []
    for name, others in {"the base": [base], "BM25": [base | base["bm25"]], f"{PEER}'": tuned["theirs"]}.items():
        change = compare_runs(others, {"ours": tuned["ours"]})["ours"]["ndcg@10"]
        value, low, high = (number(100 * x, sign=True) for x in (change["value"], *change["interval"]))
        verdict = verdict_phrase("ndcg@10", change)
        note = f"{value} [{low}, {high}] points, {verdict}; {len(pairs.train)} pairs, {QUERIES} queries"
        ours, theirs = _percent(tuned["ours"]), _percent(others)
        rows.append(row(f"nDCG@10 against {name}", "%", ours, theirs * (len(ours) // len(theirs)), note=note))
    return rows


def _percent(results: list[dict]) -> list[float]:
    return [100 * result["metrics"]["ndcg@10"] for result in results]


def training(corpus: Corpus, options: Options, folder: Path, device: str) -> list[dict]:
    """Training speed: pairs per second."""
    pairs = _mixed_pairs(corpus, options.batch * (options.warmup + options.steps))
    work = _work(options, folder, device, "train", pairs) | {"epochs": 1.0}
    precisions = [{"bf16": False}, {"bf16": True}] if cpu_has_bf16() or device != "cpu" else [{"bf16": False}]
    setting = _best(work, folder, precisions)
    name = "training, mixed lengths"
    return [_compare(name, work | setting, folder, unit="pairs/s", key="rate", runs=options.runs, note=str(setting))]


def encoding(corpus: Corpus, options: Options, folder: Path, device: str) -> list[dict]:
    """Encoding speed: texts per second."""
    candidates = build_text_code_pairs(corpus).candidates
    work = _work(options, folder, device, "encode", candidates)
    setting = _best(work, folder, [{"batch_size": size} for size in (8, 16, 32, 64, 128)])
    name = f"encoding {len(candidates):,} codes"
    return [_compare(name, work | setting, folder, unit="texts/s", key="rate", runs=options.runs, note=str(setting))]


def memory(corpus: Corpus, options: Options, folder: Path, device: str) -> list[dict]:
    """Peak GiB above the weights."""
    pairs = _mixed_pairs(corpus, options.memory_batch)
    setting = {"bf16": cpu_has_bf16() or device != "cpu", "cached": True}
    work = _work(options, folder, device, "train", pairs) | {"batch": len(pairs), "epochs": 1.0, "warmup": 0} | setting
    work["ours"] = ["--chunk-tokens", "2048", *work["ours"]]  # their cached loss embeds 32 texts at a time
    name = f"memory, batch {len(pairs)}"
    return [_compare(name, work, folder, unit="GiB", key="gib", runs=options.runs, note=str(setting))]


FIGURES = {"quality": quality, "training": training, "encoding": encoding, "memory": memory}


def _mixed_pairs(corpus: Corpus, count: int) -> list[dict]:
    """`count` random pairs of functions and files, short and long."""
    pairs = build_text_code_pairs(corpus, count=100_000, origins=ORIGINS, queries_per_code=4).train
    random.Random(0).shuffle(pairs)
    return pairs[:count]


def _work(options: Options, folder: Path, device: str, measure: str, rows: list[dict]) -> dict:
    """The work of one process."""
    write_jsonl(folder / "rows.jsonl", rows)
    return {
        "measure": measure, "model": str(folder / "model"), "rows": str(folder / "rows.jsonl"), "device": device,
        "epochs": options.epochs, "batch": options.batch, "seed": 0, "warmup": options.warmup, "bf16": False,
        "cached": False, "ours": shlex.split(options.ours),
    }  # fmt: skip


def _best(work: dict, folder: Path, settings: list[dict]) -> dict:
    """Their fastest setting, by one trial of each."""
    if len(settings) == 1:
        return settings[0]
    measure = {"measure": f"{work['measure']} theirs"}
    rates = [in_a_process(work | measure | setting, folder)["rate"] for setting in settings]
    for setting, rate in zip(settings, rates, strict=True):
        print(f"trial of theirs, {setting}: {rate:.1f}", flush=True)
    return settings[rates.index(max(rates))]


def _compare(name: str, work: dict, folder: Path, *, unit: str, key: str, runs: int, note: str) -> dict:
    """One row of the result; the sides take turns."""

    def run(side: str) -> float:
        figure = in_a_process(work | {"measure": f"{work['measure']} {side}"}, folder)[key]
        print(f"{name}, {side}: {figure:.3g} {unit}", flush=True)
        return figure

    return row(name, unit, *in_turn(partial(run, "ours"), partial(run, "theirs"), runs), note=f"theirs: {note}")


def in_a_process(work: dict, folder: Path) -> dict:
    """Run one side in its own process and folder; returns its figures. UserError with its last line if it fails."""
    work = work | {"out": tempfile.mkdtemp(prefix="run-", dir=folder)}
    write_json(folder / "work.json", work)
    command = [sys.executable, "-m", "bench.embed", "--child", str(folder / "work.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{work['measure']} failed: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    return json.loads(done.stdout.rstrip("\n").rpartition("\n")[2])


def train_ours(work: dict) -> dict:
    """train_embed.py, as a user runs it."""
    loaded: list[Memory] = []

    def load_and_count(*arguments, **keywords):
        encoder = load_encoder(*arguments, **keywords)
        loaded.append(Memory(torch.device(work["device"])))
        return encoder

    train_embed.load_encoder = load_and_count  # memory is counted from when the weights are loaded
    out = Path(work["out"]) / "run"
    options = {
        "model": work["model"], "data": work["rows"], "out": out, "epochs": work["epochs"], "batch": work["batch"],
        "seed": work["seed"], "device": work["device"], "checkpoint-every": 0,
    }  # fmt: skip
    train_embed.main([word for key, value in options.items() for word in (f"--{key}", str(value))] + work["ours"])
    steps = [line for line in read_jsonl(out / "metrics.jsonl") if "loss" in line]
    return {"rate": pairs_per_second(steps, work["warmup"]), "gib": loaded[0].peak(), "model": str(out / "model")}


def pairs_per_second(steps: list[dict], warmup: int) -> float:
    """From the rows of metrics.jsonl, without the first `warmup` ones."""
    began = steps[warmup - 1]["seconds"] if warmup else 0.0
    return sum(step["pairs"] for step in steps[warmup:]) / (steps[-1]["seconds"] - began)


def train_theirs(work: dict) -> dict:
    """SentenceTransformerTrainer with MultipleNegativesRankingLoss on the same rows, otherwise at its defaults."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        losses,
    )
    from transformers import TrainerCallback

    rows = [{"anchor": row["query"], "positive": row["code"]} for row in read_jsonl(work["rows"])]
    model, clock = SentenceTransformer(work["model"], device=work["device"]), Clock(work["warmup"])
    held = Memory(torch.device(work["device"]))

    class Times(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            clock.begin()

        def on_step_end(self, args, state, control, **_):
            clock.end()

    loss = losses.CachedMultipleNegativesRankingLoss if work["cached"] else losses.MultipleNegativesRankingLoss
    arguments = SentenceTransformerTrainingArguments(
        output_dir=work["out"], num_train_epochs=work["epochs"], per_device_train_batch_size=work["batch"],
        seed=work["seed"], bf16=work["bf16"], use_cpu=work["device"] == "cpu", save_strategy="no", report_to=[],
        disable_tqdm=True,
    )  # fmt: skip
    trainer = SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_list(rows), loss=loss(model), callbacks=[Times()]
    )
    trainer.train()
    figures = {"gib": held.peak(), "model": f"{work['out']}/model"}
    model.save_pretrained(figures["model"])
    # the last batch may be smaller, but not where speed is measured
    return figures | {"rate": work["batch"] * len(clock.seconds[work["warmup"] :]) / clock.total}


def encode_ours(work: dict) -> dict:
    """Encoder.encode."""
    encoder = load_encoder(work["model"], device=work["device"])
    return _encoding_rate(lambda texts: encoder.encode(texts, kind="passage"), work)


def encode_theirs(work: dict) -> dict:
    """SentenceTransformer.encode."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(work["model"], device=work["device"])
    return _encoding_rate(lambda texts: model.encode(texts, batch_size=work["batch_size"]), work)


def _encoding_rate(encode, work: dict) -> dict:
    texts = [row["code"] for row in read_jsonl(work["rows"])]
    encode(texts[:64])
    started = time.perf_counter()
    encode(texts)  # both return vectors on the CPU: no work is pending
    return {"rate": len(texts) / (time.perf_counter() - started)}


MEASURES = {
    "train ours": train_ours, "train theirs": train_theirs, "encode ours": encode_ours, "encode theirs": encode_theirs,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(run_command(main))
