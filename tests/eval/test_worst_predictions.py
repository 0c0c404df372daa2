from __future__ import annotations

import pytest
import torch

from data.masking import plain_document
from eval.worst_predictions import _kind_of_surprise, worst_predictions

FILES = [("a.py", "def add(a, b):\n    return a + b\n" * 6), ("b.py", "import networkx as nx\n"), ("ü.py", "# ü\n" * 9)]


@torch.no_grad()
def test_the_most_surprising_token_of_each_file_is_found(tiny, tokenizer):
    rows = worst_predictions(tiny, tokenizer, FILES, count=2)
    surprise = {}
    for path, text in FILES:
        ids = torch.tensor(plain_document(tokenizer, text).input_ids)
        nats = torch.nn.functional.cross_entropy(tiny(ids[None])[0, :-1], ids[1:], reduction="none")
        surprise[path] = nats[min(64, (len(ids) - 1) // 2) :].max().item()
    worst = sorted(surprise, key=lambda path: -surprise[path])[:2]
    assert [row["id"] for row in rows] == worst
    assert all(f"({surprise[row['id']]:.1f} nats of surprise)" in row["check"] for row in rows)
    assert all(row["prompt"] and row["answer"] and row["cause"] for row in rows)


@pytest.mark.parametrize(
    ("context", "token", "kind"),
    [
        ("x = 1", "\n", "layout"),
        ("# a", " note", "prose"),
        ('"""A', " note", "prose"),
        ("import ", "torch", "an import"),
        ("x = ", "1", "a literal"),
        ("first = 1\nx = ", "first", "a name used before"),
        ("first = 1\nx = ", "second", "a name new"),
        ("x ", "+=", "punctuation"),
    ],
)
def test_the_kind_of_a_missed_token_is_read_off_its_context(context, token, kind):
    assert _kind_of_surprise(context, token).startswith(kind)
