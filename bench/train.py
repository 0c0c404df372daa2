"""Training a LoRA adapter, against trl's SFTTrainer with peft, at its defaults and with its best flags.

    python -m bench.train --out runs/bench/train.json

Both sides get the same token ids and labels in the same order: rows of mixed length, rows of equal length, and code
packed to 1,024 tokens, all of it supervised. Each figure comes from its own process, which loads the model, warms up,
and makes some steps; the sides take turns. trl's defaults recompute activations, and so do we against them, but not
against its best flags. Tokens are counted without padding. Memory is the peak above the loaded weights. Seconds are
measured until the mean loss of the last eight steps reaches a value that both sides reach.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from bench.measure import GPUOptions, Memory, RunOptions, be_turing, in_turn, report, row
from common.console import need, run_command
from common.files import read_json, read_objects, write_json
from common.options import HIDDEN, option, parse
from data.corpus import build_corpus
from data.corpus.functions import functions_of
from data.masking import Example, tokenize_rows
from data.packing import to_batch
from lora.adapter import trainable
from lora.inject import DECODER_TARGETS, inject
from model import load_decoder, load_tokenizer, save_decoder
from model.device import DTYPES, choose_device, choose_dtype
from model.loss import IGNORE, causal_lm_loss, supervised_tokens
from model.memory import keep_freed_memory
from training.optim import adamw
from training.precision import Precision

KINDS = ("mixed", "equal", "packed")
LORA = {"r": 16, "alpha": 32.0}
LR = 2e-4
SIDES = {  # trl's options besides batch and steps, and our checkpointing mode
    "its defaults": ({}, "full"),
    "its best flags": ({"gradient_checkpointing": False, "loss_type": "chunked_nll"}, "none"),
}


@dataclass(frozen=True, kw_only=True)
class Options(RunOptions, GPUOptions):
    """Options of this command."""

    model: str = option("smollm2-135m", "model to train")
    data: Path | None = option(None, "pairs, JSON Lines (default: docstrings of networkx)", metavar="FILE")
    max_length: int = option(1024, "tokens of a pair")
    rows: tuple[str, ...] = option(KINDS, "kinds of rows", choices=KINDS)
    steps: int = option(4, "steps to measure, of 8 pairs each")
    warmup: int = option(1, "steps before those")
    runs: int = option(5, "runs of each side, in turn", least=1)
    their_dtype: str = option("auto", "compute dtype of theirs; auto: as ours", choices=("auto", *DTYPES))
    child: Path | None = option(None, HIDDEN)


def main() -> None:
    """Command line."""
    options = parse(Options, description=__doc__)
    if options.child:
        work = read_json(options.child)
        if work["turing"]:
            be_turing(torch.device(work["device"]))
        print(json.dumps(measure_ours(work) if work["side"] == "ours" else measure_theirs(work)))
        return
    need("trl", why="the comparison")
    device = choose_device(options.device)
    if options.turing:
        be_turing(device)
    dtype = choose_dtype(device)
    tokenizer = load_tokenizer(options.model)
    with tempfile.TemporaryDirectory() as folder:
        save_decoder(load_decoder(options.model, dtype=dtype), tokenizer, Path(folder) / "model")
        rows = []
        for name, (batch, examples) in chosen_rows(options, tokenizer).items():
            work = {
                "model": f"{folder}/model", "device": str(device), "turing": options.turing, "seed": options.seed,
                "their_dtype": options.their_dtype, "warmup": options.warmup, "batch": batch,
                "rows": [[example.input_ids, example.labels] for example in examples],
            }  # fmt: skip
            for side in SIDES:
                rows += compare(name, side, work, options.runs, Path(folder) / "work.json")
    report(rows, device=device, dtype=dtype, peers=["trl", "peft", "transformers"], out=options.out)


def chosen_rows(options: Options, tokenizer) -> dict[str, tuple[int, list[Example]]]:
    """For each kind of rows: the rows of a step, and those of all steps."""
    pairs = read_objects(options.data) if options.data else docstring_pairs()
    random.Random(options.seed).shuffle(pairs)
    steps = options.warmup + options.steps
    mixed, _ = tokenize_rows(pairs, tokenizer, max_length=options.max_length, where=str(options.data or "networkx"))
    text = [token for example in mixed for token in example.input_ids]
    size = min(256, len(text) // (8 * steps))
    equal = [Example(ids, [IGNORE] * (size // 2) + ids[size // 2 :]) for ids in _cut(text, size, 8 * steps)]
    files = build_corpus("package:networkx", seed=options.seed).files if "packed" in options.rows else []
    code = [token for file in files for token in tokenizer.encode(file.text)]
    kinds = {
        "mixed": ("mixed lengths", (8, mixed[: 8 * steps])),
        "equal": (f"{size} tokens each", (8, equal)),
        "packed": ("packed 1024", (2, [Example(ids, ids) for ids in _cut(code, 1024, 2 * steps)])),
    }
    return dict(kinds[kind] for kind in options.rows)


def _cut(tokens: list[int], size: int, count: int) -> list[list[int]]:
    return [tokens[i * size : (i + 1) * size] for i in range(count)]


def docstring_pairs() -> list[dict]:
    """Pairs of a function without its docstring, and the docstring, for every documented function of networkx."""
    corpus = build_corpus("package:networkx", seed=0)
    functions = [f for file in corpus.files for f in functions_of(file, max_lines=60) if f.docstring]
    ask = "Write a docstring for this function."
    return [{"instruction": ask, "input": f.code_without_docstring, "output": f.docstring} for f in functions]


def compare(name: str, side: str, work: dict, runs: int, path: Path) -> list[dict]:
    """Result rows for one kind of training rows against one setting of trl."""

    def run(which: str) -> dict:
        figures = in_a_process(work | {"side": which, "checkpointing": SIDES[side][1]}, path)
        print(f"{name}, {which}: {figures}", flush=True)
        return figures

    sides = in_turn(partial(run, "ours"), partial(run, side), runs)
    columns = {key: [[figures[key] for figures in of_side] for of_side in sides] for key in ("rate", "gib")}
    goal = max(min(_recent(figures["losses"])) for of_side in sides for figures in of_side)
    seconds = [[_seconds_to(goal, figures) for figures in of_side] for of_side in sides]
    share = statistics.median(figures["gemm_share"] for figures in sides[0])
    return [
        row(f"{name}, {side}", "tokens/s", *columns["rate"], note=f"GEMM {share:.0%}"),
        row(f"{name}, {side}", "GiB", *columns["gib"]),
        row(f"{name}, {side}", "s", *seconds, note=f"to a loss of {goal:.3f}"),
    ]


def in_a_process(work: dict, path: Path) -> dict:
    """Run one side in its own process, work in file `path`; returns its figures. CalledProcessError if it fails."""
    write_json(path, work)
    command = [sys.executable, "-m", "bench.train", "--child", str(path)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.rstrip("\n").rpartition("\n")[2])


def _recent(losses: list[float]) -> list[float]:
    """Running mean of eight losses: single steps have different rows."""
    return [statistics.mean(losses[max(0, step - 7) : step + 1]) for step in range(len(losses))]


def _seconds_to(goal: float, figure: dict) -> float:
    steps = 1 + next(step for step, loss in enumerate(_recent(figure["losses"])) if loss <= goal)
    return sum(figure["seconds"][:steps])


def measure_ours(work: dict) -> dict:
    """The loop of train_sft.py on these rows, without padding."""
    device = torch.device(work["device"])
    keep_freed_memory()
    torch.manual_seed(work["seed"])
    decoder = load_decoder(work["model"], dtype=choose_dtype(device), device=device)
    memory = Memory(device)
    inject(decoder, **LORA, targets=DECODER_TARGETS)
    decoder.checkpointing = work["checkpointing"]
    precision = Precision(device, choose_dtype(device))
    optimizer = adamw(decoder, lr=LR, weight_decay=0.0)
    learning = [parameter for _, parameter in trainable(decoder)]
    decoder.train()
    losses, clock = [], Clock(work["warmup"])
    for start in range(0, len(work["rows"]), work["batch"]):
        clock.begin()
        batch = to_batch([Example(*pair) for pair in work["rows"][start : start + work["batch"]]], device)
        with precision.autocast():
            hidden_states = decoder.hidden_states(batch.input_ids, batch.lengths)
            loss = causal_lm_loss(hidden_states, decoder.head_weight, batch.labels, softcap=decoder.softcap)
        precision.backward(loss / supervised_tokens(batch.labels))
        precision.step(optimizer, learning, 1.0)
        losses.append(loss.item() / supervised_tokens(batch.labels).item())
        clock.end()
    return figures_of(work, clock, memory, losses, gemm=gemm_rate(device), decoder=decoder)


def measure_theirs(work: dict) -> dict:
    """SFTTrainer with the same adapter, rows and order."""
    import peft
    import transformers
    import trl
    from datasets import Dataset

    rows, device = work["rows"], torch.device(work["device"])
    dtype = choose_dtype(device, work["their_dtype"])
    data = Dataset.from_list(
        [{"input_ids": ids, "labels": labels, "attention_mask": [1] * len(ids)} for ids, labels in rows]
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(work["model"], dtype=dtype).to(device)
    memory, clock, losses = Memory(device), Clock(work["warmup"]), []

    class Times(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            clock.begin()

        def on_step_end(self, args, state, control, **_):
            clock.end()

        def on_log(self, args, state, control, logs=None, **_):
            if "loss" in (logs or {}):
                losses.append(float(logs["loss"]))

    with tempfile.TemporaryDirectory() as folder:
        config = trl.SFTConfig(
            output_dir=folder, per_device_train_batch_size=work["batch"], max_steps=len(rows) // work["batch"],
            learning_rate=LR, lr_scheduler_type="constant", logging_steps=1, report_to=[], save_strategy="no",
            seed=work["seed"], use_cpu=device.type == "cpu", dataset_kwargs={"skip_prepare_dataset": True},
            fp16=dtype == torch.float16, max_length=None, disable_tqdm=True,
            train_sampling_strategy="sequential", **SIDES[work["side"]][0],
        )  # fmt: skip
        trainer = trl.SFTTrainer(
            model=model, args=config, train_dataset=data, callbacks=[Times()],
            processing_class=transformers.AutoTokenizer.from_pretrained(work["model"]),
            peft_config=peft.LoraConfig(r=LORA["r"], lora_alpha=LORA["alpha"], target_modules=list(DECODER_TARGETS)),
        )  # fmt: skip
        trainer.train()
    return figures_of(work, clock, memory, losses)


class Clock:
    """Seconds of each step; the first `warmup` do not count in the total."""

    def __init__(self, warmup: int) -> None:
        self.warmup, self.seconds = warmup, []

    def begin(self) -> None:
        """Start a step."""
        self.started = time.perf_counter()

    def end(self) -> None:
        """End it, once the device has finished."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.started)

    @property
    def total(self) -> float:
        """Seconds of the steps after warm-up."""
        return sum(self.seconds[self.warmup :])


def figures_of(
    work: dict, clock: Clock, memory: Memory, losses: list[float], *, gemm: float = 0.0, decoder=None
) -> dict:
    """Tokens per second without padding, memory, losses, and the share of the hardware's GEMM rate."""
    rows = work["rows"][work["batch"] * work["warmup"] :]
    tokens = sum(len(ids) for ids, _ in rows)
    figures = {"rate": tokens / clock.total, "gib": memory.peak(), "losses": [round(loss, 4) for loss in losses]}
    figures["seconds"] = [round(seconds, 3) for seconds in clock.seconds]
    if decoder is not None:  # forward and input gradient, 2 each; the head only at supervised positions
        linear = sum(p.numel() for n, p in decoder.named_parameters() if p.ndim == 2 and ("_proj" in n))
        supervised = sum(label != IGNORE for _, labels in rows for label in labels[1:])
        work_done = 4 * linear * tokens + 4 * decoder.head_weight.numel() * supervised
        figures["gemm_share"] = work_done / clock.total / gemm
    return figures


def gemm_rate(device: torch.device) -> float:
    """FLOP/s of large matrix products in the compute dtype."""
    a, b = (torch.randn(2048, 2048, dtype=choose_dtype(device), device=device) for _ in range(2))
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * 2048**3 / statistics.median(seconds)


if __name__ == "__main__":
    sys.exit(run_command(main))
