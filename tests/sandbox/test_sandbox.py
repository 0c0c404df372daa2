"""Hostile and unlucky programs: none passes, none hangs the harness, none leaves anything behind."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.console import UserError
from sandbox import protection as protection_module
from sandbox import run as run_module
from sandbox.__main__ import main
from sandbox.job import Job, Outcome
from sandbox.protection import TIERS, Probed, probe, protection, safe_tier
from sandbox.run import run_jobs
from sandbox.supervise import judge_report, run_one
from sandbox.workers import Workers, bubblewrap

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")

SET_RLIMIT = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))"
HOSTILE = {  # program -> the outcomes that are right for it
    "leaves by os._exit(0)": ("import os; os._exit(0)", {"died"}),
    "leaves by sys.exit(0)": ("import sys; sys.exit(0)", {"exception"}),
    "leaves by SystemExit": ("raise SystemExit", {"exception"}),
    "raises KeyboardInterrupt": ("raise KeyboardInterrupt", {"exception"}),
    "raises its own BaseException": ("class E(BaseException): pass\nraise E('done')", {"exception"}),
    "raises an error that cannot be shown": (
        "class E(Exception):\n def __str__(self): import os; os._exit(0)\nraise E",
        {"died"},
    ),
    "loops for ever": ("while True: pass", {"timeout"}),
    "sleeps through SIGTERM": (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nsignal.pthread_sigmask(signal.SIG_BLOCK,"
        " range(1, 32))\ntime.sleep(60)",
        {"timeout"},
    ),
    "eats memory": ("x = bytearray(4 << 30)", {"memory"}),
    "eats memory bit by bit": ("x = []\nwhile True: x.append(bytes(999))", {"memory"}),
    "lifts its memory limit": (SET_RLIMIT + "\nx = bytearray(4 << 30)", {"exception", "denied", "memory"}),
    "floods stdout": ("import os\nwhile True: os.write(1, b'x' * 65536)", {"timeout"}),
    "forks": ("import os; os.fork()", {"denied"}),
    "starts a program": ("import os; os.execv('/bin/true', ['true'])", {"denied"}),
    "opens a TCP socket": ("import socket; socket.create_connection(('127.0.0.1', 80), 1)", {"denied"}),
    "opens a UDP socket": (
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 53))",
        {"denied"},
    ),
    "opens a unix socket": ("import socket; socket.socket(socket.AF_UNIX).connect('/run/x')", {"denied"}),
    "signals everything": ("import os; os.kill(-1, 9)", {"denied"}),
    "signals its parent": ("import os; os.kill(os.getppid(), 9)", {"denied"}),
    "closes all files": ("import os; os.closerange(0, 256)", {"died"}),
    "writes a report of its own": (
        'import os\nfor fd in range(3, 64):\n try: os.write(fd, b\'{"outcome": "finished", "got": [], "exceptions": [],'
        ' "detail": "", "secret": ""}\')\n except OSError: pass\nos._exit(0)',
        {"died"},
    ),
    "reports garbage": (
        "import os\nfor fd in range(3, 64):\n try: os.write(fd, b'[' * 99999)\n except OSError: pass",
        {"died"},
    ),
    "ends itself by a signal": (
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)\nimport os; os._exit(0)",
        {"died"},
    ),
    "crashes": ("import ctypes; ctypes.string_at(0)", {"died"}),
    "recurses without end": ("def f(): return f()\nf()", {"exception"}),
    "does not parse": ("def f(:", {"syntax"}),
    "breaks the parser": ("(" * 5000 + ")" * 5000, {"syntax"}),
    "lone surrogate": ("raise ValueError('\\ud800')", {"exception", "died"}),
}
HARMLESS = {  # these finish, and that must not harm anybody
    "replaces print and builtins": "import builtins\nbuiltins.print = builtins.len = builtins.open = None",
    "replaces os.write and json": "import os, json\nos.write = json.dumps = os._exit = lambda *a: None",
    "leaves a thread": "import threading, time\nthreading.Thread(target=lambda: time.sleep(60)).start()",
    "leaves an exit handler": "import atexit, time\natexit.register(time.sleep, 60)",
    "deletes its folder": "import os, shutil\nshutil.rmtree(os.getcwd(), ignore_errors=True)",
    "locks its folder": "import os\nos.mkdir('a'); open('a/b', 'w').close(); os.chmod('a', 0)",
    "fills its folder": "try:\n for i in range(99): open(str(i), 'wb').write(bytes(1 << 20))\nexcept OSError: pass",
}


@pytest.fixture(scope="module")
def hostile() -> dict[str, Outcome]:
    jobs = [Job(name, program, seconds=3, megabytes=256) for name, (program, _) in HOSTILE.items()]
    return {outcome.id: outcome for outcome in run_jobs(jobs)}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_does_not_finish(hostile, name):
    assert hostile[name].outcome in HOSTILE[name][1], hostile[name]
    assert hostile[name].seconds < 30  # three by its limit; one sleeps for sixty


def test_a_harmless_nuisance_finishes_at_once_and_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    outcomes = run_jobs([Job(name, program, seconds=30) for name, program in HARMLESS.items()])
    assert {outcome.id: outcome.outcome for outcome in outcomes} == dict.fromkeys(HARMLESS, "finished")
    assert not list(tmp_path.iterdir())


def test_an_object_that_equals_everything_is_only_printed():
    program = "class Yes:\n    def __eq__(self, other): return True\n    def __repr__(self): return 'yes'"
    (outcome,) = run_jobs([Job("a", program, examples=[{"source": "Yes()\n"}])])
    assert outcome.got == ["yes\n"]


def test_an_exit_in_the_middle_of_the_examples_gives_no_output_at_all():
    (outcome,) = run_jobs([Job("a", "import os", examples=[{"source": "1\n"}, {"source": "os._exit(0)\n"}])])
    assert (outcome.outcome, outcome.got) == ("died", [])


def test_nothing_of_the_environment_is_inherited(monkeypatch):
    monkeypatch.setenv("API_KEY", "a-secret-of-the-user")
    source = "import os; print(sorted(os.environ.values()), os.environ['HOME'] == os.getcwd())\n"
    (outcome,) = run_jobs([Job("a", examples=[{"source": source}])])
    assert "a-secret-of-the-user" not in outcome.got[0] and os.environ["HOME"] not in eval(
        outcome.got[0].rsplit(" ", 1)[0]
    )
    assert outcome.got[0].endswith("True\n")


def _layers_that_work() -> list[tuple[str, ...]]:
    working = []
    for layers in TIERS:
        try:
            probe(layers)
        except RuntimeError:
            continue
        working.append(layers)
    return working


@pytest.mark.parametrize("layers", _layers_that_work() if sys.platform == "linux" else [], ids="+".join)
def test_no_tier_lets_a_connection_or_a_detached_process_through(layers, tmp_path):
    assert probe(layers)["network"] != "allowed"
    late = tmp_path / "late"
    program = f"""
import os, time
try:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(1)
            open({str(late)!r}, "w").close()
        os._exit(0)
except PermissionError:
    pass
"""
    with contextlib.closing(Workers(layers)) as workers:
        assert run_one(Job("a", program), workers).outcome == "finished"
    time.sleep(1.5)
    assert not late.exists()


ENDED = """
import os, time
from sandbox import server
looks, look = 0, server._descendants
def counted(pid):
    global looks
    looks += pid == os.getpid()
    return look(pid)
server._descendants = counted
children = [os.fork() or os._exit(0) for _ in range(300)]
while any(open(f"/proc/{child}/stat").read().split()[2] != "Z" for child in children): time.sleep(0.01)
server._end(children[0])
print(looks)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")
def test_thousands_of_processes_that_have_ended_are_collected_at_once():
    # one a look takes longer than a fork bomb leaves them: the machine runs out of processes
    done = subprocess.run([sys.executable, "-c", ENDED], capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 3


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bwrap is not installed")
def test_where_this_process_may_make_no_namespaces_bwrap_makes_them(monkeypatch):
    def refusing(layers):
        if "namespaces" in layers:
            raise RuntimeError("unshare: not permitted")
        return probe(layers)

    monkeypatch.setattr(protection_module, "probe", refusing)
    found = safe_tier.__wrapped__()
    assert found.layers == ("bubblewrap", "seccomp", "landlock") and "allowed" not in found.answers.values()
    assert found.missing[0] == "namespaces+seccomp+landlock: unshare: not permitted"
    monkeypatch.setattr("shutil.which", lambda name: None)
    found = safe_tier.__wrapped__()
    assert found.layers == ("seccomp", "landlock") and found.missing[-1].endswith("bwrap is not installed")


LOOK_AROUND = """
import os, socket
seen = [path for path in PATHS if os.path.exists(path)]
for path in (*PATHS[:1], os.path.dirname(os.__file__), "/"):
    try: seen.append(open(os.path.join(path, "new"), "w").name)
    except OSError: pass
print(seen, os.listdir("/sys/class/net") if os.path.exists("/sys") else [i for _, i in socket.if_nameindex()])
"""


def _works(command: list[str]) -> bool:
    return shutil.which(command[0]) is not None and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.skipif(
    not _works(["unshare", "--user", "--net", "--pid", "--mount", "--fork", "true"]), reason="no namespaces here"
)
def test_our_own_namespaces_show_nothing_of_the_host_whatever_else_is_set(tmp_path):
    program = LOOK_AROUND.replace("PATHS", repr([str(tmp_path), "/etc/passwd", "/proc/1/root/etc/passwd", "/var"]))
    with contextlib.closing(Workers(("namespaces",))) as workers:
        outcome = run_one(Job("a", examples=[{"source": f"exec({program!r})\n"}]), workers)
    assert outcome.got == ["[] ['lo']\n"], outcome


@pytest.mark.skipif(not _works(["bwrap", "--ro-bind", "/", "/", "true"]), reason="bwrap does not work here")
def test_bwraps_namespaces_show_nothing_of_the_host_whatever_else_is_set(tmp_path):
    program = LOOK_AROUND.replace("PATHS", repr([str(tmp_path), "/etc/passwd", "/proc/1/root/etc/passwd", "/var"]))
    (tmp_path / "folder").mkdir()
    command = [*bubblewrap(str(tmp_path / "folder"), ()), sys.executable, "-c", program]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout == f"[{str(tmp_path)!r}] ['lo']\n"  # the way to the folder


def test_a_worker_that_bwrap_does_not_start_says_why(monkeypatch):
    monkeypatch.setattr("sandbox.workers.bubblewrap", lambda *_: ["sh", "-c", "echo no uid map >&2; exit 1"])
    with pytest.raises(RuntimeError, match="no uid map"):
        probe(("bubblewrap", "seccomp", "landlock"))


def test_writing_elsewhere_is_refused_and_writing_here_is_not(tmp_path):
    outside = tmp_path / "outside"
    jobs = [Job("out", f"open({str(outside)!r}, 'w').write('x')"), Job("in", "open('inside', 'w').write('x')")]
    outcomes = run_jobs(jobs)
    assert [outcome.outcome for outcome in outcomes] in (["denied", "finished"], ["exception", "finished"])
    assert not outside.exists()


def test_without_a_way_to_cut_the_network_nothing_runs_unless_asked_for(monkeypatch):
    monkeypatch.setattr(protection_module, "safe_tier", lambda: Probed(None, {}, ("seccomp: not here",)))
    with pytest.raises(UserError, match="--allow-unsafe-exec"):
        run_jobs([Job("a", "x = 1")])
    (outcome,) = run_jobs([Job("a", "x = 1")], allow_unsafe_exec=True)
    assert outcome.outcome == "finished"
    assert protection(allow_unsafe_exec=True)["tier"].startswith("unsafe")


def test_a_layer_that_cannot_be_set_stops_the_run_instead_of_lowering_it():
    with pytest.raises(RuntimeError, match="could not be set"):
        judge_report(
            Job("a"),
            b'{"outcome": "not confined", "got": [], "exceptions": [], "detail": "unshare", "secret": "s"}',
            in_time=True,
            secret="s",
            seconds=0.1,
        )


def _package(folder: Path) -> str:
    package = folder / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("from pack.inner import double\n")
    (package / "inner.py").write_text("HERE = __file__\ndef double(x):\n    return 2 * x\n")
    return str(folder)


def test_a_patch_is_seen_through_every_import_and_keeps_the_file_name(tmp_path):
    root = _package(tmp_path)
    patch = {"module": "pack.inner", "source": "HERE = __file__\ndef double(x):\n    return 3 * x\n"}
    examples = [
        {"source": "double(2)\n"},
        {"source": "import pack\n"},
        {"source": "pack.double(2)\n"},
        {"source": "HERE\n"},
    ]
    (outcome,) = run_jobs([Job("a", root=root, patch=patch, examples=examples)])
    assert outcome.got == ["6\n", "", "6\n", repr(str(tmp_path / "pack/inner.py")) + "\n"]


def test_examples_see_the_future_imports_of_their_module(tmp_path):
    patch = {"module": "pack.inner", "source": "from __future__ import annotations\ndouble = None\n"}
    examples = [{"source": "def f(x: Undefined): pass\n"}, {"source": "f.__annotations__\n"}]
    (outcome,) = run_jobs([Job("a", root=_package(tmp_path), patch=patch, examples=examples)])
    assert outcome.got == ["", "{'x': 'Undefined'}\n"] and outcome.exceptions == [None, None]


def test_examples_print_and_raise_as_in_doctest():
    examples = [
        {"source": "for i in range(2):\n    i\n"},
        {"source": "print('a', end='')\n"},
        {"source": "[][1]\n"},
        {"source": "raise SystemExit(3)\n"},
        {"source": "None\n"},
    ]
    (outcome,) = run_jobs([Job("a", examples=examples)])
    assert outcome.got == ["0\n1\n", "a\n", "", "", ""]
    assert outcome.exceptions == [None, None, "IndexError: list index out of range\n", "SystemExit: 3\n", None]
    assert outcome.outcome == "finished"


def test_an_example_that_floods_its_output_is_stopped():
    (outcome,) = run_jobs([Job("a", examples=[{"source": "while True: print('x' * 1000)\n"}])])
    assert outcome.outcome == "memory" and len(outcome.got[0]) <= 1 << 20


def test_equal_jobs_run_once_and_the_order_is_kept(monkeypatch):
    ran = []
    monkeypatch.setattr(run_module, "run_one", lambda job, workers: ran.append(job.id) or run_one(job, workers))
    jobs = [Job(str(i), examples=[{"source": f"{i % 2}\n"}]) for i in range(6)]
    outcomes = run_jobs(jobs)
    assert [(outcome.id, outcome.got) for outcome in outcomes] == [(str(i), [f"{i % 2}\n"]) for i in range(6)]
    assert len(ran) == 2


def test_the_standard_library_is_not_shadowed_by_this_folder():
    (outcome,) = run_jobs([Job("a", "import code, doctest, pdb\ncode.InteractiveConsole")])
    assert outcome.outcome == "finished"


def test_the_command_speaks_json_lines_and_names_a_bad_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sandbox"])
    monkeypatch.setattr(sys, "stdin", ['{"id": "a", "program": "x = 1"}\n', "\n", '{"id": "b", "program": "1/0"}\n'])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert '"id": "a", "outcome": "finished"' in lines[0] and '"ZeroDivisionError: division by zero"' in lines[1]
    monkeypatch.setattr(sys, "stdin", ['{"id": "a"}\n', '{"prog": 1}\n'])
    with pytest.raises(UserError, match="stdin:2"):
        main()
