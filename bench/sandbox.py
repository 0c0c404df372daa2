"""Programs per second in the sandbox, against starting one Python process for each, as other harnesses do.

    python -m bench.sandbox --programs 500

A program has the size of a HumanEval solution (Chen et al. 2021) with its tests, which run separately from it at the
highest tier available. The other side has no protection at all: `python program.py`, and its exit code is trusted.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.measure import RunOptions, in_turn, report, row
from common.console import run_command
from common.options import option, parse
from sandbox.run import Job, protection, run_jobs

_PROGRAM = '''
from typing import List


def separate_paren_groups(paren_string: str) -> List[str]:
    """Split a text of several groups of nested parentheses into these groups; ignore spaces. Variant NUMBER.

    >>> separate_paren_groups('( ) (( )) (( )( ))')
    ['()', '(())', '(()())']
    """
    result, current, depth = [], [], 0
    for character in paren_string:
        if character == "(":
            depth += 1
            current.append(character)
        elif character == ")":
            depth -= 1
            current.append(character)
            if depth == 0:
                result.append("".join(current))
                current.clear()
    return result
'''
_TESTS = """
assert separate_paren_groups("(()()) ((())) () ((())()())") == ["(()())", "((()))", "()", "((())()())"]
assert separate_paren_groups("() (()) ((())) (((())))") == ["()", "(())", "((()))", "(((())))"]
assert separate_paren_groups("(()(())((())))") == ["(()(())((())))"]
assert separate_paren_groups("( ) (( )) (( )( ))") == ["()", "(())", "(()())"]
"""


def _ours(programs: list[str], processes: int | None) -> float:
    """Programs per second."""
    tests = {"source": _TESTS, "names": ["separate_paren_groups"]}
    jobs = [Job(str(number), program, tests=tests) for number, program in enumerate(programs)]
    start = time.monotonic()
    outcomes = run_jobs(jobs, processes=processes)
    seconds = time.monotonic() - start
    if any(outcome.outcome != "finished" for outcome in outcomes):
        raise RuntimeError("a correct program did not pass")
    return len(jobs) / seconds


def _theirs(programs: list[str], processes: int | None) -> float:
    """Programs per second."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(processes) as pool:
        files = [Path(folder, f"{number}.py") for number in range(len(programs))]
        for file, program in zip(files, programs, strict=True):
            file.write_text(program + _TESTS)
        start = time.monotonic()
        runs = list(pool.map(lambda file: subprocess.run([sys.executable, file]).returncode, files))
        seconds = time.monotonic() - start
    if any(runs):
        raise RuntimeError("a correct program did not pass")
    return len(programs) / seconds


@dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    """Options of this command."""

    programs: int = option(500, "programs per run")
    processes: int = option(2, "processes at once")


def main() -> None:
    """Command line."""
    options = parse(Options, description=__doc__)
    programs = [_PROGRAM.replace("NUMBER", str(number)) for number in range(options.programs)]
    tier = protection()["tier"]
    ours, theirs = in_turn(
        lambda: _ours(programs, options.processes), lambda: _theirs(programs, options.processes), options.runs
    )
    line = row("sandboxed programs", "programs/s", ours, theirs, note=f"at {tier}")
    report([line], device=torch.device("cpu"), dtype=torch.float32, peers=[], out=options.out)


if __name__ == "__main__":
    sys.exit(run_command(main))
