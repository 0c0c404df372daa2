"""None of the programs wins at a tier that this machine has, none leaves anything behind, and the harness lives."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandbox.job import Job, Outcome
from sandbox.protection import probe, safe_tier
from sandbox.supervise import run_one
from sandbox.workers import Workers
from tests.commands import PATIENCE
from tests.sandbox.attacks.cheats import CHEATS
from tests.sandbox.attacks.floods import FLOODS
from tests.sandbox.attacks.reaches import HARMLESS, REACHES

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")
SECONDS = 2.0
BELOW = (("bubblewrap", "seccomp", "landlock"), ("seccomp", "landlock"))  # without our own namespaces
TESTS = {"source": "for i in range(3):\n    assert answer(i) == 42 + i, 'wrong'\n", "names": ["answer"]}
RIGHT = "\ndef answer(i): return 42 + i\n"


class Ground:
    """What the attacks are after: files, sockets and a process; and whether it is as it was."""

    def __init__(self, folder: Path):
        self.home, self.jobs = folder / "home", folder / "jobs"
        self.home.mkdir()
        self.jobs.mkdir()
        (self.home / "secret").write_text("a key")
        (self.home / "victim").write_text("untouched")
        (self.home / "victim").chmod(0o600)
        self.process = subprocess.Popen(["sleep", "600"])
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.port = self.tcp.getsockname()[1]
        self.udp = socket.socket(type=socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", self.port))
        self.stream, self.datagram = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.stream.bind(str(self.home / "stream"))
        self.stream.listen()
        self.datagram.bind(str(self.home / "datagram"))
        self.before = self.state()

    def state(self) -> dict:
        pid = self.process.pid
        return {
            "files": {path.name: (path.stat().st_mode, path.stat().st_mtime) for path in self.home.iterdir()},
            "text": (self.home / "victim").read_text(),
            "ended": self.process.poll(),
            "limits": Path(f"/proc/{pid}/limits").read_text(),
            "priority": os.getpriority(os.PRIO_PROCESS, pid),
            "cores": os.sched_getaffinity(pid),
            "visitors": [self.visited(one) for one in (self.tcp, self.udp, self.stream, self.datagram)],
        }

    @staticmethod
    def visited(server: socket.socket) -> bool:
        server.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            server.recv(1) if server.type == socket.SOCK_DGRAM else server.accept()[0].close()
            return True
        return False

    def job(self, name: str, program: str, seconds: float = SECONDS) -> Job:
        places = {"SECRET": self.home / "secret", "VICTIM": self.home / "victim", "HOMEFOLDER": self.home}
        for word, place in (places | {"PORT": self.port, "PROCESS": self.process.pid}).items():
            program = program.replace(word, str(place))
        return Job(name, program, tests=TESTS, seconds=seconds, megabytes=256)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for one in (self.tcp, self.udp, self.stream, self.datagram):
            one.close()


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    made = Ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


def run(jobs: list[Job], layers: tuple[str, ...]) -> dict[str, Outcome]:
    with contextlib.closing(Workers(layers)) as workers, ThreadPoolExecutor(4) as pool:
        return dict(zip((job.id for job in jobs), pool.map(lambda job: run_one(job, workers), jobs), strict=True))


def tiers() -> list[tuple[str, ...]]:
    """The highest tier of this machine and, of those that do without our own namespaces, the ones that work."""
    found = []
    for layers in dict.fromkeys((safe_tier().layers, *BELOW)) if sys.platform == "linux" else ():
        with contextlib.suppress(RuntimeError):
            if layers and probe(layers):
                found.append(layers)
    return found


@pytest.fixture(scope="module", params=tiers(), ids="+".join)
def attacked(request, ground):
    """The outcomes of all attacks at one tier, and what there was afterwards."""
    programs = CHEATS | {name: text + RIGHT for name, text in REACHES.items()}
    jobs = [ground.job(name, text) for name, text in programs.items()]
    jobs += [ground.job(name, text + RIGHT, seconds=SECONDS / 2) for name, text in FLOODS.items()]  # most take it all
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(ground.jobs))
        patch.setenv("USER_KEY", "1")
        workers = set(_workers())
        outcomes = run([*jobs, Job("right", RIGHT, tests=TESTS)], request.param)
    return outcomes, ground.state(), set(_workers()) - workers, list(ground.jobs.iterdir())


def command(pid: str) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


@pytest.mark.parametrize("name", [*CHEATS, *REACHES, *FLOODS])
def test_an_attack_does_not_pass(attacked, name):
    outcome = attacked[0][name]
    assert outcome.outcome != "finished"
    assert "NameError" not in outcome.detail and "SyntaxError" not in outcome.detail, outcome
    assert outcome.seconds < 15 * SECONDS  # some would sleep for a minute


def test_a_right_answer_passes_among_them(attacked):
    assert attacked[0]["right"].outcome == "finished"


def test_the_attacks_leave_nothing_behind_and_change_nothing(attacked, ground):
    _, state, processes, folders = attacked
    assert state == ground.before and state["ended"] is None
    assert processes == set() and folders == []


def test_without_protection_the_harmless_ones_win(tmp_path):
    """So that they fail above because they are refused, and not because they are wrong."""
    ground = Ground(tmp_path)
    try:
        outcomes = run([ground.job(name, REACHES[name] + RIGHT, seconds=60) for name in HARMLESS], ())
        assert {name: one.detail for name, one in outcomes.items() if one.outcome != "finished"} == {}
        assert all(ground.state()["visitors"])
    finally:
        ground.close()


def test_detached_processes_are_ended_without_any_layer_too(ground):
    program = (
        "import os\nif os.fork() == 0:\n os.setsid()\n if os.fork() == 0:\n  while True: pass\n os._exit(0)\n" + RIGHT
    )
    outcomes = run([ground.job("detached", program), ground.job("bomb", "import os\nwhile True: os.fork()")], ())
    assert outcomes["bomb"].outcome in ("denied", "timeout")
    assert not _workers()


@pytest.mark.parametrize("layers", tiers(), ids="+".join)
def test_no_job_outlives_a_harness_that_is_killed(layers):
    program = (
        "from sandbox.job import Job; from sandbox.supervise import run_one; from sandbox.workers import Workers\n"
        f"run_one(Job('a', 'while True: pass', seconds=60), Workers({layers!r}))"
    )
    harness = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    _wait_for(lambda: len(_workers()) >= 2)
    harness.kill()
    harness.wait()
    _wait_for(lambda: not _workers())


def _workers() -> list[str]:
    """The workers of this process's sandbox, and orphans; not those of other tests and commands that run beside it."""
    pids = [pid for pid in os.listdir("/proc") if pid.isdigit() and "sandbox.server" in command(pid)]
    return [pid for pid in pids if os.getpid() in (above := _ancestors(int(pid))) or _is_orphan(above)]


def _is_orphan(above: list[int]) -> bool:
    """Whether nothing but other workers stands between a process and the first of all."""
    return all("sandbox.server" in command(str(pid)) for pid in above[:-1])


def _ancestors(pid: int) -> list[int]:
    """The parent, its parent, and so on; an orphan's is the first process of all."""
    found = []
    with contextlib.suppress(OSError):  # it ends meanwhile
        while pid > 1:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            found.append(pid)
    return found


def _wait_for(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("layers", tiers(), ids="+".join)
def test_what_no_limit_of_the_kernel_bounds_is_watched(layers):
    jobs = [Job(name, FLOODS[name], seconds=10, megabytes=4096) for name in ("threads", "many files")]
    outcomes = run(jobs, layers)
    assert outcomes["threads"].outcome == "denied" and "64 threads" in outcomes["threads"].detail
    if "namespaces" not in layers:  # where there are, the folder is a file system of 64 MiB
        assert outcomes["many files"].outcome == "denied" and "64 MiB" in outcomes["many files"].detail
