"""A comparison in words and as an aligned table: before, after, change, interval, p, n and verdict of each metric."""

from __future__ import annotations

from eval.stats import LEVEL

LOWER_IS_BETTER = frozenset({"perplexity", "bits_per_byte", "hallucination_rate"})
NEITHER_IS_BETTER = frozenset({"answer_characters"})


def verdict(metric: str, change: dict) -> str:
    """ "better", "worse" or "not distinguishable"; "more" or "less" of what is neither good nor bad."""
    if not change["distinguishable"]:
        return "not distinguishable"
    if metric in NEITHER_IS_BETTER:
        return "more" if change["value"] > 0 else "less"
    return "better" if (change["value"] < 0) == (metric in LOWER_IS_BETTER) else "worse"


def verdict_phrase(metric: str, change: dict) -> str:
    """The verdict for a sentence; what is not distinguishable at this n comes with the larger n it needs."""
    word = verdict(metric, change)
    if change["distinguishable"]:
        return word
    needed = change.get("n_needed") or 0
    told = needed > change.get("n", 0) and change.get("p", 1) > 1 - LEVEL
    return f"{word} at this n" + (f" (about {needed} needed)" if told else "")


def number(value: float, *, sign: bool = False) -> str:
    """Three decimals below ten, two above: 0.619, +0.144, 12.35. With a true minus sign, so that columns align."""
    return f"{value:{'+' if sign else ''}.{3 if abs(value) < 10 else 2}f}".replace("-", "−")


def table(before: dict, after: dict, changes: dict) -> str:
    """The comparison of two eval results as aligned text, one line per metric."""
    return _aligned(_rows(before, after, changes))


def table_of_runs(baseline: list[dict], runs: dict[str, list[dict]], changes: dict[str, dict]) -> str:
    """The comparison of several runs as aligned text, one line per run and metric; over seeds, means are shown."""
    rows = []
    for name, of_run in changes.items():
        head, *lines = _rows(_mean(baseline), _mean(runs[name]), of_run)
        seeds = f" ({len(runs[name])} seeds)" if len(runs[name]) > 1 else ""
        rows += [(name + seeds, *line) for line in lines]
    return _aligned([("run", *head), *rows])


def _mean(results: list[dict]) -> dict:
    """The metrics that all results have, averaged."""
    shared = [metric for metric in results[0]["metrics"] if all(metric in result["metrics"] for result in results)]
    return {"metrics": {m: sum(result["metrics"][m] for result in results) / len(results) for m in shared}}


def _rows(before: dict, after: dict, changes: dict) -> list[tuple[str, ...]]:
    adjusted = any("p_holm" in change for change in changes.values())
    p_name = "p (Holm)" if adjusted else "p"
    rows = [("metric", "before", "after", "change", "95 % interval", p_name, "n", "verdict")]
    for metric, change in changes.items():
        low, high = change["interval"]
        rows.append(
            (
                metric,
                number(before["metrics"][metric]),
                number(after["metrics"][metric]),
                number(change["value"], sign=True),
                f"[{number(low, sign=True)}, {number(high, sign=True)}]",
                f"{change['p_holm' if adjusted else 'p']:.3f}",
                str(change["n"]),
                verdict_phrase(metric, change),
            )
        )
    return rows


def _aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
