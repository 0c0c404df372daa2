"""What protects this machine while foreign code runs: tiers of layers, each probed before it is trusted."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from common.console import UserError
from sandbox.job import Job
from sandbox.supervise import run_one
from sandbox.workers import Workers

TIERS = (  # strongest first; each cuts off the network and hides the files, by its first or its last layer
    ("namespaces", "seccomp", "landlock"),
    ("namespaces", "seccomp"),
    ("bubblewrap", "seccomp", "landlock"),
    ("seccomp", "landlock"),
)
UNSAFE_TIERS = (("seccomp",), ())  # on request only: the user's files stay readable

_PROBE = """
import ctypes, os, socket
tried = {}
def attempt(name, action):
    try:
        action()
        tried[name] = "allowed"
    except OSError as error:
        tried[name] = os.strerror(error.errno)
def connect():
    with socket.socket() as s:
        s.settimeout(0.5)
        s.connect(("127.0.0.1", PORT))
def fork():
    if os.fork() == 0:
        os._exit(0)
def write():
    with open(OUTSIDE + ".new", "w") as file:
        file.write("x")
attempt("network", connect)
attempt("processes", fork)
attempt("write outside", write)
attempt("read outside", lambda: open(OUTSIDE).close())
"""


@dataclass(frozen=True)
class Probed:
    """The tier that was found.

    layers   None if no tier works
    answers  what the probe got for each attempt: an error message, or "allowed"
    missing  the stronger tiers, each with the reason why it was not used
    """

    layers: tuple[str, ...] | None
    answers: Mapping[str, str]
    missing: tuple[str, ...]


def probe(layers: tuple[str, ...]) -> dict[str, str]:
    """What a child under these layers gets when it connects to a listening port, forks, and writes and reads elsewhere.

    Raises RuntimeError if a layer cannot be set.
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        tempfile.NamedTemporaryFile() as outside,
        contextlib.closing(Workers(layers)) as workers,
    ):
        program = _PROBE.replace("PORT", str(server.getsockname()[1])).replace("OUTSIDE", repr(outside.name))
        job = Job("probe", program, examples=[{"source": "for name in tried: print(name, '=', tried[name])"}])
        outcome = run_one(job, workers)
        Path(outside.name + ".new").unlink(missing_ok=True)
    if outcome.outcome != "finished":
        raise RuntimeError(f"the sandbox's probe ended with {outcome.outcome}: {outcome.detail}")
    return dict(line.split(" = ", 1) for line in outcome.got[0].splitlines())


@functools.cache
def safe_tier() -> Probed:
    """The strongest tier that can be set and refuses every attempt of the probe."""
    missing: list[str] = []
    for layers in TIERS if sys.platform == "linux" else ():
        try:
            answers = probe(layers)
        except RuntimeError as error:
            missing.append(f"{'+'.join(layers)}: {error}")
            continue
        allowed = [attempt for attempt, answer in answers.items() if answer == "allowed"]
        if not allowed:
            return Probed(layers, MappingProxyType(answers), tuple(missing))
        missing.append(f"{'+'.join(layers)}: allows {', '.join(allowed)}")
    return Probed(None, MappingProxyType({}), tuple(missing))


@functools.cache
def unsafe_tier() -> Probed:
    """The strongest of the tiers that leave the user's files readable."""
    for layers in UNSAFE_TIERS:
        try:
            return Probed(layers, MappingProxyType(probe(layers)), ())
        except RuntimeError:
            continue
    raise UserError("no process can be started for generated code on this machine")


def choose_layers(allow_unsafe_exec: bool) -> tuple[str, ...]:
    """The layers for every job on this machine. UserError if they are not safe, unless `allow_unsafe_exec`."""
    if os.name != "posix":
        raise UserError("running generated code needs Linux or macOS: on Windows use WSL")
    safe = safe_tier()
    if safe.layers is not None:
        return safe.layers
    if allow_unsafe_exec:
        return unsafe_tier().layers or ()
    why = "; ".join(safe.missing) or f"no sandbox for {sys.platform}"
    raise UserError(
        f"generated code could reach the network or your files here ({why}). Use Linux with user namespaces, or with "
        "seccomp and Landlock, or accept the risk with --allow-unsafe-exec"
    )


def protection(*, allow_unsafe_exec: bool = False) -> dict:
    """The active protections, found by trying them out; recorded in every result file.

    Raises UserError if the network and the files cannot be cut off, unless `allow_unsafe_exec`.
    """
    layers = choose_layers(allow_unsafe_exec)
    safe = safe_tier()
    is_safe = safe.layers is not None
    answers = safe.answers if is_safe else unsafe_tier().answers
    return {
        "tier": "+".join(layers if is_safe else ("unsafe", *layers)),
        "network": answers["network"],
        "processes": answers["processes"],
        "filesystem": answers["write outside"],
        "reading": answers["read outside"],
        "memory": "unlimited" if sys.platform == "darwin" else "RLIMIT_AS",
        "threads": "watched" if sys.platform == "linux" else "unlimited",
        "wall_clock": "SIGKILL to all processes of the job",
        "proof": "secret over a private pipe after the last line; expected outputs or tests in another process",
        "not_available": list(safe.missing),
    }
