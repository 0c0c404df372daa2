"""The command of experiments/typescript, from two small packages to the page, on a tiny model."""

from __future__ import annotations

import json
import shutil

import pytest

from experiments.typescript.run import FULL, name_of
from tests.commands import run
from tests.data.instruct.script.test_pairs import write_package


@pytest.fixture
def model(tiny_folder, tmp_path):
    """The tiny model with positions enough for a function in single characters."""
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    return folder


@pytest.fixture
def sources(tmp_path):
    """A package to train on, one held out, and rows in JavaScript and Python."""
    for name, suffix in (("alpha", "js"), ("beta", "ts")):
        write_package(tmp_path / name, suffix=suffix)
    rows = [
        {"instruction": f"Add {n} in JavaScript.", "input": "", "output": f"const add{n} = (x) => x + {n} * {n + 3};"}
        for n in range(10)
    ]
    rows.append({"instruction": "Add.", "input": "", "output": "def add(x):\n    return x + 1"})
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    return "--packages", tmp_path / "alpha", "--held-out", tmp_path / "beta", "--data", tmp_path / "rows.json"


def test_it_runs_from_the_packages_to_the_page(smoke, model, sources, tmp_path):
    pytest.importorskip("tree_sitter_typescript")
    shown = ("--seen-prompt", "Add 1 in JavaScript.", "--unseen-prompt", "Add 3 numbers.")
    options = ("--models", model, *sources, "--checks", "structure", "--contexts", 512, "--epochs", 1, *shown)
    results, page = smoke("typescript", *options)

    # the pairs: of both sources to train on, of the held-out package to test on
    pairs = results["pairs"]
    assert pairs["train"].keys() == {"code", "alpha"} and min(pairs["train"].values()) > 0
    assert pairs["test"].keys() == {"beta"}
    tested = [json.loads(line) for line in (smoke.runs / "data" / "test.jsonl").read_text().splitlines()]
    trained = [json.loads(line) for line in (smoke.runs / "data" / "train.jsonl").read_text().splitlines()]
    assert {row["check"]["language"] for row in tested} == {"typescript"}
    assert {row["id"].split("/")[0] for row in trained} == {"code", "alpha"}

    # the next token, at the beginning of an answer and after a fence: seen and unseen, with intervals
    found = results["models"]["tiny"]
    tokens = found["next_token"]["context-512"]
    for where in ("answer", "fence"):
        for kind in ("seen", "unseen"):
            for state in ("base", "tuned", "change"):
                low, high = tokens[where]["intervals"][f"language_mass_{state}_{kind}"]
                assert low <= tokens[where]["metrics"][f"language_mass_{state}_{kind}"] <= high
            assert tokens[where]["n"][f"next_entropy_tuned_{kind}"] == 3  # two of a file, and the one shown
        assert tokens[where]["contrasts"]["language_mass_change"]["n"] == [3, 3]
    one, other = tokens["answer"]["shown"]
    assert [one["kind"], other["kind"]] == ["seen", "unseen"] and "Add 3 numbers." in other["text"]
    assert one["continuations"].keys() == {"base", "tuned"} and len(one["tuned"]) == 10
    assert tokens["fence"]["shown"][0]["text"].endswith("```")
    assert FULL.prompts >= 30 and FULL.held_out >= 30  # of a full run

    # the loss curve, the page, and the plan
    assert (tmp_path / "typescript" / "loss-tiny.svg").read_text().startswith("<svg")
    assert found["rows"][1]["loss"]["first"] > 0 and "| 512 | fence | unseen | 3 | " in page
    assert "### unseen: user Add 3 numbers. assistant" in page
    planned = run("-m", "experiments.typescript.run", *options, "--plan", "--multipl-e", "he.jsonl")
    assert planned.stdout.count("eval.code --tasks he.jsonl") == 2


@pytest.mark.parametrize(
    ("source", "name"), [("npm:date-fns@4.1.0", "date-fns"), ("npm:@scope/x@1.0", "x"), ("/a/b/", "b"), ("b", "b")]
)
def test_a_source_has_a_folder_of_its_name(source, name):
    assert name_of(source) == name
