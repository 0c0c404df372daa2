"""The command `python -m model.export`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from common.console import run_command
from model.device import DTYPES
from model.export.convert import export
from model.export.gguf import TYPES


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "model", metavar="DIR", help="folder in Hugging Face layout (or .gguf file, hub id, embedded default)"
    )
    parser.add_argument("--to", required=True, choices=("hf", "gguf", "sentence-transformers"), help="what to write")
    parser.add_argument("--out", required=True, type=Path, help="folder to write; with --to gguf a file F.gguf")
    parser.add_argument(
        "--type", choices=TYPES, default="q8_0", help="--to gguf: of the matrices (default: %(default)s)"
    )
    parser.add_argument(
        "--dtype",
        choices=("auto", *DTYPES),
        default="auto",
        help="of a folder's weights; auto: as DIR's (default: auto)",
    )
    options = parser.parse_args()
    report = export(options.model, options.to, options.out, type=options.type, dtype=options.dtype)
    for note in report["notes"]:
        print(f"note     {note}")
    print("compared " + " · ".join(f"{k.replace('_', ' ')} {v:.4g}" for k, v in report["comparison"].items()))
    print(f"wrote    {options.out} · {report['type']}")


if __name__ == "__main__":
    sys.exit(run_command(main))
