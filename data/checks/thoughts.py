"""Separates a reasoning model's thoughts from its answer.

Such models write `<think> … </think>` and then the answer; where the chat template opens the tag, their text begins
without it. Inference servers remove the thoughts (the "reasoning parsers" of vLLM and SGLang); files of answers, and
what this project generates itself, still contain them.
"""

from __future__ import annotations

import itertools
import re
import textwrap

from common.markdown import blocks
from common.python_syntax import parsed

# <think> of DeepSeek-R1, Qwen3 and most others, <thinking>, <seed:think> of Seed-OSS, [THINK] of Magistral
_NAME = r"(?:seed:)?think(?:ing)?"
_END = re.compile(rf"</{_NAME}>|\[/THINK\]", re.IGNORECASE)
_START = re.compile(rf"^[ \t]*(?:<{_NAME}>|\[THINK\])", re.IGNORECASE | re.MULTILINE)
_AFTER_TAG = re.compile(r"[ \t]*(?:\r?\n(?:[ \t]*\r?\n)*)?")  # keeps the indentation of an answer on its own line


def split_thoughts(text: str) -> tuple[str, str]:
    """The thoughts in a model's text and the answer after them; concatenated they give the text.

    The answer follows the last closing tag and the blank lines after it. If thoughts are not closed, there is no
    answer, and all of the text is thoughts. A tag that is merely mentioned does not count: in inline code, in a string
    that ends on its line, or in Python that parses, whether a fenced block or the whole text.
    """
    begin = 0
    while (end := _first_tag(_END, text[begin:])) is not None:
        begin = _AFTER_TAG.match(text, begin + end).end()
    if _first_tag(_START, text[begin:]) is not None:
        return text, ""
    return text[:begin], text[begin:]


def _first_tag(tag: re.Pattern, text: str) -> int | None:
    """The end of the first tag that is not merely mentioned."""
    found = list(tag.finditer(text))
    if not found or parsed(textwrap.dedent(text)) is not None:
        return None
    code = _python_blocks(text)
    for match in found:
        in_code = any(first <= match.start() < last for first, last in code)
        if not in_code and not _is_quoted(text, match):
            return match.end()
    return None


def _python_blocks(text: str) -> list[tuple[int, int]]:
    """First and last offset of each fenced block of Python."""
    found = [block for block in blocks(text) if parsed(textwrap.dedent(block.text)) is not None]
    lines = re.split(r"(?<=\n)|(?<=\r)(?!\n)", text)
    offsets = list(itertools.accumulate(map(len, lines), initial=0))
    return [(offsets[block.start], offsets[min(block.stop, len(offsets) - 1)]) for block in found]


def _is_quoted(text: str, match: re.Match) -> bool:
    """Whether a quote or backtick opens before the match on its line and closes after it; an apostrophe opens none."""
    before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
    after = text[match.end() :].split("\n", 1)[0]
    return any(
        quote in after
        and before.count(quote) % 2 == 1
        and re.search(rf"(?<!\w)[rbfu]{{0,2}}{quote}[^{quote}]*\Z", before)
        for quote in "'\"`"
    )
