"""What --resume requires: the options and the inputs that the run was started with."""

from __future__ import annotations

import hashlib
from pathlib import Path

from common.console import UserError
from common.options import Resolved
from model.weights import model_sha256
from training import parallel

FILES = ("chat_template", "validation", "test", "candidates", "probe", "pool")  # options that name an input file
FITTED = ("micro_batch", "checkpointing")  # chosen by --fit (training/fit.py)
MEASURED = ("--fit", "--sweep")  # where a value is from that the run found itself: a resumed one takes it over
# Options that a resumed run may change. The last ones trade time for memory, for a run that ran out of it.
FREE = {"resume", "out", "device", "shard", "max_minutes", "log_to", "dry_run", "fit", "chunk_tokens", *FITTED}


def refuse_other_options(folder: Path, options: Resolved, saved: dict) -> None:
    """UserError when an option that must not change differs from config.json's `saved` options."""
    saved = _with_method(saved)
    for name, entry in options.as_dict().items():
        # an option that an earlier version did not have: the run had its default
        before = saved.get(name, entry if entry["from"] == "default" else {})
        if name in FREE or before.get("from") in MEASURED or before.get("value") == entry["value"]:
            continue
        raise UserError(
            f"{folder}: cannot resume with --{name.replace('_', '-')} {entry['value']}; the run was started with "
            f"{before.get('value')}"
        )


def _with_method(saved: dict) -> dict:
    """The options of a run of an earlier version, whose method was --full or --lora, the switch for the other one."""
    if "full" in saved:
        return {"method": {"value": "full" if saved["full"]["value"] else "lora"}} | saved
    if "lora" in saved:
        return {"method": {"value": "lora" if saved["lora"]["value"] else "full"}} | saved
    return saved


def refuse_other_inputs(
    folder: Path, options: Resolved, recorded: dict[str, str], *, data: dict[str, str], inputs: dict[str, str]
) -> None:
    """UserError when the data, the model or another input file has changed since the run was started.

    recorded  environment.json of the run
    data      hashes of the training data: the position in it is only a step number, so it must be the same data
    inputs    `input_hashes`
    """
    # the data
    changed = [name for name, value in data.items() if recorded.get(name) != value]
    if changed:
        raise UserError(f"{folder}: cannot resume, the training data has changed ({changed[0]}); give another --out")

    # the model and the other files
    for name, value in inputs.items():
        if recorded.get(name, value) != value:  # runs of earlier versions recorded no hash
            option = name.removesuffix("_sha256")
            flag = f"--{option.replace('_', '-')} {getattr(options.values, option)}"
            raise UserError(
                f"{folder}: cannot resume, {flag} has changed since the run was started ({name}); restore it, or give "
                "another --out"
            )


def input_hashes(options: Resolved) -> dict[str, str]:
    """{OPTION_sha256: hash} of the model and of the input files other than the training data."""
    given = {name: entry["value"] for name, entry in options.as_dict().items()}
    hashes = {}
    # the model may be many GB: rank 0 alone hashes it
    if given.get("model"):
        own = model_sha256(given["model"]) if parallel.rank() == 0 else ""
        hashes["model_sha256"] = parallel.of_every_rank(own)[0]
    for name in FILES:
        if given.get(name) and Path(given[name]).is_file():
            hashes[f"{name}_sha256"] = hashlib.sha256(Path(given[name]).read_bytes()).hexdigest()
    return hashes
