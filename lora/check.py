"""Where an adapter will load: in peft, in vLLM, through llama.cpp's converter. And why not, a reason a line.

    python -m lora.check ADAPTER [--model M] [--fold OUT] [--json]

Status 0 when all three compute what was trained, 1 when one of them does not. vLLM and llama.cpp read LoRA alone.
--fold writes the same adapter as a LoRA of one rank and one scale, which all three read: rsLoRA, and ranks and alphas
by layer, become it exactly.

What each of them does was read in its sources:
- peft 0.21: src/peft/tuners, lora and the folders of the other methods
- vLLM, revisions of 2025 and 2026: vllm/lora/peft_helper.py, lora_model.py and utils.py, vllm/config/lora.py. All know
  use_rslora. Only the newest know rank_pattern and alpha_pattern; the others multiply every layer by the one scale that
  r and lora_alpha make. The verdict is for all of them. Prompt tuning went with pull request 20588, in 0.10
- llama.cpp (as in llama-cpp-python 0.3.36): convert_lora_to_gguf.py, src/llama-adapter.h. The converter writes
  lora_alpha, the library multiplies by lora_alpha / rank, with each tensor's own rank; it does not know use_rslora
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from common.console import UserError, run_command
from common.files import read_json
from common.options import option, parse
from lora.adapter import linears
from lora.adapter_file import load_adapter, method_in, read_provenance, read_tensors, write_adapter
from lora.adapter_tokenizer import copy_tokenizer_files
from lora.bitfit import BIASES
from lora.bottleneck_file import BOTTLENECK
from lora.lora_file import CHANGES_BASE, INERT, LORA, READ, refuse_unsupported, whole
from lora.peft_format import PREFIX, is_set
from lora.targets import HEAD, pattern_value
from lora.virtual_file import PREFIX_TUNING, PROMPT_TUNING
from model import load_decoder, load_encoder

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what --max-lora-rank may be
VLLM_DEFAULT_RANK = 16
FOLD = "fold it: --fold OUT"
MERGE = "merge it: python -m lora.merge"


@dataclass(frozen=True)
class AdapterFacts:
    """What the three readers depend on."""

    config: dict
    tensors: dict[str, torch.Tensor]
    ranks: dict[str, int]  # by layer, from the tensors
    scales: dict[str, float]  # by layer: the factor of B A
    other: list[str]  # tensors other than lora_A and lora_B


@dataclass
class Verdict:
    """Whether a reader computes what was trained: yes if there is no reason against. Notes are for its user."""

    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this command."""

    adapter: Path = option(help="folder with adapter_config.json and adapter_model.safetensors", positional=True)
    model: str | None = option(None, "the base, to compare names and shapes with (default: no comparison)")
    fold: Path | None = option(None, "write the adapter to this folder with one rank and one scale", metavar="DIR")
    json: bool = option(False, "print one JSON object instead of text")


def main() -> None:
    """Command line."""
    options = parse(Options, description="\n\n".join((__doc__ or "").split("\n\n")[:3]))  # without what it was read in

    # the adapter or, with --fold, what is made of it
    folder = options.adapter
    if options.fold:
        if options.fold.exists():
            raise UserError(f"{options.fold}: exists already; give another --fold")
        write_adapter(options.fold, *fold(read_facts(folder)), read_provenance(folder))
        copy_tokenizer_files(folder, options.fold)
        folder = options.fold

    # a verdict for each reader, and a status for scripts
    verdicts = check(folder, options.model)
    if options.json:
        print(json.dumps({name: {"loads": not v.reasons} | asdict(v) for name, v in verdicts.items()}, indent=2))
    else:
        if options.fold:
            print(f"folded     {options.fold}")
        for name, verdict in verdicts.items():
            print(f"{name:<10} {'no' if verdict.reasons else 'yes'}")
            print("".join(f"           {line}\n" for line in verdict.reasons + verdict.notes), end="")
    if any(verdict.reasons for verdict in verdicts.values()):
        sys.exit(1)


def read_facts(folder: Path) -> AdapterFacts:
    """Read a LoRA adapter without its network. UserError if it is none, or not readable."""
    # not refuse_unsupported: settings that are not implemented here may be known there
    config = read_json(folder / "adapter_config.json")
    if config.get("peft_type") != "LORA":
        raise UserError(f"{folder}: adapter type {config.get('peft_type')!r}; only LORA has ranks to fold")
    tensors = read_tensors(folder)
    r, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(r, int) or not isinstance(alpha, int | float) or r <= 0:
        raise UserError(f"{folder}: adapter_config.json: r and lora_alpha must be numbers, found {r!r} and {alpha!r}")

    # rank and scale of each layer
    ends = (".lora_A.weight", ".lora_B.weight")
    ranks = {
        key.removeprefix(PREFIX).removesuffix(ends[0]): tensor.shape[0]
        for key, tensor in tensors.items()
        if key.endswith(ends[0])
    }
    power = 0.5 if config.get("use_rslora") else 1.0
    scales = {
        name: pattern_value(name, config.get("alpha_pattern") or {}, alpha)
        / pattern_value(name, config.get("rank_pattern") or {}, r) ** power
        for name in ranks
    }
    return AdapterFacts(config, tensors, ranks, scales, [key for key in tensors if not key.endswith(ends)])


def check(folder: Path, model: str | None = None) -> dict[str, Verdict]:
    """{"peft", "vLLM", "llama.cpp"} -> Verdict. `model`: the base to compare names and shapes with, if any."""
    config = read_json(folder / "adapter_config.json")
    method = method_in(config, folder)
    return check_lora(read_facts(folder), model) if method is LORA else check_relative(folder, config, model)


def check_relative(folder: Path, config: dict, model: str | None = None) -> dict[str, Verdict]:
    """The verdicts for an adapter of any other method, which only one library reads."""
    method = method_in(config, folder)
    read_tensors(folder, method.file)  # refused now if nobody could read them
    verdicts = {"peft": Verdict(), "vLLM": Verdict(), "llama.cpp": Verdict()}
    for name in ("vLLM", "llama.cpp"):
        why = method.module.unmergeable
        verdicts[name].reasons.append(f"only LoRA is read there; {f'and it cannot be merged: {why}' if why else MERGE}")
    if method is BOTTLENECK:
        theirs = "load_adapter(DIR, use_safetensors=True) of AdapterHub's library"
        verdicts["peft"].reasons.append(f"there is no bottleneck there; {theirs} reads it")
    if method is BIASES:
        verdicts["peft"].notes.append("needs peft 0.20 or newer")
    if method in (PREFIX_TUNING, PROMPT_TUNING):
        verdicts["peft"].notes.append("with transformers 5.24, peft 0.21's logits are right, but its generate() is not")
    if method is PROMPT_TUNING:
        verdicts["vLLM"].notes.append("versions before 0.10 read it (--enable-prompt-adapter)")

    # what nobody can load: settings, names or shapes that do not fit
    if model is not None:
        try:
            load_adapter(_empty_network(config, model), folder)
        except UserError as error:
            _add_to_all(verdicts, str(error))
    return verdicts


def check_lora(facts: AdapterFacts, model: str | None = None) -> dict[str, Verdict]:
    """The verdicts for a LoRA adapter."""
    # what each of them implements
    verdicts = {"peft": Verdict(), "vLLM": _vllm(facts), "llama.cpp": _llama_cpp(facts)}

    # what none of them can load: matrices that do not fit each other, or the model
    rank_of = facts.config.get("rank_pattern") or {}
    for name, rank in facts.ranks.items():
        expected = pattern_value(name, rank_of, facts.config["r"])
        b = facts.tensors.get(f"{PREFIX}{name}.lora_B.weight")
        if b is None or b.shape[1:] != (rank,) or expected != rank:
            problem = "lora_B is missing" if b is None else f"A {rank}, B {b.shape[1]}, adapter_config.json {expected}"
            _add_to_all(verdicts, f"{name}: the ranks disagree: {problem}")
    if model is not None:
        for problem in _misfits(facts, model, verdicts):
            _add_to_all(verdicts, problem)
    return verdicts


def fold(facts: AdapterFacts) -> tuple[dict, dict[str, torch.Tensor]]:
    """The same adapter as a plain LoRA: (adapter_config.json, tensors).

    One rank for all layers, the largest: smaller ones are padded with zeros. One scale for all layers: a common scale
    goes into lora_alpha and leaves A and B bit for bit (rsLoRA: alpha' = alpha · sqrt(r)); different scales go into B,
    in fp32. UserError for DoRA, whose row lengths no low-rank product can express, and for what load_adapter refuses.
    """
    if facts.config.get("use_dora"):
        raise UserError("DoRA cannot be folded into LoRA: it scales whole rows of the weights; merge it: lora.merge")
    refuse_unsupported(facts.config, "--fold")
    odd = facts.tensors.keys() ^ {f"{PREFIX}{name}.lora_{part}.weight" for name in facts.ranks for part in "AB"}
    if odd:
        raise UserError(f"{min(odd)} is not one of a pair of lora_A and lora_B; only pairs can be folded")

    # one rank and one scale
    rank, scales = max(facts.ranks.values()), set(facts.scales.values())
    common = scales.pop() if len(scales) == 1 else 1.0

    # B takes what its layer's scale differs by, both take zeros up to the rank
    tensors = {}
    for name, own in facts.ranks.items():
        a, b = (facts.tensors[f"{PREFIX}{name}.lora_{part}.weight"] for part in "AB")
        if facts.scales[name] != common:
            b = b.float() * (facts.scales[name] / common)
        tensors[f"{PREFIX}{name}.lora_A.weight"] = F.pad(a, (0, 0, 0, rank - own))  # [rank, in]
        tensors[f"{PREFIX}{name}.lora_B.weight"] = F.pad(b, (0, rank - own))  # [out, rank]
    plain = {"r": rank, "lora_alpha": whole(common * rank), "use_rslora": False}
    return facts.config | plain | {"rank_pattern": {}, "alpha_pattern": {}}, tensors


def _unknown(config: dict) -> list[str]:
    """Settings unknown to vLLM and llama.cpp, which would refuse them or silently compute something else."""
    own = {"modules_to_save", "bias", "use_dora"}
    reasons = [
        f"{key}={value!r} is not implemented there, or not in every version"
        for key, value in config.items()
        if key not in READ | INERT | own and is_set(value)
    ]
    init = str(config.get("init_lora_weights", True)).lower()
    if init.startswith(CHANGES_BASE):
        reasons.append(f"init_lora_weights={init!r} changed the base's weights too, which are not in the file")
    return reasons


def _vllm(facts: AdapterFacts) -> Verdict:
    verdict, config = Verdict(), facts.config
    if config.get("use_dora"):
        verdict.reasons.append(f"DoRA is not implemented there; {MERGE}")
    if config.get("modules_to_save"):
        verdict.reasons.append(f"modules_to_save={config['modules_to_save']} is refused; {MERGE}")
    if config.get("bias", "none") != "none":
        verdict.reasons.append(f"bias={config['bias']!r} is refused")
    verdict.reasons.extend(_unknown(config))
    if facts.other and not config.get("use_dora"):
        verdict.reasons.append(f"{facts.other[0]} is neither lora_A nor lora_B")

    # one scale for all layers, and a rank that it has kernels for
    one = config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
    wrong = [name for name, scale in facts.scales.items() if not math.isclose(scale, one)]
    if wrong:
        verdict.reasons.append(
            f"{len(wrong)} layers (first: {wrong[0]}) have their own scale, which all but the newest versions "
            f"silently ignore; {FOLD}"
        )
    largest = max(facts.ranks.values(), default=0)
    if largest > VLLM_RANKS[-1]:
        verdict.reasons.append(f"rank {largest} exceeds the largest possible, {VLLM_RANKS[-1]}")
    elif largest > VLLM_DEFAULT_RANK:
        verdict.notes.append(f"start it with --max-lora-rank {min(n for n in VLLM_RANKS if n >= largest)}")
    if config.get("task_type") == "FEATURE_EXTRACTION":
        verdict.notes.append(f"few encoders take adapters there; to be sure, {MERGE}")
    return verdict


def _llama_cpp(facts: AdapterFacts) -> Verdict:
    verdict, config = Verdict(), facts.config
    if config.get("use_dora"):
        verdict.reasons.append(f"DoRA's lora_magnitude_vector stops the converter; {MERGE}")
    elif facts.other:
        verdict.reasons.append(f"{facts.other[0]} is neither lora_A nor lora_B and stops the converter")
    verdict.reasons.extend(_unknown(config))

    # lora_alpha over each tensor's own rank
    wrong = [n for n, scale in facts.scales.items() if not math.isclose(scale, config["lora_alpha"] / facts.ranks[n])]
    if wrong:
        why = "rsLoRA's scale" if config.get("use_rslora") else "alpha by layer"
        verdict.reasons.append(f"{why} would silently be ignored in {len(wrong)} layers; {FOLD}")
    verdict.notes.append("give the converter --base FOLDER, a folder with the base's config.json")
    return verdict


def _misfits(facts: AdapterFacts, model: str, verdicts: dict[str, Verdict]) -> list[str]:
    """Parts of the adapter that do not fit the model, a line each; notes on a tied head go into the verdicts."""
    is_encoder = facts.config.get("task_type") == "FEATURE_EXTRACTION"
    network, problems = _empty_network(facts.config, model), []
    layers = linears(network)
    for name in facts.ranks:
        if is_encoder and name.startswith("pooler."):
            continue  # no effect on an embedding
        if name == HEAD and hasattr(network, HEAD):
            verdicts["vLLM"].notes.append("not every model there takes an adapter on its head; tritune takes none")
        elif name == HEAD and not is_encoder:
            verdicts["peft"].notes.append("do not merge it there: the head is tied, and the embedding would change too")
            verdicts["vLLM"].notes.append("the head is tied to the embedding: compare its answers with peft's")
            verdicts["llama.cpp"].reasons.append(
                "an adapter on a head that is tied to the embedding stops the converter"
            )
        elif name not in layers:
            problems.append(f"{name}: the model has no such layer")
        else:
            a, b = (facts.tensors.get(f"{PREFIX}{name}.lora_{part}.weight") for part in "AB")
            shape = [b.shape[0] if b is not None else 0, a.shape[1] if a is not None else 0]
            if shape != list(layers[name].weight.shape):
                problems.append(f"{name} is {list(layers[name].weight.shape)}, the adapter is for {shape}")
    return problems


def _empty_network(config: dict, model: str) -> nn.Module:
    """The network that the adapter is for, without memory for its weights."""
    return (load_encoder if config.get("task_type") == "FEATURE_EXTRACTION" else load_decoder)(model, device="meta")


def _add_to_all(verdicts: dict[str, Verdict], reason: str) -> None:
    for verdict in verdicts.values():
        verdict.reasons.append(reason)


if __name__ == "__main__":
    sys.exit(run_command(main))
