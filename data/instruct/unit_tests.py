"""Short tests of one function, extracted from the repository's tests or from the function's examples."""

from __future__ import annotations

import ast
import builtins
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from data.corpus import Corpus, import_root
from data.corpus.filters import decode
from data.corpus.functions import Function
from data.corpus.redact import redact

SETUP = ("setup_method", "setup_class", "setUp", "setUpClass")


@dataclass(frozen=True)
class Statement:
    """A statement as a tree and as dedented text."""

    node: ast.stmt
    text: str


@dataclass(frozen=True)
class RepositoryTest:
    """A plain test function: no arguments, no decorators, and no `self` beyond its class's set-up."""

    name: str
    body: tuple[Statement, ...]
    imports: dict[str, str]  # of its file: name -> the statement that binds it


def repository_tests(corpus: Corpus) -> dict[str, list[RepositoryTest]]:
    """The tests of a corpus's sources by the names that they call. Their files are not part of the corpus."""
    found: dict[str, list[RepositoryTest]] = {}
    roots = {source: import_root(source) for source in corpus.sources}
    package = {file.path.split("/")[0].removesuffix(".py") for file in corpus.files}
    for reject in corpus.rejects:
        path = roots[reject["source"]] / reject["path"]
        if reject["reason"] != "test file" or reject["language"] != "python" or not path.is_file():
            continue
        text = decode(path.read_bytes()) or ""
        text = redact(text)[0] if corpus.options["redact"] else text
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError):
            continue  # no test can be extracted; the corpus lists the file as a test file
        imports = _imports(tree, package)
        for name, body in _plain_tests(tree, text.split("\n")):
            test = RepositoryTest(name, tuple(body), imports)
            for called in sorted(_called([statement.node for statement in body])):
                found.setdefault(called, []).append(test)
    return found


def from_repository(function: Function, tests: list[RepositoryTest], *, most_characters: int) -> Iterator[str]:
    """Tests of a function extracted from the repository's: as many leading assertions as fit, with what they need.

    Tests named after the function come first.
    """
    for test in sorted(tests, key=lambda test: function.name not in test.name):
        assertions = _assertions_about(function.name, test)
        for count in range(len(assertions), 0, -1):
            body = _needed_for(assertions[:count], test.body)
            if function.name not in _called([statement.node for statement in body]):
                continue
            source = _test_source(function.name, body, test.imports)
            if source and len(source) <= most_characters:
                yield source
                break


def _assertions_about(name: str, test: RepositoryTest) -> list[int]:
    """Positions of the statements that check results of the function `name`, directly or through a variable.

    In a test not named after the function, passing such a variable to another imported function checks that one.
    """
    derived: set[str] = set()
    found = []
    for position, statement in enumerate(test.body):
        calls_it = name in _called([statement.node])
        is_about = calls_it or (derived & _mentioned(statement.node) and not _asks_another(statement.node, name, test))
        if is_about and _asserts(statement.node):
            found.append(position)
        elif is_about:
            derived |= _bound([statement.node])
    return found


def _asks_another(node: ast.stmt, name: str, test: RepositoryTest) -> bool:
    """Whether it calls an imported function that is neither `name` nor a helper of testing."""
    if name in test.name:
        return False
    for call in (one.func for one in ast.walk(node) if isinstance(one, ast.Call)):
        owner = call.value if isinstance(call, ast.Attribute) else call
        called = getattr(call, "attr", None) or getattr(call, "id", "")
        is_imported = isinstance(owner, ast.Name) and owner.id in test.imports
        if is_imported and not called.startswith(("assert", "raises", "approx")):
            return True
    return False


def _needed_for(assertions: list[int], body: tuple[Statement, ...]) -> list[Statement]:
    """These statements and, going backwards, every statement that touches a local name they need."""
    local = _bound([statement.node for statement in body])
    needed: set[str] = set()
    kept = []
    for position in range(assertions[-1], -1, -1):
        node = body[position].node
        mentioned = (_mentioned(node) | _bound([node])) & local
        if position in assertions or (not _asserts(node) and (mentioned & needed or not mentioned)):
            needed |= mentioned  # a call that touches no local name (a seed) may have effects that no name shows
            kept.append(body[position])
    return kept[::-1]


def from_examples(function: Function, module_text: str, *, most_characters: int) -> str | None:
    """A test made of the function's examples whose expected output is a literal; None if there is none."""
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
    """The statements of an example; an expression with a literal output becomes an assertion, others are omitted."""
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
        return []  # a printed float may be rounded; the others bind differently inside a comparison
    if isinstance(wanted, bool):
        text = f"assert {text}" if wanted else f"assert not {text}"
    else:
        text = f"assert {text} {'is' if wanted is None else '=='} {example['want'].strip()}"
    try:
        return [Statement(ast.parse(text).body[0], text)]
    except SyntaxError:  # such as a multi-line expected output
        return []


def _test_source(name: str, body: list[Statement] | tuple[Statement, ...], imports: dict[str, str]) -> str | None:
    """The whole test with the imports it needs; None if it uses a name that no import provides."""
    nodes = [statement.node for statement in body]
    used = {name for node in nodes for name in _mentioned(node)}
    free = {one for one in used - _bound(nodes) if not hasattr(builtins, one)}
    if not body or not free <= imports.keys():
        return None
    head = sorted({imports[one] for one in free}, key=lambda line: (line.startswith("from"), line))
    test = [f"def test_{name.strip('_')}():", *(textwrap.indent(statement.text, "    ") for statement in body)]
    return "\n".join([*head, "", "", *test] if head else test)


def _imports(tree: ast.Module, package: set[str]) -> dict[str, str]:
    """The statement for each name that a module imports from the package itself, the standard library or pytest."""
    allowed = package | sys.stdlib_module_names | {"pytest"}
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


def _plain_tests(tree: ast.Module, lines: list[str]) -> Iterator[tuple[str, list[Statement]]]:
    """Name and statements of each test that takes no arguments and has no decorator.

    A method that reads `self.x` is prefixed by its class's set-up, and both use `x` instead.
    """
    for node in tree.body:
        is_class = isinstance(node, ast.ClassDef)
        methods = [one for one in (node.body if is_class else [node]) if isinstance(one, ast.FunctionDef)]
        setup = next((one for one in methods if one.name in SETUP and not _arguments(one, 1)), None)
        for test in methods:
            if not test.name.startswith("test") or test.decorator_list or _arguments(test, int(is_class)):
                continue
            body = _statements(test, lines)
            if is_class and _owner(test) in {name for one in body for name in _mentioned(one.node)}:
                body = _without_self(_statements(setup, lines) + body) if setup else []
            if body:
                yield test.name, body


def _arguments(function: ast.FunctionDef, most: int) -> bool:
    """Whether it takes more than `most` arguments."""
    return len([one for one in ast.walk(function.args) if isinstance(one, ast.arg)]) > most


def _owner(method: ast.FunctionDef) -> str:
    return method.args.args[0].arg if method.args.args else ""


def _statements(function: ast.FunctionDef, lines: list[str]) -> list[Statement]:
    texts = [textwrap.dedent("\n".join(lines[one.lineno - 1 : one.end_lineno])) for one in function.body]
    return [
        Statement(node, text)
        for node, text in zip(function.body, texts, strict=True)
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))  # a docstring
    ]


def _without_self(body: list[Statement]) -> list[Statement]:
    """The statements with `self.x` as the local name `x`; none where that would not be equivalent."""
    names = [node for one in body for node in ast.walk(one.node)]
    attributes = {
        (node.attr, type(node.ctx))
        for node in names
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
    }
    made = {name for name, context in attributes if context is ast.Store}
    taken = {node.id for node in names if isinstance(node, ast.Name)}
    taken |= {node.arg for node in names if isinstance(node, ast.arg)}
    if {name for name, _ in attributes} - made or made & taken:
        return []  # a method, an attribute set elsewhere, or a clash of names
    plain = [re.sub(r"\b(?:self|cls)\.(?=\w)", "", one.text) for one in body]
    try:
        changed = [Statement(ast.parse(text).body[0], text) for text in plain]
    except (SyntaxError, IndexError):
        return []
    left = {name for one in changed for name in _mentioned(one.node)}
    return changed if not left & {"self", "cls"} else []


def _asserts(node: ast.stmt) -> bool:
    """Whether it or a nested statement checks something: `assert`, a call of assert…, `with raises(…)`."""
    calls = _called([node])
    return any(isinstance(one, ast.Assert) for one in ast.walk(node)) or any(
        name.startswith("assert") or name == "raises" for name in calls
    )


def _mentioned(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def _bound(nodes: list[ast.stmt]) -> set[str]:
    inner = [one for node in nodes for one in ast.walk(node)]
    bound = {one.id for one in inner if isinstance(one, ast.Name) and not isinstance(one.ctx, ast.Load)}
    bound |= {one.arg for one in inner if isinstance(one, ast.arg)}
    bound |= {one.asname or one.name.split(".")[0] for one in inner if isinstance(one, ast.alias)}
    named = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler
    return bound | {one.name for one in inner if isinstance(one, named) and one.name}


def _called(nodes: list[ast.stmt]) -> set[str]:
    calls = [one.func for node in nodes for one in ast.walk(node) if isinstance(one, ast.Call)]
    return {getattr(one, "id", None) or getattr(one, "attr", "") for one in calls} - {""}
