import math

import numpy as np
import pytest

from eval.retrieval.codes import in_form, renamed, without_docstrings
from eval.retrieval.metrics import METRICS, best_of_files, first, ranks_of


def of_grades(ranked):
    """All metrics of a ranking given by its grades, best first."""
    scores, relevant = np.arange(len(ranked), 0, -1), np.flatnonzero(ranked)
    found = ranks_of(scores, relevant, np.array(ranked)[relevant])
    return {metric: function(*found) for metric, function in METRICS.items()}


def test_metrics_of_a_worked_example():
    metrics = of_grades([0, 1, 0, 2] + [0] * 7 + [1])  # the last relevant one is twelfth
    assert metrics["mrr@10"] == 1 / 2 and metrics["mrr@1"] == 0
    ideal = 2 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    assert metrics["ndcg@10"] == pytest.approx((1 / math.log2(3) + 2 / math.log2(5)) / ideal)
    assert metrics["recall@10"] == 2 / 3 and metrics["recall@1"] == 0
    assert metrics["map"] == pytest.approx((1 / 2 + 2 / 4 + 3 / 12) / 3)


def test_a_file_is_found_at_the_rank_of_its_best_code_among_files():
    scores, files = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([0, 0, 1, 2, 2])
    # relevant are both codes of file 2, one of grade 3, and one of file 1
    of_files, wanted, grades = best_of_files(scores, files, np.array([4, 3, 2]), np.array([3, 1, 1]))
    assert of_files.tolist() == [0.9, 0.7, 0.6] and wanted.tolist() == [1, 2] and grades.tolist() == [1, 3]
    ranks, ranked = ranks_of(of_files, wanted, grades)
    assert ranks.tolist() == [2, 3] and ranked.tolist() == [1, 3]


@pytest.mark.parametrize("k", [1, 5, 10])
def test_the_last_rank_of_a_cut_counts_and_the_next_does_not(k):
    for place, counts in ((k - 1, True), (k, False)):
        metrics = of_grades(np.eye(20, dtype=int)[place])
        assert [metrics[f"{name}@{k}"] > 0 for name in ("mrr", "ndcg", "recall")] == [counts] * 3


def test_equal_scores_rank_the_relevant_code_last_and_the_better_one_behind_the_worse():
    scores, relevant, grades = np.array([3, 1, 1, 1, 1, 0.0]), np.array([1, 3]), np.array([2, 1])
    ranks, ordered = ranks_of(scores, relevant, grades)
    assert ranks.tolist() == [4, 5] and ordered.tolist() == [1, 2]
    assert first(scores, relevant, grades, 5).tolist() == [0, 2, 4, 3, 1]


CODE = '''def outer(items):
    """Says what it does.

    In lines: größer."""
    # a comment stays
    class Inner:
        "short"

    def only():
        """nothing else"""

    def short(): "größer"; return 1

    text = """no docstring"""
    return [len(text), items]
'''


def test_docstrings_go_and_all_else_stays_as_it_stands():
    bare = without_docstrings(CODE)
    assert bare == (
        "def outer(items):\n    # a comment stays\n    class Inner:\n        pass\n\n    def only():\n        pass\n\n"
        '    def short(): pass; return 1\n\n    text = """no docstring"""\n    return [len(text), items]\n'
    )
    assert without_docstrings(bare) == bare


def test_what_python_3_does_not_parse_loses_its_docstring_too():
    code = 'def f(x):\n    """Doc."""\n    print x, """text"""\n'
    assert without_docstrings(code) == 'def f(x):\n    print x, """text"""\n'
    assert renamed(code) == without_docstrings(code)


def test_renamed_code_keeps_neither_names_nor_docstrings():
    assert renamed('def walk(tree):\n    """Walk a tree."""\n    return tree.root') == (
        "def func_1(arg_1):\n    return arg_1.root"
    )


def test_outlines_of_files_keep_their_names():
    rows = [{"id": 1, "kind": "file", "code": "def walk(tree): 1"}, {"id": 2, "code": "def walk(tree): 1"}]
    changed, count = in_form(rows, "renamed")
    assert changed[0] == rows[0] and "walk" not in changed[1]["code"] and count == 1
    assert in_form(rows, "as-is") == (rows, 0)
