"""One worker of the sandbox: a Python that is loaded once and forks a new, freshly confined process per job.

Started by workers.py as `python -m sandbox.server CHANNEL_FD`. It runs nothing foreign and never sees what is in a job,
so that no job finds another's text in the memory that it inherits. It watches the job for what no limit of the kernel
bounds (threads of root, files where there is no own mount) and ends every process that the job leaves.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys

from sandbox import job
from sandbox.layers import be_reaper
from sandbox.places import python_paths

TICK = 0.05  # seconds between two looks at a job
MOST_THREADS = 64  # of all processes of a job
# What answers import most; loading it once is most of the gain.
PRELOADED = "bisect collections copy datetime decimal fractions functools hashlib heapq itertools math operator random"
PRELOADED += " re statistics string typing"


def _descendants(pid: int) -> list[int]:
    """The processes that descend from `pid`, nearest first; none where /proc does not tell."""
    found = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                found += map(int, file.read().split())
    return found + [below for child in found for below in _descendants(child)]


def _threads(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def _size(folder: str) -> int:
    """Bytes of the files below a folder, at least a block each."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += max(4096, os.lstat(os.path.join(parent, name)).st_blocks * 512)
    return total


def _watch(channel: socket.socket, folder: str) -> str | None:
    """Wait for the word to end the job. Ends it earlier, and says why, when it takes more than it may."""
    while not select.select([channel], [], [], TICK)[0]:
        if sum(map(_threads, _descendants(os.getpid()))) > MOST_THREADS:
            return f"more than {MOST_THREADS} threads or processes"
        if _size(folder) > job.FILE_MEGABYTES << 20:
            return f"more than {job.FILE_MEGABYTES} MiB of files"
    return None


def _end(child: int) -> None:
    """Kill the job's process and all that descend from it, however detached: orphans become this process's children."""
    with contextlib.suppress(OSError):
        os.killpg(child, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            for pid in _descendants(os.getpid()):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                select.select([], [], [], 0.001)


def _hide_the_project() -> None:
    """A job may import a module of any name: it finds neither the project's folder nor its modules."""
    sys.path.pop(0)
    for name in [name for name in sys.modules if name.partition(".")[0] == "sandbox"]:
        del sys.modules[name]


def main() -> None:
    """Serve until the channel closes: say "ready"; then a request and three files in, one reply per job out."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    sys.argv = [""]
    _hide_the_project()
    for name in PRELOADED.split():
        importlib.import_module(name)
    paths = python_paths()
    if sys.platform == "linux":
        be_reaper()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.freeze()  # a child's first collection then copies none of these pages
    channel.sendall(b"ready")
    while True:
        message, handles, _, _ = socket.recv_fds(channel, 1 << 16, 3)
        if not message:
            return
        settings = json.loads(message)
        settings["readable"] += paths
        child = os.fork()
        if child == 0:
            channel.close()
            os.setsid()
            job.run(settings, *handles)
        for handle in handles:
            os.close(handle)
        why = _watch(channel, settings["folder"])
        _end(child)
        if why is not None:
            select.select([channel], [], [])
        if not channel.recv(16):
            return
        channel.sendall(json.dumps(why).encode())


if __name__ == "__main__":
    main()
