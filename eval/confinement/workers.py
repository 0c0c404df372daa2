"""The workers of the sandbox: processes that have Python loaded and fork one confined process per job."""

from __future__ import annotations

import contextlib
import queue
import site
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_SERVER = Path(__file__).with_name("server.py")


class Workers:
    """The workers (server.py), started as they are needed: each serves one job at a time."""

    def __init__(self, layers: tuple[str, ...]):
        self.layers = layers
        self._idle: queue.SimpleQueue = queue.SimpleQueue()

    @contextlib.contextmanager
    def one(self) -> Iterator[socket.socket]:
        """The channel of a worker that nobody else uses meanwhile. One that fails is not used again."""
        try:
            channel, process = self._idle.get_nowait()
        except queue.Empty:
            channel, process = self._start()
        try:
            yield channel
        except BaseException:
            _hang_up(channel, process)
            raise
        self._idle.put((channel, process))

    def _start(self) -> tuple[socket.socket, subprocess.Popen]:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, str(_SERVER), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=_environment(),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        return ours, process

    def close(self) -> None:
        """End the workers. No job may be running."""
        while not self._idle.empty():
            _hang_up(*self._idle.get())


def _hang_up(channel: socket.socket, process: subprocess.Popen) -> None:
    channel.close()
    process.wait()


def _environment() -> dict[str, str]:
    """Nothing of the caller's environment but what Python needs to find its packages. HOME is set for each job."""
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    python = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}
    places = {"PATH": "/usr/bin:/bin", "PYTHONUSERBASE": site.getuserbase()}
    return threads | python | places
