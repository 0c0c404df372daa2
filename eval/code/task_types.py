"""The type of a code task, judged by a program: what its solution does, and which values its tests pass.

| type | is a task |
|---|---|
| file I/O | whose solution or tests open files, or use os, pathlib, csv, … |
| classes | whose tests use a class of the answer |
| algorithms | whose solution calls itself, has a `while` or a loop within a loop, or uses heapq or bisect |
| strings, lists and dictionaries, numbers | any other, by the first argument that the tests pass |

The first that applies counts, so that each task has one type, the same for every model.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator

from common.python_syntax import parsed
from eval.code.tasks import CodeTask

TYPES = ("algorithms", "strings", "lists and dictionaries", "numbers", "file I/O", "classes", "other")
_FILES = frozenset({"csv", "glob", "io", "os", "pathlib", "shutil", "sqlite3", "tempfile", "zipfile"})
_SEARCHES = frozenset({"bisect", "heapq"})
_LOOPS = ast.For | ast.AsyncFor | ast.While
_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


@functools.cache
def task_type(task: CodeTask) -> str:
    """The type of a task, one of TYPES; without a gold, its tests and the head in its prompt decide."""
    solution = parsed(task.gold or "") or ast.Module([], [])
    tests = ast.parse(task.setup + task.tests)
    if any(_uses_files(tree) for tree in (solution, tests)):
        return "file I/O"
    if task.has_class:
        return "classes"
    if _is_algorithm(solution):
        return "algorithms"
    return _type_of_argument(task, tests) or "other"


def _uses_files(tree: ast.Module) -> bool:
    return bool(_imported(tree) & _FILES) or any(
        isinstance(node, ast.Call) and ast.unparse(node.func) == "open" for node in ast.walk(tree)
    )


def _imported(tree: ast.Module) -> set[str]:
    """The top-level packages that a module imports."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def _is_algorithm(tree: ast.Module) -> bool:
    functions = [node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS)]
    if _imported(tree) & _SEARCHES or any(isinstance(node, ast.While) for node in ast.walk(tree)):
        return True
    return any(_calls_itself(function) or _loop_depth(function) > 1 for function in functions)


def _calls_itself(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
    return any(isinstance(called, ast.Name) and called.id == function.name for called in calls)


def _loop_depth(node: ast.AST) -> int:
    """How deeply loops are nested; comprehensions are expressions, not loops."""
    return max(map(_loop_depth, ast.iter_child_nodes(node)), default=0) + isinstance(node, _LOOPS)


def _type_of_argument(task: CodeTask, tests: ast.Module) -> str | None:
    """By the first value that is a literal among the first arguments that the tests pass, or the prompt's examples."""
    values = [*_first_arguments(task, tests), *_first_arguments(task, _examples(task.prompt))]
    return next(filter(None, map(_type_of_value, values)), None)


def _examples(prompt: str) -> ast.Module:
    """The examples in a docstring, `>>> f(1)`, as statements."""
    lines = (line.strip().removeprefix(">>>").strip() for line in prompt.split("\n") if line.strip().startswith(">>>"))
    trees = filter(None, map(parsed, lines))
    return ast.Module([statement for tree in trees for statement in tree.body], [])


def _first_arguments(task: CodeTask, tree: ast.Module) -> Iterator[ast.expr]:
    """The first arguments of calls of the entry point (HumanEval's tests call it `candidate`), and of EvalPlus's
    INPUTS."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (task.entry_point, "candidate"):
            yield from _firsts([ast.List(node.args, ast.Load())])
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "INPUTS":
            yield from _firsts(node.value.elts if isinstance(node.value, ast.List) else [])


def _firsts(calls: list) -> Iterator[ast.expr]:
    """The first argument of each list of arguments; MultiPL-E's are `*[…]`."""
    for arguments in calls:
        first = next(iter(getattr(arguments, "elts", [])), None)
        if isinstance(first, ast.Starred):
            yield from _firsts([first.value] if isinstance(first.value, ast.List) else [])
        elif first is not None:
            yield first


def _type_of_value(node: ast.expr) -> str | None:
    if isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict | ast.ListComp | ast.SetComp | ast.DictComp):
        return "lists and dictionaries"
    if isinstance(node, ast.JoinedStr):
        return "strings"
    while isinstance(node, ast.UnaryOp | ast.BinOp):  # -1, 10**9, "a" * 5
        node = node.operand if isinstance(node, ast.UnaryOp) else node.left
    if not isinstance(node, ast.Constant) or node.value is None:
        return None
    return "strings" if isinstance(node.value, str | bytes) else "numbers"
