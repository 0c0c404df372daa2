"""Walk everything on the fake device, in this process.

python -m tests.cuda.fake OUT.json [PATTERN]     the figures of all walks, or of those with PATTERN in their name
python -m tests.cuda.fake --write                keep them as what the tests compare with: tests/cuda/figures.json
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

import tests.cuda.fake.device  # before all that imports torch
from common.console import UserError, run_command
from common.options import option, parse
from tests.cuda.fake import commands, tiny
from tests.cuda.fake.walks import WALKS

FIGURES = Path(__file__).parents[1] / "figures.json"


def walk_all(pattern: str = "", without: tuple[str, ...] = ()) -> dict[str, dict]:
    """name -> its figures, or "error": the traceback; "seconds" of processor time."""
    found = {}
    gc.disable()  # a walk makes many small objects, and no circles of them
    with tempfile.TemporaryDirectory() as scratch:
        at = Path(scratch) / "at"
        tiny.write(at)
        commands.write_data(at)
        for number, (name, walk) in enumerate(WALKS.items()):
            if pattern not in name or name in without:
                continue
            started, said, out = time.process_time(), io.StringIO(), Path(scratch) / str(number)
            try:
                with tests.cuda.fake.device.MODE, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                    found[name] = asdict(walk(at, out))
            except (Exception, SystemExit) as error:
                found[name] = {"error": f"{said.getvalue()[-2000:]}\n{traceback.format_exc()}", "kind": repr(error)}
            found[name]["seconds"] = round(time.process_time() - started, 2)
    return found


@dataclass(frozen=True)
class Options:
    """Options of this command."""

    out: Path | None = option(None, "file for the figures, JSON", positional=True)
    pattern: str = option("", "walk only what has this in its name", positional=True)
    without: tuple[str, ...] = option((), "names of walks to leave out", metavar="NAME", nargs="*")
    write: bool = option(False, f"write {FIGURES.name}, which the tests compare with")

    def __post_init__(self) -> None:
        """UserError unless there is one place to write to."""
        if (self.out is None) != self.write:
            raise UserError("give either OUT or --write")


def main() -> None:
    """Command line."""
    options = parse(Options, description=__doc__)
    found = walk_all(options.pattern, options.without)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1))
        return
    failed = [name for name, figures in found.items() if "error" in figures]
    if failed:
        raise UserError(f"nothing written: {', '.join(failed)} failed")
    for figures in found.values():
        del figures["seconds"]
    FIGURES.write_text(json.dumps(found, indent=1) + "\n")


sys.exit(run_command(main))
