"""A root folder of its own for a process in a new mount namespace: what Python needs, read-only, and nothing else.

Imports nothing of the project except its neighbours: it runs inside the sandbox.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct

from .linux import check, libc_call, syscall
from .places import DEVICES, outermost

# linux/mount.h and linux/fcntl.h
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 8, 0x1000, 0x4000, 0x40000
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID = 1, 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MNT_DETACH = 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}  # system calls without a function in the C library
_MOUNT_SETATTR = 442
_MOST_FILES = 10_000  # inodes of the task folder


def private_root(folder: str, readable: list[str], megabytes: int) -> None:
    """Keep only `readable` (read-only), five devices and an empty `folder` of at most `megabytes`; no other file.

    Call in a new mount and process namespace, as its first process. Raises OSError.
    """
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    _mount("tmpfs", folder, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=1m,mode=0755")
    for place in outermost((*readable, *DEVICES)):
        _show(place, folder + place)
    os.makedirs(folder + "/proc")
    with contextlib.suppress(OSError):  # a container that masks parts of /proc allows no new one: then there is none
        _mount("proc", folder + "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    os.makedirs(folder + folder, exist_ok=True)
    _set_read_only(folder)
    options = f"size={megabytes}m,nr_inodes={_MOST_FILES},mode=0700"
    _mount("tmpfs", folder + folder, "tmpfs", _MS_NOSUID | _MS_NODEV, options)
    os.chdir(folder)
    syscall(_PIVOT_ROOT[os.uname().machine], "pivot_root", b".", b".")
    check(libc_call("umount2", b".", _MNT_DETACH), "umount2")
    os.chdir(folder)


def _show(place: str, target: str) -> None:
    """Bind-mount `place` at `target`."""
    if os.path.isdir(place):
        os.makedirs(target)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        open(target, "x").close()
    _mount(os.path.realpath(place), target, None, _MS_BIND | _MS_REC)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str = "") -> None:
    encoded = [os.fsencode(text) if text else None for text in (source, target, kind)]
    check(libc_call("mount", *encoded, ctypes.c_ulong(flags), options.encode() or None), f"mount({target})")


def _set_read_only(path: str) -> None:
    attributes = struct.pack("QQQQ", _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID, 0, 0, 0)  # struct mount_attr
    arguments = (_AT_FDCWD, ctypes.c_char_p(os.fsencode(path)), ctypes.c_uint(_AT_RECURSIVE), attributes)
    syscall(_MOUNT_SETATTR, "mount_setattr", *arguments, ctypes.c_size_t(32))
