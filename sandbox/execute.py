"""Running a job's program, examples and tests, once the process is confined.

Imports nothing of the project except its neighbours: it runs inside the sandbox.
"""

from __future__ import annotations
import __future__

import errno
import importlib
import importlib.machinery
import io
import sys
import traceback
import types

from .peer import Peer, PeerEnded, raised

_DENIED = {errno.EPERM, errno.EACCES, errno.EROFS, errno.ENETUNREACH}
_PRINTED_LIMIT = 1 << 20  # characters that all examples of a job may print together
_RESERVE = [bytes(8 << 20)]  # freed when memory runs out, so that this can still be reported
_FUTURE_FLAGS = {name: getattr(__future__, name).compiler_flag for name in __future__.all_feature_names}
_PARSER_ERRORS = (SyntaxError, ValueError, RecursionError, MemoryError)  # all that Python's own parser raises


def run_program(job: dict) -> dict:
    """Run a job without tests; returns outcome, got, exceptions, detail. Never raises for what the job does."""
    report = {"outcome": "finished", "got": [], "exceptions": [], "detail": ""}
    try:
        program = compile(job["program"], "<program>", "exec", dont_inherit=True)
        if job["patch"] is not None:
            compile(job["patch"]["source"], job["patch"]["module"], "exec", dont_inherit=True)
    except _PARSER_ERRORS as error:
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


def run_tests(job: dict, peers: list[Peer]) -> dict:
    """Run a job's tests and examples here, and its program at the peers; returns what `run_program` returns."""
    report = {"outcome": "finished", "got": [], "exceptions": [], "detail": ""}
    tests = job["tests"]
    namespace = vars(types.ModuleType("__main__"))
    for peer in peers:
        peer.methods = tests.get("methods", True)
    try:
        if job["command"] is None:
            compile(job["program"], "<program>", "exec", dont_inherit=True)
    except _PARSER_ERRORS as error:
        return report | {"outcome": "syntax", "detail": _exception_text(error)}
    try:
        request = {key: job[key] for key in ("program", "root")} | {"names": tests["names"]}
        namespace.update(peers[0].borrow(request | {"patch": job["patch"]}))
        if "against" in tests:
            namespace["against"] = peers[1].borrow(request | {"patch": tests["against"]})
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


def serve_program(peer: Peer) -> None:
    """Run the program of a job with tests, lend the names that they use, and serve calls until the other end closes."""
    job = peer.receive()
    try:
        namespace = _namespace(job)
        exec(compile(job["program"], "<program>", "exec", dont_inherit=True), namespace)
        peer.send(["lent", {name: peer.lend(namespace[name]) for name in job["names"]}])
    except BaseException as error:  # SystemExit, too, ends the program before the tests
        _RESERVE.clear()
        peer.send(raised(error))
    while True:
        kind, *rest = peer.receive()
        peer.serve(kind, rest)


def _run_examples(examples: list[dict], namespace: dict) -> dict:
    """Run each example as doctest does; returns outcome, got, exceptions and detail."""
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


class _Printed(io.StringIO):
    """What the examples print, up to a limit."""

    total = 0

    def write(self, text: str) -> int:
        self.total += len(text)
        if self.total > _PRINTED_LIMIT:
            raise MemoryError(f"printed more than {_PRINTED_LIMIT} characters")
        return super().write(text)

    def take(self) -> str:
        """Everything since the last call; a final line is terminated, as doctest does it."""
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text if not text or text.endswith("\n") else text + "\n"


def _namespace(job: dict) -> dict:
    """Where the program and the examples run: a copy of the patched module's names, as in doctest, or `__main__`."""
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if job["root"] is not None:
        sys.path.insert(0, job["root"])
    if job["patch"] is None:
        return vars(main)
    top = job["patch"]["module"].split(".")[0]
    for name in [name for name in sys.modules if name.split(".")[0] == top]:
        del sys.modules[name]  # modules that this process loaded for itself are not patched
    sys.meta_path.insert(0, _PatchFinder(job["patch"]["module"], job["patch"].pop("source")))
    return dict(vars(importlib.import_module(job["patch"]["module"])))


class _PatchFinder:
    """Finds the patched module before any other finder. Its source text is gone by the time its code can run."""

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


class _PatchedLoader(importlib.machinery.SourceFileLoader):
    """Loads a module from the given code instead of its file."""

    def __init__(self, name: str, path: str, code: types.CodeType):
        super().__init__(name, path)
        self.code = code

    def get_code(self, fullname):
        return self.code


def _exception_text(error: BaseException) -> str:
    """As doctest compares it: the lines after the traceback."""
    return "".join(traceback.format_exception_only(type(error), error))


def _outcome_of(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "memory"
    was_denied = isinstance(error, OSError) and error.errno in _DENIED
    return "denied" if was_denied else "exception"
