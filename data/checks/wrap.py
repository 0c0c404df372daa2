"""A function moved into one that only calls it: the same behaviour, and from outside the same code as any other."""

from __future__ import annotations

import ast
import copy

from common.python_syntax import parse

INNER = "_wrapped"


def wrapped(source: str) -> str:
    """The text of a function whose whole body is a function with the old body, and a call of it with all arguments.

    Decorators, signature and docstring stay outside. A generator or coroutine is handed through by a plain function.
    """
    (outer,) = parse(source).body
    inner = copy.deepcopy(outer)
    inner.name, inner.decorator_list, inner.returns = INNER, [], None
    arguments = inner.args
    arguments.defaults, arguments.kw_defaults = [], [None] * len(arguments.kwonlyargs)  # all are given
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
