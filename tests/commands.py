"""Commands run as a user types them, without the two seconds that a fresh process spends on importing torch.

run    in the test's own process: for what a command prints, writes and refuses
Child  in a process of its own, for what only that shows: terminals, kills, several at once. It is forked from a server
       that has imported what the scripts need and has computed nothing.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 600  # seconds after which a child is taken to hang: a hundred times what it needs, whatever else is running
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.commands", "train_cpt", "train_sft", "train_embed", "chat", "search"])


def run(*arguments, **environment) -> subprocess.CompletedProcess:
    """Run `python script.py …` or `python -m module …`; returns what subprocess.run would.

    An exception that would end a process with a traceback is raised. The output of child processes is not captured.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "stdin", io.StringIO()),
        mock.patch.object(sys, "argv", sys.argv),
        mock.patch.dict(os.environ, environment),
    ):
        try:
            execute(*arguments)
            status = 0
        except SystemExit as end:
            status = end.code or 0
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


def execute(*arguments) -> None:
    """Run a script or `-m module` as the interpreter would, with its `if __name__ == "__main__"` part."""
    name, *rest = [str(argument) for argument in arguments if argument != "-m"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a test may have imported the module before
        if arguments[0] == "-m":
            sys.argv = [name, *rest]
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        else:
            sys.argv = [str(ROOT / name), *rest]
            runpy.run_path(sys.argv[0], run_name="__main__")


class Child:
    """A command in a process of its own, from the repository's root: as much of subprocess.Popen as the tests need.

    stdin     the text that it reads
    terminal  the path of a terminal to be its own, for all three streams, instead
    """

    def __init__(self, *arguments, stdin: str = "", terminal: str = "", **environment) -> None:
        self.folder = tempfile.TemporaryDirectory()
        streams = [terminal or os.path.join(self.folder.name, name) for name in ("stdin", "stdout", "stderr")]
        self.stdout, self.stderr = streams[1:]
        if not terminal:
            Path(streams[0]).write_text(stdin, encoding="utf-8")
        environment = dict(os.environ) | {name: str(value) for name, value in environment.items()}
        arguments = [str(argument) for argument in arguments]
        self.process = FORKS.Process(target=_in_the_child, args=(arguments, environment, streams, bool(terminal)))
        self.process.start()

    @property
    def returncode(self) -> int | None:
        """Its exit status, or minus the signal that ended it; None while it runs."""
        return self.process.exitcode

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        self.process.join(PATIENCE)
        assert self.returncode is not None, "the child hangs"
        return self.returncode

    def communicate(self) -> tuple[str, str]:
        """What it wrote to stdout and stderr, once it has ended."""
        self.wait()
        return tuple(Path(path).read_text(encoding="utf-8") for path in (self.stdout, self.stderr))

    def send_signal(self, number: int) -> None:
        """As os.kill does, unless it has ended."""
        if self.returncode is None:
            os.kill(self.process.pid, number)


def _in_the_child(arguments: list[str], environment: dict[str, str], streams: list[str], has_terminal: bool) -> None:
    if has_terminal:
        os.setsid()  # the first terminal that it opens from now on is its own
    for number, (path, flags) in enumerate(zip(streams, (os.O_RDONLY, *2 * [os.O_WRONLY | os.O_CREAT]), strict=True)):
        opened = os.open(path, os.O_RDWR if has_terminal else flags)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, buffering=1, encoding="utf-8", closefd=False) for number, mode in enumerate("rww")
    )
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background has it ignored
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    execute(*arguments)


def run_killed(*arguments, grows: Path, kills: int = 3) -> int:
    """Run a command until it ends by itself, killed before that each time that it has written something anew.

    grows   the folder that it writes to
    Returns how often it was killed; a command that ends early is not. Raises AssertionError if it fails by itself.
    """
    killed = 0
    while True:
        before, child = _written(grows), Child(*arguments)
        while child.returncode is None and (killed == kills or _written(grows) == before):
            time.sleep(0.02)
        if child.returncode is None:
            child.send_signal(signal.SIGKILL)
            killed += 1
        error = child.communicate()[1]
        if child.returncode == 0:
            return killed
        assert child.returncode == -signal.SIGKILL, error


def _written(folder: Path) -> set[tuple[str, int]]:
    """The files below a folder with their sizes."""
    found = set()
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a temporary file
            found.add((str(path), path.stat().st_size))
    return found
