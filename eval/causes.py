"""Why an answer failed: one cause from a short list, derived from the grading.

Instruction pairs and code tasks share the list. A graded row has "status", "detail", "stopped" and "code"; where an
example or an assertion ran and was wrong, also "asked", "expected" and "got", the first such one as text, and "held",
how many others were right.
"""

from __future__ import annotations

import ast
import re

from common.python_syntax import parsed
from data.instruct.answers import given_code
from eval.malformed_loop import has_endless_loop, has_single_pass_loop

ENDED = {
    "timeout": "too slow",
    "memory": "too much memory",
    "denied": "does what the sandbox forbids",
    "died": "ends the process",
}
# CPython's messages for a call that does not fit the function
_MISCALLED = re.compile(r"TypeError: .*(unexpected keyword|positional argument|keyword-only argument|multiple values)")
# empty or smallest values
_EDGE = re.compile(r"(?<![\w.])(\[\]|\{\}|\(\)|set\(\)|0(?:\.0)?|-1|None|''|\"\")(?![\w.\[])")
_MISREAD = ("does not define", "has no test function", "does not call", "repeats the code")
_REPEATED = 3  # repetitions of the last line from which an answer is looping
_GONE = "the other process"  # how the tests of a code task see that the answer left: sandbox/peer.py
_NO_SUCH_NAME = ("NameError", "AttributeError", "ImportError", "ModuleNotFoundError")


def cause_of_pair(pair: dict, row: dict) -> str:
    """The first of these that applies to a failed row of eval.instruct's `grade_answers`:

    did not stop (complete, or looping, yet it continued) · truncated · no code in the answer · syntax · too slow, too
    much memory, does what the sandbox forbids, ends the process · malformed loop (it never ends) · wrong place (another
    line than the bug's changed) · wrong API (a call or an attribute that does not fit) · uses a name that does not
    exist · raises TYPE · changes nothing · a placeholder · misread instruction · lacks: WHAT (form) · the test is wrong
    · the test notices no bug · malformed loop (it always ends in its first pass) · missed edge case (other examples
    hold) · gives nothing · off by one · wrong value.
    """
    is_complete = row["lenient"] and bool(row["code"]) and row["code"].strip() in row["output"]
    is_complete = is_complete and parsed(row["code"]) is not None
    if ended := _cause_of_ending(row, row["output"], is_complete):
        return ended
    if pair["category"] == "bugfix" and row["lenient"] and _leaves_the_line(pair, row["code"]):
        return "wrong place"
    if row["status"] == "exception" or row["hallucinated"]:
        return _cause_of_exception(row)
    if not row["lenient"]:
        return _cause_in_form(row["detail"])
    if pair["category"] == "unit_test":
        return "the test notices no bug" if "mutants" in row["detail"] else "the test is wrong"
    return _cause_in_value(row)


def cause_of_task(row: dict, entry_point: str) -> str:
    """The same for a failed row of eval.code's `grade`; code that does not define or misdeclares `entry_point`, the
    function that the tests call, is a misread instruction."""
    is_complete = row["route"].startswith("fence") and row["completion"].count("```") % 2 == 0  # no fence left open
    if ended := _cause_of_ending(row, row["completion"], is_complete):
        return ended
    if row["status"] == "exception":
        is_misdeclared = _MISCALLED.match(row["detail"]) and f" {entry_point}() " in row["detail"]
        return "misread instruction" if is_misdeclared else _cause_of_exception(row)
    return _cause_in_value(row)


def _cause_of_ending(row: dict, text: str, is_complete: bool) -> str | None:
    """Why an answer was cut off, has no code that can be run, or did not run to its end; None if none of these."""
    if not row["stopped"]:
        return "did not stop" if is_complete or _is_looping(text) else "truncated"
    if row["status"] == "extraction":
        return "misread instruction" if row["detail"].startswith(_MISREAD) else "no code in the answer"
    if row["status"] == "syntax":
        return "syntax"
    if row["status"] == "timeout" and has_endless_loop(row["code"] or ""):
        return "malformed loop"
    if row["status"] == "exception" and row["detail"].startswith(_GONE):
        return ENDED["died"]
    return ENDED.get(row["status"])


def _is_looping(text: str) -> bool:
    lines = [line.strip() for line in text.strip().split("\n")]
    complete = [line for line in lines[:-1] if line]  # the last one may be incomplete
    return bool(complete) and complete.count(complete[-1]) >= _REPEATED


def _leaves_the_line(pair: dict, code: str) -> bool:
    """Whether the broken line stands unchanged in a changed function."""
    given, answer = ([line.strip() for line in text.split("\n")] for text in (given_code(pair), code))
    broken = given[pair["check"]["line"] - 1]
    return answer.count(broken) >= given.count(broken)


def _cause_of_exception(row: dict) -> str:
    """The cause of an exception, or of names in the code that do not exist."""
    is_exception, detail = row["status"] == "exception", row["detail"]
    if (is_exception and _MISCALLED.match(detail)) or _is_wrong_use(row):
        return "wrong API"
    raised = re.match(r"[\w.]+(?=:|$)", detail) if is_exception else None
    if row.get("hallucinated") or (raised and raised.group().split(".")[-1] in _NO_SUCH_NAME):
        return "uses a name that does not exist"
    return f"raises {raised.group() if raised else 'an exception'}"


def _is_wrong_use(row: dict) -> bool:
    """Whether everything invented is a misuse of something that exists."""
    invented = {kind for kind, (count, _) in row.get("names_by_kind", {}).items() if count}
    return bool(invented) and invented <= {"call", "attribute"}


def _cause_in_form(problem: str) -> str:
    if problem.startswith(_MISREAD):
        return "misread instruction"
    if problem in ("leaves the bug", "changes nothing"):
        return "changes nothing"
    return "a placeholder" if problem == "is a placeholder" else f"lacks: {problem}"


def _cause_in_value(row: dict) -> str:
    expected, got = row.get("expected", ""), row.get("got", "")
    if has_single_pass_loop(row["code"] or ""):
        return "malformed loop"
    if row.get("held") and _EDGE.search(row.get("asked", "")):
        return "missed edge case"
    if expected and not got:
        return "gives nothing"
    try:
        is_near = _off_by_one(ast.literal_eval(expected), ast.literal_eval(got))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        is_near = False  # not literals: not comparable by value
    return "off by one" if is_near else "wrong value"


def _off_by_one(expected, got) -> bool:
    """Whole numbers that differ by one, or collections of which one has an item more, a sequence at either end."""
    if type(expected) is not type(got):
        return False
    if isinstance(expected, int):
        return not isinstance(expected, bool) and abs(expected - got) == 1
    shorter, longer = sorted((expected, got), key=len)  # TypeError for what has no length
    if len(longer) - len(shorter) != 1:
        return False
    if isinstance(longer, set | dict):
        return set(shorter) <= set(longer)
    return shorter in (longer[1:], longer[:-1])
