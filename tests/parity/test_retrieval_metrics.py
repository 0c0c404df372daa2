"""trec_eval, through pytrec_eval, is the reference. It orders equal scores by document name, the last name first: with
names that put the better grade last, its order is ours."""

import numpy as np
import pytrec_eval

from eval.retrieval.metrics import METRICS, ranks_of

CUTS = (1, 5, 10)


def a_run(rng):
    """(scores, most of them shared by several; grades, of which at least one is positive)."""
    n = int(rng.integers(1, 60))
    scores = rng.integers(0, rng.integers(2, 40), size=n) / 7.0
    grades = rng.integers(1, rng.integers(2, 5), size=n) * (rng.random(n) < rng.choice([0.1, 0.5]))
    grades[rng.integers(n)] = 1
    return scores, grades


def by_trec_eval(scores, grades):
    names = [f"{9 - grade}-{i:03}" for i, grade in enumerate(grades)]
    cuts = ",".join(map(str, CUTS))
    measures = {"recip_rank", "map", f"ndcg_cut.{cuts}", f"recall.{cuts}"}
    evaluator = pytrec_eval.RelevanceEvaluator({"q": dict(zip(names, grades.tolist(), strict=True))}, measures)
    found = evaluator.evaluate({"q": dict(zip(names, scores.tolist(), strict=True))})["q"]
    metrics = {"map": found["map"]}
    for k in CUTS:  # recip_rank itself has no cut
        metrics[f"mrr@{k}"] = found["recip_rank"] if found["recip_rank"] >= 1 / k else 0.0
        metrics |= {f"ndcg@{k}": found[f"ndcg_cut_{k}"], f"recall@{k}": found[f"recall_{k}"]}
    return metrics


def test_metrics_are_those_of_trec_eval_on_a_thousand_graded_runs_with_ties():
    rng = np.random.default_rng(0)
    ours, reference, tied = [], [], 0
    for _ in range(1000):
        scores, grades = a_run(rng)
        relevant = np.flatnonzero(grades)
        tied += bool({*scores[relevant]} & {*scores[grades == 0]})
        found = ranks_of(scores, relevant, grades[relevant])
        ours.append([function(*found) for function in METRICS.values()])
        expected = by_trec_eval(scores, grades)
        reference.append([expected[metric] for metric in METRICS])
    assert np.allclose(ours, reference, atol=1e-12)
    assert np.all(np.std(reference, axis=0) > 0.1) and tied > 500  # the runs are not all alike, and ties decide
