"""How clean generated code is: ruff with one fixed rule list, so that two results can be compared."""

from __future__ import annotations

from data.drafts import linting
from data.drafts.linting import Issue

# pycodestyle errors and warnings, pyflakes, bugbear, comprehensions
RULES = ("E", "W", "F", "B", "C4")
NOT_ASKED = ("B905",)  # zip(strict=...): few code bases that support older Pythons write it
UNDEFINED_NAME = "F821"  # not a matter of style: eval/hallucination.py reads it


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
