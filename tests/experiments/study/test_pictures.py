"""The figures of the study: every method at its place, names that do not cover one another."""

from __future__ import annotations

import itertools
import re

import pytest

from common.files import read_json
from eval.charts import LETTER, WIDTH
from experiments.pages import HERE
from experiments.study.pictures import apart, log_ticks, pictures, short


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


def test_names_at_one_place_move_apart_and_stay_within_the_picture():
    crowd = [("lora-8", 400.0, 50.0), ("lora-32", 402.0, 51.0), ("full", 401.0, 52.0), ("bottleneck", 399.0, 58.0)]
    placed = apart([*crowd, ("ia3", 100.0, 50.0)])
    assert ("ia3", 107.0, 54.0) in placed and len(placed) == 5
    for (name, x, y), (other, other_x, other_y) in itertools.combinations(placed, 2):
        beside = x + LETTER * len(name) <= other_x or other_x + LETTER * len(other) <= x
        assert beside or abs(y - other_y) >= 12, (name, other)
    assert all(x >= 0 and x + LETTER * len(name) <= WIDTH for name, x, _ in placed)


def test_ticks_are_powers_of_ten_or_finer():
    assert log_ticks(3.5, 7.2) == [1e4, 1e5, 1e6, 1e7]
    assert log_ticks(0.2, 1.1) == pytest.approx([2, 5, 10])
    assert log_ticks(0.1, 0.25) == pytest.approx([1.3, 1.4, 1.5, 1.6, 1.7])
    assert [short(value) for value in (0.5, 20, 1e4, 2.5e6)] == ["0.5", "20", "10 k", "2.5 M"]


def test_the_figures_are_those_of_the_results():
    if not (HERE / "study" / "results.json").is_file():
        pytest.skip("the study has not been run yet")
    for name, picture in pictures(read_json(HERE / "study" / "results.json")).items():
        assert (HERE / "study" / f"{name}.svg").read_text(encoding="utf-8") == picture
