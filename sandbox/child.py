"""The process that runs foreign code: sets its limits, gives up its rights, runs the job, reports over a private pipe.

Forked by server.py. The report carries a secret that lies unread in its own pipe until the last line has
run, so that neither an exit code nor anything printed can stand for a finished run. Code that searches its own process
for that pipe could still forge a report: nothing inside one process can prevent it. Therefore a job's `tests` run in
another process than its program, which has neither pipe; and where the two must share one, expected values never come
in here.
"""

from __future__ import annotations
import __future__

import errno
import importlib
import importlib.machinery
import io
import json
import os
import random
import resource
import sys
import traceback
import types

from .layers import die_with_parent, drop_privileges, enter_namespaces, landlock, seccomp
from .mounts import private_root
from .peer import Peer, PeerEnded, raised

_DENIED = {errno.EPERM, errno.EACCES, errno.EROFS, errno.ENETUNREACH}
_PRINTED_LIMIT = 1 << 20  # characters that all examples of a job may print together
_DETAIL_LIMIT = 500  # characters
FILE_MEGABYTES = 64  # of one file, and of all files of a job
_RESERVE = [bytes(8 << 20)]  # given up when memory runs out, so that this can still be reported
_FUTURE_FLAGS = {name: getattr(__future__, name).compiler_flag for name in __future__.all_feature_names}


class _Printed(io.StringIO):
    """What the examples print, up to a limit."""

    total = 0

    def write(self, text: str) -> int:
        self.total += len(text)
        if self.total > _PRINTED_LIMIT:
            raise MemoryError(f"printed more than {_PRINTED_LIMIT} characters")
        return super().write(text)

    def take(self) -> str:
        """Everything since the last call, its last line ended as doctest ends it."""
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text if not text or text.endswith("\n") else text + "\n"


class _PatchedLoader(importlib.machinery.SourceFileLoader):
    """Loads a module from given code in the place of its file's."""

    def __init__(self, name: str, path: str, code: types.CodeType):
        super().__init__(name, path)
        self.code = code

    def get_code(self, fullname):
        return self.code


class _PatchFinder:
    """Finds the one patched module before any other finder does. Its text is gone when its code can run."""

    def __init__(self, name: str, text: str):
        self.name, self.text, self.code = name, text, None

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None:
            if self.text is not None:
                self.code, self.text = compile(self.text, spec.origin, "exec", dont_inherit=True), None
            spec.loader = _PatchedLoader(name, spec.origin, self.code)
        return spec


def _set_limits(settings: dict) -> None:
    limits = {
        "RLIMIT_CORE": 0,
        "RLIMIT_CPU": int(settings["seconds"]) + 2,  # for a parent that is gone: else its wall clock comes first
        "RLIMIT_FSIZE": FILE_MEGABYTES << 20,
        "RLIMIT_NOFILE": 256,
        "RLIMIT_AS": settings["megabytes"] << 20,
    }
    for name, value in limits.items():
        if name == "RLIMIT_AS" and sys.platform == "darwin":
            continue  # setting it raises there; the parent's description of the protection says so
        hard = resource.getrlimit(getattr(resource, name))[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(getattr(resource, name), (value, value))


def _confine(settings: dict, private: tuple[int, ...]) -> list[Peer]:
    """Apply exactly the layers asked for; one that fails raises OSError.

    settings  "folder", "layers", "seconds", "megabytes", "readable", "listing", "apart", "command"
    private   files of this process that no other that is forked here may keep
    Returns, for tests that are to run apart, the ways to the processes that run the program.
    """
    if sys.platform == "linux":
        die_with_parent()
    if "namespaces" in settings["layers"]:
        enter_namespaces()
        child = os.fork()
        if child:
            for handle in private:
                os.close(handle)  # else the reader would wait for this copy, too
            status = os.waitpid(child, 0)[1]
            os._exit(1 if status else 0)
        die_with_parent()
        private_root(settings["folder"], settings["readable"], FILE_MEGABYTES)
    if settings["apart"] == 2 and sys.platform == "linux":  # two that are compared work in turn, on one core
        os.sched_setaffinity(0, {random.choice([*os.sched_getaffinity(0)])})
    peers: list[Peer] = []
    for _ in range(settings["apart"]):
        peers.append(_fork_program(settings, (*private, *(handle for peer in peers for handle in peer.handles))))
    _give_up_rights(settings)
    return peers


def _give_up_rights(settings: dict, *, execute: bool = False) -> None:
    _set_limits(settings)
    if settings["layers"]:
        drop_privileges()
    if "landlock" in settings["layers"]:
        own_root = "namespaces" in settings["layers"]  # which has nothing else in it
        landlock(settings["folder"], ["/"] if own_root else settings["readable"], listing=settings["listing"])
    if "seccomp" in settings["layers"]:
        seccomp(metadata="namespaces" in settings["layers"], execute=execute)


def _fork_program(settings: dict, private: tuple[int, ...]) -> Peer:
    """Fork the process for the program, before this one reads the tests, so that its memory never held them."""
    to_program, from_program = os.pipe(), os.pipe()
    process = os.fork()
    if process:
        os.close(to_program[0])
        os.close(from_program[1])
        return Peer(from_program[0], to_program[1], trusting=False, process=process)
    for handle in (*private, to_program[1], from_program[0]):
        os.close(handle)
    try:
        if sys.platform == "linux":
            die_with_parent()
        _give_up_rights(settings, execute=settings["command"] is not None)
        if settings["command"] is not None:
            ends = (to_program[0], from_program[1])
            for end in ends:
                os.set_inheritable(end, True)
            os.execv(settings["command"][0], [*settings["command"], *map(str, ends)])
        _serve_program(Peer(to_program[0], from_program[1], trusting=True))
    except PeerEnded:
        pass  # the tests are over
    finally:
        os._exit(0)


def _serve_program(peer: Peer) -> None:
    """Run the program, lend the names that the tests want, and answer what is asked, until the other end closes."""
    job = peer.receive()
    try:
        namespace = _namespace(job)
        exec(compile(job["program"], "<program>", "exec", dont_inherit=True), namespace)
        peer.send(["lent", {name: peer.lend(namespace[name]) for name in job["names"]}])
    except BaseException as error:  # an exit, too, is an end before the tests
        _RESERVE.clear()
        peer.send(raised(error))
    while True:
        kind, *rest = peer.receive()
        peer.serve(kind, rest)


def _exception_text(error: BaseException) -> str:
    """As doctest compares it: the lines without the traceback."""
    return "".join(traceback.format_exception_only(type(error), error))


def _was_denied(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in _DENIED


def _outcome_of(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "memory"
    return "denied" if _was_denied(error) else "exception"


def _namespace(job: dict) -> dict:
    """Where the program and the examples run: the patched module's names, as in doctest, or a new `__main__`."""
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if job["root"] is not None:
        sys.path.insert(0, job["root"])
    if job["patch"] is None:
        return vars(main)
    top = job["patch"]["module"].split(".")[0]
    for name in [name for name in sys.modules if name.split(".")[0] == top]:
        del sys.modules[name]  # what this process loaded for itself is not patched
    sys.meta_path.insert(0, _PatchFinder(job["patch"]["module"], job["patch"].pop("source")))
    return dict(vars(importlib.import_module(job["patch"]["module"])))


def _run_examples(examples: list[dict], namespace: dict) -> dict:
    """Run each example as doctest does; returns outcome, got and exceptions."""
    printed, got, exceptions, outcome, detail = _Printed(), [], [], "finished", ""
    flags = 0
    for name, flag in _FUTURE_FLAGS.items():
        if namespace.get(name) is getattr(__future__, name):
            flags |= flag
    sys.stdout, sys.displayhook = printed, sys.__displayhook__
    for number, example in enumerate(examples):
        text = None
        try:
            exec(compile(example["source"] + "\n", f"<example {number}>", "single", flags, True), namespace)
        except BaseException as error:  # an example may exit or interrupt: that is its result, not ours
            _RESERVE.clear()
            text = _exception_text(error)
            if outcome == "finished" and _outcome_of(error) != "exception":
                outcome, detail = _outcome_of(error), text
        sys.stdout = printed
        got.append(printed.take())
        exceptions.append(text)
    return {"outcome": outcome, "got": got, "exceptions": exceptions, "detail": detail}


def _run(job: dict) -> dict:
    """Run one job; returns outcome, got, exceptions, detail. Never raises for what the job does."""
    report = {"outcome": "finished", "got": [], "exceptions": [], "detail": ""}
    try:
        program = compile(job["program"], "<program>", "exec", dont_inherit=True)
        if job["patch"] is not None:
            compile(job["patch"]["source"], job["patch"]["module"], "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # all four come from Python's own parser
        return report | {"outcome": "syntax", "detail": _exception_text(error)}
    try:
        namespace = _namespace(job)
        exec(program, namespace)
        if job["examples"] is not None:
            report = _run_examples(job["examples"], namespace)
    except BaseException as error:  # SystemExit and KeyboardInterrupt, too: only reaching the end is a finish
        _RESERVE.clear()
        return report | {"outcome": _outcome_of(error), "detail": _exception_text(error)}
    return report


def _run_apart(job: dict, peers: list[Peer]) -> dict:
    """Run a job's tests and examples here and its program there; returns what `_run` returns."""
    report = {"outcome": "finished", "got": [], "exceptions": [], "detail": ""}
    tests = job["tests"]
    namespace = vars(types.ModuleType("__main__"))
    for peer in peers:
        peer.methods = tests.get("methods", True)
    try:
        if job["command"] is None:
            compile(job["program"], "<program>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return report | {"outcome": "syntax", "detail": _exception_text(error)}
    try:
        asked = {key: job[key] for key in ("program", "root")} | {"names": tests["names"]}
        namespace.update(peers[0].borrow(asked | {"patch": job["patch"]}))
        if "against" in tests:
            namespace["against"] = peers[1].borrow(asked | {"patch": tests["against"]})
        if job["root"] is not None:
            sys.path.insert(0, job["root"])
        exec(compile(tests["source"], "<tests>", "exec", dont_inherit=True), namespace)
        if job["examples"] is not None:
            report = _run_examples(job["examples"], namespace)
    except PeerEnded as error:
        return report | {"outcome": "died", "detail": str(error)}
    except BaseException as error:
        is_syntax = job["command"] is not None and isinstance(error, SyntaxError)
        return report | {"outcome": "syntax" if is_syntax else _outcome_of(error), "detail": _exception_text(error)}
    return report


def run(settings: dict, job_fd: int, report_fd: int, secret_fd: int) -> None:
    """Confine this process, read the job, run it, report; never returns."""
    read, write, dumps, leave = os.read, os.write, json.dumps, os._exit  # the job may replace the modules' own
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    os.close(nowhere)
    os.chdir(settings["folder"])
    os.environ.update(HOME=settings["folder"], TMPDIR=settings["folder"])
    try:
        peers = _confine(settings, (job_fd, report_fd, secret_fd))
    except OSError as error:
        report = {"outcome": "not confined", "got": [], "exceptions": [], "detail": str(error)}
    else:
        with open(job_fd, "rb") as file:
            job = json.load(file)
        report = _run_apart(job, peers) if peers else _run(job)
    report["detail"] = report["detail"].strip()[-_DETAIL_LIMIT:]
    data = dumps(report | {"secret": read(secret_fd, 64).decode()}).encode()
    while data:
        data = data[write(report_fd, data) :]
    leave(0)  # threads and exit handlers of the job do not outlive it
