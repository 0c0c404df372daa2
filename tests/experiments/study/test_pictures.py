"""The figures of the study: every method at its place."""

from __future__ import annotations

import re

import pytest

from common.files import read_json
from experiments.pages import HERE
from experiments.study.pictures import pictures


def found(costs: dict[str, float | None]) -> dict:
    rows = [
        {
            "model": "m", "task": "t", "method": name, "metrics": {"accuracy": 0.5},
            "intervals": {"accuracy": [0.4, 0.6]}, "trainable_parameters": cost, "minutes": cost and cost / 1000,
        }
        for name, cost in costs.items()
    ]  # fmt: skip
    classical = {"measured_with": "m", "task": "t", "method": "words", "metrics": {"accuracy": 0.7}}
    points = [{"train_rows": rows, "value": 0.1, "interval": [0.0, 0.2], "n": 9} for rows in (100, 1000)]
    return {
        "models": [{"model": "m", "title": "Model"}],
        "tasks": [{"task": "t", "title": "Task", "metric": "accuracy", "classical": "words"}],
        "summary": rows,
        "rows": [classical, classical | {"method": "majority class"}],
        "curves": [{"model": "m", "task": "t", "method": "lora-8", "metric": "accuracy", "points": points}],
    }


def test_a_method_stands_at_its_cost_and_what_is_not_trained_is_a_line():
    drawn = pictures(found({"zero-shot": None, "lora-8": 1e5, "full": 1e7}))
    assert [*drawn] == ["quality_parameters", "quality_minutes", "curves"]
    quality = drawn["quality_parameters"]
    assert "Model, Task: accuracy" in quality and "10 M" in quality and "majority class" not in quality
    assert all(f">{name}</text>" in quality for name in ("lora-8", "full", "zero-shot 0.50, words 0.70"))
    titles = re.findall(r"<title>(.*?)</title>", quality)
    assert titles == ["lora-8 0.5 [0.4, 0.6] at 1e+05", "full 0.5 [0.4, 0.6] at 1e+07"]
    left, right = [float(x) for x in re.findall(r'<circle[^>]* cx="([\d.]+)"', quality)]
    assert left < right
    assert drawn["curves"].count("<polyline") == 1 and drawn["curves"].count(">lora-8</text>") == 1


def test_without_trained_runs_there_is_no_figure():
    assert pictures(found({"zero-shot": None}) | {"curves": []}) == {}


def test_the_figures_are_those_of_the_results():
    if not (HERE / "study" / "results.json").is_file():
        pytest.skip("the study has not been run yet")
    for name, picture in pictures(read_json(HERE / "study" / "results.json")).items():
        assert (HERE / "study" / f"{name}.svg").read_text(encoding="utf-8") == picture
