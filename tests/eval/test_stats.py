import math

import numpy as np
import pytest
import scipy.stats

from eval import stats
from eval.stats import (
    bootstrap_mean,
    bootstrap_ratio,
    change_over_seeds,
    holm,
    mcnemar_exact,
    paired_change,
    paired_rates_interval,
    paired_ratio_of_sums,
    shares_of_ratio,
    student_cdf,
    student_quantile,
    wilson,
)


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
    change = paired_change(same, same)
    assert change["value"] == 0 and change["p"] == 1 and change["n_needed"] is None and not change["distinguishable"]
    assert change["interval"] == pytest.approx([-0.087, 0.087], abs=1e-3)  # 30 tasks cannot rule out a change of 8 %
    flipped = {key: 1 - value for key, value in same.items()}  # 15 lost, 15 won
    assert not paired_change(same, flipped)["distinguishable"]


def test_fewer_than_six_pairs_prove_nothing():
    for n in (1, 5, 6):
        change = paired_change({i: 0.0 for i in range(n)}, {i: 1.0 for i in range(n)})
        assert change["interval"][1] == 1 and change["distinguishable"] == (n == 6)
        change = paired_change({i: 0.0 for i in range(n)}, {i: 0.5 for i in range(n)})
        assert change["interval"] == [0.5, 0.5] and change["distinguishable"] == (n == 6)


@pytest.mark.parametrize(
    ("won", "lost", "told"), [(4, 0, False), (5, 0, False), (6, 0, True), (7, 1, False), (14, 4, True)]
)
def test_passes_and_failures_need_mcnemars_test_too(won, lost, told):
    before = {f"t{i}": float(i < lost) for i in range(46)}
    after = {f"t{i}": float(lost <= i < lost + won) for i in range(46)}
    change = paired_change(before, after)
    assert change["p"] == mcnemar_exact(lost, won)
    assert change["distinguishable"] == told == (change["p"] <= 0.05)


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


def test_the_ratio_of_sums_weighs_files_by_their_length():
    value, low, high = bootstrap_ratio([30.0, 1000.0], [10, 1000])
    assert value == pytest.approx(math.exp(1030 / 1010))
    assert (low, high) == pytest.approx((math.e, math.exp(3)))  # all draws of two files: each alone


def test_a_tasks_samples_are_one_unit_and_tasks_of_a_cluster_too():
    gains = np.repeat(np.random.default_rng(8).normal(0.8, 1, size=12), 5)  # 60 tasks of 12 files, alike within a file
    before, after = {i: 0.0 for i in range(60)}, dict(enumerate(gains.tolist()))
    naive = paired_change(before, after)
    change = paired_change(before, after, clusters={i: i // 5 for i in range(60)})
    by_file = paired_change({i: 0.0 for i in range(12)}, dict(enumerate(gains[::5].tolist())))
    assert change["n"] == 60 and change["value"] == naive["value"]
    assert (
        change["interval"] == pytest.approx(by_file["interval"])
        and np.ptp(naive["interval"]) < np.ptp(change["interval"]) / 2
    )
    assert change["p"] == pytest.approx(by_file["p"]) and naive["p"] < change["p"] / 4
    assert change["n_needed"] == by_file["n_needed"]


@pytest.mark.parametrize("shift", [0.1, 0.3, 0.5])
def test_the_randomisation_test_is_scipys_on_paired_samples(shift):
    differences = np.random.default_rng(9).normal(shift, 1, size=25)
    reference = scipy.stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20_000, rng=1
    )
    change = paired_change({i: 0.0 for i in range(25)}, dict(enumerate(differences)), resamples=20_000)
    assert change["p"] == pytest.approx(reference.pvalue, abs=0.01)


def test_the_n_needed_is_that_of_a_paired_t_test():
    from statsmodels.stats.power import TTestPower

    rng = np.random.default_rng(10)
    told = set()
    for seed in range(8):
        d = rng.normal(0.15, 1, size=60)
        change = paired_change({i: 0.0 for i in range(60)}, dict(enumerate(d)), seed=seed)
        told.add(change["distinguishable"])
        if not change["distinguishable"]:
            effect = abs(d.mean()) / d.std(ddof=1)
            reference = TTestPower().solve_power(effect_size=effect, alpha=0.05, power=0.8)
            assert change["n_needed"] == pytest.approx(max(reference, 61), rel=0.01, abs=1)
        else:
            assert change["n_needed"] is None
    assert False in told


def test_mcnemars_test_tells_four_times_of_five_at_the_n_needed():
    before = {i: float(i < 3) for i in range(60)}
    after = {i: float(3 <= i < 10) for i in range(60)}  # 7 won, 3 lost
    needed = paired_change(before, after)["n_needed"]
    rng = np.random.default_rng(11)
    outcomes = rng.multinomial(needed, [7 / 60, 3 / 60, 50 / 60], size=2000)
    power = np.mean([mcnemar_exact(won, lost) <= 0.05 for won, lost, _ in outcomes])
    four_of_eight = paired_change({i: 0.0 for i in range(8)}, {i: float(i < 4) for i in range(8)})
    connor = (1.959964 * math.sqrt(0.5) + 0.841621 * math.sqrt(0.5 - 0.5**2)) ** 2 / 0.5**2
    assert four_of_eight["n_needed"] == math.ceil(connor)
    assert needed > 250 and 0.74 <= power <= 0.83  # the exact test is a little weaker than the formula takes it


def test_bonett_and_prices_interval_is_walds_of_the_table_with_one_more_of_each():
    from statsmodels.stats.weightstats import DescrStatsW

    won, lost, n = 9, 4, 40
    d = DescrStatsW([1.0] * (won + 1) + [-1.0] * (lost + 1) + [0.0] * (n - won - lost))
    mean, error = d.mean, math.sqrt(d.var / d.nobs)
    assert paired_rates_interval(won, lost, n) == pytest.approx((mean - 1.959964 * error, mean + 1.959964 * error))
    assert paired_rates_interval(6, 0, 6)[1] == 1


def test_holm_is_statsmodels():
    from statsmodels.stats.multitest import multipletests

    for p_values in ([0.04], [0.01, 0.04, 0.03, 0.005], [0.5, 0.9, 0.9], [0.02, 0.02, 0.001]):
        assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())
    assert holm([]) == []


@pytest.mark.parametrize("freedom", [1, 2, 2.37, 9, 59, 1000, 5e4, 1e6])
def test_students_distribution_is_scipys(freedom):
    for t in (-3.0, 0.0, 0.5, 1.96, 6.0):
        assert student_cdf(t, freedom) == pytest.approx(scipy.stats.t.cdf(t, freedom), abs=1e-6)
    for p in (0.6, 0.975, 0.995):
        assert student_quantile(p, freedom) == pytest.approx(scipy.stats.t.ppf(p, freedom), rel=1e-5)


def test_the_shares_of_a_ratio_have_its_value_as_mean_and_its_bootstraps_spread():
    rng = np.random.default_rng(12)
    tokens = rng.integers(50, 400, size=80).astype(float)
    nats = tokens * rng.normal(2, 0.3, size=80)
    shares = shares_of_ratio(nats, tokens)
    value, low, high = bootstrap_ratio(nats, tokens)
    assert shares.mean() == pytest.approx(value)
    assert 2 * 1.99 * shares.std(ddof=1) / math.sqrt(80) == pytest.approx(high - low, rel=0.06)


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
    with pytest.raises(ValueError, match="same tasks"):
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
