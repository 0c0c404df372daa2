"""Names that an answer uses and that do not exist: undefined names, imports, attributes of modules, words in backticks.

Nothing that an answer names is imported in this process: modules are asked for their names inside the sandbox.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib.util
import json
import keyword
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from data.corpus import import_root
from eval.sandbox import Job, run_jobs
from eval.style import UNDEFINED_NAME, Issue
from model.console import UserError

_BACKTICKED = re.compile(r"(?<!`)(`{1,2})([A-Za-z_][\w.]*)(?:\(\))?\1(?!`)")
_QUOTED = re.compile(r"`([^`]+)`")
_SECONDS, _MEGABYTES = 60.0, 4096  # of the job that imports what was named: some packages are slow and large


@dataclass(frozen=True)
class Answer:
    """What is to be checked, and against what.

    code      Python that parses, or None
    issues    ruff's findings in it (eval.style.lint)
    prose     text whose `backticked` names are checked, or None
    prompt    what the model was shown: a name that stands there is not invented
    package   SOURCE of the code that the answer is about, or None
    module    dotted name of the module that the code will stand in: its names are known there; None for a file of
              its own
    path      of the source file the pair was made from, relative to the import root
    """

    code: str | None = None
    issues: tuple[Issue, ...] = ()
    prose: str | None = None
    prompt: str = ""
    package: str | None = None
    module: str | None = None
    path: str | None = None


@dataclass(frozen=True)
class NameReport:
    """How many names were looked up, which of them exist nowhere, and how many could not be looked up."""

    checked: int
    hallucinated: tuple[str, ...]
    unknown: int


@dataclass(frozen=True, order=True)
class _Question:
    """Does `module` have this chain of attributes? No attributes: does the module exist?"""

    module: str
    chain: tuple[str, ...] = ()


def check_names(
    answers: list[Answer], *, processes: int | None = None, allow_unsafe_exec: bool = False
) -> list[NameReport]:
    """Look up every name that each answer uses. Equal questions are asked once."""
    asked = [_questions(answer) for answer in answers]
    wanted = defaultdict(set)
    for answer, questions in zip(answers, asked, strict=True):
        wanted[_root(answer.package)].update(questions)
    known = _ask(wanted, processes, allow_unsafe_exec)
    return [_report(answer, questions, known) for answer, questions in zip(answers, asked, strict=True)]


def _report(answer: Answer, questions: set[_Question], known: dict) -> NameReport:
    root = _root(answer.package)
    checked, missing, unknown = 0, set(), 0
    for question in questions:
        exists = known[root, question]
        checked += exists is not None
        unknown += exists is None
        if exists is False:
            missing.add(_shown(question, answer.module))
    if answer.code is not None:
        loaded = {node.id for node in ast.walk(ast.parse(answer.code)) if isinstance(node, ast.Name)}
        checked += len(loaded)
        for name in _undefined(answer):
            if answer.module is None:
                missing.add(name)
    if answer.prose is not None:
        vocabulary = _vocabulary(answer)
        for name in _names_in_prose(answer.prose):
            exists = _is_known_word(name, answer.prompt, vocabulary)
            checked += exists is not None
            unknown += exists is None
            missing.update([name] if exists is False else [])
    return NameReport(checked, tuple(sorted(missing)), unknown)


def _shown(question: _Question, module: str | None) -> str:
    """The name as the answer writes it: bare where the surrounding module would have to know it."""
    own = question.module == module and question.chain
    return ".".join(question.chain if own else (question.module, *question.chain))


def _undefined(answer: Answer) -> set[str]:
    found = (_QUOTED.search(issue.message) for issue in answer.issues if issue.rule == UNDEFINED_NAME)
    return {match.group(1) for match in found if match}


def _questions(answer: Answer) -> set[_Question]:
    """What the code claims to exist outside itself: imported modules and names, attributes of modules."""
    if answer.code is None:
        return set()
    tree = ast.parse(answer.code)
    questions, aliases = _imports(tree, answer)
    undefined = _undefined(answer)
    if answer.module is not None:
        questions |= {_Question(answer.module, (name,)) for name in undefined}
        aliases = {name: _Question(answer.module, (name,)) for name in undefined} | aliases
    rebound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        base, chain = _attribute_chain(node)
        if base in aliases and base not in rebound:
            start = aliases[base]
            questions.add(_Question(start.module, start.chain + chain))
    return questions


def _imports(tree: ast.Module, answer: Answer) -> tuple[set[_Question], dict[str, _Question]]:
    """The questions that the imports pose, and what each name that they bind stands for."""
    questions, aliases = set(), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                questions.add(_Question(name.name))
                aliases[name.asname or name.name.split(".")[0]] = _Question(
                    name.name if name.asname else name.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(node, answer)
            for name in node.names if module else []:
                question = _Question(module) if name.name == "*" else _Question(module, (name.name,))
                questions.add(question)
                aliases[name.asname or name.name] = question
    return questions, aliases


def _absolute(node: ast.ImportFrom, answer: Answer) -> str | None:
    """The dotted name that a `from ... import` means; None for a relative one that has nothing to be relative to."""
    if not node.level:
        return node.module
    parts = (answer.module or "").split(".")[: -node.level]
    return ".".join([*parts, *filter(None, [node.module])]) or None


def _attribute_chain(node: ast.AST) -> tuple[str | None, tuple[str, ...]]:
    """`nx.algorithms.dag` -> ("nx", ("algorithms", "dag")); (None, ()) for anything else."""
    chain = []
    while isinstance(node, ast.Attribute):
        chain.append(node.attr)
        node = node.value
    return (node.id, tuple(reversed(chain))) if chain and isinstance(node, ast.Name) else (None, ())


_LOOK_UP = """
import importlib, json, types
def exists(module, chain):
    try:
        value = importlib.import_module(module)
    except ModuleNotFoundError as error:
        return error.name is not None and error.name != module and not module.startswith(error.name + ".")
    except Exception:  # it is there, and breaks while it is imported: not a name that was made up
        return True
    for name in chain:
        if not isinstance(value, (types.ModuleType, type)):
            return True
        if not hasattr(value, name):
            try:
                importlib.import_module(f"{value.__name__}.{name}")
            except ImportError:
                return False
        value = getattr(value, name)
    return True
answers = [exists(module, chain) for module, chain in QUESTIONS]
"""


def _ask(wanted: dict[str | None, set[_Question]], processes: int | None, allow_unsafe_exec: bool) -> dict:
    """(root, question) -> True, False, or None where the sandbox gave no answer."""
    groups = defaultdict(list)
    for root, questions in wanted.items():
        for question in sorted(questions):
            groups[root, question.module.split(".")[0]].append(question)
    jobs = []
    for (root, name), questions in groups.items():
        listed = repr([(question.module, question.chain) for question in questions])
        program = _LOOK_UP.replace("QUESTIONS", listed)
        examples = [{"source": "print(json.dumps(answers))"}]
        jobs.append(Job(name, program, root, None, examples, seconds=_SECONDS, megabytes=_MEGABYTES))
    outcomes = run_jobs(jobs, processes=processes, allow_unsafe_exec=allow_unsafe_exec, what="looking up names")
    known = {}
    for ((root, _), questions), outcome in zip(groups.items(), outcomes, strict=True):
        finished = outcome.outcome == "finished"
        found = json.loads(outcome.got[0]) if finished else [None] * len(questions)
        known.update(((root, question), exists) for question, exists in zip(questions, found, strict=True))
    return known


@functools.lru_cache
def _root(package: str | None) -> str | None:
    return str(import_root(package)) if package else None


def _names_in_prose(text: str) -> set[str]:
    return {match.group(2).strip(".") for match in _BACKTICKED.finditer(text)}


def _is_known_word(name: str, prompt: str, vocabulary: frozenset[str] | None) -> bool | None:
    """Whether each part of a dotted name is a word of the prompt, of Python or of the package; None: nothing to ask."""
    parts = set(name.split("."))
    unknown = parts - set(re.findall(r"\w+", prompt)) - set(dir(builtins)) - set(keyword.kwlist)
    if not unknown:
        return True
    return None if vocabulary is None else unknown <= vocabulary


def _vocabulary(answer: Answer) -> frozenset[str] | None:
    """Every word in the source of the package that the answer is about; None where it is not to be found."""
    if answer.path is None:
        return None
    top = answer.path.split("/")[0]
    if answer.package is not None:
        return _words(Path(_root(answer.package), top))
    spec = importlib.util.find_spec(top.removesuffix(".py"))  # a top-level name is located, not imported
    return _words(Path(spec.origin).parent) if spec and spec.origin else None


@functools.lru_cache(maxsize=8)
def _words(place: Path) -> frozenset[str]:
    files = [place] if place.is_file() else sorted(place.rglob("*.py"))
    if not files:
        raise UserError(f"{place}: no Python file there; the answers are about code that is no longer installed")
    texts = (file.read_text(encoding="utf-8", errors="replace") for file in files)
    return frozenset(word for text in texts for word in re.findall(r"[A-Za-z_]\w*", text))
