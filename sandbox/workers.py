"""The workers of the sandbox: processes that have Python loaded and fork one confined child per job."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import site
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from sandbox.places import DEVICES, outermost, python_paths

_HERE = Path(__file__).resolve().parent


class Workers:
    """The workers (server.py), started on demand; each serves one job at a time, in a folder below `folder`.

    readable  all folders that any job may read, for "bubblewrap", whose root is built when a worker starts
    """

    def __init__(self, layers: tuple[str, ...], readable: Iterable[str] = ()):
        self.layers, self._readable = layers, readable
        self._temporary = tempfile.TemporaryDirectory(prefix="tritune-jobs-", ignore_cleanup_errors=True)
        self.folder = os.path.realpath(self._temporary.name)
        self._idle: queue.SimpleQueue = queue.SimpleQueue()

    @contextlib.contextmanager
    def one(self) -> Iterator[socket.socket]:
        """The channel of a worker, for exclusive use. A worker that fails is not used again."""
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
        """Start a worker. Raises RuntimeError if that fails."""
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "sandbox.server", str(theirs.fileno())]
        if "bubblewrap" in self.layers:
            command = [*bubblewrap(self.folder, self._readable), *command]
        with theirs:
            process = subprocess.Popen(
                command,
                cwd=_HERE.parent,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=_environment(),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        if not ours.recv(16):
            raise RuntimeError(f"a worker of the sandbox failed to start: {_hang_up(ours, process)}")
        return ours, process

    def close(self) -> None:
        """End the workers. No job may be running."""
        while not self._idle.empty():
            _hang_up(*self._idle.get())
        self._temporary.cleanup()


def _hang_up(channel: socket.socket, process: subprocess.Popen) -> str:
    """End a worker; returns its stderr."""
    channel.close()
    return process.communicate()[1].decode(errors="replace").strip()


def bubblewrap(folder: str, readable: Iterable[str]) -> list[str]:
    """The command prefix that gives a process namespaces and a root of its own, as layers.py and mounts.py do.

    For systems that allow this only to programs with a profile, as AppArmor may on Ubuntu. See bwrap(1).
    """
    if shutil.which("bwrap") is None:
        raise RuntimeError("bwrap is not installed")
    words = ["bwrap", "--unshare-all", "--cap-drop", "ALL", "--proc", "/proc"]
    for place in DEVICES:
        words += ["--dev-bind", place, place]
    for place in outermost((*python_paths(), str(_HERE), *readable)):
        words += ["--ro-bind", place, place]
    return [*words, "--bind", folder, folder, "--remount-ro", "/", "--"]


def _environment() -> dict[str, str]:
    """A new environment, with only what Python needs to find its packages. HOME is set for each job."""
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    python = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}
    places = {"PATH": "/usr/bin:/bin", "PYTHONUSERBASE": site.getuserbase()}
    return threads | python | places
