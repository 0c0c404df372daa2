"""trec_eval, through pytrec_eval, is the reference; it differs from us in ties alone, so the runs have none."""

import numpy as np
import pytest
import pytrec_eval

from eval.retrieval import mrr_at_10, ndcg_at_10, rank, recall_at_10


@pytest.mark.parametrize("top_grade", [1, 3])
def test_metrics_are_those_of_trec_eval_on_random_runs(top_grade):
    rng = np.random.default_rng(top_grade)
    ours, theirs = [], []
    for _ in range(200):
        n = int(rng.integers(1, 60))
        scores = rng.permutation(n) / 7.0  # all different
        grades = rng.integers(1, top_grade + 1, size=n) * (rng.random(n) < 0.15)
        grades[rng.integers(n)] = 1  # at least one relevant
        order = rank(scores, grades)
        ours.append([mrr_at_10(grades[order]), ndcg_at_10(grades[order]), recall_at_10(grades[order])])
        qrels = {"q": {f"d{i}": int(grade) for i, grade in enumerate(grades)}}
        run = {f"d{i}": float(score) for i, score in enumerate(scores)}
        first_ten = dict(sorted(run.items(), key=lambda item: -item[1])[:10])  # recip_rank itself has no cut
        reference = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank", "ndcg_cut_10", "recall_10"})
        whole, cut = reference.evaluate({"q": run})["q"], reference.evaluate({"q": first_ten})["q"]
        theirs.append([cut["recip_rank"], whole["ndcg_cut_10"], whole["recall_10"]])
    assert np.allclose(ours, theirs, atol=1e-12)
    assert np.all(np.std(theirs, axis=0) > 0.1)  # the runs are not all alike
