"""Simulation: of a hundred 95 % intervals, 93 to 97 hold the truth.

Each rate here is of 1,500 data sets or more, so that chance alone moves it by about one in a hundred.
"""

from __future__ import annotations

import numpy as np
import pytest

from eval.stats import bootstrap_mean, bootstrap_ratio, change_over_seeds, paired_change, paired_rates_interval, wilson

RUNS = 1500


def covers(low, high, truth):
    return low <= truth <= high


@pytest.mark.parametrize("n", [10, 20, 60])
def test_of_a_mean(n):
    rng = np.random.default_rng(n)
    rate = np.mean([covers(*bootstrap_mean(rng.normal(size=n), resamples=400)[1:], 0) for _ in range(RUNS)])
    assert 0.93 <= rate <= 0.97


def test_of_a_change_of_sampled_pass_at_k():
    """Tasks of their own difficulty, ten samples each before and after; the truth is over all such tasks."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(RUNS):
        ability = rng.beta(0.8, 1.2, size=40)
        better = ability + (1 - ability) * 0.3 * rng.random(40)
        before, after = rng.binomial(10, ability) / 10, rng.binomial(10, better) / 10
        change = paired_change(dict(enumerate(before)), dict(enumerate(after)), resamples=400)
        covered += covers(*change["interval"], 0.6 * 0.15)  # E[1 - ability] 0.6, times the mean of 0.3 U
    assert 0.93 <= covered / RUNS <= 0.97


def test_of_a_perplexity():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(RUNS):
        tokens = rng.integers(100, 1000, size=30)
        nats = tokens * (1.5 + 0.2 * rng.normal(size=30))
        covered += covers(*bootstrap_ratio(nats, tokens, resamples=400)[1:], np.exp(1.5))
    assert 0.93 <= covered / RUNS <= 0.97


@pytest.mark.parametrize(("up", "down"), [(0.2, 0.1), (0.1, 0.1), (0.3, 0.05)])
def test_of_a_change_of_greedy_passes(up, down):
    counts = np.random.default_rng(3).multinomial(60, [up, down, 1 - up - down], size=20_000)
    rate = np.mean([covers(*paired_rates_interval(won, lost, 60), up - down) for won, lost, _ in counts])
    assert 0.93 <= rate <= 0.975  # a little wide by design where few move


@pytest.mark.parametrize("truth", [0.1, 0.5, 0.8])
def test_of_a_rate(truth):
    passes = np.random.default_rng(4).binomial(60, truth, size=20_000)
    assert 0.93 <= np.mean([covers(*wilson(count, 60), truth) for count in passes]) <= 0.97


@pytest.mark.parametrize(("seeds", "between"), [(3, 0.1), (3, 0.2), (5, 0.05), (5, 0.5)])
def test_of_a_change_over_seeds(seeds, between):
    rng = np.random.default_rng(5)
    zero, covered = {i: 0.0 for i in range(40)}, 0
    for _ in range(RUNS):
        of_task = rng.normal(size=40)
        runs = of_task + between * rng.normal(size=(seeds, 1)) + rng.normal(size=(seeds, 40))
        covered += covers(*change_over_seeds([zero], [dict(enumerate(run)) for run in runs])["interval"], 0)
    assert 0.93 <= covered / RUNS <= 0.97


def test_what_does_not_differ_is_called_different_at_most_one_time_in_twenty():
    rng = np.random.default_rng(6)
    zero = {i: 0.0 for i in range(15)}
    false = sum(
        paired_change(zero, dict(enumerate(rng.normal(size=15))), resamples=400)["distinguishable"] for _ in range(RUNS)
    )
    assert 0.02 <= false / RUNS <= 0.06
