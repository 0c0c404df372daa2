"""What an adapter does to the next-token distribution: base and tuned side by side, position by position.

    python -m eval.next_token --model M --adapter A --prompt TEXT --out F.json
    python -m eval.next_token --model M --adapter A --seen-prompt TEXT --unseen-prompt TEXT --out F.json
    python -m eval.next_token --model M --adapter A --seen rows.jsonl --unseen test.jsonl --language python --out F.json

At one position of each prompt: the most likely tokens of both, each with its rank in the other. At every position:
KL(tuned ‖ base), both entropies and both losses in nats, and the rank of the token that follows. A KL that is large on
training texts and small elsewhere indicates memorisation; one that is large on both, a change of the language model as
a whole. Prompts of the command line are continued in full by both. With --language, how much of the distribution is
code of that language. F.svg, a chart of the same, is written beside F.json.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from common.console import UserError, need, progress, run_command
from common.files import write_json, write_text
from common.options import as_settings, option, parse
from data.corpus.languages import packages_of
from eval.environment import environment
from eval.next_token.continuations import continuations
from eval.next_token.distributions import compare_prompt
from eval.next_token.language import WORDS
from eval.next_token.picture import next_token_picture
from eval.next_token.prompts import Prompt, asked_prompt, read_prompts
from eval.next_token.summary import summarise
from eval.next_token.table import shown, table
from lora.adapter import Adapter
from lora.adapter_file import load_adapter
from lora.adapter_tokenizer import load_trained_tokenizer
from lora.frozen_weight import QUANTIZE
from model import load_decoder
from model.decoder import Decoder
from model.device import choose_device
from model.generate import positions_of
from model.tokenizer import Tokenizer

PROMPTS, CONTINUED, LANGUAGE = "what to continue", "continuations", "the language of tokens"  # headings of --help


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this command."""

    GROUPS = ("required", PROMPTS, CONTINUED, LANGUAGE, "options")

    model: str = option(help="folder, .gguf file, hub id or embedded default")
    adapter: str = option(help="folder of an adapter, called tuned in the result", metavar="DIR")
    out: Path = option(help="result, JSON; a picture (.svg) is written beside it", metavar="FILE")
    prompt: tuple[str, ...] = option(
        (), "instructions, rendered by the chat template if there is one", PROMPTS, metavar="TEXT"
    )
    seen_prompt: tuple[str, ...] = option((), "the same, trained on", PROMPTS, metavar="TEXT")
    unseen_prompt: tuple[str, ...] = option((), "the same, held out", PROMPTS, metavar="TEXT")
    raw: bool = option(False, "take these texts as they are, without the chat template", PROMPTS)
    answer_begins: str = option(
        "",
        "beginning of the answer, before the next token: ``` shows the token after the fence",
        PROMPTS,
        metavar="TEXT",
    )
    seen: Path | None = option(None, "trained on: rows (.jsonl), a file, a folder or a corpus", PROMPTS)
    unseen: Path | None = option(None, "held out, in the same forms", PROMPTS)
    count: int = option(32, "prompts from --seen and from --unseen each", PROMPTS, least=1)
    window: int = option(256, "tokens of a prompt at most", PROMPTS)
    continued: int = option(
        0, "prompts from --seen and from --unseen each that are continued, too (those given as text always are)",
        CONTINUED, least=0,
    )  # fmt: skip
    max_new_tokens: int = option(256, "tokens of a continuation at most (0: no continuations)", CONTINUED, least=0)
    temperature: float = option(0.8, "temperature of the sampled continuation", CONTINUED)
    top_p: float = option(0.95, "nucleus (top-p) of the sampled continuation", CONTINUED)
    language: str | None = option(
        None, "judge how much of the distribution is of this language", LANGUAGE, choices=tuple(WORDS)
    )
    against: str | None = option(
        None,
        "the language to distinguish it from (default: python; for python, javascript)",
        LANGUAGE,
        choices=tuple(WORDS),
    )
    top: int = option(10, "most likely tokens to list", least=1)
    chat_template: str | None = option(
        None, "Jinja file (default: the template the adapter was trained with, else the model's own)", metavar="FILE"
    )
    quantize: str = option("none", "the base's linear layers in 8 or 4 bits", choices=tuple(QUANTIZE))
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    seed: int = option(0, "seed of the bootstrap and of the samples")

    def __post_init__(self) -> None:
        """UserError without a prompt, and for languages that cannot be distinguished."""
        if not (self.prompt or self.seen_prompt or self.unseen_prompt or self.seen or self.unseen):
            raise UserError("nothing to compare on: give --prompt, --seen-prompt, --unseen-prompt, --seen or --unseen")
        if self.against and not self.language:
            raise UserError("--against is what --language is distinguished from: give --language, too")
        if self.language and self.language == self.against:
            raise UserError(f"--against {self.against}: give another language than --language")

    @property
    def languages(self) -> tuple[str, str] | None:
        """The language of interest and the one it is distinguished from."""
        if self.language is None:
            return None
        return self.language, self.against or ("javascript" if self.language == "python" else "python")


def next_tokens(
    decoder: Decoder,
    tokenizer: Tokenizer,
    adapter: Adapter,
    prompts: list[Prompt],
    *,
    top: int = 10,
    languages: tuple[str, str] | None = None,
    seed: int = 0,
) -> dict:
    """The eval result of prompts: "prompts" (one row each, from `compare_prompt`), and what `summary.summarise` gives.

    The adapter is active afterwards. UserError if no prompt has two tokens.
    """
    if not any(len(prompt.input_ids) > 1 for prompt in prompts):
        raise UserError("nothing to compare on: give a prompt of two tokens or more")
    was_training = decoder.training
    decoder.eval()
    rows = [
        compare_prompt(decoder, tokenizer, adapter, prompt, top=top, languages=languages)
        for prompt in progress(prompts, what="next token", unit="prompt")
    ]
    decoder.train(was_training)
    read = [prompt.input_ids for prompt in prompts]
    return {
        **summarise(rows, seed=seed),
        "n": len(rows),
        "prompts": rows,
        "results": [],
        "sandbox": None,
        "environment": environment(decoder.device, decoder.model.norm.weight.dtype, prompts=read),
    }


def read_all(options: Options, tokenizer: Tokenizer) -> tuple[list[Prompt], list[Prompt]]:
    """The prompts, and those of them that are continued in full. UserError for an empty one."""
    named = {"given": options.prompt, "seen": options.seen_prompt, "unseen": options.unseen_prompt}
    texts = [(kind, text) for kind, of_kind in named.items() for text in of_kind]
    given = [
        asked_prompt(tokenizer, text, name=f"prompt {i}", kind=kind, raw=options.raw, begins=options.answer_begins)
        for i, (kind, text) in enumerate(texts, start=1)
    ]
    from_files, continued = [], [*given]
    for kind, place in (("seen", options.seen), ("unseen", options.unseen)):
        if place:
            read = read_prompts(
                tokenizer, place, kind=kind, count=options.count, window=options.window, begins=options.answer_begins
            )
            from_files += read
            continued += read[: options.continued]
    if empty := next((prompt for prompt in [*given, *from_files] if not prompt.at), None):
        raise UserError(f"{empty.name}: the prompt is empty; there is nothing to go on from")
    if given and tokenizer.chat_template is None and not options.raw:
        print("note     the model has no chat template: the texts are taken as they are")
    return [*given, *from_files], continued if options.max_new_tokens else []


def main() -> None:
    """Command line."""
    options = parse(Options, description=__doc__)
    for package in packages_of(options.languages or ()):
        need(package, why="--language", install=package.replace("_", "-"))
    tokenizer = load_trained_tokenizer(options.model, options.adapter, chat_template=options.chat_template)
    prompts, continued = read_all(options, tokenizer)
    decoder = load_decoder(options.model, device=choose_device(options.device), put=QUANTIZE[options.quantize])
    adapter = load_adapter(decoder, options.adapter)
    if not 2 <= options.window <= decoder.max_tokens:
        raise UserError(f"--window {options.window}: give 2 to {positions_of(decoder)}")

    # both models' continuations of the whole prompts, then the distributions
    texts = continuations(
        decoder, tokenizer, adapter, continued, max_new_tokens=options.max_new_tokens,
        temperature=options.temperature, top_p=options.top_p, seed=options.seed,
    )  # fmt: skip
    result = next_tokens(
        decoder, tokenizer, adapter, [prompt.cut(options.window) for prompt in prompts], top=options.top,
        languages=options.languages, seed=options.seed,
    )  # fmt: skip
    of_prompt = dict(zip(map(id, continued), texts, strict=True))
    for prompt, row in zip(prompts, result["prompts"], strict=True):
        if id(prompt) in of_prompt:
            row["continuations"] = of_prompt[id(prompt)]

    result["settings"] = {name: str(value) for name, value in as_settings(options, without=("out",)).items()}
    write_json(options.out, result)
    picture = options.out.with_suffix(".svg")
    write_text(picture, next_token_picture(shown(result["prompts"])))
    print(table(result), f"\nwritten to {options.out} and {picture}")


if __name__ == "__main__":
    sys.exit(run_command(main, needs_less_with="a smaller --window, --quantize nf4 or --device cpu"))
