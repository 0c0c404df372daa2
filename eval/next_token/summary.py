"""What all prompts say together: means with their intervals by kind of prompt, and seen against unseen."""

from __future__ import annotations

from collections import defaultdict

from eval.next_token.distributions import STATES
from eval.stats import bootstrap_mean, difference_of_means

CONTRASTED = ("kl", "entropy_change", "next_entropy_change", "language_mass_change", "language_top_change")


def summarise(rows: list[dict], *, seed: int = 0) -> dict:
    """Of rows of `compare_prompt`: "metrics", "intervals" and "n_of" (prompts) of METRIC_KIND, and "contrasts".

    Over all positions: kl, entropy_base, entropy_tuned, entropy_change (tuned - base), nll_base and nll_tuned in nats;
    top1_changed, rank_better and rank_worse as shares. At the position of interest alone: next_entropy_…, and if
    languages were judged language_mass_… and language_top_…, each of base, tuned and their change. Intervals (95 %)
    resample whole prompts. A contrast is the mean of the seen prompts less that of the unseen ones, of CONTRASTED, with
    Welch's interval over prompts: {"value", "interval", "n": [seen, unseen], "distinguishable"}.
    """
    by_prompt: dict[str, dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for metric, values in {**_over_positions(row["positions"]), **_at_position(row)}.items():
            if values:
                by_prompt[row["kind"]][metric].append(values)
    found: dict[str, dict] = {"metrics": {}, "intervals": {}, "n_of": {}}
    for kind, of_metrics in by_prompt.items():
        for metric, of_prompts in of_metrics.items():
            values = [value for of_prompt in of_prompts for value in of_prompt]
            clusters = [number for number, of_prompt in enumerate(of_prompts) for _ in of_prompt]
            name = f"{metric}_{kind}"
            found["metrics"][name], *found["intervals"][name] = bootstrap_mean(values, clusters=clusters, seed=seed)
            found["n_of"][name] = len(of_prompts)
    return found | {"contrasts": _contrasts(by_prompt["seen"], by_prompt["unseen"])}


def _contrasts(seen: dict[str, list[list[float]]], unseen: dict[str, list[list[float]]]) -> dict[str, dict]:
    contrasts = {}
    for metric in CONTRASTED:
        one, other = ([sum(values) / len(values) for values in of[metric]] for of in (seen, unseen))
        if min(len(one), len(other)) > 1:
            value, low, high = difference_of_means(one, other)
            contrasts[metric] = {
                "value": value,
                "interval": [low, high],
                "n": [len(one), len(other)],
                "distinguishable": not low <= 0 <= high,
            }
    return contrasts


def _over_positions(positions: list[dict]) -> dict[str, list[float]]:
    """metric -> its values, at every position where it is defined."""
    followed = [position for position in positions if position["rank"]]
    measures = {"kl": [position["kl"] for position in positions]}
    for measure, measured in (("entropy", positions), ("nll", followed)):
        for i, state in enumerate(STATES):
            measures[f"{measure}_{state}"] = [position[measure][i] for position in measured]
    measures["entropy_change"] = [position["entropy"][1] - position["entropy"][0] for position in positions]
    measures["top1_changed"] = [float(position["top1"][0] != position["top1"][1]) for position in positions]
    measures["rank_better"] = [float(position["rank"][1] < position["rank"][0]) for position in followed]
    measures["rank_worse"] = [float(position["rank"][1] > position["rank"][0]) for position in followed]
    return measures


def _at_position(row: dict) -> dict[str, list[float]]:
    """metric -> its value at the position of interest."""
    pairs = {"next_entropy": row["next_entropy"]}
    if "language" in row:
        base, tuned = (row["language"][state] for state in STATES)
        pairs |= {f"language_{share}": [base[share], tuned[share]] for share in ("mass", "top")}
    return {
        f"{measure}_{name}": [value]
        for measure, (base, tuned) in pairs.items()
        for name, value in (("base", base), ("tuned", tuned), ("change", tuned - base))
    }
