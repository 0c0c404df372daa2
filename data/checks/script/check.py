"""Checks of a function in JavaScript or TypeScript: by calls that node makes, or by the form of the answer alone."""

from __future__ import annotations

import re

from data.checks.node import node_command
from data.checks.script.modules import program_of
from data.checks.script.parts import parts_of
from sandbox.run import Job

SHORT = {"javascript": "js", "typescript": "ts"}
SECONDS = 10.0  # wall clock of a job
MEGABYTES = 1024
ALIAS = "answer__"  # the name by which the calls reach the function
# bodies that promise a function and are none
_PLACEHOLDER = re.compile(r"^\s*(?:(?://[^\n]*|/\*.*?\*/)\s*)*(?:throw new Error\([^)]*\);?\s*)?$", re.DOTALL)


def calls_check(
    language: str, name: str, module: str, modules: dict[str, str], lines: tuple[int, int], calls: list[dict]
) -> dict:
    """A check that calls of a function give what its examples say. It needs no file: it carries the modules.

    module, modules  the path of its module; path -> text of that and of all that it imports
    lines            the first and last line of the function in it, from 1
    calls            {"arguments", "want", "raises"}, as `calls_of_examples` gives them
    """
    place = {"module": module, "first_line": lines[0], "last_line": lines[1], "modules": modules}
    return {"kind": "calls", "language": language, "name": name, **place, "calls": calls}


def script_structure_check(language: str, name: str, arguments: list[str], returns: bool, names: list[str]) -> dict:
    """What an answer that is not executed must mention, as data.checks.structure_check says."""
    told = {"arguments": arguments, "returns": returns, "names": names}
    return {"kind": "structure", "language": language, "name": name, **told}


def job_of_calls(check: dict, code: str) -> Job:
    """The job that makes the calls with `code` in the function's place; what they should give stays here.

    UserError where node, or what removes TypeScript's types, is missing.
    """
    lines = check["modules"][check["module"]].split("\n")
    changed = "\n".join([*lines[: check["first_line"] - 1], code.rstrip("\n"), *lines[check["last_line"] :]])
    program = program_of(check["modules"] | {check["module"]: changed}, check["module"], check["name"], ALIAS)
    command, readable = node_command(SHORT[check["language"]])
    return Job(
        id=f"{check['module']}:{check['first_line']}",
        program=program,
        examples=[{"source": f"print(repr({ALIAS}(*{call['arguments']})))\n"} for call in check["calls"]],
        seconds=SECONDS,
        megabytes=MEGABYTES,
        tests={"source": "", "names": [ALIAS]},
        command=list(command),
        readable=list(readable),
    )


def function_problem(code: str, name: str, language: str) -> str | None:
    """What is wrong with the form of an answer's function, in a few words; None if nothing is."""
    parts = parts_of(code, language)
    if parts is None:
        return "does not parse"
    if parts.name != name:
        return f"does not define {name}"
    return "is a placeholder" if _PLACEHOLDER.match(parts.body) else None
