"""The longest text on which one LoRA step fits into a given memory, against trl's SFTTrainer with peft.

    python -m bench.context --shape qwen2.5-1.5b --cap 15 --turing

The network has a well-known shape and random weights; the text is one row of random tokens, all supervised, and both
sides recompute activations, trl's default. Each length is tried in its own process. It fits if the process does not run
out of memory, and weights plus peak memory of the step stay below the cap. Ours is bench.memory, which needs no file;
--alone omits trl. Lengths are doubled until one does not fit or exceeds the positions of the shape, then bisected to
within an eighth.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from bench.measure import GPUOptions, be_turing, report, row
from bench.memory import SHAPES, ShapeOptions, config_of, random_decoder
from bench.train import in_a_process
from common.console import UserError, need, run_command
from common.files import read_json
from common.options import option, parse
from model import load_tokenizer, save_decoder
from model.device import choose_device, choose_dtype
from model.weights import put


@dataclass(frozen=True, kw_only=True)
class Options(ShapeOptions, GPUOptions):
    """Options of this command."""

    shape: str = option("qwen2.5-1.5b", "shape of the network", choices=tuple(SHAPES))
    cap: float = option(15.0, "memory for all of it, in 10^9 bytes")
    shortest: int = option(1024, "tokens to begin with")
    checkpointing: str = option("full", "how ours recomputes activations", choices=("full", "offload"))
    alone: bool = option(False, "measure ours only: no trl, no tokenizer, no file")


def main() -> None:
    """Command line."""
    options = parse(Options, description=__doc__)
    if not options.alone:
        need("trl", why="the comparison")
    device = choose_device(options.device)
    if options.turing:
        be_turing(device)
    dtype = choose_dtype(device)
    most = config_of(options).max_position_embeddings
    with tempfile.TemporaryDirectory() as folder:
        sides = {"ours": partial(our_bytes, options, Path(folder) / "figures.json")}
        if not options.alone:
            sides["its defaults"] = partial(their_bytes, **prepared(options, dtype, device, Path(folder)))

        def fits(side: str, tokens: int) -> bool:
            try:
                taken = sides[side](tokens)
            except subprocess.CalledProcessError as failed:
                if not any(word in failed.stderr for word in ("out of memory", "OutOfMemory", "can't allocate")):
                    raise
                print(f"{side}, {tokens:,} tokens: out of memory", flush=True)
                return False
            print(f"{side}, {tokens:,} tokens: {taken / 1e9:.2f} GB", flush=True)
            return taken <= options.cap * 1e9

        lengths = {side: longest(partial(fits, side), options.shortest, most) for side in sides}
    name = f"{options.shape}, longest text in {options.cap:g} GB"
    rows = [row(name, "tokens", [float(lengths["ours"])], [float(lengths[s]) for s in sides if s != "ours"])]
    peers = [] if options.alone else ["trl", "peft", "transformers"]
    report(rows, device=device, dtype=dtype, peers=peers, out=options.out)


def our_bytes(options: Options, out: Path, tokens: int) -> int:
    """Bytes of one step on a text of `tokens` tokens, weights included. CalledProcessError when it does not fit."""
    command = [
        sys.executable, "-m", "bench.memory", "--shape", options.shape, "--rows", "1", "--tokens", str(tokens),
        "--steps", "1", "--checkpointing", options.checkpointing, "--device", options.device, "--out", str(out),
        *(["--layers", str(options.layers)] if options.layers else []), *(["--turing"] if options.turing else []),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, text=True)
    return next(int(row["ours"] * 2**30) for row in read_json(out)["rows"] if row["name"] == "peak")


def prepared(options: Options, dtype: torch.dtype, device: torch.device, folder: Path) -> dict:
    """Save the network for trl to load; returns the keyword arguments of `their_bytes`."""
    torch.manual_seed(options.seed)
    config = config_of(options)
    decoder = random_decoder(config, dtype, torch.device("cpu"), put)
    save_decoder(decoder, load_tokenizer("smollm2-135m"), folder / "model")
    work = {
        "model": f"{folder}/model", "device": str(device), "turing": options.turing, "seed": options.seed,
        "their_dtype": "auto", "warmup": 0, "batch": 1, "side": "its defaults",
    }  # fmt: skip
    weights = sum(parameter.nbytes for parameter in decoder.parameters())
    return {"work": work, "weights": weights, "words": config.vocab_size, "path": folder / "work.json"}


def their_bytes(tokens: int, *, work: dict, weights: int, words: int, path: Path) -> int:
    """The same for trl."""
    ids = torch.randint(words, (tokens,)).tolist()
    return weights + int(in_a_process(work | {"rows": [[ids, ids]]}, path)["gib"] * 2**30)


def longest(fits: Callable[[int], bool], shortest: int, most: int) -> int:
    """The greatest length up to `most` that fits, to within an eighth. UserError if `shortest` does not fit."""
    if not fits(shortest):
        raise UserError(f"not even {shortest} tokens fit; give a larger --cap or a smaller --shortest")
    good = shortest
    while good < most and fits(min(2 * good, most)):
        good = min(2 * good, most)
    bad = min(2 * good, most)
    while bad - good > good // 8:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


if __name__ == "__main__":
    sys.exit(run_command(main))
