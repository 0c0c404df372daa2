"""One worker of the sandbox: a Python process that forks a new, freshly confined child for each job.

Started by workers.py as `python -m sandbox.server CHANNEL_FD`. It runs nothing foreign and never reads a job, so no
job finds the text of another in the memory that it inherits. It watches for what no kernel limit bounds (threads of
root, files if there is no mount of its own) and kills every process that a job leaves.
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

from sandbox.child import FILE_MEGABYTES, run
from sandbox.linux import be_reaper
from sandbox.places import python_paths

TICK = 0.05  # seconds between two checks of a job
MOST_THREADS = 64  # in all processes of a job
# The modules that answers import most often: loading them once saves most of the time.
PRELOADED = "bisect collections copy datetime decimal fractions functools hashlib heapq itertools math operator random"
PRELOADED += " re statistics string typing"


def _descendants(pid: int) -> list[int]:
    """The descendants of a process, nearest first; none if /proc does not list them."""
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
    """Bytes of the files below a folder, at least one block each."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += max(4096, os.lstat(os.path.join(parent, name)).st_blocks * 512)
    return total


def _watch(channel: socket.socket, folder: str) -> str | None:
    """Wait for the request to end the job, or until it exceeds a limit: then return which one."""
    while not select.select([channel], [], [], TICK)[0]:
        if sum(map(_threads, _descendants(os.getpid()))) > MOST_THREADS:
            return f"more than {MOST_THREADS} threads or processes"
        if _size(folder) > FILE_MEGABYTES << 20:
            return f"more than {FILE_MEGABYTES} MiB of files"
    return None


def _end(child: int) -> None:
    """Kill the job's process and all its descendants, even detached ones: orphans become children of this process."""
    with contextlib.suppress(OSError):
        os.killpg(child, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):  # none is left
        while True:
            for pid in _descendants(os.getpid()):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            # all that have ended, before the next look: on a busy machine a fork bomb leaves thousands
            while os.waitpid(-1, os.WNOHANG)[0] != 0:
                pass
            select.select([], [], [], 0.001)


def _hide_the_project() -> None:
    """Hide the project's folder and modules, since a job may import a module of any name."""
    sys.path.pop(0)
    for name in [name for name in sys.modules if name.partition(".")[0] == "sandbox"]:
        del sys.modules[name]


def main() -> None:
    """Send "ready", then serve until the channel closes: per job a request with three files in, and a reply out."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    sys.argv = [""]
    _hide_the_project()
    for name in PRELOADED.split():
        importlib.import_module(name)
    paths = python_paths()
    if sys.platform == "linux":
        be_reaper()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.freeze()  # so that a child's garbage collector does not copy these pages
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
            run(settings, *handles)
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
