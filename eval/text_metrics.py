"""Metrics of text tasks: classification, question answering and summarisation.

Each grader takes tasks of `eval.text.read_text_tasks`, one answer per task and the seed of its bootstrap, and returns
the "metrics", "intervals" (95 %), "values" and "results" of an eval result.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable

import numpy as np

from common.console import UserError, need
from eval.stats import summarise, wilson

ROUGES = ("rouge1", "rouge2", "rougeL")
RESAMPLES = 1000


def find_label(answer: str, labels: list[str]) -> str | None:
    """The label that an answer names: the whole answer, else the only label in the first line that contains any.

    Case, white space and surrounding punctuation are ignored; a label within a longer one ("entity" in "named entity")
    does not count. None if there is no label, or more than one.
    """
    plain = {_plain(label): label for label in labels}
    if _plain(answer) in plain:
        return plain[_plain(answer)]
    for line in answer.splitlines():
        found = {
            label for label in plain if re.search(rf"(?<!\w){re.escape(label)}(?!\w)", " ".join(line.lower().split()))
        }
        longest = {one for one in found if not any(one != other and one in other for other in found)}
        if longest:
            return plain[longest.pop()] if len(longest) == 1 else None
    return None


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).strip(string.punctuation + " ")


def _classification(tasks: list[dict], answers: list[str], seed: int) -> dict:
    labels = sorted({one["references"][0] for one in tasks})
    if several := next((one["id"] for one in tasks if len(one["references"]) > 1), None):
        raise UserError(f"task {several}: a classification task has one right answer; this one has several references")
    predicted = [find_label(answer, labels) for answer in answers]
    number = {label: i for i, label in enumerate(labels)}
    gold = np.array([number[one["references"][0]] for one in tasks])
    guess = np.array([number.get(label, len(labels)) for label in predicted])
    right = {one["id"]: float(g == p) for one, g, p in zip(tasks, gold, guess, strict=True)}
    drawn = np.random.default_rng(seed).integers(len(gold), size=(RESAMPLES, len(gold)))
    precision, recall, f1 = _class_scores(gold, guess, len(labels))
    counts = np.bincount(gold, minlength=len(labels))
    macro = [_macro_f1(gold[rows], guess[rows], len(labels)) for rows in drawn]
    return {
        "metrics": {"accuracy": float(np.mean(gold == guess)), "macro_f1": _macro_f1(gold, guess, len(labels))},
        "intervals": {
            "accuracy": list(wilson(sum(right.values()), len(right))),
            "macro_f1": [float(end) for end in np.quantile(macro, [0.025, 0.975])],
        },
        "values": {"accuracy": right},
        "classes": {
            label: {"precision": precision[i], "recall": recall[i], "f1": f1[i], "n": int(counts[i])}
            for i, label in enumerate(labels)
        },
        "results": [
            {
                "id": one["id"],
                "status": "extraction" if label is None else "pass" if right[one["id"]] else "wrong",
                "answer": answer,
                "label": label,
                "gold": one["references"][0],
            }
            for one, answer, label in zip(tasks, answers, predicted, strict=True)
        ],
    }


def _class_scores(gold: np.ndarray, guess: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 of each of `count` classes; 0 where the denominator is 0, as in scikit-learn."""
    hits = np.bincount(gold[gold == guess], minlength=count).astype(float)
    of_gold, of_guess = np.bincount(gold, minlength=count), np.bincount(guess, minlength=count + 1)[:count]
    return hits / np.maximum(of_guess, 1), hits / np.maximum(of_gold, 1), 2 * hits / np.maximum(of_gold + of_guess, 1)


def _macro_f1(gold: np.ndarray, guess: np.ndarray, count: int) -> float:
    """Mean F1 over the classes present in gold: a bootstrap sample may miss a rare class."""
    return float(_class_scores(gold, guess, count)[2][np.unique(gold)].mean())


def normalize_answer(text: str) -> str:
    """Lower case without punctuation, English articles and extra spaces (Rajpurkar et al., arXiv:1606.05250)."""
    bare = "".join(sign for sign in text.lower() if sign not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def token_f1(answer: str, reference: str) -> float:
    """F1 over the normalised words of two texts (SQuAD)."""
    one, other = normalize_answer(answer).split(), normalize_answer(reference).split()
    if not one or not other:
        return float(one == other)
    return 2 * (Counter(one) & Counter(other)).total() / (len(one) + len(other))


def _qa(tasks: list[dict], answers: list[str], seed: int) -> dict:
    values: dict[str, dict[str, float]] = {"exact_match": {}, "token_f1": {}}
    for one, answer in zip(tasks, answers, strict=True):
        references = one["references"]
        values["exact_match"][one["id"]] = float(normalize_answer(answer) in map(normalize_answer, references))
        values["token_f1"][one["id"]] = max(token_f1(answer, reference) for reference in references)
    return _means(tasks, answers, values, passed=values["exact_match"], seed=seed)


def _summarization(tasks: list[dict], answers: list[str], seed: int) -> dict:
    need("rouge_score", why="ROUGE")
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(ROUGES), use_stemmer=True)
    values: dict[str, dict[str, float]] = {metric: {} for metric in ROUGES}
    for one, answer in zip(tasks, answers, strict=True):
        scores = [scorer.score(reference, answer) for reference in one["references"]]
        for metric in ROUGES:
            values[metric][one["id"]] = max(score[metric].fmeasure for score in scores)
    result = _means(tasks, answers, values, passed={}, seed=seed)
    value, low, high = _bleu(tasks, answers, seed)
    result["metrics"]["bleu"], result["intervals"]["bleu"] = value, [low, high]
    return result


def _bleu(tasks: list[dict], answers: list[str], seed: int) -> tuple[float, float, float]:
    """Corpus BLEU with its interval: n-gram counts are sums over tasks, and tasks are resampled."""
    bleu = need("sacrebleu", why="BLEU").BLEU
    scorer = bleu(effective_order=True)  # only the counts of single texts are used
    scores = [scorer.sentence_score(answer, one["references"]) for one, answer in zip(tasks, answers, strict=True)]
    counts = np.array([[*score.counts, *score.totals, score.sys_len, score.ref_len] for score in scores])  # [N, 10]

    def of_sums(sums: np.ndarray) -> float:
        whole = [int(count) for count in sums]
        return bleu.compute_bleu(whole[:4], whole[4:8], *whole[8:], smooth_method="exp").score

    drawn = np.random.default_rng(seed).integers(len(counts), size=(RESAMPLES, len(counts)))
    low, high = np.quantile([of_sums(counts[rows].sum(0)) for rows in drawn], [0.025, 0.975])
    return of_sums(counts.sum(0)), float(low), float(high)


def _means(tasks: list[dict], answers: list[str], values: dict, *, passed: dict, seed: int) -> dict:
    """An eval result whose metrics are means over tasks; the status is "graded" if there is no pass or fail."""
    results = [
        {
            "id": one["id"],
            "status": "graded" if not passed else "pass" if passed[one["id"]] else "wrong",
            "answer": answer,
            "references": one["references"],
        }
        for one, answer in zip(tasks, answers, strict=True)
    ]
    return summarise(values, seed=seed) | {"values": values, "results": results}


GRADERS: dict[str, Callable[[list[dict], list[str], int], dict]] = {
    "classification": _classification,
    "qa": _qa,
    "summarization": _summarization,
}
