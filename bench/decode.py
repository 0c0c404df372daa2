"""How far decode steps over the KV cache are from one pass over the same tokens, relative to half precision's error.

    python -m bench.decode --model smollm2-135m --out runs/bench/decode.json

Without --model, the network has the shape --shape and random weights, with keys and queries biased so that attention
scores are near --score: Qwen2 has scores of several hundred, which half precision would round. "ours" is the mean
absolute difference between the logits of decode steps and of one pass over all tokens; "theirs" is that between this
pass and fp32. With scores rounded to bf16 the ratio is 0.9, in fp32 it is 0.03 (Qwen2.5-Coder-0.5B, 2 layers, CPU).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch

from bench.measure import DeviceOptions, report, row
from bench.memory import ShapeOptions, config_of, random_decoder
from common.console import UserError, progress, run_command
from common.options import option, parse
from model import load_decoder
from model.decoder import Decoder
from model.device import DTYPES, choose_device, choose_dtype
from model.weights import put


@dataclass(frozen=True, kw_only=True)
class Options(ShapeOptions, DeviceOptions):
    """Options of this command."""

    model: str | None = option(None, "folder, hub id or embedded default (default: random weights)")
    score: float = option(300.0, "mean attention score of random weights")
    tokens: int = option(200, "tokens of the text")
    prompt: int = option(50, "tokens of the text to read at once first")
    dtype: str = option("auto", "compute dtype", choices=("auto", *DTYPES))


def main() -> None:
    """Command line."""
    options = parse(Options, description=__doc__)
    device = choose_device(options.device)
    dtype = choose_dtype(device, options.dtype)
    if dtype == torch.float32:
        raise UserError("fp32 loses nothing in a cache; give --dtype bf16 or fp16, on hardware that has it")
    torch.manual_seed(options.seed)
    if options.model:
        name, decoder = options.model, load_decoder(options.model, dtype=dtype, device=device)
    else:
        name = f"{options.shape}, scores near {options.score:g}"
        decoder = random_decoder(config_of(options), torch.float32, device, put)
        bias_scores(decoder, options.score)
        decoder.to(dtype)  # half precision and fp32 start from the same rounded weights
    ids = torch.randint(3, decoder.config.vocab_size, (options.tokens,), device=device)
    at_once, stepped = logits_of(decoder, ids, options.prompt)
    reference, _ = logits_of(decoder.float(), ids, len(ids))
    apart, cost = (1000 * float((a - b).abs().mean()) for a, b in ((stepped, at_once), (at_once, reference)))
    rows = [row(f"decode against prefill, {name}", "logit/1000", [apart], [cost])]
    report(rows, device=device, dtype=dtype, peers=[], out=options.out)


def bias_scores(decoder: Decoder, score: float) -> None:
    """Add a common component to all keys and queries, in the slowest rotating pair of RoPE, so that q · k ≈ `score`.

    Norm weights are set to 1: with the small random ones of `random_decoder`, attention would be uniform. Queries and
    keys must have biases, as in Qwen2.
    """
    for name, parameter in decoder.named_parameters():
        if name.endswith("norm.weight"):
            parameter.data.fill_(1.0)
    for layer in decoder.model.layers:
        attention = layer.self_attn
        head_dim = attention.head_dim
        common = (score / attention.scale / 2) ** 0.5
        for part in (attention.q_proj, attention.k_proj):
            bias = part.bias.data.view(-1, head_dim)
            bias[:, head_dim // 2 - 1] = bias[:, head_dim - 1] = common


@torch.inference_mode()
def logits_of(decoder: Decoder, ids: torch.Tensor, prompt: int) -> tuple[torch.Tensor, torch.Tensor]:
    """fp32 logits [T, V] of ids [T]: in one pass, and with all but the first `prompt` tokens as decode steps."""
    at_once = decoder.hidden_states(ids[None], [len(ids)])[0]
    cache = decoder.new_cache(slots=1, lanes=1, rows=1, longest=(len(ids), len(ids)))
    cache.admit([0], [prompt])
    stepped = [decoder.hidden_states(ids[None, :prompt], [prompt], cache)[0]]
    cache.seat([0], [0], [0])
    for written, token in enumerate(progress(ids[prompt:], what="decoding", unit="token")):
        cache.reserve({0: written + 1})
        stepped.append(decoder.hidden_states(token[None, None], cache=cache)[0])
    return decoder.logits(at_once).float(), decoder.logits(torch.cat(stepped)).float()


if __name__ == "__main__":
    sys.exit(run_command(main))
