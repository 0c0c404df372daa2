"""What was found, in sentences built from the verdicts: true whatever comes out, no larger than the intervals.

All are plain text, for the paper (escaped there) and for its README alike. A sentence about something that has not been
run says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from eval.change_table import number, verdict
from paper.study import Study

WATTS = 20  # assumed: two cores of a server's CPU at some 6 W each, and their memory
BASELINES = {  # what a tuned model is compared with
    "zero-shot": "the zero-shot prompt", "few-shot": "the few-shot prompt", "classical": "the classical baseline",
    "full": "full fine-tuning",
}  # fmt: skip
PASSES = {"published_pass@1": "by form", "lenient_pass@1": "by our lenient rules", "pass@1": "by execution"}
BETTER, WORSE, NEITHER = "better", "worse", "not distinguishable"


def listed(names: Iterable[str]) -> str:
    """A, B and C."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def signed(change: dict) -> str:
    """+0.412 [+0.360, +0.463]: the value of a change and its interval."""
    low, high = change["interval"]
    return f"{number(change['value'], sign=True)} [{number(low, sign=True)}, {number(high, sign=True)}]"


def by_verdict(changes: list[dict]) -> dict[str, list[dict]]:
    """The changes that are better, worse and not distinguishable; each has its metric in "metric"."""
    return {word: [one for one in changes if verdict(one["metric"], one) == word] for word in (BETTER, WORSE, NEITHER)}


def compared(study: Study, model: str, against: str) -> str:
    """Which methods are better than a baseline, worse, or not distinguishable from it, by task; the largest change."""
    changes = {task["title"]: study.compared(model, task, against) for task in study.tasks(model)}
    changes = {title: of_task for title, of_task in changes.items() if of_task}
    if not changes:
        return "Not run yet."
    tasks_of: dict[str, list[str]] = {}  # what was found -> the tasks on which it was
    for title, of_task in changes.items():
        tasks_of.setdefault(_sides(study, of_task), []).append(title)
    found = " ".join(f"On {listed(titles)}, {sides}." for sides, titles in tasks_of.items())
    largest = max((one for of_task in changes.values() for one in of_task), key=lambda one: abs(one["value"]))
    return f"{found} The largest change is {signed(largest)}, n = {largest['n']} ({_where(study, largest)})."


def _sides(study: Study, changes: list[dict]) -> str:
    """Better: all methods but prompt tuning and IA3; worse: IA3; not distinguishable: prompt tuning."""
    sides = []
    for word, found in by_verdict(changes).items():
        names = [study.short(one["method"]) for one in found]
        others = [study.short(one["method"]) for one in changes if one not in found]
        text = listed(names) if names else ""
        if len(names) > len(others):
            text = f"all methods but {listed(others)}" if others else "all methods"
        if names:
            sides.append(f"{word}: {text}")
    return "; ".join(sides)


def on_other_models(study: Study) -> str:
    """The comparison with the zero-shot prompt for every model but the first."""
    parts = [
        f"{one['title']} against its zero-shot prompt: {compared(study, one['model'], 'zero-shot')}"
        for one in study.models
        if one["model"] != study.main_model
    ]
    return " ".join(parts) or "No second model has been run yet."


def tally(study: Study) -> str:
    """Of all tuned models, how many are better than each baseline, worse, or not distinguishable from it."""
    parts = []
    for against, name in BASELINES.items():
        tasks = [(one["model"], task) for one in study.models for task in study.tasks(one["model"])]
        changes = [change for model, task in tasks for change in study.compared(model, task, against)]
        if changes:
            better, worse, neither = (len(found) for found in by_verdict(changes).values())
            side = f"{better} of {len(changes)} are better than {name}"
            parts.append(f"{side}, {worse} worse and {neither} not distinguishable")
    if not parts:
        return "Tuned models have not been compared yet."
    return f"Of the tuned models, one for each method, task and base, {'; '.join(parts)}."


def forgetting(study: Study) -> str:
    """How many of the trained models predict code and English worse than before, and how many better."""
    parts = []
    for text, name in (("code", "held-out code"), ("english", "plain English")):
        changes = study.rows("forgetting", text=text, metric="perplexity")
        if changes:
            better, worse, _ = (len(found) for found in by_verdict(changes).values())
            parts.append(f"{name} worse in {worse} and better in {better} of {len(changes)} cases")
    if not parts:
        return "What training forgets has not been measured yet."
    return f"After training, the models predict {listed(parts)}; the other cases are not distinguishable."


def cost(study: Study) -> str:
    """Between which figures the runs' trainable parameters, minutes and memory lie, and whose they are."""
    tuned = study.rows("summary", model=study.main_model, kind="tuned")
    forms: dict[str, Callable[[float], str]] = {
        "trainable_parameters": lambda value: f"{value:,} trainable parameters",
        "minutes": lambda value: f"{value:.1f} minutes of training",
        "memory_gib": lambda value: f"{value:.2f} GiB of memory",
    }
    parts = []
    for field, form in forms.items():
        known = [row for row in tuned if row[field] is not None]
        if known:
            least, most = (choose(known, key=lambda row: row[field]) for choose in (min, max))
            ends = [f"{form(row[field])} ({_where(study, row)})" for row in (least, most)]
            parts.append(f"from {ends[0]} to {ends[1]}")
    return f"A run takes {'; '.join(parts)}." if parts else "The cost has not been measured yet."


def _where(study: Study, row: dict) -> str:
    """TREC with LoRA (r = 8)."""
    return f"{study.title(row['task'])} with {study.short(row['method'])}"


def seeds(study: Study) -> str:
    """How far the seeds of one method lie apart, at most, on each task."""
    parts = []
    for task in study.tasks(study.main_model):
        tuned = study.rows("summary", model=study.main_model, task=task["task"], kind="tuned")
        several = [(*row["range"][task["metric"]], row) for row in tuned if len(row["seeds"]) > 1]
        if several:
            low, high, row = max(several, key=lambda one: one[1] - one[0])
            parts.append(f"on {_where(study, row)} ({number(low)} to {number(high)})")
    return f"The seeds lie furthest apart {listed(parts)}." if parts else "Several seeds have not been run yet."


def curves(study: Study) -> str:
    """What a method gains from the fewest to the most training rows, with the intervals of both ends."""
    parts = []
    for curve in study.rows("curves"):
        first, last = (choose(curve["points"], key=lambda one: one["train_rows"]) for choose in (min, max))
        if len(curve["points"]) > 1:
            parts.append(f"on {_where(study, curve)}, from {_point(first)} to {_point(last)}")
    return f"Quality goes, {'; '.join(parts)}." if parts else "The learning curves have not been run yet."


def _point(point: dict) -> str:
    low, high = point["interval"]
    return f"{number(point['value'])} [{number(low)}, {number(high)}] on {point['train_rows']:,} rows"


def rates(study: Study) -> str:
    """How often the chosen learning rate was the smallest or the largest of those tried."""
    sweeps = study.rows("learning_rates")
    if not sweeps:
        return "The sweeps have not been run yet."
    edge = sum(row["at_edge"] for row in sweeps)
    return f"In {edge} of {len(sweeps)} sweeps the chosen rate is the smallest or the largest of those tried."


def errors(study: Study) -> str:
    """The most frequent cause of error on each task, over all methods of the first model."""
    parts = []
    for task in study.tasks(study.main_model):
        found = study.rows("causes", model=study.main_model, task=task["task"])
        totals: Counter[str] = Counter()
        for row in found:
            totals.update(row["causes"])
        if totals:
            cause, count = totals.most_common(1)[0]
            parts.append(f"on {task['title']} “{cause}” ({count} of {totals.total()} errors of {len(found)} methods)")
    return f"The most frequent cause of error is {'; '.join(parts)}." if parts else "Errors have not been counted yet."


def progress(study: Study) -> str:
    """How much of the grid is done."""
    done = study.results.get("progress")
    if not done:
        return "None of the planned runs has been made yet."
    if done["runs"] < done["of"]:
        return f"So far {done['runs']} of the {done['of']} planned runs are done."
    return f"All {done['of']} planned runs are done."


def energy(study: Study) -> str:
    """Measured minutes times assumed watts, named an estimate."""
    done = study.results.get("progress")
    if not done:
        return "The minutes of this study have not been measured yet."
    hours = done["minutes"] / 60
    taken = f"The {done['runs']} runs took {hours:.1f} hours."
    assumed = f"At an assumed {WATTS} W for two cores and their memory"
    return f"{taken} {assumed}, this is an estimated {hours * WATTS / 1000:.2f} kWh."


def executed(results: dict | None) -> str:
    """track_b_executed: what each source of answers changed in pass@1."""
    if not results or not results["changes"]:
        return "The experiment on whose answers to train on has not been run yet."
    changes = {arm: of_arm["pass@1"] for arm, of_arm in results["changes"].items()}
    parts = [f"{arm} {signed(change)} ({verdict('pass@1', change)})" for arm, change in changes.items()]
    n = next(iter(changes.values()))["n"]
    return f"The changes of pass@1 on {n} executed tasks are: {'; '.join(parts)}."


def published(results: dict | None) -> str:
    """verl_sft: the same answers by the form that a published run judges, by our own rules, and by execution."""
    if not results or not results["changes"]:
        return "The repetition of the published run has not been made yet."
    parts = []
    for model, of_model in results["changes"].items():
        told = [
            f"{name} {signed(of_model[metric])} (n = {of_model[metric]['n']}, {verdict(metric, of_model[metric])})"
            for metric, name in PASSES.items()
            if metric in of_model
        ]
        parts.append(f"{model} {listed(told)}")
    return f"The changes of pass@1 after training are: {'; '.join(parts)}."


def choices(results: dict | None) -> str:
    """quickstart_choices: how many of the settings that were compared changed track B's pass@1."""
    of_tracks = results["tracks"] if results else {}
    changes = [one["pass@1"] | {"metric": "pass@1"} for one in of_tracks.get("sft", {}).get("changes", {}).values()]
    if not changes:
        return "The comparison of settings has not been run yet."
    better, worse, neither = (len(found) for found in by_verdict(changes).values())
    largest = max(changes, key=lambda one: abs(one["value"]))
    return (
        f"Of {len(changes)} settings of instruction tuning, {better} change pass@1 for the better, {worse} for the "
        f"worse and {neither} not distinguishably; the largest change is {signed(largest)} (n = {largest['n']})."
    )
