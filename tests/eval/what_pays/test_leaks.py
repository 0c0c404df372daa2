"""What must not be read for a task: its own file, and code that holds its answer."""

from __future__ import annotations

import pytest

from eval.what_pays.leaks import leak_detector

ANSWER = '''def ancestors(graph, source):
    """All nodes that have a path to source."""
    found, queue = set(), [source]
    while queue:
        for node in graph.predecessors(queue.pop()):
            if node not in found:
                found.add(node)
                queue.append(node)
    return found
'''


def is_leak(found, held_out, answer):
    return leak_detector(held_out, answer)(found)


def unit(code, path="pkg/other.py"):
    return {"code": code, "source": {"path": path}}


def test_nothing_of_a_held_out_file_is_read():
    assert is_leak(unit("x = 1", "pkg/dag.py"), {"pkg/dag.py"}, ANSWER)
    assert not is_leak(unit("x = 1"), {"pkg/dag.py"}, ANSWER)
    assert not is_leak({"code": "x = 1"}, {"pkg/dag.py"}, ANSWER)  # a unit without a place


@pytest.mark.parametrize(
    "code",
    [
        ANSWER,
        "class Graph:\n" + "".join(f"    {line}\n" for line in ANSWER.replace("ancestors", "above").split("\n")),
        ANSWER.replace("All nodes that have a path to source.", "Another text.").replace("  ", "    "),
        "while queue:\n    for node in graph.predecessors(queue.pop()):\n        if node not in found: found.add(node)",
        "if this does not parse:\n" + ANSWER,
    ],
)
def test_a_copy_of_the_answer_is_a_leak_whatever_its_layout(code):
    assert is_leak(unit(code), set(), ANSWER)


def test_what_only_resembles_it_is_none():
    like = ANSWER.replace("predecessors", "successors").replace("found", "below")
    assert not is_leak(unit(like), set(), ANSWER)
    said = "All nodes that have a path to source. "
    documented = f'def other(graph):\n    """{said * 4}"""\n    return len(graph)\n'
    assert not is_leak(unit(documented), set(), ANSWER.replace(said.strip(), said * 4))  # only docstrings are equal


def test_an_answer_of_few_words_is_held_as_a_whole():
    assert is_leak(unit("def f(g):\n    return max(g.degree)\n"), set(), "return max(g.degree)")
    assert not is_leak(unit("def f(g):\n    return max(g)\n"), set(), "return max(g.degree)")
    assert not is_leak(unit("x = 1"), set(), "")
