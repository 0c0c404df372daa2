"""The style of generated code: ruff with one fixed rule list, so that two results can be compared."""

from __future__ import annotations

from data.checks import linting
from data.checks.linting import Issue

# pycodestyle errors and warnings, pyflakes, bugbear, comprehensions
RULES = ("E", "W", "F", "B", "C4")
NOT_REQUIRED = ("B905",)  # zip(strict=...): code bases that support older Pythons rarely write it
UNDEFINED_NAME = "F821"  # not a matter of style: data/checks/hallucination.py reads it


def lint_style(sources: list[str]) -> list[list[Issue]]:
    """Ruff's findings by RULES for each source text, all in one call. UserError if ruff is not installed."""
    return linting.lint(sources, rules=RULES, ignored=NOT_REQUIRED, why="the style check")


def style_issues(source: str, issues: list[Issue], given: str = "") -> list[str]:
    """ "rule line: message" for each style issue that the answer itself causes.

    given  the prompt's code: lines that stand in it word for word are not the answer's doing
    Undefined names are not counted: the surrounding module may define them.
    """
    lines, given_lines = source.split("\n"), set(given.split("\n"))
    return [
        f"{issue.rule} {issue.line}: {issue.message}"
        for issue in issues
        if issue.rule != UNDEFINED_NAME and lines[min(issue.line, len(lines)) - 1] not in given_lines
    ]
