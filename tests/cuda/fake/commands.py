"""Walks of whole commands on the fake device: from the files that they read to the files that they leave."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from unittest import mock

import chat
import eval.next_token.__main__
import eval.perplexity
import eval.retrieval.__main__
import search
import train_cpt
import train_embed
import train_sft
from eval.instruct import answer_pairs
from lora.adapter import remove
from lora.adapter_file import load_adapter, save_adapter
from lora.frozen_weight import QUANTIZE
from lora.quantised import QuantisedWeight
from model import load_decoder, load_tokenizer, save_decoder
from model.device import choose_dtype
from model.export.gguf import write_gguf
from tests.cuda.fake.count import Count
from tests.cuda.fake.device import DEVICE, become
from tests.cuda.fake.walk import Figures

STEP = "training/precision.py:step"
CORPUS = {
    f"{name}.py": f'"""The {name} module."""\n\n\n' + "".join(
        f"def {name}_{n}(graph, node):\n    seen = set()\n    for other in graph[node + {n * k}]:\n"
        f"        seen.add(({name!r}, other, {k}))\n    return seen\n\n\n"
        for n in range(8)
    )
    for k, name in enumerate(("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"))
}  # fmt: skip
SHORT = CORPUS["eta.py"][:300]
ROWS = [{"id": str(n), "instruction": f"Say {n}.", "input": "", "output": f"{n} {n}"} for n in range(6)]
PAIRS = [
    {"id": str(n), "query": f"return {n}", "code": f"def f{n}():\n    return {n}", "source": {"path": f"{n}.py"}}
    for n in range(6)
]
POOL = [{"id": f"p{n}", "code": f"def g{n}():\n    yield {n * n}", "source": {"path": "pool.py"}} for n in range(6)]


def write_data(folder: Path) -> None:
    """What the commands read: a corpus, instruction rows, text–code pairs."""
    (folder / "corpus").mkdir()
    for name, text in CORPUS.items():
        (folder / "corpus" / name).write_text(text)
    (folder / "short.py").write_text(SHORT)
    for name, rows in (("rows", ROWS), ("pairs", PAIRS), ("pool", POOL)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def call(main, *arguments) -> None:
    """A command's `main`, as the command line calls it."""
    words = [str(argument) for argument in arguments]
    with mock.patch.object(sys, "argv", ["command", *words]):
        main(words) if main.__module__.startswith("train_") else main()


def cpt(at: Path, out: Path, *more, capability: tuple[int, int] = (9, 0), values: dict | None = None) -> Figures:
    """train_cpt.py on a small corpus."""
    become(capability)
    with Count(values) as count:
        call(
            train_cpt.main, "--model", at / "decoder", "--corpus", at / "corpus", "--out", out, "--device", "cuda",
            "--row-tokens", 128, "--step-tokens", 128, "--validate-every", 0, "--held-out-files", 1,
            "--held-out-tokens", 200, "--most-tokens", 300, *more,
        )  # fmt: skip
    return Figures.of(count, tokens=300)


def cpt_resumed(at: Path, out: Path) -> Figures:
    """A run of all weights that ends in a checkpoint, and is resumed from it: nothing but its end is left to do."""
    cpt(at, out, "--method", "full", "--checkpoint-every", 1)
    shutil.rmtree(out / "model")
    return cpt(at, out, "--method", "full", "--checkpoint-every", 1, "--resume")


def cpt_overflowing(at: Path, out: Path) -> Figures:
    """In fp16 a step overflows, in the first module that is looked at: what holds it is computed in fp32 afterwards."""
    norms = iter([math.inf, 1.0])  # the second is what GradScaler found: it skips the step too
    finite = iter([True] * 5 + [False])
    values = {STEP: lambda tensor: next(norms, 0.0), "training/overflow.py:hook": lambda tensor: next(finite, True)}
    figures = cpt(at, out, capability=(7, 5), values=values)
    log = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["skipped"] for row in log if "skipped" in row][:2] == [True, False]
    return figures


def cpt_dry(at: Path, out: Path) -> Figures:
    """What a run would be, measured by one pass, after --fit has measured others."""
    return cpt(at, out, "--fit", "--dry-run", capability=(7, 5))


def sft(at: Path, out: Path) -> Figures:
    """train_sft.py in NF4, with validation and samples on the way, two micro-batches a step."""
    become((8, 0))
    with Count({"model/generate.py:choose": lambda tensor: [7] * len(tensor)}) as count:
        call(
            train_sft.main, "--model", at / "decoder", "--data", at / "rows.jsonl", "--validation", at / "rows.jsonl",
            "--out", out, "--device", "cuda", "--max-length", 128, "--step-tokens", 256, "--epochs", 2,
            "--quantize", "nf4", "--validate-every", 1, "--patience", 1, "--sample-every", 1, "--max-new-tokens", 4,
        )  # fmt: skip
    return Figures.of(count, tokens=sum(len(row["output"]) for row in ROWS))


def embed(at: Path, out: Path) -> Figures:
    """train_embed.py with LoRA: negatives mined, held-out queries ranked before and after, an index of the codes."""
    become((7, 5))
    with Count() as count:
        call(
            train_embed.main, "--model", at / "encoder", "--data", at / "pairs.jsonl", "--test", at / "pairs.jsonl",
            "--out", out, "--device", "cuda", "--method", "lora", "--mine", "--pool", at / "pool.jsonl", "--epochs", 2,
            "--batch", 6, "--max-length", 64, "--dimensions", "32",
        )  # fmt: skip
    return Figures.of(count, tokens=sum(len(pair["query"] + pair["code"]) for pair in PAIRS))


def talk(at: Path, out: Path) -> Figures:
    """chat.py: base and adapter answer one after the other."""
    become((7, 5))
    tokens = iter([7] * 5)
    with Count({"model/generate.py:choose": lambda tensor: [next(tokens, 2)] * len(tensor)}) as count:
        call(
            chat.main, "--model", at / "decoder", "--adapter", at / "adapter", "--both", "--prompt", "Hello?",
            "--device", "cuda", "--temperature", 0.7, "--max-new-tokens", 6,
        )  # fmt: skip
    return Figures.of(count, tokens=12)


def measure(at: Path, out: Path) -> Figures:
    """eval.perplexity and eval.next_token with an adapter."""
    become((8, 0))
    rules = ("--model", at / "decoder", "--adapter", at / "adapter", "--device", "cuda")

    def likeliest(top):
        if not top.ndim:
            return 0
        return [1 / (2 + n) if top.is_floating_point() else n for n in range(len(top))]

    with Count({"eval/next_token/distributions.py:_top": likeliest}) as count:
        call(eval.perplexity.main, *rules, "--data", at / "short.py", "--out", out / "p.json", "--window", 128)
        call(
            eval.next_token.__main__.main,
            *rules,
            "--prompt",
            "def add(",
            "--raw",
            "--max-new-tokens",
            0,
            "--out",
            out / "n.json",
        )
    return Figures.of(count, tokens=len(SHORT))


def retrieve(at: Path, out: Path) -> Figures:
    """eval.retrieval, and an index by search.py with a query to it."""
    become((9, 0))
    cuda = ("--device", "cuda")
    with Count() as count:
        call(
            eval.retrieval.__main__.main,
            "--model",
            at / "encoder",
            "--data",
            at / "pairs.jsonl",
            "--out",
            out / "r.json",
            *cuda,
        )
        call(search.main, "index", at / "corpus", "--out", out / "index", "--model", at / "encoder", *cuda)
        call(search.main, "query", out / "index", "nodes of a graph", *cuda)
    return Figures.of(count, tokens=sum(map(len, CORPUS.values())))


def answer(at: Path, out: Path) -> Figures:
    """The answers that eval.instruct grades: one greedy and some sampled ones a task."""
    become((9, 0))
    with Count({"model/generate.py:choose": lambda tensor: [7] * len(tensor)}) as count:
        tokenizer = load_tokenizer(str(at / "decoder"))
        decoder = load_decoder(str(at / "decoder"), dtype=choose_dtype(DEVICE), device=DEVICE)
        rules = {"samples": 2, "temperature": 0.8, "top_p": 0.95, "max_new_tokens": 3, "seed": 0}
        answers = answer_pairs(decoder, tokenizer, ROWS, **rules)
    assert len(answers) == 3 * len(ROWS)
    return Figures.of(count, tokens=3 * len(answers))


def export(at: Path, out: Path) -> Figures:
    """From a decoder on the device: its adapter, merged over dense weights, int8 and NF4, a folder, .gguf files."""
    become((8, 0))
    tokenizer = load_tokenizer(str(at / "decoder"))
    with Count({"model/export/gguf.py:write_gguf": lambda too_large: False}) as count:
        for quantize, put in QUANTIZE.items():
            decoder = load_decoder(str(at / "decoder"), dtype=choose_dtype(DEVICE), device=DEVICE, put=put)
            load_adapter(decoder, at / "adapter")
            save_adapter(decoder, out / quantize / "adapter", base_model="tiny", task_type="CAUSAL_LM")
            remove(decoder, merge=True)
            assert not any(isinstance(module, QuantisedWeight) for module in decoder.modules())
            save_decoder(decoder, tokenizer, out / quantize / "merged")
        for kind in ("f16", "q8_0"):
            write_gguf(decoder, tokenizer, out / f"{kind}.gguf", type=kind, name="tiny")
    return Figures.of(count, tokens=1)
