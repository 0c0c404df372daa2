"""Talk to a model, with or without an adapter.

python chat.py --model Qwen/Qwen2.5-Coder-0.5B --adapter runs/sft/adapter
echo "Explain nx.ancestors" | python chat.py --model smollm2-135m
"""

from __future__ import annotations

import argparse
import sys

from data.masking import encode_prompt
from lora.adapter_file import load_adapter
from model import generate, load_decoder, load_tokenizer
from model.console import run_command
from model.decoder import Decoder
from model.device import choose_device, choose_dtype
from model.tokenizer import Tokenizer


def main() -> None:
    """Command line: one answer to --prompt or to what comes through a pipe, else a conversation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder, .gguf file, hub id or embedded default (smollm2-135m)")
    parser.add_argument("--adapter", help="folder of a LoRA adapter (default: none)")
    parser.add_argument("--prompt", help="answer this and end (default: what is piped in, else a conversation)")
    parser.add_argument("--max-new-tokens", type=int, default=512, help="tokens of an answer (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: the likeliest token (default: %(default)s)")
    parser.add_argument("--top-p", type=float, default=0.95, help="nucleus when sampling (default: %(default)s)")
    parser.add_argument("--chat-template", help="a Jinja file instead of the model's own template")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="when sampling (default: %(default)s)")
    options = parser.parse_args()
    device = choose_device(options.device)
    tokenizer = load_tokenizer(options.model, chat_template=options.chat_template)
    decoder = load_decoder(options.model, dtype=choose_dtype(device), device=device)
    if options.adapter:
        load_adapter(decoder, options.adapter)
    prompt = options.prompt if options.prompt is not None or sys.stdin.isatty() else sys.stdin.read()
    if prompt is not None:
        answer(decoder, tokenizer, [{"role": "user", "content": prompt}], options)
        return
    messages: list[dict] = []
    print("Ctrl-D ends the conversation.")
    while True:
        try:
            messages.append({"role": "user", "content": input("> ")})
        except EOFError:
            return
        messages.append({"role": "assistant", "content": answer(decoder, tokenizer, messages, options)})


def answer(decoder: Decoder, tokenizer: Tokenizer, messages: list[dict], options: argparse.Namespace) -> str:
    """Stream the answer to the last message to stdout, and return it."""
    ids: list[int] = []
    shown = ""

    def show(_prompt: int, _sample: int, token: int) -> None:
        nonlocal shown
        ids.append(token)
        text = tokenizer.decode(ids)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # wait for the rest of a character
            print(text[len(shown) :], end="", flush=True)
            shown = text

    generate(
        decoder,
        [encode_prompt(tokenizer, messages)],
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        stop_ids=tokenizer.stop_ids,
        seed=options.seed,
        on_token=show,
    )
    print()
    return shown


if __name__ == "__main__":
    sys.exit(run_command(main))
