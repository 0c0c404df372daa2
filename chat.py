"""Chat with a model, with its fine-tuned version, or with both.

    python chat.py --model Qwen/Qwen2.5-Coder-0.5B --adapter runs/sft/adapter
    python chat.py --model Qwen/Qwen2.5-Coder-0.5B --index index      # reads what search.py finds for a question
    echo "Explain nx.ancestors" | python chat.py --model smollm2-135m --adapter runs/sft/adapter --both

In a conversation:

    /base  /tuned  /both    choose who answers; /tuned is the first --adapter
    /use NAME               choose another adapter, given as --adapter NAME=DIR
    /search on  /search off answer with or without code that --index finds
    /reset  /help           forget the conversation; show these lines
    Ctrl-C  Ctrl-D          stop an answer; end the conversation

Each participant has its own history: its own answers, and the questions it was asked, without the code that was found
for them. An adapter uses the chat template that it was trained with, and so does a base model without a template.
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
from common.options import name_and_value, option, parse
from data.masking import encode_prompt
from data.search.context import Passage, passages_for, with_passages
from data.search.results import Search, open_search
from data.search.snippet import printable
from lora.adapter import Adapter, folded, use_adapter
from lora.adapter_file import load_adapter
from lora.adapter_tokenizer import load_trained_tokenizer
from lora.frozen_weight import QUANTIZE
from model import Sampling, Stop, generate, load_decoder, load_tokenizer
from model.decoder import Decoder
from model.device import choose_device, choose_dtype
from model.tokenizer import Tokenizer

SAMPLING, MODEL = "sampling", "how the model is loaded"  # headings of --help
COLUMNS_FROM = 100  # terminal width from which two answers are shown side by side
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
    index: Path | None = option(
        None, "answer with code that this index of search.py holds (default: without)", metavar="INDEX"
    )
    index_tokens: int = option(1024, "tokens of that code at most", least=1)
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
    quantize: str = option("none", "the base's linear layers in 8 or 4 bits", MODEL, choices=tuple(QUANTIZE))
    device: str = option("auto", "auto, cpu, cuda or cuda:N", MODEL)


@dataclass
class Speaker:
    """A chat participant: the base model or base + adapter, with its own history."""

    name: str
    adapter: Adapter | None
    tokenizer: Tokenizer
    messages: list[dict] = field(default_factory=list)


@dataclass
class Chat:
    """What all participants share."""

    decoder: Decoder
    sampling: Sampling
    max_new_tokens: int
    search: Search | None
    index_tokens: int
    searching: bool = True  # /search off

    def passages(self, question: str, tokenizer: Tokenizer) -> list[Passage]:
        """Code of the repository for a question, where there is an index."""
        if self.search is None or not self.searching:
            return []
        return passages_for(
            self.search, question, most_tokens=self.index_tokens, count_tokens=lambda text: len(tokenizer.encode(text))
        )


def main() -> None:
    """The command line: one answer to --prompt or to piped input, otherwise a conversation."""
    # the options, refused before anything is loaded
    options = parse(Options, description=__doc__)
    adapters = named_folders(options.adapter)
    if options.both and not adapters:
        raise UserError("--both compares the base model with an adapter; give --adapter, too")
    try:
        sampling = Sampling(
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            min_p=options.min_p,
            repetition_penalty=options.repetition_penalty,
            seed=options.seed,
        )
    except ValueError as error:
        raise UserError(f"sampling: {error}") from None

    # the chat templates: one that cannot render the conversation is refused now, not at the first question
    system = [{"role": "system", "content": options.system}] if options.system else []
    tokenizers = tokenizers_of(options.model, adapters, options.chat_template)
    for tokenizer in tokenizers.values():
        encode_prompt(tokenizer, [*system, {"role": "user", "content": "?"}])

    # one model in memory, with the adapters beside it
    search = open_search(options.index, device=options.device) if options.index else None
    device = choose_device(options.device)
    decoder = load_decoder(options.model, dtype=choose_dtype(device), device=device, put=QUANTIZE[options.quantize])
    chat = Chat(decoder, sampling, options.max_new_tokens, search, options.index_tokens)
    speakers = {"base": Speaker("base", None, tokenizers["base"], [*system])}
    for name, folder in adapters.items():
        speakers[name] = Speaker(name, load_adapter(decoder, folder), tokenizers[name], [*system])

    # who answers what
    tuned = next((speaker for speaker in speakers.values() if speaker.adapter), speakers["base"])
    answering = [speakers["base"], tuned] if options.both else [tuned]
    prompt = options.prompt if options.prompt is not None or sys.stdin.isatty() else sys.stdin.read()
    if prompt is None:
        converse(chat, speakers, answering, system)
    else:
        reply(chat, answering, prompt, width=0)


def named_folders(arguments: Sequence[str]) -> dict[str, Path]:
    """{name: folder} from [NAME=]DIR; the default name is "tuned" for the first, its path for any other."""
    folders: dict[str, Path] = {}
    for argument in arguments:
        name, folder = name_and_value(argument)
        name = name or ("tuned" if not folders else str(Path(folder)))
        if name in folders or name == "base":
            raise UserError(f"--adapter {argument}: the name {name} is taken; give it another: --adapter NAME=DIR")
        folders[name] = Path(folder)
    return folders


def tokenizers_of(model: str, adapters: dict[str, Path], chat_template: str | None) -> dict[str, Tokenizer]:
    """Each speaker's tokenizer, with the chat template that it was trained with.

    A base model without a template uses the first adapter's. The file `chat_template` replaces them all.
    """
    base = load_tokenizer(model, chat_template=chat_template)
    own = {
        name: load_trained_tokenizer(model, folder, chat_template=chat_template) for name, folder in adapters.items()
    }
    return {"base": next(iter(own.values()), base) if base.chat_template is None else base} | own


def converse(chat: Chat, speakers: dict[str, Speaker], answering: list[Speaker], system: list[dict]) -> None:
    """Questions and answers until Ctrl-D."""
    with contextlib.suppress(ImportError):  # not on Windows
        import readline  # noqa: F401 (input() then has a history and can be edited)
    print(f"{' and '.join(speaker.name for speaker in answering)} will answer. /help for commands, Ctrl-D to end.")
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
                answering = command(line, chat, speakers, answering, system)
            except UserError as error:
                print(error)
            continue
        try:
            reply(chat, answering, line, width=shutil.get_terminal_size().columns)
        except UserError as error:  # usually the conversation exceeds the model's positions
            print(f"{error}\n/reset starts a new conversation")
        except Exception as error:
            if not (lack := lack_of_memory(error)):
                raise
            print(f"{lack}; /reset starts a new conversation, and a shorter one takes less")


def command(
    line: str, chat: Chat, speakers: dict[str, Speaker], answering: list[Speaker], system: list[dict]
) -> list[Speaker]:
    """Execute a line that begins with "/"; returns who answers from now on. UserError for an unknown command."""
    word, _, name = line.partition(" ")
    adapters = [speaker for speaker in speakers.values() if speaker.adapter]
    if word == "/help":
        print(textwrap.dedent(HELP).strip())
        print(f"participants: {', '.join(speakers)}")
        return answering
    if word == "/reset":
        for speaker in speakers.values():
            speaker.messages[:] = system
        return answering
    if word == "/search" and name.strip() in ("on", "off"):
        if chat.search is None:
            raise UserError("/search: there is no index; start chat.py with --index INDEX")
        chat.searching = name.strip() == "on"
        return answering
    if word == "/base":
        return [speakers["base"]]
    if word in ("/tuned", "/both") and not adapters:
        raise UserError(f"{word}: there is no adapter; start chat.py with --adapter DIR")
    if word == "/tuned":
        return adapters[:1]
    if word == "/both":
        return [speakers["base"], next((speaker for speaker in answering if speaker.adapter), adapters[0])]
    if word == "/use" and name.strip() in speakers:
        return [speakers[name.strip()]]
    raise UserError(f"{line}: unknown; participants are {', '.join(speakers)}, /help lists the commands")


def reply(chat: Chat, answering: list[Speaker], question: str, *, width: int) -> None:
    """Print each speaker's answer: streamed in turn, or side by side if there are two and the terminal is wide.

    Above them, where the code is that they answer with.
    """
    passages = chat.passages(question, answering[0].tokenizer)
    for passage in passages:
        print(printable(f"read {passage.place}"), file=sys.stderr)
    if len(answering) == 2 and width >= COLUMNS_FROM:
        answers = [answer(chat, speaker, question, passages, stream=False) for speaker in answering]
        print(side_by_side(*answers, titles=[speaker.name for speaker in answering], width=width))
        return
    for speaker in answering:
        if len(answering) > 1:
            print(f"── {speaker.name} ──")
        answer(chat, speaker, question, passages, stream=True)


def answer(chat: Chat, speaker: Speaker, question: str, passages: list[Passage], *, stream: bool) -> str:
    """The speaker's answer; it and the question join the history. Ctrl-C ends the answer early."""
    ids: list[int] = []
    shown = ""

    def show(_prompt: int, _sample: int, token: int) -> None:
        nonlocal shown
        ids.append(token)
        text = speaker.tokenizer.decode(ids)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # wait for the remaining bytes of a character
            if stream:
                print(text[len(shown) :], end="", flush=True)
            shown = text

    # one model for all: this speaker's adapter is switched on, and folded in while it answers
    asked = [*speaker.messages, {"role": "user", "content": with_passages(question, passages)}]
    use_adapter(chat.decoder, speaker.adapter)
    try:
        with folded(chat.decoder):
            generate(
                chat.decoder,
                [encode_prompt(speaker.tokenizer, asked)],
                Stop(max_new_tokens=chat.max_new_tokens, ids=speaker.tokenizer.stop_ids),
                chat.sampling,
                unused_ids=speaker.tokenizer.unused_ids,
                what=speaker.name,
                on_token=show,
            )
    except KeyboardInterrupt:
        shown += " …"
        if stream:
            print(" …", end="")
    if stream:
        print()
    speaker.messages += [{"role": "user", "content": question}, {"role": "assistant", "content": shown}]
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
