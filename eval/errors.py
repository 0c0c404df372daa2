"""Why an answer failed, told by program from what the grading saw: one cause of a short list, and a sample to read."""

from __future__ import annotations

import ast
import random
import re

from eval.instruct import GREEDY

ENDED = {
    "timeout": "too slow",
    "memory": "too much memory",
    "denied": "does what the sandbox forbids",
    "died": "ends the process",
}
_NO_SUCH_NAME = ("NameError", "AttributeError", "ImportError", "ModuleNotFoundError")


def cause(pair: dict, result: dict) -> str:
    """The first of these that applies to a failed row of `grade_answers`:

    did not stop · no code in the answer · syntax · too slow, too much memory, does what the sandbox forbids, ends the
    process · uses a name that does not exist · raises TYPE · changes nothing · a placeholder · lacks: WHAT (form) · the
    test is wrong · the test notices no bug · gives nothing · off by one · wrong value.
    """
    status, detail = result["status"], result["detail"]
    if not result["stopped"]:
        return "did not stop"
    if status in ("extraction", "syntax"):
        return "no code in the answer" if status == "extraction" else "syntax"
    if status in ENDED:
        return ENDED[status]
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


def _cause_in_form(problem: str) -> str:
    known = {"leaves the bug": "changes nothing", "changes nothing": "changes nothing"}
    known["is a placeholder"] = "a placeholder"
    return known.get(problem, f"lacks: {problem}")


def _cause_in_value(result: dict) -> str:
    expected, got = result.get("expected", ""), result.get("got", "")
    if expected and not got:
        return "gives nothing"
    try:
        is_near = _off_by_one(ast.literal_eval(expected), ast.literal_eval(got))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        is_near = False  # not literals: nothing to compare by value
    return "off by one" if is_near else "wrong value"


def _off_by_one(expected, got) -> bool:
    """Whole numbers one apart, or collections of one item more or less."""
    if isinstance(expected, int) and isinstance(got, int):
        return abs(expected - got) == 1
    return hasattr(expected, "__len__") and type(expected) is type(got) and abs(len(expected) - len(got)) == 1


def failures(pairs: list[dict], results: list[dict], *, count: int = 15, seed: int = 0) -> list[dict]:
    """Up to `count` greedy answers that failed, to be read: the categories take turns, within one chance decides.

    results  the rows of a `grade_answers` result
    Returns rows {"id", "category", "prompt", "answer", "cause", "check"}; "check" is what the grading saw.
    """
    by_id = {pair["id"]: pair for pair in pairs}
    failed = [row for row in results if row["sample"] == GREEDY and not (row["status"] == "pass" or _is_unproven(row))]
    random.Random(seed).shuffle(failed)
    turns: dict[str, int] = {}
    order = []
    for row in failed:
        turns[row["category"]] = turns.get(row["category"], 0) + 1
        order.append((turns[row["category"]], len(order), row))
    return [_shown(by_id[row["id"]], row) for _, _, row in sorted(order, key=lambda one: one[:2])[:count]]


def _is_unproven(row: dict) -> bool:
    """Right in form, and nothing could be executed: no failure that one could show."""
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
