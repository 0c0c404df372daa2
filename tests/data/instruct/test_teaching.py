"""What a teacher says becomes a pair only if it holds. The teacher is a table of answers, the grader the real one."""

import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from common.console import UserError
from data.checks.prove import Checks
from data.corpus.functions import functions_of
from data.instruct import build_instruction_pairs
from data.instruct.replies import Reply
from data.instruct.server_teacher import ServerTeacher
from data.instruct.tasks import DraftContext, draft
from data.instruct.teacher_options import TeacherOptions, teacher_of
from data.instruct.teaching import SYSTEM, TAUGHT, majority, question, teach


class Table:
    """Stands in for data.instruct.teacher.Teacher: answers by category, in turn."""

    model = "table"

    def __init__(self, answers):
        self.answers, self.asked = answers, []

    def ask(self, conversations, *, samples):
        self.asked += conversations
        return [
            [self._reply(messages[-1]["content"], number) for number in range(samples)] for messages in conversations
        ]

    def _reply(self, asked, number):
        made = self.answers(asked, number)
        return made if made is None or isinstance(made, Reply) else Reply(made, True, 1, 1)


@pytest.fixture(scope="module")
def drafts(small_corpus):
    """One pair of each category for the same function, without the teacher."""
    function = next(one for file in small_corpus.files for one in functions_of(file) if one.name == "sum_4_0")
    texts = {file.path: file.text for file in small_corpus.files}
    checks = Checks([function], ["doctest"])
    checks.find([function])
    context = DraftContext(texts, {}, checks, 2400, 700, 0)
    return {category: draft(category, function, context).pair for category in (*TAUGHT, "bugfix")}


def test_the_check_decides_and_then_the_majority(drafts):
    name = drafts["unit_test"]["check"]["qualname"]
    head = f"from pkg.m4 import {name}\n\n\ndef test_it():\n"
    right, other = (
        f"```python\n{head}    assert {name}([{values}]) == {want}\n```" for values, want in (("1, 2", 10), ("3", 20))
    )
    answers = [
        other,
        right,
        right.replace("== 10", "==  10"),
        f"{head}    assert {name}([1, 2]) == 11",  # fails on the right code
        f"{head}    assert {name}",  # would pass on any code
        "I cannot do that.",
        None,
    ]
    teacher = Table(lambda asked, number: answers[number])
    (taught,), rejects = teach([drafts["unit_test"]], teacher, candidates=7, most_output=700)
    assert taught["output"] == f"{head}    assert {name}([1, 2]) == 10"
    assert taught["teacher"] == {"model": "table", "candidates": 7, "held": 3, "alike": 2}
    assert {key: taught[key] for key in ("id", "input", "check")} == {
        key: drafts["unit_test"][key] for key in ("id", "input", "check")
    }
    reasons = [one["reason"] for one in rejects]
    assert len(reasons) == 3 and all(reason.startswith("teacher: ") for reason in reasons)
    assert "AssertionError" in reasons[0] and rejects[0]["output"] == answers[3]


def test_each_category_is_held_to_its_own_form_and_filters(drafts):
    good = {
        "docstring": "Computes a sum.\n\nArgs:\n    values: Numbers.\n    step: Distance.\n\nReturns:\n    The sum.",
        "explain": "It adds up every step-th entry of values. As it starts at step, the result of sum_4_0 is no zero.",
    }
    bad = {
        "docstring": "Computes the sum.\n\nArgs:\n    values: TODO\n    step: Distance.\n\nReturns:\n    The sum.",
        "explain": "It adds.",
    }
    pairs = [drafts["docstring"], drafts["explain"]]
    kinds = iter(["docstring"] * 3 + ["explain"] * 3)
    turns = {0: bad, 1: good, 2: {key: Reply(text, False, 1, 1) for key, text in good.items()}}
    teacher = Table(lambda asked, number: turns[number][next(kinds)])
    taught, rejects = teach(pairs, teacher, candidates=3, most_output=700)
    assert taught[0]["output"] == f'"""{good["docstring"]}\n"""' and taught[1]["output"] == good["explain"]
    reasons = [one["reason"] for one in rejects]
    assert reasons[0] == "teacher: placeholder in the output" and "did not stop" in reasons[1] and len(reasons) == 4


def test_what_no_candidate_answers_keeps_the_repositorys_own_and_bugs_are_never_asked_for(drafts):
    teacher = Table(lambda asked, number: "no idea")
    pairs = [drafts["improve"], drafts["bugfix"]]
    taught, rejects = teach(pairs, teacher, candidates=2, most_output=700)
    assert taught == pairs and len(teacher.asked) == 1 and len(rejects) == 2
    assert teacher.asked[0] == question(drafts["improve"])
    assert teacher.asked[0][0] == {"role": "system", "content": SYSTEM}
    assert drafts["improve"]["output"] not in teacher.asked[0][1]["content"]


@pytest.mark.parametrize(
    ("outputs", "winner"),
    [
        (["a b", "c", "A  b"], ("a b", 2)),
        (["a", "b"], ("a", 1)),
        (["b", "a", "a\n"], ("a", 2)),
    ],
)
def test_the_majority_is_over_normalised_text_and_the_first_wins_a_tie(outputs, winner):
    assert majority(outputs) == winner


@pytest.fixture
def explained_only(tmp_path):
    """Arguments for pairs from four functions whose docstrings are missing: a teacher alone can explain them."""
    from data.corpus import build_corpus

    body = "".join(f"    step{line} = value * {line} + {line}\n" for line in range(6))
    for number in range(4):
        text = f"def plain_{number}(value, other):\n{body.replace('step', f'step{number}')}    return value + other\n"
        (tmp_path / f"m{number}.py").write_text('"""A module."""\n\n' + text + f"\n\nLAST = {number}\n" * 3)
    corpus = build_corpus(str(tmp_path), test_share=0.0, validation_share=0.0)
    shares = {"explain": 1.0, **dict.fromkeys(("docstring", "bugfix", "complete", "unit_test", "improve"), 0.0)}
    return {"corpus": corpus, "count": 2, "test_count": 0, "validation_count": 0, "shares": shares}


SAID = "It takes value and other and computes some products. It returns the sum of value and other, as a number."


def test_functions_without_a_gold_of_their_own_are_answered_by_the_teacher_or_rejected(explained_only):
    teacher = Table(lambda asked, number: SAID if "plain_0" in asked else "Hm.")
    with pytest.raises(UserError, match="no function"):
        build_instruction_pairs(**explained_only)
    pairs = build_instruction_pairs(**explained_only, teacher=teacher, candidates=1)
    assert [pair["output"] for pair in pairs.train] == [SAID] and pairs.train[0]["teacher"]["held"] == 1
    reasons = {reject["reason"] for reject in pairs.rejects}
    assert "no answer of the teacher holds" in reasons and any("fewer than two sentences" in one for one in reasons)


def test_a_teacher_is_not_asked_again_and_again_in_vain(explained_only, monkeypatch):
    monkeypatch.setattr("data.instruct.build.MOST_IN_VAIN", 2)
    one_at_a_time = explained_only | {"count": 1}
    teacher = Table(lambda asked, number: "Hm.")
    with pytest.raises(UserError, match="no function of the train files"):
        build_instruction_pairs(**one_at_a_time, teacher=teacher, candidates=1)
    assert len(teacher.asked) == 2  # of four functions
    turns = iter(["Hm.", SAID, "Hm.", SAID])  # an answer that holds begins the count anew
    pairs = build_instruction_pairs(**explained_only, teacher=Table(lambda asked, number: next(turns)), candidates=1)
    assert len(pairs.train) == 2


def test_options_that_do_not_go_together_are_refused(tmp_path):
    assert teacher_of(TeacherOptions(), tmp_path) is None
    with pytest.raises(UserError, match="--teacher-model"):
        teacher_of(TeacherOptions(teacher="http://127.0.0.1:1"), tmp_path)
    options = TeacherOptions(teacher="http://127.0.0.1:1", teacher_model="m", teacher_max_tokens=7)
    teacher = teacher_of(options, tmp_path)
    assert teacher.model == "m" and teacher.settings["max_tokens"] == 7 and not list(tmp_path.iterdir())
    wrong = {
        "teacher_candidates": 0,
        "teacher_concurrency": 0,
        "teacher_max_tokens": 0,
        "teacher_seconds": float("nan"),
    }
    for name, value in wrong.items():
        with pytest.raises(UserError, match="above 0"):
            teacher_of(replace(options, **{name: value}), tmp_path)


@pytest.mark.slow
def test_transformers_serve_is_such_a_server(drafts, tmp_path):
    utils = pytest.importorskip("transformers.utils.import_utils")
    if not utils.is_serve_available():
        pytest.skip("transformers[serving] is not installed")
    from model import load_decoder, load_tokenizer
    from model.weights import save_decoder

    folder = tmp_path / "model"
    save_decoder(load_decoder("smollm2-135m"), load_tokenizer("smollm2-135m"), folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder), "--device", "cpu"]
    with subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port)]) as server:
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", server)
            teacher = ServerTeacher(
                f"http://127.0.0.1:{port}", str(folder), cache=tmp_path / "cache.sqlite", max_tokens=64
            )
            [replies] = teacher.ask([question(drafts["explain"])], samples=2)
            assert all(reply.text and 0 < reply.tokens_out <= 64 < reply.tokens_in for reply in replies)
            [pair], rejects = teach([drafts["explain"]], teacher, candidates=2, most_output=700)
            assert teacher.spent.cached == 2 and teacher.spent.requests == 2
            assert pair["output"] and pair.get("teacher", {"held": 0})["held"] + len(rejects) == 2
        finally:
            server.terminate()


def _wait_for(url, server):
    for _ in range(240):
        assert server.poll() is None
        try:
            urllib.request.urlopen(url, timeout=1)
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError("the server did not start")
