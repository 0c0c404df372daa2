"""A base model without a chat template: its adapter brings the one it was trained with, unless another is given."""

from __future__ import annotations

import json
import shutil

import pytest

from model import load_tokenizer
from model.chat_template import ChatTemplate
from tests.commands import run

GIVEN = "{% for m in messages %}### {{ m.role }}\n{{ m.content }}{{ eos_token }}\n{% endfor %}### assistant\n"
OTHER = GIVEN.replace("###", "==")
PAIR = {
    "id": "p", "category": "explain", "instruction": "Explain this.", "input": "def f(x):\n    return x\n",
    "output": "`f` returns x as it is given.", "check": {"kind": "structure", "names": ["f"]},
}  # fmt: skip
TASK = {"task_id": "t", "prompt": "Add one.", "entry_point": "f", "tests": "assert f(1) == 2"}
SHORT = ("--max-new-tokens", 4)


@pytest.fixture(scope="module")
def place(tiny_folder, tmp_path_factory):
    """A folder with the base, data, two templates, and a run that was trained with the first."""
    folder = tmp_path_factory.mktemp("without")
    shutil.copytree(tiny_folder, folder / "base")
    settings = json.loads((folder / "base" / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (folder / "base" / "tokenizer_config.json").write_text(json.dumps(settings))
    for name, row in (("pairs", PAIR), ("tasks", TASK)):
        (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    for name, text in (("given", GIVEN), ("other", OTHER)):
        (folder / f"{name}.jinja").write_text(text)

    # without a template there is one line and no run; with one, it is kept beside the adapter
    training = ("train_sft.py", "--model", folder / "base", "--data", folder / "pairs.jsonl", "--out", folder / "run")
    refused = run(*training)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "--chat-template" in refused.stderr
    options = ("--r", 2, "--epochs", 1, "--max-length", 128, "--test", folder / "pairs.jsonl", "--samples", 0, *SHORT)
    done = run(*training, "--chat-template", folder / "given.jinja", *options)
    assert done.returncode == 0, done.stderr
    (folder / "given.jinja").rename(folder / "moved.jinja")  # from here on, only the adapter has it
    return folder


def commands(place, out) -> dict[str, tuple]:
    """Each command that asks a model, and the question that it asks."""
    return {
        "eval.instruct": (("-m", "eval.instruct", "--data", place / "pairs.jsonl", "--k", 1, "--out", out), "Explain"),
        "eval.code": (("-m", "eval.code", "--tasks", place / "tasks.jsonl", "--samples", 0, "--out", out), "Add one."),
        "eval.next_token": (("-m", "eval.next_token", "--prompt", "Hi there.", "--out", out), "Hi there."),
        "chat.py": (("chat.py", "--prompt", "Hi there."), "Hi there."),
    }


@pytest.fixture
def rendered(monkeypatch):
    """Every text that a chat template made."""
    texts, render = [], ChatTemplate.render

    def spy(self, *arguments, **options):
        texts.append(render(self, *arguments, **options))
        return texts[-1]

    monkeypatch.setattr(ChatTemplate, "render", spy)
    return texts


@pytest.mark.parametrize("given", [None, "other"])
@pytest.mark.parametrize("name", ["eval.instruct", "eval.code", "eval.next_token", "chat.py"])
def test_an_adapter_is_asked_as_it_was_trained_and_otherwise_if_told_so(place, tmp_path, rendered, name, given):
    command, question = commands(place, tmp_path / "out.json")[name]
    more = ("--chat-template", place / f"{given}.jinja") if given else ()
    done = run(*command, "--model", place / "base", "--adapter", place / "run" / "adapter", *SHORT, *more)
    assert done.returncode == 0, done.stderr
    asked = [text for text in rendered if question in text]
    mark = "== user" if given else "### user"
    assert asked and all(text.startswith(mark) for text in asked)
    if name == "eval.next_token":  # the instruction went through it
        assert json.loads((tmp_path / "out.json").read_text())["prompts"][0]["text"].startswith(mark)


@pytest.mark.parametrize("name", ["eval.instruct", "chat.py"])
def test_the_base_alone_needs_one_and_takes_the_one_given(place, tmp_path, rendered, name):
    command, question = commands(place, tmp_path / "out.json")[name]
    refused = run(*command, "--model", place / "base", *SHORT)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "--chat-template" in refused.stderr
    assert not (tmp_path / "out.json").exists()
    done = run(*command, "--model", place / "base", "--chat-template", place / "other.jinja", *SHORT)
    assert done.returncode == 0 and [text for text in rendered if question in text][-1].startswith("== user")


def test_the_base_alone_continues_code_without_one(place, tmp_path, rendered):
    command, _ = commands(place, tmp_path / "out.json")["eval.code"]
    assert run(*command, "--model", place / "base", *SHORT).returncode == 0 and rendered == []


def test_base_and_tuned_talk_side_by_side(place, rendered):
    done = run(
        "chat.py",
        "--model",
        place / "base",
        "--adapter",
        place / "run" / "adapter",
        "--both",
        "--prompt",
        "Hi.",
        *SHORT,
    )
    assert done.returncode == 0 and "── base ──" in done.stdout and "── tuned ──" in done.stdout
    assert all(text.startswith("### user") for text in rendered if "Hi." in text)


def test_what_is_merged_and_exported_has_the_template_that_it_was_trained_with(place, tmp_path):
    adapter = ("--model", place / "base", "--adapter", place / "run" / "adapter")
    assert run("-m", "lora.merge", *adapter, "--out", tmp_path / "merged").returncode == 0
    for kind, out in (("hf", tmp_path / "hf"), ("gguf", tmp_path / "gguf" / "m.gguf")):
        done = run("-m", "model.export", tmp_path / "merged", "--to", kind, "--type", "f32", "--out", out)
        assert done.returncode == 0, done.stderr
        assert load_tokenizer(str(out)).render([{"role": "user", "content": "hi"}]).startswith("### user\nhi")


def test_merge_and_export_write_the_template_that_is_given(place, tmp_path):
    other = ("--chat-template", place / "other.jinja")
    adapter = ("--model", place / "base", "--adapter", place / "run" / "adapter")
    assert run("-m", "lora.merge", *adapter, "--out", tmp_path / "merged", *other).returncode == 0
    written = [tmp_path / "merged"]
    for kind, out in (("hf", tmp_path / "hf"), ("gguf", tmp_path / "gguf" / "m.gguf")):
        done = run("-m", "model.export", place / "base", "--to", kind, "--type", "f32", "--out", out, *other)
        assert done.returncode == 0, done.stderr
        written.append(out)
    for out in written:
        assert load_tokenizer(str(out)).render([{"role": "user", "content": "hi"}]).startswith("== user\nhi")

    # one line, and nothing half-written, for a file that is not there and for an encoder
    for refused in (
        run("-m", "lora.merge", *adapter, "--out", tmp_path / "no", "--chat-template", tmp_path / "none.jinja"),
        run("-m", "model.export", place / "base", "--to", "sentence-transformers", "--out", tmp_path / "no", *other),
    ):
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and not (tmp_path / "no").exists()


def test_its_loss_on_plain_text_needs_no_template(place, tmp_path):
    (tmp_path / "x.py").write_text("def f(x):\n    return x\n")
    data = ("--data", tmp_path / "x.py", "--window", 64, "--out", tmp_path / "p.json")
    done = run("-m", "eval.perplexity", "--model", place / "base", "--adapter", place / "run" / "adapter", *data)
    assert done.returncode == 0, done.stderr
