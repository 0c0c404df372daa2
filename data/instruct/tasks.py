"""Drafts one instruction pair per function and category, with the proofs it needs before use.

No language model takes part: the gold answer is the repository's own docstring, body, line or test.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from common.markdown import fenced
from data.checks import EXECUTED, jobs_of, rerun, structure_check, unit_test_check, unit_test_jobs
from data.checks.mutate import Mutant, mutants
from data.checks.prove import KINDS, RUNS, Checks
from data.corpus.functions import Function, source_of
from data.corpus.script_functions import ScriptFunction
from data.instruct.degrade import degrade, is_worth_undoing
from data.instruct.docstyle import Documented, quoted, read_docstring, write_google
from data.instruct.gap import cut_gap, fill_gap
from data.instruct.pair_filters import pair_problem
from data.instruct.phrasings import INSTRUCTIONS, worded
from data.instruct.prose import clean, sections, sentences, summary, without_examples
from data.instruct.unit_tests import RepositoryTest, from_examples, from_repository
from sandbox.run import Job

BEHAVIOUR = ("complete", "bugfix", "fim", "improve")  # categories whose answer is the function: checked by running it
MUTANTS = 3  # per test pair, to run answers on
SHORT_DOCSTRING = 400  # characters; a longer one is replaced by its summary where the task does not need it
# beginnings of a description that reads well after "It returns"
NOUN_PHRASE = re.compile(r"^(A|An|The|Whether|True|False|None|All|Each|Every|One)\b")
# a sentence that lost its end to a removed citation, or that refers to something omitted
DANGLING = re.compile(r"\b(on|in|by|from|see|of|and|to|the|with|per)[.:,]?$|:$|^See\b|\bbelow\b", re.IGNORECASE)


class Unsuitable(Exception):
    """The reason why a function gives no pair of a category."""


@dataclass(frozen=True)
class DraftContext:
    """What drafts are made from besides the function."""

    texts: dict[str, str]  # module texts by path
    tests: dict[str, list[RepositoryTest]]
    checks: Checks  # already looked for in functions of a BEHAVIOUR category, those of Python
    most_input: int  # characters of instruction and input
    most_output: int  # characters
    seed: int
    whole_line_bugs: bool = False  # bugs that remove, unwrap or reorder lines, too
    taught: frozenset[str] = frozenset()  # categories in which a teacher may answer where the repository does not
    instructions: Mapping[str, Sequence[str]] = field(default_factory=dict)  # by category, in place of ours
    kinds: Sequence[str] = KINDS  # of checks, for functions of other languages
    read_module: Callable[[str, str], str | None] = lambda source, path: None  # a file of a source, for the same
    asserted: Mapping[str, list[dict]] = field(default_factory=dict)  # what their tests assert: function -> calls


@dataclass(frozen=True)
class Draft:
    """A pair that may be used if every proof in `right` passes its check and every one in `wrong` is refuted.

    Its output is "" if only a teacher can answer.
    """

    pair: dict
    right: list[tuple[dict, list[Job]]] = field(default_factory=list)  # (check, sandbox jobs)
    wrong: list[tuple[dict, list[Job]]] = field(default_factory=list)


def draft(
    category: str,
    function: Function | ScriptFunction,
    context: DraftContext,
    *,
    makers: dict[str, Callable] | None = None,
    phrases: dict[str, tuple[str, ...]] = INSTRUCTIONS,
) -> Draft:
    """The draft of a pair. Raises Unsuitable, with the reason, if the function does not suit the category.

    makers, phrases  by category; another language has its own (data/instruct/script), and not all categories
    """
    makers = MAKERS if makers is None else makers
    if category not in makers:
        raise Unsuitable("a category that is made from Python alone")
    choose = random.Random(f"{context.seed}\0{category}\0{function.path}\0{function.qualname}")
    made = makers[category](function, context, choose)
    phrase = choose.choice(context.instructions.get(category) or phrases[category])
    instruction = worded(phrase, name=function.name, qualname=function.qualname, module=function.module)
    pair = {
        "id": f"{category}/{function.path}:{function.first_line}",
        "category": category,
        "instruction": instruction,
        "input": made.pair["input"],
        "output": made.pair["output"],
        "source": source_of(function),
        "check": made.pair["check"],
    }
    if len(instruction) + len(pair["input"]) > context.most_input:
        raise Unsuitable(f"instruction and input over {context.most_input} characters")
    if len(pair["output"]) > context.most_output:
        raise Unsuitable(f"output over {context.most_output} characters")
    if pair["output"] and (problem := pair_problem(pair)):
        raise Unsuitable(problem)
    return Draft(pair, made.right, made.wrong)


def _docstring(function: Function, context: DraftContext, choose: random.Random) -> Draft:
    documented = read_docstring(function.docstring or "")
    returns = _gives_back(function)
    if not summary(function.docstring or "") or not documented.entries:
        if "docstring" not in context.taught:
            raise Unsuitable("docstring without summary or without parameters and returns")
        check = structure_check(list(function.arguments), returns, [])
        return Draft({"input": function.code_without_docstring, "output": "", "check": check})
    described = {entry.name.lstrip("*") for entry in documented.entries.get("Args", [])}
    if described - set(function.arguments):
        raise Unsuitable("docstring of other parameters than the function's")
    text = write_google(documented)
    named = [name for name in function.arguments if re.search(rf"\b{re.escape(name)}\b", text)]
    check = structure_check(named, bool(documented.entries.keys() & {"Returns", "Yields"}), [])
    return Draft({"input": function.code_without_docstring, "output": quoted(f"{text}\n"), "check": check})


def _explain(function: Function, context: DraftContext, choose: random.Random) -> Draft:
    results = _results_told(read_docstring(function.docstring or ""))
    names = (function.name, *function.arguments)
    text, named, problem = explanation(function.docstring or "", results, names, most=context.most_output)
    if problem and "explain" not in context.taught:
        raise Unsuitable(problem)
    check = structure_check([], False, [] if problem else named)
    return Draft({"input": function.code_without_docstring, "output": "" if problem else text, "check": check})


def explanation(
    docstring: str, results: list[str], names: Sequence[str], *, most: int
) -> tuple[str, list[str], str | None]:
    """A paragraph from a docstring, which of the names it mentions, and why it is not enough, or None.

    results  sentences on what is returned and raised, which follow the first of the docstring
    most     characters of the paragraph
    """
    parts = sections(docstring)
    paragraphs = [one for title in ("", "Notes") for one in clean(parts.get(title, "")).split("\n\n")]
    prose = [_ended(one) for paragraph in paragraphs for one in sentences(paragraph) if not DANGLING.search(one)]
    room = most - len(" ".join(results)) - 1
    while prose and len(" ".join(prose)) > room:
        prose.pop()
    text = " ".join([*prose[:1], *results, *prose[1:]])
    words = set(re.findall(r"\w+", " ".join(prose)))  # names that occur only in the results are not required
    named = [name for name in names if name in words]
    problem = None
    if not prose or len(prose) + len(results) < 2:
        problem = "docstring of fewer than two sentences"
    elif not named and not results:
        problem = "docstring that names nothing of the code"  # it would fit any function
    return text, named, problem


def _ended(sentence: str) -> str:
    return sentence if re.search(r"[.!?][\"')]*$", sentence) else f"{sentence}."


def _results_told(documented: Documented) -> list[str]:
    """What is returned and raised, as sentences, where the docstring's wording allows it."""
    told = []
    for kind, verb in (("Returns", "returns"), ("Yields", "yields")):
        entries = documented.entries.get(kind, [])
        told += [result_told(verb, entries[0].text)] if len(entries) == 1 else []
    for entry in documented.entries.get("Raises", []):
        if re.match(r"(If|When)\b", entry.text):
            told.append(f"It raises {entry.name} {_inside_sentence(entry.text)}")
    return [sentence for sentence in told if sentence and not DANGLING.search(sentence)]


def result_told(verb: str, text: str) -> str:
    """What is returned as a sentence, "It returns …"; "" if the wording does not allow it."""
    return f"It {verb} {_inside_sentence(text)}" if NOUN_PHRASE.match(text) else ""


def _inside_sentence(text: str) -> str:
    """The first sentence of a description, in a form that can follow a verb."""
    first = sentences(text)[0].rstrip(".") + "."
    return first if re.match(r"(True|False|None)\b", first) else first[0].lower() + first[1:]


def _gives_back(function: Function) -> bool:
    return bool(re.search(r"^\s*(return\b.|.*\byield\b)", function.body, re.MULTILINE))


def _complete(function: Function, context: DraftContext, choose: random.Random) -> Draft:
    check = _behaviour_check(function, context)
    if not function.body or not function.docstring_source:
        raise Unsuitable("no body" if not function.body else "no docstring that says what the body must do")
    prompt = f"{function.header}\n{function.docstring_source}"
    return Draft(
        {"input": prompt, "output": fenced(function.body, "python"), "check": check},
        wrong=_proofs(check, f"{prompt}\n{_indent(function)}pass"),
    )


def _bugfix(function: Function, context: DraftContext, choose: random.Random) -> Draft:
    check = _behaviour_check(function, context)
    original = _with_docstring(function, summary(function.docstring or ""))
    mutant = _any_mutant(original, choose, whole_lines=context.whole_line_bugs)
    check = {**check, "line": mutant.line, "bug": mutant.kind}
    output = f"{what_is_wrong(mutant)}\n\n{fenced(original, 'python')}"
    return Draft({"input": mutant.source, "output": output, "check": check}, wrong=_proofs(check, mutant.source))


def what_is_wrong(mutant: Mutant) -> str:
    """The bug in words: the wrong line and how it should read, or which lines are missing or out of order."""
    original, mutated = mutant.original_line.strip(), mutant.mutated_line.strip()
    if "\n" not in mutant.original_line and "\n" not in mutant.mutated_line and mutated:
        return f"The bug is `{mutated}`: it should be `{original}`."
    if not mutated or mutated == "pass":
        return f"The bug is a missing part:\n\n{fenced(mutant.original_line, 'python')}"
    return f"The bug is in these lines:\n\n{fenced(mutant.mutated_line, 'python')}"


def _fim(function: Function, context: DraftContext, choose: random.Random) -> Draft:
    check = _behaviour_check(function, context)
    cut = cut_gap(_with_short_docstring(function), choose)
    if cut is None:
        raise Unsuitable("no statements to leave out")
    given, missing = cut
    return Draft(
        {"input": given, "output": missing, "check": check},
        right=_proofs(check, fill_gap(given, missing)),
        wrong=_proofs(check, fill_gap(given, "pass")),
    )


def _unit_test(function: Function, context: DraftContext, choose: random.Random) -> Draft:
    most = context.most_output
    test = None
    if "." not in function.qualname:  # a call of a method's name may be another class's
        test = next(from_repository(function, context.tests.get(function.name, []), most_characters=most), None)
    test = test or from_examples(function, context.texts[function.path], most_characters=most)
    if test is None and "unit_test" not in context.taught:
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
    jobs = unit_test_jobs(check, test) if test else []
    return Draft(
        {"input": shown, "output": test or "", "check": check},
        right=[(check, rerun(jobs, number)) for number in range(RUNS)] if test else [],
    )


def _improve(function: Function, context: DraftContext, choose: random.Random) -> Draft:
    worse, kinds = degrade(function.source)
    if not is_worth_undoing(kinds):
        raise Unsuitable("little to make worse")
    better = _with_docstring(function, summary(function.docstring or ""))
    check = context.checks.of(function)
    if check is None or check["kind"] not in EXECUTED:
        check = structure_check(list(function.arguments), _gives_back(function), [function.name])
        return Draft({"input": worse, "output": better, "check": {**check, "degraded": kinds}})
    check = {**check, "degraded": kinds}
    return Draft({"input": worse, "output": better, "check": check}, right=_proofs(check, worse))


def _behaviour_check(function: Function, context: DraftContext) -> dict:
    """The check that the function's behaviour is unchanged; the original has passed it."""
    check = context.checks.of(function)
    if check is None:
        raise Unsuitable(context.checks.why_none(function))
    return check


def _proofs(check: dict, source: str) -> list[tuple[dict, list[Job]]]:
    """The check and jobs that prove a function's text; none for a check that runs nothing."""
    return [(check, jobs_of(check, source))] if check["kind"] in EXECUTED else []


def _any_mutant(source: str, choose: random.Random, *, whole_lines: bool) -> Mutant:
    found = mutants(source, whole_lines=whole_lines)
    if not found:
        raise Unsuitable("nothing to mutate")
    return any_of_a_kind(found, choose)


def any_of_a_kind(found: list[Mutant], choose: random.Random) -> Mutant:
    """A random mutant: the kind is drawn first, so that the many wrong variables do not dominate."""
    kind = choose.choice(sorted({mutant.kind for mutant in found}))
    return choose.choice([mutant for mutant in found if mutant.kind == kind])


def _with_short_docstring(function: Function) -> str:
    if function.docstring_source and len(function.docstring_source) <= SHORT_DOCSTRING:
        return function.source
    return _with_docstring(function, summary(function.docstring or ""))


def _with_docstring(function: Function, text: str) -> str:
    """The function with another docstring, or none if empty; comments after it are kept."""
    text = text.strip()
    if not text:
        return function.code_without_docstring
    lines = quoted(f"{text}\n" if "\n" in text else text).split("\n")
    literal = "\n".join(_indent(function) + line if line else "" for line in lines)
    source = f"{function.header}\n{literal}\n{function.body}".rstrip("\n")
    try:
        ast.parse(source)
    except SyntaxError:
        raise Unsuitable("docstring that cannot be quoted anew") from None
    return source


def _indent(function: Function) -> str:
    """The indentation of the body, usually four spaces."""
    first = (function.docstring_source or function.body or "    ").split("\n")[0]
    return first[: len(first) - len(first.lstrip())]


MAKERS: dict[str, Callable[[Function, DraftContext, random.Random], Draft]] = {
    "docstring": _docstring,
    "explain": _explain,
    "bugfix": _bugfix,
    "complete": _complete,
    "unit_test": _unit_test,
    "improve": _improve,
    "fim": _fim,
}
