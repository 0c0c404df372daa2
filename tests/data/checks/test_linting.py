import sys

import pytest

from common.console import UserError
from data.checks import linting
from data.checks.linting import lint_style, style_issues

CLEAN = "def f(values):\n    return [v + 1 for v in values]\n"
DIRTY = "import os\n\n\ndef f(values=[]):\n    x = 1\n    return list([v for v in values])\n"


def test_each_text_gets_its_own_findings_in_one_call():
    clean, dirty, broken = lint_style([CLEAN, DIRTY, "def f(:\n"])
    assert clean == []
    assert {"F401", "B006", "F841"} <= {issue.rule for issue in dirty}
    assert broken, "what does not parse is not clean"
    assert lint_style([]) == []


def test_the_prompts_own_lines_are_not_held_against_the_answer():
    given = "def f(values=[]):\n    pass"
    source = "def f(values=[]):\n    x = 1\n    return values\n"
    (issues,) = lint_style([source])
    assert [issue.split()[0] for issue in style_issues(source, issues)] == ["B006", "F841"]
    assert [issue.split()[0] for issue in style_issues(source, issues, given)] == ["F841"]


def test_an_undefined_name_is_left_to_the_name_check():
    source = "def f():\n    return nx\n"
    (issues,) = lint_style([source])
    assert [issue.rule for issue in issues] == [linting.UNDEFINED_NAME]
    assert style_issues(source, issues) == []


def test_the_users_ruff_settings_do_not_count(tmp_path, monkeypatch):
    (tmp_path / "ruff.toml").write_text("[lint.per-file-ignores]\n'*' = ['ALL']\n")  # --select does not outdo this
    monkeypatch.chdir(tmp_path)
    assert lint_style([DIRTY])[0]


def test_a_missing_ruff_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ruff", None)
    with pytest.raises(UserError, match="ruff"):
        lint_style([CLEAN])
