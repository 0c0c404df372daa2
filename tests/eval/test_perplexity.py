from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from eval.perplexity import perplexity, read_files, summary, worst_predictions
from model.console import UserError

FILES = [("a.py", "def add(a, b):\n    return a + b\n" * 6), ("b.py", "import networkx as nx\n"), ("ü.py", "# ü\n" * 9)]


def test_perplexity_is_the_plain_mean_over_all_tokens(tiny, tokenizer):
    result = perplexity(tiny, tokenizer, FILES, window=256)
    nll = tokens = size = 0.0
    for _, text in FILES:
        ids = torch.tensor([[*tokenizer.encode(text), tokenizer.eos_id]])
        nll += F.cross_entropy(tiny(ids)[0, :-1], ids[0, 1:], reduction="sum").item()
        tokens += ids.shape[1] - 1
        size += len(text.encode())
    assert result["metrics"]["perplexity"] == pytest.approx(math.exp(nll / tokens), rel=1e-5)
    assert result["metrics"]["bits_per_byte"] == pytest.approx(nll / math.log(2) / size, rel=1e-5)
    low, high = result["intervals"]["perplexity"]
    assert low < result["metrics"]["perplexity"] < high and result["n"] == 3


def test_windows_predict_every_token_once_whatever_their_size(tiny, tokenizer):
    whole = perplexity(tiny, tokenizer, FILES, window=256)["files"]
    small = perplexity(tiny, tokenizer, FILES, window=16)["files"]
    assert [file["tokens"] for file in whole] == [file["tokens"] for file in small]
    assert [file["nll"] for file in whole] != [file["nll"] for file in small]  # less context, other predictions


def test_a_cut_file_counts_only_the_bytes_of_its_tokens(tiny, tokenizer):
    (file,) = perplexity(tiny, tokenizer, FILES[:1], most_tokens=11)["files"]
    text = tokenizer.decode(tokenizer.encode(FILES[0][1])[:11])
    assert file["tokens"] == 10 and file["bytes"] == len(text.encode())


def test_the_model_is_left_in_the_mode_it_was_in(tiny, tokenizer):
    tiny.train()
    perplexity(tiny, tokenizer, FILES)
    assert tiny.training


def test_a_long_file_weighs_as_much_as_its_tokens():
    rows = [
        {"path": "a", "nll": 300.0, "tokens": 100, "bytes": 400},
        {"path": "b", "nll": 10.0, "tokens": 10, "bytes": 40},
    ]
    assert summary(rows)["metrics"]["perplexity"] == pytest.approx(math.exp(310 / 110))


def test_the_most_surprising_token_of_each_file_is_explained(tiny, tokenizer):
    rows = worst_predictions(tiny, tokenizer, FILES, count=2)
    assert len(rows) == 2
    assert all({"id", "category", "prompt", "answer", "cause", "check"} <= row.keys() for row in rows)


def test_files_are_read_from_a_file_a_folder_or_nowhere(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.py").write_text("x = 1\n")
    assert read_files(tmp_path) == [("sub/x.py", "x = 1\n")]
    assert read_files(tmp_path / "sub" / "x.py") == [("x.py", "x = 1\n")]
    with pytest.raises(UserError, match="no such file"):
        read_files(tmp_path / "none")
