"""What the three scripts say at the start of a run and leave at its end."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from common.files import read_json, write_json, write_text
from eval.change_table import table
from eval.compare import compare
from eval.environment import PACKAGES
from eval.forgetting import forgetting
from eval.report import write_report
from lora.adapter_file import adapter_tensors, save_adapter
from lora.inject import Adapter, lora_layers, trainable
from lora.nf4 import NF4Weight
from model import save_decoder
from model.decoder import Decoder
from model.tokenizer import Tokenizer
from model.weights import weights_sha256
from training.run import Run

HEADLINE = {"embed": ("mrr@10", "ndcg@10", "recall@10")}  # of the metrics in after.json; else all
WITHOUT_BEARING = {"model", "out", "resume", "device", "shard"}  # options that say where it happened, not what


def describe_model(name: str, network: nn.Module, dtype: torch.dtype) -> str:
    """Two lines: the model, and what of it learns."""
    quantised = sum(module.shape.numel() for module in network.modules() if isinstance(module, NF4Weight))
    total = quantised + sum(parameter.numel() for parameter in network.parameters())
    learning = sum(parameter.numel() for _, parameter in trainable(network))
    layers = lora_layers(network)
    adapted = sum(tensor.numel() for tensor in adapter_tensors(layers).values())
    what = describe_adapter(layers) if layers else "all weights"
    precision = str(dtype).removeprefix("torch.") + (f", {quantised / 1e6:.1f} M of them in NF4" if quantised else "")
    return (
        f"model    {name} · {(total - adapted) / 1e6:.1f} M parameters · {precision}\n"
        f"learns   {what} · {learning / 1e6:.2f} M trainable ({100 * learning / total:.1f} %)"
    )


def describe_adapter(layers: Adapter) -> str:
    """Which kind of adapter, how large, and on what."""
    first = next(iter(layers.values()))
    kind = ("rsLoRA" if first.rslora else "LoRA") + (" (DoRA)" if first.lora_magnitude_vector is not None else "")
    ranks, alphas = ({getattr(layer, key) for layer in layers.values()} for key in ("r", "alpha"))
    r, alpha = ("-".join(f"{n:g}" for n in sorted({min(values), max(values)})) for values in (ranks, alphas))
    names = " ".join(sorted({name.rpartition(".")[2] for name in layers}))
    return f"{kind} r={r} alpha={alpha} on {names}"


def save_trained(run: Run, decoder: Decoder, tokenizer: Tokenizer, base_model: str) -> None:
    """The adapter in PEFT's format, or, when all weights learnt, the model in Hugging Face's."""
    if lora_layers(decoder):
        save_adapter(decoder, run.folder / "adapter", base_model=base_model, task_type="CAUSAL_LM")
        if run.options.as_dict().get("chat_template", {}).get("value"):  # as trl and PEFT leave it
            write_text(run.folder / "adapter" / "chat_template.jinja", tokenizer.chat_template)
    else:
        save_decoder(decoder, tokenizer, run.folder / "model")


def copy_data_card(folder: Path, run: Run) -> None:
    """Keep the card of the data beside the run, when the data came with one."""
    if (folder / "data_card.md").is_file():
        write_text(run.folder / "data_card.md", (folder / "data_card.md").read_text(encoding="utf-8"))


def finish(run: Run, *, seconds: dict[str, float], data: dict) -> dict:
    """Compare before.json with after.json where there are such, write metrics.json and the report, print the table.

    data     what was learnt from: "path", "sha256", "rows" and what a row is, "unit"
    Returns  the track's part of metrics.json: "before", "after", "change"; empty for a run without held-out data.
             With probe_before.json and probe_after.json there, "probe" holds the same three of texts not of the corpus
    """
    track: dict = {}
    if (run.folder / "after.json").is_file():
        before, after = read_json(run.folder / "before.json"), read_json(run.folder / "after.json")
        shown = HEADLINE.get(run.track) or after["metrics"]
        changes = {metric: change for metric, change in compare(before, after).items() if metric in shown}
        sides = {"before": before, "after": after} | ({"bm25": after["bm25"]} if "bm25" in after else {})
        track = {name: {m: v for m, v in side["metrics"].items() if m in shown} for name, side in sides.items()}
        track["change"] = changes
        print(table(before, after, changes))
    if (run.folder / "probe_after.json").is_file():
        before, after = (read_json(run.folder / f"probe_{when}.json") for when in ("before", "after"))
        track["probe"] = forgetting(before, after)
        print(f"forgetting, on texts that are not of the corpus\n{table(before, after, track['probe']['change'])}")
    write_provenance(run, metrics=track, data=data)
    rounded = {name: round(value, 1) for name, value in seconds.items()}
    run.finish({"schema": 1, "seconds": rounded, "tracks": {run.track: track}})
    report = write_report(run.folder, title=f"tritune · {run.folder.name}")
    print(f"report   {report}")
    return track


def write_provenance(run: Run, *, metrics: dict, data: dict) -> None:
    """Leave `tritune.json` in the run's adapter/ and model/: where the weights come from, for whoever gets them alone.

    {"schema": 1,
     "base": the MODEL that the run started from, "track": "cpt" | "sft" | "embed",
     "settings": {option: value}, all but where the run happened,
     "metrics": {"before": {...}, "after": {...}, "change": {...}} as in metrics.json, {} without held-out data,
     "data": {"path", "sha256", "rows", "unit": what a row is},
     "versions": {package: version} with "source_sha256" of this project}
    A model that an adapter was merged into, here or by lora.merge, also has
     "merged": [{"adapter": its path, "sha256": of its weights}]}, and takes none of these a second time.
    """
    options = run.options.as_dict()
    ran_on = read_json(run.folder / "environment.json")
    value = {
        "schema": 1,
        "base": options["model"]["value"],
        "track": run.track,
        "settings": {name: entry["value"] for name, entry in options.items() if name not in WITHOUT_BEARING},
        "metrics": metrics,
        "data": data,
        "versions": {name: ran_on[name] for name in ("python", *PACKAGES, "source_sha256") if name in ran_on},
    }
    adapter, model = run.folder / "adapter", run.folder / "model"
    if adapter.is_dir():
        write_json(adapter / "tritune.json", value)
    if model.is_dir():
        merged = [{"adapter": str(adapter), "sha256": weights_sha256(adapter)}] if adapter.is_dir() else []
        write_json(model / "tritune.json", value | ({"merged": merged} if merged else {}))
