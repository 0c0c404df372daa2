"""Which parts of a conversation a chat template does not render: tools, a role, the text beside a call, a thought.

Found by rendering once more with a unique mark in each part: a part whose mark is missing from the text was dropped.
Searching for the parts themselves would not do: a template may trim, escape or reorder them, and they may occur
elsewhere too.
"""

from __future__ import annotations

import json
import re

from common.console import UserError
from model.chat_template import ChatTemplate

THOUGHTS = {"reasoning_content", "reasoning", "thinking"}  # message fields for it, by the names in use
END_OF_THOUGHT = "</think>"
TOOL_ROLES = ("tool", "function", "ipython")  # their "name" only repeats which call they answer


def unrendered_parts(
    template: ChatTemplate, messages: list[dict], tools: list[dict] | None, *, add_generation_prompt: bool = False
) -> list[str]:
    """Names of the parts of a conversation that the template does not render.

    Parts are each message's text, name and calls, each tool, and the thoughts of the last answer: most templates drop
    earlier thoughts on purpose.
    """
    # a mark in every part
    marks = _Marks(json.dumps([messages, tools], ensure_ascii=False))
    last = len(messages) - 1 if messages and not add_generation_prompt else None
    marked = [_mark_message(message, i + 1, marks, is_last=i == last) for i, message in enumerate(messages)]
    marked_tools = [_mark_function(tool, '"tools"', marks) for tool in tools] if tools else tools
    # which marks come out; nothing can be said of a template that parses the marked texts
    try:
        text = template.render(marked, add_generation_prompt=add_generation_prompt, tools=marked_tools)
    except UserError:
        return []
    return marks.missing_from(text)


def has_thought(message: dict) -> bool:
    """Whether an answer comes with its reasoning, in a field of its own or inside the content."""
    is_inside = END_OF_THOUGHT in (message.get("content") or "")
    return message["role"] == "assistant" and (is_inside or any(message.get(key) for key in THOUGHTS))


def unused_marks(given: str) -> tuple[str, str]:
    """Two characters that do not occur in `given`: Unicode's noncharacters, which no real text contains."""
    left, right, *_ = (mark for mark in map(chr, range(0xFDD0, 0xFDF0)) if mark not in given)
    return left, right


class _Marks:
    """Numbered marks, one for each part of a conversation."""

    def __init__(self, given: str) -> None:
        self.left, self.right = unused_marks(given)
        self.names: list[str] = []  # of the parts, in the order of their marks

    def put(self, text: str, name: str, start: int = 0, stop: int | None = None) -> str:
        """The text with a mark after its first letter between start and stop; unchanged if it is blank there."""
        # after a letter, where no trimming removes it
        stop = len(text) if stop is None else stop
        first = re.compile(r"\w").search(text, start, stop) or re.compile(r"\S").search(text, start, stop)
        if first is None:
            return text
        self.names.append(name)
        return f"{text[: first.end()]}{self._mark(len(self.names) - 1)}{text[first.end() :]}"

    def missing_from(self, text: str) -> list[str]:
        """Names of the parts whose mark the text lacks."""
        return list(dict.fromkeys(name for i, name in enumerate(self.names) if self._mark(i) not in text))

    def _mark(self, number: int) -> str:
        return f"{self.left}{number}{self.right}"


def _mark_message(message: dict, number: int, marks: _Marks, *, is_last: bool) -> dict:
    """A message with a mark in its text, its name, its calls and, in the last one, its thoughts."""
    where = f"of message {number}"
    marked = dict(message)

    # its text and, if that begins with a thought, both parts of it
    content = message.get("content")
    if isinstance(content, str):
        answer = content.rfind(END_OF_THOUGHT) + len(END_OF_THOUGHT) if END_OF_THOUGHT in content else 0
        what = "the system message" if message["role"] == "system" else f"the text {where} ({message['role']})"
        marked["content"] = marks.put(content, what, answer)
        if answer and is_last:
            begin = content.find("<think>") + len("<think>") if "<think>" in content else 0
            thought = content[begin : answer - len(END_OF_THOUGHT)]
            if thought.strip():
                marked["content"] = marks.put(marked["content"], f"the thought {where}", begin, begin + len(thought))

    # its other fields
    if message["role"] not in TOOL_ROLES and isinstance(message.get("name"), str):
        marked["name"] = marks.put(message["name"], f'"name" {where}')
    if message.get("tool_calls"):
        marked["tool_calls"] = [_mark_function(call, f'"tool_calls" {where}', marks) for call in message["tool_calls"]]
    for key in sorted(key for key in THOUGHTS if is_last and message.get(key)):
        marked[key] = marks.put(message[key], f'"{key}" {where}')
    return marked


def _mark_function(tool: dict, what: str, marks: _Marks) -> dict:
    """A tool or a call with a mark in its function's name."""
    function = tool.get("function", tool)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return tool
    function = {**function, "name": marks.put(function["name"], what)}
    return {**tool, "function": function} if "function" in tool else function
