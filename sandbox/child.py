"""The process that runs foreign code: confines itself, runs the job, reports over a private pipe.

Forked by server.py. The report carries a secret that stays unread in a pipe of its own until the last line has run, so
that neither an exit code nor anything printed can pass for a finished run. Code that searches its own process for that
pipe could still forge a report: nothing within one process can prevent that. Therefore a job's `tests` run in another
process than its program, which has neither pipe; and where the two must share one, expected values never enter it.

Imports nothing of the project except its neighbours: it runs inside the sandbox.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys

from .execute import run_program, run_tests, serve_program
from .layers import drop_privileges, enter_namespaces, landlock
from .linux import die_with_parent
from .mounts import private_root
from .peer import Peer, PeerEnded
from .seccomp import install_filter

FILE_MEGABYTES = 64  # limit of one file, and of all files of a job together
_DETAIL_LIMIT = 500  # characters


def run(settings: dict, job_fd: int, report_fd: int, secret_fd: int) -> None:
    """Confine this process, read the job, run it, report; never returns."""
    read, write, dumps, leave = os.read, os.write, json.dumps, os._exit  # the job may replace the modules' own
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    os.close(nowhere)
    os.chdir(settings["folder"])
    os.environ.update(HOME=settings["folder"], TMPDIR=settings["folder"])
    try:
        peers = _confine(settings, (job_fd, report_fd, secret_fd))
    except OSError as error:
        report = {"outcome": "not confined", "got": [], "exceptions": [], "detail": str(error)}
    else:
        with open(job_fd, "rb") as file:
            job = json.load(file)
        report = run_tests(job, peers) if peers else run_program(job)
    report["detail"] = report["detail"].strip()[-_DETAIL_LIMIT:]
    data = dumps(report | {"secret": read(secret_fd, 64).decode()}).encode()
    while data:
        data = data[write(report_fd, data) :]
    leave(0)  # threads and exit handlers of the job do not outlive it


def _confine(settings: dict, private: tuple[int, ...]) -> list[Peer]:
    """Apply exactly the layers in the settings. Raises OSError if one of them fails.

    settings  "folder", "layers", "seconds", "megabytes", "readable", "listing", "apart", "command"
    private   file descriptors of this process that no process forked here may keep
    Returns the peers that run the program, as many as "apart" says: those of tests that run in a process of their own.
    """
    if sys.platform == "linux":
        die_with_parent()
    if "namespaces" in settings["layers"]:
        enter_namespaces()
        child = os.fork()
        if child:
            for handle in private:
                os.close(handle)  # else the reader of the report would wait for this copy, too
            status = os.waitpid(child, 0)[1]
            os._exit(1 if status else 0)
        die_with_parent()
        private_root(settings["folder"], settings["readable"], FILE_MEGABYTES)
    if settings["apart"] == 2 and sys.platform == "linux":  # two compared programs take turns on one core
        os.sched_setaffinity(0, {random.choice([*os.sched_getaffinity(0)])})
    peers: list[Peer] = []
    for _ in range(settings["apart"]):
        peers.append(_fork_program(settings, (*private, *(handle for peer in peers for handle in peer.handles))))
    _give_up_rights(settings)
    return peers


def _fork_program(settings: dict, private: tuple[int, ...]) -> Peer:
    """Fork the process for the program before this one reads the tests, so that its memory has never held them."""
    to_program, from_program = os.pipe(), os.pipe()
    process = os.fork()
    if process:
        os.close(to_program[0])
        os.close(from_program[1])
        return Peer(from_program[0], to_program[1], trusting=False, process=process)
    for handle in (*private, to_program[1], from_program[0]):
        os.close(handle)
    try:
        if sys.platform == "linux":
            die_with_parent()
        _give_up_rights(settings, execute=settings["command"] is not None)
        if settings["command"] is not None:
            ends = (to_program[0], from_program[1])
            for end in ends:
                os.set_inheritable(end, True)
            os.execv(settings["command"][0], [*settings["command"], *map(str, ends)])
        serve_program(Peer(to_program[0], from_program[1], trusting=True))
    except PeerEnded:
        pass  # the tests are over
    finally:
        os._exit(0)


def _give_up_rights(settings: dict, *, execute: bool = False) -> None:
    """Set the limits, drop all capabilities, then install the filters, which only restrict further."""
    _set_limits(settings)
    if settings["layers"]:
        drop_privileges()
    if "landlock" in settings["layers"]:
        own_root = "namespaces" in settings["layers"]  # a root that contains nothing else
        landlock(settings["folder"], ["/"] if own_root else settings["readable"], listing=settings["listing"])
    if "seccomp" in settings["layers"]:
        install_filter(metadata="namespaces" in settings["layers"], execute=execute)


def _set_limits(settings: dict) -> None:
    limits = {
        "RLIMIT_CORE": 0,
        "RLIMIT_CPU": int(settings["seconds"]) + 2,  # in case the parent is gone; else its wall clock comes first
        "RLIMIT_FSIZE": FILE_MEGABYTES << 20,
        "RLIMIT_NOFILE": 256,
        "RLIMIT_AS": settings["megabytes"] << 20,
    }
    for name, value in limits.items():
        if name == "RLIMIT_AS" and sys.platform == "darwin":
            continue  # setting it raises there; `protection` reports memory as unlimited
        hard = resource.getrlimit(getattr(resource, name))[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(getattr(resource, name), (value, value))
