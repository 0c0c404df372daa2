"""Whether a rewritten function is an improvement: complexity, ruff's findings, size, and time."""

from __future__ import annotations

import ast
import statistics

from data.checks.linting import NOT_REQUIRED, RULES, lint
from eval.stats import mcnemar_exact

# rules that reward plainer code: style, pylint's refactoring, simplify, perflint, return, pie, pyupgrade, naming
GAIN_RULES = (*RULES, "PLR", "SIM", "PERF", "RET", "PIE", "UP", "N", "D103")
BRANCHES = (
    ast.If | ast.For | ast.AsyncFor | ast.While | ast.IfExp | ast.ExceptHandler | ast.comprehension | ast.match_case
)
LEAST_TIME = 0.1  # share of the time; a smaller difference may come from memory layout and caches


def gains(before: list[str], after: list[str]) -> list[dict[str, int]]:
    """What each rewritten function gained in complexity, ruff's findings by GAIN_RULES, and size; less is better.

    Returns {"complexity", "issues", "size"}, each before - after: positive is a gain.
    """
    found = lint([*before, *after], rules=GAIN_RULES, ignored=NOT_REQUIRED, why="the measure of an improvement")
    counts = [len(issues) for issues in found]
    return [
        {"complexity": complexity(old) - complexity(new), "issues": n - m, "size": _size(old) - _size(new)}
        for old, new, n, m in zip(before, after, counts[: len(before)], counts[len(before) :], strict=True)
    ]


def time_gain(rounds: list[list[float]]) -> float:
    """Share of the time that a rewrite saves (negative: costs); 0 if that is within the noise.

    rounds  [seconds before, seconds after] of equal work in alternation; the median of after / before counts if it
            differs by LEAST_TIME or more and a sign test over the rounds is significant (p <= 0.05)
    """
    saved = 1 - statistics.median(after / before for before, after in rounds if before > 0)
    won, lost = (sum(sign * before > sign * after for before, after in rounds) for sign in (1, -1))
    return round(saved, 3) if abs(saved) >= LEAST_TIME and mcnemar_exact(lost, won) <= 0.05 else 0.0


def is_gain(gain: dict) -> bool:
    """Better in complexity, ruff's findings or time and worse in none; or equal in all and smaller.

    gain  what `gains` gives and "time": what `time_gain` gives, or None if not measured
    """
    gained = (gain["complexity"], gain["issues"], gain["time"] or 0)
    return min(gained) >= 0 and (max(gained) > 0 or gain["size"] > 0)


def complexity(code: str) -> int:
    """Cyclomatic complexity (McCabe 1976): one plus the number of branches."""
    nodes = list(ast.walk(ast.parse(code)))
    operands = sum(len(node.values) - 1 for node in nodes if isinstance(node, ast.BoolOp))
    conditions = sum(len(node.ifs) for node in nodes if isinstance(node, ast.comprehension))
    return 1 + sum(isinstance(node, BRANCHES) for node in nodes) + operands + conditions


def _size(code: str) -> int:
    """Nodes of the syntax tree without docstrings; neither layout nor comments count."""
    tree = ast.parse(code)
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    return sum(1 for _ in ast.walk(tree)) - 2 * len(texts)
