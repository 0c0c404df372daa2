"""JavaScript and TypeScript: MultiPL-E's tasks (Cassano et al. 2022, arXiv:2208.08227), with answers run by node.

The tests of these tasks compare calls with literals. They are translated to Python assertions, so that only the answer
runs in node, and its verdict comes from the same code as for all other tasks.
"""

from __future__ import annotations

import ast
import re

from common.markdown import blocks as markdown_blocks
from data.checks.extract import Solution
from model.generate import before_stop

_WORD = re.compile(r'"(?:\\.|[^"\\])*"|\b(?:undefined|null|true|false)\b|[\w.-]+(?=\s*:)')
_WORDS = {"undefined": "None", "null": "None", "true": "True", "false": "False"}


def python_tests(tests: str) -> tuple[str, str]:
    """The function that the tests of a MultiPL-E row call, and the tests as Python, with undefined as None.

    Raises ValueError or SyntaxError for a test that is not `assert.deepEqual(candidate(LITERALS), LITERAL);`.
    """
    name = re.search(r"let candidate = ([\w$]+);", tests)
    lines = [line.strip().rstrip(";") for line in tests.splitlines() if line.strip().startswith("assert.")]
    if name is None or not lines:
        raise ValueError("its tests do not call the candidate")
    return name[1], "".join(f"assert {name[1]}{_arguments_and_result(line)}\n" for line in lines)


def _arguments_and_result(line: str) -> str:
    """`(*[1, 2]) == 3` for `assert.deepEqual(candidate(1, 2), 3)`."""
    call = ast.parse(_WORD.sub(_python_word, line).replace("assert.", "_.", 1), mode="eval").body
    candidate, wanted = call.args
    if ast.unparse(call.func) != "_.deepEqual" or ast.unparse(candidate.func) != "candidate":
        raise ValueError(f"not a comparison of a call with a literal: {line}")
    return f"(*{list(map(ast.literal_eval, candidate.args))!r}) == {ast.literal_eval(wanted)!r}"


def _python_word(match: re.Match) -> str:
    word = match[0]
    return word if word.startswith('"') else _WORDS.get(word) or repr(word)  # the last case is an object key


def read_script(prompt: str, entry_point: str, answer: str, stops: tuple[str, ...]) -> Solution:
    """The code of an answer: the fenced block that defines `entry_point`, the whole text, or a body for the prompt.

    Nothing is removed from it: calls and prints next to the definition run as well.
    """
    definition = re.compile(rf"\b(?:function\s*\*?|class|const|let|var)\s+{re.escape(entry_point)}\b(?!\s*\.)")
    blocks = [block.text for block in markdown_blocks(answer) if block.text.strip()]
    if defining := [block for block in blocks if definition.search(block)]:
        return Solution(defining[0], "fence")
    if not blocks and definition.search(answer):
        return Solution(answer, "text")
    body = blocks[0] if blocks else answer
    if not body.strip():
        return Solution(None, "none")
    return Solution(prompt.rstrip() + "\n" + before_stop(body, stops), "body")
