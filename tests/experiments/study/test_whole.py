"""The study end to end on a tiny model, its commands in this process: what is left, and that nothing is repeated."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from common.files import read_json, write_jsonl
from experiments import pages, stages
from experiments.study.schedule import commit
from tests.commands import run

QUESTIONS = [
    ("HUM", "Who painted number {} ?"), ("LOC", "Where is town {} ?"), ("NUM", "How many are {} ?"),
    ("ENTY", "What animal has {} legs ?"), ("DESC", "Why is {} odd ?"), ("ABBR", "What does A{} stand for ?"),
]  # fmt: skip


@pytest.fixture(scope="module")
def material(tmp_path_factory, tiny_folder):
    """TREC and SciTLDR in a few lines, a repository, and the tiny model with room for long prompts."""
    folder = tmp_path_factory.mktemp("study")
    for split, count in (("train", 48), ("test", 18)):
        lines = [f"{label}:x {text.format(f'{split}{n}')}" for n in range(count // 6 + 1) for label, text in QUESTIONS]
        (folder / "trec").mkdir(exist_ok=True)
        (folder / "trec" / f"TREC.{split}.all").write_text("\n".join(lines[:count]) + "\n")
    for split in ("train", "dev"):
        papers = [
            {"paper_id": f"{split}{n}", "source": [f"Paper {n} is short.", "It ends."], "target": ["Short."]}
            for n in range(8)
        ]
        write_jsonl(folder / "scitldr" / f"{split}.jsonl", papers)
    for number in range(8):
        lines = "".join(f"NAME_{number}_{i} = {number * i}\n" for i in range(20))
        (folder / "source").mkdir(exist_ok=True)
        (folder / "source" / f"m{number}.py").write_text(lines)

    shutil.copytree(tiny_folder, folder / "tiny")
    config = read_json(folder / "tiny" / "config.json") | {"max_position_embeddings": 4096}
    (folder / "tiny" / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def study(material, tmp_path, monkeypatch):
    """Runs the study with further options; returns what it printed and the commands that it started."""
    started = []
    plain_run = subprocess.run

    def in_process(command, **settings):
        if command[0] != sys.executable:
            return plain_run(command, **settings)
        started.append(" ".join(command[1:]))
        done = run(*command[1:])
        assert done.returncode == 0, done.stderr
        return done

    monkeypatch.setattr(stages.subprocess, "run", in_process)

    def with_options(*more):
        started.clear()
        done = run(
            "-m", "experiments.study", "--smoke", "--data", material, "--corpus", material / "source", "--models",
            material / "tiny", "no/such", "--tasks", "trec", "--methods", "full", "--seeds", 3, "--out",
            tmp_path / "runs", "--results", tmp_path / "results", *more, HF_HUB_OFFLINE="1",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout, list(started)

    return with_options


def test_a_study_leaves_results_and_never_repeats_what_is_done(study, tmp_path, monkeypatch):
    # everything runs once; the learning rate is tried once
    _, started = study()
    assert [sum(one.startswith(name) for one in started) for name in ("train_sft.py", "-m eval.text")] == [2, 4]
    assert sum("--sweep" in one for one in started) == 1 and sum("--shots 5" in one for one in started) == 1
    first = read_json(tmp_path / "results" / "results.json")
    assert first["progress"]["runs"] == first["progress"]["of"] == 4
    assert [one["is_here"] for one in first["models"]] == [True, False]

    # what is done is not repeated: a run that was stopped continues with the command that is missing
    begun, kept = (folder / "tiny" / "trec" for folder in (tmp_path / "runs", tmp_path / "results" / "done"))
    assert not (begun / "full" / "6-rows" / "seed-3" / "run" / "model").exists()  # removed once it is measured
    for lost in (begun / "zero-shot" / "texts.json", kept / "zero-shot.json", kept / "full/6-rows/seed-3.json"):
        lost.unlink()
    _, started = study()
    assert len(started) == 1 and started[0].startswith("-m eval.perplexity")
    again = read_json(tmp_path / "results" / "results.json")
    assert again["rows"][1]["metrics"] == first["rows"][1]["metrics"] and again["changes"] == first["changes"]

    # where only what is kept has come along, as in a clone, the data are made and nothing is run
    shutil.rmtree(tmp_path / "runs")
    _, started = study()
    assert started and all(one.startswith("-m data.") for one in started)
    assert read_json(tmp_path / "results" / "results.json") == again
    results_are_complete(first)
    page_is_filled(first, tmp_path / "results", monkeypatch)
    said, started = study("--plan")
    assert started == [] and said.count("done in ") == 4 and said.count("weights are not here") == 3
    assert "4 runs, about" in said and "3 more where the weights of no/such are" in said


def results_are_complete(found: dict) -> None:
    """Every part of results.json, and in each row what the page and the paper read."""
    kinds = [(row["kind"], row["method"], row["seed"], row["train_rows"]) for row in found["rows"]]
    assert kinds == [
        ("classical", "majority class", None, 12), ("classical", "TF-IDF + logistic regression", None, 12),
        ("classical", "TF-IDF nearest neighbour", None, 12), ("prompted", "zero-shot", None, None),
        ("tuned", "full", 3, 12), ("prompted", "few-shot", None, None), ("tuned", "full", 3, 6),
    ]  # fmt: skip
    tuned = found["rows"][4]
    assert tuned.keys() >= {
        "metrics", "intervals", "n", "lr", "epochs", "steps", "trainable_parameters", "file_bytes", "tokens", "seconds",
        "memory_gib", "command", "commands", "commit", "versions", "source_sha256",
    }  # fmt: skip
    assert tuned["commit"] == commit() and tuned["memory_gib"] > 0
    assert tuned["seconds"].keys() == {"run", "cpu", "train", "sweep"}
    assert [row["lr"] for row in found["rows"] if row["kind"] == "tuned"] == [found["learning_rates"][0]["chosen"]] * 2
    assert len(found["learning_rates"]) == 1 and len(found["learning_rates"][0]["tried"]) == 3
    assert {row["against"] for row in found["changes"]} == {"zero-shot", "few-shot", "classical"}
    assert {(row["text"], row["metric"]) for row in found["forgetting"]} == {
        (text, metric) for text in ("code", "english") for metric in ("perplexity", "bits_per_byte")
    }
    assert [point["train_rows"] for point in found["curves"][0]["points"]] == [6, 12]
    assert [row["method"] for row in found["summary"]][3:] == ["zero-shot", "full", "few-shot"]
    assert [row["model"] for row in found["summary"]][:3] == [None] * 3  # without a language model
    assert found["summary"][4]["seeds"] == [3] and found["machine"]["device"].startswith("cpu")
    assert [row["method"] for row in found["causes"]] == ["zero-shot", "full", "few-shot"]
    examples = found["examples"]["trec"]
    assert len(examples) == 4 and [one["method"] for one in examples[0]["answers"]] == ["zero-shot", "full"]


def page_is_filled(found: dict, folder, monkeypatch) -> None:
    """The page and its pictures, of these results."""
    (folder / "study").mkdir()
    shutil.copy(pages.HERE / "study" / "page.md.j2", folder / "study")
    shutil.copy(folder / "results.json", folder / "study")
    monkeypatch.setattr(pages, "HERE", folder)
    page = pages.rendered("study")
    for words in (
        "## TREC, tiny",
        "| full fine-tuning | 82,896 |",
        "| such | other | unknown | yes | not run here",
        "→",
    ):
        assert words in page
    assert page.count("<details>") == 4
    for name in ("quality_parameters", "quality_minutes", "curves"):
        assert f"{name}.svg" in page and "full" in (folder / f"{name}.svg").read_text()


def test_no_run_starts_after_the_time_limit_and_what_cannot_be_run_is_refused(study, material, tmp_path):
    def refused(*more, **environment) -> str:
        done = run("-m", "experiments.study", "--out", tmp_path / "runs", *more, **environment)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        return done.stderr

    assert "Coder-0.5B: no run of code is planned" in refused("--models", "Qwen/Qwen2.5-Coder-0.5B", "--tasks", "code")
    assert "--models: two are called alike (m, m)" in refused("--models", "a/m", "b/m")
    assert "none/trec: no such folder; --data needs the files of trec" in refused(TRITUNE_DATA=str(tmp_path / "none"))
    said, _ = study("--max-minutes", 0)
    assert "stopped  before run 1 of 4: time limit reached; rerun to resume" in said
    assert read_json(tmp_path / "results" / "results.json")["rows"] == []
    other = refused("--data", material, "--tasks", "trec", "--seeds", 9)
    assert "runs: holds a study with other corpus and first_seed and tasks; give another --out" in other
    shutil.rmtree(tmp_path / "runs")
    other = refused("--data", material, "--tasks", "trec", "--seeds", 9, "--results", tmp_path / "results")
    assert "done: holds a study with other corpus and first_seed and tasks; give another --results" in other
