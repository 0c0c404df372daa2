"""Measures of a single answer: the label that it names, SQuAD's exact match and F1, ROUGE; and corpus BLEU."""

from __future__ import annotations

import re
import string
from collections import Counter

import numpy as np

from common.console import need

ROUGES = ("rouge1", "rouge2", "rougeL")
RESAMPLES = 1000


def find_label(answer: str, labels: list[str]) -> str | None:
    """The label that an answer names: the whole answer, else the only label in the first line that contains any.

    Case and white space are ignored, and punctuation around the answer unless it tells labels apart ("C" and "C++"). A
    label within a longer one ("entity" in "named entity") does not count. None if there is no label, or more than one.
    """
    # the whole answer, with its punctuation and without
    for plain in (_lower, _bare):
        if len(found := [label for label in labels if plain(label) == plain(answer)]) == 1:
            return found[0]

    # the first line with a label, as a word of its own; longer ones first, and out of the way of those within them
    names = sorted({_lower(label): label for label in labels}.items(), key=lambda item: -len(item[0]))
    for line in map(_lower, answer.splitlines()):
        found = []
        for name, label in names:
            line, count = re.subn(rf"(?<!\w){re.escape(name)}(?!\w)", "|", line)
            found += [label] if count else []
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _lower(text: str) -> str:
    return " ".join(text.lower().split())


def _bare(text: str) -> str:
    return _lower(text).strip(string.punctuation + " ")


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


def need_summary_measures() -> None:
    """UserError if a package that measures summaries is missing: before a model answers, not after."""
    need("rouge_score", why="ROUGE", install="rouge-score")
    need("sacrebleu", why="BLEU")


def rouge(answers: list[str], references: list[list[str]]) -> dict[str, list[float]]:
    """F-measure of ROUGE-1, -2 and -L of each answer, stemmed, against its best reference (rouge-score)."""
    need("rouge_score", why="ROUGE", install="rouge-score")
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(ROUGES), use_stemmer=True)
    scores = [
        [scorer.score(reference, answer) for reference in of_answer]
        for answer, of_answer in zip(answers, references, strict=True)
    ]
    return {name: [max(score[name].fmeasure for score in of_answer) for of_answer in scores] for name in ROUGES}


def corpus_bleu(answers: list[str], references: list[list[str]], *, seed: int = 0) -> tuple[float, float, float]:
    """Corpus BLEU from 0 to 100 (sacrebleu) with its interval: n-gram counts are sums over the resampled answers."""
    bleu = need("sacrebleu", why="BLEU").BLEU
    scorer = bleu(effective_order=True)  # only the counts of single texts are used
    scores = [scorer.sentence_score(answer, of_answer) for answer, of_answer in zip(answers, references, strict=True)]
    counts = np.array([[*score.counts, *score.totals, score.sys_len, score.ref_len] for score in scores])  # [N, 10]

    def of_sums(sums: np.ndarray) -> float:
        whole = [int(count) for count in sums]
        return bleu.compute_bleu(whole[:4], whole[4:8], *whole[8:], smooth_method="exp").score

    drawn = np.random.default_rng(seed).integers(len(counts), size=(RESAMPLES, len(counts)))
    low, high = np.quantile([of_sums(counts[rows].sum(0)) for rows in drawn], [0.025, 0.975])
    return of_sums(counts.sum(0)), float(low), float(high)
