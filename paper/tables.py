"""The tables of the paper, as LaTeX, from the results. A table of nothing says that it has not been run yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from eval.change_table import number, verdict
from paper.latex import NOT_RUN, escape, tabular
from paper.sentences import BASELINES, BETTER, NEITHER, WORSE, signed
from paper.study import Study

MARKS = {BETTER: "$^{+}$", WORSE: "$^{-}$", NEITHER: ""}
NONE = "--"
CAUSES = 3  # most frequent causes of error that are named
HEAD, TAIL = 90, 130  # characters that are shown of a long text


def models(study: Study) -> str:
    """Model, family, parameters, licence, and whether it was run here."""
    run = {one["model"] for one in study.models}
    rows = [
        [
            escape(one["title"]), escape(one["family"]),
            f"{one['parameters'] / 1e6:,.0f} M" if one["parameters"] else NONE, escape(one["license"]),
            "yes" if one["model"] in run else "recipe",
        ]
        for one in study.rows("models")
    ]  # fmt: skip
    return tabular("llrll", ["model", "family", "size", "licence", "run here"], [rows]) if rows else NOT_RUN


def tasks(study: Study) -> str:
    """Task, source, licence, rows, metrics, and how long the training is."""
    rows = []
    for one in study.rows("tasks"):
        used, published = (
            " / ".join(f"{of[split]:,}" if of.get(split) else "–" for split in ("train", "validation", "test"))
            for of in (one["rows"], one["rows_published"])
        )
        metrics = ", ".join(one["metrics"])
        cells = [one["title"], one["source"], one["license"], published, used, metrics, f"{one['epochs']:g}"]
        rows.append([escape(cell) for cell in cells])
    head = ["task", "source", "licence", "rows published", "rows used", "metrics, the first compared", "epochs"]
    columns = r"l>{\raggedright}p{3.6cm}>{\raggedright}p{2cm}ll>{\raggedright}p{3.4cm}r"
    return tabular(columns, head, [rows]) if rows else NOT_RUN


def quality(study: Study, model: str) -> str:
    """Each method of a model on each task: mean over seeds, interval, verdict against zero-shot, and the cost."""
    columns = study.tasks(model)
    if not columns:
        return NOT_RUN
    names = {kind: _names(study, model, kind) for kind in ("classical", "prompted", "tuned")}
    groups = [[_quality_row(study, model, kind, name) for name in found] for kind, found in names.items()]
    measured = [escape(f"{one['title']}, {one['metric']}") for one in columns]
    return tabular("l" + "l" * len(columns) + "rrr", ["method", *measured, "trainable", "min", "GiB"], groups)


def _names(study: Study, model: str, kind: str) -> list[str]:
    """The methods of a kind that have a figure on any task, tuned ones in the order of the plan."""
    owner = None if kind == "classical" else model
    found = dict.fromkeys(row["method"] for row in study.rows("summary", model=owner, kind=kind))
    planned = [one["method"] for one in study.methods]
    return sorted(found, key=lambda name: planned.index(name) if name in planned else -1)


def _quality_row(study: Study, model: str, kind: str, method: str) -> list[str]:
    owner = None if kind == "classical" else model
    cells, found = [], []
    for task in study.tasks(model):
        row = study.summary(owner, task["task"], method)
        if row is None:
            cells.append(NONE)
            continue
        found.append(row)
        change = [one for one in study.compared(model, task, "zero-shot") if one["method"] == method]
        mark = MARKS[verdict(task["metric"], change[0])] if change else ""
        low, high = row["intervals"][task["metric"]]
        interval = f"{{\\scriptsize [{number(low)}, {number(high)}]}}"
        cells.append(f"{number(row['metrics'][task['metric']])}{mark} {interval}")
    forms = {"trainable_parameters": _count, "minutes": "{:.1f}".format, "memory_gib": "{:.1f}".format}
    cost = [_span([row[field] for row in found if row[field] is not None], form) for field, form in forms.items()]
    return [escape(study.title(method)), *cells, *cost]


def further(study: Study, model: str) -> str:
    """The metrics that are not compared first: means over seeds, with half the width of their intervals."""
    columns = [(task, metric) for task in study.tasks(model) for metric in task["metrics"] if metric != task["metric"]]
    groups = []
    for kind in ("classical", "prompted", "tuned"):
        rows = []
        for method in _names(study, model, kind):
            owner = None if kind == "classical" else model
            found = [study.summary(owner, task["task"], method) for task, _ in columns]
            cells = [_half(row, metric) for row, (_, metric) in zip(found, columns, strict=True)]
            if any(cell != NONE for cell in cells):
                rows.append([escape(study.short(method)), *cells])
        groups.append(rows)
    head = ["method", *(escape(f"{task['title']}, {metric}") for task, metric in columns)]
    kinds = "l" + r">{\raggedright\arraybackslash}p{1.55cm}" * len(columns)
    return tabular(kinds, head, groups) if columns else NOT_RUN


def _half(row: dict | None, metric: str) -> str:
    """0.62±0.04."""
    if row is None or metric not in row["metrics"]:
        return NONE
    low, high = row["intervals"][metric]
    return escape(f"{row['metrics'][metric]:.2f}±{(high - low) / 2:.2f}")


def _span(values: list[float], form: Callable[[float], str]) -> str:
    """One value, or the least and the greatest."""
    shown = list(dict.fromkeys(form(value) for value in (min(values), max(values)))) if values else [NONE]
    return "--".join(shown)


def _count(value: float) -> str:
    """12 k, 4.9 M."""
    return f"{value / 1e6:.1f} M" if value >= 1e6 else f"{value / 1e3:.0f} k"


def against(study: Study, model: str) -> str:
    """The paired change of each method from each baseline but zero-shot, on each task, with its verdict."""
    columns = study.tasks(model)
    groups = []
    for baseline in (name for name in BASELINES if name != "zero-shot"):
        rows: list[list[str]] = []
        for method in study.methods:
            changes = [_change_to(study, model, task, baseline, method["method"]) for task in columns]
            if any(change != NONE for change in changes):
                name = escape(BASELINES[baseline]) if not rows else ""
                rows.append([name, escape(study.short(method["method"])), *changes])
        groups.append(rows)
    head = ["against", "method", *(escape(f"{one['title']}, {one['metric']}") for one in columns)]
    return tabular("ll" + "l" * len(columns), head, groups) if any(groups) else NOT_RUN


def _change_to(study: Study, model: str, task: dict, baseline: str, method: str) -> str:
    for change in study.compared(model, task, baseline):
        if change["method"] == method:
            return f"{escape(signed(change))}{MARKS[verdict(task['metric'], change)]}"
    return NONE


def forgetting(study: Study) -> str:
    """Perplexity of code and of English after training on each task, with the verdict against before."""
    model = study.main_model
    found = study.rows("forgetting", model=model, metric="perplexity")
    columns = [task for task in study.tasks(model) if any(row["task"] == task["task"] for row in found)]
    groups = []
    for text, name in (("code", "code"), ("english", "English")):
        of_text = {(row["task"], row["method"]): row for row in found if row["text"] == text}
        if of_text:
            before = {task: number(row["before"]) for (task, _), row in of_text.items()}  # the same for every method
            rows = [[name, "before training", *(before.get(task["task"], NONE) for task in columns)]]
            for method in study.methods:
                cells = [of_text.get((task["task"], method["method"])) for task in columns]
                shown = [f"{number(row['after'])}{MARKS[verdict('perplexity', row)]}" if row else NONE for row in cells]
                rows.append(["", escape(study.short(method["method"])), *shown])
            groups.append(rows)
    head = ["text", "method", *(escape(one["title"]) for one in columns)]
    return tabular("ll" + "r" * len(columns), head, groups) if groups else NOT_RUN


def rates(study: Study) -> str:
    """Each method with its options, the learning rates tried, and the one chosen on each task."""
    model = study.main_model
    columns = study.tasks(model)
    rows = []
    for method in study.methods:
        chosen = []
        for task in columns:
            sweep = study.rows("learning_rates", model=model, task=task["task"], method=method["method"])
            chosen.append(f"{_rate(sweep[0]['chosen'])}{'$^{*}$' if sweep[0]['at_edge'] else ''}" if sweep else NONE)
        options = f"\\texttt{{{escape(' '.join(map(str, method['arguments'])))}}}"
        tried = ", ".join(_rate(rate) for rate in method["rates"])
        rows.append([escape(method["title"]), options, tried, *chosen])
    head = ["method", "options of \\texttt{train\\_sft.py}", "rates tried", *(escape(one["title"]) for one in columns)]
    return tabular("lll" + "l" * len(columns), head, [rows]) if rows else NOT_RUN


def _rate(rate: float) -> str:
    """2e-4."""
    digits, _, power = f"{rate:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(power)}"


def causes(study: Study) -> str:
    """The most frequent causes of error on each task, of three telling methods."""
    model, groups = study.main_model, []
    for task in study.tasks(model):
        rows: list[list[str]] = []
        for method in study.telling_methods(model, task):
            for found in study.rows("causes", model=model, task=task["task"], method=method)[:1]:
                counts = Counter(found["causes"])
                most = escape("; ".join(f"{cause} {count}" for cause, count in counts.most_common(CAUSES)))
                name = escape(task["title"]) if not rows else ""
                rows.append([name, escape(study.short(method)), f"{counts.total()} of {found['n']}", most or NONE])
        groups.append(rows)
    head = ["task", "method", "errors", "most frequent causes"]
    return tabular(r"lllp{0.52\textwidth}", head, groups) if any(groups) else NOT_RUN


def examples(study: Study) -> str:
    """One answer to each task by three telling methods: the first task that they do not all get right or wrong."""
    groups = []
    for task in study.tasks(study.main_model):
        methods = study.telling_methods(study.main_model, task)
        told = [
            (example, [answer for name in methods for answer in example["answers"] if answer["method"] == name])
            for example in study.results.get("examples", {}).get(task["task"], [])
        ]
        if told:
            example, answers = next((one for one in told if len({a["status"] for a in one[1]}) > 1), told[0])
            asked = [escape(task["title"]), r"\emph{prompt}", escape(shortened(example["prompt"]))]
            wanted = ["", r"\emph{reference}", escape(shortened(example["references"][0]))]
            given = [["", escape(study.short(one["method"])), escape(judged(one))] for one in answers]
            groups.append([asked, wanted, *given])
    return tabular(r"llp{0.68\textwidth}", ["task", "", "text"], groups) if groups else NOT_RUN


def judged(answer: dict) -> str:
    """An answer, and whether it is right, or why not."""
    verdict_of = "right" if answer["status"] == "pass" else answer["cause"] or answer["status"]
    return f"{shortened(answer['answer']) or '–'} ({verdict_of})"


def shortened(text: str) -> str:
    """On one line, its beginning and its end."""
    line = " ".join(text.split())
    return line if len(line) <= HEAD + TAIL else f"{line[:HEAD].rstrip()} … {line[-TAIL:].lstrip()}"


def executed(results: dict | None) -> str:
    """track_b_executed: pass@1 by the source of the answers that were trained on."""
    if not results or not results["changes"]:
        return NOT_RUN
    base = results["rows"][0]
    rows = [["untrained", NONE, number(base["metrics"]["pass@1"]), NONE, NONE]]
    for arm, of_arm in results["changes"].items():
        change, runs = of_arm["pass@1"], [row for row in results["rows"] if row["arm"] == arm]
        mean = sum(row["metrics"]["pass@1"] for row in runs) / len(runs)
        mark = MARKS[verdict("pass@1", change)]
        changed = f"{escape(signed(change))}{mark}"
        rows.append([escape(arm), str(len(runs)), number(mean), changed, f"{change['p_holm']:.3f}"])
    return tabular("lrrlr", ["answers of", "seeds", "pass@1", "change", "p (Holm)"], [rows[:1], rows[1:]])


def published(results: dict | None) -> str:
    """verl_sft: what the published run reports, and the same measures and ours before and after our training."""
    if not results or not results["rows"]:
        return NOT_RUN
    titles = {
        "published_pass@1": "pass@1, by form", "published_pass@3": "pass@3, by form", "pass@1": "pass@1, executed",
        "lenient_pass@1": "pass@1, lenient", "hallucination_rate": "invented names",
    }  # fmt: skip
    runs = results["rows"]
    rows = []
    for metric, title in titles.items():
        theirs = [results["published"][when].get(metric) for when in ("before", "after")]
        ours = [run["metrics"].get(metric) for run in runs]
        if any(value is not None for value in ours):
            rows.append([title, *(number(value) if value is not None else NONE for value in (*theirs, *ours))])
    head = ["", "published, before", "after", *(escape(f"{run['model']}, {run['when']}") for run in runs)]
    return tabular("lrr" + r">{\raggedleft\arraybackslash}p{2.4cm}" * len(runs), head, [rows])


def choices(results: dict | None) -> str:
    """quickstart_choices: the settings of instruction tuning that were compared, and their change of pass@1."""
    track = (results or {"tracks": {}})["tracks"].get("sft")
    if not track:
        return NOT_RUN
    rows = []
    for row in track["rows"]:
        change = track["changes"].get(row["name"], {}).get("pass@1")
        shown = f"{escape(signed(change))}{MARKS[verdict('pass@1', change)]}" if change else NONE
        rows.append([escape(row["title"]), number(row["metrics"]["pass@1"]), shown])
    return tabular("lrl", ["setting", "pass@1", "change"], [rows[:1], rows[1:]])
