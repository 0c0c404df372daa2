"""What proves an answer: doctests, tests, recorded values; mutants; the code in an answer."""

from data.checks.check import (
    EXECUTED,
    KILLED,
    jobs_of,
    judge,
    race_job,
    refutes,
    run_in_sandbox,
    structure_check,
    unit_test_check,
    unit_test_jobs,
)

__all__ = [
    "EXECUTED",
    "KILLED",
    "jobs_of",
    "judge",
    "race_job",
    "refutes",
    "run_in_sandbox",
    "structure_check",
    "unit_test_check",
    "unit_test_jobs",
]
