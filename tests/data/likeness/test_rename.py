from __future__ import annotations

import ast

import pytest

from data.likeness.rename import names_of_file, rename_identifiers

COUNT = """
def count_edges(graph, kind=None, *rest, least=1, **extra):
    from os import path as where
    def weigh(edge, scale):
        nonlocal total
        total += scale
        return edge * scale
    total = 0
    try:
        edges = [weigh(edge, scale=2) for edge in graph if edge >= least]
    except (TypeError, ValueError) as problem:
        return str(problem)
    largest = max(edges, key=lambda edge: edge % 7)
    match rest:
        case [first, *others]:
            total += first + len(others)
        case _:
            pass
    if (doubled := largest * 2) > 30:
        count_edges([3], least=least)
    return f"{len(edges)} {total} {doubled} {largest:>4} {sorted(extra)} {where.sep} {kind}"
"""


def run(code, name, *arguments, **keywords):
    scope = {}
    exec(code, scope)
    return scope[name](*arguments, **keywords)


def identifiers(code):
    return {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}


def test_the_renamed_function_does_the_same_with_none_of_its_words():
    renamed = rename_identifiers(COUNT)
    for word in ("count_edges", "graph", "least", "weigh", "total", "problem", "largest", "others", "doubled", "extra"):
        assert word not in renamed
    assert {"max", "len", "str", "where", "TypeError"} <= identifiers(renamed)
    expected = run(COUNT, "count_edges", [1, 5, 9], "k", 4, 5, least=2, z=1)
    scope = {}
    exec(renamed, scope)
    given = {scope["func_1"].__code__.co_varnames[2]: 2}
    assert scope["func_1"]([1, 5, 9], "k", 4, 5, **given, z=1) == expected
    assert scope["func_1"](3) == run(COUNT, "count_edges", 3) == "'int' object is not iterable"
    assert rename_identifiers(COUNT) == renamed


def test_attributes_builtins_imports_and_fields_stay():
    code = """
def build(graph, list):
    class Box:
        size = 3
        def grow(self, step):
            self.size += step
            return self.size
    size = Box().grow(step=len(graph.nodes))
    nodes = nx.diameter(graph)
    return list, nodes
"""
    renamed = rename_identifiers(code, imported={"nx"})
    for kept in ("size = 3", "def grow(self, step)", ".grow(step=len(", ".nodes)", "nx.diameter(", "list"):
        assert kept in renamed
    assert "Box" not in renamed and "graph" not in renamed and "build" not in renamed
    # "size" is a field as well as a variable, and "list" a builtin: renaming one would rename the other
    assert "size = class_1().grow" in renamed and "arg_1" in renamed


def test_a_name_that_an_import_may_bind_stays_wherever_it_is_bound():
    code = "def f(x):\n    try:\n        import json as codec\n    except ImportError:\n        codec = x\n"
    assert rename_identifiers(code).count("codec") == 2


def test_a_function_known_behind_a_dot_keeps_its_name():
    assert "def walk(" in rename_identifiers("def walk(self, tree):\n    return self.walk(tree.left)\n")
    assert "def func_1(" in rename_identifiers("def walk(self, tree):\n    return self.other(tree.left)\n")


def test_names_of_the_file_are_renamed_and_new_names_are_free():
    code = "def f(x):\n    var_1 = LIMIT + helper(x) + unknown\n    other = var_1\n    return arg_1 + other\n"
    renamed = rename_identifiers(code, defined={"LIMIT", "helper"})
    assert "LIMIT" not in renamed and "helper" not in renamed and "unknown" in renamed
    assert len(identifiers(renamed)) == len(identifiers(code))  # no two names became one
    assert "arg_1" in identifiers(renamed) and "def func_1(arg_2)" in renamed


def test_what_a_file_defines_and_what_it_imports():
    text = "import a.b\nfrom c import d as e\nLIMIT: int = 3\nx = y = e\ndef f():\n    import g\nclass K: z = 1\n"
    assert names_of_file(text) == ({"LIMIT", "x", "y", "f", "K"}, {"a", "e", "g"})


def test_code_that_does_not_parse_is_an_error():
    with pytest.raises(SyntaxError):
        rename_identifiers("def f(:")
