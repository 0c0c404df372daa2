"""Reads one message of a conversation, in any of the spellings in use, as a chat template takes it.

Supported are OpenAI's fields (`content` as text or parts, `tool_calls`, `weight`), axolotl's `train` and ms-swift's
`loss`. What would change the meaning and cannot be expressed here is refused by name. Any other key is passed to the
template; model/unrendered.py checks later whether the template renders what matters.
"""

from __future__ import annotations

from common.files import parse_json
from model.unrendered import THOUGHTS

OTHER_NAMES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant",
               "ai": "assistant"}  # fmt: skip
FLAGS = ("weight", "train", "loss")  # whether an answer is trained on: 1 or 0, true or false
TEXT_PARTS = ("text", "input_text", "output_text")
ONLY_TEXT = "is not read: only text can be learnt from; remove it, or the row"
MASKS = 'is not read: give an answer not to train on "weight": 0'
REFUSED = {
    **dict.fromkeys(("image", "images", "video", "videos", "audio", "audios", "documents"), ONLY_TEXT),
    **dict.fromkeys(("mask", "masked", "loss_mask", "train_detail"), MASKS),
    "function_call": 'is not read: write it as "tool_calls"',
}


def read_message(message: dict, where: str) -> dict:
    """The message with "role", "content" as text, `tool_calls` in OpenAI's nested form with arguments as objects, and
    "weight": 0 if it is an answer not to train on.

    where  prefix of errors, such as "message 2"
    ValueError says what cannot be read or honoured.
    """
    # empty fields say nothing, except for empty content
    message = {key: value for key, value in message.items() if key == "content" or not is_empty(value)}
    for key, what_to_do in REFUSED.items():
        if key in message:
            raise ValueError(f'{where}: "{key}" {what_to_do}')

    # the fields that a template knows, in the form in which it knows them
    read = {key: value for key, value in message.items() if key not in FLAGS}
    read["role"] = _role(message, where)
    if "tool_calls" in message:
        calls = from_json(message["tool_calls"])
        if read["role"] != "assistant" or not isinstance(calls, list):
            raise ValueError(f'{where}: "tool_calls" must be a list in an assistant message')
        read["tool_calls"] = [_tool_call(call, where) for call in calls]
    for key in THOUGHTS & message.keys():
        if not isinstance(message[key], str):
            raise ValueError(f'{where}: "{key}" must be a string, not {type(message[key]).__name__}')
    read["content"] = _content(message, where)

    # the flags of other tools become one: "weight": 0
    return read if _is_supervised(message, read["role"], where) else {**read, "weight": 0}


def is_empty(value) -> bool:
    """Null or empty, as in tables whose columns serve all rows."""
    return value is None or value in ("", [], {})


def from_json(value):
    """Decodes JSON text, as in tables without nested values; returns anything else unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
    except ValueError:
        return value


def text_of(row: dict, key: str) -> str:
    """A field that must be text; ValueError if it is missing or something else."""
    if key not in row:
        raise ValueError(f'"{key}" is missing (this line has: {", ".join(row)})')
    if not isinstance(row[key], str):
        raise ValueError(f'"{key}" must be a string, not {type(row[key]).__name__}')
    return row[key]


def says_nothing(message: dict) -> bool:
    """Whether a message has no text, tool calls or thoughts."""
    return not message["content"].strip() and not (THOUGHTS | {"tool_calls"}) & message.keys()


def _role(message: dict, where: str) -> str:
    role = text_of(message, "role")
    # unknown roles are the template's business; a known one under another name would be rendered as something else
    usual = OTHER_NAMES.get(role.lower(), role.lower())
    if usual != role and usual in ("system", "user", "assistant", "tool"):
        raise ValueError(f'{where}: the role "{role}" is called "{usual}" here; rename it')
    return role


def _content(message: dict, where: str) -> str:
    """Text unchanged; a list of parts as their texts, one per line. Calls and thoughts need no content."""
    content = message.get("content")
    if content is None and (THOUGHTS | {"tool_calls"}) & message.keys():
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        what = "must be a string" if "content" in message else "is missing"
        raise ValueError(f'{where}: "content" {what} (this message has: {", ".join(message)})')

    # a list of parts, of which only text can be learnt from
    texts = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        text = part.get("text") if isinstance(part, dict) else part
        if kind not in TEXT_PARTS or not isinstance(text, str):
            raise ValueError(f'{where}: a part of the type "{kind}" {ONLY_TEXT}')
        texts.append(text)
    return "\n".join(texts)


def _tool_call(call, where: str) -> dict:
    """{"type": "function", "function": {"name", "arguments": object}, …} of a nested or a flat call.

    In OpenAI's own files the arguments are JSON text; templates apply `tojson`, which would quote it once more (vLLM
    parses them for the same reason).
    """
    if not isinstance(call, dict):
        raise ValueError(f'{where}: "tool_calls" must be a list of {{"function": {{"name", "arguments"}}}}')
    # nested, {"function": {"name", "arguments"}}, or flat, {"name", "arguments"}
    function = call.get("function", call)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError(f'{where}: a tool call without a "name"')

    # arguments: an object, or its JSON text
    arguments = function.get("arguments")
    arguments = {} if is_empty(arguments) else from_json(arguments)
    if not isinstance(arguments, dict):
        raise ValueError(f'{where}: the "arguments" of {function["name"]} must be a JSON object, or the text of one')

    # nested either way
    if "function" in call:
        return {**call, "type": "function", "function": {**function, "arguments": arguments}}
    named = {"id": call["id"]} if "id" in call else {}
    return {**named, "type": "function", "function": {"name": call["name"], "arguments": arguments}}


def _is_supervised(message: dict, role: str, where: str) -> bool:
    is_supervised = True
    for flag in FLAGS:
        value = message.get(flag)
        if value is None:
            continue
        if value not in (0, 1):
            raise ValueError(
                f'{where}: "{flag}" must be 0 or 1, false or true, not {value!r}: answers are not weighted'
            )
        if value and role != "assistant":
            raise ValueError(
                f'{where}: "{flag}" asks to learn a {role} message; remove it: the assistant\'s alone are learnt '
                "(all, with --train-on-prompt)"
            )
        # an answer is trained on unless any flag says no
        is_supervised = is_supervised and bool(value)
    return is_supervised or role != "assistant"
