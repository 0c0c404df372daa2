from __future__ import annotations

import json
import re
import sys

import pytest

from common.console import UserError, run_command
from data import show_rows as inspect_module
from data.masking import Example, show_mask, supervise
from data.packing import pack
from data.rows import conversation_of
from data.show_rows import (
    as_page,
    bos_of,
    check_row,
    checked_examples,
    documents_of,
    in_terminal,
    main,
    spread,
    token_texts,
)
from model import load_tokenizer
from model.loss import IGNORE

ROWS = [
    {"instruction": "Add.", "input": "def add(a, b):", "output": "    return a + b"},
    {"instruction": "Übersetze 漢字.", "input": "", "output": "import networkx as nx  # <|im_end|> é"},
    {"instruction": "What does this function do?", "input": "", "output": "It adds."},
]


@pytest.fixture
def packed(tokenizer):
    examples = checked_examples(ROWS, tokenizer, where="rows.jsonl")
    lines = {id(example): number for number, example in enumerate(examples, 1)}
    (row,) = pack(examples, 500)
    return documents_of(row, lines, tokenizer)


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["inspect", *map(str, arguments)])
    return run_command(main)


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_mask_is_shown_as_text(tokenizer):
    read, learnt = tokenizer.encode("return"), tokenizer.encode(" import")
    labels = [IGNORE] * len(read) + learnt + [IGNORE] * len(read)
    text = show_mask(tokenizer, Example([*read, *learnt, *read], labels))
    assert text == "── read ──\nreturn\n── learnt ──\n import\n── read ──\nreturn"


def test_roles_are_those_of_the_labels_and_of_the_template(tokenizer, packed):
    for document in packed:
        words = {role: "" for role in inspect_module.ROLES}
        for token in document.tokens:
            words[token.role] += token.text
        row = ROWS[document.line - 1]
        assert words["learnt"] == row["output"] and words["learnt markup"] == "<|im_end|>"
        assert words["markup"] == "<|im_start|><|im_end|><|im_start|>"
        assert row["instruction"] in words["prompt"]


def test_positions_restart_and_documents_lie_end_to_end(packed):
    assert [[token.position for token in document.tokens] for document in packed] == [
        list(range(len(document.example.input_ids))) for document in packed
    ]
    assert [document.start for document in packed] == [0, *(d.start + len(d.tokens) for d in packed[:-1])]
    assert {document.line for document in packed} == {1, 2, 3}
    assert f"row {packed[1].start}–" in packed[1].heading(2, "x") and "positions 0–" in packed[1].heading(2, "x")


def test_the_texts_of_tokens_join_to_the_text_and_hold_no_half_characters(tokenizer):
    ids = supervise(tokenizer, conversation_of(ROWS[1]).messages).input_ids
    texts = token_texts(tokenizer, ids)
    assert len(texts) == len(ids) and "".join(texts) == tokenizer.decode(ids, keep_special=True)
    assert "\ufffd" not in "".join(texts) and "" in texts and "漢" in texts


def test_a_terminal_gets_colours_and_a_pipe_gets_none(tokenizer, packed):
    coloured, plain = (in_terminal(packed, tokenizer, name="x", colour=colour) for colour in (True, False))
    assert "\x1b[1;32mIt adds.\x1b[0m\x1b[1;4;35m<|im_end|>\x1b[0m" in coloured
    assert "\x1b" not in plain and "── learnt ──\nIt adds.<|im_end|>\n── read ──" in plain


def test_escape_sequences_in_the_data_are_not_obeyed(tokenizer):
    row = {"instruction": "a", "output": "\x1b[2J\x07"}
    examples = checked_examples([row], tokenizer, where="x")
    documents = documents_of(examples, {id(examples[0]): 1}, tokenizer)
    shown = in_terminal(documents, tokenizer, name="x", colour=True)
    assert "\x1b[2J" not in shown and "\x07" not in shown and "\ufffd[2J\ufffd" in shown


def test_the_page_holds_each_token_with_its_place_and_escapes_its_text(packed):
    html = as_page({1: packed}, name="<i>.jsonl", told="three rows")
    assert "<i>" not in html and "&lt;|im_end|&gt;" in html
    tokens = [token for document in packed for token in document.tokens]
    assert html.count('title="position ') == len(tokens) and html.count('title="position 0 ·') == 3
    assert not re.search(r"""(src|href)=["'](?!#)""", html)


def test_rows_from_first_to_last_are_shown():
    assert spread(2, 98) == [0, 97] and spread(3, 9) == [0, 4, 8] and spread(1, 9) == [0] and spread(5, 2) == [0, 1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda ids, labels: (ids, [IGNORE] * len(ids)), "nothing is supervised"),
        (lambda ids, labels: (ids, [*labels[:-2], IGNORE, IGNORE]), "ends the turn is not supervised"),
        (lambda ids, labels: ([ids[0], ids[2], *ids[2:]], labels), "they diverge at token 1"),
        (lambda ids, labels: (ids[:3], labels[-2:-1] * 3), "they diverge at token 3"),
    ],
)
def test_a_row_that_breaks_a_rule_is_refused(tokenizer, change, reason):
    messages = conversation_of(ROWS[0]).messages
    example = supervise(tokenizer, messages)
    check_row(tokenizer, messages, example, bos=None)
    with pytest.raises(ValueError, match=reason):
        check_row(tokenizer, messages, Example(*change(example.input_ids, example.labels)), bos=None)


@pytest.fixture
def with_bos(tokenizer_folder, tmp_path):
    """The small tokenizer with a BOS that it puts before every text, and a template that writes it `times` times."""

    def make(times):
        definition = json.loads((tokenizer_folder / "tokenizer.json").read_text())
        bos = next(token["id"] for token in definition["added_tokens"] if token["content"] == "<|endoftext|>")
        first = {"Sequence": {"id": "A", "type_id": 0}}
        definition["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, first],
            "pair": [first, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [bos], "tokens": ["<|endoftext|>"]}},
        }
        settings = json.loads((tokenizer_folder / "tokenizer_config.json").read_text())
        settings["chat_template"] = "<|endoftext|>" * times + settings["chat_template"]
        folder = tmp_path / str(times)
        folder.mkdir()
        (folder / "tokenizer.json").write_text(json.dumps(definition))
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        return load_tokenizer(str(folder))

    return make


def test_a_second_bos_is_refused_and_a_template_without_one_is_not(with_bos):
    once, twice, never = (with_bos(times) for times in (1, 2, 0))
    assert bos_of(once) == once.prefix_ids[0] and bos_of(never) is None and never.prefix_ids
    assert len(checked_examples(ROWS, once, where="x")) == len(checked_examples(ROWS, never, where="x")) == 3
    with pytest.raises(UserError, match=r"x:1: the row begins with 2 BOS tokens \(<\|endoftext\|>\), not 1"):
        checked_examples(ROWS, twice, where="x")


def test_the_command_names_the_row_that_breaks_a_rule(tokenizer_folder, tmp_path, monkeypatch, capsys):
    data = write_rows(tmp_path / "rows.jsonl", [*ROWS, {"instruction": "x", "output": " "}])
    assert command(monkeypatch, "--model", tokenizer_folder, "--data", data) == 2
    said = capsys.readouterr()
    assert said.err == f"tritune: {data}:4: the answer is empty\n" and not said.out


def test_the_command_counts_what_is_cut_and_writes_the_page(tokenizer_folder, tmp_path, monkeypatch, capsys):
    long = {"instruction": "a", "output": "return " * 150}
    data = write_rows(tmp_path / "rows.jsonl", [*ROWS, long, {"instruction": "b " * 90, "output": "c"}])
    arguments = ["--model", tokenizer_folder, "--data", data, "--max-length", 110, "--html", tmp_path / "page.html"]
    assert command(monkeypatch, *arguments) == 0
    said = capsys.readouterr().out
    assert "5 rows, every rule holds" in said and "2 cut at 110, 1 of them left with nothing to learn" in said
    assert "\x1b" not in said and "rows.jsonl:4 · row 0–109 · positions 0–109" in said
    assert (tmp_path / "page.html").read_text().count("<h3>") >= 2


def test_what_is_read_beside_the_answer_is_shown_and_what_is_not_is_told(
    tokenizer_folder, tmp_path, monkeypatch, capsys
):
    rows = [
        {**ROWS[0], "system": "Be BRIEF.", "history": [["EARLIER?", "yes"]], "score": 3},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "WRONG", "weight": 0},
                      {"role": "user", "content": "c"}, {"role": "assistant", "content": "right"}]},
    ]  # fmt: skip
    data = write_rows(tmp_path / "rows.jsonl", rows)
    assert command(monkeypatch, "--model", tokenizer_folder, "--data", data, "--rows", 1) == 0
    said = capsys.readouterr().out
    assert "BRIEF" in said and "EARLIER?" in said and "── learnt ──\nyes<|im_end|>" in said
    assert "WRONG" in said and "── learnt ──\nWRONG" not in said and "── learnt ──\nright<|im_end|>" in said
    assert "fields   not part of what is trained: score\n" in said
    data = write_rows(tmp_path / "rows.jsonl", [ROWS[0], {**ROWS[1], "tools": [{"name": "f"}]}])
    assert command(monkeypatch, "--model", tokenizer_folder, "--data", data) == 2
    assert f'{data}:2: the model\'s chat template leaves out "tools"' in capsys.readouterr().err
