"""Work in several processes of this interpreter, one JSON line a piece.

Item n goes to process n mod N and the answers are read back in order: the number of processes affects nothing but the
time. Workers import only the module of their function; those of `multiprocessing` would import the main script, and
torch with it, which costs each of them seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

FEW = 200  # items from which another process pays off


def processes_for(items: int) -> int:
    """How many processes such items are worth, if each takes some milliseconds: at most one per core."""
    return max(1, min(os.cpu_count() or 1, items // FEW))


def answers(function: Callable[[Any], Any], items: Sequence[Any], *, processes: int) -> Iterator[Any]:
    """function(item) of each item, in order, as they come. Items and answers are what JSON can hold.

    function  of a module, found there by its name; it must not print
    """
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(_worker(function, items[n::processes])) for n in range(processes)]
        for number, item in enumerate(items):
            line = workers[number % processes].stdout.readline()
            if not line:
                raise RuntimeError(f"the process that works on {item} has ended")
            yield json.loads(line)


@contextlib.contextmanager
def _worker(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[subprocess.Popen]:
    """A process that answers these. It blocks when its output is not read: a pipe holds 64 KiB."""
    name = function.__name__
    program = f"from {function.__module__} import {name}; from common.workers import answer; answer({name})"
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        file.writelines(json.dumps(item) + "\n" for item in items)
        file.seek(0)
        home = Path(__file__).resolve().parents[1]
        worker = subprocess.Popen(
            [sys.executable, "-c", program], cwd=home, stdin=file, stdout=subprocess.PIPE, encoding="utf-8"
        )
        try:
            yield worker
        finally:
            worker.kill()
            worker.communicate()


def answer(function: Callable[[Any], Any]) -> None:
    """In a worker: answer the items on standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C and ends us
    for line in sys.stdin:
        print(json.dumps(function(json.loads(line))), flush=True)
