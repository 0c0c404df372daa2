"""A conversation taken apart: which stretches the template wrote, which are words, and which the assistant learns.

    <|im_start|> user ⏎ Fix this … <|im_end|> ⏎ <|im_start|> assistant ⏎ ┆ return a + b <|im_end|> ┆ ⏎
    └────────────────── the prompt, as the template itself asks ────────┘ └────── learnt ────────┘

Nothing here knows a family. The template is asked: for the prompt of each answer, and for the conversation up to it.
What follows the prompt, up to the token that ends a turn, is the answer. So an answer is trained exactly as it will be
asked for, whatever the template strips, moves or adds.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from common.console import UserError
from model.left_out import has_thought, left_out

THINK = ("<think>", "</think>")


@dataclass(frozen=True)
class Segment:
    """A stretch of a rendered conversation: one control token, or plain text between two of them."""

    text: str
    is_special: bool
    is_learnt: bool  # the assistant's words, and what follows them up to the token that ends the turn


def split_conversation(
    tokenizer, messages: list[dict], *, add_generation_prompt: bool, tools: list[dict] | None
) -> list[Segment]:
    """What Tokenizer.segments returns; `tokenizer` is that Tokenizer."""
    messages = _with_arguments_as_written(tokenizer, messages)
    text = tokenizer.render(messages, add_generation_prompt=add_generation_prompt, tools=tools)
    spans = _learnt_spans(tokenizer, messages, tools, text)
    last = len(messages) - 1
    if messages[last]["role"] == "assistant" and not add_generation_prompt and last not in spans:
        messages = _system_in_question(tokenizer, messages, tools)
        text, last = tokenizer.render(messages, tools=tools), len(messages) - 1
        spans = _learnt_spans(tokenizer, messages, tools, text)
        if last not in spans:
            raise UserError(
                "the model's chat template does not write an answer after its own generation prompt, so what is "
                "trained would differ from what is asked for; give another one with --chat-template FILE"
            )
        spans = {last: spans[last]}
    pieces = _pieces(tokenizer, messages, tools, text, add_generation_prompt)
    _refuse_left_out(tokenizer, messages, tools, add_generation_prompt)
    if add_generation_prompt:
        pieces += tokenizer.split_control(tokenizer.answer_lead)
    return _cut(pieces, [span for i, span in spans.items() if messages[i].get("weight") != 0])


def _refuse_left_out(tokenizer, messages, tools, add_generation_prompt: bool) -> None:
    """UserError for a part that the template does not write: it would be neither learnt nor asked with."""
    missing = left_out(tokenizer, messages, tools, add_generation_prompt=add_generation_prompt)
    if not add_generation_prompt:  # a thought is written where its answer comes last, if anywhere
        ends = [i + 1 for i, message in enumerate(messages[:-1]) if has_thought(message)]
        missing += [name for end in ends for name in left_out(tokenizer, messages[:end], tools)]
    if missing:
        raise UserError(
            f"the model's chat template leaves out {', '.join(dict.fromkeys(missing))}: remove it, or give a template "
            "that writes it with --chat-template FILE"
        )


def _with_arguments_as_written(tokenizer, messages: list[dict]) -> list[dict]:
    """The messages, the arguments of their calls as JSON text for a template that adds them to text (DeepSeek's)."""
    if not any(message.get("tool_calls") for message in messages) or not tokenizer.arguments_as_text:
        return messages
    written = []
    for message in messages:
        calls = [_with_text(call) for call in message.get("tool_calls") or ()]
        written.append({**message, "tool_calls": calls} if calls else message)
    return written


def _with_text(call: dict) -> dict:
    function = call.get("function", call)
    arguments = function.get("arguments", {})
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    written = {**function, "arguments": text}
    return {**call, "function": written} if "function" in call else written


def _learnt_spans(tokenizer, messages, tools, text: str) -> dict[int, tuple[int, int]]:
    """Where in the rendered text each answer to be learnt begins and ends, by its message's index."""
    spans = {}
    for i, message in enumerate(messages):
        if message["role"] != "assistant" or i == 0:
            continue
        prompt = tokenizer.render(messages[:i], add_generation_prompt=True, tools=tools) + tokenizer.answer_lead
        if not text.startswith(prompt):
            continue
        alone = tokenizer.render(messages[: i + 1], tools=tools)
        end = _end_of_turn(tokenizer, messages[: i + 1], tools, alone, len(prompt))
        if text.startswith(alone[:end]):
            spans[i] = len(prompt), end
    return spans


def _end_of_turn(tokenizer, messages, tools, text: str, begin: int) -> int:
    """Just after the first token that ends a turn, from `begin` on; the text's end when the template has none."""
    at = 0
    for piece, is_special in _pieces(tokenizer, messages, tools, text, False):
        at += len(piece)
        if at > begin and is_special and piece == tokenizer.turn_end:
            return at
    return len(text)


def _system_in_question(tokenizer, messages, tools) -> list[dict]:
    """The system message at the head of the last question, if the template's own prompt says the same that way."""
    if messages[0]["role"] != "system" or len(messages) < 3:
        return messages
    system, *rest, question, answer = messages
    question = question | {"content": f"{system['content']}\n\n{question['content']}"}
    asked = tokenizer.render(messages[:-1], add_generation_prompt=True, tools=tools)
    if tokenizer.render([*rest, question], add_generation_prompt=True, tools=tools) != asked:
        return messages
    return [*rest, question, answer]


def _pieces(tokenizer, messages, tools, text: str, add_generation_prompt: bool) -> list[tuple[str, bool]]:
    """The rendered text as plain stretches and the control tokens, marked True, that the template itself wrote.

    Control tokens' texts in the messages are put between marks, which are found again in the rendered text.
    """
    pattern, given = tokenizer.control_pattern, json.dumps([messages, tools], ensure_ascii=False)
    if pattern.search(given) is None:
        return tokenizer.split_control(text)
    # Unicode's noncharacters are in no text that was meant to be one, and these two not in this one.
    left, right, *_ = (mark for mark in map(chr, range(0xFDD0, 0xFDF0)) if mark not in given)
    protect = partial(pattern.sub, rf"{left}\g<0>{right}")
    in_answer = _outside_think(protect) if "</think>" in (tokenizer.chat_template or "") else protect
    marked = tokenizer.render(
        [_map_text(message, in_answer if message["role"] == "assistant" else protect) for message in messages],
        add_generation_prompt=add_generation_prompt,
        tools=_map_text(tools, protect),
    )
    if marked.replace(left, "").replace(right, "") != text:
        raise UserError("the model's chat template rewrites the messages; words and markup cannot be told apart")
    # [markup, words or None, markup, …]: a mark that the template parted from its partner still parts its neighbours
    parts = re.split(f"{left}({pattern.pattern}){right}|[{left}{right}]", marked)
    pieces = []
    for markup, words in itertools.zip_longest(parts[::2], parts[1::2]):
        pieces += [*tokenizer.split_control(markup), (words or "", False)]
    return pieces


def _outside_think(change: Callable[[str], str]) -> Callable[[str], str]:
    """A template that takes an answer's think block apart, as Qwen3's does, must find its two tags as they are."""
    return lambda words: "".join(
        part if part in THINK else change(part) for part in re.split(f"({'|'.join(THINK)})", words)
    )


def _map_text(value, change: Callable[[str], str]):
    """The same JSON value with every string in it changed, keys too: those of a call's arguments come from the data."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _map_text(item, change) for key, item in value.items()}
    return [_map_text(item, change) for item in value] if isinstance(value, list | tuple) else value


def _cut(pieces: list[tuple[str, bool]], spans: list[tuple[int, int]]) -> list[Segment]:
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
