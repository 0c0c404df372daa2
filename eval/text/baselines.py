"""What a figure is judged by: answers that need no language model, graded by the same rules.

labels     the most frequent one; TF-IDF with logistic regression; the nearest neighbour by TF-IDF (scikit-learn)
questions  the sentence of the context that shares most words with the question
summaries  the first sentence, and the first three (lead-1, lead-3)
"""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from common.console import UserError, need
from eval.stats import paired_change
from eval.text.grade import LIKELIHOOD, PER_TOKEN, grade
from eval.text.tasks import labels_in

MAJORITY, REGRESSION, NEIGHBOUR = "majority class", "TF-IDF + logistic regression", "TF-IDF nearest neighbour"
SENTENCE = re.compile(r"(?<=[.!?])\s+")
BLOCK = 1000  # test rows compared with all training rows at once


def baselines(task: str, train: list[dict], tasks: list[dict], *, seed: int = 0) -> tuple[dict[str, dict], list[str]]:
    """{name: {"metrics", "intervals", "values"}} on the tasks, and a line for each baseline that is not possible here.

    train, tasks  of `read_text_tasks`; without training rows there is only the most frequent label of the tasks
    """
    missing: list[str] = []
    answers: dict[str, list[str]]
    if task == "classification" or (task == "qa" and tasks[0]["labels"]):
        answers, missing = _labels(train, tasks)
    elif task == "qa":
        answers = {"closest sentence": [_closest_sentence(one) for one in tasks]}
    else:
        answers = {f"lead-{n}": [" ".join(SENTENCE.split(one["text"])[:n]) for one in tasks] for n in (1, 3)}
    graded = {}
    for name, of_name in answers.items():
        given = {one["id"]: answer for one, answer in zip(tasks, of_name, strict=True)}
        result = grade(task, tasks, given, seed=seed)
        graded[name] = {part: result[part] for part in ("metrics", "intervals", "values")}
    return graded, missing


def changes_over(baseline: dict, result: dict) -> dict[str, dict]:
    """Paired change from a baseline to a result, for each metric that both have task by task: metric -> change.

    The most likely label is compared with the baseline's, too, as the generated one is.
    """
    theirs = baseline["values"]
    pairs = {name: name.removeprefix(LIKELIHOOD).removeprefix(PER_TOKEN) for name in result["values"]}
    return {name: paired_change(theirs[same], result["values"][name]) for name, same in pairs.items() if same in theirs}


def _labels(train: list[dict], tasks: list[dict]) -> tuple[dict[str, list[str]], list[str]]:
    labels = labels_in(tasks)
    known = [one for one in train if one["references"][0] in labels]
    counts = Counter(one["references"][0] for one in known or tasks)
    majority = min(counts, key=lambda label: (-counts[label], label))
    answers = {MAJORITY: [majority] * len(tasks)}
    if not known:
        return answers, [f"{REGRESSION}, {NEIGHBOUR}: there are no training rows to learn from"]
    try:
        need("sklearn", why=f"{REGRESSION} and {NEIGHBOUR}: each", install="scikit-learn")
    except UserError as error:
        return answers, [str(error)]
    return answers | _by_words(known, tasks), []


def _by_words(train: list[dict], tasks: list[dict]) -> dict[str, list[str]]:
    """Labels by the words and word pairs of a text: learnt weights, or the training text with the largest cosine."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    # short words count as well ("who" and "how" are what TREC is about), punctuation not
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    try:
        known = vectorizer.fit_transform([one["text"] for one in train])  # [M, W] sparse, rows of length one
    except ValueError:  # no word in any text
        return {}
    asked = vectorizer.transform([one["text"] for one in tasks])  # [N, W]
    labels = [one["references"][0] for one in train]

    # cosines, some rows at a time
    starts = range(0, len(tasks), BLOCK)
    nearest = [at for start in starts for at in np.asarray((asked[start : start + BLOCK] @ known.T).argmax(1)).ravel()]
    answers = {NEIGHBOUR: [labels[at] for at in nearest]}
    if len(set(labels)) > 1:
        model = LogisticRegression(C=10, max_iter=1000).fit(known, labels)
        answers = {REGRESSION: [str(label) for label in model.predict(asked)]} | answers
    return answers


def _closest_sentence(task: dict) -> str:
    question, _, context = task["text"].partition("\n")
    words = set(re.findall(r"\w+", question.lower()))
    sentences = SENTENCE.split(context)
    return max(sentences, key=lambda one: len(words & set(re.findall(r"\w+", one.lower()))))
