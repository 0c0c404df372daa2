"""What is kept of an experiment: it goes on in a clone, without data and weights, and never mixes two experiments."""

from __future__ import annotations

import json
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.console import UserError
from common.files import read_json, write_json
from experiments.kept import MOST, kept_results, reads, short_text
from experiments.stages import run_stages, stage

WRITE = "import sys; from common.files import write_text; write_text(sys.argv[1], '{}')"


@dataclass(frozen=True)
class Options:
    out: Path
    results: Path
    lr: float = 0.1
    seeds: tuple[int, ...] = (0, 1)


def stages_in(out: Path, seeds=(0, 1)):
    """Data, and for each seed a training that reads them and an evaluation that reads its adapter."""
    stages = [stage(out / "data" / "about.json", "-c", WRITE, out / "data" / "about.json")]
    for seed in seeds:
        run, result = out / f"run-{seed}", out / f"run-{seed}.json"
        train = ["-c", WRITE, run / "metrics.json", "--data", out / "data" / "train.jsonl"]
        stages += [
            stage(run / "metrics.json", *train, also=[run / "metrics.jsonl"]),
            stage(result, "-c", WRITE, result, "--adapter", run / "adapter"),
        ]
    return stages


@pytest.fixture
def kept(tmp_path):
    """Of a function's options."""

    def of(out: str = "runs", **settings):
        return kept_results(Options(tmp_path / out, tmp_path / "results", **settings), apart_from=("seeds",))

    return of


def test_a_clone_runs_what_is_missing_and_what_that_reads(kept, tmp_path, capsys):
    # seed 0 is done, seed 1 is trained but not measured
    first = stages_in(tmp_path / "runs")
    run_stages(first[:4])
    (tmp_path / "runs" / "run-0" / "metrics.jsonl").write_text('{"step": 1}\n')
    kept().keep(first)
    kept().keep(first)

    clone = stages_in(tmp_path / "clone")
    kept("clone").restore(clone)
    assert [one.done.is_file() for one in clone] == [False, True, True, False, False]
    assert (tmp_path / "clone" / "run-0" / "metrics.jsonl").read_text() == '{"step": 1}\n'
    capsys.readouterr()
    run_stages(clone)
    assert [one.done.is_file() for one in clone] == [True] * 5 and capsys.readouterr().out.count("\nstage") == 0

    # everything is kept once all is done: nothing is left to run
    kept("clone").keep(clone)
    kept("third").restore(third := stages_in(tmp_path / "third"))
    assert all(one.done.is_file() for one in third)


def test_long_texts_of_a_result_are_left_out(kept, tmp_path):
    done = tmp_path / "runs" / "result.json"
    row = {"id": "a", "status": "pass", "output": "x" * (MOST + 1), "cause": "y" * MOST, "n": 3}
    write_json(done, {"metrics": {"pass@1": 1.0}, "results": [row]})
    kept().keep([stage(done, "-c", "")])
    found = read_json(tmp_path / "results" / "done" / "result.json")
    assert found == {"metrics": {"pass@1": 1.0}, "results": [{k: row[k] for k in ("id", "status", "cause", "n")}]}


def test_results_of_other_settings_are_not_taken_for_these(kept, tmp_path):
    kept().keep([])
    assert kept(seeds=(4,)).settings == {"lr": 0.1}
    with pytest.raises(UserError, match=r"done: holds results of other lr; give another --results"):
        kept(lr=0.2)


def test_what_a_stage_reads(tmp_path):
    data, train, measure, *_ = stages_in(Path("runs/x"))
    assert reads(train, data) and reads(measure, train) and not reads(measure, data) and not reads(train, measure)
    other = stages_in(Path("runs/x"), seeds=(10,))[1]
    assert not reads(measure, other)
    # a command that is given a folder reads what earlier stages left in it
    second = stage(Path("runs/x/self/round-2/test.json"), "self_improve.py", "--out", "runs/x/self")
    assert reads(second, stage(Path("runs/x/self/round-1/test.json")))


def test_no_place_of_this_machine_is_kept(tmp_path):
    place = f"{sysconfig.get_path('purelib')}/networkx/__init__.py"
    write_json(tmp_path / "result.json", {"results": [{"id": "a", "detail": f"cannot import name ({place})"}]})
    assert json.loads(short_text(tmp_path / "result.json"))["results"][0]["detail"] == (
        "cannot import name (networkx/__init__.py)"
    )
