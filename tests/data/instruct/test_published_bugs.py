"""The ten kinds of bugs of a published run: each can be made, and each fails the check of its function."""

from __future__ import annotations

import pytest

from data.checks import jobs_of, proves, refutes, run_groups
from data.checks.check import doctest_check
from data.checks.mutate import mutants
from data.corpus import build_corpus
from data.corpus.functions import functions_of

# kind: (body, what the bug replaces in it, by what, a call, its value)
BUGS = {
    "off by one": ("return values[n - 1]", "1", "2", "f([5, 6, 7], 2)", "6"),
    "equality flipped": ("return [v for v in values if v == n]", "==", "!=", "f([1, 2], 2)", "[2]"),
    "is not as is": ("return [v for v in values if v is not n]", "is not", "is", "f([0, None], None)", "[0]"),
    "not in as in": ("return 3 if n not in values else 4", "not in", "in", "f([1], 1)", "4"),
    "return commented out": ("return len(values) + n", "return", "pass  # return", "f([1], 1)", "2"),
    "truth value swapped": ("return sorted(values, reverse=True)", "True", "False", "f([1, 2], 0)", "[2, 1]"),
    "<= as <": ("return [v for v in values if v <= n]", "<=", "<", "f([1, 2], 2)", "[1, 2]"),
    ">= as >": ("return [v for v in values if v >= n]", ">=", ">", "f([1, 2], 2)", "[2]"),
    "not removed": ("return 3 if not values else 4", "not ", "", "f([], 0)", "3"),
    "and as or": ("return 3 if values and n else 4", "and", "or", "f([], 1)", "4"),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """kind -> (check, outcomes of the original, outcomes with the bug); all run at once."""
    package = tmp_path_factory.mktemp("bugs") / "pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    parts = [f"VALUE_{n} = {n}\n" for n in range(12)]  # a file this short would be filtered otherwise
    for number, (body, _, _, call, value) in enumerate(BUGS.values()):
        name = f"f{number}"
        call = call.replace("f(", f"{name}(", 1)
        parts.append(
            f'\n\ndef {name}(values, n):\n    """Does it.\n\n    >>> {call}\n    {value}\n    """\n    {body}\n'
        )
    (package / "code.py").write_text("".join(parts))
    (file,) = build_corpus(str(package.parent), test_share=0.0, validation_share=0.0).files
    functions = {function.name: function for function in functions_of(file, min_lines=1)}
    checks, sources = [], []
    for number, (body, old, new, _, _) in enumerate(BUGS.values()):
        function = functions[f"f{number}"]
        found = [one.source for one in mutants(function.source) if one.mutated_line.strip() == body.replace(old, new)]
        checks.append(doctest_check(function.package, function))
        sources.append((function.source, found[0]))
    groups = [jobs_of(check, code) for check, codes in zip(checks, sources, strict=True) for code in codes]
    results = list(run_groups(groups))
    return {
        kind: (check, results[2 * number], results[2 * number + 1])
        for number, (kind, check) in enumerate(zip(BUGS, checks, strict=True))
    }


@pytest.mark.parametrize("kind", BUGS)
def test_the_original_passes_its_check_and_the_bug_fails_it(outcomes, kind):
    check, original, broken = outcomes[kind]
    assert proves(check, original)
    assert refutes(check, broken)


def test_a_return_that_is_not_alone_in_its_block_becomes_a_comment():
    source = "def f(x):\n    y = x + 1\n    return y"
    assert "    # return y" in {one.mutated_line for one in mutants(source) if one.kind == "commented out"}
    assert all(one.kind != "commented out" for one in mutants("def f(x):\n    y = x + 1\n    return None"))
    several = "def f(x):\n    return max(\n        x,\n        1,\n    )"
    assert all(one.kind != "commented out" for one in mutants(several))  # its other lines would be left
