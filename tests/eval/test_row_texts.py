from __future__ import annotations

from data.corpus.decontaminate import RUN
from eval.row_texts import fields_not_compared, texts_of


def test_every_text_of_every_format_is_compared():
    rows = [
        {"id": "p", "instruction": "Sort the parcels.", "input": "a", "output": "b", "source": {"path": "x.py"}},
        {"task_id": 7, "text": "t", "code": "c", "test_list": ["x", "y"]},
        {"task_id": "HumanEval/1", "prompt": "p", "canonical_solution": "s", "test": "def check(c): pass"},
        {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": [{"text": "ha"}]}]},
        {"conversations": [{"from": "human", "value": "hi"}], "system": "Be brief.", "weight": 1},
        {"instruction": "Go on.", "history": [["q", "a"]], "output": ""},
        {"id": 5, "question": "q", "context": "c", "answer": "a", "label": 1},
        {"query": "q", "code": "c", "negatives": ["n"]},
    ]
    assert [(i, set(text.split("\n"))) for i, text in texts_of(rows)] == [
        ("p", {"Sort the parcels.", "a", "b"}),
        ("7", {"t", "c", "x", "y"}),
        ("HumanEval/1", {"p", "s", "def check(c): pass"}),
        ("row 4", {"hello", "ha"}),
        ("row 5", {"hi", "Be brief."}),
        ("row 6", {"Go on.", "q", "a"}),
        ("5", {"q", "c", "a"}),
        ("row 8", {"q", "c", "n"}),
    ]


def test_only_long_texts_in_unknown_fields_are_counted():
    long = " ".join(f"word{i}" for i in range(RUN))
    rows = [{"draft": long, "check": {"setup": long}}, {"draft": [long], "license": "MIT", "prompt": long}]
    assert fields_not_compared(rows) == {"draft": 2}
