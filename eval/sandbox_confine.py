"""What a sandboxed process may no longer do, set by itself before the first foreign line runs. Linux, by system calls.

Three layers, each of which holds alone and none of which needs a privilege or a program beside Python:

- `namespaces`  an own user, network, process and mount namespace: no route to anywhere, no other process in sight,
                every mount read-only but a small tmpfs in place of the task folder (namespaces(7))
- `seccomp`     a system-call filter: no socket, no new process, no signal to others, no tracing (seccomp(2))
- `landlock`    writing only below the task folder (landlock(7))

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
_MS_REC_PRIVATE = 0x4000 | 0x40000
_AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = -100, 0x8000, 1
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38

# System calls from number 424 on have one number on every architecture.
_SYSCALLS_COMMON = {"pidfd_send_signal": 424, "io_uring_setup": 425, "pidfd_open": 434, "pidfd_getfd": 438}
_SYSCALLS = {
    "x86_64": _SYSCALLS_COMMON
    | {"socket": 41, "connect": 42, "fork": 57, "vfork": 58, "execve": 59, "execveat": 322, "ptrace": 101}
    | {"process_vm_readv": 310, "process_vm_writev": 311, "tkill": 200, "rt_sigqueueinfo": 129}
    | {"rt_tgsigqueueinfo": 297, "bpf": 321, "perf_event_open": 298, "add_key": 248, "request_key": 249, "keyctl": 250}
    | {"userfaultfd": 323, "unshare": 272, "setns": 308, "mount": 165, "chroot": 161},
    "aarch64": _SYSCALLS_COMMON
    | {"socket": 198, "connect": 203, "execve": 221, "execveat": 281, "ptrace": 117}
    | {"process_vm_readv": 270, "process_vm_writev": 271, "tkill": 130, "rt_sigqueueinfo": 138}
    | {"rt_tgsigqueueinfo": 240, "bpf": 280, "perf_event_open": 241, "add_key": 217, "request_key": 218, "keyctl": 219}
    | {"userfaultfd": 282, "unshare": 97, "setns": 268, "mount": 40, "chroot": 51},
}
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE_CALL = {"x86_64": 56, "aarch64": 220}
_KILL_CALLS = {"x86_64": (62, 234), "aarch64": (129, 131)}  # kill, tgkill
_CLONE3_CALL = 435
_X32_BIT = 0x40000000


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(number: int, what: str, *arguments) -> int:
    return _check(_LIBC.syscall(ctypes.c_long(number), *arguments), what)


def die_with_parent() -> None:
    """Have the kernel end this process when its parent ends."""
    _check(_LIBC.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0), "prctl(PDEATHSIG)")


def enter_namespaces() -> None:
    """Leave the host's user, network, process and mount namespaces; the next fork is process 1 of the new one.

    Raises OSError where the kernel, the container or its policy does not allow it.
    """
    uid, gid = os.getuid(), os.getgid()
    flags = sum(_CLONE[name] for name in ("user", "network", "pid", "mount", "ipc", "uts"))
    _check(_LIBC.unshare(flags), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def seal_mounts(folder: str, megabytes: int) -> None:
    """Make every mount read-only but a tmpfs of at most `megabytes` over `folder`. Call in the new mount namespace."""
    _check(_LIBC.mount(None, b"/", None, _MS_REC_PRIVATE, None), "mount(private)")
    options = f"size={megabytes}m,mode=0700".encode()
    _check(_LIBC.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, options), "mount(tmpfs)")
    _mount_setattr("/", _AT_RECURSIVE, set_flags=_MOUNT_ATTR_RDONLY)
    _mount_setattr(folder, 0, clear_flags=_MOUNT_ATTR_RDONLY)
    os.chdir(folder)


def _mount_setattr(path: str, flags: int, *, set_flags: int = 0, clear_flags: int = 0) -> None:
    attributes = struct.pack("QQQQ", set_flags, clear_flags, 0, 0)
    arguments = (_AT_FDCWD, ctypes.c_char_p(os.fsencode(path)), ctypes.c_uint(flags), attributes, ctypes.c_size_t(32))
    _syscall(442, "mount_setattr", *arguments)


def drop_privileges() -> None:
    """Give up every capability for good. A process without them may set the two filters below."""
    header = struct.pack("Ii", 0x20080522, 0)
    _check(_LIBC.capset(header, bytes(24)), "capset")
    _check(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(NO_NEW_PRIVS)")
    _check(_LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl(DUMPABLE)")


def landlock(folder: str) -> None:
    """Allow writing only below `folder` (and to /dev/null). Raises OSError where the kernel has no Landlock."""
    version = _syscall(444, "landlock", None, ctypes.c_size_t(0), ctypes.c_uint(1))
    # write, remove, make (bits 1, 4-12); refer since version 2, truncate since version 3
    writing = (1 << 1) | sum(1 << bit for bit in range(4, 13)) | (version >= 2) << 13 | (version >= 3) << 14
    ruleset = _syscall(444, "landlock", struct.pack("Q", writing), ctypes.c_size_t(8), ctypes.c_uint(0))
    file_rights = writing & (1 << 1 | 1 << 14)
    for path, rights in ((folder, writing), ("/dev/null", file_rights)):
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", rights, opened)
        _syscall(445, "landlock rule", ruleset, ctypes.c_uint(1), rule, ctypes.c_uint(0))
        os.close(opened)
    _syscall(446, "landlock", ruleset, ctypes.c_uint(0))
    os.close(ruleset)


def _filter_program(machine: str, own_pid: int) -> bytes:
    """The BPF program: instructions (code, jump if true, jump if false, value) over struct seccomp_data."""
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, refuse, absent, end = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, 0x80000000
    number, arch, argument = 0, 4, 16
    program = [(load, 0, 0, arch), (equal, 1, 0, _AUDIT_ARCH[machine]), (give, 0, 0, end), (load, 0, 0, number)]
    if machine == "x86_64":
        program += [(at_least, 0, 1, _X32_BIT), (give, 0, 0, end)]
    for call in _SYSCALLS[machine].values():
        program += [(equal, 0, 1, call), (give, 0, 0, refuse)]
    program += [
        (equal, 0, 1, _CLONE3_CALL),
        (give, 0, 0, absent),
    ]  # its flags cannot be read: libc falls back to clone
    program += [(equal, 0, 4, _CLONE_CALL[machine]), (load, 0, 0, argument)]
    program += [(any_bit, 0, 1, _CLONE["thread"]), (give, 0, 0, allow), (give, 0, 0, refuse)]
    for call in _KILL_CALLS[machine]:
        program += [(equal, 0, 4, call), (load, 0, 0, argument)]
        program += [(equal, 0, 1, own_pid), (give, 0, 0, allow), (give, 0, 0, refuse)]
    program += [(give, 0, 0, allow)]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


def seccomp() -> None:
    """Refuse (EPERM) sockets, new processes, signals to others and tracing, for this process and for good.

    Raises OSError where the kernel has no seccomp or the machine is neither x86-64 nor aarch64.
    """
    machine = platform.machine()
    if machine not in _SYSCALLS:
        raise OSError(errno.ENOSYS, f"no system-call table for {machine}")
    program = ctypes.create_string_buffer(_filter_program(machine, os.getpid()))
    header = struct.pack("HxxxxxxQ", (len(program) - 1) // 8, ctypes.addressof(program))
    _check(_LIBC.prctl(_PR_SET_SECCOMP, 2, header, 0, 0), "prctl(SECCOMP)")
