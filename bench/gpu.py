"""Every GPU measurement, in one command of under ten minutes that downloads nothing.

    make gpu        # python -m bench.gpu --out runs/bench/gpu.json

The CUDA tests; decode against prefill; every checkpointing mode; 1.5B and 7B models in NF4; the longest text in 15 GB;
training and sampling against their peers, on the whole GPU and restricted to a T4's features. Networks have well-known
shapes and random weights; stages whose embedded model or peer package is missing are skipped and recorded. The result
is one JSON file, and the section "On a GPU" of bench/RESULTS.md. A stage that fails or exceeds its time is recorded as
such, and the next one starts.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from common.console import UserError, run_command
from common.files import cache_folder, read_json, read_text, write_json, write_text
from common.options import option, parse
from eval.environment import environment
from model.device import choose_device, choose_dtype

RESULTS = Path(__file__).with_name("RESULTS.md")
HEADING = "## On a GPU"
EMBEDDED = "smollm2-135m"


@dataclass(frozen=True)
class Stage:
    """One command, run in its own process."""

    name: str
    command: str  # arguments of `python -m`; "--out FILE" is added for those of bench
    seconds: int  # time limit
    needs: tuple[str, ...] = ()  # packages, or the embedded model

    @property
    def is_bench(self) -> bool:
        """Whether it writes rows."""
        return self.command.startswith("bench.")


MEMORY = "bench.memory --shape qwen2.5-0.5b --rows 2 --tokens 1024 --steps 3 --checkpointing"
NF4 = "bench.memory --quantize nf4 --rows 1 --tokens 2048 --checkpointing full --shape"
CONTEXT = "bench.context --shape qwen2.5-1.5b --cap 15 --alone --shortest 4096"
SAMPLING = "bench.generate --runs 1 --work exact --rows 64"
TRAINING = "bench.train --runs 1 --rows mixed --steps 3"
PEERS = ("transformers", "trl", "peft", EMBEDDED)
STAGES = (  # the most important first: time may run out
    Stage(
        "tests",
        "pytest -q -p no:cacheprovider tests/cuda tests/model/test_attention.py tests/model/test_generate.py",
        240,
    ),
    Stage("decode", "bench.decode", 60),
    Stage("decode, real weights", f"bench.decode --model {EMBEDDED}", 60, (EMBEDDED,)),
    *(Stage(f"checkpointing {kind}", f"{MEMORY} {kind}", 60) for kind in ("none", "selective", "full", "offload")),
    Stage("NF4, 1.5B", f"{NF4} qwen2.5-1.5b", 90),
    Stage("NF4, 7B", f"{NF4} mistral-7b", 180),
    Stage("longest text", CONTEXT, 120),
    Stage("sampling", SAMPLING, 120, PEERS),
    Stage("training", TRAINING, 150, PEERS),
    Stage("longest text, as on a T4", f"{CONTEXT} --turing", 120),
    Stage("sampling, as on a T4", f"{SAMPLING} --turing", 120, PEERS),
    Stage("training, as on a T4", f"{TRAINING} --turing", 150, PEERS),
)


@dataclass
class Outcome:
    """The result of a stage."""

    name: str
    command: str
    status: str  # done, failed, over time, skipped
    seconds: float
    said: str  # the last lines of output, if it failed or has no rows
    rows: list[dict]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this command."""

    out: Path = option(help="JSON file to write", metavar="FILE")
    minutes: float = option(9.5, "time limit of all stages together")
    device: str = option("auto", "cuda or cuda:N; auto: the first GPU")


def main() -> None:
    """Command line."""
    options = parse(Options, description=__doc__)
    device = choose_device(options.device)
    if device.type != "cuda":
        raise UserError("this measures a GPU, and PyTorch finds none")
    outcomes = run_stages(STAGES, minutes=options.minutes)
    where = environment(device, choose_dtype(device))
    rows = [row | {"stage": outcome.name} for outcome in outcomes for row in outcome.rows]
    write_json(options.out, {"rows": rows, "stages": [asdict(outcome) for outcome in outcomes], "environment": where})
    write_text(RESULTS, with_section(read_text(RESULTS), section(outcomes, where)))
    print(f"written to {options.out} and {RESULTS}")


def run_stages(stages: tuple[Stage, ...], *, minutes: float) -> list[Outcome]:
    """Run the stages in order while time is left; prints each result."""
    end = time.monotonic() + 60 * minutes
    outcomes = []
    for stage in stages:
        missing = [name for name in stage.needs if not is_there(name)]
        left = end - time.monotonic()
        if missing:
            outcome = _outcome(stage, "skipped", said=f"not installed: {', '.join(missing)}")
        elif left < 1:
            outcome = _outcome(stage, "skipped", said=f"no time left of {minutes:g} minutes")
        else:
            outcome = run_stage(stage, min(stage.seconds, left))
        print(
            f"{outcome.status:8}  {outcome.name:28} {outcome.seconds:6.1f} s  {outcome.said.splitlines()[-1:]}",
            flush=True,
        )
        outcomes.append(outcome)
    return outcomes


def is_there(name: str) -> bool:
    """Whether a package is installed, or the embedded model is cached."""
    return (cache_folder() / name).exists() if name == EMBEDDED else importlib.util.find_spec(name) is not None


def run_stage(stage: Stage, seconds: float) -> Outcome:
    """Run the stage's command with a time limit in seconds."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        command = [sys.executable, "-m", *stage.command.split(), *(["--out", str(out)] if stage.is_bench else [])]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=RESULTS.parents[1])
        except subprocess.TimeoutExpired:
            took = time.monotonic() - started
            return _outcome(stage, "over time", seconds=took, said=f"stopped after {seconds:.0f} s")
        took = time.monotonic() - started
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        if done.returncode:
            return _outcome(stage, "failed", seconds=took, said=said)
        rows = read_json(out)["rows"] if stage.is_bench else []
        return _outcome(stage, "done", seconds=took, said="" if rows else said, rows=rows)


def _outcome(stage: Stage, status: str, *, said: str, seconds: float = 0.0, rows: Sequence[dict] = ()) -> Outcome:
    return Outcome(stage.name, stage.command, status=status, seconds=seconds, said=said, rows=list(rows))


def section(outcomes: list[Outcome], where: dict[str, str]) -> str:
    """The section for RESULTS.md: a row per figure, and one per stage without figures."""
    lines = [
        HEADING,
        "",
        f"`make gpu` · {time.strftime('%Y-%m-%d')} · {where['device']} · torch {where['torch']} · {where['dtype']}",
        "",
        "| stage | figure | ours | theirs | unit | ratio | command |",
        "|---|---|---|---|---|---|---|",
    ]
    for outcome in outcomes:
        for row in outcome.rows:
            theirs, ratio = ("" if row[key] is None else f"{row[key]:.3g}" for key in ("theirs", "ratio"))
            figures = f"{row['name']} | {row['ours']:.4g} | {theirs} | {row['unit']} | {ratio}"
            lines.append(f"| {outcome.name} | {figures} | `{outcome.command}` |")
        if not outcome.rows:
            said = re.sub(r"[|\s]+", " ", (outcome.said.splitlines() or [""])[-1])
            lines.append(f"| {outcome.name} | {outcome.status}: {said} | | | | | `{outcome.command}` |")
    return "\n".join(lines) + "\n"


def with_section(text: str, new: str) -> str:
    """RESULTS.md with its section "On a GPU" replaced, or appended."""
    before, found, rest = text.partition(HEADING + "\n")
    _, next_heading, after = rest.partition("\n## ")
    if not found:
        before = text.rstrip("\n") + "\n\n"
    return before + new + (f"\n## {after}" if next_heading else "")


if __name__ == "__main__":
    sys.exit(run_command(main))
