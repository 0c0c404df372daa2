"""How well answers are classified: accuracy, macro F1, and each class with its confusions."""

from __future__ import annotations

import numpy as np

from eval.stats import wilson

NONE = "no label"  # the column of answers that name none, or several
RESAMPLES = 1000


def class_report(gold: list[str], said: list[str | None], labels: list[str], *, seed: int = 0) -> dict:
    """Scores of predicted labels, None where there is no prediction, which counts as wrong.

    {"accuracy": [value, low, high], "macro_f1": the same, "classes": {label: {"precision", "recall", "f1", "n",
    "intervals"}}, "confusion": {"rows": labels, "columns": labels and NONE, "counts"}}: counts[i][j] rows of label i
    were given label j. Intervals are Wilson's for rates, and resample the rows for F1. macro_f1 is the mean F1 of the
    classes that occur in `gold`.
    """
    # labels as numbers; NONE is the last
    number = {label: i for i, label in enumerate(labels)}
    true = np.array([number[label] for label in gold])  # [N]
    guess = np.array([number.get(str(label), len(labels)) for label in said])  # [N]
    counts = _confusion(true, guess, len(labels))
    scores = _class_scores(counts)  # [3, K]

    # the same of resampled rows: [RESAMPLES, 3, K]
    drawn = np.random.default_rng(seed).integers(len(true), size=(RESAMPLES, len(true)))
    resampled = [_confusion(true[rows], guess[rows], len(labels)) for rows in drawn]
    macro = np.quantile([_macro_f1(one) for one in resampled], [0.025, 0.975])
    f1 = np.quantile([_class_scores(one)[2] for one in resampled], [0.025, 0.975], axis=0)  # [2, K]

    classes = {}
    for i, label in enumerate(labels):
        hits, of_gold, of_guess = int(counts[i, i]), int(counts[i].sum()), int(counts[:, i].sum())
        precision, recall, score = (float(value) for value in scores[:, i])
        intervals = {"precision": wilson(hits, of_guess), "recall": wilson(hits, of_gold), "f1": f1[:, i].tolist()}
        intervals = {name: list(ends) for name, ends in intervals.items()}
        classes[label] = {"precision": precision, "recall": recall, "f1": score, "n": of_gold, "intervals": intervals}
    right = int(np.trace(counts))
    return {
        "accuracy": [right / len(true), *wilson(right, len(true))],
        "macro_f1": [_macro_f1(counts), *map(float, macro)],
        "classes": classes,
        "confusion": {"rows": labels, "columns": [*labels, NONE], "counts": counts.tolist()},
    }


def _confusion(true: np.ndarray, guess: np.ndarray, count: int) -> np.ndarray:
    """[K, K + 1]: rows of each true label by the label that was guessed; the last column has none."""
    return np.bincount(true * (count + 1) + guess, minlength=count * (count + 1)).reshape(count, count + 1)


def _class_scores(counts: np.ndarray) -> np.ndarray:
    """[3, K]: precision, recall and F1 of each class; 0 where the denominator is 0, as in scikit-learn."""
    hits = np.diagonal(counts).astype(float)
    of_gold, of_guess = counts.sum(1), counts.sum(0)[:-1]
    denominators = np.stack([of_guess, of_gold, (of_gold + of_guess) / 2])
    return hits / np.maximum(denominators, 0.5)  # a sum of 0 has no hits either


def _macro_f1(counts: np.ndarray) -> float:
    """Mean F1 of the classes that occur: a bootstrap sample may miss a rare one."""
    return float(_class_scores(counts)[2][counts.sum(1) > 0].mean())
