from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from eval.stats import holm, mcnemar_exact, paired_change, paired_rates_interval, paired_ratio_of_sums


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 5), (1, 9), (7, 7), (30, 12)])
def test_mcnemar_is_the_binomial_test(b, c):
    reference = scipy.stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(reference, rel=1e-9)


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
    with pytest.raises(ValueError, match="different tasks: 2 are in only one, such as 'b'"):
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
