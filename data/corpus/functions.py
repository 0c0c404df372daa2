"""The functions of a source file: their text split into header, docstring and body, and their doctests."""

from __future__ import annotations

import ast
import doctest
import inspect
from collections.abc import Iterator
from dataclasses import dataclass

from common.python_syntax import module_name, shared_tree
from data.corpus.build import SourceFile
from data.corpus.script_functions import ScriptFunction
from data.likeness.near_duplicates import NEAR, near_duplicates


@dataclass(frozen=True, eq=False)
class Function:
    """A function or method. Its texts are dedented: `def` is in column 0."""

    path: str
    module: str
    qualname: str  # "ancestors", "Graph.add_node"
    name: str
    first_line: int  # in the file, from 1, decorators included
    last_line: int  # included
    source: str  # the whole text, decorators included
    header: str  # decorators and signature, through the colon
    signature: str  # the header without decorators
    docstring: str | None  # dedented
    docstring_source: str | None  # the literal as written, with its quotes and indentation
    body: str  # what follows the docstring, indented as in `source`; "" when there is nothing
    arguments: tuple[str, ...]  # names in order, without self and cls
    examples: tuple[dict, ...]  # doctest: {"source", "want", "options": {flag name: bool}, "raises": str | None}
    license: str | None
    commit: str | None
    split: str
    package: str = ""  # the SOURCE of its file

    @property
    def code_without_docstring(self) -> str:
        """Header and body."""
        return f"{self.header}\n{self.body or '    pass'}"

    @property
    def code_lines(self) -> int:
        """Lines of header and body."""
        return self.code_without_docstring.count("\n") + 1


def functions_of(file: SourceFile, *, min_lines: int = 5, max_lines: int = 60) -> list[Function]:
    """Functions of the module and methods of its classes whose code, docstring not counted, has min_lines to max_lines.

    Functions inside functions belong to the outer one. A function with its body on the line of its `def` is
    omitted: header and body share a line (`one_line_functions` returns it). Files in other languages give none.
    """
    if file.language != "python":
        return []
    tree = shared_tree(file.text)
    lines = file.text.split("\n")
    found = [(node, owner) for node, owner in _definitions(tree) if _has_block(node, lines)]
    functions = [_function(file, lines, node, owner) for node, owner in found]
    return [function for function in functions if min_lines <= function.code_lines <= max_lines]


def one_line_functions(text: str) -> list[tuple[str, int, int]]:
    """(qualname, first line, last line) of what `functions_of` omits: `def f(x): return x` and `f = lambda x: x`.

    Lines are counted from 1, decorators and the last one included.
    """
    lines = text.split("\n")
    found = []
    for node, owner in _definitions(shared_tree(text), lambdas=True):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            found.append((owner + target.id, node.lineno, node.end_lineno))
        elif not _has_block(node, lines):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found.append((owner + node.name, first, node.end_lineno))
    return found


def held_apart(
    functions: list[Function | ScriptFunction],
) -> tuple[list[Function | ScriptFunction], list[dict]]:
    """The functions without near-duplicates of test functions, and those as rejects.

    The split keeps similar files together; this catches a single function copied between dissimilar files.
    """
    rejects, leaking = [], set()
    for i, j, similarity in near_duplicates([function.code_without_docstring for function in functions], NEAR):
        for one, other in ((functions[i], functions[j]), (functions[j], functions[i])):
            if one.split != "test" and other.split == "test" and one not in leaking:
                leaking.add(one)
                detail = f"{similarity:.2f} alike {other.path}:{other.first_line}"
                rejects.append({**place(one), "reason": "nearly a test function", "detail": detail})
    return [function for function in functions if function not in leaking], rejects


def place(function: Function | ScriptFunction) -> dict:
    """Where a rejected function is: {"path", "qualname"}."""
    return {"path": function.path, "qualname": function.qualname}


def source_of(function: Function | ScriptFunction) -> dict:
    """Where a pair comes from."""
    return {
        "path": function.path,
        "qualname": function.qualname,
        "commit": function.commit,
        "license": function.license,
        "lines": [function.first_line, function.last_line],
    }


def _definitions(tree: ast.Module, *, lambdas: bool = False) -> Iterator[tuple[ast.stmt, str]]:
    """Every definition outside other functions, also under `if` and `try`, with the path of its classes.

    lambdas  include assignments of a lambda to a single name
    """
    waiting = [(child, "") for child in reversed(tree.body)]
    while waiting:
        node, owner = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or (lambdas and _names_lambda(node)):
            yield node, owner
        elif isinstance(node, ast.stmt | ast.ExceptHandler):
            owner = f"{owner}{node.name}." if isinstance(node, ast.ClassDef) else owner
            waiting += [(child, owner) for child in reversed(list(ast.iter_child_nodes(node)))]


def _names_lambda(node: ast.AST) -> bool:
    if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Lambda):
        return False
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return len(targets) == 1 and isinstance(targets[0], ast.Name)


def _has_block(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> bool:
    first = node.body[0]
    return not lines[first.lineno - 1].encode()[: first.col_offset].strip()


def _function(file: SourceFile, lines: list[str], node, owner: str) -> Function:
    first_line = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    indent = node.col_offset

    def text(first: int, last: int) -> str:
        return "\n".join(line[indent:] if not line[:indent].strip() else line for line in lines[first - 1 : last])

    docstring = ast.get_docstring(node, clean=False)
    header_end = _header_end(node, lines)
    literal = node.body[0]
    body_start = literal.end_lineno + 1 if docstring is not None else header_end + 1
    body = text(body_start, node.end_lineno).strip("\n")
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    arguments += [argument for argument in (node.args.vararg, node.args.kwarg) if argument]
    return Function(
        path=file.path,
        module=module_name(file.path),
        qualname=owner + node.name,
        name=node.name,
        first_line=first_line,
        last_line=node.end_lineno,
        source=text(first_line, node.end_lineno),
        header=text(first_line, header_end),
        signature=text(node.lineno, header_end),
        docstring=inspect.cleandoc(docstring) if docstring is not None else None,
        docstring_source=text(literal.lineno, literal.end_lineno) if docstring is not None else None,
        body=body,
        arguments=tuple(argument.arg for argument in arguments if argument.arg not in ("self", "cls")),
        examples=doctest_examples(docstring) if docstring else (),
        license=file.license,
        commit=file.commit,
        split=file.split,
        package=file.source,
    )


def _header_end(node, lines: list[str]) -> int:
    """The line of the signature's colon: the last line before the body that is neither blank nor a comment.

    A comment on the colon's line belongs to it.
    """
    number = node.body[0].lineno - 1
    decorated = getattr(node.body[0], "decorator_list", None)
    if decorated:
        number = decorated[0].lineno - 1
    while not lines[number - 1].strip() or lines[number - 1].lstrip().startswith("#"):
        number -= 1
    return number


def doctest_examples(docstring: str) -> tuple[dict, ...]:
    """The interactive examples of a docstring; none when doctest cannot read them."""
    try:
        examples = doctest.DocTestParser().get_examples(docstring)
    except ValueError:
        return ()
    names = {flag: name for name, flag in doctest.OPTIONFLAGS_BY_NAME.items()}
    return tuple(
        {
            "source": example.source,
            "want": example.want,
            "options": {names[flag]: on for flag, on in example.options.items()},
            "raises": example.exc_msg,
        }
        for example in examples
    )
