"""One round of rejection sampling: what is kept passes, differs, and is mixed with the repository's own answers."""

from __future__ import annotations

import functools
import json
import random

import pytest

from common.console import UserError
from data import rejection_sampling
from data.instruct import build_instruction_pairs
from data.instruct.judging import judge_answers
from data.instruct.replies import Reply
from data.rejection_sampling import build_round, edit_distance, farthest_apart, gold_pairs, main


@pytest.fixture(scope="module")
def pairs(small_corpus):
    """Pairs of the category "complete", each with doctests."""
    shares = {"complete": 1.0, "docstring": 0, "explain": 0, "bugfix": 0, "unit_test": 0, "improve": 0}
    made = build_instruction_pairs(
        small_corpus, count=4, test_count=1, validation_count=1, shares=shares, checks=["doctest"]
    )
    assert len(made.train) >= 3
    return made.train


def reply(text, stopped=True):
    return Reply(text, stopped, 1, 1)


def variants(pair):
    """Answers to a pair: right, right with another layout, right but another program, wrong, not code."""
    body = pair["output"].removeprefix("```python\n").removesuffix("\n```")
    indent = body[: len(body) - len(body.lstrip())]
    return [
        body,
        f"{indent}# a comment\n{body}",
        f"{indent}unused = [0]\n{indent}unused.append(1)\n{body}",
        f"{indent}return None",
        "I cannot do that.",
    ]


def test_what_is_kept_passes_when_run_again_and_no_two_are_the_same_program(pairs):
    replies = [[reply(text) for text in variants(pair)] for pair in pairs]
    made = build_round(pairs, replies, model="m", most=3, gold_share=0.0, seed=0)
    assert len(made.pairs) == 2 * len(pairs)  # of three right answers two are the same program
    by_id = {pair["id"]: pair for pair in pairs}
    originals = [by_id[pair["id"].rpartition("#")[0]] for pair in made.pairs]
    rows = judge_answers(originals, [{"output": pair["output"], "stopped": True} for pair in made.pairs])
    assert {row["status"] for row in rows} == {"pass"}
    assert {pair["self"]["passed"] for pair in made.pairs} == {3}
    summary = made.summary
    assert (summary["passed"], summary["solved"], summary["distinct"]) == (0.6, 1.0, 2.0)
    assert summary["by_category"]["complete"]["tasks"] == len(pairs)


def test_an_answer_cut_off_is_not_kept_though_it_passes(pairs):
    replies = [[reply(pair["output"], stopped=False)] for pair in pairs]
    with pytest.raises(UserError, match="passes its check"):
        build_round(pairs, replies, model="m", most=1, gold_share=0.5, seed=0)


def test_gold_is_mixed_in_by_share_unsolved_tasks_first(pairs):
    replies = [[reply(pair["output"])] for pair in pairs[:-1]] + [[reply("")]]
    made = build_round(pairs, replies, model="m", most=1, gold_share=0.25, seed=0)
    gold = [pair for pair in made.pairs if "self" not in pair]
    assert made.summary["gold"] == len(gold) == round((len(pairs) - 1) / 3)
    assert gold[0] == pairs[-1]
    assert len(gold_pairs(pairs, set(), count=99, seed=0)) == len(pairs)


def test_pairs_whose_check_runs_nothing_are_gold_at_most(pairs):
    prose = {**pairs[0], "id": "prose", "check": {"kind": "structure", "arguments": [], "returns": False, "names": []}}
    replies = [[reply(pairs[0]["output"])], [reply(pairs[0]["output"])]]
    made = build_round([pairs[0], prose], replies, model="m", most=1, gold_share=0.5, seed=0)
    assert [pair["id"] for pair in made.pairs if "self" in pair] == [f"{pairs[0]['id']}#0"]
    assert {row["id"] for row in made.answers} == {pairs[0]["id"]}


def test_the_answers_chosen_are_those_farthest_apart():
    rows = [
        {"code": f"x = {text}\n", "output": "", "sample": n} for n, text in enumerate(["1", "2", "f(3, 4, 5)", "1"])
    ]
    assert [row["sample"] for row in farthest_apart(rows, 2)] == [0, 2]  # the most frequent, then the farthest
    assert [row["sample"] for row in farthest_apart(rows, 9)] == [0, 2, 1]
    assert farthest_apart([], 2) == []


def test_edit_distance_equals_its_definition():
    @functools.cache
    def slow(first, second):
        if not first or not second:
            return len(first) + len(second)
        changed = slow(first[1:], second[1:]) + (first[0] != second[0])
        return min(changed, slow(first[1:], second) + 1, slow(first, second[1:]) + 1)

    draw = random.Random(0)
    for _ in range(200):
        first, second = ("".join(draw.choices("abc", k=draw.randrange(8))) for _ in range(2))
        assert edit_distance(first, second) == slow(first, second)


class Answering:
    """Stands in for LocalModel: answers from a table."""

    model = "m"

    def __init__(self, table):
        self.table = table

    def load(self, model, **settings):
        return self

    def ask(self, conversations, *, samples):
        return [[reply(self.table(messages))] * samples for messages in conversations]

    def summary(self):
        return "a table"


def run(monkeypatch, folder, pairs, table, *more):
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    monkeypatch.setattr(rejection_sampling, "LocalModel", Answering(table))
    command = ["--model", "m", "--data", folder / "pairs.jsonl", "--out", folder / "out", *more]
    monkeypatch.setattr("sys.argv", ["rejection_sampling", *map(str, command)])
    main()


def test_the_command_writes_pairs_answers_and_how_they_were_made(monkeypatch, tmp_path, pairs, capsys):
    gold = {pair["input"]: pair["output"] for pair in pairs}

    def table(messages):
        return next(output for given, output in gold.items() if given in messages[-1]["content"])

    run(monkeypatch, tmp_path, pairs, table, "--samples", "2")
    rows = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * len(pairs)  # one answer and one of the repository's own each
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert about["summary"]["passed"] == 1.0 and about["options"]["samples"] == 2
    assert "all" in capsys.readouterr().out


def test_without_a_passing_answer_nothing_is_written(monkeypatch, tmp_path, pairs):
    with pytest.raises(UserError, match=r"none of 16 sampled answers passes its check|none of \d+ sampled"):
        run(monkeypatch, tmp_path, pairs, lambda messages: "no idea", "--samples", "4")
    assert not (tmp_path / "out").exists()


def test_pairs_without_a_check_that_runs_are_refused(monkeypatch, tmp_path, pairs):
    unproven = [{**pair, "check": {"kind": "structure"}} for pair in pairs]
    with pytest.raises(UserError, match="no pair has a check that runs code"):
        run(monkeypatch, tmp_path, unproven, lambda messages: "")
    with pytest.raises(UserError, match="no check"):
        run(monkeypatch, tmp_path, [{"id": 1, "category": "complete", "input": "", "output": ""}], lambda messages: "")
    with pytest.raises(UserError, match="less than 1"):
        run(monkeypatch, tmp_path, pairs, lambda messages: "", "--gold-share", "1")
