"""The study's results.json, asked for by what the paper needs of it.

The file may be missing or hold a part of the grid: every list here is then shorter, and nothing is made up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.files import read_json

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"


def read_results(experiment: str, folder: Path = EXPERIMENTS) -> dict | None:
    """results.json of an experiment, None if it has not been run."""
    path = folder / experiment / "results.json"
    return read_json(path) if path.is_file() else None


@dataclass(frozen=True)
class Study:
    """The study's results, empty if it has not been run."""

    results: dict

    @classmethod
    def of(cls, results: dict | None) -> Study:
        """The study of a results.json, or of none. Titles lose their commas, which separate names in a sentence."""
        without = {
            part: [row | {"title": _without_comma(row["title"])} for row in (results or {}).get(part, [])]
            for part in ("models", "tasks", "methods")
        }
        return cls((results or {}) | without)

    def rows(self, part: str, **wanted: object) -> list[dict]:
        """The rows of a list of results.json whose fields have these values."""
        return [row for row in self.results.get(part, []) if all(row.get(name) == wanted[name] for name in wanted)]

    @property
    def models(self) -> list[dict]:
        """The models with at least one finished run."""
        return [one for one in self.rows("models") if self.rows("summary", model=one["model"])]

    @property
    def main_model(self) -> str:
        """The model that everything was run with, the first; "" before the first run."""
        return self.models[0]["model"] if self.models else ""

    @property
    def methods(self) -> list[dict]:
        """The methods with at least one finished run."""
        return [one for one in self.rows("methods") if self.rows("summary", method=one["method"])]

    def tasks(self, model: str) -> list[dict]:
        """The tasks with at least one finished run of a model."""
        return [one for one in self.rows("tasks") if self.rows("summary", model=model, task=one["task"])]

    def title(self, name: str) -> str:
        """What a method, a task or a model is called; a baseline has no other name."""
        titles = {row[kind]: row["title"] for kind in ("method", "task", "model") for row in self.rows(f"{kind}s")}
        return titles.get(name, name)

    def short(self, method: str) -> str:
        """Its title without what is in brackets, unless that is all that distinguishes two methods."""
        heads = [one["title"].partition(" (")[0] for one in self.rows("methods")]
        head = self.title(method).partition(" (")[0]
        return head if heads.count(head) == 1 else self.title(method)

    def compared(self, model: str, task: dict, against: str) -> list[dict]:
        """The changes of each method from a baseline, in the metric that the task compares first."""
        return self.rows("changes", model=model, task=task["task"], against=against, metric=task["metric"])

    def summary(self, model: str | None, task: str, method: str) -> dict | None:
        """The figures of a method over its seeds, None if it has no run."""
        return next(iter(self.rows("summary", model=model, task=task, method=method)), None)

    def telling_methods(self, model: str, task: dict) -> list[str]:
        """Three methods to look at closely: the zero-shot prompt, and of the trained ones the best and the worst."""
        prompted = [row["method"] for row in self.rows("summary", model=model, task=task["task"], method="zero-shot")]
        tuned = self.rows("summary", model=model, task=task["task"], kind="tuned")
        ordered = [row["method"] for row in sorted(tuned, key=lambda row: row["metrics"][task["metric"]])]
        return list(dict.fromkeys([*prompted, *ordered[-1:], *ordered[:1]]))


def _without_comma(title: str) -> str:
    """LoRA, r = 8 -> LoRA (r = 8)."""
    first, comma, rest = title.partition(", ")
    return f"{first} ({rest})" if comma else first
