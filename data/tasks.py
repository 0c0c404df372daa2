"""One draft of an instruction pair per function and category, with what must be proven before it is used.

No language model takes part: the gold answer is the repository's own docstring, body, line or test.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from data.checks import doctest_check, doctest_job, structure_check, unit_test_check, unit_test_jobs
from data.degrade import degrade
from data.functions import Function, source_of
from data.mutate import Mutant, mutants
from data.prose import clean, sections, sentences, summary, without_examples
from data.unit_tests import RepositoryTest, from_examples, from_repository

MUTANTS = 3  # that an answer to a test pair is tried on
SHORT_DOCSTRING = 400  # characters; a longer one is replaced by its summary where the task does not need it
# a sentence that lost its end to a removed citation, or that points to what is not there
DANGLING = re.compile(r"\b(on|in|by|from|see|of|and|to|the|with|per)[.:,]?$|:$|^See\b|\bbelow\b", re.IGNORECASE)

INSTRUCTIONS = {
    "docstring": (
        "Write a docstring for this function: a summary, its parameters and what it returns. Reply with the docstring.",
        "Document `{name}`. Give only the docstring, with a summary line, the parameters and the return value.",
        "This function has no docstring. Write one that says what it does, what it takes and what it gives back.",
    ),
    "explain": (
        "What does this function do? Answer in a few sentences.",
        "Explain `{name}` in plain words.",
        "Describe what this function computes and what one should know to use it.",
    ),
    "bugfix": (
        "One line of this function has a bug. Reply with the corrected line only.",
        "`{name}` does not work: exactly one line is wrong. Write that line as it should be, and nothing else.",
        "Find the bug in this function. Give only the line that fixes it.",
    ),
    "complete": (
        "Write the body of this function. Reply with the body only.",
        "Implement `{name}` as its docstring says. Give only the lines that follow the docstring.",
        "Complete this function: write the code that comes after the docstring.",
    ),
    "unit_test": (
        "Write a short test for this function of `{module}`. Start with the imports it needs.",
        "Write a pytest function `test_{test_name}` for `{name}` from `{module}`, imports included.",
        "Test `{qualname}` of `{module}`: give the imports and one test function with assertions.",
    ),
    "improve": (
        "Improve this function without changing what it does. Reply with the whole function.",
        "Rewrite `{name}` so that it is clearer and more idiomatic. Keep its behaviour. Give the whole function.",
        "Clean up this code: better names and constructs, same results. Reply with the function.",
    ),
}


class Unsuitable(Exception):
    """Why a function gives no pair of a category."""


@dataclass(frozen=True)
class Repository:
    """What drafts are made from besides the function itself."""

    package: str  # SOURCE of the corpus
    texts: dict[str, str]  # module texts by path
    tests: dict[str, list[RepositoryTest]]
    most_input: int  # characters of instruction and input
    most_output: int  # characters
    seed: int


@dataclass(frozen=True)
class Draft:
    """A pair that may be used when every proof in `right` passes its check and every one in `wrong` does not."""

    pair: dict
    right: list[tuple[dict, list[dict]]] = field(default_factory=list)  # (check, sandbox jobs)
    wrong: list[tuple[dict, list[dict]]] = field(default_factory=list)


def draft(category: str, function: Function, repository: Repository) -> Draft:
    """The draft of a pair. Raises Unsuitable with the reason when the function does not serve for the category."""
    choose = random.Random(f"{repository.seed}\0{category}\0{function.path}\0{function.qualname}")
    made = MAKERS[category](function, repository, choose)
    phrase = choose.choice(INSTRUCTIONS[category])
    instruction = phrase.format(
        name=function.name, qualname=function.qualname, module=function.module, test_name=function.name.strip("_")
    )
    pair = {
        "id": f"{category}/{function.path}:{function.first_line}",
        "category": category,
        "instruction": instruction,
        "input": made.pair["input"],
        "output": made.pair["output"],
        "source": source_of(function),
        "check": made.pair["check"],
    }
    if len(instruction) + len(pair["input"]) > repository.most_input:
        raise Unsuitable(f"instruction and input over {repository.most_input} characters")
    if len(pair["output"]) > repository.most_output:
        raise Unsuitable(f"output over {repository.most_output} characters")
    return Draft(pair, made.right, made.wrong)


def _docstring(function: Function, repository: Repository, choose: random.Random) -> Draft:
    parts = sections(function.docstring or "")
    text = parts[""].strip().split("\n\n")[0]
    described = [title for title in parts if re.fullmatch(r"Parameters|Arg(ument)?s|Returns?|Yields?|Fields", title)]
    if not summary(function.docstring or "") or not described:
        raise Unsuitable("docstring without summary or without parameters and returns")
    for title in described:
        google = f"{title}:\n" in function.docstring
        heading = "" if title == "Fields" else f"{title}:\n" if google else f"{title}\n{'-' * len(title)}\n"
        text += f"\n\n{heading}{parts[title].rstrip()}"
    named = [name for name in function.arguments if re.search(rf"\b{re.escape(name)}\b", text)]
    returns = bool(re.search(r"\b(return|yield)", text, re.IGNORECASE))
    check = structure_check(named, returns, [])
    return Draft({"input": function.code_without_docstring, "output": f'"""{text}\n"""', "check": check})


def _explain(function: Function, repository: Repository, choose: random.Random) -> Draft:
    parts = sections(function.docstring or "")
    prose = [one for title in ("", "Notes") for one in sentences(clean(parts.get(title, "")).replace("\n\n", " "))]
    prose = [one for one in prose if not DANGLING.search(one)]
    text = ""
    for count, sentence in enumerate(prose):
        if len(text) + 1 + len(sentence) > repository.most_output:
            prose = prose[:count]
            break
        text = f"{text} {sentence}".strip()
    if len(prose) < 2:
        raise Unsuitable("docstring of fewer than two sentences")
    words = set(re.findall(r"\w+", text))
    names = [name for name in (function.name, *function.arguments) if name in words]
    return Draft({"input": function.code_without_docstring, "output": text, "check": structure_check([], False, names)})


def _complete(function: Function, repository: Repository, choose: random.Random) -> Draft:
    check = _examples_check(function, repository)
    if not function.body:
        raise Unsuitable("no body")
    prompt = f"{function.header}\n{function.docstring_source}"
    return Draft(
        {"input": prompt, "output": function.body, "check": check},
        right=[(check, [doctest_job(check, function.source)])],
        wrong=[(check, [doctest_job(check, f"{prompt}\n    pass")])],
    )


def _bugfix(function: Function, repository: Repository, choose: random.Random) -> Draft:
    check = _examples_check(function, repository)
    original = _with_short_docstring(function)
    mutant = _any_mutant(original, choose)
    check = {**check, "line": mutant.line, "bug": mutant.kind}
    return Draft(
        {"input": mutant.source, "output": mutant.original_line.strip(), "check": check},
        right=[(check, [doctest_job(check, function.source)])],
        wrong=[(check, [doctest_job(check, mutant.source)])],
    )


def _unit_test(function: Function, repository: Repository, choose: random.Random) -> Draft:
    most = repository.most_output
    test = None
    if "." not in function.qualname:  # a method's name is called on too many objects to know whose it is
        test = next(from_repository(function, repository.tests.get(function.name, []), most_characters=most), None)
    test = test or from_examples(function, repository.texts[function.path], most_characters=most)
    if test is None:
        raise Unsuitable("no self-contained test and no literal example")
    found = mutants(function.source)
    if not found:
        raise Unsuitable("nothing to mutate")
    returns = [mutant for mutant in found if mutant.kind == "return"][:1]
    others = [mutant for mutant in found if mutant not in returns]
    most_mutants = MUTANTS if function.split == "test" else 1  # elsewhere they only prove that the gold tests something
    picked = [*returns, *choose.sample(others, min(len(others), max(most_mutants - len(returns), 0)))]
    check = unit_test_check(function.package, function, [mutant.source for mutant in picked])
    shown = _with_docstring(function, without_examples(function.docstring or ""))
    return Draft(
        {"input": shown, "output": test, "check": check},
        right=[(check, unit_test_jobs(check, test))],
    )


def _improve(function: Function, repository: Repository, choose: random.Random) -> Draft:
    worse, kinds = degrade(function.source)
    if not set(kinds) - {"annotations", "names"}:
        raise Unsuitable("nothing but names to make worse")
    better = _with_docstring(function, summary(function.docstring or ""))
    if not function.examples:
        returns = bool(re.search(r"^\s*(return\b.|.*\byield\b)", function.body, re.MULTILINE))
        check = structure_check(list(function.arguments), returns, [function.name])
        return Draft({"input": worse, "output": better, "check": {**check, "degraded": kinds}})
    check = {**_examples_check(function, repository), "degraded": kinds}
    return Draft(
        {"input": worse, "output": better, "check": check},
        right=[(check, [doctest_job(check, source)]) for source in (function.source, worse)],
    )


def _examples_check(function: Function, repository: Repository) -> dict:
    check = doctest_check(function.package, function)
    if not any(example["want"] for example in check["examples"]):
        raise Unsuitable("no example with an output")
    return check


def _any_mutant(source: str, choose: random.Random) -> Mutant:
    """A mutant of a kind drawn first, so that the many wrong variables do not crowd out the rest."""
    found = mutants(source)
    if not found:
        raise Unsuitable("nothing to mutate")
    kind = choose.choice(sorted({mutant.kind for mutant in found}))
    return choose.choice([mutant for mutant in found if mutant.kind == kind])


def _with_short_docstring(function: Function) -> str:
    if function.docstring_source and len(function.docstring_source) <= SHORT_DOCSTRING:
        return function.source
    return _with_docstring(function, summary(function.docstring or ""))


def _with_docstring(function: Function, text: str) -> str:
    """The function with another docstring, or none when it is empty; comments between the two are kept."""
    text = text.strip()
    if not text:
        return function.code_without_docstring
    quoted = f'"""{text}"""' if "\n" not in text else f'"""{text}\n"""'
    prefix = "r" if "\\" in text else ""
    lines = (prefix + quoted).split("\n")
    literal = "\n".join("    " + line if line else "" for line in lines)
    source = f"{function.header}\n{literal}\n{function.body}".rstrip("\n")
    try:
        ast.parse(source)
    except SyntaxError:
        raise Unsuitable("docstring that cannot be quoted anew") from None
    return source


MAKERS: dict[str, Callable[[Function, Repository, random.Random], Draft]] = {
    "docstring": _docstring,
    "explain": _explain,
    "bugfix": _bugfix,
    "complete": _complete,
    "unit_test": _unit_test,
    "improve": _improve,
}
