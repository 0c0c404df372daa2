"""Moves a function into one that only calls it: same behaviour, but its code object no longer gives it away."""

from __future__ import annotations

import ast
import copy

from common.python_syntax import parse

INNER = "_wrapped"


def wrapped(source: str) -> str:
    """The text of a function whose body is an inner function with the old body, and a call to it with all arguments.

    Decorators, signature and docstring stay outside. A plain function passes a generator or coroutine through.
    """
    (outer,) = parse(source).body
    inner = copy.deepcopy(outer)
    inner.name, inner.decorator_list, inner.returns = INNER, [], None
    arguments = inner.args
    arguments.defaults, arguments.kw_defaults = [], [None] * len(arguments.kwonlyargs)  # every argument is passed
    positional = [*arguments.posonlyargs, *arguments.args]
    given = [ast.Name(one.arg) for one in positional]
    given += [ast.Starred(ast.Name(arguments.vararg.arg))] if arguments.vararg else []
    named = [ast.keyword(one.arg, ast.Name(one.arg)) for one in arguments.kwonlyargs]
    named += [ast.keyword(None, ast.Name(arguments.kwarg.arg))] if arguments.kwarg else []
    for one in (*positional, arguments.vararg, *arguments.kwonlyargs, arguments.kwarg):
        if one is not None:
            one.annotation = None
    documented = ast.get_docstring(outer, clean=False) is not None
    outer.body = [*outer.body[:documented], inner, ast.Return(ast.Call(ast.Name(INNER), given, named))]
    plain = {name: getattr(outer, name) for name in outer._fields}
    return ast.unparse(ast.fix_missing_locations(ast.FunctionDef(**plain))) + "\n"
