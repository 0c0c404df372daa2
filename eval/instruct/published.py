"""The measures of a published instruction-tuning run on the `verl` library, under names of their own.

That run (LoRA on Qwen2.5-Coder-1.5B, 257 training and 46 test pairs) executes nothing: an answer passes if it has the
elements of its category. To compare with its figures, these are its definitions as its documentation words them:

| category | elements |
|---|---|
| docstring | triple quotes; a summary; an Args section |
| complete | a code block; valid Python |
| bugfix | mentions bug, fix or error; has code that compiles |
| explain | 20 words or more; bullets or bold |
| unit_test | `def test_`; `assert`; valid Python |

- published_pass@1: the greedy answer has all elements
- published_pass@3: it has, or one of the first two samples does (the run samples at temperature 0.6)
- published_style: share of the elements that the greedy answer has
- published_hallucination_rate: greedy answers with a TODO or another placeholder
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Callable

from common.markdown import blocks
from common.python_syntax import compiles, parsed

PUBLISHED = "published_"  # begins the names of these measures
SAMPLES = 2  # beside the greedy answer, in published_pass@3
LEAST_WORDS = 20
_QUOTED = re.compile(r"(\"\"\"|''')(.*?)(?:\1|\Z)", re.DOTALL)
_HEADING = re.compile(r"(Args|Arguments|Parameters|Returns|Yields|Raises|Examples?):?$")
_ARGS = re.compile(r"^\s*Args:\s*$", re.MULTILINE)
_BULLET_OR_BOLD = re.compile(r"^\s*(?:[-*+•]|\d+[.)])\s+\S|\*\*\S.*?\*\*|__\S.*?__", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\b(?:TODO|FIXME)\b|(?i:\bplaceholders?\b|\byour (?:code|implementation) here\b)")


def _docstring(text: str) -> dict[str, bool]:
    quoted = _QUOTED.search(text)
    first = (quoted[2] if quoted else text).strip().split("\n")[0].strip()
    return {
        "triple quotes": quoted is not None,
        "summary": bool(first) and not _HEADING.match(first),
        "Args section": bool(_ARGS.search(text)),
    }


def _complete(text: str) -> dict[str, bool]:
    trees = map(parsed, _codes(text))
    return {"code block": bool(blocks(text)), "valid Python": any(tree is not None and tree.body for tree in trees)}


def _bugfix(text: str) -> dict[str, bool]:
    trees = map(parsed, _codes(text))
    return {
        "bug, fix or error": bool(re.search(r"bug|fix|error", text, re.IGNORECASE)),
        "code that compiles": any(tree is not None and tree.body and compiles(tree) for tree in trees),
    }


def _explain(text: str) -> dict[str, bool]:
    return {
        f"{LEAST_WORDS} words": len(text.split()) >= LEAST_WORDS,
        "bullets or bold": bool(_BULLET_OR_BOLD.search(text)),
    }


def _unit_test(text: str) -> dict[str, bool]:
    trees = [tree for tree in map(parsed, _codes(text)) if tree is not None]
    return {
        "def test_": bool(re.search(r"\bdef test_", text)),
        "assert": bool(re.search(r"\bassert\b", text)),
        "valid Python": any(isinstance(node, ast.FunctionDef) for tree in trees for node in tree.body),
    }


ELEMENTS: dict[str, Callable[[str], dict[str, bool]]] = {
    "docstring": _docstring,
    "complete": _complete,
    "bugfix": _bugfix,
    "explain": _explain,
    "unit_test": _unit_test,
}


def elements(category: str, text: str) -> dict[str, bool]:
    """The required elements of a category, and whether an answer has each. KeyError outside the five categories."""
    return ELEMENTS[category](text)


def published_values(greedy: dict[str, dict], sampled: dict[str, list[dict]]) -> dict[str, dict[str, float]]:
    """The four measures: metric -> id -> value. Categories that the published run does not have are left out.

    greedy   id -> row with "category" and "output"
    sampled  id -> rows of the sampled answers, in order; published_pass@3 is omitted where there are fewer than SAMPLES
    """
    known = {i: row for i, row in greedy.items() if row["category"] in ELEMENTS}
    found = {i: elements(row["category"], row["output"]) for i, row in known.items()}
    values = {"published_pass@1": {i: float(all(has.values())) for i, has in found.items()}}
    tried = {i: rows[:SAMPLES] for i, rows in sampled.items() if i in known and len(rows) >= SAMPLES}
    values["published_pass@3"] = {
        i: float(all(found[i].values()) or any(all(elements(row["category"], row["output"]).values()) for row in rows))
        for i, rows in tried.items()
    }
    values["published_style"] = {i: sum(has.values()) / len(has) for i, has in found.items()}
    values["published_hallucination_rate"] = {i: float(has_placeholder(row["output"])) for i, row in known.items()}
    return values


def has_placeholder(text: str) -> bool:
    """Whether an answer leaves a TODO, FIXME, "placeholder" or "your code here"."""
    return bool(_PLACEHOLDER.search(text))


def _codes(text: str) -> list[str]:
    """The fenced blocks, dedented; of an answer without any, its whole text."""
    found = [block.text for block in blocks(text)] or [text]
    return [textwrap.dedent(code).strip("\n") for code in found]
