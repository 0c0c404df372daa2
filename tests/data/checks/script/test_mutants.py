from __future__ import annotations

import pytest

from data.checks.script.mutants import script_mutants

CODE = """function f(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) {
    if (!a[i] && b) break;
    sum += a[i] * 2;
  }
  return g(sum, b) === true;
}"""


def lines_of(code, language="javascript"):
    """kind -> the changed lines, without indentation."""
    found = {}
    for mutant in script_mutants(code, language):
        found.setdefault(mutant.kind, []).append(mutant.mutated_line.strip())
    return found


def test_every_kind_of_bug_is_made_in_one_line():
    found = lines_of(CODE)
    assert found["comparison"] == ["for (let i = 0; i > a.length; i++) {", "return g(sum, b) !== true;"]
    assert found["boundary"] == ["for (let i = 0; i <= a.length; i++) {"]
    assert set(found["boolean"]) == {"if (!a[i] || b) break;", "if (a[i] && b) break;"}
    assert set(found["arithmetic"]) == {"for (let i = 0; i < a.length; i--) {", "sum += a[i] / 2;"}
    assert set(found["constant"]) == {
        "let sum = 1;", "for (let i = 1; i < a.length; i++) {", "sum += a[i] * 3;", "return g(sum, b) === false;",
    }  # fmt: skip
    assert found["condition"] == ["if (!(!a[i] && b)) break;"] and found["loop"] == ["if (!a[i] && b) continue;"]
    assert found["return"] == ["return null;"] and found["assignment"] == ["sum -= a[i] * 2;"]
    assert found["arguments"] == ["return g(b, sum) === true;"]
    assert (
        "for (let i = 0; i < b.length; i++) {" in found["variable"]
        and "return g(sum, a) === true;" in found["variable"]
    )


def test_a_mutant_names_its_line_and_differs_nowhere_else():
    for mutant in script_mutants(CODE, "javascript"):
        before, after = CODE.split("\n"), mutant.source.split("\n")
        assert [i for i, (x, y) in enumerate(zip(before, after, strict=True), 1) if x != y] == [mutant.line]
        assert before[mutant.line - 1] == mutant.original_line and after[mutant.line - 1] == mutant.mutated_line


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("function f(a) {\n  return 'x' + a;\n}", "arithmetic"),  # texts cannot be subtracted
        ("function f(a) {\n  return null;\n}", "return"),
        ("function f(a) {\n  return g(a, a);\n}", "arguments"),
        ("function f(a) {\n  return g(...a, 1);\n}", "arguments"),
        ("function f(a, b) {\n  a = 1;\n}", "variable"),  # what is assigned to stays
        ("function f(a = 1) {\n  return a;\n}", "constant"),  # the signature stays
    ],
)
def test_what_would_be_no_bug_or_no_program_is_not_made(code, kind):
    assert kind not in lines_of(code)


def test_types_are_left_alone():
    code = "function f(a: Array<1 | 2>): true {\n  const b: Map<true, 3> = new Map();\n  return a as true;\n}"
    assert lines_of(code, "typescript") == {"return": ["return null;"]}
    assert script_mutants("const a = 1;", "javascript") == []
