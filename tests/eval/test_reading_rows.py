"""Every command that reads rows reads them alike: what the template cannot say is named, what it can is asked with."""

from __future__ import annotations

import gzip
import json
import re
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest

from common.console import UserError
from common.files import write_jsonl
from data.masking import tokenize_rows
from data.pair_rows import read_pairs, read_pool
from data.rejection_sampling import executed_pairs
from data.replay import read_other_texts, replay_examples
from data.rows import read_rows
from eval import contamination
from eval.code.task_files import read_code_tasks
from eval.forgetting import probe
from eval.instruct import grade as instruct
from eval.next_token.prompts import read_prompts
from eval.retrieval.files import read_retrieval
from eval.text import tasks as text
from eval.text.__main__ import read_answers
from training.held_out import refuse_bad_pairs

PLAIN = {"id": "a", "category": "explain", "instruction": "What is it?", "input": "", "output": "It adds.", "check": {}}
SAMPLING = {"samples": 0, "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 4, "seed": 0}
ROOMY = SimpleNamespace(max_tokens=9999)


def replayed(path, rows, tokenizer):
    other = read_other_texts(str(path), None, corpus_texts=set(), seed=0)
    both = other.replay | other.probe
    if path.name.startswith("probe"):
        probe(None, tokenizer, both)
    else:
        replay_examples(both, tokenizer, size=99, beside=99, share=0.5, seed=0)


READERS = {
    "train_sft": lambda path, rows, tokenizer: tokenize_rows(rows, tokenizer, max_length=99, where=str(path)),
    "train_sft --test": lambda path, rows, tokenizer: refuse_bad_pairs(
        rows, tokenizer, ROOMY, SimpleNamespace(samples=0, max_new_tokens=4, test=str(path))
    ),
    "eval.instruct": lambda path, rows, tokenizer: instruct.answer_pairs(
        None, tokenizer, rows, where=str(path), **SAMPLING
    ),
    "eval.text": lambda path, rows, tokenizer: text.answer_tasks(
        None, tokenizer, text.read_text_tasks(rows, where=str(path)), max_new_tokens=4, where=str(path)
    ),
    "eval.next_token": lambda path, rows, tokenizer: read_prompts(tokenizer, path, kind="seen", count=9, window=99),
    "replay": replayed,
    "probe": replayed,
}


@pytest.mark.parametrize("reader", READERS)
def test_a_row_that_the_template_cannot_say_is_named(reader, tmp_path, tokenizer):
    rows = [PLAIN, {**PLAIN, "id": "b", "tools": [{"name": "read_clock"}]}]
    path = tmp_path / f"{reader}.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    with pytest.raises(UserError, match=rf'{re.escape(path.name)}:2: .* leaves out "tools"'):
        READERS[reader](path, rows, tokenizer)


@pytest.mark.parametrize("reader", ["eval.instruct", "eval.text"])
def test_a_question_is_asked_with_its_system_message_and_history(reader, monkeypatch, tmp_path, tokenizer):
    asked = []

    def generate(decoder, prompts, *settings, **more):
        asked.extend(tokenizer.decode(ids, keep_special=True) for ids in prompts)
        return [[[7]] for _ in prompts]

    for module in (instruct, text):
        monkeypatch.setattr(module, "generate", generate)
    READERS[reader](tmp_path / "x", [{**PLAIN, "system": "Be brief.", "history": [["a", "b"]]}], tokenizer)
    turns = [("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "What is it?")]
    expected = "".join(f"<|im_start|>{role}\n{words}<|im_end|>\n" for role, words in turns)
    assert asked == [f"{expected}<|im_start|>assistant\n"]


def replay_or_probe(path):
    other = read_other_texts(str(path), None, corpus_texts=set(), seed=0)
    return sorted((other.replay | other.probe).values(), key=lambda row: row["id"])  # drawn by the file's name


PAIR = PLAIN | {"check": {"kind": "tests"}}
ROW_FILES = {  # what reads a file of rows -> two rows of it
    "data.rows": (lambda path: read_rows(path), PAIR),
    "replay": (replay_or_probe, PAIR),
    "rejection_sampling": (lambda path: executed_pairs(str(path)), PAIR),
    "train_embed": (lambda path: read_pairs(str(path)), {"query": "add", "code": "def add(): ..."}),
    "train_embed --pool": (lambda path: read_pool(str(path), []), {"code": "def add(): ..."}),
    "eval.retrieval": (lambda path: read_retrieval(path)[0], {"query": "add", "code": "def add(): ..."}),
    "eval.code": (lambda path: read_code_tasks(str(path)), {"prompt": "", "entry_point": "f", "tests": "assert f()"}),
    "eval.contamination": (lambda path: contamination._read(str(path)), PAIR),
    "eval.text --answers": (lambda path: read_answers(str(path)), {"output": "x"}),
}


@pytest.mark.parametrize("reader", ROW_FILES)
def test_a_json_list_and_parquet_are_read_wherever_json_lines_are(reader, tmp_path):
    read, row = ROW_FILES[reader]
    key = "task_id" if "entry_point" in row else "id"
    rows = [row | {key: f"{i}", **({"code": f"def f{i}(): ..."} if "code" in row else {})} for i in range(6)]
    if "instruction" in row:
        rows = [one | {"instruction": f"What is {i}?"} for i, one in enumerate(rows)]
    files = {name: tmp_path / f"rows.{name}" for name in ("jsonl", "json", "parquet")}
    write_jsonl(files["jsonl"], rows)
    files["json"].write_text(json.dumps(rows))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), files["parquet"])
    found = {name: read(path) for name, path in files.items()}
    assert found["jsonl"] == found["json"] == found["parquet"] and len(found["jsonl"]) > 1
