"""A rendered conversation in segments: control tokens, plain text, and what the assistant is trained to write.

    <|im_start|> user ⏎ Fix this … <|im_end|> ⏎ <|im_start|> assistant ⏎ ┆ return a + b <|im_end|> ┆ ⏎
    └──────────────── the prompt, as the template renders it ───────────┘ └───── supervised ─────┘

Nothing here names a model family. The template renders the prompt of each answer, and the conversation up to that
answer; what follows the prompt, up to the token that ends the turn, is the answer. So an answer is trained exactly as
it will be generated, whatever the template strips, moves or adds.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from common.console import UserError
from model.chat_template import ChatTemplate, Piece
from model.unrendered import has_thought, unrendered_parts, unused_marks

THINK_TAGS = ("<think>", "</think>")


@dataclass(frozen=True)
class Segment:
    """A stretch of a rendered conversation: one control token, or plain text between two of them."""

    text: str
    is_special: bool
    is_supervised: bool  # the assistant's message, up to and including the token that ends the turn


def split_conversation(
    template: ChatTemplate,
    messages: list[dict],
    *,
    add_generation_prompt: bool = False,
    tools: list[dict] | None = None,
) -> list[Segment]:
    """The rendered conversation in segments, whose texts join to exactly `template.render(...)`; two exceptions below.

    Plain text is split only at control tokens and where the assistant begins to speak, so that the ids of a prompt are
    a prefix of the ids of prompt + answer whatever the answer begins with. An answer is supervised if it appears here
    as it would be generated: right after its own generation prompt, and as it was when it came last. An earlier answer
    that the template has changed since (Qwen3 removes its think block) is context only.

    Exceptions: a template without a generation prompt gets what it writes before an answer as one. A system message
    that the template renders only while no answer follows (Mistral) moves into the last question.
    Raises UserError if the last message is an answer that does not follow its prompt, so that it cannot be trained; and
    for parts that the template drops: tools, a system message, a thought, the text beside a call.
    """
    # the text, and where in it the answers are: message → (begin, end)
    messages = _with_arguments_as_accepted(template, messages)
    text = template.render(messages, add_generation_prompt=add_generation_prompt, tools=tools)
    spans = _answer_spans(template, messages, tools, text)

    # the last answer must be one of them; Mistral's system message may be in the way
    last = len(messages) - 1
    if messages[last]["role"] == "assistant" and not add_generation_prompt and last not in spans:
        messages = _with_system_in_question(template, messages, tools)
        text, last = template.render(messages, tools=tools), len(messages) - 1
        spans = _answer_spans(template, messages, tools, text)
        if last not in spans:
            raise UserError(
                "the model's chat template does not write an answer after its own generation prompt, so training would "
                "differ from use; give another one with --chat-template FILE"
            )
        spans = {last: spans[last]}

    # control tokens apart from text, and nothing left out
    pieces = _pieces(template, messages, tools, text, add_generation_prompt)
    _refuse_unrendered(template, messages, tools, add_generation_prompt)
    if add_generation_prompt:
        pieces += template.split_control(template.fallback_generation_prompt)

    # answers of weight 0 are context only
    return _segments(pieces, [span for i, span in spans.items() if messages[i].get("weight") != 0])


def _refuse_unrendered(template: ChatTemplate, messages, tools, add_generation_prompt: bool) -> None:
    """UserError for a part that the template drops: the model would see it neither in training nor in use."""
    missing = unrendered_parts(template, messages, tools, add_generation_prompt=add_generation_prompt)
    # a thought is rendered while its answer comes last, if ever
    if not add_generation_prompt:
        ends = [i + 1 for i, message in enumerate(messages[:-1]) if has_thought(message)]
        missing += [name for end in ends for name in unrendered_parts(template, messages[:end], tools)]
    if missing:
        raise UserError(
            f"the model's chat template leaves out {', '.join(dict.fromkeys(missing))}: remove it, or give a template "
            "that renders it with --chat-template FILE"
        )


def _with_arguments_as_accepted(template: ChatTemplate, messages: list[dict]) -> list[dict]:
    """The messages, with their calls' arguments as JSON text if the template concatenates them (DeepSeek)."""
    if not any(message.get("tool_calls") for message in messages) or not template.arguments_as_text:
        return messages
    converted = []
    for message in messages:
        calls = [_with_text_arguments(call) for call in message.get("tool_calls") or ()]
        converted.append({**message, "tool_calls": calls} if calls else message)
    return converted


def _with_text_arguments(call: dict) -> dict:
    function = call.get("function", call)
    arguments = function.get("arguments", {})
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    function = {**function, "arguments": text}
    return {**call, "function": function} if "function" in call else function


def _answer_spans(template: ChatTemplate, messages, tools, text: str) -> dict[int, tuple[int, int]]:
    """Where each supervised answer begins and ends in the rendered text, by its message's index."""
    spans = {}
    for i, message in enumerate(messages):
        if message["role"] != "assistant" or i == 0:
            continue

        # begins after its own prompt, if the conversation begins with that
        prompt = template.render(messages[:i], add_generation_prompt=True, tools=tools)
        prompt += template.fallback_generation_prompt
        if not text.startswith(prompt):
            continue

        # ends with its turn, if it is still written as it was when it came last
        up_to_here = messages[: i + 1]
        rendered = template.render(up_to_here, tools=tools)
        end = _end_of_turn(template, up_to_here, tools, rendered, len(prompt))
        if text.startswith(rendered[:end]):
            spans[i] = len(prompt), end
    return spans


def _end_of_turn(template: ChatTemplate, messages, tools, text: str, begin: int) -> int:
    """Just after the first turn-ending token after `begin`; the text's end if the template has no such token."""
    at = 0
    for piece in _pieces(template, messages, tools, text, False):
        at += len(piece.text)
        if at > begin and piece.is_special and piece.text == template.turn_end:
            return at
    return len(text)


def _with_system_in_question(template: ChatTemplate, messages, tools) -> list[dict]:
    """The system message prepended to the last question, if the template renders the prompt identically that way."""
    if messages[0]["role"] != "system" or len(messages) < 3:
        return messages
    system, *rest, question, answer = messages
    question = question | {"content": f"{system['content']}\n\n{question['content']}"}
    # the same prompt, now without a system message
    prompt = template.render(messages[:-1], add_generation_prompt=True, tools=tools)
    if template.render([*rest, question], add_generation_prompt=True, tools=tools) != prompt:
        return messages
    return [*rest, question, answer]


def _pieces(template: ChatTemplate, messages, tools, text: str, add_generation_prompt: bool) -> list[Piece]:
    """The rendered text as plain text and those control tokens that the template itself wrote.

    A control token's text inside the messages is put between marks, which are then located in the rendered text.
    """
    # no message contains a control token: the template wrote them all
    pattern, given = template.control_pattern, json.dumps([messages, tools], ensure_ascii=False)
    if pattern.search(given) is None:
        return template.split_control(text)

    # render once more with marks around those in the messages
    left, right = unused_marks(given)
    protect = partial(pattern.sub, rf"{left}\g<0>{right}")
    protect_answer = _outside_think_tags(protect) if template.parses_thoughts else protect
    marked = template.render(
        [_map_strings(message, protect_answer if message["role"] == "assistant" else protect) for message in messages],
        add_generation_prompt=add_generation_prompt,
        tools=_map_strings(tools, protect),
    )
    if marked.replace(left, "").replace(right, "") != text:
        raise UserError("the model's chat template rewrites the messages: text and markup cannot be distinguished")

    # [markup, text or None, markup, …]: a mark that the template separated from its partner still splits the text
    parts = re.split(f"{left}({pattern.pattern}){right}|[{left}{right}]", marked)
    pieces = []
    for markup, message_text in itertools.zip_longest(parts[::2], parts[1::2]):
        pieces += [*template.split_control(markup), Piece(message_text or "", False)]
    return pieces


def _outside_think_tags(change: Callable[[str], str]) -> Callable[[str], str]:
    """`change` that leaves think tags alone: a template that parses them must find them as they are."""
    tags = re.compile(f"({'|'.join(THINK_TAGS)})")
    return lambda text: "".join(part if part in THINK_TAGS else change(part) for part in tags.split(text))


def _map_strings(value, change: Callable[[str], str]) -> Any:
    """The same JSON value with every string changed, keys included: keys of a call's arguments are data too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _map_strings(item, change) for key, item in value.items()}
    return [_map_strings(item, change) for item in value] if isinstance(value, list | tuple) else value


def _segments(pieces: list[Piece], spans: list[tuple[int, int]]) -> list[Segment]:
    """Adjacent plain pieces joined, and cut where a supervised span begins or ends."""
    cuts = {point for span in spans for point in span}
    segments: list[Segment] = []
    at = 0  # characters before this piece
    for text, is_special in pieces:
        # the borders inside this piece, counted from its beginning
        points = [0, *sorted(cut - at for cut in cuts if at < cut < at + len(text)), len(text)]
        for begin, end in itertools.pairwise(points):
            is_supervised = any(first <= at + begin < last for first, last in spans)
            # text joins the text before it, unless a span begins or ends here
            previous = segments[-1] if segments else None
            if previous and not is_special and not previous.is_special and at + begin not in cuts:
                segments[-1] = Segment(previous.text + text[begin:end], False, is_supervised)
            elif end > begin:
                segments.append(Segment(text[begin:end], is_special, is_supervised))
        at += len(text)
    return segments
