"""The options of train_embed.py: each does what it says."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

import train_embed
from common.console import UserError
from model import load_encoder
from training.setup import train_top_layers
from training.steps import Steps

WORDS = [f"{a}{b}" for a in "abcde" for b in "mnop"]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def train(reference_encoder, tmp_path):
    """train(name, pairs=PAIRS, **options) -> the run's folder."""
    pairs = [
        {"id": str(i), "query": word, "code": f"zz {word[::-1]} {word}", "source": {"path": f"{word}.py"}}
        for i, word in enumerate(WORDS)
    ]

    def call(name, *flags, pairs=pairs, **options):
        given = {"model": reference_encoder[1], "data": write(tmp_path / f"{name}.jsonl", pairs), "batch": 5}
        given |= {"out": tmp_path / name, "epochs": 2, "dtype": "fp32", "checkpoint_every": 0, "lr": 1e-3} | options
        arguments = [str(part) for key, value in given.items() for part in ("--" + key.replace("_", "-"), value)]
        train_embed.main([*arguments, *(f"--{flag}" for flag in flags)])
        return tmp_path / name

    call.pairs = pairs
    return call


def test_the_temperature_is_trained_and_stays_above_its_minimum(train):
    fixed, learnt = train("fixed"), train("learnt", "learn-temperature", temperature=0.0101, lr=0.01)
    assert [row["temperature"] for row in rows(fixed / "metrics.jsonl")] == pytest.approx([0.05] * 8)
    seen = [row["temperature"] for row in rows(learnt / "metrics.jsonl")]
    assert len(set(seen)) >= 7 and min(seen) >= 0.0101
    least = train("least", "learn-temperature", temperature=0.002, lr=0.0)
    assert [row["temperature"] for row in rows(least / "metrics.jsonl")] == pytest.approx([0.01] * 8)
    assert load_encoder(str(learnt / "model")).config.hidden_size == 48  # and is no weight of the model


def test_shorter_embeddings_are_evaluated_and_equal_those_of_sentence_transformers(train, tmp_path):
    from sentence_transformers import SentenceTransformer

    out = train("short", dimensions="24, 8", test=write(tmp_path / "test.jsonl", train.pairs[:6]))
    after = json.loads((out / "after.json").read_text())
    assert list(after["dimensions"]) == ["24", "8"] and after["dimensions"]["8"].keys() == after["metrics"].keys()
    theirs = SentenceTransformer(str(out / "model"), device="cpu", truncate_dim=8)
    expected = torch.nn.functional.normalize(torch.from_numpy(theirs.encode_query(WORDS)), dim=-1)
    ours = load_encoder(str(out / "model")).encode(WORDS, kind="query", dimension=8)
    assert ours.shape == (20, 8)
    assert_close(ours, expected, atol=1e-5, rtol=0)
    for wrong in ("49", "0", "eight"):
        with pytest.raises(UserError, match="--dimensions"):
            train("wrong" + wrong, dimensions=wrong)


def test_forgetting_is_measured_on_general_queries(train, tmp_path):
    general = [{"query": f"q {word}", "code": f"general {word}", "id": word} for word in "rstuvw"]
    out = train("probed", probe=write(tmp_path / "general.jsonl", general))
    probe = json.loads((out / "metrics.json").read_text())["tracks"]["embed"]["probe"]
    assert probe.keys() == {"before", "after", "change"} and "ndcg@10" in probe["change"]
    assert json.loads((out / "probe_before.json").read_text())["n"] == 6


def test_only_the_top_layers_are_trained(train, reference_encoder):
    out = train("top", top_layers=1)
    before, after = load_encoder(str(reference_encoder[1])), load_encoder(str(out / "model"))
    moved = {name for name, p in before.named_parameters() if not torch.equal(p, after.get_parameter(name))}
    assert moved and all(name.startswith("encoder.layer.2.") for name in moved)
    with pytest.raises(UserError, match="--top-layers 4: the model has 3"):
        train("many", top_layers=4)


def test_the_norm_after_the_layers_is_trained_with_them():
    from torch import nn

    network = nn.ModuleDict({"embed": nn.Embedding(3, 2), "layers": nn.ModuleList(nn.Linear(2, 2) for _ in range(3))})
    network["norm"] = nn.LayerNorm(2)
    train_top_layers(network, 2)
    learning = {name.rpartition(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert learning == {"layers.1", "layers.2", "norm"}


def test_a_stronger_models_scores_are_followed(train):
    """Two negatives that the loss alone cannot distinguish: by the scores, one of them is nearly right."""
    pairs = [pair | {"negatives": ["h i", "j k"], "scores": [4.0, 3.9, -4.0]} for pair in train.pairs]
    margins = []
    for weight in (0.0, 5.0):
        out = train(f"distil{weight:g}", pairs=pairs, distill=weight, epochs=6, lr=3e-3)
        encoder = load_encoder(str(out / "model"))
        near, far = encoder.encode(["h i", "j k"])
        asked = encoder.encode(WORDS, kind="query")
        margins.append(((asked @ near) - (asked @ far)).mean().item())
    assert margins[1] > margins[0] + 0.1


def test_negatives_are_mined_before_each_epoch_from_all_codes_but_the_tests(train, tmp_path, capsys):
    test = [{"query": "what", "code": "held out", "id": "t", "source": {"path": "t.py"}},
            {"query": "who", "code": "kept apart", "id": "u", "source": {"path": "u.py"}}]  # fmt: skip
    more = [{"code": f"other {a} {b}"} for a in "fghij" for b in "uvwxy"]
    more += [{"code": "held out"}, {"code": "its neighbour", "source": {"path": "t.py"}}]
    options = {"test": write(tmp_path / "test.jsonl", test), "pool": write(tmp_path / "pool.jsonl", more)}
    out = train("mined", "mine", negatives=2, epochs=3, **options)
    said = capsys.readouterr().out
    assert "pool     25 codes · 2 excluded" in said and said.count("hard negatives for 20 pairs from 45 codes") == 3
    found = [json.loads((out / "mined" / f"epoch-{epoch}.json").read_text())["negatives"] for epoch in (1, 2)]
    assert all(len(numbers) <= 2 for epoch in found for numbers in epoch) and found[0] != found[1]
    assert max(n for numbers in found[0] for n in numbers) < 45
    with_two, alone = (rows(train(*how)/ "metrics.jsonl") for how in (("again", "mine"), ("without",)))  # fmt: skip
    assert with_two[0]["tokens"] > 1.5 * alone[0]["tokens"]


class Stopped(Exception):
    pass


def test_a_run_resumed_within_an_epoch_has_its_negatives_and_temperature(train, monkeypatch):
    how, options = ("mine", "learn-temperature"), {"checkpoint_every": 3, "epochs": 3, "negatives": 2}
    whole = train("whole", *how, **options)
    due = Steps.due

    def stops(steps, every):
        if steps.current > 7:  # 4 steps an epoch: the checkpoint after step 6 lies within the second
            raise Stopped
        return due(steps, every)

    monkeypatch.setattr(Steps, "due", stops)
    with pytest.raises(Stopped):
        train("parts", *how, **options)
    monkeypatch.undo()
    parts = train("parts", *how, "resume", **options)
    a, b = (load_file(out / "model" / "model.safetensors") for out in (whole, parts))
    assert all(torch.equal(a[name], b[name]) for name in a)
    logs = [[(row["loss"], row["temperature"]) for row in rows(out / "metrics.jsonl")] for out in (whole, parts)]
    assert logs[0] == logs[1] and len(logs[0]) == 12


def test_chunks_train_the_same_as_an_undivided_batch(train, tmp_path, reference_encoder):
    folder = shutil.copytree(reference_encoder[1], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    without = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config | without))
    runs = train("whole", model=folder), train("chunked", model=folder, chunk_tokens=16)
    a, b = ([(row["loss"], row["norm"]) for row in rows(out / "metrics.jsonl")] for out in runs)
    assert len(a) == 8
    assert_close(torch.tensor(b), torch.tensor(a), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("chunk_tokens", [0, 16])
def test_an_overflow_names_the_first_layer_that_left_the_range(
    train, tmp_path, reference_encoder, capsys, chunk_tokens
):
    from model import save_encoder

    encoder = load_encoder(str(reference_encoder[1]))
    with torch.no_grad():
        encoder.encoder["layer"][1].intermediate["dense"].weight[0, 0] = math.inf
    save_encoder(encoder, tmp_path / "broken")
    train("overflow", model=tmp_path / "broken", epochs=1, chunk_tokens=chunk_tokens)
    said = capsys.readouterr().out
    assert "step 1 skipped: the output of encoder.layer.1.intermediate.dense left the range of float32" in said


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"negatives": "x"}, '"negatives" must be a list'),
        ({"negatives": ["x", ""]}, '"negatives" must be a list'),
        ({"negatives": ["x"], "scores": [1.0]}, '"scores" must be 2 numbers'),
        ({"scores": ["1"]}, '"scores" must be 1 numbers'),
    ],
)
def test_a_bad_row_is_named_with_its_line(train, row, named):
    with pytest.raises(UserError, match=r"bad.jsonl:2: " + named):
        train("bad", pairs=[train.pairs[0], train.pairs[1] | row])


@pytest.mark.parametrize(
    ("flags", "options", "named"),
    [
        ([], {"method": "lora", "top_layers": 1}, "--top-layers does not go with --method lora, but with full"),
        ([], {"pool": "x"}, "--mine"),
        (["mine"], {"negatives": 0}, "mines nothing"),
        (["mine"], {"distill": 1}, "drop one of them"),
        ([], {"distill": 1}, 'no row has "scores"'),
    ],
)
def test_options_that_contradict_each_other_are_refused(train, tmp_path, flags, options, named):
    options = {
        name: write(tmp_path / "x", [{"code": "x"}]) if value == "x" else value for name, value in options.items()
    }
    with pytest.raises(UserError, match=named):
        train("contradiction", *flags, **options)


def test_a_dry_run_says_when_a_batch_does_not_fit(train, monkeypatch, capsys):
    from training import fit_chunks

    monkeypatch.setattr(fit_chunks, "TRIAL", 32)
    monkeypatch.setattr(fit_chunks, "_measured", lambda *arguments: 20)
    train("dry", "dry-run")
    said = capsys.readouterr().out
    assert "does not fit: chunks of 20, each computed twice" in said and "steps    8 of 5 pairs" in said
    train("none", "dry-run", epochs=0)
    assert "steps    0" in capsys.readouterr().out
