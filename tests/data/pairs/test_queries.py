from __future__ import annotations

import pytest

from data.corpus import SourceFile
from data.corpus.functions import functions_of
from data.pairs.queries import (
    FILE_VOICES,
    NoQuery,
    call_queries,
    call_sites,
    docstring_queries,
    file_queries,
    name_queries,
    to_the_point,
)


def source_file(text, path="pkg/things.py", split="train"):
    return SourceFile(path=path, text=text, sha256="", license=None, commit=None, split=split)


def function(docstring='"""Say."""', head="def do(x):", path="pkg/things.py", split="train"):
    (one,) = functions_of(source_file(f"{head}\n    {docstring}\n    y = x\n    return y\n", path, split), min_lines=2)
    return one


def test_a_docstring_is_asked_for_in_every_voice_and_the_first_is_drawn():
    one = function('"""Returns the largest element of x.\n\n    More."""')
    asked = docstring_queries(one, seed=0)
    assert set(asked) == {
        "Returns the largest element of x",
        "largest element of x",
        "how to get the largest element of x",
        "function that returns the largest element of x",
        "how do I get the largest element of x?",
    }
    assert {docstring_queries(one, seed)[0] for seed in range(30)} == set(asked)
    command, told = (function(f'"""{sentence}."""') for sentence in ("Find the largest one", "A wheel of edges"))
    assert {docstring_queries(command, seed)[0] for seed in range(9)} == {
        "Find the largest one",
        "find the largest one",
    }
    assert docstring_queries(command, 0)[1:] == ["how to find the largest one", "how do I find the largest one?"]
    assert [query.lower() for query in docstring_queries(told, 0)] == ["a wheel of edges"]


@pytest.mark.parametrize(
    ("docstring", "reason"),
    [
        ('"""Do it."""', "of too few words"),
        ('"""Do, do, do."""', "its name alone"),
        ('"""name: of the parameter value: of it."""', "lists parameters"),
        (f'"""Say it to {"the very " * 8}end."""', "of too many words"),
        ('"""Draw <img src=x> on the canvas."""', "tag or a link"),
        ('"""Follow https://example.org to the end."""', "tag or a link"),
        ('"""Вычисляет сумму всех values."""', "not in English"),
        ("y = 1", "no docstring that makes a query"),
    ],
)
def test_a_docstring_that_nobody_would_type_is_refused_with_its_reason(docstring, reason):
    with pytest.raises(NoQuery, match=reason):
        docstring_queries(function(docstring), 0)


@pytest.mark.parametrize(
    ("sentence", "typed"),
    [
        ("Returns True if the graph is a tree, False otherwise.", "Check whether the graph is a tree"),
        ("Return whether or not x holds y", "Check whether x holds y"),
        ("Start a search (from s, if s is given) at the top", "Start a search at the top"),
        ("Add half-edges for (v, w) at some position (in place)", "Add half-edges for (v, w) at some position"),
        ("Resolve the metric -- and check it", "Resolve the metric"),
        ("Cost gate: is it worth its overhead?", "Cost gate: is it worth its overhead?"),
        ("A random cograph with $2 ^ n$ nodes", "A random cograph with 2 ^ n nodes"),
        ("This module provides the functions for node classification", "functions for node classification"),
        (
            f"Applies it to each {'big ' * 9}value, and emits what comes out of it",
            f"Applies it to each {'big ' * 9}value",
        ),
    ],
)
def test_a_sentence_is_typed_as_far_as_it_is_to_the_point(sentence, typed):
    assert to_the_point(sentence) == typed


def test_what_a_programmer_returns_a_searcher_gets():
    asked = docstring_queries(function('"""Return the largest element."""'), 0)
    assert asked[0].lower() == "return the largest element"
    assert asked[1:] == ["how to get the largest element", "how do I get the largest element?"]


def test_a_verb_is_told_by_its_base_and_a_plural_is_no_verb():
    for sentence, base in (("Applies it to all", "apply"), ("Searches it all", "search"), ("Uses it for all", "use")):
        assert any(
            query.startswith(f"how to {base} it") for query in docstring_queries(function(f'"""{sentence}."""'), 0)
        )
    assert [query.lower() for query in docstring_queries(function('"""Sets of nodes."""'), 0)] == ["sets of nodes"]


def test_a_name_is_asked_for_by_its_words_and_its_class():
    assert "code for shortest path" in name_queries(function(head="def _shortest_path(x):"), 0)
    text = "class EdgeView:\n    def add_all(self, x):\n        y = x\n        return y\n"
    (method,) = functions_of(source_file(text), min_lines=2)
    assert name_queries(method, 0)[-1] == "how do I add all of edge view?"
    assert "how to check if simple path" in name_queries(function(head="def is_simple_path(x):"), 0)
    for head in ("def walk(x):", "def __add_all__(x):", "def f_x(x):"):
        with pytest.raises(NoQuery):
            name_queries(function(head=head), 0)


CALLS = """
def route_length(graph):
    path = shortest_path(graph)
    value = shortest_path(graph)
    best: list = other.widest_path(graph)
    for walk in longest_path(graph):
        x = got(walk)
        ccs = got(walk)
        short = d.got(walk)
    return len(path)

def shortest_path(graph):
    path_again = shortest_path(graph)
    return graph

def widest_path(graph):
    y = graph
    return y

def longest_path(graph):
    y = graph
    return y

def got(graph):
    y = graph
    return y
"""


def test_a_function_is_asked_for_by_what_its_callers_do_with_it():
    functions = functions_of(source_file(CALLS), min_lines=2)
    sites = {
        one.name: [(call.caller.name, call.variable) for call in calls] for one, calls in call_sites(functions).items()
    }
    assert sites == {
        "shortest_path": [("route_length", "path"), ("route_length", "value")],
        "widest_path": [("route_length", "best")],
        "longest_path": [("route_length", "walk")],
        "got": [("route_length", "x"), ("route_length", "ccs")],  # behind a dot a single word may be anyone's
    }
    by_name = {one.name: one for one in functions}
    asked = call_queries(by_name["widest_path"], call_sites(functions)[by_name["widest_path"]], 0)
    assert "how does route length get its best?" in asked and not any("widest" in query for query in asked)
    for name in ("shortest_path", "got"):  # its own word or one that says nothing; a letter or an abbreviation
        with pytest.raises(NoQuery):
            call_queries(by_name[name], call_sites(functions)[by_name[name]], 0)


def test_a_caller_is_told_with_its_class():
    body = "        lid = look_up(self)\n        cover = look_up(lid)\n        return cover\n"
    (fill,) = functions_of(source_file(f"class Box:\n    def fill(self):\n{body}"), min_lines=2)
    found = function(head="def look_up(x):", path="pkg/a.py")
    asked = call_queries(found, call_sites([fill, found])[found], 0)
    assert "how does fill of box get its cover?" in asked and not any("lid" in query for query in asked)


def test_a_call_is_not_told_across_the_split_or_to_one_of_two_namesakes():
    caller = functions_of(source_file("def use(g):\n    bridge = find_it(g)\n    return bridge\n"), min_lines=2)
    there = [function(head="def find_it(x):", path="pkg/a.py")]
    assert len(call_sites([*caller, *there])) == 1
    assert not call_sites([*caller, function(head="def find_it(x):", path="pkg/a.py", split="test")])
    assert not call_sites([*caller, *there, function(head="def find_it(x):", path="pkg/b.py")])


def test_a_file_is_asked_for_by_its_heading_its_path_and_what_is_done_in_it():
    python = source_file(
        '"""\n****\nReading of settings files.\n****\n\nMore."""\n\ndef parse_config(x):\n    return x\n'
    )
    assert set(file_queries(python, 0)) == {
        voice.format(topic="reading of settings files", file="pkg/things.py") for voice in FILE_VOICES
    }
    first = {file_queries(python, seed, by_name=True)[0] for seed in range(60)}
    assert "where is the config parsed?" in first and "how do I open pkg/things.py?" in first
    several = source_file("def build_parsers(x):\n    return x\n")
    assert any("are the parsers built" in file_queries(several, seed, by_name=True)[0] for seed in range(60))
    silent = source_file("x = 1\n", "a/b/custom_file.py")
    assert set(file_queries(silent, 0)) == {"how do I open b/custom_file.py?", "where is b/custom_file.py?"}


def test_a_typescript_file_is_asked_for_too():
    text = "/**\n * Watches files for changes.\n * @module\n */\nexport async function load_config(a: string) {}\n"
    asked = file_queries(source_file(text, "src/custom_file.ts"), 0, by_name=True)
    assert "how do I open src/custom_file.ts?" in asked and "which file has watches files for changes?" in asked
    assert any("the config loaded" in query for query in asked)
    licensed = source_file("/* Copyright 2020 of someone or other. */\nlet x;\n", "src/a.ts")
    assert not any("someone" in query for query in file_queries(licensed, 0))
