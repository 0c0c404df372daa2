"""The filter, run by an interpreter of classic BPF: what it decides for each call on each machine."""

from __future__ import annotations

import errno

import pytest

from sandbox.seccomp import (
    ABSENT,
    ALLOW,
    CLONE,
    CLONE3,
    CLONE_THREAD,
    KILL,
    MACHINES,
    METADATA,
    REFUSE,
    REFUSED,
    REFUSED_VALUES,
    SOCKETPAIR,
    TO_CALLER,
    TO_ITSELF,
    X32_BIT,
    filter_program,
    install_filter,
)

PID = 4321
NAMES = {ALLOW.value: "allow", REFUSE.value: "refuse", ABSENT.value: "absent", KILL.value: "kill"}


def decide(machine, number, *arguments, arch=None, metadata=False, execute=False):
    """What the kernel would do with a call (linux/bpf_common.h; only the operations that a filter may have)."""
    words = {0: number, 4: MACHINES[machine] if arch is None else arch}
    for index, argument in enumerate((*arguments, *(0,) * (6 - len(arguments)))):
        words[16 + 8 * index], words[20 + 8 * index] = argument & 0xFFFFFFFF, argument >> 32
    program, at, loaded = filter_program(machine, PID, metadata=metadata, execute=execute), 0, 0
    while True:
        code, if_true, if_false, value = program[at]
        at += 1
        if code == 0x06:
            return NAMES[value]
        if code == 0x20:
            loaded = words[value]
        elif code == 0x54:
            loaded &= value
        else:
            holds = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}[code]
            at += if_true if holds else if_false


def number_of(call, machine):
    return call.x86_64 if machine == "x86_64" else call.aarch64


@pytest.fixture(params=MACHINES)
def machine(request):
    return request.param


def test_listed_calls_are_refused_and_all_others_allowed(machine):
    with_rules = [CLONE, CLONE3, SOCKETPAIR, *TO_ITSELF, *TO_CALLER, *(call for call, _, _ in REFUSED_VALUES)]
    ruled = {number_of(call, machine) for call in with_rules}
    for metadata in (False, True):
        refused = {number_of(call, machine) for call in (*REFUSED, *(() if metadata else METADATA))} - {None}
        assert len(refused) > 30 and not refused & ruled
        for number in set(range(600)) - ruled:
            wanted = "refuse" if number in refused else "allow"
            assert decide(machine, number, metadata=metadata) == wanted, number


def test_another_program_may_be_started_only_where_that_is_the_job(machine):
    (execve,) = (call for call in REFUSED if call.name == "execve")
    (execveat,) = (call for call in REFUSED if call.name == "execveat")
    assert decide(machine, number_of(execve, machine)) == "refuse"
    assert decide(machine, number_of(execve, machine), execute=True) == "allow"
    assert decide(machine, number_of(execveat, machine), execute=True) == "refuse"


def test_clone_starts_threads_only_and_clone3_is_reported_as_absent(machine):
    clone = number_of(CLONE, machine)
    assert decide(machine, clone, CLONE_THREAD | 0x100) == "allow"
    assert decide(machine, clone, 0x100) == decide(machine, clone, CLONE_THREAD << 32) == "refuse"
    assert decide(machine, number_of(CLONE3, machine)) == "absent"


def test_signals_and_limits_reach_this_process_only(machine):
    for call in TO_ITSELF:
        decisions = [decide(machine, number_of(call, machine), pid) for pid in (PID, 0, 1, 0xFFFFFFFF)]
        assert decisions == ["allow", "refuse", "refuse", "refuse"], call.name
    for call in TO_CALLER:
        decisions = [decide(machine, number_of(call, machine), pid) for pid in (PID, 0, 1, 0xFFFFFFFF)]
        assert decisions == ["allow", "allow", "refuse", "refuse"], call.name


def test_some_values_of_an_argument_are_refused(machine):
    for call, argument, values in REFUSED_VALUES:
        number = number_of(call, machine)
        before = (0,) * argument
        assert [decide(machine, number, *before, value) for value in values] == ["refuse"] * len(values)
        assert decide(machine, number, *before, 0xFFFF) == decide(machine, number, *before, 2) == "allow"


@pytest.mark.parametrize(("kind", "decision"), [(1, "allow"), (1 | 0o2004000, "allow"), (2, "refuse"), (5, "refuse")])
def test_a_pair_of_sockets_must_be_of_streams(machine, kind, decision):
    assert decide(machine, number_of(SOCKETPAIR, machine), 1, kind) == decision


def test_calls_with_other_numbering_end_the_process(machine):
    (other,) = (arch for name, arch in MACHINES.items() if name != machine)
    assert decide(machine, 1, arch=other) == "kill"
    assert decide("x86_64", X32_BIT | 1) == "kill"


def test_a_machine_without_a_table_is_not_left_unfiltered(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(OSError, match="no system-call table for riscv64") as error:
        install_filter(metadata=False)
    assert error.value.errno == errno.ENOSYS
