"""Fast forms: the numbers of a plain function from less memory, or in less time.

The reading path (model/, lora/layer.py) holds the textbook form of every formula; its fast form, in this folder or in
lora/fast.py, records the code that it was written for:

    @fast.written_for("6a1f09c3")       # model/fast/norm.py: the fingerprint of rms_norm
    def fused_rms_norm(...): ...

    @fast.has_twin(fused_rms_norm)      # model/norm.py: a call of rms_norm runs fused_rms_norm
    def rms_norm(...): ...

The plain form runs after `fast.off()`, and whenever it is not the code that the fast form was written for: edited in
its file, or replaced at run time (`model.loss.causal_lm_loss = mine`). One line on stderr then says so. After a change
to both, tests/model/fast/test_contract.py prints the fingerprint to record.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import linecache
import sys
import textwrap
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_enabled = True
_said: set[str] = set()


class off:
    """Run the plain forms alone: from here on, or only inside `with fast.off():`.

    The block must hold the backward pass too: under activation checkpointing it repeats the forward pass.
    """

    def __init__(self) -> None:
        global _enabled
        self.was_enabled, _enabled = _enabled, False

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_) -> None:
        global _enabled
        _enabled = self.was_enabled


def is_on() -> bool:
    """Whether fast forms run."""
    return _enabled


class FastForm(Generic[P, R]):
    """A fast form, with the fingerprints of the plain functions that it computes."""

    def __init__(self, function: Callable[P, R], fingerprints: tuple[str, ...]) -> None:
        self.function, self.fingerprints = function, fingerprints
        self._verdicts: dict[tuple[int, ...], tuple[bool, list]] = {}  # by the ids of the functions' code, kept alive

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The fast form, without any check."""
        return self.function(*args, **kwargs)

    def fits(self, *plain: Callable) -> bool:
        """Whether it may run now in place of these plain functions."""
        if not _enabled:
            return False
        # the source is hashed once for each version of the functions
        codes = [getattr(function, "__code__", None) for function in plain]
        ids = tuple(map(id, codes))
        if ids not in self._verdicts:
            as_written = [fingerprint(f) == recorded for f, recorded in zip(plain, self.fingerprints, strict=True)]
            for function, same in zip(plain, as_written, strict=True):
                if not same:
                    self.step_aside(function)
            self._verdicts[ids] = all(as_written), codes
        return self._verdicts[ids][0]

    def step_aside(self, plain: Callable) -> None:
        """Say once that it does not run in place of `plain`."""
        name = self.function.__name__
        which = f"{getattr(plain, '__module__', '')}.{getattr(plain, '__qualname__', type(plain).__name__)}"
        line = f"fast     {which} is not the code that {name} was written for: {name} steps aside"
        if line not in _said:
            _said.add(line)
            print(line, file=sys.stderr)


def written_for(*fingerprints: str) -> Callable[[Callable[P, R]], FastForm[P, R]]:
    """Decorate a fast form: the fingerprints of the plain function and of the helpers named in `has_twin`."""
    return lambda function: FastForm(function, fingerprints)


def has_twin(form: FastForm, *helpers: Callable) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a plain function: calling it runs `form` wherever that fits; its `__wrapped__` is the plain form.

    helpers  functions of its module that its formula also consists of: a change to one of them counts as well
    """

    def decorate(plain: Callable[P, R]) -> Callable[P, R]:
        function: Any = plain  # not any callable: a function, with a name in a module
        module, name = function.__globals__, function.__name__
        replacing = ContextVar("replacing", default=False)

        @wraps(plain)
        def dispatch(*args: P.args, **kwargs: P.kwargs) -> R:
            # replaced in its module, while the caller still holds this function: run the replacement
            current = module.get(name, dispatch)
            if current is not dispatch and not replacing.get() and not _is_running(current):
                form.step_aside(current)
                token = replacing.set(True)
                try:
                    return current(*args, **kwargs)
                finally:
                    replacing.reset(token)

            # helpers are looked up now: they may have been replaced too
            if form.fits(plain, *(module[helper.__name__] for helper in helpers)):
                return form.function(*args, **kwargs)
            return plain(*args, **kwargs)

        return dispatch

    return decorate


def _is_running(function: Callable) -> bool:
    """Whether the caller was called by `function`: a replacement that calls what it replaces."""
    frame, code = sys._getframe(2), getattr(function, "__code__", None)
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def fingerprint(function: Callable) -> str:
    """Eight hex digits that a function's arguments and statements determine; "" if it has no source.

    Comments, docstring, annotations and layout may change, and so may the version of Python.
    """
    # from the code: from the function, inspect would follow a decorator's __wrapped__
    code: Any = getattr(function, "__code__", None)
    try:
        linecache.checkcache(code.co_filename)  # the file may have been edited since
        definition = ast.parse(textwrap.dedent(inspect.getsource(code))).body[0]
    except (AttributeError, OSError, SyntaxError, TypeError):
        return ""
    if not isinstance(definition, ast.FunctionDef):
        return ""
    # without the docstring, if there is one
    body = definition.body[1:] if ast.get_docstring(definition) is not None else definition.body
    return hashlib.sha256(repr(_skeleton([definition.args, *body])).encode()).hexdigest()[:8]


def _skeleton(node):
    """A syntax tree as tuples: kinds of nodes with the fields that say what is computed."""
    if isinstance(node, list):
        return tuple(map(_skeleton, node))
    if not isinstance(node, ast.AST):
        return node
    # empty fields differ between versions of Python; those in `skip` say nothing of what is computed
    fields = ((key, value) for key, value in ast.iter_fields(node) if value not in (None, []))
    skip = ("annotation", "returns", "ctx", "kind", "type_comment")
    return type(node).__name__, *((key, _skeleton(value)) for key, value in fields if key not in skip)
