"""Tokenizer and chat template: text to ids and back, with markup and words kept apart.

A control token has power (it ends a turn, it starts a role), so only the template may write one. The same characters
in a user's code are data: they are encoded as the plain text that they are.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path

import tokenizers

from common.console import UserError
from common.files import write_json
from model.chat_template import compile_template, render_template
from model.conversation import Segment, split_conversation

QUESTION = {"role": "user", "content": "?"}
PROBE = "\ufdd0"  # an answer that no template writes by itself: one of Unicode's noncharacters


class Tokenizer:
    """A Hugging Face tokenizer with its chat template."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        settings: dict,
        eos_ids: tuple[int, ...] = (),
        template_options: dict | None = None,
        *,
        embedding_rows: int | None = None,
    ) -> None:
        """`settings` are those of tokenizer_config.json; `eos_ids` those of the model's own configuration.

        `template_options` are variables that the chat template reads besides the messages, such as Qwen3's
        {"enable_thinking": False} or Llama 3's {"date_string": "26 Jul 2024"}; they hold for training and use alike.

        `embedding_rows` is how many ids the model can read. No method here returns a larger one: UserError instead.
        """
        backend.no_truncation()  # a tokenizer.json may carry both, from whoever saved it last
        backend.no_padding()
        self.backend = backend
        self.settings = settings
        self.template_options = template_options or {}
        self.chat_templates = _named_templates(settings.get("chat_template"))
        self.chat_template: str | None = self.chat_templates.get("default")
        self.eos_token = _token_text(settings.get("eos_token"))
        self.embedding_rows = embedding_rows
        self._eos_ids = eos_ids
        self._definition = json.loads(backend.to_str())
        written = "\0".join(self.chat_templates.values())
        added = self._definition["added_tokens"]
        self.control_tokens = {token["content"]: token["id"] for token in added if _is_control(token, written)}

    @cached_property
    def _text_of(self) -> dict[int, str]:
        return {id_: text for text, id_ in self.backend.get_vocab(with_added_tokens=True).items()}

    @cached_property
    def without_row(self) -> dict[int, str]:
        """Tokens beyond the model's embedding, by id: they were added to the tokenizer and the model was not resized.

        Harmless as long as they never occur, as a padding token (LLaMA's [PAD]) or a picture's (Gemma 3) do not.
        """
        if self.embedding_rows is None:
            return {}
        return {id_: text for id_, text in self._text_of.items() if id_ >= self.embedding_rows}

    @cached_property
    def unused_ids(self) -> list[int]:
        """Ids of the embedding that have no token: rows that pad it to a round number. Never to be generated."""
        return [id_ for id_ in range(self.embedding_rows or 0) if id_ not in self._text_of]

    def checked(self, ids: list[int]) -> list[int]:
        """The same ids. UserError when the model's embedding has no row for one of them."""
        if self.without_row and (odd := next((id_ for id_ in ids if id_ in self.without_row), None)) is not None:
            raise UserError(
                f"the text has the token {self.without_row[odd]!r} with the id {odd}, and the model's embedding only "
                f"{self.embedding_rows} rows: tokens were added and the model was not resized. Resize and save it "
                "(transformers: model.resize_token_embeddings(len(tokenizer))), or use the model's own tokenizer"
            )
        return ids

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
        return self.checked(whole[:start]), self.checked(whole[start + len(word) :])

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
        return self.checked([self.control_tokens[bos]])

    @cached_property
    def suffix_ids(self) -> list[int]:
        """What an encoder expects after a text: [SEP], or an EOS, which last-token pooling makes the vector of.

        tokenizer.json's post-processor says so, or `add_eos_token` beside it: of e5-mistral's files only the latter,
        which transformers 4 followed and transformers 5 does not (github.com/embeddings-benchmark/mteb/pull/5237).
        UserError when the setting asks for a token that the files do not name.
        """
        _, after = self._around
        if after or self.settings.get("add_eos_token") is not True:
            return after
        eos = None if self.eos_token is None else self.backend.token_to_id(self.eos_token)
        if eos is None:
            raise UserError(f"tokenizer_config.json: add_eos_token is true, but eos_token is {self.eos_token!r}")
        return [eos]

    @cached_property
    def eos_id(self) -> int:
        """The token that ends a document. UserError when the model's files name none."""
        ids = [self.backend.token_to_id(self.eos_token)] if self.eos_token is not None else []
        ids = [id_ for id_ in (*ids, *self._eos_ids) if id_ is not None]
        if ids:
            return self.checked(ids[:1])[0]
        raise UserError("the model's files name no end-of-text token (eos_token in tokenizer_config.json)")

    @cached_property
    def stop_ids(self) -> set[int]:
        """Tokens that end an answer: the model's own end tokens, and the one its template ends a turn with."""
        ids = {self.eos_id, *self._eos_ids}
        if self.turn_end is not None:
            ids.add(self.control_tokens[self.turn_end])
        return ids

    def encode(self, text: str) -> list[int]:
        """Ids of plain text. No special token is added, and none is read out of the text."""
        return self._encode_with(self._plain, text)

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """`encode` of many texts at once, on all cores."""
        try:
            encodings = self._plain.encode_batch_fast(texts, add_special_tokens=False)
            return [self.checked(encoding.ids) for encoding in encodings]
        except (TypeError, UnicodeEncodeError):
            return [self.encode(text) for text in texts]  # names the text that is not Unicode

    def encode_segments(self, segments: list[Segment]) -> list[list[int]]:
        """Ids of each segment, as they are in the whole: SentencePiece's space stands where a text begins, not a seam.

        Whether it also stands after a control token is the tokenizer's own affair (Llama 2: yes; Mistral 0.3: no).
        """
        pieces, before = [], None
        for segment in segments:
            if segment.is_special:
                pieces.append(self.checked([self.control_tokens[segment.text]]))
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
            return self.checked(backend.encode(text, add_special_tokens=False).ids)
        except (TypeError, UnicodeEncodeError):
            at = next((i for i, c in enumerate(text) if "\ud800" <= c <= "\udfff"), None)
            if at is None:
                raise
            raise UserError(f"the text is not valid Unicode: half a surrogate pair at character {at:,}") from None

    def encode_for_encoder(self, texts: list[str], max_length: int) -> list[list[int]]:
        """Ids with the encoder's own special tokens around each text, the text cut so that all fit in max_length."""
        room = max_length - len(self.prefix_ids) - len(self.suffix_ids)
        return [[*self.prefix_ids, *ids[:room], *self.suffix_ids] for ids in self.encode_batch(texts)]

    def decode(self, ids: list[int], *, keep_special: bool = False) -> str:
        """Text of ids; control tokens, and the space that SentencePiece puts first, are left out unless asked for."""
        if keep_special and self._verbatim is not None:
            pieces = [self.backend.id_to_token(i) for i in ids]
            return self._verbatim.decode([piece for piece in pieces if piece is not None])
        return self.backend.decode(ids, skip_special_tokens=not keep_special)

    @cached_property
    def _verbatim(self) -> tokenizers.decoders.Decoder | None:
        """The decoder without the step that strips the first space; None where there is no such step."""
        decoder = self._definition["decoder"] or {}
        steps = decoder["decoders"] if decoder.get("type") == "Sequence" else [decoder]
        if not any(step.get("type") in ("Strip", "Metaspace") for step in steps):
            return None
        kept = [step | {"prepend_scheme": "never"} if step["type"] == "Metaspace" else step for step in steps]
        kept = [step for step in kept if step["type"] != "Strip"]
        empty = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}}
        empty |= dict.fromkeys(("normalizer", "pre_tokenizer", "post_processor", "truncation", "padding"))
        return tokenizers.Tokenizer.from_str(
            json.dumps(empty | {"decoder": {"type": "Sequence", "decoders": kept}})
        ).decoder

    def render(
        self, messages: list[dict], *, add_generation_prompt: bool = False, tools: list[dict] | None = None
    ) -> str:
        """The conversation as the model's chat template writes it.

        messages  [{"role", "content"}], and what else the template knows: "tool_calls", "reasoning_content"; "weight"
                  is for the mask and not shown to it
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
        seen = [
            {key: value for key, value in message.items() if value is not None and key != "weight"}
            for message in messages
        ]
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
        Raises UserError when the last message is an answer that does not follow its prompt: it cannot be trained. Also
        for what the template leaves out: tools, a system message, a thought, the words beside a call.
        """
        return split_conversation(self, messages, add_generation_prompt=add_generation_prompt, tools=tools)

    @cached_property
    def turn_end(self) -> str | None:
        """The first control token that the template writes after an assistant's words; None when it writes none."""
        if self.chat_template is None:
            return None
        _, found, after = self.render([QUESTION, {"role": "assistant", "content": PROBE}]).rpartition(PROBE)
        if not found:
            raise UserError("the model's chat template leaves out the assistant's words; give one with --chat-template")
        return next((piece for piece, is_special in self.split_control(after) if is_special), None)

    @cached_property
    def answer_lead(self) -> str:
        """What stands before an answer in a template that knows no generation prompt, such as "assistant: "."""
        prompt = self.render([QUESTION], add_generation_prompt=True)
        if prompt != self.render([QUESTION]):
            return ""
        whole = self.render([QUESTION, {"role": "assistant", "content": PROBE}])
        return whole[len(prompt) :].partition(PROBE)[0] if whole.startswith(prompt) else ""

    @cached_property
    def arguments_as_text(self) -> bool:
        """Whether the template takes the arguments of a call only as JSON text, not as an object."""

        def takes(arguments) -> bool:
            function = {"name": "f", "arguments": arguments}
            call = {"id": "abcdefghi", "type": "function", "function": function}
            try:
                self.render([QUESTION, {"role": "assistant", "content": "", "tool_calls": [call]}])
            except UserError:
                return False
            return True

        return not takes({"x": "y"}) and takes('{"x": "y"}')

    @cached_property
    def control_pattern(self) -> re.Pattern:
        """Matches a control token, the longest where several begin; nothing when there is none."""
        longest_first = sorted(self.control_tokens, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def split_control(self, markup: str) -> list[tuple[str, bool]]:
        """Markup cut into control tokens, marked True, and the text between them."""
        pieces, at = [], 0
        for found in self.control_pattern.finditer(markup):
            pieces += [(markup[at : found.start()], False), (found[0], True)]
            at = found.end()
        return [(piece, is_special) for piece, is_special in [*pieces, (markup[at:], False)] if piece]

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json."""
        self.backend.save(str(folder / "tokenizer.json"))
        write_json(folder / "tokenizer_config.json", self.settings)


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
