"""The process that runs foreign code: sets its limits, gives up its rights, runs the job, reports over a private pipe.

Started by eval/sandbox.py as `python sandbox_child.py REPORT_FD SECRET_FD`, the job as JSON on stdin. The report
carries a secret that lies unread in its own pipe until the last line has run, so that neither an exit code nor
anything printed can stand for a finished run. Code that searches the process for that pipe could still forge a report:
nothing inside one process can prevent it. Therefore expected values never come in here.
"""

from __future__ import annotations

import os
import sys

sys.path.append(sys.path.pop(0))  # this folder's code.py must not stand before the standard library's
from sandbox_confine import die_with_parent, drop_privileges, enter_namespaces, landlock, seal_mounts, seccomp

sys.path.pop()

import __future__

import errno
import importlib
import importlib.machinery
import io
import json
import resource
import signal
import traceback
import types

_DENIED = {errno.EPERM, errno.EACCES, errno.EROFS, errno.ENETUNREACH}
_PRINTED_LIMIT = 1 << 20  # characters that all examples of a job may print together
_DETAIL_LIMIT = 500  # characters
_FILE_MEGABYTES = 64
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
    """Loads a module from given text in the place of its file's."""

    def __init__(self, name: str, path: str, text: str):
        super().__init__(name, path)
        self.text = text

    def get_code(self, fullname):
        return compile(self.text, self.path, "exec", dont_inherit=True)


class _PatchFinder:
    """Finds the one patched module before any other finder does."""

    def __init__(self, name: str, text: str):
        self.name, self.text = name, text

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None:
            spec.loader = _PatchedLoader(name, spec.origin, self.text)
        return spec


def _set_limits(job: dict) -> None:
    limits = {
        "RLIMIT_CORE": 0,
        "RLIMIT_CPU": int(job["seconds"]) + 2,  # the parent's wall clock comes first; this is for a parent that is gone
        "RLIMIT_FSIZE": _FILE_MEGABYTES << 20,
        "RLIMIT_NOFILE": 256,
        "RLIMIT_AS": job["megabytes"] << 20,
    }
    for name, value in limits.items():
        if name == "RLIMIT_AS" and sys.platform == "darwin":
            continue  # setting it raises there; the parent's description of the protection says so
        hard = resource.getrlimit(getattr(resource, name))[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(getattr(resource, name), (value, value))


def _confine(job: dict, report: int) -> None:
    """Apply exactly the layers asked for; one that fails raises OSError."""
    folder = os.getcwd()
    if sys.platform == "linux":
        die_with_parent()
    if "namespaces" in job["layers"]:
        enter_namespaces()
        child = os.fork()
        if child:
            os.close(report)  # else the parent would wait for this copy, too
            status = os.waitpid(child, 0)[1]
            os._exit(1 if status else 0)
        die_with_parent()
        seal_mounts(folder, _FILE_MEGABYTES)
    _set_limits(job)
    if job["layers"]:
        drop_privileges()
    if "landlock" in job["layers"]:
        landlock(folder)
    if "seccomp" in job["layers"]:
        seccomp()


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
    sys.meta_path.insert(0, _PatchFinder(job["patch"]["module"], job["patch"]["source"]))
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


def main() -> None:
    """Read the job, confine this process, run, report."""
    report_fd, secret_fd = int(sys.argv[1]), int(sys.argv[2])
    read, write, dumps = os.read, os.write, json.dumps  # the job may replace the modules' own
    job = json.load(sys.stdin)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    sys.argv = [""]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _confine(job, report_fd)
    except OSError as error:
        report = {"outcome": "not confined", "got": [], "exceptions": [], "detail": str(error)}
    else:
        report = _run(job)
    report["detail"] = report["detail"].strip()[-_DETAIL_LIMIT:]
    data = dumps(report | {"secret": read(secret_fd, 64).decode()}).encode()
    while data:
        data = data[write(report_fd, data) :]
    os._exit(0)  # threads and exit handlers of the job do not outlive it


if __name__ == "__main__":
    main()
