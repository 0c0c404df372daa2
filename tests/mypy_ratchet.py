"""mypy on the tools: a file may have as many errors as mypy_errors.json says, and the counts only fall.

    python -m tests.mypy_ratchet

Where a file has become better its count is lowered: commit the file. Pyright holds the reading path to no error at all.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

COUNTS = Path(__file__).with_name("mypy_errors.json")


def judge(lines: list[str], allowed: dict[str, int]) -> tuple[list[str], dict[str, int]]:
    """The errors of every file that has more of them than `allowed`, and the counts that hold from now on."""
    errors = [line for line in lines if ": error: " in line]
    found = Counter(line.split(":")[0] for line in errors)
    worse = {file for file in found if found[file] > allowed.get(file, 0)}
    new = [line for line in errors if line.split(":")[0] in worse]
    return new, {file: min(found[file], count) for file, count in sorted(allowed.items()) if found[file]}


def main() -> int:
    """Run mypy as pyproject.toml configures it. 1 when a file got worse, 2 when mypy could not run."""
    done = subprocess.run([sys.executable, "-m", "mypy"], capture_output=True, text=True, cwd=COUNTS.parents[1])
    if done.returncode not in (0, 1):
        print(done.stdout + done.stderr)
        return 2
    allowed = json.loads(COUNTS.read_text(encoding="utf-8"))
    new, counts = judge(done.stdout.splitlines(), allowed)
    if new:
        print("\n".join(new))
        print(f"more errors than {COUNTS.name} allows in these files")
        return 1
    COUNTS.write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    print(f"mypy: {sum(counts.values())} errors left in {len(counts)} files, none new")
    return 0


if __name__ == "__main__":
    sys.exit(main())
