"""Which instruction pairs are worth training on. Every rule names its reason; nothing is dropped without one.

The rules of Self-Instruct (arXiv:2212.10560) and Magicoder's OSS-Instruct (arXiv:2312.02120), stricter for code: it
must parse in its place, contain no placeholder, pass ruff, and differ from all pairs kept before.
"""

from __future__ import annotations

import ast
import math
import re

import numpy as np

from common.python_syntax import parsed
from data.checks.linting import lint
from data.checks.script import is_script
from data.instruct.answers import read
from data.instruct.gap import GAP, fill_gap
from data.likeness.near_duplicates import jaccard, shingles

DUPLICATE = 0.7  # Jaccard index of token 5-grams, as for files (The Stack, arXiv:2211.15533); within a category
LEAST = {"docstring": 40, "explain": 80, "unit_test": 40, "complete": 15, "improve": 40}  # characters of an output
PROSE = ("docstring", "explain")
PLACEHOLDER = re.compile(
    r"\b(TODO|FIXME|XXX|TBD|lorem ipsum)\b|\byour code here\b"
    r"|\b(rest|remainder) of (the )?(code|function|implementation)"
    r"|<(your|insert|description|placeholder)\b|\[(your|insert|description)\b",
    re.IGNORECASE,
)
LINT = ("E9", "F")  # what fails or misleads; style is the repository's own business
NOT_THE_PAIRS = ("F401", "F821", "F841")  # names from the surrounding module; unused results


def pair_problem(pair: dict) -> str | None:
    """Why a pair with an output is not worth training on, judging by its text alone; None if it is."""
    category, output = pair["category"], pair["output"]
    if len(output.strip()) < LEAST.get(category, 1):
        return f"output under {LEAST.get(category, 1)} characters"
    if output.strip() == pair["input"].strip():
        return "output is the input"
    if PLACEHOLDER.search(output):
        return "placeholder in the output"
    if category in PROSE and re.search(r"\.\.\.\s*$", output.rstrip('"\n')):
        return "output that breaks off"
    if is_script(pair):
        problem = read(pair, output).problem
        return f"output {problem}" if problem else None
    tree = parsed(placed(pair)) if category != "explain" else ast.Module([], [])
    if tree is None:
        return "output does not parse in its place"
    if category not in PROSE and any(_is_stub(node) for node in ast.walk(tree)):
        return "placeholder in the output"
    return None


def placed(pair: dict) -> str:
    """The output put in its place in the input's code; the output itself if it is complete."""
    if pair["category"] == "fim":
        return fill_gap(pair["input"], pair["output"])
    if pair["category"] in ("bugfix", "complete"):
        return read(pair, pair["output"]).code or pair["output"]
    return pair["output"]


def _is_stub(node: ast.AST) -> bool:
    """A function whose whole body, its docstring not counted, is `...` or `pass`."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    is_dots = [isinstance(one, ast.Expr) and getattr(one.value, "value", None) is Ellipsis for one in body]
    return all(isinstance(one, ast.Pass) or dots for one, dots in zip(body, is_dots, strict=True))


def lint_problems(pairs: list[dict]) -> list[str | None]:
    """Ruff's first finding for the Python of each pair, all in one call. UserError if ruff is not installed."""
    python = [(number, pair) for number, pair in enumerate(pairs) if not is_script(pair)]
    coded = {number: placed(pair) for number, pair in python if pair["category"] not in PROSE}
    why = "the filter of instruction pairs"
    found = lint(list(coded.values()), rules=LINT, ignored=NOT_THE_PAIRS, why=why)
    problems: list[str | None] = [None] * len(pairs)
    for (number, code), issues in zip(coded.items(), found, strict=True):
        lines, given = code.split("\n"), pairs[number]["input"].split("\n")
        for issue in issues:
            if lines[min(issue.line, len(lines)) - 1] not in given:  # the input's lines are not the answer's doing
                problems[number] = f"ruff: {issue.rule} {issue.message}"
                break
    return problems


def normalized(text: str) -> str:
    """A text without layout and case, by which answers are compared."""
    return " ".join(text.split()).casefold()


class Distinct:
    """Remembers the texts kept, to recognise near-duplicates of them.

    Exact without comparing all pairs: if the Jaccard index of two sets is t or more, the |A| - ceil(t |A|) + 1 least
    elements of each share one (prefix filtering; Bayardo, Ma, Srikant, WWW 2007).
    """

    def __init__(self) -> None:
        self._texts: set[tuple[str, str]] = set()
        self._kept: list[np.ndarray] = []  # sorted shingles
        self._holders: dict[tuple[str, int], list[int]] = {}  # texts with this shingle among their least

    def problem(self, group: str, text: str) -> str | None:
        """Why the text is not kept; None if it is. Only texts of the same group are compared."""
        plain = normalized(text)
        if (group, plain) in self._texts:
            return "duplicate"
        grams = shingles(plain)
        in_common = math.ceil(DUPLICATE * len(grams))
        least = [(group, gram) for gram in grams[: len(grams) - in_common + 1].tolist()]
        candidates = {i for one in least for i in self._holders.get(one, ())}
        if any(jaccard(grams, self._kept[i]) >= DUPLICATE for i in candidates):
            return "near-duplicate"
        for one in least:
            self._holders.setdefault(one, []).append(len(self._kept))
        self._kept.append(grams)
        self._texts.add((group, plain))
        return None


def pair_text(pair: dict) -> str:
    """The text by which pairs are compared: another phrasing does not make another pair."""
    return f"{pair['input'].replace(GAP, '')}\n{pair['output']}"
