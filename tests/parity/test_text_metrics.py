"""sklearn, sacrebleu and rouge-score are the references; the SQuAD script is written out as it is published."""

import random

import pytest
import sacrebleu
import sklearn.metrics
from rouge_score import rouge_scorer

from eval.text import grade, read_text_tasks

WORDS = [
    "we", "propose", "a", "new", "method", "to", "train", "large", "networks", "on", "code", "and", "show", "that",
    "it", "works", "better", "than", "others",
]  # fmt: skip


def test_accuracy_and_macro_f1_are_sklearns():
    rng = random.Random(0)
    labels = ["abbreviation", "entity", "human", "location", "number"]
    gold = [rng.choice(labels) for _ in range(150)]
    said = [rng.choice([label, label, *labels, "none of them"]) for label in gold]
    rows = [{"id": str(i), "instruction": "?", "output": label} for i, label in enumerate(gold)]
    result = grade("classification", read_text_tasks(rows), {str(i): label for i, label in enumerate(said)})
    assert result["metrics"]["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(gold, said))
    reference = sklearn.metrics.precision_recall_fscore_support(gold, said, labels=labels, zero_division=0)
    for i, label in enumerate(labels):
        ours = result["classes"][label]
        assert [ours[key] for key in ("precision", "recall", "f1", "n")] == pytest.approx(
            [part[i] for part in reference]
        )
    assert result["metrics"]["macro_f1"] == pytest.approx(reference[2].mean())
    assert 0.3 < result["metrics"]["macro_f1"] < 0.9


def summaries(seed):
    rng = random.Random(seed)
    rows, answers = [], {}
    for i in range(40):
        start = rng.randrange(6)
        references = [" ".join([*rng.sample(WORDS[start:], 9), "."]) for _ in range(rng.choice([1, 2, 3]))]
        rows.append({"id": str(i), "instruction": "?", "output": references[0], "references": references[1:]})
        answers[str(i)] = " ".join(references[0].split()[: rng.randrange(4, 9)] + rng.sample(WORDS, 3))
    return rows, answers


@pytest.mark.parametrize("seed", [1, 2])
def test_bleu_is_sacrebleus_with_one_or_several_references(seed):
    rows, answers = summaries(seed)
    tasks = read_text_tasks(rows)
    most = max(len(task["references"]) for task in tasks)
    streams = [[dict(enumerate(task["references"])).get(i) for task in tasks] for i in range(most)]
    reference = sacrebleu.corpus_bleu([answers[task["id"]] for task in tasks], streams)
    result = grade("summarization", tasks, answers)
    assert result["metrics"]["bleu"] == pytest.approx(reference.score) and 20 < reference.score < 90
    low, high = result["intervals"]["bleu"]
    assert low < reference.score < high


def test_rouge_is_rouge_scores_best_over_the_references():
    rows, answers = summaries(3)
    tasks = read_text_tasks(rows)
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    result = grade("summarization", tasks, answers)
    for metric in ("rouge1", "rouge2", "rougeL"):
        best = [scorer.score_multi(task["references"], answers[task["id"]])[metric].fmeasure for task in tasks]
        assert result["metrics"][metric] == pytest.approx(sum(best) / len(best))
