"""What is searched: a function or a whole file, as the text that stands for it.

Every unit is {"id", "kind": "function" or "file", "code", "source"}.
"""

from __future__ import annotations

import ast
import re

from data.corpus import SourceFile
from data.functions import Function, functions_of, source_of
from data.script_functions import ScriptFunction, script_functions_of
from data.syntax import parse

AnyFunction = Function | ScriptFunction
# The top level of a JavaScript or TypeScript file, a name a line.
OUTLINE = re.compile(
    r"^(?:export\s+)?(?:default\s+)?(?:declare\s+)?(?:abstract\s+)?(?:async\s+)?"
    r"(?:function\*?|class|interface|type|enum|const|let|namespace)\s+\w[^\n{=;]*",
    re.MULTILINE,
)


def functions_in(file: SourceFile, *, min_lines: int = 5, max_lines: int = 60) -> list[AnyFunction]:
    """The functions of a file in any language that the corpus reads, of min_lines to max_lines of code."""
    of_language = functions_of if file.path.endswith(".py") else script_functions_of
    return of_language(file, min_lines=min_lines, max_lines=max_lines)


def function_unit(function: AnyFunction) -> dict:
    """A function without its docstring, as that gives the query."""
    return {
        "id": f"{function.path}:{function.first_line}",
        "kind": "function",
        "code": function.code_without_docstring,
        "source": source_of(function),
    }


def file_unit(file: SourceFile) -> dict:
    """A file as its outline: path, classes and signatures. Its docstring is left out, as it gives the query."""
    outline = _python_outline(file.text) if file.path.endswith(".py") else OUTLINE.findall(file.text)
    source = {"path": file.path, "qualname": None, "commit": file.commit, "license": file.license}
    lines = [1, file.text.rstrip("\n").count("\n") + 1]
    code = "\n".join([f"# {file.path}", *(line.rstrip() for line in outline)])
    return {"id": file.path, "kind": "file", "code": code, "source": {**source, "lines": lines}}


def _python_outline(text: str) -> list[str]:
    lines = []
    for node in parse(text).body:
        if isinstance(node, ast.ClassDef):
            methods = [one.name for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
            lines.append(f"class {node.name}: {', '.join(methods)}")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines.append(f"def {node.name}({ast.unparse(node.args)})")
    return lines


def without_equal_codes(units: list[dict], rejects: list[dict]) -> list[dict]:
    """The first unit of each text: of two that read the same, neither could be told to be the right one."""
    first: dict[str, dict] = {}
    for unit in units:
        if first.setdefault(unit["code"], unit) is not unit:
            rejects.append({"id": unit["id"], "reason": "code equal to another", "detail": first[unit["code"]]["id"]})
    return list(first.values())
