"""Talk to a model, to what training made of it, or to both.

    python chat.py --model Qwen/Qwen2.5-Coder-0.5B --adapter runs/sft/adapter
    echo "Explain nx.ancestors" | python chat.py --model smollm2-135m --adapter runs/sft/adapter --both

In a conversation:

    /base  /tuned  /both    who answers from now on; /tuned is the first --adapter
    /use NAME               another adapter of several, given as --adapter NAME=DIR
    /reset  /help           forget what was said; these lines
    Ctrl-C  Ctrl-D          end an answer; end the conversation

Every voice remembers the questions that it was asked and its own answers, not those of another. An adapter is asked in
the chat template that it was trained with, and so is a base that has none of its own.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.console import UserError, lack_of_memory, run_command
from common.options import option, parse
from data.masking import encode_prompt
from lora.adapter_file import load_adapter
from lora.adapter_tokenizer import load_trained_tokenizer
from lora.frozen_weight import QUANTIZE
from lora.inject import Adapter, folded, use_adapter
from model import Sampling, Stop, generate, load_decoder, load_tokenizer
from model.decoder import Decoder
from model.device import choose_device, choose_dtype
from model.tokenizer import Tokenizer

SAMPLING, MODEL = "sampling", "how the model is loaded"  # headings of --help
COLUMNS_FROM = 100  # characters of a terminal that shows two answers side by side
HELP = __doc__[__doc__.index("    /base") :]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this command."""

    GROUPS = ("options", SAMPLING, MODEL)

    model: str = option(help="folder, .gguf file, hub id or embedded default (smollm2-135m)")
    adapter: tuple[str, ...] = option(
        (), "folder of an adapter; may be given several times; the first is called tuned", metavar="[NAME=]DIR",
        repeated=True,
    )  # fmt: skip
    both: bool = option(False, "let base and adapter both answer (default: the adapter alone)")
    prompt: str | None = option(
        None, "answer this and exit (default: standard input where it is piped in, else a conversation)", metavar="TEXT"
    )
    system: str | None = option(None, "system message (default: the template's own)", metavar="TEXT")
    max_new_tokens: int = option(512, "tokens of an answer at most", SAMPLING)
    temperature: float = option(0.0, "sampling temperature (0: always the most likely token)", SAMPLING)
    top_p: float = option(0.95, "nucleus: sample from the most likely tokens with this total probability", SAMPLING)
    top_k: int = option(0, "sample from the k most likely tokens (0: all)", SAMPLING)
    min_p: float = option(
        0.0, "sample from tokens with at least this share of the most likely token's probability", SAMPLING
    )
    repetition_penalty: float = option(1.0, "above 1: repeat less", SAMPLING)
    seed: int = option(0, "seed of the samples", SAMPLING)
    chat_template: str | None = option(
        None, "Jinja file (default: the template the adapter was trained with, else the model's own)", MODEL,
        metavar="FILE",
    )  # fmt: skip
    quantize: str = option("none", "format of the base's linear layers; nf4: 4 bits", MODEL, choices=tuple(QUANTIZE))
    device: str = option("auto", "auto, cpu, cuda or cuda:N", MODEL)


@dataclass
class Voice:
    """One who answers: the base, or the base with an adapter, and its conversation."""

    name: str
    adapter: Adapter | None
    tokenizer: Tokenizer
    messages: list[dict] = field(default_factory=list)


@dataclass(frozen=True)
class Chat:
    """What all voices share."""

    decoder: Decoder
    sampling: Sampling
    max_new_tokens: int


def main() -> None:
    """Command line: one answer to --prompt or to what comes through a pipe, else a conversation."""
    options = parse(Options, description=__doc__)
    adapters = named_folders(options.adapter)
    if options.both and not adapters:
        raise UserError("--both needs an --adapter to compare the base with")
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
        encode_prompt(tokenizer, [*system, {"role": "user", "content": "?"}])  # refuse now, not at the first question
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


def named_folders(arguments: Sequence[str]) -> dict[str, Path]:
    """{name: folder} of [NAME=]DIR; without a name the first is "tuned", another is called after its folder."""
    folders: dict[str, Path] = {}
    for argument in arguments:
        name, _, folder = ("", "", argument) if Path(argument).is_dir() else argument.rpartition("=")
        name = name or ("tuned" if not folders else str(Path(folder)))
        if name in folders or name == "base":
            raise UserError(f"--adapter {argument}: there is a voice called {name} already; give it another name")
        folders[name] = Path(folder)
    return folders


def tokenizers_of(model: str, adapters: dict[str, Path], chat_template: str | None) -> dict[str, Tokenizer]:
    """Each voice's tokenizer, with the template that it was trained with; a base without one takes the first adapter's.

    chat_template  a file that replaces them all
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
    print(f"{' and '.join(voice.name for voice in speaking)} will answer. /help says more, Ctrl-D ends.")
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
        except UserError as error:  # most often: the conversation has become longer than the model's positions
            print(f"{error}\n/reset starts anew")
        except Exception as error:
            if not (lack := lack_of_memory(error)):
                raise
            print(f"{lack}; /reset starts anew, and a short conversation takes less")


def command(line: str, voices: dict[str, Voice], speaking: list[Voice], system: list[dict]) -> list[Voice]:
    """Do what a line beginning with "/" says; returns who answers from now on. UserError for one that is not known."""
    word, _, name = line.partition(" ")
    adapters = [voice for voice in voices.values() if voice.adapter]
    if word == "/help":
        print(textwrap.dedent(HELP).strip())
        print(f"voices: {', '.join(voices)}")
        return speaking
    if word == "/reset":
        for voice in voices.values():
            voice.messages[:] = system
        return speaking
    if word == "/base":
        return [voices["base"]]
    if word in ("/tuned", "/both") and not adapters:
        raise UserError(f"{word}: there is no adapter; start with --adapter DIR")
    if word == "/tuned":
        return adapters[:1]
    if word == "/both":
        return [voices["base"], next((voice for voice in speaking if voice.adapter), adapters[0])]
    if word == "/use" and name.strip() in voices:
        return [voices[name.strip()]]
    raise UserError(f"{line}: not known; voices are {', '.join(voices)}, and /help says more")


def reply(chat: Chat, speaking: list[Voice], question: str, *, width: int) -> None:
    """Let each voice answer: streamed, one after the other, or two side by side where the terminal is wide enough."""
    if len(speaking) == 2 and width >= COLUMNS_FROM:
        answers = [answer(chat, voice, question, stream=False) for voice in speaking]
        print(side_by_side(*answers, titles=[voice.name for voice in speaking], width=width))
        return
    for voice in speaking:
        if len(speaking) > 1:
            print(f"── {voice.name} ──")
        answer(chat, voice, question, stream=True)


def answer(chat: Chat, voice: Voice, question: str, *, stream: bool) -> str:
    """The voice's answer, which it remembers, and the question. Ctrl-C ends it early; what was said stays said."""
    ids: list[int] = []
    shown = ""

    def show(_prompt: int, _sample: int, token: int) -> None:
        nonlocal shown
        ids.append(token)
        text = voice.tokenizer.decode(ids)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # wait for the rest of a character
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
    """Two texts in two columns of a screen, `width` characters wide together."""
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
