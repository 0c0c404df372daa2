"""What the arms show, and the advice that their intervals support."""

from __future__ import annotations

import pytest

from eval.stats import summarise
from eval.what_pays.findings import Arm, additions_of, advice, arms_of, changes_of, picture, row_of, table

BASE, SEARCH, TUNED, BOTH = Arm(None, None), Arm(None, "words"), Arm("tuned", None), Arm("tuned", "words")


def answers(passed: int, of: int = 60) -> dict:
    values = {"pass@1": {str(i): float(i < passed) for i in range(of)}}
    return {"n": of, "values": values, "results": [{"id": str(i)} for i in range(of)], **summarise(values)}


def files(nats: float) -> dict:
    rows = [{"path": str(i), "nll": nats * (i + 1), "tokens": 10 * (i + 1), "bytes": 30 * (i + 1)} for i in range(8)]
    return {"files": rows, "n": 8, "metrics": {"perplexity": nats}, "intervals": {"perplexity": [nats, nats]}}


def found(passed: dict[Arm, int], **minutes: float | None):
    of_arm = {arm: answers(count) for arm, count in passed.items()}
    of_files = {arm: files(10.0 - bool(arm.adapter)) for arm in passed}
    rows = [
        row_of(
            arm, of_arm[arm], of_files[arm],
            {"training_minutes": minutes.get("tuned", 5.0) if arm.adapter else 0.0, "seconds_per_answer": 1.0 + i,
             "seconds_per_search": 0.01 if arm.embedder else None, "memory_gib": 2.0},
        )
        for i, arm in enumerate(passed)
    ]  # fmt: skip
    return rows, changes_of(of_arm, of_files), of_arm


def test_arms_are_every_model_with_every_search_and_the_base_is_first():
    arms = arms_of(["A", "B"], ["minilm", "own"])
    assert [arm.name for arm in arms[:4]] == ["base", "base + search by minilm", "base + search by own", "A"]
    assert len(arms) == 9 and arms[-1] == Arm("B", "own")


def test_each_arm_is_compared_with_the_base_alone_and_holm_counts_the_arms():
    rows, changes, _ = found({BASE: 6, SEARCH: 7, TUNED: 30, BOTH: 32})
    assert [*changes] == ["base + search by words", "tuned", "tuned + search by words"]
    assert changes["tuned"]["pass@1"]["value"] == pytest.approx(24 / 60)
    assert changes["tuned"]["pass@1"]["p_holm"] >= 2 * changes["tuned"]["pass@1"]["p"] > 0
    assert changes["tuned"]["perplexity"]["value"] < 0 and rows[0]["n"] == {"pass@1": 60, "perplexity": 8}
    text = table(rows, changes)
    assert "| tuned | 0.500 (+0.400 [" in text and ", better)" in text and "pass@1 n = 60" in text
    assert text.splitlines()[2].startswith("| base | 0.100 | ") and "| 0.0 | 1.00 |  | 2.0 |" in text


def test_what_search_and_tuning_add_to_each_other():
    _, _, of_arm = found({BASE: 6, SEARCH: 7, TUNED: 30, BOTH: 32})
    added = {(one["what"], one["to"]): one["change"] for one in additions_of(of_arm)}
    assert [*added] == [
        ("search by words", "base"), ("search by words", "tuned"), ("adapter tuned", "base + search by words"),
    ]  # fmt: skip
    assert added["search by words", "tuned"]["value"] == pytest.approx(2 / 60)
    assert added["adapter tuned", "base + search by words"]["distinguishable"]
    assert all(change["p_holm"] >= change["p"] for change in added.values())
    two = {arm: answers(6) for arm in arms_of([], ["minilm", "own"])}
    assert ("own for minilm", "base + search by minilm") in {(one["what"], one["to"]) for one in additions_of(two)}


def test_advice_is_the_cheapest_of_what_is_as_good_as_the_best():
    told = advice(*found({BASE: 6, SEARCH: 28, TUNED: 30, BOTH: 32}))
    assert told.startswith("base + search by words pays: pass@1 +0.367 [") and "minutes of training" not in told
    assert "tuned + search by words has 0.533 against 0.467, not distinguishable from it at this n" in told
    told = advice(*found({BASE: 6, SEARCH: 7, TUNED: 30, BOTH: 32}))
    assert told.startswith("tuned pays: ") and "5.0 minutes of training and 3.00 s an answer" in told
    told = advice(*found({BASE: 6, SEARCH: 7, TUNED: 30, BOTH: 55}))
    assert told.startswith("tuned + search by words pays: ") and "not distinguishable" not in told
    told = advice(*found({BASE: 6, SEARCH: 28, TUNED: 30, BOTH: 7}, tuned=None))
    assert told.startswith("base + search by words pays: ")  # training of unknown length comes last


def test_without_a_gain_the_advice_says_what_it_would_take():
    told = advice(*found({BASE: 6, SEARCH: 8, TUNED: 5, BOTH: 6}))
    assert told.startswith("Nothing is distinguishable from the base in pass@1 (n = 60). The largest gain, +0.033 [")
    assert "of base + search by words, would need about" in told
    assert advice(*found({BASE: 6, SEARCH: 6, TUNED: 2, BOTH: 6})).endswith("(n = 60).")


def test_the_picture_has_every_arm_and_what_is_not_trained_as_a_line():
    rows, _, _ = found({BASE: 6, SEARCH: 7, TUNED: 30, BOTH: 32})
    drawn = picture(rows)
    assert drawn.count("<circle") == 4 + 2 and "minutes of training" in drawn and "base 0.10" in drawn
    assert picture(rows[:2]).count("<circle") == 2  # nothing is trained: one panel
