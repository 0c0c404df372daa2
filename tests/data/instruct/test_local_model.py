"""A teacher on this machine: replies, their cache, its budget, and what is refused."""

from __future__ import annotations

import json
import shutil

import pytest

from common.console import UserError
from data.corpus import save_corpus
from data.instruct.local_model import LocalModel
from data.instruct.teacher_options import TeacherOptions, teacher_of
from model import weights
from tests.commands import Child, run_killed

TASKS = [[{"role": "user", "content": text}] for text in ("a b c", "d e", "f")]


@pytest.fixture(scope="module")
def talking_folder(tiny_folder, tmp_path_factory):
    """The tiny model with a chat template, which has no system role."""
    folder = tmp_path_factory.mktemp("talking") / "model"
    shutil.copytree(tiny_folder, folder)
    return folder


@pytest.fixture
def teacher(talking_folder, tmp_path):
    return LocalModel.load(str(talking_folder), cache=tmp_path / "cache.sqlite", max_tokens=4)


def test_every_conversation_gets_its_samples_and_nothing_is_asked_twice(teacher, talking_folder, tmp_path):
    first = teacher.ask(TASKS, samples=2)
    assert [len(of_prompt) for of_prompt in first] == [2, 2, 2]
    assert len({reply.text for of_prompt in first for reply in of_prompt}) > 1  # sampled, not greedy
    assert teacher.spent.requests == 6
    assert teacher.spent.tokens_out == sum(reply.tokens_out for of_prompt in first for reply in of_prompt) > 0
    again = LocalModel.load(str(talking_folder), cache=tmp_path / "cache.sqlite", max_tokens=4)
    assert again.ask(TASKS, samples=2) == first
    assert (again.spent.requests, again.spent.cached) == (0, 6)
    assert "0 answers" in again.summary()


def test_more_samples_keep_those_there_are(teacher):
    two = teacher.ask(TASKS[:1], samples=2)
    four = teacher.ask(TASKS[:1], samples=4)
    assert four[0][:2] == two[0] and None not in four[0]
    assert teacher.spent.requests == 4


def test_another_model_does_not_get_these_replies(teacher, talking_folder, tmp_path):
    teacher.ask(TASKS, samples=1)
    other = tmp_path / "other"
    shutil.copytree(talking_folder, other)
    (other / "generation_config.json").write_text('{"eos_token_id": 1, "x": 1}')
    asking = LocalModel.load(str(other), cache=tmp_path / "cache.sqlite", max_tokens=4)
    asking.ask(TASKS, samples=1)
    assert asking.spent.cached == 0


def test_a_model_without_a_template_takes_the_one_given_and_another_template_gives_other_replies(
    talking_folder, tmp_path
):
    base = tmp_path / "base"
    shutil.copytree(talking_folder, base)
    settings = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": None}))

    def asking(template: str) -> LocalModel:
        (tmp_path / "t.jinja").write_text(
            "{% for m in messages %}" + template + "{{ m.content }}{{ eos_token }}{% endfor %}"
        )
        given = str(tmp_path / "t.jinja")
        model = LocalModel.load(str(base), cache=tmp_path / "cache.sqlite", max_tokens=4, chat_template=given)
        model.ask(TASKS, samples=1)
        return model

    with pytest.raises(UserError, match="--chat-template"):
        LocalModel.load(str(base), cache=tmp_path / "cache.sqlite", max_tokens=4).ask(TASKS, samples=1)
    assert [asking(template).spent.cached for template in ("Q: ", "Q: ", "User: ")] == [0, 3, 0]


@pytest.mark.parametrize(("limit", "answered"), [({"most_requests": 4}, 2), ({"most_tokens": 60}, 1)])
def test_the_budget(talking_folder, tmp_path, limit, answered):
    teacher = LocalModel.load(str(talking_folder), cache=tmp_path / "cache.sqlite", max_tokens=4, **limit)
    replies = teacher.ask(TASKS, samples=2)
    assert sum(None not in of_prompt for of_prompt in replies) == answered
    assert teacher.spent.missing == 2 * (3 - answered)
    assert "the budget is spent" in teacher.summary()


def test_a_prompt_too_long_for_the_model_is_not_asked(teacher):
    [replies] = teacher.ask([[{"role": "user", "content": "a " * 5000}]], samples=2)
    assert replies == [None, None] and teacher.spent.failed == 2


def test_an_interruption_keeps_every_finished_reply_and_the_rest_is_as_if_uninterrupted(
    teacher, talking_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("data.instruct.local_model.ROWS", 2)
    whole = teacher.ask(TASKS, samples=2)
    cut = LocalModel.load(str(talking_folder), cache=tmp_path / "cut.sqlite", max_tokens=4)
    put, stored = cut._cache.put, []

    def interrupted(replies):
        if len(stored) == 3:
            raise KeyboardInterrupt
        put(replies)
        stored.extend(replies)

    monkeypatch.setattr(cut._cache, "put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cut.ask(TASKS, samples=2)
    resumed = LocalModel.load(str(talking_folder), cache=tmp_path / "cut.sqlite", max_tokens=4)
    assert resumed.ask(TASKS, samples=2) == whole
    assert (resumed.spent.cached, resumed.spent.requests) == (3, 3)


def test_a_reply_does_not_depend_on_what_else_is_asked(teacher, talking_folder, tmp_path):
    together = teacher.ask(TASKS, samples=2)
    alone = LocalModel.load(str(talking_folder), cache=tmp_path / "alone.sqlite", max_tokens=4)
    assert [alone.ask([task], samples=2)[0] for task in reversed(TASKS)] == together[::-1]


def test_the_option_takes_a_model_or_a_server(talking_folder, tmp_path):
    assert isinstance(teacher_of(TeacherOptions(teacher=str(talking_folder)), tmp_path), LocalModel)
    with pytest.raises(UserError, match="go with a server's address"):
        teacher_of(TeacherOptions(teacher=str(talking_folder), teacher_model="m"), tmp_path)
    with pytest.raises(UserError, match="no such model"):
        teacher_of(TeacherOptions(teacher="/no/such"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_model_beyond_the_free_memory_is_refused(talking_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "available_memory", lambda: 1000)
    with pytest.raises(UserError, match=r"its weights need .* are free; give a smaller model"):
        LocalModel.load(str(talking_folder), cache=tmp_path / "cache.sqlite")


@pytest.mark.slow
def test_a_killed_command_asks_again_only_what_was_lost_and_writes_the_same(talking_folder, small_corpus, tmp_path):
    save_corpus(small_corpus, tmp_path / "corpus")
    shutil.copytree(talking_folder, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))

    def make(out, cache):
        made = ["-m", "data.instruct", tmp_path / "corpus", "--out", tmp_path / out, "--count", 6, "--test-count", 2]
        taught = ["--teacher", tmp_path / "model", "--teacher-candidates", 16, "--teacher-max-tokens", 16]
        return [*made, *taught, "--teacher-cache", tmp_path / cache / "replies.sqlite"]

    assert Child(*make("whole", "one")).wait() == 0
    (tmp_path / "other").mkdir()
    assert run_killed(*make("killed", "other"), grows=tmp_path / "other", kills=2) == 2
    names = ["train.jsonl", "validation.jsonl", "test.jsonl", "rejects.jsonl"]
    whole, killed = ([(tmp_path / out / name).read_text() for name in names] for out in ("whole", "killed"))
    assert killed == whole and whole[0]
    assert json.loads((tmp_path / "killed" / "about.json").read_text())["teacher"]["spent"]["cached"] > 0
