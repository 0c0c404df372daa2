"""All walks by name: what runs on the fake device, and what a figure is the figure of."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import train_sft
from lora.prefix import Prefix
from lora.prompt import Prompt
from tests.cuda.fake import commands, embed, sample, train
from tests.cuda.fake.walk import Figures

Walk = Callable[[Path, Path], Figures]  # (folder of tiny models and data, folder to write to)


def training() -> dict[str, Walk]:
    """Both loops over decoders: the grid, and what it leaves out."""
    walks: dict[str, Walk] = {}
    for method, checkpointing, rows, capability, optimizer in train.grid():
        flags = [*train.METHODS[method], "--checkpointing", checkpointing, "--optimizer", optimizer]
        flags += ["--validate-every", "0"]  # the other walks validate
        name = (
            f"train {method}, checkpointing {checkpointing}, {rows} rows, {capability[0]}.{capability[1]}, {optimizer}"
        )
        # AdamW in 8 bits goes through an embedding of Qwen2's size in 130 pieces, all alike
        small = {"vocab_size": 4096} if method == "full" and optimizer == "adamw8bit" else {}
        walks[name] = _train(*flags, rows=rows, capability=capability, changes=small)
    for family in ("gemma2", "gemma3", "mistral", "qwen3", "llama"):
        walks[f"train {family}"] = _train(family=family)
    for family in ("qwen3", "gemma2"):  # norms of queries and keys, and a soft-cap, over weights in fp32
        walks[f"train full {family}"] = _train("--method", "full", family=family)
    walks["train prefix"] = _train("--method", "prefix", "--checkpointing", "full")
    walks["train prefix, gemma2, 7.5"] = _train(
        "--method", "prefix", "--prefix-mlp", "64", "--checkpointing", "offload", family="gemma2", capability=(7, 5)
    )
    walks["train prompt, qwen3"] = _train("--method", "prompt", "--checkpointing", "selective", family="qwen3")
    walks["train_sft, LoRA+ and rsLoRA with dropout"] = _train(
        "--lora-plus-ratio", "16", "--rslora", "--dropout", "0.1", script=train_sft
    )
    for method in ("ia3", "bitfit"):
        walks[f"train {method}"] = _train("--method", method)
    walks["train bitfit of norms"] = _train("--method", "bitfit", family="llama")
    for placement in ("houlsby", "pfeiffer"):
        walks[f"train {placement}, 7.5"] = _train("--method", "bottleneck", "--placement", placement, capability=(7, 5))
    walks["train with fp32 modules, 7.5"] = _train("--fp32-modules", r".*\.0\.mlp", capability=(7, 5))
    walks["train in fp32"] = _train(dtype="fp32")
    return walks


def _train(*flags, changes: dict | None = None, **settings) -> Walk:
    return lambda at, out: train.train(out, *flags, changes=changes or {}, **settings)


def sampling() -> dict[str, Walk]:
    """Sampling: families that differ over a cache, and every rule of the next token."""
    rules = {
        "greedily": ("qwen2", {}),
        "gemma2": ("gemma2", {"layers": 2, "new_tokens": 4}),
        "gemma3": ("gemma3", {"layers": 2, "new_tokens": 4}),
        "top-p": ("qwen2", {"temperature": 0.8, "top_p": 0.9}),
        "top-k, min-p, penalty, 7.5": (
            "qwen2",
            {"temperature": [0.0, 0.8], "top_k": 40, "min_p": 0.05, "repetition_penalty": 1.2, "capability": (7, 5)},
        ),
        "after a prefix": ("qwen2", {"method": Prefix}),
        "after a prefix, gemma2, one answer each": ("gemma2", {"layers": 2, "samples": 1, "rows": 2, "method": Prefix}),
        "after a prompt": ("qwen2", {"method": Prompt}),
        "one answer each": ("qwen2", {"samples": 1, "rows": 2, "temperature": 1.0}),
    }
    return {f"sample {name}": _sample(family, rule) for name, (family, rule) in rules.items()}


def _sample(family: str, rule: dict) -> Walk:
    return lambda at, out: sample.sample(family, **rule)


def embedding() -> dict[str, Walk]:
    """Encoders: of every kind, whole and in chunks."""
    walks: dict[str, Walk] = {}
    for family in ("bert", "xlm-roberta", "modernbert", "qwen3"):
        walks[f"encode {family}"] = partial(_encode, family)
        walks[f"train_embed {family}"] = _embed(family)
    walks["train_embed in chunks, 7.5"] = _embed("bert", "--chunk-tokens", "200", capability=(7, 5))
    walks["train_embed in chunks, LoRA"] = _embed(
        "bert", "--chunk-tokens", "200", "--method", "lora", "--dropout", "0.1"
    )
    walks["train_embed top layers, all losses"] = _embed(
        "qwen3", "--top-layers", "1", "--distill", "0.5", "--learn-temperature", "--dimensions", "64", capability=(8, 0)
    )
    return walks


def _encode(family: str, at: Path, out: Path) -> Figures:
    return embed.encode(family)


def _embed(*words: str, **settings) -> Walk:
    return lambda at, out: embed.learn(out, *words, **settings)


def whole_commands() -> dict[str, Walk]:
    """Commands from file to file."""
    return {
        "train_cpt.py --method full --resume": commands.cpt_resumed,
        "train_cpt.py overflowing": commands.cpt_overflowing,
        "train_cpt.py --fit --dry-run": commands.cpt_dry,
        "train_sft.py": commands.sft,
        "train_embed.py": commands.embed,
        "chat.py": commands.talk,
        "eval.perplexity, eval.next_token": commands.measure,
        "eval.retrieval, search.py": commands.retrieve,
        "answers of eval.instruct": commands.answer,
        "exports": commands.export,
    }


WALKS = training() | sampling() | embedding() | whole_commands()
