"""Search units: functions, classes and whole files, each as one text.

Every unit is {"id", "kind": "function", "class" or "file", "code", "source"}. Training pairs use functions and files
without their documentation, which provides the queries; search.py uses all three with it.
"""

from __future__ import annotations

import ast
import re
import textwrap

from common.python_syntax import shared_tree
from data.corpus import SourceFile
from data.corpus.functions import Function, functions_of, one_line_functions, source_of
from data.corpus.languages import TAUGHT, language_of
from data.corpus.script_functions import ScriptFunction, script_functions_of
from data.search.classes import class_units
from data.search.definitions import definition_functions, definition_units

AnyFunction = Function | ScriptFunction
ALL_LINES = 1_000_000
# The top level of a JavaScript or TypeScript file, one name per line.
OUTLINE = re.compile(
    r"^(?:export\s+)?(?:default\s+)?(?:declare\s+)?(?:abstract\s+)?(?:async\s+)?"
    r"(?:function\*?|class|interface|type|enum|const|let|namespace)\s+\w[^\n{=;]*",
    re.MULTILINE,
)
OPENING = re.compile(r"\s*(?:#![^\n]*\s*)?/\*\*.*?\*/", re.DOTALL)  # the JSDoc at the start of a file


def documented_units(file: SourceFile) -> list[dict]:
    """The file, its classes and its functions in line order, each with its documentation."""
    if language_of(file.path) in TAUGHT:
        found = functions_in(file, min_lines=1, max_lines=ALL_LINES)
        functions = [function_unit(one) | {"code": one.source} for one in found]
        units = [file_unit(file, documented=True), *class_units(file), *functions, *_one_line_units(file)]
    else:
        units = definition_units(file)
    for unit in units:
        unit["source"] = {key: unit["source"][key] for key in ("path", "qualname", "lines")}
    return sorted(units, key=lambda unit: unit["source"]["lines"][0])  # stable: the file comes first


def functions_in(file: SourceFile, *, min_lines: int = 5, max_lines: int = 60) -> list[AnyFunction]:
    """The functions of a file in any language that the corpus reads, of min_lines to max_lines of code."""
    language = language_of(file.path)
    of_others = script_functions_of if language in TAUGHT else definition_functions
    of_language = functions_of if language == "python" else of_others
    return of_language(file, min_lines=min_lines, max_lines=max_lines)


def function_unit(function: AnyFunction) -> dict:
    """A function without its docstring, which provides the query."""
    return {
        "id": f"{function.path}:{function.first_line}",
        "kind": "function",
        "code": function.code_without_docstring,
        "source": source_of(function),
    }


def _one_line_units(file: SourceFile) -> list[dict]:
    """Python's one-line functions, `def f(x): return x` and `f = lambda x: x`, as whole lines."""
    if not file.path.endswith(".py"):
        return []
    lines = file.text.split("\n")
    units: dict[str, dict] = {}  # by id: the first on a line represents all on it
    for qualname, first, last in one_line_functions(file.text):
        code = textwrap.dedent("\n".join(lines[first - 1 : last]))
        source = {"path": file.path, "qualname": qualname, "lines": [first, last]}
        one = {"id": f"{file.path}:{first}", "kind": "function", "code": code, "source": source}
        units.setdefault(one["id"], one)
    return list(units.values())


def file_unit(file: SourceFile, *, documented: bool = False) -> dict:
    """A file as its outline: path, classes and signatures; if `documented`, with its header."""
    if language_of(file.path) not in TAUGHT:
        return definition_units(file)[0]
    python = file.path.endswith(".py")
    outline = _python_outline(file.text) if python else OUTLINE.findall(file.text)
    header = []
    if documented and python:
        header = list(filter(None, [ast.get_docstring(shared_tree(file.text))]))
    elif documented and (opening := OPENING.match(file.text)):
        header = [opening[0].strip()]
    source = {"path": file.path, "qualname": None, "commit": file.commit, "license": file.license}
    lines = [1, file.text.rstrip("\n").count("\n") + 1]
    code = "\n".join([f"# {file.path}", *header, *(line.rstrip() for line in outline)])
    return {"id": file.path, "kind": "file", "code": code, "source": {**source, "lines": lines}}


def _python_outline(text: str) -> list[str]:
    lines = []
    for node in shared_tree(text).body:
        if isinstance(node, ast.ClassDef):
            methods = [one.name for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
            lines.append(f"class {node.name}: {', '.join(methods)}")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines.append(f"def {node.name}({ast.unparse(node.args)})")
    return lines


def without_equal_codes(units: list[dict]) -> tuple[list[dict], list[dict]]:
    """The first unit of each text, and the others as rejects: of two equal texts neither is the one right answer."""
    first: dict[str, dict] = {}
    rejects = []
    for unit in units:
        if first.setdefault(unit["code"], unit) is not unit:
            rejects.append({"id": unit["id"], "reason": "code equal to another", "detail": first[unit["code"]]["id"]})
    return list(first.values()), rejects
