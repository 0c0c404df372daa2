"""Checks of functions in JavaScript and TypeScript: their parts, mutants, modules, and examples, which node runs."""

from data.checks.script.assertions import calls_of_assertions
from data.checks.script.check import calls_check, function_problem, job_of_calls, script_structure_check
from data.checks.script.examples import calls_of_examples
from data.checks.script.mutants import script_mutants
from data.checks.script.parts import Parts, is_script, parts_of

__all__ = [
    "Parts", "calls_check", "calls_of_assertions", "calls_of_examples", "function_problem", "is_script", "job_of_calls",
    "parts_of", "script_mutants", "script_structure_check",
]  # fmt: skip
