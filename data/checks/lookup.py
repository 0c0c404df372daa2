"""Does a module have this name, and does the function accept this call? Asked of the module itself, in the sandbox.

Nothing that an answer names is imported in this process: importing runs code.
"""

from __future__ import annotations

import ast
import json
from collections import defaultdict
from dataclasses import astuple, dataclass

from sandbox.run import Job, run_jobs

_SECONDS, _MEGABYTES = 60.0, 4096  # of a job that imports the named modules: some packages are slow and large


@dataclass(frozen=True)
class Call:
    """The shape of a call: how many positional arguments, which keywords, and whether * or ** adds unknown ones."""

    positional: int
    keywords: tuple[str, ...]
    is_open: bool

    @classmethod
    def of(cls, node: ast.Call) -> Call:
        """The shape of a call in a syntax tree."""
        starred = any(isinstance(argument, ast.Starred) for argument in node.args)
        named = tuple(keyword.arg for keyword in node.keywords if keyword.arg is not None)
        return cls(len(node.args), named, starred or len(named) < len(node.keywords))


@dataclass(frozen=True)
class Question:
    """Does `module` have this attribute chain? If empty: does the module exist? With a call: is it accepted?"""

    module: str
    chain: tuple[str, ...] = ()
    call: Call | None = None
    kind: str = "attribute"


_LOOK_UP = """
import importlib, inspect, json, types
UNSEEN = object()
def value_of(module, chain):
    value = importlib.import_module(module)
    for name in chain:
        if not isinstance(value, (types.ModuleType, type)):
            return UNSEEN
        if not hasattr(value, name):
            try:
                importlib.import_module(f"{value.__name__}.{name}")
            except ImportError:
                raise AttributeError(name)
        value = getattr(value, name)
    return value
def exists(module, chain, call):
    try:
        value = value_of(module, chain)
    except AttributeError:
        return None if call else False
    except ModuleNotFoundError as error:
        is_there = error.name is not None and error.name != module and not module.startswith(error.name + ".")
        return None if call else is_there
    except Exception:  # it is there, and breaks while it is imported: not a name that was made up
        return None if call else True
    return True if not call else None if value is UNSEEN else takes(value, *call)
def takes(value, positional, keywords, is_open):
    # Each layer of a decorated function must take the call, without the keywords that a layer above names as its own.
    try:
        layers = [inspect.signature(layer, follow_wrapped=False) for layer in layers_of(value)]
    except (TypeError, ValueError):
        return None
    named = set()
    for depth, layer in enumerate(layers):
        left = [k for k in keywords if k in layer.parameters or k not in named]
        # what a decorator may add to the call is not missing
        bind = layer.bind_partial if is_open or depth else layer.bind
        try:
            bind(*[None] * (0 if is_open else positional), **dict.fromkeys(left))
        except TypeError:
            return False
        named |= {p.name for p in layer.parameters.values() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    return True
def layers_of(value):
    layers = [value]
    while callable(getattr(layers[-1], "__wrapped__", None)) and not isinstance(layers[-1], type):
        layers.append(layers[-1].__wrapped__)
    return layers
answers = [exists(*question) for question in QUESTIONS]
"""


def look_up(
    wanted: dict[str | None, set[Question]], *, processes: int | None, allow_unsafe_exec: bool
) -> dict[tuple[str | None, Question], bool | None]:
    """Answers to the questions of each import root: (root, question) -> True, False, or None where there is none."""
    groups = defaultdict(list)
    for root, questions in wanted.items():
        for question in sorted(questions, key=repr):
            groups[root, question.module.split(".")[0]].append(question)
    jobs = []
    for (root, name), questions in groups.items():
        listed = repr([(q.module, q.chain, astuple(q.call) if q.call else None) for q in questions])
        program = _LOOK_UP.replace("QUESTIONS", listed)
        examples = [{"source": "print(json.dumps(answers))"}]
        jobs.append(Job(id=name, program=program, root=root, examples=examples, seconds=_SECONDS, megabytes=_MEGABYTES))
    outcomes = run_jobs(jobs, processes=processes, allow_unsafe_exec=allow_unsafe_exec, what="looking up names")
    known = {}
    for ((root, _), questions), outcome in zip(groups.items(), outcomes, strict=True):
        finished = outcome.outcome == "finished"
        found = json.loads(outcome.got[0]) if finished else [None] * len(questions)
        known.update(((root, question), exists) for question, exists in zip(questions, found, strict=True))
    return known
