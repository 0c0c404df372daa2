"""Short tests of one function, cut from the repository's own tests or from the function's own examples."""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from data.corpus import Corpus, import_root
from data.filters import decode
from data.functions import Function, module_name


@dataclass(frozen=True)
class RepositoryTest:
    """A plain test function: no arguments, no decorators, no `self`."""

    name: str
    body: tuple[ast.stmt, ...]
    imports: dict[str, str]  # of its file: name -> the statement that binds it


def repository_tests(corpus: Corpus) -> dict[str, list[RepositoryTest]]:
    """The tests of a corpus's source by the names that they call. They come from files that are not learnt from."""
    found: dict[str, list[RepositoryTest]] = {}
    root = import_root(corpus.source)
    package = {file.path.split("/")[0].removesuffix(".py") for file in corpus.files}
    for reject in corpus.rejects:
        path = root / reject["path"]
        if reject["reason"] != "test file" or not path.is_file():
            continue
        try:
            tree = ast.parse(decode(path.read_bytes()) or "")
        except (SyntaxError, ValueError):
            continue
        imports = _imports(tree, module_name(reject["path"]), package)
        for node in _plain_tests(tree):
            test = RepositoryTest(node.name, tuple(node.body), imports)
            for name in sorted(_called(node)):
                found.setdefault(name, []).append(test)
    return found


def from_repository(function: Function, tests: list[RepositoryTest], *, most_characters: int) -> Iterator[str]:
    """Tests of a function cut from the repository's: as many statements from the start as fit, up to an assertion.

    Tests that are named after the function come first.
    """
    for test in sorted(tests, key=lambda test: function.name not in test.name):
        for length in range(len(test.body), 0, -1):
            body = test.body[:length]
            if not _asserts(body[-1]) or function.name not in _called(ast.Module(list(body), [])):
                continue
            source = _test_source(function.name, list(body), test.imports)
            if source and len(source) <= most_characters:
                yield source
                break


def from_examples(function: Function, module_text: str, *, most_characters: int) -> str | None:
    """A test made of the function's own examples, those whose wanted output is a literal; None when there is none."""
    tree = ast.parse(module_text)
    body: list[ast.stmt] = []
    kept = 0
    imports = _imports(tree, function.module, {function.module.split(".")[0]})
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for name in defined:
        imports[name] = f"from {function.module} import {name}"
    for example in function.examples:
        statements = _example_statements(example)
        asserted = [*body, *statements]
        source = _test_source(function.name, asserted, imports)
        if statements and (not source or len(source) > most_characters):
            break
        body = asserted
        kept = len(body) if statements and isinstance(statements[-1], ast.Assert) else kept
    body = body[:kept]
    if function.name not in _called(ast.Module(body, [])):
        return None
    return _test_source(function.name, body, imports)


def _example_statements(example: dict) -> list[ast.stmt]:
    """The statements of an example; an expression with a literal output becomes an assertion, others are left out."""
    if example["options"] or example["raises"]:
        return []
    try:
        statements = ast.parse(example["source"]).body
    except SyntaxError:
        return []
    if not example["want"]:
        return [node for node in statements if not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call)]
    if len(statements) != 1 or not isinstance(statements[0], ast.Expr):
        return []
    try:
        ast.literal_eval(example["want"].strip())
    except (ValueError, SyntaxError):
        return []
    want = ast.parse(example["want"].strip(), mode="eval").body
    value = statements[0].value
    if isinstance(want, ast.Constant) and isinstance(want.value, bool | None):
        positive = value if want.value else ast.UnaryOp(ast.Not(), value)
        same = positive if want.value is not None else ast.Compare(value, [ast.Is()], [want])
        return [ast.Assert(test=same)]
    if isinstance(value, ast.Compare | ast.BoolOp) or (
        isinstance(want, ast.Constant) and isinstance(want.value, float)
    ):
        return []  # a printed float is rounded; a chained comparison would change its meaning
    return [ast.Assert(test=ast.Compare(value, [ast.Eq()], [want]))]


def _test_source(name: str, body: list[ast.stmt], imports: dict[str, str]) -> str | None:
    """The whole test with the imports that it needs; None when it uses a name that no import gives."""
    if not body:
        return None
    module = ast.Module(body, [])
    stored = {node.id for node in ast.walk(module) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    stored |= {node.arg for node in ast.walk(module) if isinstance(node, ast.arg)}
    stored |= {alias.asname or alias.name.split(".")[0] for alias in _aliases(module)}
    stored |= {node.name for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.ExceptHandler)}
    loaded = {node.id for node in ast.walk(module) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    free = {one for one in loaded - stored if not hasattr(builtins, one)}
    if not free <= imports.keys():
        return None
    lines = sorted({imports[one] for one in free}, key=lambda line: (line.startswith("from"), line))
    text = "\n".join("    " + line if line else "" for one in body for line in ast.unparse(one).split("\n"))
    return "\n".join(
        [*lines, "", "", f"def test_{name.strip('_')}():", text] if lines else [f"def test_{name}():", text]
    )


def _imports(tree: ast.Module, module: str, package: set[str]) -> dict[str, str]:
    """The statement for each name that a module imports from itself or the standard library; others are left out."""
    allowed = package | sys.stdlib_module_names
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in allowed:
                    name = alias.asname or alias.name.split(".")[0]
                    found[name] = f"import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")
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
    name = getattr(called, "id", getattr(called, "attr", ""))
    return name.startswith("assert")


def _called(node: ast.AST) -> set[str]:
    functions = [one.func for one in ast.walk(node) if isinstance(one, ast.Call)]
    return {getattr(one, "id", None) or getattr(one, "attr", "") for one in functions} - {""}


def _aliases(node: ast.AST) -> list[ast.alias]:
    return [alias for one in ast.walk(node) if isinstance(one, ast.Import | ast.ImportFrom) for alias in one.names]
