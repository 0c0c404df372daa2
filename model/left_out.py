"""What a chat template leaves out: it may take no notice of tools, of a role, of the words beside a call, of a thought.

The template is asked, by one more rendering with a mark in each part; a part whose mark does not come back was left
out. The words themselves would not do: a template may trim, escape or reorder them, and they may stand elsewhere too.
"""

from __future__ import annotations

import json
import re

from common.console import UserError

THOUGHTS = {"reasoning_content", "reasoning", "thinking"}  # beside the content, by the names in use
END_OF_THOUGHT = "</think>"
OF_TOOLS = ("tool", "function", "ipython")  # roles whose "name" only repeats which call they answer


def left_out(
    tokenizer, messages: list[dict], tools: list[dict] | None, *, add_generation_prompt: bool = False
) -> list[str]:
    """Names of the parts of a conversation that the template of `tokenizer`, a Tokenizer, does not write.

    Parts are each message's words, name and calls, each tool, and the thoughts of an answer that comes last: earlier
    ones most templates leave out on purpose.
    """
    given = json.dumps([messages, tools], ensure_ascii=False)
    left, right, *_ = (mark for mark in map(chr, range(0xFDD0, 0xFDF0)) if mark not in given)
    names: list[str] = []

    def marked(text: str, name: str, start: int = 0, stop: int | None = None) -> str:
        """The text with a new mark after its first letter between start and stop; unchanged where it says nothing."""
        found = re.compile(r"\w").search(text, start, len(text) if stop is None else stop)
        found = found or re.compile(r"\S").search(text, start, len(text) if stop is None else stop)
        if found is None:
            return text
        names.append(name)
        return f"{text[: found.end()]}{left}{len(names) - 1}{right}{text[found.end() :]}"

    last = len(messages) - 1 if messages and not add_generation_prompt else None
    shown = [_marked_message(message, i + 1, marked, is_last=i == last) for i, message in enumerate(messages)]
    given_tools = [_marked_name(tool, '"tools"', marked) for tool in tools] if tools else tools
    try:
        text = tokenizer.render(shown, add_generation_prompt=add_generation_prompt, tools=given_tools)
    except UserError:  # it picks the marked texts to pieces: nothing can be said
        return []
    return list(dict.fromkeys(name for i, name in enumerate(names) if f"{left}{i}{right}" not in text))


def has_thought(message: dict) -> bool:
    """Whether an answer comes with what was thought before it, beside its words or among them."""
    among = END_OF_THOUGHT in (message.get("content") or "")
    return message["role"] == "assistant" and (among or any(message.get(key) for key in THOUGHTS))


def _marked_message(message: dict, number: int, marked, *, is_last: bool) -> dict:
    where = f"of message {number}"
    read = dict(message)
    content = message.get("content")
    if isinstance(content, str):
        after = content.rfind(END_OF_THOUGHT) + len(END_OF_THOUGHT) if END_OF_THOUGHT in content else 0
        what = "the system message" if message["role"] == "system" else f"the words {where} ({message['role']})"
        read["content"] = marked(content, what, after)
        if after and is_last:
            begin = content.find("<think>") + len("<think>") if "<think>" in content else 0
            thought = content[begin : after - len(END_OF_THOUGHT)]
            if thought.strip():
                read["content"] = marked(read["content"], f"the thought {where}", begin, begin + len(thought))
    if message["role"] not in OF_TOOLS and isinstance(message.get("name"), str):
        read["name"] = marked(message["name"], f'"name" {where}')
    if message.get("tool_calls"):
        read["tool_calls"] = [_marked_name(call, f'"tool_calls" {where}', marked) for call in message["tool_calls"]]
    for key in sorted(key for key in THOUGHTS if is_last and message.get(key)):
        read[key] = marked(message[key], f'"{key}" {where}')
    return read


def _marked_name(tool: dict, what: str, marked) -> dict:
    """A tool or a call with a mark in its function's name."""
    function = tool.get("function", tool)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return tool
    function = {**function, "name": marked(function["name"], what)}
    return {**tool, "function": function} if "function" in tool else function
