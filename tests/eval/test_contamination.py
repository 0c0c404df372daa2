import json
import sys

import pytest
import torch

from eval.contamination import find_contamination, main, scores_without, texts_of
from model.console import UserError

TASK = (
    "def min_cost(cost, m, n):\n    total = [[0 for x in range(n)] for y in range(m)]\n"
    "    for row in cost:\n        total.append(row)\n    return total[m][n]\n"
)
OTHER = (
    "class Tree:\n    def insert(self, key, value):\n        node = self.root\n        while node: node = node.left\n"
)


class Encoder:
    """Texts about money point one way, all others another."""

    def encode(self, texts, kind):
        assert kind == "passage"
        return torch.tensor([[1.0, 0.0] if "money" in text or "cash" in text else [0.0, 1.0] for text in texts])


def test_a_copied_task_is_flagged_and_a_different_one_is_not():
    copied, fresh = find_contamination(
        [("a", OTHER), ("b", "# found it\n" + TASK)], [("t", TASK), ("u", "x = 1 + 2\n")]
    )
    assert copied["flagged_by"] == ["run", "jaccard"] and copied["run"] == "b" == copied["jaccard_row"]
    assert fresh["flagged_by"] == [] and fresh["run"] is None and fresh["jaccard"] < 0.1


def test_a_task_inside_a_long_row_is_found_by_its_run_alone():
    (row,) = find_contamination([("long", OTHER * 5 + TASK + OTHER[::-1])], [("t", TASK)])
    assert row["flagged_by"] == ["run"] and 0 < row["jaccard"] < 0.7


def test_a_renamed_copy_has_no_run_but_a_likeness_or_not_by_the_threshold():
    renamed = TASK.replace("total", "best").replace("row", "line").replace("min_cost", "cheapest")
    assert find_contamination([("a", renamed)], [("t", TASK)])[0]["flagged_by"] == []
    assert find_contamination([("a", renamed)], [("t", TASK)], jaccard_from=0.2)[0]["flagged_by"] == ["jaccard"]


def test_a_rewording_is_flagged_by_the_embedding():
    train = [("a", "sort the names"), ("b", "count the cash")]
    money, names = find_contamination(train, [("t", "money"), ("u", "names")], encoder=Encoder())
    assert money["flagged_by"] == ["embedding"] and money["cosine_row"] == "b" and money["cosine"] == 1
    assert names["cosine_row"] == "a"
    assert find_contamination(train, [("t", "money")], encoder=Encoder(), cosine_from=1.5)[0]["flagged_by"] == []


def test_the_scores_without_the_flagged_are_over_the_rest():
    values = {"pass@1": {"t": 1.0, "u": 0.0, "v": 1.0}, "style": {"t": 1.0}}
    scores = scores_without({"values": values}, {"t"})
    assert scores["pass@1"]["all"]["value"] == 2 / 3 and scores["pass@1"]["all"]["n"] == 3
    assert scores["pass@1"]["clean"]["value"] == 1 / 2 and scores["pass@1"]["clean"]["n"] == 2
    assert scores["style"]["clean"] is None
    with pytest.raises(UserError, match="values"):
        scores_without({}, set())


def test_the_instruction_is_not_compared_and_all_formats_are_read():
    rows = [
        {"id": "p", "instruction": "Write it.", "input": "a", "output": "b"},
        {"task_id": 7, "text": "t", "code": "c", "test_list": ["x", "y"]},
        {"messages": [{"role": "user", "content": "hello"}]},
    ]
    assert texts_of(rows) == [("p", "a\nb"), ("7", "c\nt\nx\ny"), ("row 3", "hello")]


def test_the_command_writes_flags_and_scores(tmp_path, monkeypatch, capsys):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.py").write_text(TASK)
    tasks = [{"id": "t", "input": TASK}, {"id": "u", "input": "pass"}]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    (tmp_path / "r.json").write_text(json.dumps({"values": {"pass@1": {"t": 1.0, "u": 0.0}}}))
    arguments = {"--train": "corpus", "--tasks": "tasks.jsonl", "--result": "r.json", "--out": "o.json"}
    monkeypatch.setattr(sys, "argv", ["x", *(x for k, v in arguments.items() for x in (k, str(tmp_path / v)))])
    main()
    assert "1 of 2 tasks flagged (1 by run, 1 by jaccard)" in capsys.readouterr().out
    written = json.loads((tmp_path / "o.json").read_text())
    assert written["flagged"] == ["t"] and written["tasks"][0]["run"] == "a.py"
    assert written["scores"][str(tmp_path / "r.json")]["pass@1"]["clean"]["value"] == 0
    (tmp_path / "tasks.jsonl").write_text("")
    with pytest.raises(UserError, match="empty"):
        main()
