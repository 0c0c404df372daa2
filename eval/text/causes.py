"""Why a text answer is wrong: one cause from a short list, and a sample of errors to read."""

from __future__ import annotations

import random
from collections import Counter

from eval.nearest_training_example import with_nearest
from eval.text.metrics import find_label, normalize_answer

REPEATS = 0.3  # share of a text's trigrams that repeat an earlier one, from which it repeats itself
COPIED = 0.9  # share of a summary's trigrams that are the document's, from which it copies
FAR = 2  # times as long as the reference, or as short


def label_cause(answer: str, said: str | None, gold: str, labels: list[str], *, stopped: bool) -> str | None:
    """Why an answer does not name the right label, None if it does.

    empty · did not stop (no label within the limit) · several labels · no label · X taken for Y
    """
    if said == gold:
        return None
    if said is not None:
        return f"{gold} taken for {said}"
    if not answer.strip():
        return "empty"
    if any(find_label(answer, [label]) for label in labels):
        return "several labels"
    return "no label" if stopped else "did not stop"


def answer_cause(answer: str, references: list[str], text: str, *, stopped: bool) -> str | None:
    """Why an answer to a question is not exactly a reference, None if it is.

    empty · did not stop · part of the answer · more than the answer · overlaps the answer · another part of the text ·
    not in the text
    """
    said, rights = normalize_answer(answer), [normalize_answer(one) for one in references]
    if said in rights:
        return None
    if not said:
        return "empty"
    words, of_rights = set(said.split()), [set(one.split()) for one in rights]
    if any(one <= words for one in of_rights if one):
        return "more than the answer" if stopped else "did not stop"
    if any(words <= one for one in of_rights):
        return "part of the answer"
    if any(words & one for one in of_rights):
        return "overlaps the answer"
    if not stopped:
        return "did not stop"
    return "another part of the text" if said in normalize_answer(text) else "not in the text"


def summary_cause(answer: str, references: list[str], text: str, *, stopped: bool) -> str | None:
    """What is visibly wrong with a summary, None if nothing is: its content is for ROUGE and for people to judge.

    empty · did not stop · repeats itself · copies the text · far longer than the reference · far shorter
    """
    words, wanted = answer.lower().split(), [len(one.split()) for one in references]
    if not words:
        return "empty"
    if not stopped:
        return "did not stop"
    trigrams = _trigrams(words)
    if trigrams and 1 - len(set(trigrams)) / len(trigrams) > REPEATS:
        return "repeats itself"
    if trigrams and len(set(trigrams) & set(_trigrams(text.lower().split()))) > COPIED * len(set(trigrams)):
        return "copies the text"
    if len(words) > FAR * max(wanted):
        return "far longer than the reference"
    return "far shorter than the reference" if FAR * len(words) < min(wanted) else None


def _trigrams(words: list[str]) -> list[tuple[str, ...]]:
    return [*zip(words, words[1:], words[2:], strict=False)]


def count_causes(results: list[dict]) -> dict[str, int]:
    """How many answers have each cause, the most frequent first."""
    return dict(Counter(row["cause"] for row in results if row.get("cause")).most_common())


def failures(
    tasks: list[dict], results: list[dict], *, count: int = 15, seed: int = 0, train: list[dict] | None = None
) -> list[dict]:
    """Up to `count` answers with a cause, to read: causes take turns, the most frequent first, at random within each.

    tasks, train  of `read_text_tasks`
    Returns rows as eval/failure_causes.py does: {"id", "category", "prompt", "answer", "cause", "check", "nearest"}.
    """
    by_id = {task["id"]: task for task in tasks}
    failed = [row for row in results if row.get("cause")]
    random.Random(seed).shuffle(failed)
    ranks = {cause: rank for rank, cause in enumerate(count_causes(results))}
    turns: Counter[str] = Counter()
    order: list[tuple[int, int, int, dict]] = []
    for row in failed:
        order.append((turns[row["cause"]], ranks[row["cause"]], len(order), row))
        turns[row["cause"]] += 1
    chosen = [row for *_, row in sorted(order, key=lambda one: one[:3])[:count]]
    examples = [
        {"id": task["id"], "category": _category(task), "prompt": task["text"], "answer": task["references"][0]}
        for task in train or []
    ]
    return [
        failure | {"prompt": by_id[failure["id"]]["messages"][-1]["content"]}
        for failure in with_nearest([_shown(by_id[row["id"]], row) for row in chosen], examples)
    ]


def _category(task: dict) -> str:
    """The label that is right; of free answers there is only one category."""
    return task["references"][0] if task["labels"] else "all"


def _shown(task: dict, row: dict) -> dict:
    check = f"right: {' | '.join(task['references'])}"
    if "chosen" in row:
        check += f"\nmost likely label: {row['chosen']}"
    return {
        "id": row["id"],
        "category": _category(task),
        "prompt": task["text"],  # for the nearest example: without the prompt's own words
        "answer": row["answer"],
        "cause": row["cause"],
        "check": check,
    }
