"""What goes into the sandbox, and what comes out: a job and its outcome."""

from __future__ import annotations

from dataclasses import dataclass

OUTCOMES = ("finished", "exception", "syntax", "timeout", "memory", "denied", "died")


@dataclass(frozen=True)
class Job:
    """One program to run.

    id         returned with the outcome
    program    source text, run first; may be empty
    root       folder put first on sys.path
    patch      {"module", "source"}: importing `module` executes `source` instead of the text of its file; program and
               examples then run in a copy of that module's names, as doctest does
    examples   [{"source"}]: run one after another as doctest runs them; with tests, after them and in their process
    seconds    wall-clock limit
    megabytes  limit on the address space of each process
    tests      {"source", "names"}: run after the program, in another process, where `names` of the program are
               stand-ins. Arguments and results that are plain values are copied (mutable arguments back, too);
               callables and the program's own objects are lent, and lent objects are equal only to themselves. "names"
               should include what is tested, and nothing that the tests judge with. With "against", another patch,
               the program also runs in a third process, which lends its names in the dict `against`. "methods": false
               forbids calling methods of lent objects, which is right if only functions are tested
    command    a command that runs the program instead of Python, with `tests` only: confined in the same way, and given
               the numbers of two pipes, over which it receives the program and follows the protocol of sandbox/peer.py
    readable   folders besides `root` that the program may read, such as a repository whose tests it runs. Without a
               root folder of its own it then also sees the names in other folders, which pytest lists
    """

    id: str
    program: str = ""
    root: str | None = None
    patch: dict | None = None
    examples: list[dict] | None = None
    seconds: float = 10.0
    megabytes: int = 1024
    tests: dict | None = None
    command: list[str] | None = None
    readable: list[str] | None = None


@dataclass(frozen=True)
class Outcome:
    """The result of a job.

    outcome     one of OUTCOMES; "finished" means that the last line ran, not that any answer is right
    got         per example: what it printed, including the representation of a final expression
    exceptions  per example: None, or "Type: message" as doctest compares it
    detail      the deciding exception, at most 500 characters
    seconds     wall-clock time
    """

    id: str
    outcome: str
    got: list[str]
    exceptions: list[str | None]
    detail: str
    seconds: float
