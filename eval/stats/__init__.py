"""How sure a figure is: intervals, paired changes, and when two results are statistically indistinguishable."""

from eval.stats.intervals import (
    LEVEL,
    bootstrap_mean,
    bootstrap_ratio,
    mean_and_interval,
    shares_of_ratio,
    summarise,
    wilson,
)
from eval.stats.paired import holm, mcnemar_exact, paired_change, paired_rates_interval, paired_ratio_of_sums
from eval.stats.seeds import change_over_seeds
from eval.stats.student import student_cdf, student_quantile
from eval.stats.unpaired import difference_of_means

__all__ = [
    "LEVEL",
    "bootstrap_mean",
    "bootstrap_ratio",
    "change_over_seeds",
    "difference_of_means",
    "holm",
    "mcnemar_exact",
    "mean_and_interval",
    "paired_change",
    "paired_rates_interval",
    "paired_ratio_of_sums",
    "shares_of_ratio",
    "student_cdf",
    "student_quantile",
    "summarise",
    "wilson",
]
