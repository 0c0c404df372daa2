import ast

import pytest

from data.mutate import mutants

SOURCE = '''\
@decorated(depth=2)
def f(graph, nodes, limit=3):
    """If 1 < 2 and so on."""
    naïve = "ü" if limit <= 3 else ""; total = 0
    for node in nodes:
        if node in graph and not node.hidden:  # 1 < 2
            total += (graph[node]) * (limit - 1)
    while total > limit:
        total = merge(total, limit)
    return total, naïve
'''


def changes(source, kind):
    return {one.mutated_line.strip() for one in mutants(source) if one.kind == kind}


def test_a_mutant_differs_in_exactly_its_one_line_and_means_something_else():
    found = mutants(SOURCE)
    assert len(found) > 25
    original = SOURCE.split("\n")
    for mutant in found:
        lines = mutant.source.split("\n")
        assert len(lines) == len(original)
        assert [i for i, (a, b) in enumerate(zip(lines, original, strict=True), 1) if a != b] == [mutant.line]
        assert (lines[mutant.line - 1], original[mutant.line - 1]) == (mutant.mutated_line, mutant.original_line)
        assert ast.dump(ast.parse(mutant.source)) != ast.dump(ast.parse(SOURCE))
    assert len({mutant.source for mutant in found}) == len(found)


def test_signature_decorators_and_docstring_are_left_alone():
    assert min(mutant.line for mutant in mutants(SOURCE)) == 4


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("comparison", "while total < limit:"),
        ("comparison", 'naïve = "ü" if limit >= 3 else ""; total = 0'),
        ("boundary", "while total >= limit:"),
        ("boolean", "if node in graph or not node.hidden:  # 1 < 2"),
        ("boolean", "if node in graph and node.hidden:  # 1 < 2"),
        ("comparison", "if node not in graph and not node.hidden:  # 1 < 2"),
        ("arithmetic", "total += (graph[node]) + (limit - 1)"),
        ("arithmetic", "total += (graph[node]) * (limit + 1)"),
        ("arithmetic", "total -= (graph[node]) * (limit - 1)"),
        ("constant", "total += (graph[node]) * (limit - 0)"),
        ("constant", 'naïve = "ü" if limit <= 3 else ""; total = 1'),
        ("arguments", "total = merge(limit, total)"),
        ("condition", "if True:  # 1 < 2"),
        ("condition", "while not (total > limit):"),
        ("return", "return total, None"),
    ],
)
def test_each_kind_makes_its_edit(kind, expected):
    assert expected in changes(SOURCE, kind)


def test_a_wrong_variable_is_another_of_the_function():
    lines = changes("def f(graph, nodes):\n    return graph[nodes]\n", "variable")
    assert lines == {"return nodes[nodes]", "return graph[graph]"}


def test_what_cannot_be_changed_gives_no_mutant():
    assert mutants("def f(x):\n    pass\n") == []
    assert changes("def f(x):\n    return g(x, x)\n", "arguments") == set()
