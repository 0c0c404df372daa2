"""self_improve.py with a tiny model that knows some answers: rounds, what they keep, and their resumption."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import self_improve
import train_sft
from common.console import UserError
from data.checks.check import doctest_check
from data.corpus import build_corpus
from data.corpus.functions import functions_of
from data.instruct.judging import judge_answers
from data.masking import supervise
from data.packing import to_batch
from data.rows import training_conversation
from model import load_decoder, load_tokenizer, save_decoder
from model.loss import causal_lm_loss, supervised_tokens
from tests.commands import Child, run_killed

CHEAP = ["--samples", "2", "--temperature", "0", "--test-samples", "0", "--epochs", "1", "--max-new-tokens", "60"]


FUNCTION = '''def {name}(one, other):
    """{what}.

    >>> {name}(7, 2)
    {value}
    """
    result = {body}
    return result
'''
FUNCTIONS = [
    ("total", "The sum", "one + other", 9), ("gap", "The difference", "one - other", 5),
    ("area", "The product", "one * other", 14), ("rest", "The remainder", "one % other", 1),
]  # fmt: skip


def write_package(folder):
    """Four files to train on and one held out, each with a function of one line."""
    (folder / "pkg").mkdir(parents=True)
    (folder / "pkg" / "__init__.py").write_text("")
    for number in range(8):
        name, what, body, value = FUNCTIONS[number % 4]
        text = FUNCTION.format(name=f"{name}{number}", what=f"{what} number {number}", body=body, value=value)
        constants = "".join(f"VALUE_{number}_{n} = {number * n}\n" for n in range(12))  # a shorter file is filtered
        (folder / "pkg" / f"m{number}.py").write_text(f"{constants}\n\n{text}")
    return folder


@pytest.fixture(scope="module")
def pairs_folder(tmp_path_factory):
    """Pairs of the category "complete", each with a doctest: six to train on, two held out."""
    folder = tmp_path_factory.mktemp("self")
    files = build_corpus(str(write_package(folder / "code"))).files
    pairs = [pair_of(function) for file in files for function in functions_of(file, min_lines=1)]
    assert len(pairs) == 8
    (folder / "pairs").mkdir()
    for split, some in (("train", pairs[:6]), ("test", pairs[6:])):
        text = "".join(json.dumps(pair) + "\n" for pair in some)
        (folder / "pairs" / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return folder / "pairs"


def pair_of(function):
    given = f"{function.header}\n{function.docstring_source}"
    check = doctest_check(function.package, function)
    asked = {"category": "complete", "instruction": "Write the body.", "input": given}
    return {"id": function.name, **asked, "output": function.body, "check": check}


@pytest.fixture(scope="module")
def knowing_folder(tiny_folder, pairs_folder, tmp_path_factory):
    """A tiny model that was trained until it knows the answers to the training tasks but the last."""
    folder = tmp_path_factory.mktemp("knowing") / "model"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    tokenizer, decoder = load_tokenizer(str(folder)), load_decoder(str(folder))
    rows = [json.loads(line) for line in (pairs_folder / "train.jsonl").read_text().splitlines()][:-1]
    batch = to_batch([supervise(tokenizer, training_conversation(row).messages) for row in rows], decoder.device)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=3e-3)
    mean_loss = 1.0
    while mean_loss > 0.02:
        loss = causal_lm_loss(decoder.hidden_states(batch.input_ids, batch.lengths), decoder.head_weight, batch.labels)
        loss = loss / supervised_tokens(batch.labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        mean_loss = loss.item()
    save_decoder(decoder, tokenizer, folder.parent / "trained")
    return folder.parent / "trained"


@pytest.fixture
def command(knowing_folder, pairs_folder, monkeypatch):
    def run(out, *more):
        given = ["--model", knowing_folder, "--pairs", pairs_folder, "--out", out, "--rounds", 1, *CHEAP, *more]
        monkeypatch.setattr("sys.argv", ["self_improve.py", *map(str, given)])
        self_improve.main()

    return run


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_round_trains_on_what_passes_and_a_stopped_one_resumes(command, pairs_folder, tmp_path, monkeypatch, capsys):
    # what is forgotten is measured on a file and on a code task from elsewhere
    (tmp_path / "held_out.py").write_text("def f(x):\n    return x + 1\n")
    task = {"task_id": "1", "prompt": "def g(x):", "entry_point": "g", "tests": "assert g(1) == 2", "setup": ""}
    (tmp_path / "tasks.jsonl").write_text(json.dumps(task) + "\n")
    measuring = ["--corpus", tmp_path / "held_out.py", "--code-tasks", tmp_path / "tasks.jsonl"]
    command(tmp_path / "whole", *measuring)
    shown = capsys.readouterr().out
    pairs = {pair["id"]: pair for pair in rows(pairs_folder / "train.jsonl")}

    # what the model was taught passes, and is kept once a task: greedy answers do not differ
    trained_on = rows(tmp_path / "whole" / "round-1" / "train.jsonl")
    kept = [pair for pair in trained_on if "self" in pair]
    known = list(pairs)[:-1]
    assert [pair["id"].split("#")[0] for pair in kept][: len(known)] == known
    originals = [pairs[pair["id"].split("#")[0]] for pair in kept]
    again = judge_answers(originals, [{"output": pair["output"], "stopped": True} for pair in kept])
    assert {row["status"] for row in again} == {"pass"}

    # the results: the base answered the training tasks, the round was measured on the held-out ones
    results = json.loads((tmp_path / "whole" / "results.json").read_text())
    base, first = results["rounds"]
    assert base["answers"]["solved"] >= len(known) / len(pairs) and "answers" not in first
    assert base["test"]["n"] == first["test"]["n"] == len(rows(pairs_folder / "test.jsonl"))
    assert first["perplexity"]["n"] == first["code"]["n"] == 1
    assert "train passed" in shown and "base and round 1" in shown

    # stopped in the training, then rerun: the same files
    def stopped(arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train_sft, "main", stopped)
        with pytest.raises(KeyboardInterrupt):
            command(tmp_path / "cut", *measuring)
    command(tmp_path / "cut", *measuring)
    assert rows(tmp_path / "cut" / "round-1" / "train.jsonl") == trained_on
    assert json.loads((tmp_path / "cut" / "results.json").read_text())["rounds"] == results["rounds"]

    # other settings are not mixed into it; more rounds may be added
    with pytest.raises(UserError, match="holds rounds with --keep 2"):
        command(tmp_path / "cut", *measuring, "--keep", 3)


def test_a_template_that_is_given_is_every_round_s(tmp_path, tiny_folder, monkeypatch):
    (tmp_path / "t.jinja").write_text("one")
    options = self_improve.Options(
        model=str(tiny_folder), pairs=tmp_path, out=tmp_path, chat_template=str(tmp_path / "t.jinja")
    )
    assert self_improve.asking(options, tmp_path).chat_template == options.chat_template
    seen = []
    monkeypatch.setattr(train_sft, "main", seen.extend)
    self_improve.trained(options, tmp_path / "round-1")
    assert seen[seen.index("--chat-template") + 1] == options.chat_template

    # replies made with another template are other replies
    before = self_improve.identity(options, None)
    (tmp_path / "t.jinja").write_text("two")
    assert self_improve.identity(options, None) != before


def test_what_makes_no_sense_is_refused_before_anything_is_written(command, pairs_folder, tmp_path):
    for more, message in (
        (["--gold-share", 1], "less than 1"),
        (["--test-samples", 2], "at least 4"),
        (["--pairs", tmp_path], r"train\.jsonl"),
    ):
        with pytest.raises(UserError, match=message):
            command(tmp_path / "out", *more)
    (tmp_path / "round-1").mkdir()
    with pytest.raises(UserError, match="holds no rounds of this command"):
        command(tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_as_an_undisturbed_one(knowing_folder, pairs_folder, tmp_path):
    def rounds(out):
        given = ["--model", knowing_folder, "--pairs", pairs_folder, "--out", out, "--rounds", 2, *CHEAP]
        return ["self_improve.py", *given]

    assert Child(*rounds(tmp_path / "whole")).wait() == 0
    assert run_killed(*rounds(tmp_path / "killed"), grows=tmp_path / "killed", kills=8) == 8
    for name in ("round-1/train.jsonl", "round-2/train.jsonl", "round-1/answers.jsonl"):
        assert rows(tmp_path / "killed" / name) == rows(tmp_path / "whole" / name)
    whole, killed = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "killed"))
    assert killed["rounds"] == whole["rounds"]


@pytest.mark.slow
def test_a_killed_round_writes_what_an_undisturbed_one_does(knowing_folder, pairs_folder, tmp_path):
    def one_round(out):
        given = ["--model", knowing_folder, "--data", pairs_folder / "train.jsonl", "--out", out, "--samples", 12]
        return ["-m", "data.rejection_sampling", *given, "--max-new-tokens", 60]

    assert Child(*one_round(tmp_path / "whole")).wait() == 0
    assert run_killed(*one_round(tmp_path / "killed"), grows=tmp_path, kills=3) == 3
    for name in ("train.jsonl", "answers.jsonl"):
        assert rows(tmp_path / "killed" / name) == rows(tmp_path / "whole" / name)
