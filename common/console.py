"""What every command prints: one line for an error, a progress bar for anything that takes time."""

from __future__ import annotations

import errno
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # in a notebook without widgets: the bar is then text, as on a terminal
    from tqdm.auto import tqdm


class UserError(Exception):
    """An error that the user can fix. The message says in one line what is wrong and what to do."""


# How PyTorch, CUDA's libraries and the system report out of memory, if not by the class of the error.
OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|cannot allocate memory|_ALLOC_FAILED", re.IGNORECASE)


def run_command(main: Callable[[], object], *, needs_less_with: str = "a smaller model or less data") -> int:
    """Run a command-line entry point; returns its exit status.

    needs_less_with  what the user can change to reduce memory use
    A UserError or running out of memory becomes one line on stderr and status 2, Ctrl-C becomes status 130. Anything
    else is a bug and keeps its traceback.
    """
    try:
        main()
    except UserError as error:
        print(f"tritune: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("tritune: stopped by Ctrl-C; resume a training run with --resume", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has exited
        sys.stderr.close()
        return 141
    except Exception as error:
        if lack := lack_of_memory(error):
            print(f"tritune: {lack}; to use less: {needs_less_with}", file=sys.stderr)
        elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
            print("tritune: the disk is full; free some space and rerun (training: with --resume)", file=sys.stderr)
        else:
            raise
        return 2
    return 0


def lack_of_memory(error: BaseException) -> str | None:
    """A description of an out-of-memory error, on a GPU or the host, with the size that was requested; else None.

    These are torch.OutOfMemoryError, some RuntimeErrors of the CPU allocator and of CUDA's libraries, MemoryError, the
    system's ENOMEM, and any error caused by one of them, as when a CUDA graph cannot be fully recorded.
    """
    words = str(error)
    if not (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(words))
    ):
        before = error.__cause__ or error.__context__
        return lack_of_memory(before) if before else None
    where = "the GPU is out of memory" if re.search("CUDA out of memory|CUBLAS|CUDNN", words) else "out of memory"
    asked = re.search(r"allocate ([\d.]+ [KMG]iB|\d+(?= bytes))", words)
    if not asked:
        return where
    amount = f"{int(asked[1]) / 2**30:.2f} GiB" if asked[1].isdigit() else asked[1]
    return f"{where} ({amount} more were requested)"


def progress(
    items: Iterable | None = None, *, what: str, total: int | None = None, unit: str = "it", hidden: bool = False
) -> tqdm:
    """A progress bar with the remaining time, shown after two seconds and only on a terminal or in a notebook.

    Iterate over it, or give `total` and call `update(n)`. `hidden` never shows it.
    """
    return tqdm(
        items, desc=what, total=total, unit=unit, delay=2.0, leave=False, dynamic_ncols=True,
        disable=hidden or no_progress(),
    )  # fmt: skip


def no_progress() -> bool | None:
    """tqdm's `disable`: None, which is without a terminal, or False in a notebook, unless TQDM_DISABLE is set."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return False if hasattr(shell, "kernel") and not os.environ.get("TQDM_DISABLE") else None


def need(package: str, *, why: str, install: str | None = None):
    """Import an optional package. UserError says which one is missing and how to install it.

    install  its name in the package index, if that differs
    """
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"{why} needs the extra package {package!r}: pip install {install or package}") from error
