"""What a sandboxed process sees of the file system beside its own folder and what the job names.

Imports nothing of the project: it is read inside and outside of the sandbox.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/alternatives",
)
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


def python_paths() -> list[str]:
    """Where this interpreter and what it can import lie, and what libraries of the system they load."""
    paths = [*SYSTEM, sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path]
    return [path for path in dict.fromkeys(paths) if path.startswith("/") and path != "/" and os.path.exists(path)]


def outermost(paths: Iterable[str]) -> list[str]:
    """Those that exist and what they link to, without what lies below another: what a new root has to show."""
    places: list[str] = []
    for place in sorted({place for path in paths for place in (path, os.path.realpath(path))}):
        if os.path.exists(place) and not any(place.startswith(f"{shown}/") for shown in places):
            places.append(place)
    return places
