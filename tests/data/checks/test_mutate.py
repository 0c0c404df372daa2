import ast
import fnmatch
import heapq
import inspect
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.checks.mutate import KINDS, WHOLE_LINE_KINDS, mutants

SOURCE = '''\
@decorated(depth=2)
def f(graph, nodes, limit=3):
    """If 1 < 2 and so on."""
    naïve = "ü" if limit <= 3 else ""; total = 0
    for node in nodes:
        if node in graph and not node.hidden:  # 1 < 2
            total += (graph[node]) * (limit - 1)
    while total > limit:
        total = merge(total, limit)
    return total, naïve
'''
STATEMENTS = '''\
def f(a, b, n, items):
    """Doc."""
    first, second = a, b
    total = 0
    for i in range(n):
        if i == a:
            continue
        elif i > b or a:
            break
        else:
            total += items[i] - a - b
    with open(a) as file:
        total = total + 1
    try:
        x = items[a]
        x = g(x, -b)
    except KeyError:
        raise ValueError("no")
    while total < n:
        total = total * 2
    return [y for y in items if y], (first if a >= x else second)
'''


def changes(body, kind, *, whole_lines=False, arguments="a, b, n, items"):
    """The changed lines of a function with this body, for the mutants of a kind."""
    source = body if body.startswith(("def", "@")) else f"def f({arguments}):\n{textwrap.indent(body, '    ')}\n"
    return {one.mutated_line.strip() for one in mutants(source, whole_lines=whole_lines) if one.kind == kind}


def one_hunk(before, after):
    """The lines of both texts without what they share at the start and at the end."""
    while before and after and before[0] == after[0]:
        before, after = before[1:], after[1:]
    while before and after and before[-1] == after[-1]:
        before, after = before[:-1], after[:-1]
    return before, after


def test_a_mutant_differs_in_exactly_its_one_line_and_means_something_else():
    for source in (SOURCE, STATEMENTS):
        found = mutants(source)
        assert len(found) > 25
        original = source.split("\n")
        for mutant in found:
            lines = mutant.source.split("\n")
            assert len(lines) == len(original)
            assert [i for i, (a, b) in enumerate(zip(lines, original, strict=True), 1) if a != b] == [mutant.line]
            assert (lines[mutant.line - 1], original[mutant.line - 1]) == (mutant.mutated_line, mutant.original_line)
            assert ast.dump(ast.parse(mutant.source)) != ast.dump(ast.parse(source))
        assert len({mutant.source for mutant in found}) == len(found)


def test_every_kind_is_made():
    found = mutants(STATEMENTS, whole_lines=True)
    assert {mutant.kind for mutant in found} == {*KINDS, *WHOLE_LINE_KINDS}
    assert {mutant.kind for mutant in mutants(STATEMENTS)} == set(KINDS)


def test_whole_line_mutants_differ_in_one_place_that_their_texts_show():
    original = STATEMENTS.split("\n")
    found = [one for one in mutants(STATEMENTS, whole_lines=True) if one not in mutants(STATEMENTS)]
    assert {one.kind for one in found} == set(WHOLE_LINE_KINDS)
    for mutant in found:
        first = mutant.line - 1
        length = mutant.original_line.count("\n") + 1
        new = mutant.mutated_line.split("\n") if mutant.mutated_line else []
        assert original[first : first + length] == mutant.original_line.split("\n")
        assert [*original[:first], *new, *original[first + length :]] == mutant.source.split("\n")


def test_signature_decorators_and_docstring_are_left_alone():
    assert min(mutant.line for mutant in mutants(SOURCE, whole_lines=True)) == 4


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("comparison", "while total < limit:"),
        ("comparison", 'naïve = "ü" if limit >= 3 else ""; total = 0'),
        ("boundary", "while total >= limit:"),
        ("boolean", "if node in graph or not node.hidden:  # 1 < 2"),
        ("boolean", "if node in graph and node.hidden:  # 1 < 2"),
        ("comparison", "if node not in graph and not node.hidden:  # 1 < 2"),
        ("arithmetic", "total += (graph[node]) + (limit - 1)"),
        ("arithmetic", "total += (graph[node]) * (limit + 1)"),
        ("arithmetic", "total -= (graph[node]) * (limit - 1)"),
        ("operands", "total += (graph[node]) * (1 - limit)"),
        ("constant", "total += (graph[node]) * (limit - 0)"),
        ("constant", 'naïve = "ü" if limit <= 3 else ""; total = 1'),
        ("arguments", "total = merge(limit, total)"),
        ("condition", "if True:  # 1 < 2"),
        ("condition", "if node in graph:  # 1 < 2"),
        ("condition", "if not (node in graph and not node.hidden):  # 1 < 2"),
        ("condition", "while total <= limit:"),
        ("inverted", 'naïve = "ü" if limit > 3 else ""; total = 0'),
        ("loop", "if total > limit:"),
        ("assignment", "total = (graph[node]) * (limit - 1)"),
        ("return", "return total, None"),
    ],
)
def test_each_kind_makes_its_edit(kind, expected):
    assert expected in changes(SOURCE, kind)


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        ("operand", "return a + b + n", {"return a + b"}),
        ("operands", "return (a + b) - n", {"return n - (a + b)"}),
        ("operands", 'return "x" + a', {'return a + "x"'}),
        ("assignment", "a, b = b, n", {"a, b = n, b"}),
        ("loop", "for i in items:\n    break", {"continue"}),
        ("loop", "for i in items:\n    continue", {"break"}),
        ("loop", "g(range(n))", {"g(range(n - 1))", "g(range(1, n))"}),
        ("loop", "g(range(a, b))", {"g(range(a + 1, b))", "g(range(a, b - 1))"}),
        ("exception", 'raise ValueError("a")', {'raise TypeError("a")'}),
        ("exception", "raise pkg.Odd(a)", {"raise RuntimeError(a)"}),
        ("exception", "try:\n    g()\nexcept KeyError:\n    a = 1", {"except ValueError:"}),
        ("condition", "return [x for x in items if x.y]", {"return [x for x in items]"}),
        ("constant", "a = 0.5", {"a = 1.5"}),
        ("constant", "a = True", {"a = False"}),
        ("constant", "while 1:\n    g()", {"while 0:"}),
        ("return", "yield a", {"yield None"}),
        ("arithmetic", "return -a", {"return a"}),
    ],
)
def test_an_operator_makes_just_these_edits(kind, body, expected):
    assert changes(body, kind) == expected


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        ("else", "if a:\n    b = 1\nelse:  # so\n    b = 2\nreturn b", {""}),
        ("condition", "if a:\n    b = 1\nreturn b", {"", "if True:", "if not a:"}),
        ("loop", "for i in items:\n    g(i)", {"pass"}),
        ("assignment", "a = g()\nreturn a", {""}),
        ("wrapper", "try:\n    a = g()\n\nfinally:\n    h()\nreturn a", {"a = g()"}),
        ("order", "a = g()\nb = h(a)\nreturn b", {"b = h(a)\n    a = g()"}),
    ],
)
def test_whole_lines_are_removed_unwrapped_or_reordered(kind, body, expected):
    assert changes(body, kind, whole_lines=True) == expected


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("arithmetic", "return a + 0"),
        ("arithmetic", "return a / 1, a // 1, a ** 1"),
        ("arithmetic", "return 2 * 2, 2 ** 2, 0 % a, 0 // a"),
        ("arithmetic", "return a & a, a << 0"),
        ("arithmetic", "a += 0"),
        ("arithmetic", 'return "%s" % a'),
        ("operands", "return a + b, a * b, a - a, 3 - 3"),
        ("operands", 'return "%d" % a'),
        ("operand", "return a + b + 0, a * b * 1"),
        ("operand", "return a | b | b"),
        ("boolean", "return a and a"),
        ("condition", "return a and a"),
        ("condition", "if a:\n    pass"),
        ("condition", "if True:\n    b = 1"),
        ("boundary", "if a > b:\n    b = a"),
        ("boundary", "return a if a > b else b"),
        ("arguments", "return g(a, a), max(a, b), h(*items, a)"),
        ("constant", "b: 3 = a"),
        ("constant", "1"),
        ("constant", 'raise KeyError("a", 1)'),
        ("constant", "assert a, 1"),
        ("constant", "if TYPE_CHECKING:\n    b = g(1)"),
        ("constant", "return a\nb = 1"),
        ("constant", 'logging.warning("a", 1)'),
        ("loop", "while True:\n    if g():\n        break"),
        ("loop", "for i in range(3):\n    g()"),
        ("loop", "while a:\n    g()\n    return"),
        ("return", "yield\nreturn a"),
        ("return", "return None"),
        ("return", "return False"),
        ("assignment", "total = 0\ntotal += a"),
        ("assignment", "for i in items:\n    n *= 0"),
        ("assignment", "a, b = n, n"),
        ("exception", "try:\n    g()\nexcept Exception:\n    a = 1"),
        ("exception", "try:\n    g()\nexcept Odd:\n    a = 1"),
        ("exception", "raise a"),
        ("exception", "raise"),
        ("variable", "return g()"),
    ],
)
def test_what_would_change_nothing_or_only_a_message_is_not_made(kind, body):
    assert changes(body, kind) == set()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("assignment", "unread = a"),
        ("order", "x = a\ny = b"),
        ("else", "if a:\n    b = 1\nelse:\n    pass\nreturn b"),
        ("wrapper", 'with a:\n    b = """\n    x"""\nreturn b'),
        ("loop", "for i in items:\n    pass"),
    ],
)
def test_whole_lines_that_nobody_would_miss_stay(kind, body):
    assert changes(body, kind, whole_lines=True) == set()


def test_a_wrong_variable_is_another_of_the_function_that_has_a_value_by_then():
    assert changes("return g(a)", "variable", arguments="a, b") == {"return g(b)"}
    assert changes("x = g(a)\nreturn x", "variable", arguments="a") == {"return a"}
    lines = changes("def f(graph, nodes):\n    return graph[nodes]\n", "variable")
    assert lines == {"return nodes[nodes]", "return graph[graph]"}


def test_what_cannot_be_changed_gives_no_mutant():
    assert mutants("def f(x):\n    pass\n", whole_lines=True) == []


INNER = "\ndef inner():\n    nonlocal x\n    g(x)\nreturn inner, x"


@pytest.mark.parametrize(
    ("kind", "binding"),
    [
        ("assignment", "x = a"),
        ("condition", "if a:\n    x = b"),
        ("loop", "for x in items:\n    g(x)"),
        ("wrapper", "with g(a) as x:\n    x.run()"),
    ],
)
def test_the_only_binding_of_a_nonlocal_stays(kind, binding):
    """Without it the text would parse and not compile. One of two bindings may go."""
    removed = {"assignment": "", "condition": "", "loop": "", "wrapper": "x.run()"}[kind]
    assert removed not in changes(binding + INNER, kind, whole_lines=True)
    assert removed in changes(f"{binding}\nx = b{INNER}", kind, whole_lines=True)


def test_no_string_becomes_the_docstring():
    assert "" not in changes('x = a\n"""Of x."""\nreturn x', "assignment", whole_lines=True)


@pytest.mark.parametrize("module", [heapq, textwrap, fnmatch], ids=lambda module: module.__name__)
def test_mutants_of_the_standard_library_compile_and_keep_what_must_stay(module):
    functions = [one for _, one in inspect.getmembers(module, inspect.isfunction) if one.__module__ == module.__name__]
    count = 0
    for function in functions:
        source = textwrap.dedent(inspect.getsource(function))
        if source.count("\n") > 45:
            continue
        (original,) = ast.parse(source).body
        for mutant in mutants(source, whole_lines=True):
            tree = ast.parse(mutant.source)
            compile(tree, "<mutant>", "exec")
            (mutated,) = tree.body
            assert ast.dump(mutated) != ast.dump(original)
            for kept in ("name", "args", "decorator_list", "returns"):
                before, after = getattr(original, kept), getattr(mutated, kept)
                assert ast.dump(ast.Tuple([before])) == ast.dump(ast.Tuple([after])), (kept, mutant)
            assert ast.get_docstring(mutated, clean=False) == ast.get_docstring(original, clean=False)
            count += 1
    assert count > 20


NAMES = st.sampled_from(["a", "b", "n", "items"])
ATOMS = NAMES | st.sampled_from(["0", "1", "2.5", "-1", "True", "None", '"é"', "g(a, b)", "items[0]", "range(n)"])
OPERATOR = st.sampled_from(
    ["+", "-", "*", "/", "//", "%", "**", "&", "|", "<", "<=", "==", "in", "is not", "and", "or"]
)


def joined(inner):
    binary = st.tuples(inner, OPERATOR, inner).map(lambda one: f"({one[0]} {one[1]} {one[2]})")
    bare = st.tuples(inner, OPERATOR, inner).map(lambda one: f"{one[0]} {one[1]} {one[2]}")
    choice = st.tuples(inner, inner, inner).map(lambda one: f"({one[0]} if {one[1]} else {one[2]})")
    return binary | bare | choice | inner.map(lambda one: f"(not {one})") | inner.map(lambda one: f"-{one}")


EXPRESSIONS = st.recursive(ATOMS, joined, max_leaves=6)
SIMPLE = st.one_of(
    st.tuples(NAMES, EXPRESSIONS).map(lambda one: f"{one[0]} = {one[1]}"),
    st.tuples(NAMES, EXPRESSIONS).map(lambda one: f"{one[0]} += {one[1]}"),
    st.tuples(EXPRESSIONS, EXPRESSIONS).map(lambda one: f"a, b = {one[0]}, {one[1]}"),
    EXPRESSIONS.map(lambda one: f"return {one}"),
    EXPRESSIONS.map(lambda one: f'raise KeyError("x", {one})'),
)


def compound(inner):
    block = st.lists(inner, min_size=1, max_size=3).map(lambda parts: textwrap.indent("\n".join(parts), "    "))
    heads = st.one_of(
        EXPRESSIONS.map(lambda one: f"if {one}:"), EXPRESSIONS.map(lambda one: f"while {one}:"),
        NAMES.map(lambda one: f"for i in {one}:"), EXPRESSIONS.map(lambda one: f"with g({one}) as x:"),
    )  # fmt: skip
    plain = st.tuples(heads, block).map("\n".join)
    branches = st.tuples(EXPRESSIONS, block, block).map(lambda one: f"if {one[0]}:\n{one[1]}\nelse:  # é\n{one[2]}")
    guarded = st.tuples(block, block).map(lambda one: f"try:\n{one[0]}\nexcept KeyError:\n{one[1]}")
    return plain | branches | guarded


BODIES = st.lists(st.recursive(SIMPLE, compound, max_leaves=8), min_size=1, max_size=4).map("\n".join)


@pytest.mark.filterwarnings("ignore::SyntaxWarning")  # `1 is not 2`
@settings(max_examples=60, deadline=None)
@given(BODIES)
def test_every_mutant_of_any_function_compiles_differs_in_one_place_and_in_its_tree(body):
    source = f'def f(a, b, n, items):\n    """Doc."""\n{textwrap.indent(body, "    ")}\n'
    try:
        tree = ast.dump(ast.parse(source))
    except SyntaxError:
        return
    lines = source.split("\n")
    found = mutants(source, whole_lines=True)
    assert found == mutants(source, whole_lines=True)
    for mutant in found:
        mutated = ast.parse(mutant.source)
        assert ast.dump(mutated) != tree, mutant
        compile(mutated, "<mutant>", "exec")
        before, after = mutant.original_line.split("\n"), mutant.mutated_line.split("\n")
        first, last = mutant.line - 1, mutant.line - 1 + len(before)
        after = [] if mutant.mutated_line == "" else after
        assert lines[first:last] == before and [*lines[:first], *after, *lines[last:]] == mutant.source.split("\n")
    for mutant in mutants(source):
        assert [len(one) for one in one_hunk(lines, mutant.source.split("\n"))] == [1, 1]
