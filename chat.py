"""Chat with a model, with its fine-tuned version, or with both.

    python chat.py --model Qwen/Qwen2.5-Coder-0.5B --adapter runs/sft/adapter
    echo "Explain nx.ancestors" | python chat.py --model smollm2-135m --adapter runs/sft/adapter --both

In a conversation:

    /base  /tuned  /both    choose who answers; /tuned is the first --adapter
    /use NAME               choose another adapter, given as --adapter NAME=DIR
    /reset  /help           forget the conversation; show these lines
    Ctrl-C  Ctrl-D          stop an answer; end the conversation

Each participant has its own history: the questions it was asked and its own answers. An adapter uses the chat template
that it was trained with, and so does a base model without a template.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

from common.console import UserError, lack_of_memory, run_command
from data.masking import encode_prompt
from lora.adapter_file import load_adapter
from lora.adapter_tokenizer import load_trained_tokenizer
from lora.frozen_weight import QUANTIZE
from lora.inject import Adapter, folded, use_adapter
from model import Sampling, Stop, generate, load_decoder, load_tokenizer
from model.decoder import Decoder
from model.device import choose_device, choose_dtype
from model.tokenizer import Tokenizer

COLUMNS_FROM = 100  # terminal width from which two answers are shown side by side
HELP = __doc__[__doc__.index("    /base") :]


@dataclass
class Voice:
    """A chat participant: the base model or base + adapter, with its own history."""

    name: str
    adapter: Adapter | None
    tokenizer: Tokenizer
    messages: list[dict] = field(default_factory=list)


@dataclass(frozen=True)
class Chat:
    """What all participants share."""

    decoder: Decoder
    sampling: Sampling
    max_new_tokens: int


def main() -> None:
    """The command line: one answer to --prompt or to piped input, otherwise a conversation."""
    options = parse()
    adapters = named_folders(options.adapter)
    if options.both and not adapters:
        raise UserError("--both compares the base model with an adapter; give --adapter, too")
    try:
        sampling = Sampling(
            options.temperature,
            options.top_k,
            options.top_p,
            options.min_p,
            options.repetition_penalty,
            seed=options.seed,
        )
    except ValueError as error:
        raise UserError(f"sampling: {error}") from None
    system = [{"role": "system", "content": options.system}] if options.system else []
    tokenizers = tokenizers_of(options.model, adapters, options.chat_template)
    for tokenizer in tokenizers.values():
        encode_prompt(tokenizer, [*system, {"role": "user", "content": "?"}])  # fail now, not at the first question
    device = choose_device(options.device)
    decoder = load_decoder(options.model, dtype=choose_dtype(device), device=device, put=QUANTIZE[options.quantize])
    chat = Chat(decoder, sampling, options.max_new_tokens)
    voices = {"base": Voice("base", None, tokenizers["base"], [*system])}
    for name, folder in adapters.items():
        voices[name] = Voice(name, load_adapter(decoder, folder), tokenizers[name], [*system])
    tuned = next((voice for voice in voices.values() if voice.adapter), voices["base"])
    speaking = [voices["base"], tuned] if options.both else [tuned]
    prompt = options.prompt if options.prompt is not None or sys.stdin.isatty() else sys.stdin.read()
    if prompt is None:
        converse(chat, voices, speaking, system)
    else:
        reply(chat, speaking, prompt, width=0)


def parse() -> argparse.Namespace:
    """The options, as given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder, .gguf file, hub id or embedded default (smollm2-135m)")
    parser.add_argument(
        "--adapter", action="append", default=[], metavar="[NAME=]DIR",
        help="folder of an adapter; may be given several times; the first is called tuned (default: none)",
    )  # fmt: skip
    parser.add_argument("--both", action="store_true", help="base and adapter both answer (default: the adapter)")
    parser.add_argument("--prompt", help="answer this and end (default: what is piped in, else a conversation)")
    parser.add_argument("--system", metavar="TEXT", help="the system message (default: the template's own)")
    parser.add_argument("--max-new-tokens", type=int, default=512, help="tokens of an answer (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: the likeliest token (default: %(default)s)")
    parser.add_argument(
        "--top-k", type=int, default=0, help="sample from the k likeliest; 0: all (default: %(default)s)"
    )
    parser.add_argument("--top-p", type=float, default=0.95, help="nucleus when sampling (default: %(default)s)")
    parser.add_argument(
        "--min-p", type=float, default=0.0,
        help="sample from tokens at least this many times as probable as the likeliest (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--repetition-penalty", type=float, default=1.0, help="above 1: repeat less (default: %(default)s)"
    )
    parser.add_argument(
        "--chat-template", help="a Jinja file (default: what the adapter was trained with, else the model's own)"
    )
    parser.add_argument("--quantize", choices=QUANTIZE, default="none", help="base in 4 bits (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="when sampling (default: %(default)s)")
    return parser.parse_args()


def named_folders(arguments: list[str]) -> dict[str, Path]:
    """{name: folder} from [NAME=]DIR; the default name is "tuned" for the first, its path for any other."""
    folders: dict[str, Path] = {}
    for argument in arguments:
        name, _, folder = ("", "", argument) if Path(argument).is_dir() else argument.rpartition("=")
        name = name or ("tuned" if not folders else str(Path(folder)))
        if name in folders or name == "base":
            raise UserError(f"--adapter {argument}: the name {name} is taken; give it another: --adapter NAME=DIR")
        folders[name] = Path(folder)
    return folders


def tokenizers_of(model: str, adapters: dict[str, Path], chat_template: str | None) -> dict[str, Tokenizer]:
    """Each participant's tokenizer, with the chat template that it was trained with.

    A base model without a template uses the first adapter's. The file `chat_template` replaces them all.
    """
    base = load_tokenizer(model, chat_template=chat_template)
    own = {
        name: load_trained_tokenizer(model, folder, chat_template=chat_template) for name, folder in adapters.items()
    }
    return {"base": next(iter(own.values()), base) if base.chat_template is None else base} | own


def converse(chat: Chat, voices: dict[str, Voice], speaking: list[Voice], system: list[dict]) -> None:
    """Questions and answers until Ctrl-D."""
    with contextlib.suppress(ImportError):  # not on Windows
        import readline  # noqa: F401 (input() then has a history and can be edited)
    print(f"{' and '.join(voice.name for voice in speaking)} will answer. /help for commands, Ctrl-D to end.")
    while True:
        try:
            line = input("> ").strip()
        except KeyboardInterrupt:
            print()
            continue
        except EOFError:
            print()
            return
        if not line:
            continue
        if line.startswith("/"):
            try:
                speaking = command(line, voices, speaking, system)
            except UserError as error:
                print(error)
            continue
        try:
            reply(chat, speaking, line, width=shutil.get_terminal_size().columns)
        except UserError as error:  # usually the conversation exceeds the model's positions
            print(f"{error}\n/reset starts a new conversation")
        except Exception as error:
            if not (lack := lack_of_memory(error)):
                raise
            print(f"{lack}; /reset starts a new conversation, and a shorter one takes less")


def command(line: str, voices: dict[str, Voice], speaking: list[Voice], system: list[dict]) -> list[Voice]:
    """Execute a line that begins with "/"; returns who answers from now on. UserError for an unknown command."""
    word, _, name = line.partition(" ")
    adapters = [voice for voice in voices.values() if voice.adapter]
    if word == "/help":
        print(textwrap.dedent(HELP).strip())
        print(f"participants: {', '.join(voices)}")
        return speaking
    if word == "/reset":
        for voice in voices.values():
            voice.messages[:] = system
        return speaking
    if word == "/base":
        return [voices["base"]]
    if word in ("/tuned", "/both") and not adapters:
        raise UserError(f"{word}: there is no adapter; start chat.py with --adapter DIR")
    if word == "/tuned":
        return adapters[:1]
    if word == "/both":
        return [voices["base"], next((voice for voice in speaking if voice.adapter), adapters[0])]
    if word == "/use" and name.strip() in voices:
        return [voices[name.strip()]]
    raise UserError(f"{line}: unknown; participants are {', '.join(voices)}, /help lists the commands")


def reply(chat: Chat, speaking: list[Voice], question: str, *, width: int) -> None:
    """Print each participant's answer: streamed in turn, or side by side if there are two and the terminal is wide."""
    if len(speaking) == 2 and width >= COLUMNS_FROM:
        answers = [answer(chat, voice, question, stream=False) for voice in speaking]
        print(side_by_side(*answers, titles=[voice.name for voice in speaking], width=width))
        return
    for voice in speaking:
        if len(speaking) > 1:
            print(f"── {voice.name} ──")
        answer(chat, voice, question, stream=True)


def answer(chat: Chat, voice: Voice, question: str, *, stream: bool) -> str:
    """The participant's answer; it and the question join the history. Ctrl-C ends the answer early."""
    ids: list[int] = []
    shown = ""

    def show(_prompt: int, _sample: int, token: int) -> None:
        nonlocal shown
        ids.append(token)
        text = voice.tokenizer.decode(ids)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # wait for the remaining bytes of a character
            if stream:
                print(text[len(shown) :], end="", flush=True)
            shown = text

    messages = [*voice.messages, {"role": "user", "content": question}]
    use_adapter(chat.decoder, voice.adapter)
    try:
        with folded(chat.decoder):
            generate(
                chat.decoder,
                [encode_prompt(voice.tokenizer, messages)],
                Stop(max_new_tokens=chat.max_new_tokens, ids=voice.tokenizer.stop_ids),
                chat.sampling,
                unused_ids=voice.tokenizer.unused_ids,
                what=voice.name,
                on_token=show,
            )
    except KeyboardInterrupt:
        shown += " …"
        if stream:
            print(" …", end="")
    if stream:
        print()
    voice.messages[:] = [*messages, {"role": "assistant", "content": shown}]
    return shown


def side_by_side(left: str, right: str, *, titles: list[str], width: int) -> str:
    """Two texts in two columns, together `width` characters wide."""
    column = (width - 3) // 2

    def lines(text: str) -> list[str]:
        wrapped = (textwrap.wrap(line.expandtabs(4), column, drop_whitespace=False) for line in text.splitlines())
        return [part for parts in wrapped for part in parts or [""]]

    rows = [(f"── {titles[0]} ──", f"── {titles[1]} ──")]
    one, two = lines(left), lines(right)
    height = max(len(one), len(two))
    rows += zip(one + [""] * (height - len(one)), two + [""] * (height - len(two)), strict=True)
    return "\n".join(f"{a:<{column}} │ {b}".rstrip() for a, b in rows)


if __name__ == "__main__":
    less = "--quantize nf4, fewer --max-new-tokens, a shorter prompt or --device cpu"
    sys.exit(run_command(main, needs_less_with=less))
