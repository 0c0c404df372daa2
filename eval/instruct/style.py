"""How clean generated code is: ruff with one fixed rule list, so that two results can be compared."""

from __future__ import annotations

import ast
import statistics

from data.instruct import linting
from data.instruct.linting import Issue
from eval.stats import mcnemar_exact

# pycodestyle errors and warnings, pyflakes, bugbear, comprehensions
RULES = ("E", "W", "F", "B", "C4")
NOT_ASKED = ("B905",)  # zip(strict=...): few code bases that support older Pythons write it
# pydocstyle by Google's convention, without "is missing" (D1), what ruff leaves out for that convention and backslashes
# (D301): the escapes are ours
DOCSTRING_RULES = ("D2", "D3", "D4")
NOT_GOOGLES = ("D203", "D204", "D213", "D215", "D301", "D400", "D401", "D404", "D406", "D407", "D408", "D409", "D413")
# what a plainer way of writing shows in: style, and pylint's refactoring, simplify, perflint, return, pie, pyupgrade
GAIN_RULES = (*RULES, "PLR", "SIM", "PERF", "RET", "PIE", "UP", "N", "D103")
LEAST_TIME = 0.1  # share of the time; below it, layout in memory and caches may decide
UNDEFINED_NAME = "F821"  # not a matter of style: eval/instruct/hallucination.py reads it


def lint(sources: list[str]) -> list[list[Issue]]:
    """Ruff's findings by RULES for each source text, all texts in one call. UserError if ruff is not installed."""
    return linting.lint(sources, rules=RULES, ignored=NOT_ASKED, why="the style check")


def style_issues(source: str, issues: list[Issue], given: str = "") -> list[str]:
    """ "rule line: message" for each issue of style. A line that stands word for word in `given` (the prompt's code) is
    not the answer's doing, and neither is a name that only the surrounding module defines.
    """
    lines, given_lines = source.split("\n"), set(given.split("\n"))
    return [
        f"{issue.rule} {issue.line}: {issue.message}"
        for issue in issues
        if issue.rule != UNDEFINED_NAME and lines[min(issue.line, len(lines)) - 1] not in given_lines
    ]


def docstring_issues(functions: list[str], docstrings: list[str]) -> list[list[Issue]]:
    """Ruff's findings by DOCSTRING_RULES for each docstring, put into its function; all in one call."""
    put = [_with_docstring(code, text) for code, text in zip(functions, docstrings, strict=True)]
    return linting.lint(put, rules=DOCSTRING_RULES, ignored=NOT_GOOGLES, why="the docstring check")


def _with_docstring(code: str, text: str) -> str:
    """The function's head, with the docstring for a body. What would end the literal is escaped."""
    function = next(
        node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    head = ast.unparse(ast.Module([_bare(function)], [])).split("\n")[:-1]
    body = text.replace("\\", "\\\\").replace('"""', r"\"\"\"")
    body = body[:-1] + r"\"" if body.endswith('"') else body
    lines = [line and f"    {line}" for line in f'"""{body}'.split("\n")]
    return "\n".join([*head, *lines]) + ('\n    """' if "\n" in body else '"""')


def _bare(function: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.stmt:
    fields = {name: getattr(function, name) for name in function._fields}
    return type(function)(**fields | {"body": [ast.Pass()], "decorator_list": []}, lineno=1, col_offset=0)


def gains(before: list[str], after: list[str]) -> list[dict[str, int]]:
    """What each function gained by being rewritten: complexity, findings of ruff by GAIN_RULES, size; less is better.

    Returns {"complexity", "issues", "size"}, each before - after: positive is a gain.
    """
    asked = {"rules": GAIN_RULES, "ignored": NOT_ASKED, "why": "the measure of an improvement"}
    counts = [len(found) for found in linting.lint([*before, *after], **asked)]
    measured = zip(before, after, counts[: len(before)], counts[len(before) :], strict=True)
    return [
        {"complexity": complexity(old) - complexity(new), "issues": n - m, "size": _size(old) - _size(new)}
        for old, new, n, m in measured
    ]


def time_gain(rounds: list[list[float]]) -> float:
    """Share of the time that a rewriting saves, or (negative) takes more; 0 where that is within the noise.

    rounds  [seconds before, seconds after] of equal work in turn: the median of after / before counts, from LEAST_TIME
            on, and if a sign test over the rounds finds it (p <= 0.05)
    """
    saved = 1 - statistics.median(after / before for before, after in rounds if before > 0)
    won, lost = (sum(sign * before > sign * after for before, after in rounds) for sign in (1, -1))
    return round(saved, 3) if abs(saved) >= LEAST_TIME and mcnemar_exact(lost, won) <= 0.05 else 0.0


def is_gain(gain: dict) -> bool:
    """Better in complexity, ruff's findings or time and worse in none of them; or equal in all and smaller.

    gain  what `gains` gives and "time": what `time_gain` gives, or None where it was not measured
    """
    gained = (gain["complexity"], gain["issues"], gain["time"] or 0)
    return min(gained) >= 0 and (max(gained) > 0 or gain["size"] > 0)


def complexity(code: str) -> int:
    """Cyclomatic complexity (McCabe 1976): one, and one for each place where the path may part."""
    parting = (
        ast.If,
        ast.For,
        ast.AsyncFor,
        ast.While,
        ast.IfExp,
        ast.ExceptHandler,
        ast.comprehension,
        ast.match_case,
    )
    nodes = list(ast.walk(ast.parse(code)))
    operands = sum(len(node.values) - 1 for node in nodes if isinstance(node, ast.BoolOp))
    conditions = sum(len(node.ifs) for node in nodes if isinstance(node, ast.comprehension))
    return 1 + sum(isinstance(node, parting) for node in nodes) + operands + conditions


def _size(code: str) -> int:
    """Nodes of the syntax tree, docstrings left out: neither layout nor comments count."""
    tree = ast.parse(code)
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    return sum(1 for _ in ast.walk(tree)) - 2 * len(texts)
