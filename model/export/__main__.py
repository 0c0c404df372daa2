"""Write a model in another format, read it back and compare it with the original.

    python -m model.export DIR --to gguf --type q8_0 --out out/model-q8_0.gguf

The comparison (export_report.json) and a model card (README.md) are written beside the model.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from common.console import run_command
from common.options import option, parse
from model.device import DTYPES
from model.export.convert import export
from model.export.gguf import TYPES


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this command."""

    model: str = option(
        help="folder in Hugging Face layout (or .gguf file, hub id, embedded default)", positional=True, metavar="DIR"
    )
    to: str = option(help="format to write", choices=("hf", "gguf", "sentence-transformers"))
    out: Path = option(help="folder to write; with --to gguf a file", metavar="PATH")
    type: str = option("q8_0", "with --to gguf: type of the matrices", choices=TYPES)
    dtype: str = option(
        "auto", "with --to hf and sentence-transformers: dtype of the weights; auto: as in DIR",
        choices=("auto", *DTYPES),
    )  # fmt: skip
    chat_template: str | None = option(
        None, "with --to hf and gguf: Jinja file to write (default: the model's own template)", metavar="FILE"
    )


def main() -> None:
    """Command line."""
    options = parse(Options, description=__doc__)
    report = export(
        options.model, options.to, options.out, type=options.type, dtype=options.dtype,
        chat_template=options.chat_template,
    )  # fmt: skip
    for note in report["notes"]:
        print(f"note     {note}")
    print("compared " + " · ".join(f"{k.replace('_', ' ')} {v:.4g}" for k, v in report["comparison"].items()))
    print(f"wrote    {options.out} · {report['type']}")


if __name__ == "__main__":
    sys.exit(run_command(main))
