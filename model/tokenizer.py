"""Tokenizer and chat template: text to ids and back, with markup and words kept apart.

A control token has power (it ends a turn, it starts a role), so only the template may write one. The same characters
in a user's code are data: they are encoded as the plain text that they are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

import jinja2
import jinja2.ext
import jinja2.sandbox
import tokenizers

from model.console import UserError
from model.files import write_json


@dataclass(frozen=True)
class Segment:
    """A stretch of a rendered conversation: one control token, or plain text between two of them."""

    text: str
    is_special: bool
    is_learnt: bool  # the assistant's words, and what follows them up to the token that ends the turn


class Tokenizer:
    """A Hugging Face tokenizer with its chat template."""

    def __init__(self, backend: tokenizers.Tokenizer, settings: dict, eos_ids: tuple[int, ...] = ()) -> None:
        """`settings` are those of tokenizer_config.json; `eos_ids` those of the model's own configuration."""
        backend.no_truncation()  # a tokenizer.json may carry both, from whoever saved it last
        backend.no_padding()
        self.backend = backend
        self.settings = settings
        self.chat_template: str | None = settings.get("chat_template")
        self.eos_token = _token_text(settings.get("eos_token"))
        self._eos_ids = eos_ids
        added = json.loads(backend.to_str())["added_tokens"]
        self.control_tokens = {token["content"]: token["id"] for token in added if _is_control(token)}

    @cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        """The same tokenizer without its control tokens: their text is ordinary text to it."""
        definition = json.loads(self.backend.to_str())
        definition["added_tokens"] = [token for token in definition["added_tokens"] if not _is_control(token)]
        definition["post_processor"] = None
        return tokenizers.Tokenizer.from_str(json.dumps(definition))

    @cached_property
    def prefix_ids(self) -> list[int]:
        """What the model expects before a plain document: its BOS token, if it has one."""
        return self.backend.encode("", add_special_tokens=True).ids

    @cached_property
    def eos_id(self) -> int:
        """The token that ends a document. UserError when the model's files name none."""
        if self.eos_token is not None and self.backend.token_to_id(self.eos_token) is not None:
            return self.backend.token_to_id(self.eos_token)
        if self._eos_ids:
            return self._eos_ids[0]
        raise UserError("the model's files name no end-of-text token (eos_token in tokenizer_config.json)")

    @cached_property
    def stop_ids(self) -> set[int]:
        """Tokens that end an answer: the model's own end tokens, and the one its template ends a turn with."""
        ids = {self.eos_id, *self._eos_ids}
        if self.chat_template is not None:
            turn = self.segments([{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}])
            ids |= {self.control_tokens[s.text] for s in turn if s.is_special and s.is_learnt}
        return ids

    def encode(self, text: str) -> list[int]:
        """Ids of plain text. No special token is added, and none is read out of the text."""
        return self._plain.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """`encode` of many texts at once, on all cores."""
        return [encoding.ids for encoding in self._plain.encode_batch_fast(texts, add_special_tokens=False)]

    def encode_for_encoder(self, texts: list[str], max_length: int) -> list[list[int]]:
        """Ids with the encoder's own special tokens around each text, the text cut so that all fit in max_length."""
        around = self.backend.encode("", add_special_tokens=True).ids  # [CLS] [SEP]
        head, tail = around[:1], around[1:]
        room = max_length - len(around)
        return [head + ids[:room] + tail for ids in self.encode_batch(texts)]

    def decode(self, ids: list[int], *, keep_special: bool = False) -> str:
        """Text of ids; control tokens are left out unless asked for."""
        return self.backend.decode(ids, skip_special_tokens=not keep_special)

    def render(self, messages: list[dict], *, add_generation_prompt: bool = False) -> str:
        """The conversation as the model's chat template writes it. messages: [{"role", "content"}]."""
        if self.chat_template is None:
            raise UserError(
                "the model has no chat template (tokenizer_config.json or chat_template.jinja); use an instruct model "
                "or give one with --chat-template FILE"
            )
        tokens = {
            name: _token_text(value)
            for name, value in self.settings.items()
            if name.endswith("_token") and value is not None
        }
        try:
            return self._template.render(messages=messages, add_generation_prompt=add_generation_prompt, **tokens)
        except jinja2.TemplateError as error:
            raise UserError(f"the model's chat template refuses these messages: {error}") from None

    @cached_property
    def _template(self) -> jinja2.Template:
        # The settings of transformers' apply_chat_template, so that the text is the same.
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
        environment.globals["raise_exception"] = _raise_template_error
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        try:
            return environment.from_string(self.chat_template)
        except jinja2.TemplateError as error:
            raise UserError(f"the model's chat template is not valid: {error}") from None

    def segments(self, messages: list[dict], *, add_generation_prompt: bool = False) -> list[Segment]:
        """The rendered conversation in segments, whose texts join to exactly `render(...)`.

        The words are found by rendering once more with a placeholder for each message's content. Plain text is cut
        only at control tokens and where the assistant begins to speak, so that the ids of a prompt are a prefix of
        the ids of prompt + answer whatever the answer begins with.
        """
        holders = [f"\ue000{i}\ue001" for i in range(len(messages))]
        blank = [{**message, "content": holder} for message, holder in zip(messages, holders, strict=True)]
        skeleton = self.render(blank, add_generation_prompt=add_generation_prompt)
        expected = self.render(messages, add_generation_prompt=add_generation_prompt)
        for words in ([m["content"] for m in messages], [m["content"].strip() for m in messages]):
            segments = self._segments(skeleton, holders, words, [m["role"] == "assistant" for m in messages])
            if "".join(s.text for s in segments) == expected:
                return segments
        raise UserError("the model's chat template rewrites the messages; words and markup cannot be told apart")

    def _segments(self, skeleton: str, holders: list[str], words: list[str], learnt: list[bool]) -> list[Segment]:
        segments: list[Segment] = []

        def add(text: str, is_special: bool, is_learnt: bool) -> None:
            last = segments[-1] if segments else None
            if last and not is_special and not last.is_special and last.is_learnt == is_learnt:
                segments[-1] = Segment(last.text + text, False, is_learnt)
            elif text:
                segments.append(Segment(text, is_special, is_learnt))

        rest, speaking = skeleton, False  # speaking: inside an assistant's turn, up to the token that ends it
        for holder, text, is_learnt in zip([*holders, None], [*words, ""], [*learnt, False], strict=True):
            markup, _, rest = rest.partition(holder) if holder else (rest, "", "")
            for piece in self._split_control(markup):
                is_special = piece in self.control_tokens
                add(piece, is_special, speaking)
                speaking = speaking and not is_special
            speaking = is_learnt
            add(text, False, speaking)
        return segments

    def _split_control(self, markup: str) -> list[str]:
        """Markup cut into control tokens (the longest that matches) and the text between them."""
        pieces, text, i = [], "", 0
        longest_first = sorted(self.control_tokens, key=len, reverse=True)
        while i < len(markup):
            token = next((t for t in longest_first if markup.startswith(t, i)), None)
            if token is None:
                text, i = text + markup[i], i + 1
                continue
            pieces += [text, token] if text else [token]
            text, i = "", i + len(token)
        return [*pieces, text] if text else pieces

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json."""
        self.backend.save(str(folder / "tokenizer.json"))
        write_json(folder / "tokenizer_config.json", self.settings)


def _is_control(token: dict) -> bool:
    """Special tokens, and those like Qwen's <tool_call> that act as such without saying so."""
    text = token["content"]
    return token["special"] or (text.startswith("<") and text.endswith(">") and len(text) > 2)


def _token_text(value) -> str | None:
    """tokenizer_config.json writes a token as a string or as an object with its content."""
    return value["content"] if isinstance(value, dict) else value


def _raise_template_error(message: str):
    raise jinja2.TemplateError(message)
