import pytest

from data.corpus.languages import anatomy, grammar_of, head_of, language_of, literals, packages_of

SCRIPT = """#!/usr/bin/env node
// Made by hand.
/* Two
   lines. */
/** Says
 * what. */
const greeting = `hello ${name}`; // how one greets
const é = "naïve", pattern = /a\\/b/;

export function add(a, b) {
  return a + b;
}
"""


@pytest.fixture
def tree_sitter():
    for package in packages_of(["javascript", "typescript"]):
        pytest.importorskip(package, reason=f"reading JavaScript and TypeScript needs {package}")


def test_a_suffix_names_the_grammar_of_the_languages_that_are_asked_for():
    assert grammar_of("a/b.py", ["python"]) == "python"
    assert grammar_of("a/b.ts", ["python"]) is None
    assert grammar_of("a/b.tsx", ["javascript", "typescript"]) == "tsx"
    assert [language_of(f"x.{suffix}") for suffix in ("py", "mjs", "jsx", "tsx")] == [
        "python", "javascript", "javascript", "typescript"
    ]  # fmt: skip


def test_python_alone_needs_no_extra():
    assert packages_of(["python"]) == []
    assert packages_of(["python", "typescript"]) == ["tree_sitter", "tree_sitter_typescript"]


def test_comments_blank_lines_and_docstrings_are_not_code():
    text = '"""Two\nlines."""\n\n# why\nx = 1\ndef f():\n    """Says."""\n    return x\n'
    parts = anatomy(text, "python")
    assert parts.code_lines == 3
    assert parts.comments == len("# why")
    assert head_of(text, "python") == ["# why", "Two", "lines."]


def test_docstrings_are_found_in_every_block():
    block = "if x:\n    def f():\n        'a'\nelse:\n    try:\n        'b'\n    except E:\n        'c'\n"
    match = "match x:\n    case 1:\n        'd'\n"
    assert anatomy(block + match, "python").code_lines == 7


def test_the_literals_of_python_are_its_comments_and_strings():
    text = "x = 'ä' + b\"b\"  # c\ny = '''d\ne''' @ z\n"
    assert [text[start:end] for start, end in literals(text, "python")] == ["'ä'", 'b"b"', "# c", "'''d\ne'''"]


def test_a_text_that_cannot_be_taken_apart_is_one_literal():
    assert literals("x = '''a", "python") == [(0, 8)]


def test_a_script_is_taken_apart_by_its_grammar(tree_sitter):
    parts = anatomy(SCRIPT, "javascript")
    assert parts.code_lines == 5
    assert parts.comments == sum(map(len, SCRIPT.split("\n")[:4]))
    assert head_of(SCRIPT, "javascript")[:2] == ["#!/usr/bin/env node", "// Made by hand."]
    found = [SCRIPT[start:end] for start, end in literals(SCRIPT, "javascript")]
    assert found == [
        "#!/usr/bin/env node", "// Made by hand.", "/* Two\n   lines. */", "/** Says\n * what. */",
        "`hello ${name}`", "// how one greets", '"naïve"', "/a\\/b/",
    ]  # fmt: skip


def test_the_head_ends_after_twenty_lines_and_holds_no_line_with_code(tree_sitter):
    text = "/* one\n two */\nlet a = 1; // no\n" + "// more\n" * 16 + "/* last\n beyond */\n// beyond\n"
    assert head_of(text, "javascript") == ["/* one", " two */", *["// more"] * 16, "/* last"]
    assert head_of("x = 1  # no\n" + "# more\n" * 30, "python") == ["# more"] * 19 + [""]


def test_types_are_typescript_and_elements_are_tsx(tree_sitter):
    typed, element = "let a = <number>b;\n", "let a = <b>c</b>;\n"
    assert anatomy(typed, "typescript").code_lines == anatomy(element, "tsx").code_lines == 1
    for text, grammar in ((typed, "tsx"), (element, "typescript"), ("let a: number = 1;", "javascript")):
        with pytest.raises(SyntaxError):
            anatomy(text, grammar)


def test_a_text_may_hold_a_little_that_the_grammar_does_not_know_but_nothing_may_be_missing(tree_sitter):
    code = "".join(f"export function f{i}(a) {{\n  return a + {i};\n}}\n" for i in range(20))
    known_to_node = "const _null = 1;\nexport { _null as null };\n"
    assert anatomy(code + known_to_node, "javascript").code_lines == 62
    for text in (known_to_node, code + "function g() {\n  return 1;\n"):
        with pytest.raises(SyntaxError):
            anatomy(text, "javascript")
