"""The layers that a process puts on itself before the first foreign line runs. Linux, by system calls.

None of them needs a privilege or a program besides Python:

- `namespaces`  its own user, network, process and mount namespace: no network, no other process visible, and only the
                files that Python needs (namespaces(7); mounts.py builds the root)
- `seccomp`     a system-call filter: no socket, no new process, no access to other processes (seccomp.py)
- `landlock`    writing only below the task folder, reading only there and where Python needs it (landlock(7))

If a process may not create namespaces but the program bwrap may, workers are started through bwrap (workers.py).

Imports nothing of the project except its neighbours: it runs inside the sandbox.
"""

from __future__ import annotations

import ctypes
import os
import struct

from .linux import check, libc_call, prctl, syscall

# linux/sched.h: the namespaces that unshare(2) creates
_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
_CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38  # linux/prctl.h
_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h

# linux/landlock.h: rights to files; those of folders include the rights below them
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_CHANGE_DIR = sum(1 << bit for bit in range(4, 13))  # remove and make entries of every kind
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15  # since versions 2, 3 and 5
_READING = _EXECUTE | _READ_FILE | _READ_DIR
_BIND_AND_CONNECT_TCP = 0b11  # since version 4
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11  # since version 6
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # system calls, the same on every machine
_GET_VERSION, _RULE_PATH_BENEATH = 1, 1


def enter_namespaces() -> None:
    """Leave the host's user, network, process and mount namespaces; the next fork is process 1 of the new one.

    Raises OSError if the kernel, the container or its policy does not allow it.
    """
    uid, gid = os.getuid(), os.getgid()
    kinds = _CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWPID | _CLONE_NEWNS | _CLONE_NEWIPC | _CLONE_NEWUTS
    check(libc_call("unshare", kinds), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def drop_privileges() -> None:
    """Give up every capability for good; the two filters may be set without any."""
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)  # of this process
    check(libc_call("capset", header, bytes(24)), "capset")  # effective, permitted, inheritable: none
    prctl("NO_NEW_PRIVS", _PR_SET_NO_NEW_PRIVS, 1)
    prctl("DUMPABLE", _PR_SET_DUMPABLE, 0)


def landlock(folder: str, readable: list[str], *, listing: bool) -> None:
    """Allow writing only below `folder`, reading only there and below `readable`; no TCP, no signal to others.

    listing  make the names in all folders visible, since pytest lists the folders above a test
    Raises OSError if the kernel has no Landlock.
    """
    version = syscall(_CREATE_RULESET, "landlock", None, ctypes.c_size_t(0), ctypes.c_uint(_GET_VERSION))
    every = _READING | _WRITE_FILE | _CHANGE_DIR
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        every |= right if version >= since else 0
    fields = [every]  # struct landlock_ruleset_attr: everything named here is refused unless a rule allows it
    if version >= 4:
        fields.append(_BIND_AND_CONNECT_TCP)
    if version >= 6:
        fields.append(_ABSTRACT_SOCKETS_AND_SIGNALS)
    attributes = struct.pack(f"{len(fields)}Q", *fields)
    ruleset = syscall(_CREATE_RULESET, "landlock", attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))

    of_files = (_EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE) & every  # all that a rule for a file may grant
    rules = [(folder, every), *((path, _READING) for path in readable)]
    rules += [("/", _READ_DIR)] if listing else []
    rules += [(path, _READING | of_files) for path in ("/dev/null", "/dev/zero", "/dev/full")]
    rules += [(path, _READING) for path in ("/dev/urandom", "/dev/random", "/proc/cpuinfo", "/proc/meminfo")]
    for path, rights in rules:
        if os.path.exists(path):
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rule = struct.pack("=Qi", rights if os.path.isdir(path) else rights & of_files, opened)
            syscall(_ADD_RULE, "landlock rule", ruleset, ctypes.c_uint(_RULE_PATH_BENEATH), rule, ctypes.c_uint(0))
            os.close(opened)
    syscall(_RESTRICT_SELF, "landlock", ruleset, ctypes.c_uint(0))
    os.close(ruleset)
