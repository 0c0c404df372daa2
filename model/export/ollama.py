"""Ollama's Modelfile for a .gguf file: the chat template and stop tokens of training, in Ollama's language.

Ollama renders Go's text/template, not Jinja. Almost every chat template writes, before each message, markup that
depends only on its role and the previous one. That markup is found by rendering, written as a Go template, and used
only if it reproduces the Jinja template on longer conversations too. Changes to the messages themselves (stripping,
dropping thoughts from earlier answers) cannot be expressed in Go: they are detected and reported.
Format: docs/modelfile.mdx and docs/template.mdx of Ollama.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from common.console import UserError
from model.tokenizer import Tokenizer

CONTEXT = 8192  # tokens that Ollama allocates a cache for: the full context of a long-context model would fill a laptop
START, GENERATION = "start", "generation"
CONVERSATIONS = ("u", "uau", "uauau", "su", "suau", "suauau")
CLOSING_TAG = re.compile(r"</\w+>|\[/\w+\]")  # </think>, [/THINK]
ROLES = {"s": "system", "u": "user", "a": "assistant"}


@dataclass(frozen=True)
class Markup:
    """What a chat template writes between two messages: {(role before, role after): text}."""

    between: dict[tuple[str, str], str]

    @property
    def has_system(self) -> bool:
        """Whether the template accepts a system message before the first user message."""
        return (START, "system") in self.between

    def render(self, messages: list[dict]) -> str:
        """The conversation, up to and including the generation prompt."""
        roles = [START, *(message["role"] for message in messages), GENERATION]
        texts = [*(message["content"] for message in messages), ""]
        return "".join(self.between[pair] + text for pair, text in zip(pairwise(roles), texts, strict=True))


def find_markup(tokenizer: Tokenizer) -> Markup | str:
    """The markup of a chat template, or the reason why markup alone cannot express it."""
    if tokenizer.chat_template is None:
        return "the model has no chat template"
    if "strftime_now" in tokenizer.chat_template:
        return "the chat template writes today's date"
    # with system messages and, for a template that refuses them, without
    for conversations in (CONVERSATIONS, [c for c in CONVERSATIONS if "s" not in c]):
        markup = _between(tokenizer, conversations)
        if markup is not None and all(_agrees(markup, tokenizer, _messages(c)) for c in conversations):
            if "{{" in "".join(markup.between.values()) or '"""' in "".join(markup.between.values()):
                return "the chat template writes {{ or three quotation marks"
            return markup
    return "the chat template writes more than markup that depends on a message's role and the previous one"


def deviations(markup: Markup, tokenizer: Tokenizer) -> list[str]:
    """How Ollama's text will differ from the chat template's, a sentence each; none for most templates."""
    found = []
    if not markup.has_system:
        found.append("the model's chat template accepts no system message")
    if not _agrees(markup, tokenizer, _messages("uau", "\n {} \n")):
        found.append("the model's chat template strips the white space around a message; Ollama does not")
    # thoughts in earlier answers, in the three forms in which they occur
    for closing in dict.fromkeys(CLOSING_TAG.findall(tokenizer.chat_template or "")):
        opening = closing.replace("/", "")
        thoughts = (f"{opening}hm{closing}{{}}", f"{opening}\nhm\n{closing}\n\n{{}}", f"hm{closing}{{}}")
        if not all(_agrees(markup, tokenizer, _messages(c, u="{}", a=t)) for c in ("uau", "uauau") for t in thoughts):
            found.append(
                f"the model's chat template removes {opening} … {closing} from earlier answers, or rewrites it; Ollama "
                "sends earlier answers unchanged"
            )
    return found


def _messages(conversation: str, form: str = "{}", **forms: str) -> list[dict]:
    """Messages with unique, recognisable texts, each in its role's form."""
    texts = (f"\ue000{i}{role}\ue001" for i, role in enumerate(conversation))
    return [
        {"role": ROLES[role], "content": forms.get(role, form).format(text)}
        for role, text in zip(conversation, texts, strict=True)
    ]


def _between(tokenizer: Tokenizer, conversations) -> Markup | None:
    """The text around each conversation's messages; None if the template refuses one or rewrites a message."""
    between: dict[tuple[str, str], str] = {}
    for conversation in conversations:
        messages = _messages(conversation)
        try:
            rest = tokenizer.render(messages, add_generation_prompt=True)
        except UserError:
            return None
        # cut the text at each message: what lies between two of them is markup
        roles = [START, *(message["role"] for message in messages), GENERATION]
        for pair, message in zip(pairwise(roles), [*messages, None], strict=True):
            text, found, rest = rest.partition(message["content"]) if message else (rest, "end", "")
            if not found:
                return None
            between.setdefault(pair, text)
    # Ollama adds the BOS itself, following add_bos_token
    for role in ("system", "user"):
        opening = between.get((START, role))
        if opening is not None and tokenizer.prefix_ids:
            between[START, role] = opening.removeprefix(_bos(tokenizer))
    return Markup(between)


def _bos(tokenizer: Tokenizer) -> str:
    return tokenizer.decode(tokenizer.prefix_ids, keep_special=True)


def _agrees(markup: Markup, tokenizer: Tokenizer, messages: list[dict]) -> bool:
    try:
        expected = tokenizer.render(messages, add_generation_prompt=True)
    except UserError:
        return False
    return markup.render(messages) == (expected.removeprefix(_bos(tokenizer)) if tokenizer.prefix_ids else expected)


# A dash at a brace trims the adjacent white space: only where that is not part of the text.
GO_TEMPLATE = """{{- $before := "" }}
{{- range .Messages }}
{{- if eq .Role "system" }}⟨start system⟩{{ .Content }}
{{- else if eq .Role "user" }}{{ if eq $before "system" }}⟨system user⟩\
{{ else if eq $before "assistant" }}⟨assistant user⟩{{ else }}⟨start user⟩{{ end }}{{ .Content }}
{{- else if eq .Role "assistant" }}⟨user assistant⟩{{ .Content }}
{{- end }}
{{- $before = .Role }}
{{- end }}
{{- if eq $before "user" }}⟨user generation⟩{{ end }}"""
SYSTEM_BRANCH = '{{- if eq .Role "system" }}⟨start system⟩{{ .Content }}\n{{- else if'


def go_template(markup: Markup) -> str:
    """The markup in Go's text/template; a system message that it does not accept is ignored."""
    template, between = GO_TEMPLATE, markup.between
    if not markup.has_system:
        template = template.replace(SYSTEM_BRANCH, "{{- if")
        between = between | {("system", "user"): between[START, "user"]}
    return re.sub(r"⟨(\w+) (\w+)⟩", lambda pair: between[pair[1], pair[2]], template)


class Modelfile(NamedTuple):
    """A Modelfile, and how the chats that it gives differ from those of training."""

    text: str
    has_template: bool  # without one Ollama uses the .gguf file's own
    notes: list[str]


def modelfile(gguf_name: str, tokenizer: Tokenizer, *, context: int) -> Modelfile:
    """The Modelfile of a .gguf file.

    context  tokens that the model supports
    """
    # the template, or why there is none
    markup = find_markup(tokenizer)
    lines = [f"FROM ./{gguf_name}"]
    if isinstance(markup, str):
        notes = [f"the Modelfile has no TEMPLATE: {markup}"]
        lines.append(f"# no TEMPLATE: {markup}")
    else:
        notes = deviations(markup, tokenizer)
        lines += [*(f"# {note}" for note in notes), f'TEMPLATE """{go_template(markup)}"""']

    # the context, and where an answer ends
    lines += [f"# the model's context: {context} tokens", f"PARAMETER num_ctx {min(context, CONTEXT)}"]
    for id_ in sorted(tokenizer.stop_ids):
        lines.append(f'PARAMETER stop "{tokenizer.decode([id_], keep_special=True)}"')
    return Modelfile("\n".join(lines) + "\n", not isinstance(markup, str), notes)
