"""Sampling speed against transformers.generate: pass@k's workload, and answers of equal length.

    python -m bench.generate --out runs/bench/generate.json

Both sides get the same token ids, sorted by length; transformers runs with its fastest dtype and batch size, both found
by a shorter trial. Only tokens of answers count, not what a batch computes for rows that have ended.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from bench.measure import GPUOptions, RunOptions, be_turing, in_turn, report, row
from common.console import need, run_command
from common.markdown import fenced
from common.options import option, parse
from data.corpus import build_corpus
from data.corpus.functions import functions_of
from data.masking import encode_prompt
from model import Sampling, Stop, generate, load_decoder, load_tokenizer, save_decoder
from model.device import choose_device, choose_dtype

SAMPLING = {"temperature": 0.8, "top_p": 0.95}


class Theirs:
    """transformers.generate on prompts sorted by length, in left-padded batches of a fixed number of rows."""

    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device, stop_ids: set[int]) -> None:
        transformers = need("transformers", why="the comparison")
        transformers.logging.set_verbosity_error()
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()
        self.device, self.stop_ids, self.dtype = device, stop_ids, dtype

    @torch.inference_mode()
    def __call__(self, prompts: list[list[int]], *, rows: int, samples: int, stop: bool, new_tokens: int) -> int:
        """Answer every prompt; returns the number of tokens in all answers."""
        pad, total = min(self.stop_ids), 0
        prompts = sorted(prompts, key=len)
        per_batch = max(1, rows // samples)
        for start in range(0, len(prompts), per_batch):
            batch = prompts[start : start + per_batch]
            width = max(map(len, batch))
            ids = torch.tensor([[pad] * (width - len(p)) + p for p in batch], device=self.device)
            mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in batch], device=self.device)
            settings = {"do_sample": True, "top_k": 0, **SAMPLING} if stop else {"do_sample": False}
            out = self.model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=new_tokens, num_return_sequences=samples,
                min_new_tokens=None if stop else new_tokens, eos_token_id=sorted(self.stop_ids), pad_token_id=pad,
                **settings,
            )  # fmt: skip
            total += sum(_before_stop(answer, self.stop_ids) for answer in out[:, width:].tolist())
        return total


def _before_stop(answer: list[int], stop_ids: set[int]) -> int:
    return next((at for at, token in enumerate(answer) if token in stop_ids), len(answer))


@dataclass(frozen=True, kw_only=True)
class Options(RunOptions, GPUOptions):
    """Options of this command."""

    model: str = option("smollm2-135m", "model to sample from")
    prompts: int = option(64, "number of prompts")
    samples: int = option(8, "answers that stop, per prompt")
    limit: int = option(256, "tokens of an answer that stops, at most")
    exact: int = option(128, "tokens of an answer that does not stop")
    work: str = option("both", "kind of answers to measure", choices=("both", "stop", "exact"))
    rows: tuple[int, ...] = option((16, 32, 64, 128), "batch sizes to try for theirs")


def main() -> None:
    """Command line."""
    options = parse(Options, description=__doc__)
    device = choose_device(options.device)
    if options.turing:
        be_turing(device)
    dtype = choose_dtype(device)
    tokenizer = load_tokenizer(options.model)
    decoder = load_decoder(options.model, dtype=dtype, device=device)
    prompts = sorted(_prompts(tokenizer, options.prompts, options.seed), key=len)
    print(f"prompts  {len(prompts)} of {len(prompts[0])} to {len(prompts[-1])} tokens; ours in {dtype}")
    with tempfile.TemporaryDirectory() as folder:
        save_decoder(decoder, tokenizer, Path(folder) / "model")
        candidates = [
            Theirs(Path(folder) / "model", kind, device, tokenizer.stop_ids) for kind in {dtype, torch.float32}
        ]
    works = {
        f"{options.prompts} prompts x {options.samples} samples that stop": (options.samples, True, options.limit),
        f"{options.prompts} prompts x {options.exact} tokens": (1, False, options.exact),
    }
    rows = []
    for name, (samples, stop, new_tokens) in works.items():
        if options.work != "both" and stop != (options.work == "stop"):
            continue
        work = {"samples": samples, "stop": stop, "new_tokens": new_tokens}
        theirs, size = _best(candidates, options.rows, prompts, work)
        ends = Stop(max_new_tokens=new_tokens, ids=tokenizer.stop_ids if stop else ())
        sampling = Sampling(**(SAMPLING if stop else {}), samples=samples, seed=options.seed)
        ours = partial(_ours, decoder, prompts, ends, sampling)
        figures = in_turn(
            partial(_rate, ours), partial(_rate, partial(theirs, prompts, rows=size, **work)), options.runs
        )
        rows.append(row(name, "tokens/s", *figures, note=f"theirs: {theirs.dtype}, {size} rows".replace("torch.", "")))
    if device.type == "cuda":
        rows.append(_single_stream(decoder, prompts[0], options.exact))
    report(rows, device=device, dtype=dtype, peers=["transformers"], out=options.out)


def _single_stream(decoder, prompt: list[int], new_tokens: int) -> dict:
    """One answer on a GPU against the bandwidth (of a large copy) bound: every weight is read once per token."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device=decoder.device)
    target = torch.empty_like(source)
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    target.copy_(source)
    start.record()
    for _ in range(10):
        target.copy_(source)
    stop.record()
    torch.cuda.synchronize()
    bytes_per_second = 10 * 2 * source.numel() / (start.elapsed_time(stop) / 1e3)  # read and written
    weights = sum(p.numel() * p.element_size() for p in decoder.parameters())
    bound = bytes_per_second / weights
    ask = partial(_ours, decoder, [prompt], Stop(max_new_tokens=new_tokens, ids=()))
    ask()
    return row("1 prompt, against the bandwidth bound", "tokens/s", [_rate(ask) for _ in range(3)], [bound] * 3)


def _ours(decoder, prompts, *settings) -> int:
    return sum(len(answer) for answers in generate(decoder, prompts, *settings) for answer in answers)


def _best(candidates: list[Theirs], sizes: list[int], prompts: list[list[int]], work: dict) -> tuple[Theirs, int]:
    """The dtype and batch size at which the other side is fastest, on enough prompts to fill the largest batch."""
    trial = prompts[:: max(1, len(prompts) * work["samples"] // max(sizes))]
    rates = {}
    for theirs in candidates:
        for size in sizes:
            rates[theirs, size] = _rate(partial(theirs, trial, rows=size, **work | {"new_tokens": 48}))
            print(f"trial    {theirs.dtype}, {size} rows: {rates[theirs, size]:.0f} tokens/s", flush=True)
    return max(rates, key=rates.get)


def _rate(work) -> float:
    """Tokens per second of a call that returns how many it generated."""
    start = time.perf_counter()
    tokens = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return tokens / (time.perf_counter() - start)


def _prompts(tokenizer, count: int, seed: int) -> list[list[int]]:
    """Requests for docstrings of library functions, the same for every model with a chat template."""
    functions = [
        f for file in build_corpus("package:networkx", seed=seed).files for f in functions_of(file, max_lines=20)
    ]
    chosen = random.Random(seed).sample(functions, count)
    ask = "Write a docstring for this function.\n\n{}"
    asked = [ask.format(fenced(f.code_without_docstring, "python")) for f in chosen]
    return [encode_prompt(tokenizer, [{"role": "user", "content": one}]) for one in asked]


if __name__ == "__main__":
    sys.exit(run_command(main))
