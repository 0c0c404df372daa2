import ast
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from common.console import UserError
from common.python_syntax import parsed
from data.importing.__main__ import main
from data.importing.answer_code import parted
from data.importing.code_rows import explain_with, import_rows, split_rows
from data.importing.indentation import with_four_spaces
from data.importing.places import open_place
from data.importing.records import read_records
from data.instruct.replies import Reply
from data.rows import training_conversation

ROOT = Path(__file__).resolve().parents[3]
ALPACA = Path(os.environ.get("TRITUNE_DATA", "/nowhere")) / "codealpaca" / "code_alpaca_2k.json"
CODE = "def add(a, b):\n    return a + b"
WORDS = "It adds its two arguments and gives back their sum, whatever their type."


def row(output=CODE, instruction="Write a function that adds.", **fields):
    return {"instruction": instruction, "input": "", "output": output, **fields}


def imported(*rows):
    kept, rejects = import_rows(list(rows), name="x")
    assert len(kept) + len(rejects) == len(rows)
    return kept, [reject["reason"] for reject in rejects]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (row("The answer is yes."), "no Python that parses"),
        (row("print 'Python 2'"), "no Python that parses"),
        (row("[3, 5, 7]"), "a value or a word, no code"),
        (row("yes"), "a value or a word, no code"),
        (row("42 == 6 * 7"), "a value or a word, no code"),
        (row(instruction="Add in JavaScript"), "asks for javascript"),
        (row(instruction="Write a C program that adds"), "asks for c program"),
        (row(instruction="Add two numbers in C++ "), "asks for c++"),
        (row(instruction="Write a SQL query"), "asks for sql"),
        (row("def f():\n    pass  # TODO"), "placeholder in the answer"),
        (row(f"x = '{'a' * 5000}'"), "over 4000 characters"),
        (row(""), "the answer is empty"),
        (row(instruction=" "), "no question"),
        (row(instruction="Add \ud83d"), "a lone surrogate, which no text file can hold"),
        (row(f"x = {'1+' * 1900}1"), "indentation that cannot be changed safely"),  # too deep to be compared
        ({"instruction": "Add"}, '"output" is missing (this line has: instruction)'),
        ({"txt": "Add"}, '"instruction", "messages" or "prompt" is missing (this line has: txt)'),
    ],
)
def test_each_rule_names_its_reason(given, reason):
    assert imported(given) == ([], [reason])


def test_python_that_speaks_of_another_language_is_kept():
    kept, _ = imported(
        row(instruction="Write a Python function that builds an SQL query"), row("print(7)"), row("x = 1")
    )
    assert len(kept) == 3


def test_rows_of_every_form_become_pairs_that_can_be_trained_on():
    chat = [{"role": "user", "content": "Add."}, {"role": "assistant", "content": "def f(a):\n  return a + 1"}]
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Subtract."},
        {"role": "assistant", "content": "def g(a, b):\n\treturn a - b"},
    ]
    kept, reasons = imported(
        row(),
        {"prompt": "Multiply.", "completion": "def h(a, b):\n return a * b"},
        {"messages": chat},
        {"messages": turns},
    )
    assert reasons == [] and [one.id for one in kept] == ["x/1", "x/2", "x/3", "x/4"]
    pairs = [one.as_pair(explained=False, source={"path": "x"}) for one in kept]
    asked = [training_conversation(pair).messages[0]["content"] for pair in pairs]
    assert asked == ["Write a function that adds.", "Multiply.", "Add.", "Be brief."]
    assert pairs[0]["instruction"] and pairs[1]["instruction"] and "messages" in pairs[3]
    for pair in pairs:
        answer = training_conversation(pair).messages[-1]["content"]
        assert ast.parse(answer) and "\n    return" in answer
        assert pair["source"] == {"path": "x"} and pair["category"] == "code"


def test_the_two_variants_are_the_same_rows():
    fenced = f"Here you are:\n\n```python\n{CODE}\n```\n\n{WORDS}"
    (one, silent), _ = imported(row(fenced), row("print(1)"))
    assert one.code == CODE and WORDS in one.words and silent.words == ""
    plain, explained = (one.as_pair(explained=flag, source={}) for flag in (False, True))
    assert plain["id"] == explained["id"] and plain["output"] == CODE
    assert explained["output"].startswith(f"```python\n{CODE}\n```\n\n") and explained["output"].endswith(WORDS)


def test_code_and_words_are_told_apart():
    assert parted(f"```\n{CODE}\n```\nThat is it.") == (CODE, "")  # three words explain nothing
    assert parted(f"```python\nx = 1\n```\n{WORDS}\n~~~\ny = x + 1\n~~~") == ("x = 1\n\ny = x + 1", WORDS)
    assert parted(f"{CODE}\n") == (CODE, "")


def test_thoughts_of_a_reasoning_model_are_kept_apart_and_not_trained_on():
    said = f"<think>\n```python\ndef add(a, b):\n    return a - b\n```\nNo.\n{'Hm. ' * 1500}</think>\n\n"
    kept, reasons = imported(row(f"{said}```python\n{CODE}\n```\n{WORDS}"), row("<think>\nprint(2)"), row("print(3)"))
    assert reasons == ["thoughts without an answer"]
    assert [(one.code, one.thoughts) for one in kept] == [(CODE, said), ("print(3)", "")]
    first, last = (one.as_pair(explained=False, source={}) for one in kept)
    assert first["thoughts"] == said and first["output"] == CODE and "thoughts" not in last


def test_fences_in_a_docstring_stay_in_the_code():
    code = 'def add(a, b):\n    """Add.\n\n```python\nadd(1, 2)\n```\n    """\n    return a + b'
    (one,), _ = imported(row(f"```python\n{code}\n```\n\n```text\n3\n```\n{WORDS}"))
    assert (one.code, one.words) == (code, WORDS)
    assert parted(one.as_pair(explained=True, source={})["output"]) == (code, WORDS)  # its own fences are longer


def test_duplicates_are_dropped():
    _, reasons = imported(row(), row(), row(instruction="write a  function THAT adds."))
    assert reasons == ["duplicate", "duplicate"]


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        (
            "if x:\n a = 1\n if y:\n  b = 2\n else:\n  c = 3",
            "if x:\n    a = 1\n    if y:\n        b = 2\n    else:\n        c = 3",
        ),
        ("if x:\n\ta = 1\n\tif y:\n\t\tb = 2", "if x:\n    a = 1\n    if y:\n        b = 2"),
        ("def f():\n  return [1,\n          2]", "def f():\n    return [1,\n            2]"),
        ('def f():\n  s = """a\n  b"""\n  return s', 'def f():\n    s = """a\n  b"""\n    return s'),
        ("def f():\n  # why\n  return 1\n\n# end", "def f():\n    # why\n    return 1\n\n# end"),
        ("for x in y:\n  a = 1\n  # last\nb = 2", "for x in y:\n    a = 1\n    # last\nb = 2"),
        ("x = 1 \ny = 2", "x = 1\ny = 2"),
        ("def f():\n    return 1", "def f():\n    return 1"),
        ("class A:\n  def f(self): return 1\n  def g(self):\n     return \\\n       2", None),
    ],
)
def test_code_is_indented_by_four_spaces(code, wanted):
    changed = with_four_spaces(code)
    assert wanted is None or changed == wanted
    assert ast.dump(ast.parse(changed)) == ast.dump(ast.parse(code))
    assert with_four_spaces(changed) == changed


def test_shares_of_the_split_are_kept_and_follow_from_the_seed():
    rows, _ = imported(*(row(f"x{i} = {i}; y{i} = {i + 1}; z{i} = {i + 2}") for i in range(40)))
    sides = [split_rows(rows, test_share=0.1, validation_share=0.1, seed=seed) for seed in (0, 0, 1)]
    assert Counter(sides[0].values()) == {"train": 32, "validation": 4, "test": 4}
    assert sides[0] == sides[1] != sides[2]


class Table:
    """A teacher that gives these answers in turn."""

    model = "big"

    def __init__(self, *answers):
        self.answers = answers

    def ask(self, conversations, *, samples):
        self.asked = [messages[-1]["content"] for messages in conversations]
        return [[answer and Reply(answer, True, 1, 1)] for answer in self.answers]

    def summary(self):
        return f"{len(self.answers)} answers"


def test_a_teacher_explains_what_comes_without_words():
    teacher = Table(WORDS + " So it serves for texts, too.", "No.", f"{WORDS}\n```\n{CODE}\n```", None)
    rows, _ = imported(*(row(f"print({i} + {i * 7} * {i + 3})") for i in range(4)), row(f"```\n{CODE}\n```\n{WORDS}"))
    explained, rejects = explain_with(teacher, rows)
    assert [one.id for one in explained] == ["x/1", "x/5"] and all(one.words for one in explained)
    assert len(teacher.asked) == 4 and "print(1 + 7 * 4)" in teacher.asked[1]
    assert [(one["id"], one["reason"]) for one in rejects] == [
        ("x/2", "teacher: output under 80 characters"),
        ("x/3", "teacher: code in an explanation"),
        ("x/4", "teacher: gave no answer"),
    ]
    taught, own = (one.as_pair(explained=True, source={}) for one in explained)
    assert taught["explained_by"] == "big" and "explained_by" not in own  # the card counts them
    assert "explained_by" not in explained[0].as_pair(explained=False, source={})


def test_with_a_teacher_both_variants_have_the_same_rows_in_the_same_order(tmp_path, monkeypatch, capsys):
    rows = [row(f"def f{i}(x):\n    return x * {i} + {i + 1} - x % {i + 2}") for i in range(10)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    said = [None if i == 4 else f"{WORDS} It is the function number {i}, and it is short." for i in range(10)]
    monkeypatch.setattr("data.importing.__main__.teacher_of", lambda options, out: Table(*said))
    command = ["x", str(tmp_path / "rows.json"), "--out", str(tmp_path / "out"), "--explain", "big"]
    monkeypatch.setattr(sys, "argv", command)
    main()
    ids = {}
    for variant in ("code", "explained"):
        files = [tmp_path / "out" / variant / f"{side}.jsonl" for side in SIDES]
        ids[variant] = [[json.loads(line)["id"] for line in file.read_text().splitlines()] for file in files]
    assert ids["code"] == ids["explained"] and sum(map(len, ids["code"])) == 9
    printed = capsys.readouterr().out
    assert "1  teacher: gave no answer" in printed and "not of the same rows" not in printed


@pytest.mark.parametrize(
    ("answer", "asked", "found"),
    [
        ("const a = [1, 2].map((x) => x + 1);", "Add one to each.", "javascript"),
        ("let n: number = add(3);", "Add.", "typescript"),
        ("let n = add(3)", "Add in TypeScript.", "typescript"),
        ("```ts\nadd(3)\n```", "Add.", "typescript"),
        ("```js\nadd(3)\n```", "Add.", "javascript"),
        ("const A = () => <b>hi</b>;", "Write a React component.", "javascript"),
        ("add(3)", "Add.", "reads as Python, and nothing says that it is JavaScript"),
        ("```python\nadd(3)\n```", "Add.", "a block of python"),
        ("int main() { return 0; }", "Write a C program.", "asks for c program"),
        ("const a = ;", "Write JavaScript.", "no JavaScript that parses"),
        ("done", "Is it JavaScript?", "a value or a word, no code"),
        ("let x = 1", "Add with jQuery and SQL.", "javascript"),
        ("SELECT 1", "Write a query in SQL.", "asks for sql"),
    ],
)
def test_a_language_is_told_by_fence_question_and_parser_and_never_guessed(answer, asked, found):
    pytest.importorskip("tree_sitter_typescript")
    given = row(answer, instruction=asked)
    kept, rejects = import_rows([given], name="x", languages=("typescript", "javascript"))
    assert (kept[0].language if kept else rejects[0]["reason"]) == found


def test_a_fence_is_believed_before_a_parser():
    pytest.importorskip("tree_sitter_typescript")
    kept, _ = import_rows(
        [row("```js\nadd(3)\n```"), row("```\nadd(4)\n```")], name="x", languages=("python", "javascript")
    )
    assert [one.language for one in kept] == ["javascript", "python"]


def test_other_languages_must_be_named():
    pytest.importorskip("tree_sitter_rust")
    code = "fn add(a: i32) -> i32 {\n\ta + 1\n}"
    given = [row(code, instruction="Add one."), row(code, instruction="Add one in Rust."), row(f"```rust\n{code}\n```")]
    kept, rejects = import_rows(given, name="x", languages=("rust",))
    assert [one["reason"] for one in rejects] == ["nothing says that it is Rust"]
    assert [one.code for one in kept] == [code, code]  # only Python is indented anew
    pair = kept[0].as_pair(explained=False, source={})
    assert pair["language"] == "rust"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--test-share", "nan"], "must be a number"),
        (["--test-share", "0.5", "--validation-share", "0.5"], "stay below 1"),
        (["--validation-share", "-0.1"], "not be negative"),
        (["--out", "rows.json"], "--out rows.json: is a file"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_read(tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.json").write_text("[")
    monkeypatch.setattr(sys, "argv", ["x", "rows.json", "--out", "out", *options])
    with pytest.raises(UserError, match=words):
        main()


def test_the_command_writes_both_variants_and_what_it_left_out(tmp_path):
    rows = [row(f"def f{i}(x):\n  return x * {i} + {i + 1} - x % {i + 2}") for i in range(10)]
    rows[3]["output"] = f"```python\n{rows[3]['output']}\n```\n{WORDS}"
    (tmp_path / "rows.json").write_text(json.dumps([*rows, row("no code here, only words")]))
    command = [sys.executable, "-m", "data.importing", str(tmp_path / "rows.json"), "--out", str(tmp_path / "out")]
    done = subprocess.run([*command, "--license", "MIT"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts = {
        variant: [len((tmp_path / "out" / variant / f"{side}.jsonl").read_text().splitlines()) for side in SIDES]
        for variant in ("code", "explained")
    }
    assert counts["code"] == [8, 1, 1] and sum(counts["explained"]) == 1
    assert json.loads((tmp_path / "out" / "rejects.jsonl").read_text()) == {
        "id": "rows/11",
        "reason": "no Python that parses",
    }
    first = json.loads((tmp_path / "out" / "code" / "train.jsonl").read_text().splitlines()[0])
    assert first["source"] == {"path": str(tmp_path / "rows.json"), "commit": None, "license": "MIT"}
    assert json.loads((tmp_path / "out" / "about.json").read_text())["commit"] is None
    assert "10 rows: 8 train, 1 validation, 1 test" in done.stdout
    assert "not of the same rows: --explain" in done.stdout


SIDES = ("train", "validation", "test")


@pytest.mark.skipif(not ALPACA.is_file(), reason="TRITUNE_DATA names no folder with codealpaca/")
def test_codealpaca_gives_python_that_parses_with_four_spaces():
    place = open_place(str(ALPACA))
    assert place.commit is None
    rows, _ = read_records(place.only_file())
    kept, rejects = import_rows(rows, name=place.name)
    assert len(kept) + len(rejects) == len(rows) == 2017
    assert len(kept) > 400
    for one in kept:
        assert parsed(one.code)
        assert all(
            (len(line) - len(line.lstrip())) % 4 == 0 for line in one.code.split("\n") if line.startswith("  if ")
        )
    assert {reject["reason"] for reject in rejects} >= {"no Python that parses", "asks for javascript", "asks for sql"}


def test_a_row_keeps_its_system_message_and_one_that_calls_tools_is_rejected():
    row = {"instruction": "Print one.", "input": "", "output": "print(1 + 0)"}
    rows = [
        {**row, "system": "Python alone."},
        {**row, "tools": [{"name": "f"}]},
        {**row, "reasoning_content": "easy"},
        {**row, "prompt": "Below is an instruction: Print one. Response: print(1 + 0)", "instruction": "Print one."},
    ]
    kept, rejects = import_rows(rows, name="x")
    chat, pair = (one.as_pair(explained=False, source={}) for one in kept)
    assert [message["role"] for message in chat["messages"]] == ["system", "user", "assistant"]
    assert pair["instruction"] == "Print one." and "messages" not in pair
    assert [one["reason"] for one in rejects] == ["calls tools", "an answer with its thoughts apart"]
