"""A model's chat template: messages in, text out, and what rendering reveals about the template itself.

Nothing here names a model family. The control token that ends a turn, the generation prompt of a template that has
none, how a call's arguments must be given: each is found by rendering a small conversation and reading the result.
The template sees no token ids; which texts are control tokens it is given (model/tokenizer.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

import jinja2

from common.console import UserError
from model.template_engine import compile_template, render_template

QUESTION = {"role": "user", "content": "?"}
PROBE = "\ufdd0"  # an answer that no template writes by itself: one of Unicode's noncharacters


class Piece(NamedTuple):
    """A stretch of rendered text: one control token, or plain text between two of them."""

    text: str
    is_special: bool


class ChatTemplate:
    """A chat template, by name where a model has several ("default", "tool_use")."""

    def __init__(self, sources: dict[str, str], *, control_tokens: Iterable[str], variables: dict[str, object]) -> None:
        """`sources` are Jinja, by name. `variables` are what a template can read besides the conversation:
        special tokens such as bos_token, and options such as Qwen3's enable_thinking.
        """
        self.sources = sources
        self.variables = variables
        # matches a control token, the longest where several begin; nothing if there is none
        longest_first = sorted(control_tokens, key=len, reverse=True)
        self.control_pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def render(
        self, messages: list[dict], *, add_generation_prompt: bool = False, tools: list[dict] | None = None
    ) -> str:
        """The conversation as text.

        messages  [{"role", "content"}], and whatever else the template reads: "tool_calls", "reasoning_content";
                  "weight" is the loss mask's and hidden from the template
        tools     JSON schemas, [{"type": "function", "function": {"name", "description", "parameters"}}]
        Raises UserError if there is no template, and with the template's own reason if it refuses.
        """
        # a field without a value is absent: a template may ask whether it is defined
        visible = [
            {key: value for key, value in message.items() if value is not None and key != "weight"}
            for message in messages
        ]
        conversation = {"messages": visible, "tools": tools, "documents": None}
        conversation["add_generation_prompt"] = add_generation_prompt
        return render_template(self._compiled[self._choose(tools)], self.variables | conversation)

    def _choose(self, tools: list[dict] | None) -> str:
        """The name of the template for a conversation with or without tools, as transformers chooses it."""
        name = "tool_use" if tools is not None and "tool_use" in self.sources else "default"
        if name not in self.sources:
            others = f"; it has only {', '.join(self.sources)}" if self.sources else ""
            raise UserError(
                f"the model has no chat template (tokenizer_config.json or chat_template.jinja){others}; use an "
                "instruct model or give one with --chat-template FILE"
            )
        return name

    @cached_property
    def _compiled(self) -> dict[str, jinja2.Template]:
        return {name: compile_template(source) for name, source in self.sources.items()}

    @cached_property
    def turn_end(self) -> str | None:
        """The first control token written after an assistant's message; None if there is none, or no template."""
        if "default" not in self.sources:
            return None
        # render an answer and look at what follows it
        _, found, after = self.render([QUESTION, {"role": "assistant", "content": PROBE}]).rpartition(PROBE)
        if not found:
            raise UserError("the model's chat template omits the assistant's messages; give one with --chat-template")
        return next((piece.text for piece in self.split_control(after) if piece.is_special), None)

    @cached_property
    def fallback_generation_prompt(self) -> str:
        """What a template without a generation prompt writes before an answer, such as "assistant: "; else ""."""
        # it has a generation prompt of its own
        prompt = self.render([QUESTION], add_generation_prompt=True)
        if prompt != self.render([QUESTION]):
            return ""

        # render an answer and look at what stands between the question and it
        whole = self.render([QUESTION, {"role": "assistant", "content": PROBE}])
        return whole[len(prompt) :].partition(PROBE)[0] if whole.startswith(prompt) else ""

    @cached_property
    def arguments_as_text(self) -> bool:
        """Whether the template accepts the arguments of a call only as JSON text, not as an object."""

        def accepts(arguments) -> bool:
            function = {"name": "f", "arguments": arguments}
            call = {"id": "abcdefghi", "type": "function", "function": function}
            try:
                self.render([QUESTION, {"role": "assistant", "content": "", "tool_calls": [call]}])
            except UserError:
                return False
            return True

        return not accepts({"x": "y"}) and accepts('{"x": "y"}')

    @property
    def parses_thoughts(self) -> bool:
        """Whether the template looks for think tags in an answer, as Qwen3's does."""
        return "</think>" in self.sources.get("default", "")

    def split_control(self, markup: str) -> list[Piece]:
        """Markup that the template wrote, split into control tokens and the text between them."""
        # text, token, text, token, …, text; empty texts are dropped
        pieces, at = [], 0
        for found in self.control_pattern.finditer(markup):
            pieces += [Piece(markup[at : found.start()], False), Piece(found[0], True)]
            at = found.end()
        return [piece for piece in [*pieces, Piece(markup[at:], False)] if piece.text]
