"""Hallucination: names that an answer uses but that do not exist, counted by kind (KINDS).

Nothing that an answer names is imported in this process: modules are imported, and asked, inside the sandbox. What
cannot be looked up counts as unknown, never as invented.
"""

from __future__ import annotations

import ast
import builtins
import collections
import functools
import importlib.util
import io
import keyword
import re
import types
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from common.console import UserError
from common.python_syntax import parsed
from data.checks.linting import UNDEFINED_NAME, Issue
from data.checks.lookup import Call, Question, look_up
from data.corpus import import_root
from data.corpus.filters import decode

KINDS = {
    "name": "names that nothing defines",
    "import": "modules, and names imported from them, that resolve nowhere",
    "attribute": "attributes that the module, the class or, for any other object, the whole repository does not have",
    "call": "calls whose keywords or number of arguments the function does not take",
    "prose": "identifiers in prose: in backticks, with an underscore, or followed by ()",
}
_BACKTICKED = re.compile(r"(?<!`)(`{1,2})([A-Za-z_][\w.]*)(?:\(\))?\1(?!`)")
_PLAIN_IDENTIFIER = re.compile(r"(?<![\w.`/\\$-])(?:[A-Za-z]\w*_\w*[A-Za-z0-9]|[a-z_]\w*(?=\(\)))(?![\w`/-])")
_QUOTED = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Answer:
    """What to check, and against what.

    code      Python that parses, or None
    issues    ruff's findings in it (`lint_style`)
    prose     text whose `backticked` names are checked, or None
    prompt    what the model was shown: names in it are not invented
    package   SOURCE of the code that the answer is about, or None
    module    dotted name of the module that the code goes into, whose names it may use; None if it is a file of its own
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
    """How many names were looked up, which do not exist, and how many could not be looked up.

    kinds  kind of KINDS -> (invented, checked); only the kinds that occur
    """

    checked: int
    hallucinated: tuple[str, ...]
    unknown: int
    kinds: dict[str, tuple[int, int]]


def check_names(
    answers: list[Answer], *, processes: int | None = None, allow_unsafe_exec: bool = False
) -> list[NameReport]:
    """Look up every name that each answer uses. Equal look-ups run once."""
    asked = [_questions(answer) for answer in answers]
    wanted = defaultdict(set)
    for answer, questions in zip(answers, asked, strict=True):
        wanted[_root(answer.package)].update(questions)
    known = look_up(wanted, processes=processes, allow_unsafe_exec=allow_unsafe_exec)
    return [_report(answer, questions, known) for answer, questions in zip(answers, asked, strict=True)]


def total_by_kind(counts: Iterable[dict[str, tuple[int, int]]]) -> dict[str, dict[str, int]]:
    """The `kinds` of many reports added up: kind -> {"invented", "checked"}."""
    totals = {kind: [0, 0] for kind in KINDS}
    for kinds in counts:
        for kind, (invented, checked) in kinds.items():
            totals[kind] = [totals[kind][0] + invented, totals[kind][1] + checked]
    return {kind: {"invented": invented, "checked": checked} for kind, (invented, checked) in totals.items()}


def _report(answer: Answer, questions: set[Question], known: dict) -> NameReport:
    root = _root(answer.package)
    unasked = {q.chain[0] for q in questions if q.kind == "name" and known[root, q] is False} & _bound_around(answer)
    found = []
    for q in questions:
        hangs_on_it = q.module == answer.module and q.chain[:1] and q.chain[0] in unasked
        exists = (True if q.kind == "name" else None) if hangs_on_it else known[root, q]
        found.append((q.kind, _shown(q, answer.module), exists))
    if answer.code is not None:
        found += _names_in_code(answer)
    if answer.prose is not None:
        vocabulary = _vocabulary(answer)
        names = sorted(_names_in_prose(answer.prose))
        found += [("prose", name, _is_known_word(name, answer.prompt, vocabulary)) for name in names]
    kinds = {}
    for kind in KINDS:
        verdicts = [exists for of_kind, _, exists in found if of_kind == kind and exists is not None]
        if verdicts:
            kinds[kind] = (verdicts.count(False), len(verdicts))
    return NameReport(
        checked=sum(checked for _, checked in kinds.values()),
        hallucinated=tuple(sorted({name for _, name, exists in found if exists is False})),
        unknown=sum(exists is None for _, _, exists in found),
        kinds=kinds,
    )


def _names_in_code(answer: Answer) -> list[tuple[str, str, bool | None]]:
    """(kind, name, whether it exists) for plain names, and for attributes of objects of unknown type."""
    tree = ast.parse(answer.code)
    undefined = _undefined(answer)
    loaded = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    vocabulary = _vocabulary(answer)
    found: list[tuple[str, str, bool | None]]
    if answer.module is not None:  # undefined names are looked up in the module instead
        found = [("name", name, True) for name in loaded - undefined]
    else:
        found = [("name", name, name not in undefined or _is_around(name, answer, vocabulary)) for name in loaded]
    if vocabulary is None:
        return found
    own = _bound(tree) | {node.attr for node in ast.walk(tree) if _is_stored_attribute(node)}
    words = vocabulary | own | _builtin_attributes() | set(re.findall(r"\w+", answer.prompt))
    aliases = _imports(tree, answer)[1]
    judged = {q.module.split(".")[0] for q in aliases.values()} <= {answer.path.split("/")[0].removesuffix(".py")}
    resolved = aliases.keys() | undefined  # attributes of these are looked up in the module itself
    attributes = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and _root_of(n) not in resolved}
    # an object of another library may have attributes that the repository never mentions
    return found + [("attribute", name, name in words or (False if judged else None)) for name in attributes]


def _is_around(name: str, answer: Answer, vocabulary: frozenset[str] | None) -> bool | None:
    """Whether the file that the code goes into may define a name; None if that file cannot be asked."""
    # a file of its own: nothing is around it
    if answer.path is None or answer.package is not None:
        return False
    # a function from a module that cannot be imported
    if name in re.findall(r"\w+", answer.prompt):
        return True
    return None if vocabulary is None else name in vocabulary


def _is_stored_attribute(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)


def _bound(tree: ast.Module) -> set[str]:
    """Every name that the code binds."""
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    stored = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    stored |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return stored | {node.name for node in ast.walk(tree) if isinstance(node, definitions)}


def _root_of(node: ast.AST) -> str | None:
    """The name that a chain of attributes begins with; None if it begins with a call, a subscript or a literal."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


@functools.lru_cache
def _builtin_attributes() -> frozenset[str]:
    """Attributes of built-in types: any string, list, file, exception or generator may be meant."""
    kinds = [value for value in vars(builtins).values() if isinstance(value, type)]
    kinds += [types.FunctionType, types.GeneratorType, types.ModuleType, types.TracebackType, collections.Counter]
    kinds += [collections.defaultdict, collections.deque, collections.OrderedDict, io.StringIO, io.BytesIO, re.Pattern]
    return frozenset(name for kind in [*kinds, re.Match, Path] for name in dir(kind))


def _shown(question: Question, module: str | None) -> str:
    """The name as the answer writes it: bare if it belongs to the surrounding module."""
    own = question.module == module and question.chain
    name = ".".join(question.chain if own else (question.module, *question.chain))
    if question.call is None:
        return name
    given = ["_"] * question.call.positional + [f"{keyword}=" for keyword in question.call.keywords]
    return f"{name}({', '.join(given)})"


def _undefined(answer: Answer) -> set[str]:
    """Names that ruff reports as undefined in the answer itself."""
    found = (_QUOTED.search(issue.message) for issue in answer.issues if issue.rule == UNDEFINED_NAME)
    return {match.group(1) for match in found if match} - _words_of_literals(answer.code)


def _words_of_literals(code: str | None) -> set[str]:
    """Names in the strings of `Literal[...]` inside a string annotation: ruff takes them for references if `Literal` is
    not imported.
    """
    texts = [node.value for node in ast.walk(ast.parse(code or "")) if _is_text(node) and "Literal[" in node.value]
    trees = [tree for tree in map(parsed, texts) if tree is not None]
    quoted = [node.value for tree in trees for node in ast.walk(tree) if _is_text(node)]
    return {word for text in quoted for word in re.findall(r"\w+", text)}


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _bound_around(answer: Answer) -> frozenset[str]:
    """What the file around the code binds outside its functions. Not all of it exists at run time: imports for type
    checkers, nested classes.
    """
    if answer.module is None or answer.path is None:
        return frozenset()
    return _bound_in_file(Path(_root(answer.package) or ".", answer.path))


@functools.lru_cache(maxsize=512)
def _bound_in_file(path: Path) -> frozenset[str]:
    tree = parsed(decode(path.read_bytes()) or "") if path.is_file() else None
    names, todo = set(), list(tree.body if tree else [])
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name.split(".")[0])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            todo += ast.iter_child_nodes(node)
    return frozenset(names)


def _questions(answer: Answer) -> set[Question]:
    """What the code assumes about other modules: that they exist, their names and attributes, signatures of calls."""
    if answer.code is None:
        return set()
    tree = ast.parse(answer.code)
    questions, aliases = _imports(tree, answer)
    undefined = _undefined(answer)
    if answer.module is not None:
        questions |= {Question(answer.module, (name,), kind="name") for name in undefined}
        aliases = {name: Question(answer.module, (name,)) for name in undefined} | aliases
    outside = aliases.keys() - _bound(tree)
    for node in ast.walk(tree):
        is_call = isinstance(node, ast.Call)
        base, chain = _attribute_chain(node.func if is_call else node)
        if base in outside and (chain or is_call):
            start = aliases[base]
            call, kind = (Call.of(node), "call") if is_call else (None, "attribute")
            questions.add(Question(start.module, start.chain + chain, call, kind))
    return questions


def _imports(tree: ast.Module, answer: Answer) -> tuple[set[Question], dict[str, Question]]:
    """The look-ups that the imports require, and what each name that they bind stands for."""
    questions, aliases = set(), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                questions.add(Question(name.name, kind="import"))
                top = name.name.split(".")[0]  # `import a.b` binds a, `import a.b as c` the module a.b
                aliases[name.asname or top] = Question(name.name if name.asname else top)
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(node, answer)
            for name in node.names if module else []:
                chain = () if name.name == "*" else (name.name,)
                questions.add(Question(module, chain, kind="import"))
                aliases[name.asname or name.name] = Question(module, chain)
    return questions, aliases


def _absolute(node: ast.ImportFrom, answer: Answer) -> str | None:
    """The module that a `from ... import` names; None for a relative one outside a package."""
    if not node.level:
        return node.module
    parts = (answer.module or "").split(".")[: -node.level]
    return ".".join([*parts, *filter(None, [node.module])]) or None


def _attribute_chain(node: ast.AST) -> tuple[str | None, tuple[str, ...]]:
    """`nx.algorithms.dag` -> ("nx", ("algorithms", "dag")), a bare name -> (name, ()); else (None, ())."""
    chain = []
    while isinstance(node, ast.Attribute):
        chain.append(node.attr)
        node = node.value
    return (node.id, tuple(reversed(chain))) if isinstance(node, ast.Name) else (None, ())


@functools.lru_cache
def _root(package: str | None) -> str | None:
    return str(import_root(package)) if package else None


def _names_in_prose(text: str) -> set[str]:
    plain = set(_PLAIN_IDENTIFIER.findall(_QUOTED.sub(" ", text)))
    return plain | {match.group(2).strip(".") for match in _BACKTICKED.finditer(text)}


def _is_known_word(name: str, prompt: str, vocabulary: frozenset[str] | None) -> bool | None:
    """Whether each part of a dotted name occurs in the prompt, Python or the package; None if that is unknown."""
    parts = set(name.split("."))
    unknown = parts - set(re.findall(r"\w+", prompt)) - set(dir(builtins)) - set(keyword.kwlist)
    if not unknown:
        return True
    return None if vocabulary is None else unknown <= vocabulary


def _vocabulary(answer: Answer) -> frozenset[str] | None:
    """Every word in the source of the package that the answer is about; None if the source is not found."""
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
