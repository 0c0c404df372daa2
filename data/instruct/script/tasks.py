"""Drafts one pair from a function in JavaScript or TypeScript: docstring, explain, bugfix, complete.

What the JSDoc shows of calls and their results, or what the package's tests assert of them, is run by node, with the
function and with the question's own code in its place. A function without either has a check of its form alone, if
checks of structure are accepted.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable

from common.console import UserError
from common.markdown import fenced
from data.checks import jobs_of, rerun
from data.checks.node import node_command
from data.checks.prove import RUNS, UNPROVEN
from data.checks.script import (
    Parts,
    calls_check,
    calls_of_examples,
    parts_of,
    script_mutants,
    script_structure_check,
)
from data.checks.script.check import SHORT
from data.checks.script.examples import MOST_CALLS
from data.checks.script.modules import imported_modules
from data.corpus.languages import language_of
from data.corpus.script_functions import ScriptFunction
from data.instruct.prose import summary
from data.instruct.script.jsdoc import read_jsdoc, write_jsdoc
from data.instruct.tasks import (
    DANGLING,
    Draft,
    DraftContext,
    Unsuitable,
    any_of_a_kind,
    explanation,
    result_told,
    what_is_wrong,
)
from sandbox.run import Job

EXAMPLES = "doctest"  # the kind of --checks that stands for the examples of a docstring, whatever the language
TESTS = "tests"  # likewise for the assertions of the repository's tests
_PLAIN_NAME = re.compile(r"[A-Za-z_$][\w$]*")


def _parts(function: ScriptFunction) -> tuple[str, Parts]:
    """The language of a function, and its parts. Unsuitable for methods and for what is no single statement."""
    language = language_of(function.path)
    if not _PLAIN_NAME.fullmatch(function.qualname) or function.path.endswith(".tsx"):
        raise Unsuitable("a method, a callback or a component: pairs are made from functions alone")
    parts = parts_of(function.code_without_docstring, language)
    if parts is None or parts.name != function.qualname:
        raise Unsuitable("a function that cannot be divided into signature and body")
    return language, parts


def _docstring(function: ScriptFunction, context: DraftContext, choose: random.Random) -> Draft:
    language, parts = _parts(function)
    documented, first = read_jsdoc(function.jsdoc), summary(function.docstring or "")
    if not first or {one.name for one in documented.params if one.text} != set(parts.arguments):
        raise Unsuitable("JSDoc without summary or without its parameters")
    if parts.returns and documented.returns is None:
        raise Unsuitable("JSDoc that does not say what is returned")
    check = script_structure_check(language, parts.name, list(parts.arguments), documented.returns is not None, [])
    return Draft({"input": parts.code, "output": write_jsdoc(first, documented), "check": check})


def _explain(function: ScriptFunction, context: DraftContext, choose: random.Random) -> Draft:
    language, parts = _parts(function)
    returns = read_jsdoc(function.jsdoc).returns
    told = result_told("returns", returns.text) if returns is not None and returns.text else ""
    results = [told] if told and not DANGLING.search(told) else []
    names = (function.name, *parts.arguments)
    text, named, problem = explanation(function.docstring or "", results, names, most=context.most_output)
    if problem:
        raise Unsuitable(problem)
    return Draft(
        {"input": parts.code, "output": text, "check": script_structure_check(language, parts.name, [], False, named)}
    )


def _complete(function: ScriptFunction, context: DraftContext, choose: random.Random) -> Draft:
    language, parts = _parts(function)
    if not function.jsdoc or not parts.body.strip():
        raise Unsuitable("no JSDoc that says what the body must do" if parts.body.strip() else "no body")
    check = _behaviour_check(function, parts, language, context)
    hollow = f"{parts.header}\n{parts.footer}"
    return Draft(
        {"input": f"{function.jsdoc}\n{hollow}", "output": fenced(parts.code, language), "check": check},
        right=_proofs(check, parts.code, RUNS),
        wrong=_proofs(check, hollow, 1),
    )


def _bugfix(function: ScriptFunction, context: DraftContext, choose: random.Random) -> Draft:
    language, parts = _parts(function)
    check = _behaviour_check(function, parts, language, context)
    found = script_mutants(parts.code, language)
    if not found:
        raise Unsuitable("nothing to mutate")
    mutant = any_of_a_kind(found, choose)
    first = summary(function.docstring or "").replace("*/", "")
    comment = f"/** {first} */\n" if first else ""
    check = {**check, "line": mutant.line + comment.count("\n"), "bug": mutant.kind}
    output = f"{what_is_wrong(mutant)}\n\n{fenced(comment + parts.code, language)}"
    return Draft(
        {"input": comment + mutant.source, "output": output, "check": check},
        right=_proofs(check, parts.code, RUNS),
        wrong=_proofs(check, mutant.source, 1),
    )


def _behaviour_check(function: ScriptFunction, parts: Parts, language: str, context: DraftContext) -> dict:
    """The first check that there is: by examples, the package's tests, structure. Unsuitable if there is none."""
    reasons = []
    for kind in context.kinds:
        if kind == UNPROVEN:
            return script_structure_check(language, parts.name, [], False, [function.name])
        if kind in (EXAMPLES, TESTS):
            calls, none = _calls_of(kind, function, context)
            modules = imported_modules(function.path, lambda path: context.read_module(function.package, path))
            why = _why_not_executed(language) or ("" if calls else none)
            why = why or ("" if modules else "it imports another package, or too much")
            if not why and modules:
                lines = (function.first_line, function.last_line)
                return calls_check(language, parts.name, function.path, modules, lines, calls)
            reasons.append(f"{kind}: {why}")
    raise Unsuitable(f"no check that counts: {'; '.join(reasons) or 'not asked for'}")


def _calls_of(kind: str, function: ScriptFunction, context: DraftContext) -> tuple[list[dict], str]:
    """The calls of a function by one kind of check, and why there are none."""
    if kind == EXAMPLES:
        return calls_of_examples(function.jsdoc, function.name), "no example with literals"
    return context.asserted.get(function.name, [])[:MOST_CALLS], "no test asserts what a call with literals gives"


@functools.lru_cache
def _why_not_executed(language: str) -> str:
    """Why code in a language cannot be run on this machine; "" if it can."""
    try:
        node_command(SHORT[language])
    except UserError as error:
        return str(error)
    return ""


def _proofs(check: dict, code: str, runs: int) -> list[tuple[dict, list[Job]]]:
    """The check and jobs that prove a function's code, as often as asked; none for a check of structure."""
    if check["kind"] == UNPROVEN:
        return []
    return [(check, rerun(jobs_of(check, code), number, comment="//")) for number in range(runs)]


SCRIPT_MAKERS: dict[str, Callable[[ScriptFunction, DraftContext, random.Random], Draft]] = {
    "docstring": _docstring,
    "explain": _explain,
    "bugfix": _bugfix,
    "complete": _complete,
}
