"""Short tests of one function, cut from the repository's own tests or from the function's own examples."""

from __future__ import annotations

import ast
import builtins
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from data.corpus import Corpus, import_root
from data.filters import decode
from data.functions import Function


@dataclass(frozen=True)
class Statement:
    """A statement as tree and as text, dedented."""

    node: ast.stmt
    text: str


@dataclass(frozen=True)
class RepositoryTest:
    """A plain test function: no arguments, no decorators, no `self`."""

    name: str
    body: tuple[Statement, ...]
    imports: dict[str, str]  # of its file: name -> the statement that binds it


def repository_tests(corpus: Corpus) -> dict[str, list[RepositoryTest]]:
    """The tests of a corpus's sources by the names that they call. They come from files that are not learnt from."""
    found: dict[str, list[RepositoryTest]] = {}
    roots = {source: import_root(source) for source in corpus.sources}
    package = {file.path.split("/")[0].removesuffix(".py") for file in corpus.files}
    for reject in corpus.rejects:
        path = roots[reject["source"]] / reject["path"]
        if reject["reason"] != "test file" or reject["language"] != "python" or not path.is_file():
            continue
        text = decode(path.read_bytes()) or ""
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError):
            continue  # no test can be cut from it; the corpus lists the file as a test file
        imports = _imports(tree, package)
        lines = text.split("\n")
        for node in _plain_tests(tree):
            body = [textwrap.dedent("\n".join(lines[one.lineno - 1 : one.end_lineno])) for one in node.body]
            test = RepositoryTest(node.name, tuple(map(Statement, node.body, body)), imports)
            for name in sorted(_called([node])):
                found.setdefault(name, []).append(test)
    return found


def from_repository(function: Function, tests: list[RepositoryTest], *, most_characters: int) -> Iterator[str]:
    """Tests of a function cut from the repository's: as many statements from the start as fit, up to an assertion.

    Tests that are named after the function come first.
    """
    for test in sorted(tests, key=lambda test: function.name not in test.name):
        for length in range(len(test.body), 0, -1):
            body = test.body[:length]
            if not _asserts(body[-1].node) or function.name not in _called([one.node for one in body]):
                continue
            source = _test_source(function.name, body, test.imports)
            if source and len(source) <= most_characters:
                yield source
                break


def from_examples(function: Function, module_text: str, *, most_characters: int) -> str | None:
    """A test made of the function's own examples, those whose wanted output is a literal; None when there is none."""
    tree = ast.parse(module_text)
    imports = _imports(tree, {function.module.split(".")[0]})
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            imports[node.name] = f"from {function.module} import {node.name}"
    body: list[Statement] = []
    longest = None
    for example in function.examples:
        body += _example_statements(example)
        source = _test_source(function.name, body, imports)
        if body and (source is None or len(source) > most_characters):
            break
        if body and isinstance(body[-1].node, ast.Assert) and function.name in _called([one.node for one in body]):
            longest = source
    return longest


def _example_statements(example: dict) -> list[Statement]:
    """The statements of an example; an expression with a literal output becomes an assertion, others are left out."""
    text = example["source"].rstrip("\n")
    if example["options"] or example["raises"]:
        return []
    try:
        statements = ast.parse(text).body
    except SyntaxError:
        return []
    if len(statements) != 1:
        return []
    if not example["want"]:
        return [Statement(statements[0], text)]
    if not isinstance(statements[0], ast.Expr):
        return []
    try:
        wanted = ast.literal_eval(example["want"].strip())
    except (ValueError, SyntaxError):
        return []
    value = statements[0].value
    if isinstance(wanted, float) or isinstance(value, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.IfExp | ast.Lambda):
        return []  # a printed float may be rounded; the others would bind differently inside a comparison
    if isinstance(wanted, bool):
        text = f"assert {text}" if wanted else f"assert not {text}"
    else:
        text = f"assert {text} {'is' if wanted is None else '=='} {example['want'].strip()}"
    try:
        return [Statement(ast.parse(text).body[0], text)]
    except SyntaxError:  # such as a wanted output of several lines
        return []


def _test_source(name: str, body: list[Statement] | tuple[Statement, ...], imports: dict[str, str]) -> str | None:
    """The whole test with the imports that it needs; None when it uses a name that no import gives."""
    nodes = [node for statement in body for node in ast.walk(statement.node)]
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    bound |= {node.asname or node.name.split(".")[0] for node in nodes if isinstance(node, ast.alias)}
    bound |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.ExceptHandler)}
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    free = {one for one in used - bound if not hasattr(builtins, one)}
    if not body or not free <= imports.keys():
        return None
    head = sorted({imports[one] for one in free}, key=lambda line: (line.startswith("from"), line))
    test = [f"def test_{name.strip('_')}():", *(textwrap.indent(statement.text, "    ") for statement in body)]
    return "\n".join([*head, "", "", *test] if head else test)


def _imports(tree: ast.Module, package: set[str]) -> dict[str, str]:
    """The statement for each name that a module imports from the package itself or the standard library."""
    allowed = package | sys.stdlib_module_names
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in allowed:
                    bound = f" as {alias.asname}" if alias.asname else ""
                    found[alias.asname or alias.name.split(".")[0]] = f"import {alias.name}{bound}"
        elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] in allowed:
            for alias in node.names:
                if alias.name != "*":
                    bound = f" as {alias.asname}" if alias.asname else ""
                    found[alias.asname or alias.name] = f"from {node.module} import {alias.name}{bound}"
    return found


def _plain_tests(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    for node in tree.body:
        methods = node.body if isinstance(node, ast.ClassDef) else [node]
        for test in methods:
            if not isinstance(test, ast.FunctionDef) or not test.name.startswith("test") or test.decorator_list:
                continue
            arguments = [argument.arg for argument in ast.walk(test.args) if isinstance(argument, ast.arg)]
            uses_self = any(isinstance(one, ast.Name) and one.id == "self" for one in ast.walk(test))
            if arguments == (["self"] if isinstance(node, ast.ClassDef) else []) and not uses_self:
                yield test


def _asserts(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assert):
        return True
    called = node.value.func if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else None
    return getattr(called, "id", getattr(called, "attr", "")).startswith("assert")


def _called(nodes: list[ast.stmt]) -> set[str]:
    calls = [one.func for node in nodes for one in ast.walk(node) if isinstance(one, ast.Call)]
    return {getattr(one, "id", None) or getattr(one, "attr", "") for one in calls} - {""}
