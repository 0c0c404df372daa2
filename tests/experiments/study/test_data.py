"""The rows of the study: smaller sets within larger ones, shots before executed tasks, texts that no task uses."""

from __future__ import annotations

from common.files import read_jsonl, write_json, write_jsonl
from data.rows import conversation_of
from experiments.study import data
from experiments.study.data import after_shots, cut_to_size, data_file, data_stages, drawn, one_per_function, train_file
from experiments.study.grid import FEW_SHOT, MODELS, SMOKE, TASKS, ZERO_SHOT, Run

MODEL = MODELS["smollm2-135m"]


def pair(number: int, function: str) -> dict:
    return {
        "id": f"p{number}", "category": "bugfix", "instruction": "Fix it.", "input": f"def f{number}(): ...",
        "output": f"def f{number}(): return {number}", "source": {"path": "a.py", "qualname": function}, "check": {},
    }  # fmt: skip


def test_a_smaller_training_set_is_part_of_a_larger_one():
    rows = [{"id": str(number)} for number in range(50)]
    assert drawn(rows, 10) == drawn(rows[::-1], 30)[:10] != rows[:10]
    assert sorted(int(row["id"]) for row in drawn(rows, None)) == [*range(50)]


def test_executed_tasks_are_of_different_functions_and_can_follow_solved_ones():
    pairs = [pair(number, f"f{number // 2}") for number in range(20)]
    tested = one_per_function(pairs)
    assert len(tested) == 10 and {one["source"]["qualname"] for one in tested} == {f"f{n}" for n in range(10)}
    (asked,) = [conversation_of(row).question.messages for row in after_shots(tested[:1], pairs[:8])]
    assert [message["role"] for message in asked] == ["user", "assistant"] * 5 + ["user"]
    shown = [message["content"] for message in asked]
    assert all("return" in answer for answer in shown[1::2]) and shown[-1] == f"Fix it.\n\n{tested[0]['input']}"
    assert len(set(shown)) == 11


def test_the_texts_of_forgetting_are_of_no_task(tmp_path, monkeypatch):
    scitldr, code = SMOKE["scitldr"], SMOKE["code"]
    for split, count in (("train", 30), ("validation", 20), ("test", 10)):
        papers = [{"id": f"{split}{n}", "document": f"{split} {n}.", "summary": "S."} for n in range(count)]
        write_jsonl(tmp_path / "imported" / "scitldr" / f"{split}.jsonl", papers)
        pairs = [pair(number, f"f{number}") for number in range(count)]
        write_jsonl(tmp_path / "imported" / "code" / f"{split}.jsonl", pairs)
    file = type("File", (), {"path": "pkg/a.py", "text": "x = 1\n" * 1000})
    monkeypatch.setattr(data, "load_corpus", lambda folder: type("Corpus", (), {"split": lambda self, name: [file]})())

    def texts_of(*tasks) -> list[dict]:
        runs = [Run(MODEL, task, ZERO_SHOT, 24) for task in tasks]
        cut_to_size(tmp_path, runs, abstracts_used=scitldr.validation)
        return read_jsonl(tmp_path / "data" / "texts.jsonl")

    texts = texts_of(scitldr, code)
    assert texts_of(code) == texts  # whatever a call is for
    chosen_by = {row["id"] for row in read_jsonl(data_file(tmp_path, scitldr, "validation"))}
    english = {row["id"].removeprefix("english/") for row in texts if row["id"].startswith("english/")}
    assert len(chosen_by) == scitldr.validation and len(english) == 20 - scitldr.validation and not english & chosen_by
    assert {"id": "code/pkg/a.py", "text": file.text[: data.CODE_CHARACTERS]} in texts
    assert len(read_jsonl(train_file(tmp_path, scitldr, 24))) == 24
    assert len(read_jsonl(data_file(tmp_path, code, data.FEW_SHOT_TEST))) == code.test
    assert FEW_SHOT == "few-shot" and "history" in read_jsonl(data_file(tmp_path, code, data.FEW_SHOT_TEST))[0]


def test_the_data_are_made_by_the_projects_own_commands_once(tmp_path):
    stages = data_stages(tmp_path, tmp_path / "public", "package:networkx", [*TASKS.values()])
    shown = [one.shown() for one in stages]
    assert [line.split()[2] for line in shown] == [*["data.importing"] * 3, "data.corpus", "data.instruct"]
    assert "--checks doctest" in shown[-1] and "bugfix=0.55 complete=0.45" in shown[-1]
    # of TREC alone: SciTLDR's abstracts are read in any case
    assert len(data_stages(tmp_path, tmp_path, "x", [TASKS["trec"]])) == 3
    write_json(stages[0].done, {})
    assert stages[0].done.parent.name == "trec"
