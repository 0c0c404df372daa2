"""A command run as a user types it, but in this process: a fresh one would spend two seconds on importing torch."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import subprocess
import sys
import warnings
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments, **environment) -> subprocess.CompletedProcess:
    """Run `python script.py …` or `python -m module …`; returns what subprocess.run would.

    The `if __name__ == "__main__"` part runs too, with its own sys.argv and with `environment` added to the process's.
    An exception that would end a process with a traceback is raised. The output of child processes is not captured.
    """
    arguments = [str(argument) for argument in arguments]
    is_module = arguments[0] == "-m"
    name = arguments[1] if is_module else str(ROOT / arguments[0])
    out, err = io.StringIO(), io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", [name, *arguments[1 + is_module :]]),
        mock.patch.object(sys, "stdin", io.StringIO()),
        mock.patch.dict(os.environ, environment),
    ):
        warnings.simplefilter("ignore")  # that a test has imported the module before
        try:
            if is_module:
                runpy.run_module(name, run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(name, run_name="__main__")
            status = 0
        except SystemExit as end:
            status = end.code or 0
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())
