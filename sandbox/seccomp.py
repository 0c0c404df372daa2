"""The `seccomp` layer: which system calls a sandboxed process may still make, and the filter that enforces it.

A filter is a classic BPF program that the kernel runs before every system call, over a struct seccomp_data: the number
of the call, the architecture and the six arguments as integers. It cannot follow pointers. See seccomp(2), and
linux/seccomp.h, linux/filter.h and linux/bpf_common.h for the constants.

Imports nothing of the project except its neighbours: it runs inside the sandbox.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import NamedTuple

from .linux import prctl


class Call(NamedTuple):
    """A system call with its number on each machine; None where the machine does not have it."""

    name: str
    x86_64: int | None
    aarch64: int | None


# Numbers: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h
REFUSED = (
    # communication other than through files; io_uring performs refused operations through a queue of its own
    Call("socket", 41, 198),
    Call("connect", 42, 203),
    Call("io_uring_setup", 425, 425),
    # new processes and other programs; clone may only start threads (below)
    Call("fork", 57, None),
    Call("vfork", 58, None),
    Call("execve", 59, 221),
    Call("execveat", 322, 281),
    # the memory and the open files of other processes
    Call("ptrace", 101, 117),
    Call("process_vm_readv", 310, 270),
    Call("process_vm_writev", 311, 271),
    Call("kcmp", 312, 272),
    Call("process_madvise", 440, 440),
    Call("process_mrelease", 448, 448),
    Call("pidfd_open", 434, 434),
    Call("pidfd_getfd", 438, 438),
    # signals to other processes, and their priority; kill and tgkill reach this process only (below)
    Call("tkill", 200, 130),
    Call("rt_sigqueueinfo", 129, 138),
    Call("rt_tgsigqueueinfo", 297, 240),
    Call("pidfd_send_signal", 424, 424),
    Call("setpriority", 141, 140),
    Call("ioprio_set", 251, 30),
    # out of the namespaces and the root, or into new ones, in which a process has every capability again
    Call("unshare", 272, 97),
    Call("setns", 308, 268),
    Call("mount", 165, 40),
    Call("chroot", 161, 51),
    # memory that no limit of a process counts until it is mapped; System V's and POSIX's outlives the process
    Call("memfd_create", 319, 279),
    Call("memfd_secret", 447, 447),
    Call("shmget", 29, 194),
    Call("msgget", 68, 186),
    Call("semget", 64, 190),
    Call("mq_open", 240, 180),
    # large parts of the kernel that no answer needs, and that have often been exploited
    Call("bpf", 321, 280),
    Call("perf_event_open", 298, 241),
    Call("userfaultfd", 323, 282),
    Call("add_key", 248, 217),
    Call("request_key", 249, 218),
    Call("keyctl", 250, 219),
)
# Permissions, owner, times and attributes of any file of the same user: Landlock does not cover them. Refused if there
# is no root of its own, which would have only the job's files.
METADATA = (
    Call("chmod", 90, None),
    Call("fchmod", 91, 52),
    Call("fchmodat", 268, 53),
    Call("fchmodat2", 452, 452),
    Call("chown", 92, None),
    Call("fchown", 93, 55),
    Call("lchown", 94, None),
    Call("fchownat", 260, 54),
    Call("utime", 132, None),
    Call("utimes", 235, None),
    Call("futimesat", 261, None),
    Call("utimensat", 280, 88),
    Call("setxattr", 188, 5),
    Call("lsetxattr", 189, 6),
    Call("fsetxattr", 190, 7),
    Call("removexattr", 197, 14),
    Call("lremovexattr", 198, 15),
    Call("fremovexattr", 199, 16),
)
CLONE = Call("clone", 56, 220)  # for threads only
CLONE3 = Call("clone3", 435, 435)  # its flags are behind a pointer: reported as absent, and libc falls back to clone
SOCKETPAIR = Call("socketpair", 53, 199)  # a pair of streams only
# The first argument is a process: only this one ...
TO_ITSELF = (Call("kill", 62, 129), Call("tgkill", 234, 131))
# ... or 0, which also means the caller
TO_CALLER = (
    Call("prlimit64", 302, 261),
    Call("sched_setparam", 142, 118),
    Call("sched_setscheduler", 144, 119),
    Call("sched_setaffinity", 203, 122),
    Call("sched_setattr", 314, 274),
)
# Refused values of one argument: (call, index of the argument, values)
REFUSED_VALUES = (
    # the owner of a file gets signals from it: F_SETOWN, F_SETSIG, F_SETOWN_EX; FIOSETOWN, SIOCSPGRP
    (Call("fcntl", 72, 25), 1, (8, 10, 15)),
    (Call("ioctl", 16, 29), 1, (0x8901, 0x8902, 0x5412)),  # and TIOCSTI, which types into a terminal
    # PR_SET_PDEATHSIG would undo `die_with_parent`
    (Call("prctl", 157, 167), 0, (1,)),
)
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64
X32_BIT = 0x40000000  # marks calls of the x32 interface, which x86-64 kernels offer with other numbers
CLONE_THREAD = 0x10000
SOCK_TYPE_MASK, SOCK_STREAM = 0xF, 1


class Instruction(NamedTuple):
    """struct sock_filter: on a jump, `if_true` or `if_false` instructions are skipped."""

    code: int
    if_true: int
    if_false: int
    value: int


def _load(offset: int) -> Instruction:
    """Load a 32-bit word of seccomp_data (BPF_LD | BPF_W | BPF_ABS)."""
    return Instruction(0x20, 0, 0, offset)


def _and(mask: int) -> Instruction:
    """Keep some bits of the loaded word (BPF_ALU | BPF_AND | BPF_K)."""
    return Instruction(0x54, 0, 0, mask)


def _skip(*, if_equal: int = 0, unless_equal: int = 0, value: int) -> Instruction:
    """Skip instructions if the loaded word equals `value`, and others unless (BPF_JMP | BPF_JEQ | BPF_K)."""
    return Instruction(0x15, if_equal, unless_equal, value)


def _skip_below(value: int, skipped: int) -> Instruction:
    """Skip instructions if the loaded word is below `value` (BPF_JMP | BPF_JGE | BPF_K)."""
    return Instruction(0x35, 0, skipped, value)


def _skip_without(bits: int, skipped: int) -> Instruction:
    """Skip instructions if none of the bits is set (BPF_JMP | BPF_JSET | BPF_K)."""
    return Instruction(0x45, 0, skipped, bits)


def _return(action: int) -> Instruction:
    """Decide (BPF_RET | BPF_K)."""
    return Instruction(0x06, 0, 0, action)


KILL = _return(0x80000000)  # SECCOMP_RET_KILL_PROCESS
REFUSE = _return(0x00050000 | errno.EPERM)  # SECCOMP_RET_ERRNO
ABSENT = _return(0x00050000 | errno.ENOSYS)
ALLOW = _return(0x7FFF0000)  # SECCOMP_RET_ALLOW

NUMBER, ARCH, ARGUMENTS = 0, 4, 16  # offsets in seccomp_data; both machines are little-endian


def filter_program(machine: str, own_pid: int, *, metadata: bool, execute: bool) -> list[Instruction]:
    """The filter for a machine: each call in turn, and what none of them decides is allowed."""

    def numbers(calls: tuple[Call, ...]) -> list[int]:
        """Of those that the machine has."""
        found = [call.x86_64 if machine == "x86_64" else call.aarch64 for call in calls]
        return [number for number in found if number is not None]

    def rule(call: Call, argument: int, tests: list[Instruction]) -> list[Instruction]:
        """For one call: load the low half of an argument, then `tests`, all of whose paths end in a decision."""
        (number,) = numbers((call,))
        return [_skip(unless_equal=len(tests) + 1, value=number), _load(ARGUMENTS + 8 * argument), *tests]

    # Another architecture would have other numbers for the same calls.
    program = [_load(ARCH), _skip(if_equal=1, value=MACHINES[machine]), KILL, _load(NUMBER)]
    if machine == "x86_64":
        program += [_skip_below(X32_BIT, 1), KILL]
    refused = tuple(call for call in REFUSED if not (execute and call.name == "execve"))
    for number in numbers(refused + (() if metadata else METADATA)):
        program += [_skip(unless_equal=1, value=number), REFUSE]
    program += [_skip(unless_equal=1, value=CLONE3.x86_64), ABSENT]
    program += rule(CLONE, 0, [_skip_without(CLONE_THREAD, 1), ALLOW, REFUSE])
    for call in TO_ITSELF:
        program += rule(call, 0, [_skip(unless_equal=1, value=own_pid), ALLOW, REFUSE])
    for call in TO_CALLER:
        program += rule(call, 0, [_skip(if_equal=1, value=0), _skip(unless_equal=1, value=own_pid), ALLOW, REFUSE])
    for call, argument, values in REFUSED_VALUES:
        to_refuse = range(len(values), 0, -1)  # instructions between each comparison and REFUSE, with ALLOW before it
        tests = [_skip(if_equal=skipped, value=value) for skipped, value in zip(to_refuse, values, strict=True)]
        program += rule(call, argument, [*tests, ALLOW, REFUSE])
    # A pair of streams, which asyncio needs, is connected to itself only; a datagram socket can write to others.
    tests = [_and(SOCK_TYPE_MASK), _skip(unless_equal=1, value=SOCK_STREAM), ALLOW, REFUSE]
    program += rule(SOCKETPAIR, 1, tests)
    return [*program, ALLOW]


def install_filter(*, metadata: bool, execute: bool = False) -> None:
    """Refuse (EPERM) sockets, new processes and all access to other processes, for this process and for good.

    metadata  whether permissions, owners and times of files may be changed
    execute   whether this process may become another program, which inherits the filter
    Raises OSError if the kernel has no seccomp or the machine is neither x86-64 nor aarch64.
    """
    machine = platform.machine()
    if machine not in MACHINES:
        raise OSError(errno.ENOSYS, f"no system-call table for {machine}")
    program = filter_program(machine, os.getpid(), metadata=metadata, execute=execute)
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in program))
    header = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code))  # struct sock_fprog
    prctl("SECCOMP", 22, 2, header)  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
