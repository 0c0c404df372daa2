"""A code task: the prompt, the tests, and what the tests need from an answer."""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass

from common.python_syntax import parsed
from common.shuffle import seeded_order

DRAW = 0  # the seed by which tasks are drawn: the same for every model and every --seed, so that results can be paired


@dataclass(frozen=True)
class CodeTask:
    """One task.

    prompt       prose, or the head of the function (signature, docstring, and the code above it)
    entry_point  the function that the tests call
    tests        Python assertions; `setup` runs before them
    shown        assertions that the prompt includes; in MBPP they alone give the names and types
    gold         a module that solves the task, or None
    language     of the answer: "python", "js" or "ts"; the tests are always Python
    stops        strings that end a base model's answer; empty: the usual ones for Python
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
        """Whether the prompt is code that an answer may continue."""
        heads = self.prompt, f"{self.prompt.rstrip()}\n    pass\n"  # the second: a signature without a docstring
        return self.language != "python" or any(self.entry_point in defined_names(head) for head in heads)

    @functools.cached_property
    def used(self) -> frozenset[str]:
        """Names that the tests read or bind."""
        return frozenset(n.id for n in ast.walk(ast.parse(self.setup + self.tests)) if isinstance(n, ast.Name))

    @functools.cached_property
    def needed(self) -> frozenset[str]:
        """Names besides the entry point that the tests take from the answer, such as a class that the gold defines.

        A class in the prompt is taken from the answer as well, so that its instances can be passed; a function in the
        prompt belongs to the tests.
        """
        own = defined_names(self.gold or "") - defined_names(self.prompt) | defined_names(self.prompt, ast.ClassDef)
        return self.used & own - {self.entry_point}

    @property
    def has_class(self) -> bool:
        """Whether the tests use a class of the answer, judging by the gold and the prompt."""
        classes = defined_names(self.gold or "", ast.ClassDef) | defined_names(self.prompt, ast.ClassDef)
        return bool(classes & {self.entry_point, *self.needed})

    @property
    def context(self) -> str:
        """Code that runs before the tests: the definitions in the prompt, and the imports of the gold that they use."""
        beside = statements(self.prompt) if self.is_head and self.language == "python" else []
        beside = [node for node in beside if getattr(node, "name", None) not in {self.entry_point, *self.needed}]
        imports = [node for node in statements(self.gold or "") if isinstance(node, (ast.Import, ast.ImportFrom))]
        taken = [node for node in imports if {(a.asname or a.name).split(".")[0] for a in node.names} & self.used]
        return "".join(ast.unparse(node) + "\n" for node in [*beside, *taken])


def drawn(tasks: list[CodeTask], count: int | None) -> list[CodeTask]:
    """`count` of the tasks (None: all) by a fixed draw, in their own order; a larger draw holds every smaller one."""
    kept = set(seeded_order([task.task_id for task in tasks], DRAW)[:count])
    return [task for task in tasks if task.task_id in kept]


def statements(code: str) -> list[ast.stmt]:
    """The statements of a module; none if it does not parse."""
    return getattr(parsed(code), "body", [])


def defined_names(code: str, kind: type = ast.stmt) -> set[str]:
    """The names of the functions and classes (or of one kind of statement) that a module defines."""
    return {node.name for node in statements(code) if isinstance(node, kind) and hasattr(node, "name")}
