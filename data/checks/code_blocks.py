"""The code in a model's answer, and the words around it."""

from __future__ import annotations

import ast
import doctest
import html
import re
import textwrap

from common.markdown import Block, blocks, without_blocks
from common.python_syntax import parsed

_PYTHON = frozenset({"", "python", "python2", "python3", "py", "py2", "py3", "ipython", "ipython3", "pycon", "code"})
_MOST_UNOPENED = 8  # in one answer; a model that loops may leave hundreds
_CODE_TAG = re.compile(r"^<(?:pre>\s*<)?code[^>\n]*>\n?(.*?)</code>(?:\s*</pre>)?", re.DOTALL | re.MULTILINE)


def code_blocks(answer: str) -> list[str]:
    """The blocks of an answer to read Python from, in order; none where the answer has no fences, or is code itself."""
    return split_answer(answer)[0]


def split_answer(answer: str) -> tuple[list[str], str]:
    """The blocks of an answer to read Python from, in order, and the text without any block.

    - Text that parses as a whole has no blocks: what looks like a fence is inside one of its strings.
    - Code before the first fence is a block whose opening fence is missing: often the prompt contained it.
    - Blocks of another language (`bash`, `json`) are omitted, unless no block is Python's or unnamed.
    - A block of Markdown, into which some models put the whole answer, is replaced by the blocks in it.
    - Of a console session only the input counts.
    - Without fences, the content of <code> is a block.
    """
    unopened, answer = [], textwrap.dedent(answer.replace("\r\n", "\n"))
    while parsed(answer) is None and (found := blocks(answer)):
        lines, first = answer.split("\n"), found[0]
        before = "\n".join(lines[: first.start])
        if len(unopened) == _MOST_UNOPENED or not is_code(parsed(textwrap.dedent(before))):
            filled = [block for outer in found for block in _within(outer) if block.text.strip()]
            named = [block for block in filled if block.language in _PYTHON] or filled
            return unopened + [_typed(block.text) for block in named], without_blocks(answer)
        unopened.append(before)
        answer = "\n".join(lines[first.start + (not first.info) :])  # a bare fence closed that block
    if unopened or parsed(answer) is not None:
        return unopened, answer
    return [_unescaped(part) for part in _CODE_TAG.findall(answer) if part.strip()], _CODE_TAG.sub("", answer)


def is_code(tree: ast.Module | None) -> bool:
    """Whether a module does anything. Plain words may parse, too, as a name, a literal or a comparison."""
    return tree is not None and any(_does_something(node) for node in tree.body)


def _does_something(node: ast.stmt) -> bool:
    if isinstance(node, ast.AnnAssign):
        return node.value is not None  # "Answer: x" annotates a variable
    if not isinstance(node, ast.Expr):
        return True
    return any(isinstance(one, ast.Call | ast.Yield | ast.Await | ast.comprehension) for one in ast.walk(node))


def _within(block: Block) -> tuple[Block, ...]:
    return blocks(block.text) if block.language in ("markdown", "md") else (block,)


def _typed(block: str) -> str:
    """The input of an interactive session; any other block unchanged."""
    if not block.lstrip().startswith(">>> "):
        return block
    try:
        return "".join(example.source for example in doctest.DocTestParser().get_examples(block))
    except ValueError:  # a prompt not followed by a space
        return block


def _unescaped(part: str) -> str:
    """The content of an HTML element; where < and > are left as they are, as models often do, nothing is escaped."""
    return part if "<" in part or ">" in part else html.unescape(part)
