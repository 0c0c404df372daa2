"""Linux system calls through the C library. Imports nothing of the project: it runs inside the sandbox."""

from __future__ import annotations

import ctypes
import os
import signal

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def libc_call(name: str, *arguments) -> int:
    """Call a function of the C library."""
    return getattr(_LIBC, name)(*arguments)


def check(result: int, what: str) -> int:
    """`result`, or OSError if it is negative, as the result of a failed call is."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def syscall(number: int, what: str, *arguments) -> int:
    """Make a system call by its number. Raises OSError."""
    return check(_LIBC.syscall(ctypes.c_long(number), *arguments), what)


def prctl(what: str, option: int, *arguments) -> None:
    """prctl(2) with up to four arguments. Raises OSError."""
    check(_LIBC.prctl(option, *arguments, *(0,) * (4 - len(arguments))), f"prctl({what})")


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    prctl("PDEATHSIG", _PR_SET_PDEATHSIG, int(signal.SIGKILL))


def be_reaper() -> None:
    """Have the kernel make orphaned descendants children of this process, so that it can kill them."""
    prctl("CHILD_SUBREAPER", _PR_SET_CHILD_SUBREAPER, 1)
