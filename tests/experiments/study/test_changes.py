"""The statistics of the study, on results made by hand."""

from __future__ import annotations

import pytest

from common.console import UserError
from eval.stats import change_over_seeds, holm, paired_change
from experiments.study.changes import family, forgetting, part_of, shared_seeds

IDS = [f"t{n}" for n in range(40)]


def graded(right: set[int]) -> dict:
    """An eval result whose answers are right for these of forty tasks."""
    values = {name: float(number in right) for number, name in enumerate(IDS)}
    accuracy = sum(values.values()) / len(values)
    return {
        "metrics": {"accuracy": accuracy, "macro_f1": accuracy},
        "intervals": {"accuracy": [0, 1], "macro_f1": [0, 1]},
        "n": len(IDS),
        "values": {"accuracy": values},
        "results": [{"id": name} for name in IDS],
    }


BEFORE = graded(set(range(10)))
LORA = {seed: graded(set(range(24 + seed))) for seed in range(3)}
PROMPT = {seed: graded(set(range(12 + 2 * seed))) for seed in range(3)}


def values(result: dict) -> dict:
    return result["values"]["accuracy"]


def test_three_seeds_are_a_level_and_p_is_adjusted_over_the_methods():
    rows = family({None: BEFORE}, {"lora": LORA, "prompt": PROMPT}, ("accuracy", "macro_f1"))
    assert [(row["method"], row["metric"], row["seeds"]) for row in rows] == [
        ("lora", "accuracy", 3), ("prompt", "accuracy", 3),
    ]  # fmt: skip
    alone = [change_over_seeds([values(BEFORE)], [values(one) for one in of.values()]) for of in (LORA, PROMPT)]
    assert [row["value"] for row in rows] == [one["value"] for one in alone] == pytest.approx([15 / 40, 4 / 40])
    assert [row["interval"] for row in rows] == [one["interval"] for one in alone]
    assert [row["p_holm"] for row in rows] == holm([one["p"] for one in alone]) != [one["p"] for one in alone]


def test_two_seeds_that_all_methods_have_are_averaged():
    some = {"lora": LORA, "prompt": {0: PROMPT[0], 2: PROMPT[2]}}
    rows = family({None: BEFORE}, some, ("accuracy",))
    assert [row["seeds"] for row in rows] == [2, 2]
    mean = {name: (value + values(LORA[2])[name]) / 2 for name, value in values(LORA[0]).items()}
    assert rows[0]["value"] == paired_change(values(BEFORE), mean)["value"] == 15 / 40
    assert rows[0]["n"] == 40 and rows[0]["distinguishable"]


def test_a_trained_baseline_is_paired_seed_by_seed():
    full = {seed: graded(set(range(20 + seed))) for seed in range(3)}
    (row,) = family(full, {"lora": LORA}, ("accuracy",))
    assert row["seeds"] == 3 and row["value"] == pytest.approx(4 / 40)
    (row,) = family({1: full[1], 2: full[2]}, {"lora": LORA}, ("accuracy",))
    assert row["seeds"] == 2 and row["value"] == pytest.approx(4 / 40)
    (row,) = family({1: full[1]}, {"lora": LORA}, ("accuracy",))
    assert row["seeds"] == 1 and row["value"] == pytest.approx(4 / 40)
    assert family({7: full[1]}, {"lora": LORA}, ("accuracy",)) == []  # no seed in common
    assert family({None: BEFORE}, {}, ("accuracy",)) == []


def test_the_seeds_of_a_family():
    assert shared_seeds([{0: 1, 1: 1, 2: 1, 5: 1}, {5: 1, 1: 1, 0: 1}]) == [0, 1, 5]
    assert shared_seeds([{1: 1, 2: 1}, {2: 1, 0: 1}]) == [2] and shared_seeds([]) == []


def read(code: float, english: float) -> dict:
    """An eval result of texts: nats a token of code and of English."""
    nats = [("code", code)] * 6 + [("english", english)] * 8
    return {
        "files": [
            {"path": f"{kind}/{number}", "nll": 100 * each + number, "tokens": 100, "bytes": 300}
            for number, (kind, each) in enumerate(nats)
        ],
        "settings": {"window": 1024, "stride": 512, "most_tokens": None},
    }


def test_forgetting_keeps_code_and_english_apart():
    after = {"full": {0: read(2.0, 3.5), 1: read(9.0, 9.0)}, "lora": {0: read(2.0, 3.0)}}
    rows = forgetting(read(2.0, 3.0), after)
    found = {(row["text"], row["method"], row["metric"]): row for row in rows}
    assert len(rows) == len(found) == 2 * 2 * 2
    worse = found["english", "full", "perplexity"]
    assert worse["before"] < worse["after"] == pytest.approx(worse["before"] + worse["value"]) and worse["n"] == 8
    assert worse["distinguishable"] and worse["seeds"] == 1  # the second seed of one method alone does not count
    assert found["code", "full", "perplexity"]["value"] == 0 == found["english", "lora", "perplexity"]["value"]
    assert worse["p"] < worse["p_holm"]

    # two seeds: the mean of each file's nats
    two = {0: read(2.2, 3.5), 1: read(2.4, 3.7)}
    (bits,) = (
        row
        for row in forgetting(read(2.0, 3.0), {"full": two})
        if row["text"] == "english" and row["metric"] == "bits_per_byte"
    )
    each = [part_of(one, "english")["metrics"]["bits_per_byte"] for one in two.values()]
    assert bits["seeds"] == 2 and bits["after"] == pytest.approx(sum(each) / 2)
    with pytest.raises(UserError, match="no text of the kind 'code'"):
        part_of({"files": [], "settings": {}}, "code")
