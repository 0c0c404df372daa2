from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from eval.stats import change_over_seeds, paired_change


def runs(seeds, between, *, tasks=40, gain=0.3, rng=13):
    """Answers before, and of runs whose seeds differ by `between`, each task having its own luck as well."""
    rng = np.random.default_rng(rng)
    of_task = rng.normal(gain, 0.5, size=tasks)
    draws = [of_task + between * rng.normal() + 0.3 * rng.normal(size=tasks) for _ in range(seeds)]
    return [{i: 0.0 for i in range(tasks)}], [dict(enumerate(draw)) for draw in draws]


def test_seeds_are_a_level_of_their_own():
    before, after = runs(3, between=0.5)
    change = change_over_seeds(before, after)
    means = [np.mean(list(run.values())) for run in after]
    assert change["value"] == pytest.approx(np.mean(means)) and change["seeds"] == 3 and change["n"] == 40
    pooled = paired_change(
        {(s, i): 0.0 for s in range(3) for i in before[0]},
        {(s, i): v for s, run in enumerate(after) for i, v in run.items()},
    )
    assert np.ptp(change["interval"]) > 3 * np.ptp(pooled["interval"])
    assert change["n_needed"] is None and not change["distinguishable"]  # no number of tasks makes up for three seeds
    assert change_over_seeds(before * 3, after) == change


def test_without_a_spread_between_seeds_they_act_as_samples_of_a_task():
    before, after = runs(4, between=0.0)
    change = change_over_seeds(before, after)
    alone = paired_change(before[0], {i: np.mean([run[i] for run in after]) for i in before[0]})
    assert change["interval"] == pytest.approx(alone["interval"], abs=0.03) and change["distinguishable"]
    same = change_over_seeds(before, before * 3)
    assert same["value"] == 0 and same["p"] == 1 and same["interval"] == [0, 0]


def test_two_seeds_and_runs_of_other_tasks_are_refused():
    before, after = runs(3, 0.1)
    with pytest.raises(ValueError, match="three seeds"):
        change_over_seeds(before, after[:2])
    with pytest.raises(ValueError, match="one result before or as many"):
        change_over_seeds(before * 2, after)
    with pytest.raises(ValueError, match="different tasks"):
        change_over_seeds(before, [*after[:2], {"x": 1.0}])


def test_the_variance_over_seeds_is_made_of_statsmodels_mean_squares():
    import pandas
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    before, after = runs(3, between=0.12, rng=14)
    rows = [(s, i, value) for s, of_run in enumerate(after) for i, value in of_run.items()]
    frame = pandas.DataFrame(rows, columns=["seed", "task", "change"])
    of_seed, of_task, rest = anova_lm(ols("change ~ C(seed) + C(task)", frame).fit())["mean_sq"]
    square = of_seed + of_task - rest
    assert min(of_seed, of_task) > 1.5 * rest  # both levels vary
    freedom = square**2 / (of_seed**2 / 2 + of_task**2 / 39 + rest**2 / 78)
    half = scipy.stats.t.ppf(0.975, freedom) * math.sqrt(square / 120)
    change = change_over_seeds(before, after)
    assert change["interval"] == pytest.approx([change["value"] - half, change["value"] + half])
