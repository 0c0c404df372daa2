"""From the outcomes of a check's jobs to a verdict. Only here is it known what should have come out."""

from __future__ import annotations

import ast
import doctest
import math
from collections.abc import Sequence

from data.checks.check import EXECUTED
from sandbox.run import Outcome

KILLED = frozenset({"exception", "timeout", "memory"})  # how a test fails on a mutant; "denied" or "syntax" is no proof
CLOSE = 1e-9  # relative difference up to which two floats count as equal (math.isclose's default)


def proves(check: dict, outcomes: Sequence[Outcome]) -> bool:
    """Whether the outcomes of an executed check's jobs prove the answer right. No outcomes prove nothing."""
    if check["kind"] not in EXECUTED:
        raise ValueError(f"a check of kind {check['kind']!r} is not executed")
    if not outcomes or outcomes[0].outcome != "finished":
        return False
    if check["kind"] == "unit_test":
        return any(outcome.outcome in KILLED for outcome in outcomes[1:])
    if check["kind"] in ("values", "calls"):
        return compare_calls(check["calls"], outcomes[0].got, outcomes[0].exceptions)
    return check["kind"] == "tests" or compare_examples(check["examples"], outcomes[0].got, outcomes[0].exceptions)


def refutes(check: dict, outcomes: Sequence[Outcome]) -> bool:
    """Whether outcomes of a check of a function show the answer wrong, rather than a run that broke down."""
    outcome = outcomes[0].outcome if outcomes else "died"
    return outcome in KILLED or (outcome == "finished" and not proves(check, outcomes))


def killed_mutants(check: dict, outcomes: Sequence[Outcome]) -> list[str]:
    """The mutants of a unit_test check that the test fails on; outcomes as `unit_test_jobs` orders their jobs."""
    return [mutant for mutant, outcome in zip(check["mutants"], outcomes[1:], strict=True) if outcome.outcome in KILLED]


def mutation_score(outcomes: Sequence[Outcome]) -> float:
    """Share of mutants that a test fails on, 0 if it fails on the function itself, whose outcome comes first."""
    if len(outcomes) < 2 or outcomes[0].outcome != "finished":
        return 0.0
    return sum(outcome.outcome in KILLED for outcome in outcomes[1:]) / len(outcomes[1:])


def explain(check: dict, outcomes: Sequence[Outcome]) -> dict:
    """The verdict in words: {"status", "detail"}.

    Where examples or calls ran and one is wrong, also the first such one as "asked", "expected" and "got", and "held":
    how many of those with an expected output were right.
    """
    if proves(check, outcomes):
        return {"status": "pass", "detail": ""}
    if not outcomes:
        return {"status": "wrong", "detail": "names what could decide its own verdict, or holds no test: not run"}
    first = outcomes[0]
    if first.outcome != "finished":
        is_assertion = first.outcome == "exception" and first.detail.startswith("AssertionError")
        return {"status": "wrong" if is_assertion else first.outcome, "detail": first.detail}
    if check["kind"] == "unit_test":
        return {"status": "wrong", "detail": f"passes on all {len(check['mutants'])} mutants: it would notice no bug"}
    return _first_difference(check, first)


def _first_difference(check: dict, outcome: Outcome) -> dict:
    listed, holds = ("calls", _call_holds) if "calls" in check else ("examples", _example_holds)
    rows = [row for row in zip(check[listed], outcome.got, outcome.exceptions, strict=True) if not _is_skipped(row[0])]
    right = [holds(*row) for row in rows]
    (one, got, exception) = rows[right.index(False)]
    unexpected = exception is not None and one.get("raises") is None
    shown = (exception or got).strip()
    asked = one["source"].strip() if listed == "examples" else f"called with {one['arguments']}, it"
    return {
        "status": "exception" if unexpected else "wrong",
        "detail": shown if unexpected else f"{asked} gave {shown[:200] or 'nothing'}",
        "asked": asked,
        "held": sum(one["want"] != "" and is_right for (one, _, _), is_right in zip(rows, right, strict=True)),
        "expected": one["want"].strip(),
        "got": shown,
    }


def compare_calls(calls: list[dict], got: list[str], exceptions: list[str | None]) -> bool:
    """Whether each call printed and gave, or raised, what it did when it was recorded."""
    if not calls or not (len(calls) == len(got) == len(exceptions)):
        return False
    return all(_call_holds(*one) for one in zip(calls, got, exceptions, strict=True))


def _call_holds(call: dict, got: str, exception: str | None) -> bool:
    if exception is not None or call["raises"] is not None:
        raised = exception and exception_name(exception)
        return raised == call["raises"] and got == call["want"]
    *printed, value = got.rstrip("\n").split("\n")
    *wanted_printed, wanted = call["want"].rstrip("\n").split("\n")
    try:
        return printed == wanted_printed and same(ast.literal_eval(wanted), ast.literal_eval(value))
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # all four come from Python's own parser
        return False


def same(wanted, got) -> bool:
    """Whether plain data are equal in type and value; floats up to a relative difference of CLOSE."""
    if type(wanted) is not type(got):
        return False
    if isinstance(wanted, float):
        return math.isclose(wanted, got, rel_tol=CLOSE, abs_tol=CLOSE)
    if isinstance(wanted, list | tuple):
        return len(wanted) == len(got) and all(map(same, wanted, got))
    if isinstance(wanted, set):
        return sorted(map(repr, wanted)) == sorted(map(repr, got))
    if isinstance(wanted, dict):
        return same(set(wanted), set(got)) and all(same(wanted[key], got[key]) for key in wanted)
    return wanted == got


def compare_examples(examples: list[dict], got: list[str], exceptions: list[str | None]) -> bool:
    """Whether each example printed (or raised) what its docstring wants, by doctest's own rules and options."""
    if not (len(examples) == len(got) == len(exceptions)):
        return False
    wanted = [one for one in zip(examples, got, exceptions, strict=True) if not _is_skipped(one[0])]
    return bool(wanted) and all(_example_holds(*one) for one in wanted)


def _is_skipped(example: dict) -> bool:
    return bool(example.get("options", {}).get("SKIP"))


def _example_holds(example: dict, got: str, exception: str | None) -> bool:
    options = example.get("options", {})
    flags = sum(doctest.OPTIONFLAGS_BY_NAME[name] for name, on in options.items() if on)
    check = doctest.OutputChecker().check_output
    raises = example.get("raises")
    if raises is None:
        return exception is None and check(example["want"], got, flags)
    if exception is None:
        return False
    if flags & doctest.IGNORE_EXCEPTION_DETAIL:
        return exception_name(raises) == exception_name(exception)
    return check(raises, exception.rstrip("\n") + "\n", flags)


def exception_name(text: str) -> str:
    """The name of the class in an exception's text, without its module."""
    return text.split(":", 1)[0].strip().rsplit(".", 1)[-1]
