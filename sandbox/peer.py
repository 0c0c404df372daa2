"""Calls between two processes that do not trust each other: the one with the tests and the one with the answer.

Only plain values cross, as JSON: what the tests compare is built from their own interpreter's types, so that no
`__eq__`, subclass or patched builtin of the answer is involved. Everything else stays where it is and is lent by
number. The tests lend callables, which the answer may call; the answer lends whatever it returns.

Imports nothing of the project: it runs inside the sandbox.
"""

from __future__ import annotations

import builtins
import collections
import datetime
import decimal
import fractions
import itertools
import json
from collections.abc import Iterator

_LINE_LIMIT = 16 << 20  # bytes of one message
_ITEMS_LIMIT = 100_000  # of an iterator, which crosses as the list of its remaining items
_SEQUENCES = {kind.__name__: kind for kind in (list, tuple, set, frozenset, collections.deque)}
_MAPPINGS = {kind.__name__: kind for kind in (collections.Counter, collections.OrderedDict, dict)}
_BY_TEXT = {  # types that cross as str() writes them, with what parses it
    "float": float,  # from JavaScript, whose JSON has no infinity
    "complex": complex,
    "Decimal": decimal.Decimal,
    "Fraction": fractions.Fraction,
    "date": datetime.date.fromisoformat,
    "datetime": datetime.datetime.fromisoformat,
}
_TEXT_KINDS = (complex, decimal.Decimal, fractions.Fraction, datetime.date, datetime.datetime)
_FORWARDED = {"len": len, "bool": bool, "str": str, "repr": repr, "iter": list, "get": getattr, "set": setattr}
_FORWARDED |= {"item": lambda value, key: value[key]}


class PeerEnded(BaseException):
    """The other process ended or broke the protocol. Not an Exception: a test that expects one must not catch it."""


class RemoteError(Exception):
    """An exception of the other process whose class is not built into Python."""


class Remote:
    """An object that stays in the other process. Equal only to itself: its own `__eq__` is never called.

    __peer__          the connection to that process
    __number__        the object's number there
    __is_attribute__  whether it was read from another such object
    Names that begin with two underscores are never forwarded, so that these cannot hide attributes of the object.
    """

    def __init__(self, peer: Peer, number: int):
        vars(self).update(__peer__=peer, __number__=number, __is_attribute__=False)

    def __call__(self, *arguments, **named):
        """Call it in the other process."""
        if self.__is_attribute__ and not self.__peer__.methods:
            raise TypeError("a method of an object that the answer returned cannot judge the answer")
        return self.__peer__.call(self.__number__, arguments, named)

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        value = self.__peer__.ask("get", self.__number__, name)
        if isinstance(value, Remote):
            vars(value).update(__is_attribute__=True)
        return value

    def __setattr__(self, name: str, value):
        self.__peer__.ask("set", self.__number__, name, value)

    def __eq__(self, other):
        return isinstance(other, Remote) and other.__peer__ is self.__peer__ and other.__number__ == self.__number__

    def __hash__(self):
        return hash(self.__number__)

    def __bool__(self):
        return bool(self.__peer__.ask("bool", self.__number__))

    def __len__(self):
        return self.__peer__.ask("len", self.__number__)

    def __getitem__(self, key):
        return self.__peer__.ask("item", self.__number__, key)

    def __iter__(self):
        return iter(self.__peer__.ask("iter", self.__number__))

    def __str__(self):
        return self.__peer__.ask("str", self.__number__)

    def __repr__(self):
        return self.__peer__.ask("repr", self.__number__)


class Peer:
    """One end of the connection. While an end waits for a reply, it serves the requests of the other.

    trusting  whether the other end may do more with lent objects than call them
    methods   whether this end may call attributes of lent objects. If so, the object that f returned decides the value
              of `f(x).startswith("a")`
    process   the process id of the other end, if this one forked it
    """

    methods = True

    def __init__(self, read_fd: int, write_fd: int, *, trusting: bool, process: int | None = None):
        self.handles = (read_fd, write_fd)
        self._reader, self._writer = open(read_fd, "rb"), open(write_fd, "wb")  # noqa: SIM115
        self._trusting, self.process = trusting, process
        self._lent: list = []
        self._dumps, self._loads = json.dumps, json.loads  # the answer may patch the json module

    def send(self, message) -> None:
        """Send one JSON value. Raises PeerEnded."""
        try:
            self._writer.write(self._dumps(message).encode() + b"\n")
            self._writer.flush()
        except OSError as error:
            raise PeerEnded("the other process is gone") from error

    def receive(self):
        """The next JSON value. Raises PeerEnded."""
        line = self._reader.readline(_LINE_LIMIT)
        if not line.endswith(b"\n"):
            raise PeerEnded("the other process is gone")
        try:
            return self._loads(line)
        except (ValueError, RecursionError) as error:
            raise PeerEnded("the other process broke the protocol") from error

    def lend(self, value) -> int:
        """The number by which the other end can use `value`."""
        self._lent.append(value)
        return len(self._lent) - 1

    def borrow(self, message) -> dict:
        """Send the first message; returns the objects lent in reply, by name. Raises what the other end raised."""
        self.send(message)
        kind, *rest = self.receive()
        if kind != "lent":
            raise _exception(*rest)
        return {str(name): Remote(self, number) for name, number in rest[0].items()}

    def call(self, number: int, arguments: tuple, named: dict):
        """Call a lent object; changes to mutable arguments are repeated here."""
        value, after = self._ask(["call", number, self._encode(list(arguments)), self._encode(named)])
        for mine, theirs in zip(arguments, self._decode(after) if after else (), strict=False):
            if type(mine) is type(theirs) is list:
                mine[:] = theirs
            elif type(mine) is type(theirs) and type(mine) in (dict, set):
                mine.clear()
                mine.update(theirs)
        return self._decode(value)

    def ask(self, what: str, *arguments):
        """Any other operation on a lent object."""
        return self._decode(self._ask([what, arguments[0], *map(self._encode, arguments[1:])])[0])

    def _ask(self, message: list) -> tuple:
        self.send(message)
        while True:
            kind, *rest = self.receive()
            if kind == "value":
                return rest[0], rest[1]
            if kind == "raised":
                raise _exception(*rest)
            self.serve(kind, rest)

    def serve(self, kind: str, rest: list) -> None:
        """Carry out a request of the other end, and reply."""
        try:
            if kind == "call":
                arguments, named = self._decode(rest[1]), self._decode(rest[2])
                value = self._lent[rest[0]](*arguments, **named)
                reply = ["value", self._encode(value), self._encode(arguments) if self._trusting else None]
            elif self._trusting:
                value = _FORWARDED[kind](self._lent[rest[0]], *map(self._decode, rest[1:]))
                reply = ["value", self._encode(value), None]
            else:
                raise PeerEnded("the other process made a forbidden request")
        except PeerEnded:
            raise
        except BaseException as error:  # SystemExit, too, is a result of the call
            reply = raised(error)
        self.send(reply)

    def _encode(self, value):
        if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
            value = value.item()
        kind = type(value)
        if value is None or kind in (bool, float, str):
            return value
        if kind is int:
            return value if abs(value) < 1 << 1024 else {"int": hex(value)}
        if kind in _SEQUENCES.values():
            return {kind.__name__: [self._encode(item) for item in value]}
        for name, base in _MAPPINGS.items():
            if isinstance(value, base):
                return {name: [[self._encode(key), self._encode(item)] for key, item in value.items()]}
        if kind in _TEXT_KINDS:
            return {kind.__name__: str(value)}
        if kind in (bytes, bytearray):
            return {"bytes": bytes(value).hex()}
        if kind is range:
            return {"range": [value.start, value.stop, value.step]}
        if isinstance(value, type) and vars(builtins).get(value.__name__) is value:
            return {"type": value.__name__}
        if isinstance(value, Remote) and value.__peer__ is self:
            return {"yours": value.__number__}
        if isinstance(value, Iterator):
            return {"iterator": [self._encode(item) for item in itertools.islice(value, _ITEMS_LIMIT)]}
        for base in (str, int, float, tuple, list, set):  # such as IntEnum and named tuples
            if isinstance(value, base):
                return self._encode(base(value))
        if not self._trusting and not callable(value):
            raise TypeError(f"{kind.__name__} is not a plain value and cannot be passed to the answer")
        return {"mine": self.lend(value)}

    def _decode(self, data):
        if not isinstance(data, dict):
            return data
        ((kind, content),) = data.items()
        if kind in _SEQUENCES:
            return _SEQUENCES[kind](map(self._decode, content))
        if kind in _MAPPINGS:
            return _MAPPINGS[kind]({self._decode(key): self._decode(item) for key, item in content})
        if kind in _BY_TEXT:
            return _BY_TEXT[kind](content)
        if kind == "iterator":
            return iter([self._decode(item) for item in content])
        if kind == "mine":
            return Remote(self, content)
        if kind == "yours":
            return self._lent[content]
        if kind == "type" and isinstance(vars(builtins).get(content), type):
            return vars(builtins)[content]
        return {"int": lambda text: int(text, 16), "bytes": bytes.fromhex, "range": lambda ends: range(*ends)}[kind](
            content
        )


def raised(error: BaseException) -> list:
    """The message for an exception: the first of its classes that is built into Python, its text, its errno."""
    name = next(base.__name__ for base in type(error).__mro__ if getattr(builtins, base.__name__, None) is base)
    own = "" if type(error).__name__ == name else f"{type(error).__name__}: "
    return ["raised", name, own + str(error), getattr(error, "errno", None) if isinstance(error, OSError) else None]


def _exception(name: str, text: str, number: int | None) -> BaseException:
    kind = getattr(builtins, str(name), None)
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        return RemoteError(str(text))
    if isinstance(number, int):
        return kind(number, str(text))
    try:
        return kind(str(text))
    except TypeError:  # such as UnicodeDecodeError, which needs more arguments
        return RemoteError(f"{name}: {text}")
