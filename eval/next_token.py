"""What an adapter does to the next-token distribution: base and tuned side by side, position by position.

    python -m eval.next_token --model M --adapter A --prompt TEXT --out F.json
    python -m eval.next_token --model M --adapter A --seen train.jsonl --unseen test.jsonl --out F.json

At one position of each prompt: the most likely tokens of both, each with its rank in the other. At every position:
KL(tuned ‖ base), both entropies and both losses in nats, and the rank of the token that follows. A KL that is large on
training texts and small elsewhere indicates memorisation; one that is large on both, a change of the language model as
a whole. F.svg, a chart of the same, is written beside F.json.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from common.console import UserError, progress, run_command
from common.files import write_json, write_text
from common.options import as_settings, option, parse
from eval.charts import next_token_picture
from eval.environment import environment
from eval.next_token_prompts import Prompt, given_prompt, read_prompts
from eval.stats import bootstrap_mean
from lora.adapter import Adapter, use_adapter
from lora.adapter_file import load_adapter
from lora.adapter_tokenizer import load_trained_tokenizer
from lora.frozen_weight import QUANTIZE
from model import load_decoder
from model.decoder import Decoder
from model.device import choose_device
from model.generate import positions_of
from model.token_text import REPLACEMENT, exact_text
from model.tokenizer import Tokenizer

CHUNK = 64  # positions whose logits are held at once: 39 MB a model at 152k words
STATES = ("base", "tuned")
PROMPTS = "what to continue"  # a heading of --help


def next_tokens(
    decoder: Decoder, tokenizer: Tokenizer, adapter: Adapter, prompts: list[Prompt], *, top: int = 10, seed: int = 0
) -> dict:
    """The eval result of prompts: "prompts" (one row each, from `compare_prompt`), and means over positions.

    metrics  METRIC_KIND for each kind of prompt: kl, entropy_base, entropy_tuned, nll_base and nll_tuned in nats;
             top1_changed, rank_better and rank_worse as shares. Intervals (95 %) resample whole prompts
    The adapter is active afterwards. UserError if no prompt has two tokens.
    """
    if not any(len(prompt.input_ids) > 1 for prompt in prompts):
        raise UserError("nothing to compare on: give a prompt of two tokens or more")
    was_training = decoder.training
    decoder.eval()
    rows = [
        compare_prompt(decoder, tokenizer, adapter, prompt, top=top)
        for prompt in progress(prompts, what="next token", unit="prompt")
    ]
    decoder.train(was_training)
    read = [prompt.input_ids for prompt in prompts]
    metrics, intervals = {}, {}
    for kind in dict.fromkeys(row["kind"] for row in rows):
        positions = [(row["name"], position) for row in rows if row["kind"] == kind for position in row["positions"]]
        for metric, values in _measures([position for _, position in positions]).items():
            clusters = [name for name, position in positions if metric not in _OF_FOLLOWED or position["rank"]]
            if values:
                value, *interval = bootstrap_mean(values, clusters=clusters, seed=seed)
                metrics[f"{metric}_{kind}"], intervals[f"{metric}_{kind}"] = value, interval
    return {
        "metrics": metrics,
        "intervals": intervals,
        "n": len(rows),
        "prompts": rows,
        "results": [],
        "sandbox": None,
        "environment": environment(decoder.device, decoder.model.norm.weight.dtype, prompts=read),
    }


_OF_FOLLOWED = ("nll_base", "nll_tuned", "rank_better", "rank_worse")  # defined where a token follows


def _measures(positions: list[dict]) -> dict[str, list[float]]:
    """metric -> its values, at every position where it is defined."""
    followed = [position for position in positions if position["rank"]]
    measures = {"kl": [position["kl"] for position in positions]}
    for measure, measured in (("entropy", positions), ("nll", followed)):
        for i, state in enumerate(STATES):
            measures[f"{measure}_{state}"] = [position[measure][i] for position in measured]
    measures["top1_changed"] = [float(position["top1"][0] != position["top1"][1]) for position in positions]
    measures["rank_better"] = [float(position["rank"][1] < position["rank"][0]) for position in followed]
    measures["rank_worse"] = [float(position["rank"][1] > position["rank"][0]) for position in followed]
    return measures


def compare_prompt(decoder: Decoder, tokenizer: Tokenizer, adapter: Adapter, prompt: Prompt, *, top: int = 10) -> dict:
    """Base and tuned on one prompt.

    Returns {"name", "kind", "text" (up to the position of interest), "base", "tuned", "positions"}. base and tuned list
    the `top` most likely next tokens, {"id", "token", "p", "rank", "other_rank"}. Position t predicts the token after
    input_ids[:t + 1]: {"token", "kl", "entropy", "top1", "nll", "rank"}, the last four as [base, tuned]; token, nll
    and rank (1 is the most likely) are None at the end of the text. Partial characters are shown as bytes: <0xE6>.
    """
    ids = torch.tensor(prompt.input_ids, device=decoder.device)
    hidden = {}
    for state in STATES:
        with _in_use(decoder, adapter, state):
            hidden[state] = decoder.hidden_states(ids[None])[0]  # [T, D]
    row = {"name": prompt.name, "kind": prompt.kind, "text": _text(tokenizer, prompt.input_ids[: prompt.at])}
    positions = []
    for start in range(0, len(ids), CHUNK):
        log_p = {}
        for state in STATES:
            with _in_use(decoder, adapter, state):  # the head may have an adapter as well
                logits = decoder.logits(hidden[state][start : start + CHUNK])
                log_p[state] = logits.float().log_softmax(-1)  # [C, V]
        positions += _positions(tokenizer, log_p["base"], log_p["tuned"], ids[start + 1 : start + 1 + CHUNK])
        if start < prompt.at <= start + CHUNK:  # the position of interest
            base, tuned = (log_p[state][prompt.at - 1 - start] for state in STATES)  # [V] each
            row["base"] = _top(tokenizer, base, tuned, top)
            row["tuned"] = _top(tokenizer, tuned, base, top)
    return row | {"positions": positions}


def _text(tokenizer: Tokenizer, ids: list[int]) -> str:
    """The text without control tokens; a character that the window cuts in two is shown as bytes."""
    text = tokenizer.decode(ids)
    control = set(tokenizer.control_tokens.values())
    return exact_text(tokenizer, [token for token in ids if token not in control]) if REPLACEMENT in text else text


@contextmanager
def _in_use(decoder: Decoder, adapter: Adapter, state: str) -> Iterator[None]:
    """Run the network as one of STATES, without gradients; the adapter is active again afterwards."""
    if state == "base":
        use_adapter(decoder, None)
    try:
        with torch.no_grad():
            yield
    finally:
        use_adapter(decoder, adapter)


def _positions(tokenizer: Tokenizer, base: torch.Tensor, tuned: torch.Tensor, following: torch.Tensor) -> list[dict]:
    """base, tuned [C, V] log-probabilities; following [C or C - 1] the actual next tokens."""
    kl = (tuned.exp() * (tuned - base)).sum(-1)  # [C], Kullback & Leibler 1951; 0 for equal distributions
    rows = [
        {"token": None, "kl": max(0.0, divergence), "entropy": entropy, "top1": top1, "nll": None, "rank": None}
        for divergence, entropy, top1 in zip(
            kl.tolist(),
            torch.stack([-(p.exp() * p).sum(-1) for p in (base, tuned)], dim=1).tolist(),
            torch.stack([p.argmax(-1) for p in (base, tuned)], dim=1).tolist(),
            strict=True,
        )
    ]
    known = [p[: len(following)].gather(1, following[:, None]) for p in (base, tuned)]  # [F, 1] each
    nll = (-torch.cat(known, dim=1)).tolist()
    ranks = [1 + (p[: len(following)] > own).sum(-1) for p, own in zip((base, tuned), known, strict=True)]
    for row, token, surprise, rank in zip(
        rows, following.tolist(), nll, torch.stack(ranks, dim=1).tolist(), strict=False
    ):
        row |= {"token": exact_text(tokenizer, [token]), "nll": surprise, "rank": rank}
    return rows


def _top(tokenizer: Tokenizer, own: torch.Tensor, other: torch.Tensor, count: int) -> list[dict]:
    """The most likely tokens of `own` [V], each with its rank in `other` [V]; both are log-probabilities."""
    best = own.topk(min(count, len(own)))
    return [
        {
            "id": token,
            "token": exact_text(tokenizer, [token]),
            "p": p,
            "rank": rank,
            "other_rank": 1 + int((other > other[token]).sum()),
        }
        for rank, (token, p) in enumerate(zip(best.indices.tolist(), best.values.exp().tolist(), strict=True), start=1)
    ]


def table(result: dict) -> str:
    """The result as text: both top lists of each prompt, then the means per kind."""
    parts = []
    for row in result["prompts"]:
        lines = [f"{row['kind']} · {row['name']} · …{row['text'][-60:]!r}", f"{'':4}{'base':<31}tuned"]
        for base, tuned in zip(row["base"], row["tuned"], strict=True):
            moved = tuned["other_rank"] - tuned["rank"]
            arrow = "" if not moved else f"  {'↑' if moved > 0 else '↓'} from {tuned['other_rank']}"
            cells = [f"{one['token']!r:<20} {one['p']:.3f}" for one in (base, tuned)]
            lines.append(f"{base['rank']:>2}  {cells[0]:<31}{cells[1]}{arrow}")
        parts.append("\n".join(lines))
    means = [f"{'mean over positions':28}{'value':>8}  95 % interval (prompts resampled)"]
    for metric, value in result["metrics"].items():
        low, high = result["intervals"][metric]
        interval = f"[{low:.3f}, {high:.3f}]" if low < high else "a single value: no interval"
        means.append(f"{metric:28}{value:8.3f}  {interval}")
    return "\n\n".join([*parts, "\n".join(means)])


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this command."""

    model: str = option(help="folder, .gguf file, hub id or embedded default")
    adapter: str = option(help="folder of an adapter, called tuned in the result", metavar="DIR")
    out: Path = option(help="result, JSON; a picture (.svg) is written beside it", metavar="FILE")
    prompt: tuple[str, ...] = option((), "texts to continue, verbatim", PROMPTS, metavar="TEXT")
    seen: Path | None = option(None, "trained on: rows (.jsonl), a file, a folder or a corpus", PROMPTS)
    unseen: Path | None = option(None, "held out, in the same forms", PROMPTS)
    count: int = option(8, "prompts from --seen and from --unseen each", PROMPTS, least=1)
    window: int = option(256, "tokens of a prompt at most", PROMPTS)
    top: int = option(10, "most likely tokens to list", least=1)
    quantize: str = option("none", "format of the base's linear layers; nf4: 4 bits", choices=tuple(QUANTIZE))
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    seed: int = option(0, "seed of the bootstrap")

    def __post_init__(self) -> None:
        """UserError without a prompt."""
        if not (self.prompt or self.seen or self.unseen):
            raise UserError("nothing to compare on: give --prompt, --seen or --unseen")


def main() -> None:
    """Command line."""
    options = parse(Options, description=__doc__)
    tokenizer = load_trained_tokenizer(options.model, options.adapter)
    prompts = [given_prompt(tokenizer, text, name=f"prompt {i}") for i, text in enumerate(options.prompt, start=1)]
    for kind, place in (("seen", options.seen), ("unseen", options.unseen)):
        if place:
            prompts += read_prompts(tokenizer, place, kind=kind, count=options.count, window=options.window)
    if empty := next((prompt for prompt in prompts if not prompt.at), None):
        raise UserError(f"{empty.name}: the prompt is empty; there is nothing to go on from")
    decoder = load_decoder(options.model, device=choose_device(options.device), put=QUANTIZE[options.quantize])
    adapter = load_adapter(decoder, options.adapter)
    if not 2 <= options.window <= decoder.max_tokens:
        raise UserError(f"--window {options.window}: give 2 to {positions_of(decoder)}")
    prompts = [prompt.cut(options.window) for prompt in prompts]
    result = next_tokens(decoder, tokenizer, adapter, prompts, top=options.top, seed=options.seed)
    result["settings"] = {name: str(value) for name, value in as_settings(options, without=("out",)).items()}
    write_json(options.out, result)
    picture = options.out.with_suffix(".svg")
    write_text(picture, next_token_picture(result["prompts"]))
    print(table(result), f"\nwritten to {options.out} and {picture}")


if __name__ == "__main__":
    sys.exit(run_command(main, needs_less_with="a smaller --window, --quantize nf4 or --device cpu"))
