from __future__ import annotations

import sys

import pytest
import torch

from bench import gpu
from bench.gpu import HEADING, RESULTS, STAGES, Outcome, Stage, run_stages, section, with_section
from common.console import UserError

README = (RESULTS.parents[1] / "README.md").read_text(encoding="utf-8")


def test_a_stage_that_fails_or_takes_too_long_does_not_end_the_others():
    stages = (
        Stage("broken", "json.tool /no/such/file", 100),
        Stage("endless", "timeit -n1 -r1 __import__('time').sleep(1000)", 1),
        Stage("lonely", "platform", 100, needs=("no_such_package",)),
        Stage("good", "platform", 100),
    )
    outcomes = run_stages(stages, minutes=5)
    assert [outcome.status for outcome in outcomes] == ["failed", "over time", "skipped", "done"]
    assert "/no/such/file" in outcomes[0].said and "no_such_package" in outcomes[2].said
    assert [outcome.status for outcome in run_stages(stages[3:], minutes=0)] == ["skipped"]


@pytest.mark.slow
def test_a_bench_leaves_its_rows():
    arguments = "--shape mistral-7b --quantize nf4 --layers 1 --tokens 4 --rows 1 --steps 1 --device cpu"
    (outcome,) = run_stages((Stage("memory", f"bench.memory {arguments}", 600),), minutes=10)
    assert outcome.status == "done", outcome.said
    assert {row["unit"] for row in outcome.rows} == {"GiB", "s"}


def test_the_section_has_a_row_for_each_figure_and_each_stage_without_one():
    row = {"name": "peak", "ours": 1.5, "theirs": None, "unit": "GiB", "ratio": None}
    done = Outcome(
        "memory", "bench.memory", "done", 3.0, "", [row, row | {"name": "rate", "theirs": 2.0, "ratio": 0.75}]
    )
    failed = Outcome("NF4", "bench.memory --quantize nf4", "failed", 1.0, "a | b\nout of memory", [])
    where = {"device": "cuda: T4", "torch": "2.13.0", "dtype": "float16"}
    text = section([done, failed], where)
    assert "| memory | peak | 1.5 |  | GiB |  | `bench.memory` |" in text
    assert "| memory | rate | 1.5 | 2 | GiB | 0.75 | `bench.memory` |" in text
    assert "| NF4 | failed: out of memory |" in text
    page = f"# Measured\n\n{HEADING}\n\nold\n\n## Next\n\nkept\n"
    again = with_section(with_section(page, text), text)
    assert "old" not in again and again.endswith("## Next\n\nkept\n") and again.count(HEADING) == 1
    assert with_section("# Measured\n", text) == f"# Measured\n\n{text}"


def test_without_a_gpu_it_is_one_line_and_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["bench.gpu", "--out", str(tmp_path / "gpu.json")])
    before = RESULTS.read_bytes()
    with pytest.raises(UserError, match="PyTorch finds none"):
        gpu.main()
    assert RESULTS.read_bytes() == before and not list(tmp_path.iterdir())


def test_every_stage_is_a_command_of_this_project():
    for stage in STAGES:
        module = stage.command.split()[0]
        assert module == "pytest" or (RESULTS.parent / f"{module.removeprefix('bench.')}.py").is_file(), module
        for part in stage.command.split():
            assert not part.startswith("tests/") or (RESULTS.parents[1] / part).exists(), part


def test_readme_claims_no_gpu_before_one_was_measured():
    measured = HEADING in RESULTS.read_text(encoding="utf-8")
    assert ("not yet measured on a GPU" in README) != measured
