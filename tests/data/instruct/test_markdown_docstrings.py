"""A repository that documents itself in Markdown, on the whole way: functions, pairs, their golds graded."""

import hashlib

import pytest

from data.checks.prove import Checks
from data.corpus import SourceFile
from data.corpus.functions import functions_of
from data.instruct.tasks import DraftContext, draft
from eval.instruct import grade_answers

MODULE = '''"""Sums."""


def total(values, start=0):
    """Adds the values to a start, one after the other. An empty list of values gives the start as it is.

    ```python
    total([1, 2])
    ```

{margin}    Args:
        values (list of int): Numbers.
        start (int): What the sum begins with.

    Returns:
        int: The sum.

    Examples:
        >>> total([1, 2], start=4)
        7
        >>> total([])
        0
    """
    result = start
    taken = [value for value in values if value]
    for value in taken:
        result = result + value
    label = f"sum {result}"
    return result if label else None
'''
CATEGORIES = ("bugfix", "complete", "unit_test", "improve", "fim", "docstring", "explain")


@pytest.mark.parametrize(
    ("indent", "margin", "categories"),
    [(2, "", CATEGORIES), (4, "```text\nat the margin\n```\n\n", CATEGORIES[:5])],
)
def test_golds_of_functions_with_fences_in_their_docstrings_pass(tmp_path, indent, margin, categories):
    text = MODULE.replace("{margin}", margin).replace("    ", " " * indent)
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (tmp_path / "pkg" / "sums.py").write_text(text)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    file = SourceFile("pkg/sums.py", text, sha256, None, None, "test", source=str(tmp_path))
    (function,) = functions_of(file)
    checks = Checks([function], ["doctest"])
    checks.find([function])
    context = DraftContext({file.path: text}, {}, checks, 2400, 700, seed=0)
    pairs = [draft(category, function, context).pair for category in categories]
    rows = grade_answers(pairs, [{"id": pair["id"], "output": pair["output"]} for pair in pairs], ks=(1,))["results"]
    assert [(row["category"], row["status"], row["detail"]) for row in rows] == [
        (one, "pass", "") for one in categories
    ]
    assert all("`" not in row["output"] for row in rows[5:])  # an example is no prose
