"""The study end to end on a tiny model, its commands in this process: what is left, and that nothing is repeated."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from common.files import read_json, write_jsonl
from experiments import stages
from experiments.study import grid
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
        lines = [
            f"{label}:x {text.format(f'{split}{n}')}" for n in range(count // 6 + 1) for label, text in QUESTIONS
        ]
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
            material / "tiny", "no/such", "--tasks", "trec", "--methods", "full", "--seeds", 3, 4, "--out",
            tmp_path / "runs", "--results", tmp_path, *more, HF_HUB_OFFLINE="1",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout, list(started)

    return with_options


def test_a_study_leaves_results_and_never_repeats_what_is_done(study, tmp_path):
    # a time limit stops before the first run; then everything runs, once
    said, _ = study("--max-minutes", 0)
    assert "stopped  before run 1 of 5: time limit reached; rerun to resume" in said
    assert read_json(tmp_path / "results.json")["rows"] == []
    said, started = study()
    assert sum(one.startswith("train_sft.py") for one in started) == 3
    import shutil as sh; sh.rmtree('/tmp/st/whole', ignore_errors=True); sh.copytree(tmp_path, '/tmp/st/whole')
