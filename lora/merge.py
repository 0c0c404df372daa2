"""Fold an adapter into its base model: one folder that needs no LoRA code to be used.

python -m lora.merge --model M --adapter A --out DIR
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lora.adapter_file import load_adapter
from lora.inject import remove
from model import load_decoder, load_tokenizer, save_decoder
from model.console import UserError, run_command
from model.device import DTYPES


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the base: folder, .gguf file, hub id or embedded default")
    parser.add_argument("--adapter", required=True, help="folder of a LoRA adapter")
    parser.add_argument("--out", required=True, type=Path, help="folder to write, in Hugging Face layout")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="of the written weights (default: %(default)s)")
    options = parser.parse_args()
    if options.out.exists():
        raise UserError(f"{options.out}: exists already; give another --out")
    decoder = load_decoder(options.model)  # fp32: the delta is added before the one cast
    load_adapter(decoder, options.adapter)
    remove(decoder, merge=True)
    save_decoder(decoder.to(DTYPES[options.dtype]), load_tokenizer(options.model), options.out)
    print(f"merged   {options.out}")


if __name__ == "__main__":
    sys.exit(run_command(main))
