"""A model's tokenizer: text to ids and back, with markup and plain text kept apart.

A control token has power (it ends a turn, it starts a role), so only the chat template may write one. The same
characters in a user's code are data: they are encoded as plain text.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path

import tokenizers

from common.console import UserError
from common.files import write_json
from model.chat_template import ChatTemplate
from model.conversation import Segment, split_conversation


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
        """`settings` are tokenizer_config.json's; `eos_ids` the model's own configuration's.

        `template_options` are variables that the chat template reads besides the messages, such as Qwen3's
        {"enable_thinking": False} or Llama 3's {"date_string": "26 Jul 2024"}; training and inference share them.

        `embedding_rows` is the number of ids the model can read. No method here returns a larger one: UserError.
        """
        # a tokenizer.json may carry either, from whoever saved it last
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.settings = settings
        self.chat_templates = _named_templates(settings.get("chat_template"))  # Jinja
        self.chat_template: str | None = self.chat_templates.get("default")
        self.eos_token = _token_text(settings.get("eos_token"))
        self.embedding_rows = embedding_rows
        self._eos_ids = eos_ids
        self._definition = json.loads(backend.to_str())

        # control tokens: those marked special, and those that a template writes
        markup = "\0".join(self.chat_templates.values())
        added = self._definition["added_tokens"]
        self.control_tokens = {token["content"]: token["id"] for token in added if _is_control(token, markup)}

        # what the template may read besides the messages
        variables: dict[str, object] = {**_special_tokens(settings), **(template_options or {})}
        self.template = ChatTemplate(self.chat_templates, control_tokens=self.control_tokens, variables=variables)

    # ---------------------------------------------------------------------------------------------- conversations

    def render(
        self, messages: list[dict], *, add_generation_prompt: bool = False, tools: list[dict] | None = None
    ) -> str:
        """The conversation as the model's chat template writes it (ChatTemplate.render)."""
        return self.template.render(messages, add_generation_prompt=add_generation_prompt, tools=tools)

    def segments(
        self, messages: list[dict], *, add_generation_prompt: bool = False, tools: list[dict] | None = None
    ) -> list[Segment]:
        """The rendered conversation in segments: control tokens, plain text, what is trained (split_conversation)."""
        return split_conversation(self.template, messages, add_generation_prompt=add_generation_prompt, tools=tools)

    @cached_property
    def stop_ids(self) -> set[int]:
        """Tokens that end an answer: the model's own end tokens, and the one its template ends a turn with."""
        ids = {self.eos_id, *self._eos_ids}
        if self.template.turn_end is not None:
            ids.add(self.control_tokens[self.template.turn_end])
        return ids

    # ----------------------------------------------------------------------------------------------- text to ids

    def encode(self, text: str) -> list[int]:
        """Ids of plain text. No special token is added, and none is recognised in the text."""
        return self._encode_with(self._plain, text)

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """`encode` of many texts at once, on all cores."""
        try:
            encodings = self._plain.encode_batch_fast(texts, add_special_tokens=False)
            return [self.checked(encoding.ids) for encoding in encodings]
        except (TypeError, UnicodeEncodeError):
            return [self.encode(text) for text in texts]  # names the text that is not Unicode

    def encode_segments(self, segments: list[Segment]) -> list[list[int]]:
        """Ids of each segment as in the whole text: SentencePiece's space only where a text begins, not at a seam.

        Whether the space also follows a control token depends on the tokenizer (Llama 2: yes; Mistral 0.3: no).
        """
        pieces, before = [], None
        for segment in segments:
            # a control token by its id, plain text by the tokenizer for its place
            if segment.is_special:
                pieces.append(self.checked([self.control_tokens[segment.text]]))
            else:
                mid_line = before is not None and (not before.is_special or self._space_only_first)
                pieces.append(self._encode_with(self._mid_line if mid_line else self._plain, segment.text))
            before = segment
        return pieces

    def encode_for_encoder(self, texts: list[str], max_length: int) -> list[list[int]]:
        """Ids with the encoder's special tokens around each text, the text truncated so that all fit in max_length."""
        room = max_length - len(self.prefix_ids) - len(self.suffix_ids)
        return [[*self.prefix_ids, *ids[:room], *self.suffix_ids] for ids in self.encode_batch(texts)]

    def _encode_with(self, backend: tokenizers.Tokenizer, text: str) -> list[int]:
        try:
            return self.checked(backend.encode(text, add_special_tokens=False).ids)
        except (TypeError, UnicodeEncodeError):
            # half of a surrogate pair is the one thing that a str can hold and UTF-8 cannot
            at = next((i for i, c in enumerate(text) if "\ud800" <= c <= "\udfff"), None)
            if at is None:
                raise
            raise UserError(f"the text is not valid Unicode: half a surrogate pair at character {at:,}") from None

    @cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        """The same tokenizer without its control tokens: their text is ordinary text to it."""
        return self._without_control_tokens(self._definition)

    @cached_property
    def _mid_line(self) -> tokenizers.Tokenizer:
        """`_plain` for text in the middle of a line: without SentencePiece's leading space."""
        definition = json.loads(json.dumps(self._definition))
        for step in _steps(definition):
            if step["type"] == "Prepend":
                step["prepend"] = ""
            elif step["type"] == "Metaspace":
                step["prepend_scheme"] = "never"
            elif step["type"] == "ByteLevel":
                step["add_prefix_space"] = False
        return self._without_control_tokens(definition)

    @cached_property
    def _space_only_first(self) -> bool:
        return any(step.get("prepend_scheme") == "first" for step in _steps(self._definition))

    def _without_control_tokens(self, definition: dict) -> tokenizers.Tokenizer:
        # marked special they can be switched off; removed, they would leave their ids to the tokens after them
        added = [token | {"special": token["content"] in self.control_tokens} for token in definition["added_tokens"]]
        changed = tokenizers.Tokenizer.from_str(json.dumps(definition | {"added_tokens": added}))
        changed.encode_special_tokens = True
        return changed

    # ----------------------------------------------------------------------------------------------- ids to text

    def decode(self, ids: list[int], *, keep_special: bool = False) -> str:
        """Text of ids; control tokens, and the space that SentencePiece puts first, only with `keep_special`."""
        if keep_special and self._verbatim is not None:
            pieces = [self.backend.id_to_token(i) for i in ids]
            return self._verbatim.decode([piece for piece in pieces if piece is not None])
        return self.backend.decode(ids, skip_special_tokens=not keep_special)

    @cached_property
    def _verbatim(self) -> tokenizers.decoders.Decoder | None:
        """The decoder without the step that strips the first space; None if it has no such step."""
        decoder = self._definition["decoder"] or {}
        steps = decoder["decoders"] if decoder.get("type") == "Sequence" else [decoder]
        # the two steps that remove a leading space
        if not any(step.get("type") in ("Strip", "Metaspace") for step in steps):
            return None
        kept = [step | {"prepend_scheme": "never"} if step["type"] == "Metaspace" else step for step in steps]
        kept = [step for step in kept if step["type"] != "Strip"]

        # a decoder can be built from JSON only as part of a tokenizer
        empty = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}}
        empty |= dict.fromkeys(("normalizer", "pre_tokenizer", "post_processor", "truncation", "padding"))
        definition = empty | {"decoder": {"type": "Sequence", "decoders": kept}}
        return tokenizers.Tokenizer.from_str(json.dumps(definition)).decoder

    # -------------------------------------------------------------------------------- special tokens around a text

    @cached_property
    def prefix_ids(self) -> list[int]:
        """What the model expects before a plain document: its BOS token, if it has one.

        From tokenizer.json's post-processor, or from `add_bos_token`: DeepSeek's files have only the latter, which
        transformers 4 followed and transformers 5 ignores; the model was trained with it.
        """
        # the post-processor first, then the setting
        before, _ = self._added_around
        bos = _token_text(self.settings.get("bos_token"))
        if before or self.settings.get("add_bos_token") is not True or bos not in self.control_tokens:
            return before
        return self.checked([self.control_tokens[bos]])

    @cached_property
    def suffix_ids(self) -> list[int]:
        """What an encoder expects after a text: [SEP], or an EOS, whose hidden state last-token pooling takes.

        From tokenizer.json's post-processor, or from `add_eos_token`: e5-mistral's files have only the latter, which
        transformers 4 followed and transformers 5 ignores (github.com/embeddings-benchmark/mteb/pull/5237).
        UserError if the setting refers to a token that the files do not name.
        """
        _, after = self._added_around
        if after or self.settings.get("add_eos_token") is not True:
            return after
        eos = None if self.eos_token is None else self.backend.token_to_id(self.eos_token)
        if eos is None:
            raise UserError(f"tokenizer_config.json: add_eos_token is true, but eos_token is {self.eos_token!r}")
        return [eos]

    @cached_property
    def _added_around(self) -> tuple[list[int], list[int]]:
        """What the post-processor adds before and after a text: [CLS] and [SEP], or a BOS and nothing."""
        # encode a word with and without, and find it in the longer result
        word = self.backend.encode("a", add_special_tokens=False).ids
        whole = self.backend.encode("a", add_special_tokens=True).ids
        start = next(i for i in range(len(whole)) if whole[i : i + len(word)] == word)
        return self.checked(whole[:start]), self.checked(whole[start + len(word) :])

    @cached_property
    def eos_id(self) -> int:
        """The token that ends a document. UserError if the model's files name none."""
        # the tokenizer's end token, else the model's first
        ids = [self.backend.token_to_id(self.eos_token)] if self.eos_token is not None else []
        ids = [id_ for id_ in (*ids, *self._eos_ids) if id_ is not None]
        if ids:
            return self.checked(ids[:1])[0]
        raise UserError("the model's files name no end-of-text token (eos_token in tokenizer_config.json)")

    # ------------------------------------------------------------------------------- tokens against embedding rows

    @cached_property
    def without_row(self) -> dict[int, str]:
        """Tokens beyond the model's embedding, by id: added to the tokenizer without resizing the model.

        Harmless as long as they never occur, like a padding token (LLaMA's [PAD]) or an image token (Gemma 3).
        """
        if self.embedding_rows is None:
            return {}
        return {id_: text for id_, text in self._text_of.items() if id_ >= self.embedding_rows}

    @cached_property
    def unused_ids(self) -> list[int]:
        """Ids of the embedding that have no token: rows that pad it to a round number. Never to be generated."""
        return [id_ for id_ in range(self.embedding_rows or 0) if id_ not in self._text_of]

    @cached_property
    def _text_of(self) -> dict[int, str]:
        return {id_: text for text, id_ in self.backend.get_vocab(with_added_tokens=True).items()}

    def checked(self, ids: list[int]) -> list[int]:
        """The same ids. UserError if the model's embedding has no row for one of them."""
        if self.without_row and (beyond := next((id_ for id_ in ids if id_ in self.without_row), None)) is not None:
            raise UserError(
                f"the text has the token {self.without_row[beyond]!r} with the id {beyond}, but the model's embedding "
                f"has only {self.embedding_rows} rows: tokens were added without resizing the model. Resize and save "
                "it (transformers: model.resize_token_embeddings(len(tokenizer))), or use the model's own tokenizer"
            )
        return ids

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json."""
        self.backend.save(str(folder / "tokenizer.json"))
        write_json(folder / "tokenizer_config.json", self.settings)


def _steps(definition: dict) -> list[dict]:
    """The steps of a tokenizer's normalizer and pre-tokenizer, nested sequences flattened."""
    waiting = [definition.get("normalizer"), definition.get("pre_tokenizer")]
    steps = []
    while waiting:
        step = waiting.pop(0)
        if step is None:
            continue
        waiting += step.get("normalizers", []) + step.get("pretokenizers", [])
        steps.append(step)
    return steps


def _named_templates(value) -> dict[str, str]:
    """tokenizer_config.json's chat_template: one text, or a list of {"name", "template"}."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {"default": value}
    try:
        return {entry["name"]: entry["template"] for entry in value}
    except (TypeError, KeyError):
        raise UserError("tokenizer_config.json: chat_template is neither a text nor a list of named texts") from None


def _special_tokens(settings: dict) -> dict[str, str | None]:
    """The texts of bos_token, eos_token …, which a chat template may read."""
    return {
        key: _token_text(value)
        for key, value in settings.items()
        if key.endswith("_token") and isinstance(value, str | dict)
    }


def _is_control(token: dict, templates: str) -> bool:
    """Whether an added token is a control token: special, or of the form <|…|> (Qwen's <|fim_prefix|> is not marked
    special), or written by the chat template (Qwen's <tool_call>). Others are words, as Gemma 3's <table>.
    """
    text = token["content"]
    if token["special"] or re.fullmatch(r"<[|｜].+[|｜]>", text):
        return True
    return not text.isspace() and text in templates


def _token_text(value) -> str | None:
    """tokenizer_config.json writes a token as a string or as an object with its content."""
    return value.get("content") if isinstance(value, dict) else value if isinstance(value, str) else None
