"""What runs inside the sandbox: in one process the answer, called; in another the tests, on what the answer returned.

It is sent there as text and imports nothing of the project. Values travel as JSON: what has no form there is written
`{kind: …}`.
"""

from __future__ import annotations

import ast
import builtins
import collections
import collections.abc
import itertools
import json
import random

MOST_ITEMS = 10_000  # of an iterator
_SEQUENCES = {"tuple": tuple, "set": set, "frozenset": frozenset, "deque": collections.deque}
_MAPPINGS = {"Counter": collections.Counter, "OrderedDict": collections.OrderedDict, "dict": dict}


class NotPlain(Exception):
    """A value that cannot leave its process; the type's name is the message."""


class Pending:
    """Stands for a result that is not known yet."""


def encode(value):
    """A value as JSON. Subclasses count as what they are made from. Raises NotPlain for what is not plain data."""
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return {"int": hex(value)} if abs(value) >= 1 << 53 else int(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return {"float": float.__repr__(value)}
    if isinstance(value, complex):
        return {"complex": [repr(value.real), repr(value.imag)]}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    if isinstance(value, type) and vars(builtins).get(value.__name__) is value:
        return {"type": value.__name__}
    return _encode_container(value)


def _encode_container(value):
    if isinstance(value, list):
        return [encode(item) for item in list.__iter__(value)]
    for name, kind in _SEQUENCES.items():
        if isinstance(value, kind):
            items = [encode(item) for item in kind.__iter__(value)]
            return {name: sorted(items, key=json.dumps) if "set" in name else items}
    for name, kind in _MAPPINGS.items():
        if isinstance(value, kind):
            return {name: [[encode(key), encode(item)] for key, item in dict.items(value)]}
    if isinstance(value, (collections.abc.Iterator, type({}.keys()), type({}.values()), type({}.items()))):
        items = list(itertools.islice(value, MOST_ITEMS + 1))
        if len(items) <= MOST_ITEMS:
            return {"iterator": [encode(item) for item in items]}
    raise NotPlain(type(value).__name__)


def decode(value):
    """The value that `encode` wrote; an object that equals nothing for one that was not plain."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind in _SEQUENCES:
        return _SEQUENCES[kind](map(decode, content))
    if kind in _MAPPINGS:
        return _MAPPINGS[kind]({decode(key): decode(item) for key, item in content})
    simple = {
        "int": lambda: int(content, 16),
        "float": lambda: float(content),
        "complex": lambda: complex(*map(float, content)),
        "bytes": lambda: bytes.fromhex(content),
        "range": lambda: range(*content),
        "iterator": lambda: iter(decode(content)),
        "type": lambda: vars(builtins)[content],
        "opaque": object,
    }
    return simple[kind]()


def call(function, arguments: str) -> None:
    """Call the answer; print what it returns. `arguments` is the JSON of [positional, named]."""
    positional, named = decode(json.loads(arguments))
    result = function(*positional, **named)
    try:
        text = json.dumps(encode(result))
    except NotPlain as error:
        text = json.dumps({"opaque": str(error)})
    print("\n" + text)


class _Counted(ast.NodeTransformer):
    """Has every assertion tried and counted, so that one that fails does not hide the others.

    Those inside `try` keep their meaning: there an AssertionError may be part of the test.
    """

    def visit_Try(self, node):
        return node

    def visit_Assert(self, node):
        text = ast.unparse(node)[:300]
        attempt = f"try:\n    pass\nexcept Exception:\n    _count(False, {text!r})\nelse:\n    _count(True, '')"
        counted = ast.parse(attempt).body[0]
        counted.body = [node]
        return ast.copy_location(counted, node)


def judge(namespace: dict, entry_point: str, tests: str, known: str) -> None:
    """Run the tests with results that are known in the place of the function; print the report as JSON.

    known  JSON of [[arguments, result], …]; a function that was called twice alike may have returned two things
    Reports "asks" (arguments of calls whose results are not known: then nothing else counts), "passed", "total",
    "failed" (the first assertion that does not hold), "problem" (the exception that ended the tests), "opaque" (the
    type of an argument that cannot be sent).
    """
    random.seed(0)  # a test that draws its inputs draws the same ones each time
    results, taken = collections.defaultdict(list), collections.Counter()
    for arguments, result in json.loads(known):
        results[arguments].append(result)
    report = {"asks": [], "passed": 0, "total": 0, "failed": "", "problem": "", "opaque": ""}

    def candidate(*positional, **named):
        try:
            arguments = json.dumps(encode([list(positional), named]))
        except NotPlain as error:
            if str(error) != "Pending":
                report["opaque"] = str(error)
            raise
        taken[arguments] += 1
        if taken[arguments] > len(results[arguments]):
            report["asks"].append(arguments)
            return Pending()
        result = results[arguments][taken[arguments] - 1]
        if isinstance(result, dict) and "raises" in result:
            kind = getattr(builtins, result["raises"], None)
            is_error = isinstance(kind, type) and issubclass(kind, Exception)
            raise (kind if is_error else RuntimeError)(result["raises"])
        return decode(result)

    def count(holds: bool, text: str) -> None:
        report["passed"] += holds
        report["total"] += 1
        report["failed"] = report["failed"] or text

    namespace.update(_reference=namespace.get(entry_point), _count=count)
    namespace[entry_point] = candidate
    try:
        tree = ast.fix_missing_locations(_Counted().visit(ast.parse(tests)))
        exec(compile(tree, "<tests>", "exec"), namespace)
    except Exception as error:
        report["problem"] = f"{type(error).__name__}: {error}"[:300]
    print("\n" + json.dumps(report))
