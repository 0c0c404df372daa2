"""The assertions of a test file that can be asked again: calls with literals, and the literal that each must give.

expect(add(2, 3)).toBe(5);                          {"add": [{"arguments": "[2, 3]", "want": "5\\n", "raises": None}]}
expect(chunk([1, 2], 1)).to.deep.equal([[1], [2]]); jest, vitest and chai
assert.deepEqual(R.take(1, 'abc'), 'a', 'why');     node, QUnit, tape and ava
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from data.checks.script.examples import NotLiteral, called_with, value_of
from data.corpus.languages import tree_of

# what follows expect(…); anything more, such as .not or .resolves, asserts something else
_EXPECTED = frozenset(
    ("toBe", "toEqual", "toStrictEqual", "to.equal", "to.eql", "to.be.equal", "to.deep.equal", "to.strictEqual")
)
_ASSERTED = re.compile(r"(?:(?:assert|t|test)\.)?(?:equals?|eq|is|same|(?:strict|deep|deepStrict)Equal)")
_CALLED = re.compile(r"(?:[\w$]+\.)?([\w$]+)")


def calls_of_assertions(text: str, grammar: str) -> dict[str, list[dict]]:
    """Function -> its calls in a test file, in order; none for what does not parse.

    text, grammar  of the file: "javascript", "typescript" or "tsx"
    What a call gives need not be what the assertion says, such as after a mock: only running it proves it.
    """
    root = tree_of(text, grammar).root_node
    found: dict[str, list[dict]] = {}
    for node in () if root.has_error else _calls(root):
        asserted = _asserted(node)
        if asserted is None:
            continue
        call, want = asserted
        called = _CALLED.fullmatch(call.child_by_field_name("function").text.decode())
        if called is None:
            continue
        try:
            arguments, value = called_with(call.text.decode(), called[1]), value_of(want)
        except NotLiteral:
            continue
        found.setdefault(called[1], []).append({"arguments": repr(arguments), "want": f"{value!r}\n", "raises": None})
    return found


def _calls(node) -> Iterator:
    """The calls in a tree, in the order of the text."""
    if node.type == "call_expression":
        yield node
    for child in node.children:
        yield from _calls(child)


def _asserted(node) -> tuple | None:
    """The call that an assertion is about and what it must give, as nodes; None for any other call."""
    function, given = node.child_by_field_name("function"), _arguments(node)
    if function.type == "member_expression":  # expect(call).toBe(want)
        base, path = _expectation(function)
        if base is not None and ".".join(path) in _EXPECTED and len(given) == 1:
            return _call_and_value(*_arguments(base)[:1], *given)
    if _ASSERTED.fullmatch(function.text.decode()) and len(given) in (2, 3):  # equal(call, want, "why")
        return _call_and_value(*given[:2])
    return None


def _expectation(member) -> tuple:
    """The call `expect(…)` at the root of a chain of properties, and their names; (None, …) for another root."""
    path: list[str] = []
    while member.type == "member_expression":
        path.insert(0, member.child_by_field_name("property").text.decode())
        member = member.child_by_field_name("object")
    is_expect = member.type == "call_expression" and member.child_by_field_name("function").text == b"expect"
    return (member if is_expect else None), path


def _call_and_value(*nodes) -> tuple | None:
    return (nodes[0], nodes[1]) if len(nodes) == 2 and nodes[0].type == "call_expression" else None


def _arguments(call) -> list:
    given = call.child_by_field_name("arguments")
    return [one for one in given.named_children if one.type != "comment"] if given is not None else []
