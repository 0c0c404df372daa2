"""Tokenizer and chat template: text to ids and back, with markup and words kept apart.

A control token has power (it ends a turn, it starts a role), so only the template may write one. The same characters
in a user's code are data: they are encoded as the plain text that they are.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import tokenizers

from model.chat_template import compile_template, render_template
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

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        settings: dict,
        eos_ids: tuple[int, ...] = (),
        template_options: dict | None = None,
    ) -> None:
        """`settings` are those of tokenizer_config.json; `eos_ids` those of the model's own configuration.

        `template_options` are variables that the chat template reads besides the messages, such as Qwen3's
        {"enable_thinking": False} or Llama 3's {"date_string": "26 Jul 2024"}; they hold for training and use alike.
        """
        backend.no_truncation()  # a tokenizer.json may carry both, from whoever saved it last
        backend.no_padding()
        self.backend = backend
        self.settings = settings
        self.template_options = template_options or {}
        self.chat_templates = _named_templates(settings.get("chat_template"))
        self.chat_template: str | None = self.chat_templates.get("default")
        self.eos_token = _token_text(settings.get("eos_token"))
        self._eos_ids = eos_ids
        self._definition = json.loads(backend.to_str())
        written = "\0".join(self.chat_templates.values())
        added = self._definition["added_tokens"]
        self.control_tokens = {token["content"]: token["id"] for token in added if _is_control(token, written)}

    @cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        """The same tokenizer without its control tokens: their text is ordinary text to it."""
        return self._without_control_tokens(self._definition)

    @cached_property
    def _continuing(self) -> tokenizers.Tokenizer:
        """`_plain` for text in the middle of a line: SentencePiece's space is not put before it."""
        definition = json.loads(json.dumps(self._definition))
        for part in _parts(definition):
            if part["type"] == "Prepend":
                part["prepend"] = ""
            elif part["type"] == "Metaspace":
                part["prepend_scheme"] = "never"
            elif part["type"] == "ByteLevel":
                part["add_prefix_space"] = False
        return self._without_control_tokens(definition)

    def _without_control_tokens(self, definition: dict) -> tokenizers.Tokenizer:
        # Marked special they can be switched off. Taken out, they would leave their ids to the tokens after them.
        added = [token | {"special": token["content"] in self.control_tokens} for token in definition["added_tokens"]]
        changed = tokenizers.Tokenizer.from_str(json.dumps(definition | {"added_tokens": added}))
        changed.encode_special_tokens = True
        return changed

    @cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before and after a text of its own accord: [CLS] and [SEP], or a BOS and nothing."""
        word = self.backend.encode("a", add_special_tokens=False).ids
        whole = self.backend.encode("a", add_special_tokens=True).ids
        start = next(i for i in range(len(whole)) if whole[i : i + len(word)] == word)
        return whole[:start], whole[start + len(word) :]

    @cached_property
    def prefix_ids(self) -> list[int]:
        """What the model expects before a plain document: its BOS token, if it has one.

        tokenizer.json's post-processor says so, or `add_bos_token` beside it: DeepSeek's files have only the latter,
        which transformers 4 followed and transformers 5 does not; the model was trained with it.
        """
        before, _ = self._around
        bos = _token_text(self.settings.get("bos_token"))
        if before or self.settings.get("add_bos_token") is not True or bos not in self.control_tokens:
            return before
        return [self.control_tokens[bos]]

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
        if self._turn_end is not None:
            ids.add(self.control_tokens[self._turn_end])
        return ids

    @cached_property
    def _turn_end(self) -> str | None:
        """The first control token that the template writes after an assistant's words; None when it writes none."""
        if self.chat_template is None:
            return None
        text = self.render([{"role": "user", "content": "?"}, {"role": "assistant", "content": _PROBE}])
        _, found, after = text.rpartition(_PROBE)
        if not found:
            raise UserError("the model's chat template leaves out the assistant's words; give one with --chat-template")
        return next((piece for piece in self._split_control(after) if piece in self.control_tokens), None)

    def encode(self, text: str) -> list[int]:
        """Ids of plain text. No special token is added, and none is read out of the text."""
        return self._encode_with(self._plain, text)

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """`encode` of many texts at once, on all cores."""
        try:
            return [encoding.ids for encoding in self._plain.encode_batch_fast(texts, add_special_tokens=False)]
        except (TypeError, UnicodeEncodeError):
            return [self.encode(text) for text in texts]  # names the text that is not Unicode

    def encode_segments(self, segments: list[Segment]) -> list[list[int]]:
        """Ids of each segment, as they are in the whole: SentencePiece's space stands where a text begins, not a seam.

        Whether it also stands after a control token is the tokenizer's own affair (Llama 2: yes; Mistral 0.3: no).
        """
        pieces, before = [], None
        for segment in segments:
            if segment.is_special:
                pieces.append([self.control_tokens[segment.text]])
            else:
                in_line = before is not None and (not before.is_special or self._space_only_first)
                pieces.append(self._encode_with(self._continuing if in_line else self._plain, segment.text))
            before = segment
        return pieces

    @cached_property
    def _space_only_first(self) -> bool:
        return any(part.get("prepend_scheme") == "first" for part in _parts(self._definition))

    def _encode_with(self, backend: tokenizers.Tokenizer, text: str) -> list[int]:
        try:
            return backend.encode(text, add_special_tokens=False).ids
        except (TypeError, UnicodeEncodeError):
            at = next((i for i, c in enumerate(text) if "\ud800" <= c <= "\udfff"), None)
            if at is None:
                raise
            raise UserError(f"the text is not valid Unicode: half a surrogate pair at character {at:,}") from None

    def encode_for_encoder(self, texts: list[str], max_length: int) -> list[list[int]]:
        """Ids with the encoder's own special tokens around each text, the text cut so that all fit in max_length."""
        before, after = self._around
        room = max_length - len(before) - len(after)
        return [before + ids[:room] + after for ids in self.encode_batch(texts)]

    def decode(self, ids: list[int], *, keep_special: bool = False) -> str:
        """Text of ids; control tokens are left out unless asked for."""
        return self.backend.decode(ids, skip_special_tokens=not keep_special)

    def render(
        self, messages: list[dict], *, add_generation_prompt: bool = False, tools: list[dict] | None = None
    ) -> str:
        """The conversation as the model's chat template writes it.

        messages  [{"role", "content"}], and what else the template knows: "tool_calls", "reasoning_content"
        tools     JSON schemas, [{"type": "function", "function": {"name", "description", "parameters"}}]
        Raises UserError without a template, and with the template's own reason when it refuses.
        """
        name = "tool_use" if tools is not None and "tool_use" in self.chat_templates else "default"
        if name not in self.chat_templates:
            others = f"; it has only {', '.join(self.chat_templates)}" if self.chat_templates else ""
            raise UserError(
                f"the model has no chat template (tokenizer_config.json or chat_template.jinja){others}; use an "
                "instruct model or give one with --chat-template FILE"
            )
        tokens = {
            key: _token_text(value)
            for key, value in self.settings.items()
            if key.endswith("_token") and isinstance(value, str | dict)
        }
        seen = [{key: value for key, value in message.items() if value is not None} for message in messages]
        conversation = {"messages": seen, "tools": tools, "documents": None}
        conversation["add_generation_prompt"] = add_generation_prompt
        return render_template(self._compiled[name], tokens | self.template_options | conversation)

    @cached_property
    def _compiled(self) -> dict:
        return {name: compile_template(source) for name, source in self.chat_templates.items()}

    def segments(
        self, messages: list[dict], *, add_generation_prompt: bool = False, tools: list[dict] | None = None
    ) -> list[Segment]:
        """The rendered conversation in segments, whose texts join to exactly `render(...)`; two exceptions below.

        Plain text is cut only at control tokens and where the assistant begins to speak, so that the ids of a prompt
        are a prefix of the ids of prompt + answer whatever the answer begins with. An answer is learnt when it stands
        here as it would be asked for: right after its own generation prompt, and as it was when it came last. An
        earlier answer that the template changed since (Qwen3 takes its think block away) is read, not learnt.

        Exceptions: a template without a generation prompt gets what it writes before an answer as one. A system
        message that the template shows only while no answer follows (Mistral) moves into the last question.
        Raises UserError when the last message is an answer that does not follow its prompt: it cannot be trained.
        """
        text = self.render(messages, add_generation_prompt=add_generation_prompt, tools=tools)
        spans = self._learnt_spans(messages, text, tools)
        last = len(messages) - 1
        if messages[last]["role"] == "assistant" and not add_generation_prompt and last not in spans:
            messages = self._system_in_question(messages, tools)
            text = self.render(messages, tools=tools)
            last, spans = len(messages) - 1, self._learnt_spans(messages, text, tools)
            if last not in spans:
                raise UserError(
                    "the model's chat template does not write an answer after its own generation prompt, so what is "
                    "trained would differ from what is asked for; give another one with --chat-template FILE"
                )
            spans = {last: spans[last]}
        pieces = self._pieces(messages, text, add_generation_prompt, tools)
        if add_generation_prompt:
            pieces += [(piece, piece in self.control_tokens) for piece in self._split_control(self._answer_lead)]
        return _segments(pieces, list(spans.values()))

    def _learnt_spans(self, messages: list[dict], text: str, tools: list[dict] | None) -> dict[int, tuple[int, int]]:
        """Where in the rendered text each answer to be learnt begins and ends, by its message's index."""
        spans = {}
        for i, message in enumerate(messages):
            if message["role"] != "assistant" or i == 0:
                continue
            prompt = self.render(messages[:i], add_generation_prompt=True, tools=tools) + self._answer_lead
            if not text.startswith(prompt):
                continue
            alone = self.render(messages[: i + 1], tools=tools)
            end = self._end_of_turn(alone, len(prompt), messages[: i + 1], tools)
            if text.startswith(alone[:end]):
                spans[i] = len(prompt), end
        return spans

    def _end_of_turn(self, text: str, begin: int, messages: list[dict], tools: list[dict] | None) -> int:
        """Just after the first token that ends a turn, from `begin` on; the text's end when the template has none."""
        at = 0
        for piece, is_special in self._pieces(messages, text, False, tools):
            at += len(piece)
            if at > begin and is_special and piece == self._turn_end:
                return at
        return len(text)

    @cached_property
    def _answer_lead(self) -> str:
        """What stands before an answer in a template that knows no generation prompt, such as "assistant: "."""
        question = [{"role": "user", "content": "?"}]
        prompt = self.render(question, add_generation_prompt=True)
        if prompt != self.render(question):
            return ""
        whole = self.render([*question, {"role": "assistant", "content": _PROBE}])
        return whole[len(prompt) :].partition(_PROBE)[0] if whole.startswith(prompt) else ""

    def _system_in_question(self, messages: list[dict], tools: list[dict] | None) -> list[dict]:
        """The system message at the head of the last question, if the template's own prompt says the same that way."""
        if messages[0]["role"] != "system" or len(messages) < 3:
            return messages
        system, *rest, question, answer = messages
        question = question | {"content": f"{system['content']}\n\n{question['content']}"}
        asked = self.render(messages[:-1], add_generation_prompt=True, tools=tools)
        if self.render([*rest, question], add_generation_prompt=True, tools=tools) != asked:
            return messages
        return [*rest, question, answer]

    def _pieces(
        self, messages: list[dict], text: str, add_generation_prompt: bool, tools: list[dict] | None
    ) -> list[tuple[str, bool]]:
        """The rendered text as plain stretches and the control tokens, marked True, that the template itself wrote.

        Control tokens' texts in the messages are put between marks, which are found again in the rendered text.
        """
        given = json.dumps([messages, tools], ensure_ascii=False)
        if self._control_pattern.search(given) is None:
            return [(piece, piece in self.control_tokens) for piece in self._split_control(text)]
        left, right = [mark for mark in map(chr, range(0xFDD0, 0xFDF0)) if mark not in given][
            :2
        ]  # no characters at all
        protect = partial(self._control_pattern.sub, rf"{left}\g<0>{right}")
        marked_messages = [
            _map_text(message, self._mark_answer(protect) if message["role"] == "assistant" else protect)
            for message in messages
        ]
        marked_tools = _map_text(tools, protect)
        marked = self.render(marked_messages, add_generation_prompt=add_generation_prompt, tools=marked_tools)
        if marked.replace(left, "").replace(right, "") != text:
            raise UserError("the model's chat template rewrites the messages; words and markup cannot be told apart")
        # [markup, marked words or None, markup, …]; a mark that lost its partner still keeps its neighbours apart
        parts = re.split(f"{left}({self._control_pattern.pattern}){right}|[{left}{right}]", marked)
        pieces = []
        for i, part in enumerate(parts):
            if i % 2:
                pieces.append((part or "", False))
            else:
                pieces += [(piece, piece in self.control_tokens) for piece in self._split_control(part)]
        return pieces

    def _mark_answer(self, protect: Callable[[str], str]) -> Callable[[str], str]:
        """A template that takes an answer's think block apart, as Qwen3's does, needs its two tags as they are."""
        if "</think>" not in (self.chat_template or ""):
            return protect
        return lambda words: "".join(
            part if part in THINK else protect(part) for part in re.split(f"({'|'.join(THINK)})", words)
        )

    @cached_property
    def _control_pattern(self) -> re.Pattern:
        longest_first = sorted(self.control_tokens, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")  # (?!) never matches

    def _split_control(self, markup: str) -> list[str]:
        """Markup cut into control tokens (the longest that matches) and the text between them."""
        pieces, at = [], 0
        for found in self._control_pattern.finditer(markup):
            pieces += [markup[at : found.start()], found[0]]
            at = found.end()
        return [piece for piece in [*pieces, markup[at:]] if piece]

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json."""
        self.backend.save(str(folder / "tokenizer.json"))
        write_json(folder / "tokenizer_config.json", self.settings)


THINK = ("<think>", "</think>")
_PROBE = "\ufdd0"  # an answer that no template writes by itself


def _segments(pieces: list[tuple[str, bool]], spans: list[tuple[int, int]]) -> list[Segment]:
    """Pieces joined where plain text meets plain text, and cut where a learnt span begins or ends."""
    cuts = {point for span in spans for point in span}
    segments: list[Segment] = []
    at = 0
    for text, is_special in pieces:
        points = [0, *sorted(cut - at for cut in cuts if at < cut < at + len(text)), len(text)]
        for begin, end in itertools.pairwise(points):
            is_learnt = any(first <= at + begin < last for first, last in spans)
            previous = segments[-1] if segments else None
            if previous and not is_special and not previous.is_special and at + begin not in cuts:
                segments[-1] = Segment(previous.text + text[begin:end], False, is_learnt)
            elif end > begin:
                segments.append(Segment(text[begin:end], is_special, is_learnt))
        at += len(text)
    return segments


def _map_text(value, change):
    """The same JSON value with every string in it changed; keys stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _map_text(item, change) for key, item in value.items()}
    return [_map_text(item, change) for item in value] if isinstance(value, list | tuple) else value


def _parts(definition: dict) -> list[dict]:
    """The steps of a tokenizer's normalizer and pre-tokenizer, nested sequences laid flat."""
    waiting = [definition.get("normalizer"), definition.get("pre_tokenizer")]
    parts = []
    while waiting:
        part = waiting.pop(0)
        if part is None:
            continue
        waiting += part.get("normalizers", []) + part.get("pretokenizers", [])
        parts.append(part)
    return parts


def _named_templates(value) -> dict[str, str]:
    """tokenizer_config.json holds one chat template, or a list of {"name", "template"}."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {"default": value}
    try:
        templates = {entry["name"]: entry["template"] for entry in value}
    except (TypeError, KeyError):
        raise UserError("tokenizer_config.json: chat_template is neither a text nor a list of named texts") from None
    return templates


def _is_control(token: dict, templates: str) -> bool:
    """Special tokens, those of the form <|…|> (Qwen's <|fim_prefix|> does not say that it is special), and those that
    the chat template writes (Qwen's <tool_call>). Others are words: Gemma 3 has tokens for ⏎ and for <table>.
    """
    text = token["content"]
    if token["special"] or re.fullmatch(r"<[|｜].+[|｜]>", text):
        return True
    return not text.isspace() and text in templates


def _token_text(value) -> str | None:
    """tokenizer_config.json writes a token as a string or as an object with its content."""
    return value.get("content") if isinstance(value, dict) else value if isinstance(value, str) else None
