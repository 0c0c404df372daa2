"""Whether an answer is valid code, whatever it computes: it parses, and runs without a SyntaxError."""

from __future__ import annotations

import re
import textwrap

from common.python_syntax import parsed
from data.checks.code_blocks import code_blocks, is_code
from eval.code.tasks import CodeTask

_ERRORS = ("SyntaxError", "IndentationError", "TabError")
_LOOKS_LIKE_CODE = re.compile(r"\b(?:def|class) |^\s*```py", re.MULTILINE)
MISNAMED = "does not define"  # how the detail of an answer begins whose code parses but is of another name


def is_syntactic(row: dict) -> bool:
    """Whether the answer of a graded row has code that parses and raised none of Python's errors of syntax.

    Code is enough: one that defines another name than the tests call counts, an answer without any code does not.
    """
    if row["status"] == "extraction":
        return row["detail"].startswith(MISNAMED)
    return row["status"] != "syntax" and not row["detail"].startswith(_ERRORS)


def why_unread(task: CodeTask, completion: str) -> tuple[str, str]:
    """Status and detail of an answer in which no definition of the entry point was found.

    "syntax" if it has code that does not parse, else "extraction": it has none, or code of another name.
    """
    blocks = [textwrap.dedent(block) for block in code_blocks(completion)] or [textwrap.dedent(completion)]
    trees = [parsed(block) for block in blocks]
    if None not in trees and any(map(is_code, trees)):
        return "extraction", f"{MISNAMED} {task.entry_point}"

    # what was meant as code: a definition, a block of Python, or the indented body of the prompt's function
    is_body = task.is_head and completion.lstrip("\n")[:1].isspace()
    if completion.strip() and (is_body or _LOOKS_LIKE_CODE.search(completion)):
        return "syntax", f"no definition of {task.entry_point} that parses"
    return "extraction", "no code"
