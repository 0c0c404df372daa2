from __future__ import annotations

import pytest

from data.checks.script.parts import is_script, parts_of


@pytest.mark.parametrize(
    ("code", "language", "name", "arguments", "returns"),
    [
        ("function add(a, b) {\n  return a + b;\n}", "javascript", "add", ("a", "b"), True),
        ("export default function (a) {\n  log(a);\n}", "javascript", "default", ("a",), False),
        ("function add(a: number, b = 0, ...c: T[]): T {\n  return a;\n}", "typescript", "add", ("a", "b", "c"), True),
        ("const add = (a, { b }, [c]) => {\n  return a;\n};", "javascript", "add", ("a",), True),
        ("const twice = x => {\n  return 2 * x;\n};", "javascript", "twice", ("x",), True),
        ("var map = _curry2(function mapped(f, x) {\n  return f(x);\n});", "javascript", "map", ("f", "x"), True),
        ("exports.add = function (a) {\n  const f = () => { return 1; };\n};", "javascript", "add", ("a",), False),
        ("async function* g(this: T, a?: string) {\n  yield a;\n}", "typescript", "g", ("a",), False),
    ],
)  # fmt: skip
def test_a_function_is_divided_into_header_body_and_footer(code, language, name, arguments, returns):
    parts = parts_of(code, language)
    assert parts.header + parts.body + parts.footer == code
    assert parts.header.endswith("{") and parts.footer.startswith("}") and "\n" in parts.body
    assert (parts.name, parts.arguments, parts.returns) == (name, arguments, returns)


@pytest.mark.parametrize("code", ["const a = 1;", "function f( {", "const f = x => x + 1;", "", "interface A { b: C }"])
def test_what_is_no_function_with_a_body_has_no_parts(code):
    assert parts_of(code, "typescript") is None


def test_the_language_of_a_pair_is_in_its_check():
    assert is_script({"check": {"kind": "structure", "language": "typescript"}})
    assert not is_script({"check": {"kind": "structure"}}) and not is_script({})
