"""The parts of the file system that every sandboxed process can read, besides its own folder and those of its job.

Imports nothing of the project: it is used inside and outside of the sandbox.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives",
)  # fmt: skip
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


def python_paths() -> list[str]:
    """The folders of this interpreter, of everything it can import, and of the system libraries that these load."""
    paths = [*SYSTEM, sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path]
    return [path for path in dict.fromkeys(paths) if path.startswith("/") and path != "/" and os.path.exists(path)]


def outermost(paths: Iterable[str]) -> list[str]:
    """The paths that exist and their link targets, without those below another: what a new root has to contain."""
    places: list[str] = []
    for place in sorted({place for path in paths for place in (path, os.path.realpath(path))}):
        if os.path.exists(place) and not any(place.startswith(f"{shown}/") for shown in places):
            places.append(place)
    return places
