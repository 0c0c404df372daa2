"""Grades the answers to text tasks, and what a model finds most likely, as papers report them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from common.console import UserError
from data.checks.thoughts import split_thoughts
from eval.environment import environment
from eval.stats import summarise
from eval.text.causes import answer_cause, count_causes, label_cause, summary_cause
from eval.text.classes import class_report
from eval.text.likelihood import Scores
from eval.text.metrics import ROUGES, corpus_bleu, find_label, normalize_answer, rouge, token_f1
from eval.text.tasks import labels_in

LIKELIHOOD = "likelihood_"  # prefix of the metrics of the most likely label
PER_TOKEN = "per_token_"  # of the label that is most likely per token


class Answer(NamedTuple):
    """A graded answer: its text without a model's thoughts, and whether it ended by itself."""

    text: str
    stopped: bool


def grade(
    task: str,
    tasks: list[dict],
    answers: dict[str, str],
    *,
    scores: dict[str, Scores] | None = None,
    unfinished: Collection[str] = (),
    seed: int = 0,
) -> dict:
    """The eval result of answers (id -> text) to the tasks of `read_text_tasks`; `task` is a key of GRADERS.

    scores      LIKELIHOOD and PER_TOKEN -> id -> label -> score (eval/text/likelihood.py): the label that scores best
                is graded, too
    unfinished  ids of answers that reached the limit of their length
    classification  accuracy (Wilson's interval) and macro_f1; "classes" has the precision, recall, f1 and n of each
                    label, "confusion" which label was taken for which. An answer that does not name exactly one label
                    is wrong, with the status "extraction". With scores, the same as likelihood_accuracy,
                    likelihood_macro_f1 and, under "likelihood", classes and confusion; likewise per_token
    qa              exact_match and token_f1, the best over the references, with SQuAD's normalisation; and all of a
                    classification if the tasks have labels (yes, no, maybe)
    summarization   corpus bleu (0 to 100), and the F-measure of rouge1, rouge2 and rougeL (stemmed, best reference)
    Every row that is not right has a "cause", and "causes" counts them. A reasoning model's thoughts are removed from
    each answer first (data.checks.thoughts) and kept as "thoughts" in its row.
    UserError for a task without an answer, and for an answer without a task.
    """
    if missing := [one["id"] for one in tasks if one["id"] not in answers]:
        raise UserError(f"{len(missing)} of {len(tasks)} tasks have no answer, such as {missing[0]!r}")
    if unasked := answers.keys() - {one["id"] for one in tasks}:
        raise UserError(f"{len(unasked)} answers belong to no task in the data, such as {min(unasked)!r}")
    thoughts, texts = zip(*(split_thoughts(answers[one["id"]]) for one in tasks), strict=True)
    given = [Answer(text, one["id"] not in unfinished) for one, text in zip(tasks, texts, strict=True)]

    # the measures of the task; of the most likely label, if there are scores
    result = GRADERS[task](tasks, given, seed)
    for prefix, of_kind in (scores or {}).items():
        result = _with_likelihood(result, tasks, of_kind, prefix, seed)
    for row, thought, answer in zip(result["results"], thoughts, given, strict=True):
        row |= ({"thoughts": thought} if thought else {}) | ({} if answer.stopped else {"stopped": False})
    result["causes"] = count_causes(result["results"])
    return result | {
        "n": len(tasks),
        "sandbox": None,
        "environment": environment(tasks=tasks, answers=answers),
    }


def _classification(tasks: list[dict], answers: list[Answer], seed: int) -> dict:
    labels, gold = labels_in(tasks), [one["references"][0] for one in tasks]
    said = [find_label(answer.text, labels) for answer in answers]
    causes = [
        label_cause(answer.text, one, right, labels, stopped=answer.stopped)
        for answer, one, right in zip(answers, said, gold, strict=True)
    ]
    rows = [
        row | {"status": "extraction" if one is None else row["status"], "label": one, "gold": right}
        for row, one, right in zip(_rows(tasks, answers, causes), said, gold, strict=True)
    ]
    return _of_labels(tasks, gold, said, labels, seed) | {"results": rows}


def _of_labels(tasks: list[dict], gold: list[str], said: list[str | None], labels: list[str], seed: int) -> dict:
    """Metrics, intervals, values, classes and confusion of predicted labels."""
    report = class_report(gold, said, labels, seed=seed)
    figures = {name: report.pop(name) for name in ("accuracy", "macro_f1")}
    right = {one["id"]: float(a == b) for one, a, b in zip(tasks, gold, said, strict=True)}
    return {
        "metrics": {name: value for name, (value, *_) in figures.items()},
        "intervals": {name: interval for name, (_, *interval) in figures.items()},
        "values": {"accuracy": right},
        **report,
    }


def _with_likelihood(result: dict, tasks: list[dict], scores: Scores, prefix: str, seed: int) -> dict:
    """The result with the same figures of the label that scores best, whatever was generated."""
    labels, gold = labels_in(tasks), [one["references"][0] for one in tasks]
    chosen: list[str | None] = [max(labels, key=scores[one["id"]].__getitem__) for one in tasks]
    found = _of_labels(tasks, gold, chosen, labels, seed)
    for part in ("metrics", "intervals", "values"):
        named = {prefix + name: value for name, value in found.pop(part).items()}
        result = result | {part: result[part] | named}
    result |= {prefix.rstrip("_"): found}
    if prefix != LIKELIHOOD:
        return result
    rows = [
        row | {"chosen": one, "scores": {label: round(score, 4) for label, score in scores[row["id"]].items()}}
        for row, one in zip(result["results"], chosen, strict=True)
    ]
    return result | {"results": rows}


def _qa(tasks: list[dict], answers: list[Answer], seed: int) -> dict:
    values: dict[str, dict[str, float]] = {"exact_match": {}, "token_f1": {}}
    for one, answer in zip(tasks, answers, strict=True):
        references = one["references"]
        values["exact_match"][one["id"]] = float(
            normalize_answer(answer.text) in [normalize_answer(reference) for reference in references]
        )
        values["token_f1"][one["id"]] = max(token_f1(answer.text, reference) for reference in references)
    causes = [
        answer_cause(answer.text, one["references"], one["text"], stopped=answer.stopped)
        for one, answer in zip(tasks, answers, strict=True)
    ]
    result = summarise(values, seed=seed) | {"values": values, "results": _rows(tasks, answers, causes)}
    if not tasks[0]["labels"]:
        return result

    # a question with a few possible answers is graded as a classification, too
    verdicts = _classification(tasks, answers, seed)
    return verdicts | {part: result[part] | verdicts[part] for part in ("metrics", "intervals", "values")}


def _summarization(tasks: list[dict], answers: list[Answer], seed: int) -> dict:
    texts, references = [answer.text for answer in answers], [one["references"] for one in tasks]
    ids = [one["id"] for one in tasks]
    values = {name: dict(zip(ids, of_name, strict=True)) for name, of_name in rouge(texts, references).items()}
    causes = [
        summary_cause(answer.text, one["references"], one["text"], stopped=answer.stopped)
        for one, answer in zip(tasks, answers, strict=True)
    ]
    rows = [row | {"status": "graded"} for row in _rows(tasks, answers, causes)]
    for row in rows:
        row["rougeL"] = round(values[ROUGES[-1]][row["id"]], 4)
    result = summarise(values, seed=seed) | {"values": values, "results": rows}
    value, low, high = corpus_bleu(texts, references, seed=seed)
    result["metrics"]["bleu"], result["intervals"]["bleu"] = value, [low, high]
    return result


def _rows(tasks: list[dict], answers: list[Answer], causes: list[str | None]) -> list[dict]:
    return [
        {
            "id": one["id"],
            "status": "wrong" if cause else "pass",
            "answer": answer.text,
            "references": one["references"],
            **({"cause": cause} if cause else {}),
        }
        for one, answer, cause in zip(tasks, answers, causes, strict=True)
    ]


GRADERS: dict[str, Callable[[list[dict], list[Answer], int], dict]] = {
    "classification": _classification,
    "qa": _qa,
    "summarization": _summarization,
}
