"""What proves an answer: doctests, tests, recorded values; mutants; style and names; the code in an answer."""

from data.checks.check import EXECUTED, structure_check, unit_test_check
from data.checks.jobs import jobs_of, race_job, rerun, run_groups, unit_test_jobs
from data.checks.verdict import KILLED, proves, refutes

__all__ = [
    "EXECUTED", "KILLED", "jobs_of", "proves", "race_job", "refutes", "rerun", "run_groups", "structure_check",
    "unit_test_check", "unit_test_jobs",
]  # fmt: skip
