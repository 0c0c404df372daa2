"""The end of a run: save what was trained, compare before with after, write metrics, provenance and the report."""

from __future__ import annotations

from pathlib import Path

from common.files import read_json, write_json, write_text
from eval.change_table import number, table
from eval.compare import compare
from eval.environment import PACKAGES
from eval.forgetting import forgetting
from eval.instruct.published import PUBLISHED
from eval.report import write_report
from eval.text.baselines import changes_over
from eval.text.table import baseline_lines
from lora.adapter import adapter_in_use, remove
from lora.adapter_file import save_adapter
from model import save_decoder, save_encoder
from model.decoder import Decoder
from model.encoder import Encoder
from model.tokenizer import Tokenizer
from model.weights import weights_sha256
from training.cost import cost_line, cost_of
from training.run import Run

HEADLINE = {"embed": ("mrr@10", "ndcg@10", "recall@10")}  # metrics to report, by track; all of them for the others
NOT_SETTINGS = {"model", "out", "resume", "device", "shard"}  # they say where a run took place, not what it did


def save_trained(run: Run, decoder: Decoder, tokenizer: Tokenizer, base_model: str) -> None:
    """adapter/ in PEFT's format, or with --method full model/ in Hugging Face's."""
    if adapter_in_use(decoder):
        save_adapter(decoder, run.folder / "adapter", base_model=base_model, task_type="CAUSAL_LM")
        # the template of --chat-template goes with it: later commands must render as training did
        is_given = run.options.as_dict().get("chat_template", {}).get("value")
        if is_given and tokenizer.chat_template:  # where trl and PEFT write it, too
            write_text(run.folder / "adapter" / "chat_template.jinja", tokenizer.chat_template)
    else:
        save_decoder(decoder, tokenizer, run.folder / "model")


def save_trained_encoder(run: Run, encoder: Encoder) -> None:
    """model/ in sentence-transformers' layout, with an adapter merged in; the adapter itself in PEFT's format.

    Afterwards the encoder is the saved model, and identifies itself as such when an index records its model.
    """
    if adapter_in_use(encoder):
        # the adapter before it is merged: merging removes it
        base_model = run.options.values.model
        save_adapter(encoder, run.folder / "adapter", base_model=base_model, task_type="FEATURE_EXTRACTION")
        remove(encoder, merge=True)
    save_encoder(encoder, run.folder / "model")
    encoder.source = str(run.folder / "model")
    encoder.weights_sha256 = weights_sha256(run.folder / "model")


def copy_data_card(folder: Path, run: Run) -> None:
    """Copy the data card into the run's folder, if the data has one."""
    if (folder / "data_card.md").is_file():
        write_text(run.folder / "data_card.md", (folder / "data_card.md").read_text(encoding="utf-8"))


def finish(run: Run, *, seconds: dict[str, float], data: dict, trainable: int) -> dict:
    """Compare before.json with after.json if they exist, print the table, write metrics.json and the report.

    seconds    by stage
    data       what was trained on: "path", "sha256", "rows" and what a row is, "unit"
    trainable  number of trainable parameters
    Returns    the track's part of metrics.json: "cost" (training/cost.py) and, with held-out data, "before", "after",
               "change" and, if there are any, "baselines" of text tasks. "probe" has the first three for the texts
               that forgetting is measured on, if there are any
    """
    # what it cost; held-out data before and after: the metrics of both, the paired changes
    track: dict = {}
    if (run.folder / "after.json").is_file():
        before, after = read_json(run.folder / "before.json"), read_json(run.folder / "after.json")
        shown = HEADLINE.get(run.track) or [name for name in after["metrics"] if not name.startswith(PUBLISHED)]
        changes = {metric: change for metric, change in compare(before, after).items() if metric in shown}
        sides = {"before": before, "after": after} | ({"bm25": after["bm25"]} if "bm25" in after else {})
        track = {name: {m: v for m, v in side["metrics"].items() if m in shown} for name, side in sides.items()}
        track["change"] = changes
        print(table(before, after, changes))
        track |= _beside_baselines(before, after)

    # texts that forgetting is measured on
    if (run.folder / "probe_after.json").is_file():
        before, after = (read_json(run.folder / f"probe_{when}.json") for when in ("before", "after"))
        track["probe"] = forgetting(before, after)
        print(f"forgetting, on texts outside the corpus\n{table(before, after, track['probe']['change'])}")

    # metrics.json marks the run as complete; the report is drawn from it
    track["cost"] = cost_of(run.folder, trainable)
    print(f"cost     {cost_line(track['cost'])}")
    write_provenance(run, metrics=track, data=data)
    rounded = {name: round(value, 1) for name, value in seconds.items()}
    run.finish({"schema": 1, "seconds": rounded, "tracks": {run.track: track}})
    report = write_report(run.folder, title=f"tritune · {run.folder.name}")
    print(f"report   {report}")
    return track


def _beside_baselines(before: dict, after: dict) -> dict:
    """Of text tasks: the baselines, and how far the trained model is from each; prints a line for each figure."""
    baselines = before.get("baselines")
    if not baselines:
        return {}
    for metric in after["metrics"].keys() - after["values"].keys():  # of all tasks together: nothing to pair
        print(f"{metric}  {number(before['metrics'][metric])} → {number(after['metrics'][metric])}")
    print("\n".join(baseline_lines(after, baselines)))
    return {
        "baselines": {
            name: {"metrics": one["metrics"], "change": changes_over(one, after)} for name, one in baselines.items()
        }
    }


def write_provenance(run: Run, *, metrics: dict, data: dict) -> None:
    """Write `tritune.json` into the run's adapter/ and model/: provenance that travels with the weights.

    {"schema": 1,
     "base": the MODEL that was fine-tuned, "track": "cpt" | "sft" | "embed",
     "settings": {option: value}, all but those that say where the run took place,
     "metrics": {"before": {...}, "after": {...}, "change": {...}} as in metrics.json, {} without held-out data,
     "data": {"path", "sha256", "rows", "unit": what a row is},
     "versions": {package: version} with "source_sha256" of this project}
    A model with merged adapters (here, or by lora.merge) also has
     "merged": [{"adapter": its path, "sha256": of its weights}]}; lora.merge refuses to merge one of these again.
    """
    # what the run records, without where it took place
    options = run.options.as_dict()
    ran_on = read_json(run.folder / "environment.json")
    value = {
        "schema": 1,
        "base": options["model"]["value"],
        "track": run.track,
        "settings": {name: entry["value"] for name, entry in options.items() if name not in NOT_SETTINGS},
        "metrics": metrics,
        "data": data,
        "versions": {name: ran_on[name] for name in ("python", *PACKAGES, "source_sha256") if name in ran_on},
    }

    # beside the weights; a merged model also names its adapter
    adapter, model = run.folder / "adapter", run.folder / "model"
    if adapter.is_dir():
        write_json(adapter / "tritune.json", value)
    if model.is_dir():
        merged = [{"adapter": str(adapter), "sha256": weights_sha256(adapter)}] if adapter.is_dir() else []
        write_json(model / "tritune.json", value | ({"merged": merged} if merged else {}))
