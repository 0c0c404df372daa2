"""chat.py in a terminal, with a pipe, and with --prompt."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import sys
import termios
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import chat
from common.console import UserError
from data.search.index import build_index, open_index
from data.search.results import Search
from lora.adapter import adapter_in_use, linears
from lora.adapter_file import save_adapter
from lora.inject import inject
from model import load_decoder, load_tokenizer, save_decoder
from tests.commands import PATIENCE, Child
from tests.word_encoder import WordEncoder

ENVIRONMENT = {"TERM": "dumb", "COLUMNS": ""}  # the width is the terminal's, not that of the test run


@pytest.fixture(scope="module")
def talker(tiny_folder, tmp_path_factory):
    """A tiny random model that generates only letters: control characters would garble the terminal."""
    decoder, tokenizer = load_decoder(str(tiny_folder)), load_tokenizer(str(tiny_folder))
    rows = decoder.model.embed_tokens.weight.data
    nn.init.normal_(rows, generator=torch.Generator().manual_seed(3))
    is_letter = torch.tensor([i < 323 and tokenizer.decode([i]).encode().isalpha() for i in range(len(rows))])
    rows[~is_letter] *= 1e-3  # the head is tied: these get a logit near 0, below that of some letter
    for layer in linears(decoder).values():
        layer.weight.data *= 20  # so that what was said before matters
    folder = tmp_path_factory.mktemp("talker") / "model"
    save_decoder(decoder, tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def adapters(talker, tmp_path_factory):
    """Two adapters that change the answers."""
    folders = []
    for std in (0.5, 3.0):
        network = load_decoder(str(talker))
        inject(network, r=4, alpha=8, targets="all-linear")
        for layer in adapter_in_use(network).values():
            nn.init.normal_(layer.lora_B.weight, std=std)
        folders.append(tmp_path_factory.mktemp("chat") / "adapter")
        save_adapter(network, folders[-1], base_model="tiny", task_type="CAUSAL_LM")
    return folders


def command(talker, *more, tokens=8):
    return ["chat.py", "--model", str(talker), "--max-new-tokens", str(tokens), *map(str, more)]


class Terminal:
    """A child process on its own terminal."""

    def __init__(self, arguments: list[str], columns: int) -> None:
        self.ours, self.theirs = (
            os.openpty()
        )  # theirs stays open: the child opens it by its name, at a moment of its own
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.process = Child(*arguments, terminal=os.ttyname(self.theirs), **ENVIRONMENT)
        self.unread = ""

    def read(self, seconds: float) -> None:
        """More of what is shown, if there is any before `seconds` are over."""
        is_over = self.process.returncode is not None
        if select.select([self.ours], [], [], seconds)[0]:
            self.unread += os.read(self.ours, 4096).decode("utf-8", "replace").replace("\r\n", "\n")
        else:
            assert not is_over, f"it has ended, having shown {self.unread!r}"

    def until(self, text: str) -> str:
        """What is shown up to and with `text`."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.unread:
            assert time.monotonic() < deadline, f"{text!r} was not shown, but {self.unread!r}"
            self.read(1)
        shown, _, self.unread = self.unread.partition(text)
        return shown + text

    def insist(self, keys: str, text: str) -> str:
        """Type again until `text` is shown: a Ctrl-C just before readline waits for a key goes unseen.

        Only after a while: one more, while the first is answered, would end the program.
        """
        while text not in self.unread:
            self.type(keys)
            again = time.monotonic() + 5
            while text not in self.unread and time.monotonic() < again:
                self.read(1)
        return self.until(text)

    def type(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def say(self, line: str) -> str:
        """Type a line; returns what is shown until the next question, without the line itself."""
        self.type(line + "\n")
        self.until(line + "\n")
        self.unread = "\n" + self.unread
        return self.until("\n> ").removesuffix("\n> ").removeprefix("\n")

    def close(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self.ours), os.close(self.theirs)


@pytest.fixture
def terminal():
    open_ones = []

    def opened(arguments, columns):
        open_ones.append(Terminal(arguments, columns))
        return open_ones[-1]

    yield opened
    for one in open_ones:
        one.close()


def test_a_prompt_a_pipe_and_both_under_headers(talker, adapters, monkeypatch, capsys):
    def ask(*more):
        monkeypatch.setattr(sys, "argv", command(talker, *more))
        chat.main()
        return capsys.readouterr().out

    base = ask("--prompt", "Add two numbers")
    piped, _ = Child(*command(talker, "--adapter", adapters[0]), stdin="Add two numbers").communicate()
    assert base != piped and base.strip() and piped.strip()
    both = ask("--adapter", adapters[0], "--both", "--prompt", "Add two numbers")
    assert both == f"── base ──\n{base}── tuned ──\n{piped}"
    assert ask("--system", "Be brief", "--prompt", "Add two numbers") != base


def test_a_conversation_in_a_terminal(talker, adapters, terminal):
    there = terminal(command(talker, "--adapter", adapters[0], "--adapter", f"wild={adapters[1]}"), columns=80)
    assert "tuned will answer" in there.until("> ")
    tuned = there.say("Hello there")
    assert there.say("Hello there") != tuned  # it remembers: the second time it is another conversation
    assert there.say("/reset") == ""
    assert there.say("Hello there") == tuned
    assert there.say("/base") == ""
    base = there.say("Hello there")
    assert base != tuned
    there.say("/reset")
    there.say("/both")
    assert there.say("Hello there") == f"── base ──\n{base}\n── tuned ──\n{tuned}"
    there.say("/use wild")
    assert there.say("Hello there") not in (base, tuned)
    there.say("/reset")
    there.say("/tuned")
    assert there.say("Hello there") == tuned
    assert "/use NAME" in there.say("/help") and "participants are base, tuned, wild" in there.say("/nothing")
    there.type("half a line")
    there.until("half a line")
    there.insist("\x03", "\n> ")  # Ctrl-C at the prompt forgets the line
    there.type("\x04")  # Ctrl-D
    assert there.process.wait() == 0


def test_ctrl_c_ends_the_answer_and_not_the_program(talker, terminal):
    there = terminal(command(talker, tokens=200), columns=80)
    there.until("> ")
    whole = there.say("Go on")
    there.say("/reset")
    there.type("Go on\n")
    there.until("Go on\n")
    there.until(whole[:4])  # it has begun to answer
    there.type("\x03")
    cut = whole[:4] + there.until("\n> ").removesuffix("\n> ")
    assert cut.endswith(" …") and len(cut) < len(whole) and whole.startswith(cut[:-2].removesuffix("^C"))
    assert there.say("/reset") == "" and there.say("Go on") == whole


def test_two_answers_are_side_by_side_in_a_wide_terminal(talker, adapters, terminal):
    there = terminal(command(talker, "--adapter", adapters[0], "--both"), columns=120)
    there.until("> ")
    first = there.say("Hello there").splitlines()[0]
    assert first.index("── tuned ──") == 58 + 3 and first.startswith("── base ──")


def test_a_conversation_that_is_too_long_can_continue(talker, terminal):
    there = terminal(command(talker, tokens=100), columns=80)
    there.until("> ")
    there.say("Hello")
    assert "/reset starts a new conversation" in there.say("and so on " * 6)
    there.say("/reset")
    assert "/reset" not in there.say("Hello")


def test_two_texts_in_two_columns():
    text = chat.side_by_side("one two three\n    four", "x" * 25, titles=["a", "b"], width=23)
    assert text.splitlines() == [
        "── a ──    │ ── b ──",
        "one two    │ xxxxxxxxxx",
        "three      │ xxxxxxxxxx",
        "    four   │ xxxxx",
    ]


def test_adapters_are_named(tmp_path):
    odd = tmp_path / "a=b"
    odd.mkdir()
    assert chat.named_folders(["runs/x", "other=runs/y"]) == {"tuned": Path("runs/x"), "other": Path("runs/y")}
    assert chat.named_folders([str(odd)]) == {"tuned": odd}  # a folder that there is, is no name
    for twice in (["x=a", "x=b"], ["base=a"]):
        with pytest.raises(UserError, match="is taken"):
            chat.named_folders(twice)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--both"], "--both compares"),
        (["--top-k", "-1"], "top_k >= 0"),
        (["--adapter", "none"], "none/adapter_config.json: no such file"),
    ],
)
def test_bad_options_are_one_line(talker, monkeypatch, more, said):
    monkeypatch.setattr(sys, "argv", command(talker, "--prompt", "x", *more))
    with pytest.raises(UserError, match=said):
        chat.main()


def test_an_index_is_read_shown_and_switched_off(talker, tmp_path, monkeypatch, capsys):
    encoder = WordEncoder()
    unit = {
        "id": "a.py:7",
        "kind": "function",
        "code": "def add(a, b): ...",
        "source": {"path": "a.py", "lines": [7, 7]},
    }
    build_index(tmp_path, encoder.encode([unit["code"]], kind="passage").numpy(), [unit], manifest=encoder.identity())
    monkeypatch.setattr(chat, "open_search", lambda folder, device: Search(open_index(folder), encoder))
    asked = []
    encode_prompt = chat.encode_prompt
    monkeypatch.setattr(
        chat, "encode_prompt", lambda tokenizer, messages: asked.append(messages) or encode_prompt(tokenizer, messages)
    )

    def ask(*more):
        monkeypatch.setattr(sys, "argv", command(talker, "--prompt", "Add two numbers", *more))
        chat.main()
        return capsys.readouterr()

    plain, found = ask(), ask("--index", tmp_path)
    assert plain.err == "" and found.err == "read a.py:7\n" and plain.out != found.out.strip() != ""
    assert asked[-1][-1]["content"].endswith("a.py:7\n```python\ndef add(a, b): ...\n```\n\nAdd two numbers")
    assert ask("--index", tmp_path, "--index-tokens", 2).out == plain.out  # nothing fits

    # in a conversation: the code of one question is not part of the next, and /search off goes without
    speaker = chat.Speaker("base", None, load_tokenizer(str(talker)))
    there = chat.Chat(
        load_decoder(str(talker)), chat.Sampling(), 4, search=Search(open_index(tmp_path), encoder), index_tokens=100
    )
    chat.reply(there, [speaker], "Add", width=80)
    assert speaker.messages[0]["content"] == "Add" and len(asked[-1]) == 1
    assert chat.command("/search off", there, {"base": speaker}, [speaker], []) == [speaker]
    chat.reply(there, [speaker], "Add", width=80)
    assert [message["content"] for message in asked[-1]][::2] == ["Add", "Add"]
    chat.command("/search on", there, {"base": speaker}, [speaker], [])
    assert there.passages("Add", speaker.tokenizer)
    there.search = None
    with pytest.raises(UserError, match="there is no index"):
        chat.command("/search on", there, {"base": speaker}, [speaker], [])
