"""Finds checks that count: the original passes them three times in a row, and a mutant fails them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data.checks.check import doctest_check, structure_check, suite_check, values_check
from data.checks.jobs import jobs_of, rerun, run_groups, values_job
from data.checks.mutate import Mutant, mutants
from data.checks.tracing import Recording, record_tests
from data.checks.verdict import exception_name, proves, refutes
from data.corpus.functions import Function
from sandbox.run import Outcome

KINDS = ("doctest", "values", "tests")  # in order of how well the verdict is shielded from the answer
UNPROVEN = "structure"  # the kind that accepts a function without running anything
RUNS = 3  # of the original, in a row
CHUNK = 64  # functions tried together: each job contains the text of a whole module
MOST_MUTANTS = 4  # tried until one fails
MOST_TESTS = 8  # of a tests check
MOST_TEST_SECONDS = 3.0  # that they take together
MOST_CALLS = 12  # of a values check
ENTERED = "entered"


@dataclass
class Candidate:
    """A check of a function, and how it fared: how often the original passed, whether a mutant failed."""

    function: Function
    check: dict
    mutants: list[Mutant]
    passed: int = 0
    killed: bool = False

    def problem(self) -> str | None:
        """Why the check does not count, or None."""
        if self.killed:
            return None
        if self.passed == 0 and self.check["kind"] != "values":  # values are recorded from the original itself
            return "the original fails"
        if self.passed < RUNS:
            return "flaky"
        return "no mutant fails" if self.mutants else "nothing to mutate"


class Checks:
    """The first check of each function that counts, found on demand and kept.

    functions  all functions of a corpus
    kinds      some of KINDS and UNPROVEN, in the order in which they are tried; for "values" and "tests" the tests of a
               source run once, when some function has no earlier check
    """

    def __init__(self, functions: list[Function], kinds: Sequence[str] = KINDS, *, processes: int | None = None):
        self.functions, self.kinds, self.processes = functions, tuple(kinds), processes
        self.found: dict[Function, dict] = {}
        self.reasons: dict[Function, list[str]] = {}  # why a function has none, by kind
        self.recordings: dict[str, Recording] = {}

    def find(self, functions: list[Function]) -> None:
        """Look for checks of the functions, except those looked for before, all at once."""
        new = [function for function in dict.fromkeys(functions) if function not in self.reasons]
        self.reasons.update((function, []) for function in new)
        for package in dict.fromkeys(function.package for function in new):
            of_package = [function for function in new if function.package == package]
            for kind in self.kinds:
                self._find_kind(kind, package, [function for function in of_package if function not in self.found])

    def of(self, function: Function) -> dict | None:
        """The check that `find` found for a function, else None."""
        return self.found.get(function)

    def why_none(self, function: Function) -> str:
        """The reason why a function has no check."""
        return "no check that counts: " + (", ".join(self.reasons.get(function, ())) or "nothing was found")

    def lost(self) -> Counter:
        """How many of the repository's tests and test files could not be used, by reason."""
        return sum((Counter(recording.lost) for recording in self.recordings.values()), Counter())

    def _find_kind(self, kind: str, package: str, functions: list[Function]) -> None:
        if kind == UNPROVEN:
            self.found.update((function, structure_check([], False, [function.name])) for function in functions)
            return
        if functions and kind != "doctest" and package not in self.recordings:
            of_package = [function for function in self.functions if function.package == package]
            self.recordings[package] = record_tests(package, of_package, processes=self.processes)
        for one in tried(kind, package, functions, self.recordings.get(package), processes=self.processes):
            if (problem := one.problem()) is None:
                self.found[one.function] = one.check
            else:
                self.reasons[one.function].append(f"{kind}: {problem}")


def tried(
    kind: str,
    package: str,
    functions: list[Function],
    recording: Recording | None = None,
    *,
    processes: int | None = None,
) -> Iterator[Candidate]:
    """The checks of one kind that the functions offer, each after its runs on the original and on mutants.

    kind       one of KINDS
    package    SOURCE of the functions' corpus
    recording  from `record_tests`; without it there are only doctests
    """
    for start in range(0, len(functions), CHUNK):
        some = functions[start : start + CHUNK]
        if kind == "doctest":
            candidates = [*_doctests(package, some)]
        elif kind == "values":
            candidates = [*_values(package, some, recording, processes)]
        else:
            candidates = [*_tests(package, some, recording)]
        _run_originals(candidates, processes)
        _run_mutants(candidates, processes)
        yield from candidates


def _run_originals(candidates: list[Candidate], processes: int | None) -> None:
    """Count the runs that each candidate's original passes."""
    asked = [(one, jobs_of(one.check, one.function.source)) for one in candidates]
    runs = [(one, rerun(jobs, number)) for one, jobs in asked for number in range(RUNS)]
    for (one, _), outcomes in zip(runs, run_groups([jobs for _, jobs in runs], processes=processes), strict=True):
        one.passed += proves(one.check, outcomes)


def _run_mutants(candidates: list[Candidate], processes: int | None) -> None:
    """Run each check that its original always passes on one mutant after another, until one fails."""
    standing = [one for one in candidates if one.passed == RUNS]
    for number in range(MOST_MUTANTS):
        unkilled = [one for one in standing if not one.killed and number < len(one.mutants)]
        jobs = [jobs_of(one.check, one.mutants[number].source) for one in unkilled]
        for one, outcomes in zip(unkilled, run_groups(jobs, processes=processes), strict=True):
            one.killed = refutes(one.check, outcomes)


def spread(found: list[Mutant]) -> list[Mutant]:
    """Mutants ordered so that the kinds take turns, a wrong return first: it is noticed most often."""
    turns: dict[str, int] = {}
    ranked = []
    for mutant in found:
        turns[mutant.kind] = turns.get(mutant.kind, -1) + 1
        ranked.append((turns[mutant.kind], mutant.kind != "return", len(ranked), mutant))
    return [mutant for *_, mutant in sorted(ranked, key=lambda one: one[:3])]


def _candidate(function: Function, check: dict) -> Candidate:
    return Candidate(function, check, spread(mutants(function.source))[:MOST_MUTANTS])


def _doctests(package: str, functions: list[Function]) -> Iterator[Candidate]:
    for function in functions:
        if any(example["want"] and not example["options"].get("SKIP") for example in function.examples):
            yield _candidate(function, doctest_check(package, function))


def _tests(package: str, functions: list[Function], recording: Recording | None) -> Iterator[Candidate]:
    for function in functions if recording else []:
        chosen, seconds = [], 0.0
        for test in recording.tests_of(function):
            if len(chosen) < MOST_TESTS and seconds + recording.seconds[test] <= MOST_TEST_SECONDS:
                chosen.append(test)
                seconds += recording.seconds[test]
        if chosen:
            yield _candidate(function, suite_check(package, function, chosen))


def _values(
    package: str, functions: list[Function], recording: Recording | None, processes: int | None
) -> Iterator[Candidate]:
    """Checks of recorded calls. Each is called again for its result: a traced frame is inside any decorators.

    A call counts if its result is plain data and it enters the function, which a body that only raises reveals.
    """
    called = [function for function in functions if recording and recording.calls_of(function)]
    asked, jobs = [], []
    for function in called:
        calls = [{"arguments": text} for text in recording.calls_of(function)[:MOST_CALLS]]
        check = values_check(package, function, calls)
        hollow = f"{function.header}\n    raise NotImplementedError({ENTERED!r})"
        asked.append(check)
        jobs.append([values_job(check, function.source), values_job(check, hollow)])
    for function, check, (first, hollow) in zip(called, asked, run_groups(jobs, processes=processes), strict=True):
        if first.outcome == hollow.outcome == "finished":
            calls = list(_recorded(check["calls"], first, hollow))
            if calls:
                yield _candidate(function, {**check, "calls": calls})


def _recorded(calls: list[dict], first: Outcome, hollow: Outcome) -> Iterator[dict]:
    """The calls that count, each with its result."""
    for number, call in enumerate(calls):
        got, exception = first.got[number], first.exceptions[number]
        entered = ENTERED in (hollow.exceptions[number] or "")
        if entered and not got.endswith("not plain data\n"):
            yield {**call, "want": got, "raises": exception and exception_name(exception)}
