"""Why answers failed: one cause from a short list, derived from the grading, and a sample of failures to read."""

from __future__ import annotations

import ast
import random
import re

from common.python_syntax import parsed
from data.instruct.answers import given_code
from data.rows import training_conversation
from eval.instruct import GREEDY
from eval.nearest_training_example import with_nearest

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
_NO_SUCH_NAME = ("NameError", "AttributeError", "ImportError", "ModuleNotFoundError")


def cause(pair: dict, result: dict) -> str:
    """The first of these that applies to a failed row of `grade_answers`:

    did not stop (complete, or looping, yet it continued) · truncated · no code in the answer · syntax · too slow, too
    much memory, does what the sandbox forbids, ends the process · wrong place (another line than the bug's changed) ·
    wrong API (a call or an attribute that does not fit) · uses a name that does not exist · raises TYPE · changes
    nothing · a placeholder · misread instruction · lacks: WHAT (form) · the test is wrong · the test notices no bug ·
    missed edge case (other examples hold) · gives nothing · off by one · wrong value.
    """
    status, detail = result["status"], result["detail"]
    if not result["stopped"]:
        return "did not stop" if _went_on(pair, result) else "truncated"
    if status in ("extraction", "syntax"):
        return "no code in the answer" if status == "extraction" else "syntax"
    if status in ENDED:
        return ENDED[status]
    if pair["category"] == "bugfix" and result["lenient"] and _leaves_the_line(pair, result["code"]):
        return "wrong place"
    if (status == "exception" and _MISCALLED.match(detail)) or _is_wrong_use(result):
        return "wrong API"
    raised = re.match(r"[\w.]+(?=:|$)", detail) if status == "exception" else None
    if result["hallucinated"] or (raised and raised.group().split(".")[-1] in _NO_SUCH_NAME):
        return "uses a name that does not exist"
    if status == "exception":
        return f"raises {raised.group() if raised else 'an exception'}"
    if not result["lenient"]:
        return _cause_in_form(detail)
    if pair["category"] == "unit_test":
        return "the test notices no bug" if "mutants" in detail else "the test is wrong"
    return _cause_in_value(result)


def _went_on(pair: dict, result: dict) -> bool:
    """Whether an answer that reached the token limit was already complete, or was looping."""
    lines = [line.strip() for line in result["output"].strip().split("\n")]
    complete = [line for line in lines[:-1] if line]  # the last one may be incomplete
    if complete and complete.count(complete[-1]) >= _REPEATED:
        return True
    code = result["code"]
    return bool(code) and parsed(code) is not None and code.strip() in result["output"] and result["lenient"]


def _leaves_the_line(pair: dict, code: str) -> bool:
    """Whether the broken line stands unchanged in a changed function."""
    given, answer = ([line.strip() for line in text.split("\n")] for text in (given_code(pair), code))
    broken = given[pair["check"]["line"] - 1]
    return answer.count(broken) >= given.count(broken)


def _is_wrong_use(result: dict) -> bool:
    """Whether everything invented is a misuse of something that exists."""
    invented = {kind for kind, (count, _) in result.get("names_by_kind", {}).items() if count}
    return bool(invented) and invented <= {"call", "attribute"}


def _cause_in_form(problem: str) -> str:
    if problem.startswith(_MISREAD):
        return "misread instruction"
    if problem in ("leaves the bug", "changes nothing"):
        return "changes nothing"
    return "a placeholder" if problem == "is a placeholder" else f"lacks: {problem}"


def _cause_in_value(result: dict) -> str:
    expected, got = result.get("expected", ""), result.get("got", "")
    if result.get("held") and _EDGE.search(result.get("asked", "")):
        return "missed edge case"
    if expected and not got:
        return "gives nothing"
    try:
        is_near = _off_by_one(ast.literal_eval(expected), ast.literal_eval(got))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        is_near = False  # not literals: not comparable by value
    return "off by one" if is_near else "wrong value"


def _off_by_one(expected, got) -> bool:
    """Integers that differ by one, or collections whose sizes do."""
    if isinstance(expected, int) and isinstance(got, int):
        return abs(expected - got) == 1
    return hasattr(expected, "__len__") and type(expected) is type(got) and abs(len(expected) - len(got)) == 1


def failures(
    pairs: list[dict], results: list[dict], *, count: int = 15, seed: int = 0, train: list[dict] | None = None
) -> list[dict]:
    """Up to `count` failed greedy answers to read: categories take turns, at random within each.

    results  the rows of a `grade_answers` result
    train    the training rows, in any form that train_sft.py takes
    Returns rows {"id", "category", "prompt", "answer", "cause", "check"}; "check" is the grading's finding. With
    `train` also "nearest": {"id", "prompt", "answer", "score"}, the most similar training pair by BM25, of the same
    category if it has any.
    """
    by_id = {pair["id"]: pair for pair in pairs}
    failed = [row for row in results if row["sample"] == GREEDY and not (row["status"] == "pass" or _is_unproven(row))]
    random.Random(seed).shuffle(failed)
    turns: dict[str, int] = {}
    order = []
    for row in failed:
        turns[row["category"]] = turns.get(row["category"], 0) + 1
        order.append((turns[row["category"]], len(order), row))
    chosen = [row for _, _, row in sorted(order, key=lambda one: one[:2])[:count]]
    examples = [_example(row, number) for number, row in enumerate(train or [], 1)]
    return with_nearest([_shown(by_id[row["id"]], row) for row in chosen], examples)


def _example(row: dict, number: int) -> dict:
    """A training row of any form as an example of eval/nearest_training_example.py."""
    *asked, answer = [turn["content"] for turn in training_conversation(row).messages]
    return {
        "id": row.get("id", f"line {number}"),
        "category": row.get("category"),
        "prompt": "\n\n".join(asked),
        "answer": answer,
    }


def _is_unproven(row: dict) -> bool:
    """Right in form but not executable: not a demonstrable failure."""
    return row["status"] == "not executed" and row["lenient"]


def _shown(pair: dict, row: dict) -> dict:
    check = row["detail"]
    if "expected" in row:
        check = f"{check}\nexpected: {row['expected']}\ngot: {row['got'] or 'nothing'}"
    if row["hallucinated"]:
        check = f"{check}\nnames that do not exist: {', '.join(row['hallucinated'])}".strip()
    return {
        "id": row["id"],
        "category": row["category"],
        "prompt": f"{pair['instruction']}\n\n{pair['input']}",
        "answer": row["output"],
        "cause": cause(pair, row),
        "check": check,
    }
