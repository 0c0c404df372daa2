"""The headline results of all tracks: a card per track, and a table of every metric before and after."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from common.html import Safe, template
from eval.change_table import LOWER_IS_BETTER, number, verdict, verdict_phrase
from eval.charts import interval_strip
from eval.report.parts import NONE
from eval.report.tracks import Track

NAMES = {"cpt": "A · Continued pre-training", "sft": "B · Instruction tuning", "embed": "C · Embedding tuning"}
CARD_METRICS = {  # the most important one that a track has
    "cpt": ("perplexity",),
    "sft": ("pass@1", "accuracy", "exact_match", "rougeL"),
    "embed": ("ndcg@10",),
}
MEANING = {
    "perplexity": "exp of the mean loss per token of held-out code; lower is better",
    "bits_per_byte": "bits per byte of held-out code, independent of the tokenizer; lower is better",
    "pass@1": "share of the executable tasks whose greedy answer passes its check in the sandbox",
    "pass@3": "probability that one of three sampled answers passes, by the unbiased estimator",
    "lenient_pass@1": "share of all tasks whose greedy answer has the right form, judged without running it",
    "lenient_pass@3": "probability that one of three sampled answers has the right form",
    "style": "share of greedy code answers without a ruff finding",
    "hallucination_rate": "share of greedy answers that use a name which exists nowhere, among those with names to "
    "look up; lower is better",
    "mutation_score": "share of planted bugs that the tests in an answer catch",
    "improvement": "share of rewritten functions that behave as before and score better",
    "docstring_match": "parts of a function (arguments, returns, raises) that its docstring gets right",
    "docstring_clean": "share of docstrings without a finding of ruff's pydocstyle rules",
    "explanation_coverage": "share of what a function takes, calls and raises that the explanation mentions",
    "accuracy": "share of the texts whose generated answer names the right label",
    "macro_f1": "mean over the labels of F1, the harmonic mean of precision and recall",
    "likelihood_accuracy": "share of the texts whose right label is the most likely of all, whatever is generated",
    "likelihood_macro_f1": "the same mean of F1 for the most likely labels",
    "per_token_accuracy": "share of the texts whose right label has the highest mean log-probability per token",
    "per_token_macro_f1": "the same mean of F1 for these labels",
    "exact_match": "share of the answers that equal a reference, apart from capitals, punctuation and articles",
    "token_f1": "F1 over the words of an answer and its best reference",
    "rouge1": "F1 over the words of a summary and its best reference, stemmed",
    "rouge2": "the same over pairs of words",
    "rougeL": "the same over the longest common subsequence",
    "bleu": "n-gram precision of all summaries together, with a penalty for short ones; 0 to 100",
    "mrr@10": "one over the rank of the right code, 0 beyond ten, mean over the queries",
    "ndcg@10": "how high the right code ranks among the first ten: 1 is first",
    "recall@10": "share of the right codes that rank among the first ten",
}


def results_section(tracks: list[Track]) -> Safe:
    """The verdicts in a sentence, the cards, the table, and what the metrics mean."""
    measured = [track for track in tracks if track.headline and track.headline.get("after")]
    bm25 = {name: value for track in measured for name, value in (track.headline.get("bm25") or {}).items()}
    metrics = dict.fromkeys(metric for track in measured for metric in (track.headline.get("after") or {}))
    return template(Path(__file__).with_name("results.html.j2"))(
        verdicts=_count_verdicts(measured),
        has_tracks=bool(measured),
        cards=[card for track in measured if (card := _card(track))],
        rows=[row for track in measured for row in _rows(track)],
        bm25=", ".join(f"{name} {number(value)}" for name, value in bm25.items()),
        partly_paired=[line for track in measured for line in _partly_paired(track)],
        missing="; ".join(NAMES[track.name] for track in tracks if track.headline is None),
        meanings=[(metric, MEANING[metric]) for metric in metrics if metric in MEANING],
    )


def _count_verdicts(tracks: list[Track]) -> Counter:
    return Counter(verdict(*item) for track in tracks for item in (track.headline.get("change") or {}).items())


def _card(track: Track) -> dict | None:
    """The track's most important metric, before and after."""
    before, after, changes = (track.headline.get(key) or {} for key in ("before", "after", "change"))
    metric = next((one for one in CARD_METRICS[track.name] if one in before and one in after), None)
    if metric is None:
        return None
    card = {"track": NAMES[track.name], "metric": metric}
    card |= {"before": number(before[metric]), "after": number(after[metric])}
    change = changes.get(metric)
    return card | {"change": _change(metric, change, verdict_phrase(metric, change)) if change else None}


def _rows(track: Track) -> list[dict]:
    """The rows of the table: the metrics on held-out data, then those on unrelated texts."""
    measured = [(track.headline, ""), (track.headline.get("probe") or {}, " of other texts")]
    rows = []
    for sides, of in measured:
        before, after, changes = (sides.get(key) or {} for key in ("before", "after", "change"))
        for metric in dict.fromkeys([*before, *after]):
            row = {"track": NAMES[track.name][0], "metric": metric + of}
            row |= {"before": _figure(before, metric), "after": _figure(after, metric)}
            change = changes.get(metric)
            rows.append(row | {"change": _change(metric, change, verdict(metric, change)) if change else None})
    return rows


def _figure(values: dict, metric: str) -> str:
    return number(values[metric]) if metric in values else NONE


def _change(metric: str, change: dict, phrase: str) -> dict:
    """A change as the page shows it. "class" is the style of its verdict: better, worse or not."""
    word = verdict(metric, change).split()[0]
    low, high = (number(end, sign=True) for end in change["interval"])
    strip = interval_strip(
        change, lower_is_better=metric in LOWER_IS_BETTER, color=word if change["distinguishable"] else "muted"
    )
    return {
        "value": number(change["value"], sign=True),
        "interval": f"[{low},\N{NO-BREAK SPACE}{high}]",
        "strip": strip,
        "p": "<0.001" if change["p"] < 0.001 else f"{change['p']:.3f}",
        "n": change["n"],
        "n_needed": change["n_needed"],
        "verdict": phrase,
        "class": word,
    }


def _partly_paired(track: Track) -> list[str]:
    """A line for each metric that could be paired over fewer tasks than it was measured on."""
    counts = [(result or {}).get("n_of", {}) for result in (track.before, track.after)]
    lines = []
    for metric, change in (track.headline.get("change") or {}).items():
        ns = [of_side.get(metric, change["n"]) for of_side in counts]
        if max(ns) > change["n"]:
            lines.append(
                f"{NAMES[track.name][0]}: {metric} is paired over the {change['n']} tasks where both answers have it "
                f"({ns[0]} before, {ns[1]} after)."
            )
    return lines
