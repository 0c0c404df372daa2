from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from eval.stats import bootstrap_mean, bootstrap_ratio, intervals, shares_of_ratio, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (3, 46), (23, 46), (1, 1), (400, 1000)])
def test_wilson_is_scipys(successes, n):
    reference = scipy.stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert wilson(successes, n) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_wilson_of_nothing_says_nothing_and_refuses_nonsense():
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="5 of 4"):
        wilson(5, 4)


def test_the_bootstrap_is_scipys_percentile_bootstrap_a_little_wider():
    values = np.random.default_rng(1).exponential(size=60)
    wider = 2 * scipy.stats.norm.cdf(math.sqrt(60 / 59) * scipy.stats.t.ppf(0.025, 59))  # Hesterberg 2015
    reference = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=2, confidence_level=1 - wider
    )
    mean, low, high = bootstrap_mean(values, resamples=20_000)
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx(tuple(reference.confidence_interval), abs=0.01)
    assert high - low > 0.3  # the tolerance is small against the width


def test_clusters_are_resampled_whole():
    values = np.repeat(np.random.default_rng(4).normal(size=10), 20)  # 200 values, ten of them different
    clusters = np.repeat(np.arange(10), 20).tolist()
    mean, low, high = bootstrap_mean(values, clusters=clusters)
    _, naive_low, naive_high = bootstrap_mean(values)
    assert mean == pytest.approx(values.mean())
    assert high - low > 3 * (naive_high - naive_low)  # sqrt(20) times as wide
    assert (low, high) == pytest.approx(bootstrap_mean(values[::20])[1:])  # the same as one value a cluster


def test_unequal_clusters_keep_their_weight():
    mean, low, high = bootstrap_mean([1.0, 1.0, 1.0, 5.0], clusters=["a", "a", "a", "b"])
    assert mean == 2.0 and (low, high) == (1.0, 5.0)


def test_blocks_do_not_change_the_draws(monkeypatch):
    values = np.random.default_rng(5).normal(size=30)
    whole = bootstrap_mean(values, resamples=100)
    monkeypatch.setattr(intervals, "BLOCK", 70)
    assert bootstrap_mean(values, resamples=100) == whole


def test_the_seed_decides():
    values = list(range(20))
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


def test_the_ratio_of_sums_weighs_files_by_their_length():
    value, low, high = bootstrap_ratio([30.0, 1000.0], [10, 1000])
    assert value == pytest.approx(math.exp(1030 / 1010))
    assert (low, high) == pytest.approx((math.e, math.exp(3)))  # all draws of two files: each alone


def test_the_shares_of_a_ratio_have_its_value_as_mean_and_its_bootstraps_spread():
    rng = np.random.default_rng(12)
    tokens = rng.integers(50, 400, size=80).astype(float)
    nats = tokens * rng.normal(2, 0.3, size=80)
    shares = shares_of_ratio(nats, tokens)
    value, low, high = bootstrap_ratio(nats, tokens)
    assert shares.mean() == pytest.approx(value)
    assert 2 * 1.99 * shares.std(ddof=1) / math.sqrt(80) == pytest.approx(high - low, rel=0.06)
