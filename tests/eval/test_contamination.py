import json
import sys
from types import SimpleNamespace

import pytest
import torch

from common.console import UserError, run_command
from common.files import write_jsonl
from data.corpus import SourceFile
from data.instruct.phrasings import INSTRUCTIONS
from eval import contamination
from eval.contamination import find_contamination, main, scores_without
from eval.row_texts import texts_of

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


@pytest.mark.parametrize("field", ["instruction", "input", "prompt", "question", "query", "messages", "output", "code"])
def test_a_task_is_found_in_whatever_field_it_stands(field):
    row = {"id": "leak", field: [{"role": "user", "content": TASK}] if field == "messages" else TASK}
    (found,) = find_contamination(texts_of([row]), texts_of([{"id": "t", "instruction": "Do it.", "input": TASK}]))
    assert found["run"] == "leak"


def test_the_words_in_which_data_instruct_asks_say_nothing_of_a_task():
    """Six phrasings a category: two pairs of different functions often have the same."""
    for phrases in INSTRUCTIONS.values():
        for phrase in phrases:
            names = dict.fromkeys(("name", "qualname", "module", "test_name", "gap"))
            train, task = (
                {"instruction": phrase.format(**dict.fromkeys(names, name)), "input": name, "output": "x"}
                for name in ("add", "Graph.nodes")
            )
            (row,) = find_contamination(texts_of([train]), texts_of([task]))
            assert not row["flagged_by"], phrase
    asked = "Write a function that sorts the parcels of a warehouse by weight and then by the day of arrival."
    (row,) = find_contamination(texts_of([{"instruction": asked}]), texts_of([{"prompt": "# " + asked}]))
    assert row["flagged_by"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"utterance": TASK, "reply": "x"}, "this line has: utterance, reply"),
        ({"id": "t", "messages": [], "label": "x"}, "this line has: id, messages, label"),
        ({"instruction": "", "output": None}, "this line has: instruction, output"),
        ({"prompt": 5}, "this line has: prompt"),
        ({}, "this line has: nothing"),
    ],
)
@pytest.mark.parametrize("side", ["--train", "--tasks"])
def test_a_row_of_an_unknown_form_is_refused_and_not_counted_clean(tmp_path, monkeypatch, capsys, row, says, side):
    for option in ("--train", "--tasks"):
        rows = [{"instruction": TASK}, *([row] if option == side else [])]
        write_jsonl(tmp_path / f"{option}.jsonl", rows)
    arguments = ["--train", "--train.jsonl", "--tasks", "--tasks.jsonl", "--out", "o.json"]
    monkeypatch.setattr(sys, "argv", ["x", *(f"{tmp_path / one}" if "." in one else one for one in arguments)])
    assert run_command(main) == 2
    error = capsys.readouterr().err
    assert f"{side}.jsonl:2: nothing to compare" in error and says in error and not (tmp_path / "o.json").exists()


def test_a_long_text_in_a_field_that_is_not_read_is_told(tmp_path, monkeypatch, capsys):
    write_jsonl(tmp_path / "a.jsonl", [{"instruction": "x", "draft": TASK}, {"instruction": "y", "license": "MIT"}])
    (tmp_path / "b.json").write_text(json.dumps([{"prompt": TASK, "check": {"setup": TASK}}]))
    arguments = ["--train", tmp_path / "a.jsonl", "--tasks", tmp_path / "b.json", "--out", tmp_path / "o.json"]
    monkeypatch.setattr(sys, "argv", ["x", *map(str, arguments)])
    assert run_command(main) == 0
    assert f"not compared: 'draft' of {tmp_path / 'a.jsonl'}, a text in 1 rows" in capsys.readouterr().out
    written = json.loads((tmp_path / "o.json").read_text())
    assert written["not_compared"] == {"train": {"draft": 1}, "tasks": {}}


def test_a_folder_is_a_corpus_or_files_and_never_rows_that_would_be_passed_over(tmp_path, monkeypatch, capsys):
    (tmp_path / "pairs").mkdir()
    write_jsonl(tmp_path / "pairs" / "train.jsonl", [{"instruction": TASK}])
    (tmp_path / "pairs" / "data_card.md").write_text("# Pairs")
    write_jsonl(tmp_path / "tasks.jsonl", [{"instruction": TASK}])
    arguments = ["--train", tmp_path / "pairs", "--tasks", tmp_path / "tasks.jsonl", "--out", tmp_path / "o.json"]
    monkeypatch.setattr(sys, "argv", ["x", *map(str, arguments)])
    assert run_command(main) == 2
    assert "a folder that contains JSON Lines (train.jsonl); give the file itself" in capsys.readouterr().err


def test_of_a_corpus_its_training_files_are_compared(monkeypatch):
    files = [SourceFile(f"{side}.py", TASK, "", None, None, side) for side in ("train", "test")]
    corpus = SimpleNamespace(split=lambda side: [file for file in files if file.split == side])
    monkeypatch.setattr(contamination, "load_corpus", lambda folder: corpus)
    monkeypatch.setattr(contamination.Path, "is_file", lambda path: path.name == "manifest.jsonl")
    assert contamination._read("corpus") == ([("train.py", TASK)], {})


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


def test_a_published_set_is_compared_by_its_name(tmp_path, monkeypatch, capsys):
    (tmp_path / "mbpp").mkdir()
    rows = [{"task_id": 11, "text": "Add two numbers.", "code": TASK, "test_list": ["assert f(1) == 2"]}]
    (tmp_path / "mbpp" / "mbpp.jsonl").write_text(json.dumps(rows[0]) + "\n")
    (tmp_path / "train.jsonl").write_text(json.dumps({"instruction": "Add.", "output": TASK}) + "\n")
    monkeypatch.setenv("TRITUNE_DATA", str(tmp_path))
    out = tmp_path / "o.json"
    monkeypatch.setattr(
        sys, "argv", ["x", "--train", str(tmp_path / "train.jsonl"), "--tasks", "mbpp", "--out", str(out)]
    )
    main()
    assert json.loads(out.read_text())["flagged"] == ["11"] and "1 of 1 tasks flagged" in capsys.readouterr().out
