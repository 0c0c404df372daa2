"""Ruff's findings by a given rule list, whatever the user's own settings; and the style of generated code.

Style is one fixed rule list, so that two results can be compared.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from common.console import need

LINE_LENGTH = 120
STACK = 256 << 20  # bytes per thread: with ruff's default of 2 MB, one deeply nested answer crashes the run for all
TARGET = "py310"  # the oldest supported Python

# the style check: pycodestyle errors and warnings, pyflakes, bugbear, comprehensions
RULES = ("E", "W", "F", "B", "C4")
NOT_REQUIRED = ("B905",)  # zip(strict=...): code bases that support older Pythons rarely write it
UNDEFINED_NAME = "F821"  # not a matter of style: data/checks/hallucination.py reads it


@dataclass(frozen=True)
class Issue:
    """One finding of ruff: the rule's code, the line (from 1) and the message."""

    rule: str
    line: int
    message: str


def lint(sources: list[str], *, rules: tuple[str, ...], ignored: tuple[str, ...], why: str) -> list[list[Issue]]:
    """Ruff's findings for each source text, all texts in one call; a syntax error is a finding, too.

    rules, ignored  codes or prefixes of rules;  why  what ruff is needed for
    Raises UserError where ruff is not installed.
    """
    if not sources:
        return []
    need("ruff", why=why)
    with tempfile.TemporaryDirectory(prefix="tritune-lint-") as folder:
        for number, source in enumerate(sources):
            Path(folder, f"{number}.py").write_text(source.rstrip("\n") + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--exit-zero", "--quiet"]
        command += ["--select", ",".join(rules), "--ignore", ",".join(ignored), "--output-format", "json"]
        command += ["--line-length", str(LINE_LENGTH), "--target-version", TARGET]
        environment = os.environ | {"RUST_MIN_STACK": str(STACK)}
        found = subprocess.run([*command, folder], capture_output=True, check=True, env=environment)
    issues: list[list[Issue]] = [[] for _ in sources]
    for row in json.loads(found.stdout):
        issue = Issue(row["code"] or "syntax", row["location"]["row"], row["message"])
        issues[int(Path(row["filename"]).stem)].append(issue)
    return issues


def lint_style(sources: list[str]) -> list[list[Issue]]:
    """Ruff's findings by RULES for each source text, all in one call. UserError if ruff is not installed."""
    return lint(sources, rules=RULES, ignored=NOT_REQUIRED, why="the style check")


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
