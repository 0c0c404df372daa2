"""How clean generated code is: ruff with one fixed rule list, so that two results can be compared."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from model.console import need

# pycodestyle errors and warnings, pyflakes, bugbear, comprehensions. Lines up to 120 characters.
RULES = ("E", "W", "F", "B", "C4")
NOT_ASKED = ("B905",)  # zip(strict=...): few code bases that support older Pythons write it
LINE_LENGTH = 120
UNDEFINED_NAME = "F821"  # not a matter of style: eval/hallucination.py reads it


@dataclass(frozen=True)
class Issue:
    """One finding of ruff: the rule's code, the line (from 1) and the message."""

    rule: str
    line: int
    message: str


def lint(sources: list[str]) -> list[list[Issue]]:
    """Ruff's findings for each source text, all texts in one call. UserError if ruff is not installed."""
    need("ruff", why="the style check")
    if not sources:
        return []
    with tempfile.TemporaryDirectory(prefix="tritune-style-") as folder:
        for number, source in enumerate(sources):
            Path(folder, f"answer_{number}.py").write_text(source.rstrip("\n") + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--exit-zero", "--quiet"]
        command += [
            "--select",
            ",".join(RULES),
            "--ignore",
            ",".join(NOT_ASKED),
            "--line-length",
            str(LINE_LENGTH),
            "--target-version",
            "py310",
        ]
        found = subprocess.run([*command, "--output-format", "json", folder], capture_output=True, check=True)
    issues: list[list[Issue]] = [[] for _ in sources]
    for row in json.loads(found.stdout):
        number = int(Path(row["filename"]).stem.removeprefix("answer_"))
        issues[number].append(Issue(row["code"] or "syntax", row["location"]["row"], row["message"]))
    return issues


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
