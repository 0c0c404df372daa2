"""What a sandboxed process may no longer do, set by itself before the first foreign line runs. Linux, by system calls.

Three layers, none of which needs a privilege or a program beside Python:

- `namespaces`  an own user, network, process and mount namespace: no route to anywhere, no other process in sight,
                and of the files only those that Python needs (namespaces(7); the root is made by mounts.py)
- `seccomp`     a system-call filter: no socket, no new process, nothing done to other processes (seccomp(2))
- `landlock`    writing only below the task folder, reading only there and what Python needs (landlock(7))

Where a process may make no namespaces but the program bwrap may, a worker is started by that (workers.py).

Imports nothing of the project: it runs inside the sandbox.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

_LIBC = ctypes.CDLL(None, use_errno=True)

_CLONE = {"thread": 0x10000, "mount": 0x20000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000}
_CLONE |= {"pid": 0x20000000, "network": 0x40000000}
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP = 1, 4, 22
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 36, 38

# System calls that are refused whatever their arguments: the number on x86-64 and on aarch64, which has no fork.
_REFUSED = (
    # ways to others than through a file; io_uring does by its own queue what is refused here
    {"socket": (41, 198), "connect": (42, 203), "io_uring_setup": (425, 425)}
    # new processes and other programs; of clone, only threads (below)
    | {"fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281)}
    # the memory and the open files of other processes
    | {"ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272)}
    | {"process_madvise": (440, 440), "process_mrelease": (448, 448), "pidfd_open": (434, 434)}
    | {"pidfd_getfd": (438, 438)}
    # signals to others, and their priority; kill and tgkill reach the process itself only (below)
    | {"tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240)}
    | {"pidfd_send_signal": (424, 424), "setpriority": (141, 140), "ioprio_set": (251, 30)}
    # out of the namespaces and the root, or into further ones, where a process has every capability again
    | {"unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "chroot": (161, 51)}
    # memory that no limit of a process counts while it is not mapped; of System V and POSIX, it outlives the process
    | {"memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "msgget": (68, 186)}
    | {"semget": (64, 190), "mq_open": (240, 180)}
    # large parts of the kernel that no answer needs, and that were often the way into it
    | {"bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282)}
    | {"add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219)}
)
_MACHINES = ("x86_64", "aarch64")
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE_CALL = {"x86_64": 56, "aarch64": 220}
# kill, tgkill: allowed for the process itself only
_KILL_CALLS = {"x86_64": (62, 234), "aarch64": (129, 131)}
# prlimit64, sched_setparam, sched_setscheduler, sched_setaffinity, sched_setattr: 0, the caller, is allowed as well
_SELF_CALLS = {"x86_64": (302, 142, 144, 203, 314), "aarch64": (261, 118, 119, 122, 274)}
# Calls of which some values of one argument are refused: (call, argument, values). Signals can be sent by setting the
# owner of a file (fcntl F_SETOWN, F_SETSIG, F_SETOWN_EX; ioctl FIOSETOWN, SIOCSPGRP), and PR_SET_PDEATHSIG undone.
_REFUSED_VALUES = {
    "x86_64": ((72, 1, (8, 10, 15)), (16, 1, (0x8901, 0x8902, 0x5412)), (157, 0, (1,))),
    "aarch64": ((25, 1, (8, 10, 15)), (29, 1, (0x8901, 0x8902, 0x5412)), (167, 0, (1,))),
}
# Rights, owner, times and attributes (chmod, chown, utime, setxattr, removexattr and their variants) of any file of the
# same owner, which Landlock lets through. Refused where it is all that there is.
_METADATA_CALLS = {
    "x86_64": (90, 91, 268, 452, 92, 93, 94, 260, 132, 235, 261, 280, 188, 189, 190, 197, 198, 199),
    "aarch64": (52, 53, 452, 54, 55, 88, 5, 6, 7, 14, 15, 16),
}
_SOCKETPAIR = {"x86_64": 53, "aarch64": 199}
_CLONE3_CALL = 435
_X32_BIT = 0x40000000


def libc_call(name: str, *arguments) -> int:
    """Call a function of the C library."""
    return getattr(_LIBC, name)(*arguments)


def check(result: int, what: str) -> int:
    """`result`, or OSError where it says that a call failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def syscall(number: int, what: str, *arguments) -> int:
    """Make a system call by its number. Raises OSError."""
    return check(_LIBC.syscall(ctypes.c_long(number), *arguments), what)


def die_with_parent() -> None:
    """Have the kernel end this process when its parent ends."""
    check(_LIBC.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0), "prctl(PDEATHSIG)")


def be_reaper() -> None:
    """Have the kernel make orphaned descendants children of this process, so that it can end them."""
    check(_LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(CHILD_SUBREAPER)")


def enter_namespaces() -> None:
    """Leave the host's user, network, process and mount namespaces; the next fork is process 1 of the new one.

    Raises OSError where the kernel, the container or its policy does not allow it.
    """
    uid, gid = os.getuid(), os.getgid()
    flags = sum(_CLONE[name] for name in ("user", "network", "pid", "mount", "ipc", "uts"))
    check(_LIBC.unshare(flags), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def drop_privileges() -> None:
    """Give up every capability for good. A process without them may set the two filters below."""
    header = struct.pack("Ii", 0x20080522, 0)
    check(_LIBC.capset(header, bytes(24)), "capset")
    check(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(NO_NEW_PRIVS)")
    check(_LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl(DUMPABLE)")


def landlock(folder: str, readable: list[str], *, listing: bool) -> None:
    """Allow writing only below `folder`, reading there and below `readable`; no TCP, no signal to others.

    listing  let the names in all folders be seen, as pytest wants it of those above a test
    Raises OSError where the kernel has no Landlock.
    """
    version = syscall(444, "landlock", None, ctypes.c_size_t(0), ctypes.c_uint(1))
    reading = 1 << 0 | 1 << 2 | 1 << 3  # execute, read a file, list a folder
    # write, remove, make (bits 1, 4-12); refer since version 2, truncate since 3, control devices since 5
    writing = 1 << 1 | sum(1 << bit for bit in range(4, 13)) | (version >= 2) << 13 | (version >= 3) << 14
    every = reading | writing | (version >= 5) << 15
    tcp, scopes = (version >= 4) * 3, (version >= 6) * 3  # bind and connect; abstract sockets and signals
    attributes = struct.pack("QQQ", every, tcp, scopes)[: 8 + 8 * (version >= 4) + 8 * (version >= 6)]
    ruleset = syscall(444, "landlock", attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    of_files = 1 << 0 | 1 << 1 | 1 << 2 | (version >= 3) << 14
    rules = [(folder, every), *((path, reading) for path in readable), ("/", listing << 3)]
    rules += [(path, reading | of_files) for path in ("/dev/null", "/dev/zero", "/dev/full")]
    rules += [(path, reading) for path in ("/dev/urandom", "/dev/random", "/proc/cpuinfo", "/proc/meminfo")]
    for path, rights in rules:
        if not rights or not os.path.exists(path):
            continue
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", rights if os.path.isdir(path) else rights & of_files, opened)
        syscall(445, "landlock rule", ruleset, ctypes.c_uint(1), rule, ctypes.c_uint(0))
        os.close(opened)
    syscall(446, "landlock", ruleset, ctypes.c_uint(0))
    os.close(ruleset)


def _filter_program(machine: str, own_pid: int, metadata: bool, execute: bool) -> bytes:
    """The BPF program: instructions (code, jump if true, jump if false, value) over struct seccomp_data."""
    load, equal, at_least, any_bit, mask, give = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
    refuse, absent, end = (
        (give, 0, 0, 0x50000 | errno.EPERM),
        (give, 0, 0, 0x50000 | errno.ENOSYS),
        (give, 0, 0, 1 << 31),
    )
    allow = (give, 0, 0, 0x7FFF0000)
    number, arch, arguments = 0, 4, 16

    def rule(call: int, argument: int, tests: list[tuple]) -> list[tuple]:
        """For one call: load the low half of an argument, then `tests`, which end in allow or refuse."""
        return [(equal, 0, len(tests) + 1, call), (load, 0, 0, arguments + 8 * argument), *tests]

    program = [(load, 0, 0, arch), (equal, 1, 0, _AUDIT_ARCH[machine]), end, (load, 0, 0, number)]
    if machine == "x86_64":
        program += [(at_least, 0, 1, _X32_BIT), end]
    refused = [
        numbers[_MACHINES.index(machine)] for name, numbers in _REFUSED.items() if not (execute and name == "execve")
    ]
    for call in (*filter(None, refused), *(() if metadata else _METADATA_CALLS[machine])):
        program += [(equal, 0, 1, call), refuse]
    program += [(equal, 0, 1, _CLONE3_CALL), absent]  # its flags cannot be read: libc falls back to clone
    program += rule(_CLONE_CALL[machine], 0, [(any_bit, 0, 1, _CLONE["thread"]), allow, refuse])
    for call in _KILL_CALLS[machine]:
        program += rule(call, 0, [(equal, 0, 1, own_pid), allow, refuse])
    for call in _SELF_CALLS[machine]:
        program += rule(call, 0, [(equal, 1, 0, 0), (equal, 0, 1, own_pid), allow, refuse])
    for call, argument, values in _REFUSED_VALUES[machine]:
        program += rule(
            call, argument, [*((equal, len(values) - at, 0, v) for at, v in enumerate(values)), allow, refuse]
        )
    # A pair of streams, as asyncio wants it, speaks to itself only; from a pair of datagrams one can write to others.
    program += rule(_SOCKETPAIR[machine], 1, [(mask, 0, 0, 0xF), (equal, 0, 1, 1), allow, refuse])
    program += [allow]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


def seccomp(*, metadata: bool, execute: bool = False) -> None:
    """Refuse (EPERM) sockets, new processes and all that reaches another process, for this one and for good.

    metadata  whether rights, owners and times of files may be changed
    execute   whether this process may become another program, which all of this binds as well
    Raises OSError where the kernel has no seccomp or the machine is neither x86-64 nor aarch64.
    """
    machine = platform.machine()
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no system-call table for {machine}")
    program = ctypes.create_string_buffer(_filter_program(machine, os.getpid(), metadata, execute))
    header = struct.pack("HxxxxxxQ", (len(program) - 1) // 8, ctypes.addressof(program))
    check(_LIBC.prctl(_PR_SET_SECCOMP, 2, header, 0, 0), "prctl(SECCOMP)")
