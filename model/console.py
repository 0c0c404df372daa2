"""How every command speaks: one line for an error, a progress bar for anything that takes time."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterable

from tqdm import tqdm


class UserError(Exception):
    """Something the user can mend. The message says in one line what is wrong and what to do."""


def run_command(main: Callable[[], None]) -> int:
    """Run a command-line entry point; returns its exit status.

    A UserError becomes one line on stderr and status 2, Ctrl-C becomes status 130. Anything else is a fault of ours
    and keeps its traceback.
    """
    try:
        main()
    except UserError as error:
        print(f"tritune: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("tritune: stopped by Ctrl-C; a training run goes on with --resume", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        sys.stderr.close()
        return 141
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print("tritune: the disk is full; make room, then go on (training: --resume)", file=sys.stderr)
        return 2
    return 0


def progress(
    items: Iterable | None = None, *, what: str, total: int | None = None, unit: str = "it", hidden: bool = False
) -> tqdm:
    """A progress bar with time left, shown after two seconds and only on a terminal, or not at all.

    Iterate over it, or give `total` and call `update(n)`.
    """
    return tqdm(
        items, desc=what, total=total, unit=unit, delay=2.0, leave=False, dynamic_ncols=True, disable=hidden or None
    )


def need(package: str, *, why: str, install: str | None = None):
    """Import an extra package, or say in one line which one is missing and how to install it.

    install  its name in the package index where that is another one
    """
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"{why} needs the extra package {package!r}: pip install {install or package}") from error
