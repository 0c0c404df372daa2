import math

import numpy as np
import pytest
import scipy.stats

from eval import stats
from eval.stats import bootstrap_mean, mcnemar_exact, paired_change, paired_ratio_of_sums, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (3, 46), (23, 46), (1, 1), (400, 1000)])
def test_wilson_is_scipys(successes, n):
    reference = scipy.stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert wilson(successes, n) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_wilson_of_nothing_says_nothing_and_refuses_nonsense():
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="5 of 4"):
        wilson(5, 4)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 5), (1, 9), (7, 7), (30, 12)])
def test_mcnemar_is_the_binomial_test(b, c):
    reference = scipy.stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(reference, rel=1e-9)


def test_the_bootstrap_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(1).exponential(size=60)
    reference = scipy.stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=2)
    mean, low, high = bootstrap_mean(values, resamples=20_000)
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx(tuple(reference.confidence_interval), abs=0.01)
    assert high - low > 0.3  # the tolerance is small against the width


def test_a_95_percent_interval_covers_the_mean_about_95_percent_of_the_time():
    covered = 0
    for seed, sample in enumerate(np.random.default_rng(3).normal(size=(600, 50))):
        _, low, high = bootstrap_mean(sample, resamples=500, seed=seed)
        covered += low <= 0 <= high
    assert 0.92 <= covered / 600 <= 0.98


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
    monkeypatch.setattr(stats, "BLOCK", 70)
    assert bootstrap_mean(values, resamples=100) == whole


def test_the_seed_decides():
    values = list(range(20))
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


def test_a_paired_change_sees_what_unpaired_means_cannot():
    level = np.random.default_rng(6).normal(scale=10, size=40)
    before = {f"t{i}": float(v) for i, v in enumerate(level)}
    after = {key: before[key] + 0.5 + 0.1 * (i % 3) for i, key in enumerate(reversed(before))}  # other order, same ids
    change = paired_change(before, after)
    assert change["value"] == pytest.approx(np.mean([after[k] - before[k] for k in before]))
    low, high = change["interval"]
    assert 0.5 < low < change["value"] < high < 0.7
    assert change["n"] == 40 and change["distinguishable"]


def test_no_change_and_noise_are_not_distinguishable():
    same = {f"t{i}": float(i % 2) for i in range(30)}
    assert paired_change(same, same) == {"value": 0.0, "interval": [0.0, 0.0], "n": 30, "distinguishable": False}
    flipped = {key: 1 - value for key, value in same.items()}  # 15 lost, 15 won
    assert not paired_change(same, flipped)["distinguishable"]


def test_fewer_than_six_pairs_prove_nothing():
    for n in (1, 5, 6):
        change = paired_change({i: 0.0 for i in range(n)}, {i: 1.0 for i in range(n)})
        assert change["interval"] == [1.0, 1.0] and change["distinguishable"] == (n == 6)


@pytest.mark.parametrize(
    ("won", "lost", "told"), [(4, 0, False), (5, 0, False), (6, 0, True), (7, 1, False), (14, 4, True)]
)
def test_passes_and_failures_need_mcnemars_test_too(won, lost, told):
    before = {f"t{i}": float(i < lost) for i in range(46)}
    after = {f"t{i}": float(lost <= i < lost + won) for i in range(46)}
    change = paired_change(before, after)
    assert change["interval"][0] > 0  # the bootstrap alone would say yes
    assert change["distinguishable"] == told == (mcnemar_exact(lost, won) <= 0.05)


def test_a_loss_can_be_told_as_well_as_a_gain():
    worse = paired_change({i: 0.5 for i in range(9)}, {i: 0.4 for i in range(9)})
    assert worse["value"] == pytest.approx(-0.1) and worse["distinguishable"]


def test_results_of_other_tasks_are_refused():
    with pytest.raises(ValueError, match="same tasks: 2 differ, first 'b'"):
        paired_change({"a": 1.0, "b": 1.0}, {"a": 1.0, "c": 1.0})
    with pytest.raises(ValueError, match="no values"):
        paired_change({}, {})
    with pytest.raises(ValueError, match="not finite"):
        paired_change({"a": 1.0}, {"a": math.nan})


def test_perplexity_is_of_the_sums_not_a_mean_of_files():
    before = {"small": (30.0, 10), "large": (1000.0, 1000)}
    after = {"small": (20.0, 10), "large": (900.0, 1000)}
    change = paired_ratio_of_sums(before, after)
    assert change["value"] == pytest.approx(math.exp(920 / 1010) - math.exp(1030 / 1010))
    low, high = change["interval"]  # all draws of two files: the extremes are each file alone
    assert low == pytest.approx(math.exp(2) - math.exp(3)) and high == pytest.approx(math.exp(0.9) - math.e)
    assert change["n"] == 2 and not change["distinguishable"]


def test_before_and_after_of_a_file_are_resampled_together():
    nats = np.random.default_rng(7).uniform(1, 5, size=30)  # files differ far more than before and after
    before = {str(i): (x * 100, 100) for i, x in enumerate(nats)}
    after = {str(i): ((x - 0.01) * 100, 100) for i, x in enumerate(nats)}
    change = paired_ratio_of_sums(before, after, transform=lambda ratio: ratio / math.log(2))
    assert change["value"] == pytest.approx(-0.01 / math.log(2))
    assert change["distinguishable"] and np.ptp(change["interval"]) < 1e-9


def test_a_file_without_tokens_is_refused():
    with pytest.raises(ValueError, match="at least one token"):
        paired_ratio_of_sums({"a": (0.0, 0)}, {"a": (0.0, 0)})
