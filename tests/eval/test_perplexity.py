from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from common.console import run_command
from common.files import read_json
from data.masking import Example, plain_document
from eval import perplexity as module
from eval.perplexity import perplexity, strided, summary
from model.loss import IGNORE

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


@pytest.mark.parametrize(("window", "stride"), [(16, 5), (16, 15), (16, 1), (11, 8)])
def test_overlapping_windows_predict_each_token_once_from_the_context_that_they_leave(tiny, tokenizer, window, stride):
    (file,) = perplexity(tiny, tokenizer, FILES[:1], window=window, stride=stride)["files"]
    ids = plain_document(tokenizer, FILES[0][1]).input_ids
    nll, start = 0.0, 0
    for t in range(1, len(ids)):  # the plain way: a pass a token
        while t >= start + window:
            start += stride
        nll += F.cross_entropy(tiny(torch.tensor([ids[start:t]]))[0, -1:], torch.tensor([ids[t]])).item()
        assert start == 0 or t - start >= window - stride
    assert file["nll"] == pytest.approx(nll, rel=1e-5) and file["tokens"] == len(ids) - 1 > 3 * window


def test_what_is_not_learnt_is_not_counted_in_any_window():
    example = Example(list(range(30)), [IGNORE, IGNORE, *range(2, 30)])
    windows = strided(example, 12, 4)
    counted = [label for piece in windows for label in piece.labels if label != IGNORE]
    assert counted == list(range(2, 30)) and windows[-1].input_ids[-1] == 29
    assert strided(Example([1, 2], [1, 2]), 12, 4) == [Example([1, 2], [IGNORE, 2])]
    for stride in (0, 12):
        with pytest.raises(ValueError, match="give 1 to 11"):
            strided(example, 12, stride)


def test_each_file_has_its_own_figures(tiny, tokenizer):
    result = perplexity(tiny, tokenizer, FILES)
    alone = perplexity(tiny, tokenizer, FILES[1:2])["metrics"]
    assert {name: result["files"][1][name] for name in alone} == pytest.approx(alone)


def test_the_command_strides_by_half_a_window_and_says_so(tiny_folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "x.py").write_text(FILES[0][1])
    found = {}
    for name, more in (
        ("default", []),
        ("half", ["--stride", "16"]),
        ("whole", ["--stride", "31"]),
        ("bad", ["--stride", "32"]),
    ):
        out = tmp_path / f"{name}.json"
        command = [
            "perplexity",
            "--model",
            tiny_folder,
            "--data",
            tmp_path / "x.py",
            "--out",
            out,
            "--window",
            32,
            *more,
        ]
        monkeypatch.setattr("sys.argv", [str(part) for part in command])
        assert run_command(module.main) == (2 if name == "bad" else 0)
        found[name] = read_json(out) if out.exists() else None
    assert found["default"] == found["half"]
    assert found["half"]["settings"] == {"window": 32, "stride": 16, "most_tokens": None}
    assert found["whole"]["metrics"] != found["half"]["metrics"] and found["bad"] is None
    assert "--stride 32: give 1 to 31" in capsys.readouterr().err


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
