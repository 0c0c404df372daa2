"""The three scripts on tiny models: they learn, and write a complete run."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer

import train_cpt
import train_embed
import train_sft
from common.console import UserError
from data.corpus import open_corpus
from data.search.index import open_index
from model import Stop, generate, load_decoder, load_encoder, load_tokenizer
from model.device import cpu_has_bf16


def arguments(**options) -> list[str]:
    parts = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        parts += [flag] if value is True else [flag, str(value)]
    return parts


def rows(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_complete(folder, track, metrics):
    summary = json.loads((folder / "metrics.json").read_text())
    assert summary["schema"] == 1 and summary["tracks"][track].keys() >= {"before", "after", "change"}
    assert metrics <= summary["tracks"][track]["after"].keys()
    config = json.loads((folder / "config.json").read_text())
    assert config["track"] == track and config["options"]["seed"] == {"value": 0, "from": "default"}
    assert config["options"]["out"]["from"] == "command line"
    environment = json.loads((folder / "environment.json").read_text())
    assert environment.keys() >= {"torch", "device", "dtype", "source_sha256"}
    for name in ("before.json", "after.json", "failures.json", "samples.md", "report.html"):
        assert (folder / name).stat().st_size > 0
    for row in json.loads((folder / "failures.json").read_text()):
        assert row["nearest"]["prompt"] and row["cause"]
    assert all({"step", "loss", "lr", "norm"} <= row.keys() for row in rows(folder / "metrics.jsonl") if "loss" in row)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "small"
    folder.mkdir()
    for n, name in enumerate(["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]):
        body = "".join(
            f"def {name}_{i}(graph, node):\n    seen = set()\n    for other in graph[node + {i * n}]:\n"
            f"        seen.add(({name!r}, other, {n}))\n    return seen\n\n\n"
            for i in range(8)
        )
        (folder / f"{name}.py").write_text(f'"""The {name} module."""\n\n\n' + body)
    return folder


@pytest.mark.parametrize("dtype", ["fp32", *(["bf16"] if cpu_has_bf16() else [])])
def test_cpt_learns_and_writes_a_complete_run(corpus, tiny_folder, tmp_path, dtype):
    out = tmp_path / "run"
    train_cpt.main(
        arguments(
            model=tiny_folder, corpus=corpus, out=out, row_tokens=128, step_tokens=256, epochs=3, lr=1e-2, dtype=dtype
        )
    )
    assert_complete(out, "cpt", {"perplexity", "bits_per_byte"})
    track = json.loads((out / "metrics.json").read_text())["tracks"]["cpt"]
    assert track["after"]["perplexity"] < 0.7 * track["before"]["perplexity"]
    assert (out / "corpus" / "manifest.jsonl").is_file() and "validation_loss" in rows(out / "metrics.jsonl")[-1]
    assert {tensor.dtype for tensor in load_file(out / "adapter" / "adapter_model.safetensors").values()} == {
        torch.float32
    }


def test_cpt_refuses_a_token_without_an_embedding_before_creating_the_run(tiny_folder, tmp_path):
    """Even if only a held-out file has it, which is first encoded for the evaluation."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.add_tokens([AddedToken(f"<unused{i}>") for i in range(400 - backend.get_vocab_size())])
    backend.add_tokens([AddedToken("networkx")])
    backend.save(str(folder / "tokenizer.json"))
    code = tmp_path / "code"
    code.mkdir()
    for i in range(20):
        lines = "".join(f"value_{i}_{j} = {i} * {j} + 1\n" for j in range(12))
        (code / f"m{i}.py").write_text(lines)
    held_out = code / open_corpus(str(code), seed=0).split("test")[0].path
    held_out.write_text(held_out.read_text().replace(" = ", " = networkx * ", 1))
    assert open_corpus(str(code), seed=0).split("test")[0].path == held_out.name
    with pytest.raises(UserError, match="the token 'networkx' with the id 400"):
        train_cpt.main(arguments(model=folder, corpus=code, out=tmp_path / "run", row_tokens=64))
    assert not (tmp_path / "run").exists()


def test_all_weights_learn_with_full_and_the_result_is_a_model(corpus, tiny_folder, tmp_path):
    out = tmp_path / "run"
    train_cpt.main(
        arguments(
            model=tiny_folder, corpus=corpus, out=out, row_tokens=128, step_tokens=256, lr=1e-3, method="full",
            dtype="fp32",
        )
    )  # fmt: skip
    before, after = load_decoder(str(tiny_folder)), load_decoder(str(out / "model"))
    moved = [name for name, p in before.named_parameters() if not torch.equal(p, after.get_parameter(name))]
    assert len(moved) == len(list(before.parameters())) and not (out / "adapter").exists()
    assert load_tokenizer(str(out / "model")).encode("x = 1") == load_tokenizer(str(tiny_folder)).encode("x = 1")


def test_sft_learns_the_answer_and_to_stop(tiny_folder, tmp_path):
    pairs = [
        {"id": str(i), "instruction": f"Say {word}.", "input": "", "output": f"{word} {word}"}
        for i, word in enumerate(["def", "return", "import", "function"] * 6)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    train_sft.main(
        arguments(
            model=tiny_folder, data=tmp_path / "pairs.jsonl", out=tmp_path / "run", max_length=128, step_tokens=128,
            epochs=60, lr=4e-3, method="full", dtype="fp32", checkpoint_every=0,
        )
    )  # fmt: skip
    from data.masking import encode_prompt
    from data.rows import conversation_of

    decoder, tokenizer = load_decoder(str(tmp_path / "run" / "model")), load_tokenizer(str(tmp_path / "run" / "model"))
    prompts = [encode_prompt(tokenizer, conversation_of(pair).messages[:1]) for pair in pairs[:4]]
    answers = generate(decoder, prompts, Stop(max_new_tokens=20, ids=tokenizer.stop_ids))
    assert [tokenizer.decode(answer[0]) for answer in answers] == [pair["output"] for pair in pairs[:4]]
    summary = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert [*summary["tracks"]["sft"]] == ["cost"]  # no held-out tasks were given, no results are claimed


def test_a_step_can_be_counted_in_pairs(tiny_folder, tmp_path, capsys):
    pairs = [{"instruction": f"Say {n}.", "input": "", "output": "x " * n} for n in range(1, 6)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    asked = {"model": tiny_folder, "data": tmp_path / "pairs.jsonl", "max_length": 64, "dtype": "fp32", "epochs": 2}
    losses = []
    for micro_batch in (1, 2):
        out = tmp_path / f"run-{micro_batch}"
        train_sft.main(arguments(**asked, out=out, step_pairs=2, micro_batch=micro_batch))
        losses.append([json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()])
    assert "6 steps of 2 pairs" in capsys.readouterr().out  # two, two and the last one, twice
    assert len(losses[0]) == 6 and losses[1] == pytest.approx(losses[0], rel=1e-5)


WORDS = {"fruit": "apple pear plum fig", "metal": "iron tin lead zinc"}
TEXTS = [
    (f"{one} {other}", label) for label, names in WORDS.items() for one in names.split() for other in names.split()
]


def text_files(folder):
    rows = [{"id": f"r{i}", "text": text, "label": label} for i, (text, label) in enumerate(TEXTS)]
    for name, chosen in (("train", rows[::2] + rows[1::4]), ("test", rows[3::4])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))
    return {"data": folder / "train.jsonl", "test": folder / "test.jsonl", "validation": folder / "test.jsonl"}


def test_sft_learns_to_classify_and_measures_it_before_and_after(tiny_folder, tmp_path, capsys):
    """By what the model says and by what it finds likely, with classes, baselines and the cost of the run."""
    out = tmp_path / "run"
    train_sft.main(
        arguments(
            model=tiny_folder, **text_files(tmp_path), out=out, max_length=128, step_tokens=256, epochs=20, lr=2e-3,
            method="full", dtype="fp32", checkpoint_every=0, max_new_tokens=8,
        )
    )  # fmt: skip
    assert_complete(out, "sft", {"accuracy", "macro_f1", "likelihood_accuracy", "likelihood_macro_f1"})
    track = json.loads((out / "metrics.json").read_text())["tracks"]["sft"]
    before, after = (json.loads((out / f"{side}.json").read_text()) for side in ("before", "after"))
    assert (
        track["before"]["accuracy"] < 0.6 and track["after"]["likelihood_accuracy"] == 1 == track["after"]["accuracy"]
    )
    assert track["change"]["accuracy"]["distinguishable"] and track["change"]["accuracy"]["n"] == 8
    assert after["confusion"]["counts"] == [[4, 0, 0], [0, 4, 0]] and after["causes"] == {} != before["causes"]
    assert after["classes"]["fruit"]["n"] == 4 and after["task"] == "classification" and after["shortened"] == 0

    # beside it: what needs no model, and what it cost
    assert [*track["baselines"]] == ["majority class", "TF-IDF + logistic regression", "TF-IDF nearest neighbour"]
    assert track["baselines"]["majority class"]["metrics"]["accuracy"] == 0.5
    assert track["baselines"]["majority class"]["change"]["accuracy"]["value"] == 0.5
    steps = [row for row in rows(out / "metrics.jsonl") if "loss" in row]
    assert track["cost"]["tokens"] == sum(row["tokens"] for row in steps) and track["cost"]["steps"] == len(steps)
    assert track["cost"]["file_bytes"] == (out / "model" / "model.safetensors").stat().st_size
    said = capsys.readouterr().out
    for words in ("test     8 rows of classification", "majority class ", "macro_f1  ", "cost     "):
        assert words in said
    page = (out / "report.html").read_text()
    for words in ("Beside baselines", "Confusions after training", "By label", "Cost", "Errors by cause"):
        assert words in page
    assert "fruit" in (out / "samples.md").read_text()


def test_a_run_on_text_says_which_baseline_is_not_possible(tiny_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    out = tmp_path / "run"
    options = {"model": tiny_folder, **text_files(tmp_path), "out": out, "max_length": 128, "dtype": "fp32"}
    train_sft.main(arguments(**options, epochs=1, max_new_tokens=2, calibrate=True))
    assert "note     no baseline of TF-IDF" in (said := capsys.readouterr().out) and "pip install scikit-learn" in said
    assert "pip install scikit-learn" in (out / "report.html").read_text()
    assert [*json.loads((out / "metrics.json").read_text())["tracks"]["sft"]["baselines"]] == ["majority class"]


def test_questions_and_summaries_are_measured_by_the_run_too(tiny_folder, tmp_path, capsys):
    question = {"question": "What is it?", "context": "It is an apple. " * 30, "answer": "an apple"}
    summary = {"document": "An apple fell. It was red.", "summary": "An apple fell."}
    for row, metrics, baseline in (
        (question, {"exact_match", "token_f1"}, "closest sentence"),
        (summary, {"rouge1", "rouge2", "rougeL", "bleu"}, "lead-3"),
    ):
        out, data = tmp_path / baseline, tmp_path / "rows.json"
        data.write_text(json.dumps([{"id": str(i), **row} for i in range(3)]))
        options = {"model": tiny_folder, "data": data, "test": data, "out": out, "max_length": 150, "dtype": "fp32"}
        train_sft.main(arguments(**options, epochs=1, max_new_tokens=3))
        assert_complete(out, "sft", metrics)
        assert baseline in json.loads((out / "metrics.json").read_text())["tracks"]["sft"]["baselines"]
    assert "3 texts cut at their end to fit" in (said := capsys.readouterr().out)
    assert "note     3 texts were cut at their end, so that the answer fits" in said


def test_sft_refuses_what_it_could_not_grade_before_it_trains(tiny_folder, tmp_path):
    pair = {"instruction": "Say x.", "input": "", "output": "x"}
    task = {"id": "1", "category": "complete", "check": {"kind": "structure"}, **pair}
    text = {"text": "x", "label": "y", "labels": ["y", "z"]}
    for test, samples, said in (
        ([pair], 4, "test.jsonl:1: id, category, check missing"),
        ([task], 2, "--samples 2"),
        ([task], 0, "--calibrate is for text rows with labels"),
        ([task, text], 0, "test.jsonl:2: a text row among other rows"),
        ([text, {**text, "label": "v"}], 0, "test.jsonl:2: the label 'v' does not occur in training, only y, z"),
        ([{**text, "text": " "}], 0, 'test.jsonl:1: "text" is empty'),
    ):
        (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in test))
        files = {"data": tmp_path / "test.jsonl", "test": tmp_path / "test.jsonl", "out": tmp_path / "run"}
        with pytest.raises(UserError, match=said):
            more = {"samples": samples, "max_new_tokens": 8} | ({"calibrate": True} if "calibrate" in said else {})
            train_sft.main(arguments(model=tiny_folder, **files, max_length=64, **more))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_embed_learns_and_its_index_knows_the_saved_model(reference_encoder, tmp_path, method):
    words = [f"{a}{b}" for a in "abcdefgh" for b in "ijkl"]
    pairs = [
        {"id": str(i), "query": word, "code": f"zz {word[::-1]} {word}", "code_id": f"c{i}"}
        for i, word in enumerate(words)
    ]
    candidates = [{"id": pair["code_id"], "code": pair["code"]} for pair in pairs]
    for name, data in (("pairs", pairs), ("candidates", candidates)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
    out = tmp_path / "run"
    options = {
        "model": reference_encoder[1],
        "data": tmp_path / "pairs.jsonl",
        "test": tmp_path / "pairs.jsonl",
        "out": out,
    }
    options |= {"candidates": tmp_path / "candidates.jsonl", "epochs": 12, "batch": 16, "lr": 3e-3, "dtype": "fp32"}
    train_embed.main(arguments(**options, method=method))
    assert_complete(out, "embed", {"mrr@10", "ndcg@10", "recall@10"})
    track = json.loads((out / "metrics.json").read_text())["tracks"]["embed"]
    assert track["after"]["ndcg@10"] > track["before"]["ndcg@10"] and track["bm25"].keys() == track["after"].keys()
    assert (out / "adapter").is_dir() == (method == "lora")
    encoder = load_encoder(str(out / "model"))
    found = open_index(out / "index").search(
        np.asarray(encoder.encode([words[3]], kind="query")), 3, made_by=encoder.identity(), exact=True
    )
    assert found[0].shape == (1, 3)
    with pytest.raises(UserError, match="weights"):  # the untuned model's queries are of another kind
        base = load_encoder(str(reference_encoder[1]))
        open_index(out / "index").search(np.asarray(base.encode(["x"], kind="query")), 3, made_by=base.identity())
