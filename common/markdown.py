"""Fenced code in Markdown: one reader and one writer for all texts with code between fences.

Blocks follow CommonMark (spec 0.31, sections 4.5, 5.1 and 5.2), parsed by markdown-it-py: any info string, three or
more backticks or tildes, up to three spaces of indentation, within lists and quotations, and unclosed. Two rules differ
from it, because the texts are answers of language models:

- A fence inside an open Python string does not end its block: a model whose answer has a docstring with an example
  seldom counts the marks. Where CommonMark ends a block in the middle of a triple-quoted string, later fences that
  could close it are tried, and the first with which the block parses is taken; if none does, CommonMark's is.
- A tag on a line of its own (`<answer>`) does not hide the fence on the next line, as it does in an HTML block.
"""

from __future__ import annotations

import functools
import re
import textwrap
from dataclasses import dataclass

from common.console import need
from common.python_syntax import parse, parsed

_MOST_TRIES = 50  # fences tried as the end of one block: a text of nothing but fences must not take hours
_HIDDEN = "\0"  # replaces the first mark of a fence inside a string; markdown-it removes every NUL from the text


@dataclass(frozen=True)
class Block:
    """One fenced block.

    text         the lines between the fences, without the fence's own indentation
    info         the text after the opening fence, unchanged
    mark         the opening fence: "```", "~~~~", …
    start, stop  its lines in the document, fences included: from `start` (counted from 0) up to, but without, `stop`
    """

    text: str
    info: str
    mark: str
    start: int
    stop: int

    @property
    def language(self) -> str:
        """The first name in the info string, in lower case: "python" of `Python title="a.py"` and of `{.python}`."""
        name = re.search(r"[\w+#-]+", self.info)
        return name[0].lower() if name else ""


def fenced(text: str, language: str = "") -> str:
    """`text` between fences of backticks, longer than any run of backticks in it."""
    mark = "`" * (max(map(len, re.findall("`{3,}", text)), default=2) + 1)
    return f"{mark}{language}\n{text}\n{mark}"


def closes(line: str, mark: str) -> bool:
    """Whether a line closes the block that `mark` opened: at least as many marks of its kind, and nothing else."""
    return bool(re.fullmatch(rf" {{0,3}}{re.escape(mark[0])}{{{len(mark)},}}[ \t]*", line))


@functools.lru_cache(maxsize=64)  # an answer is parsed several times while it is graded
def blocks(text: str) -> tuple[Block, ...]:
    """The fenced blocks of a Markdown text, in order. UserError if markdown-it-py, an extra, is missing."""
    if "```" not in text and "~~~" not in text:
        return ()
    return tuple(
        Block(token.content.replace(_HIDDEN, token.markup[0]), token.info.strip(), token.markup, *token.map)
        for token in _parser().parse(text)
        if token.type == "fence"
    )


def without_blocks(text: str, marks: str = "`~") -> str:
    """The text without its fenced blocks, line ends as "\\n".

    marks  the kinds of fences whose blocks are removed: "`" only for a docstring, where tildes may underline a heading
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for block in reversed(blocks(text)):
        if block.mark[0] in marks:
            del lines[block.start : block.stop]
    return "\n".join(lines)


@functools.cache
def _parser():
    parser = need("markdown_it", why="reading fenced code", install="markdown-it-py").MarkdownIt("commonmark")
    parser.disable(["html_block", "inline", "text_join"])  # inline markup is not needed
    parser.block.ruler.at("fence", _fence, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    return parser


def _fence(state, start: int, end: int, silent: bool) -> bool:
    """markdown-it's rule for a fence, with the rule for open strings above."""
    from markdown_it.rules_block import fence

    # CommonMark's block, unless it ends inside a string
    found, source = fence(state, start, end, silent), state.src
    if not found or silent or not _breaks_off_in_string(state.tokens[-1].content):
        return found

    # hide the fence that closed it and let the rule look for the next, until the block parses
    for _ in range(_MOST_TRIES):
        closing = state.line - 1
        at = state.bMarks[closing] + state.tShift[closing]
        if closing <= start or not state.src[at:].startswith(state.tokens[-1].markup):
            break  # not closed: the block runs to the end of its container
        state.src = state.src[:at] + _HIDDEN + state.src[at + 1 :]
        state.tokens.pop()
        fence(state, start, end, silent)
        content = state.tokens[-1].content.replace(_HIDDEN, state.tokens[-1].markup[0])
        if not _breaks_off_in_string(content):
            if parsed(textwrap.dedent(content)):
                return True
            break

    # no later fence fits: CommonMark's block after all
    state.tokens.pop()
    state.src = source
    return fence(state, start, end, silent)


def _breaks_off_in_string(code: str) -> bool:
    """Whether the code ends within a triple-quoted string."""
    try:
        parse(textwrap.dedent(code))
    except SyntaxError as error:
        return "unterminated triple-quoted" in error.msg
    except (ValueError, RecursionError, MemoryError):  # whatever else Python's own parser raises
        return False
    return False
