"""Work in several processes: the same answers in the same order, and no process left over."""

from __future__ import annotations

import os

import pytest

from common.workers import FEW, answers, processes_for


def doubled(item):
    return {"of": item, "twice": 2 * item["number"], "process": os.getpid()}


def failing(item):
    if item == 3:
        raise ValueError("three")
    return item


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(("items", "processes"), [(7, 1), (7, 3), (2, 3), (0, 2)])
def test_answers_come_in_the_order_of_the_items(items, processes):
    asked = [{"number": number, "text": "ä\n\udcff"} for number in range(items)]
    found = list(answers(doubled, asked, processes=processes))
    assert [(one["of"], one["twice"]) for one in found] == [(item, 2 * item["number"]) for item in asked]
    used = {one["process"] for one in found}
    assert len(used) == min(items, processes) and os.getpid() not in used
    assert not any(map(is_alive, used))


def test_a_process_that_ends_is_named_by_its_item_and_the_others_end_too(capfd):
    found = answers(failing, [1, 2, 3, 4], processes=2)
    with pytest.raises(RuntimeError, match="works on 3 has ended"):
        list(found)
    assert "ValueError: three" in capfd.readouterr().err


def test_who_stops_reading_leaves_no_process_behind():
    found = answers(doubled, [{"number": number} for number in range(1000)], processes=2)
    first, second = next(found)["process"], next(found)["process"]
    found.close()
    assert not is_alive(first) and not is_alive(second)


def test_few_items_are_not_worth_another_process(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert [processes_for(n) for n in (0, FEW, 2 * FEW, 100 * FEW)] == [1, 1, 2, 4]
