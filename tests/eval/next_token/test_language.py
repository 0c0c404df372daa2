from __future__ import annotations

import pytest

from eval.next_token.language import accepts, closing_brackets, code_before, language_of

LANGUAGES = ("typescript", "python")


@pytest.mark.parametrize(
    ("before", "token", "language"),
    [
        # words of one language, where its parser accepts them
        ("", "function", "typescript"),
        ("", "def", "python"),
        ("x = 1\n", "elif", None),  # Python has the word, but not here; both accept a name
        ("const a = 1;\n", "interface", "typescript"),
        # both have the word, or it is none
        ("", "import", None),
        ("", "Here", None),
        ("", " ", None),
        ("", "`", None),
        ("", "@", None),
        ("", '"""', "python"),
        ("const x = ", "`", "typescript"),
        ("", "<|im_end|>", None),
        # only one parser accepts the text with the token
        ("const x", ": number", "typescript"),
        ("import", " {", "typescript"),
        ("def f(x):\n   ", " return", "python"),
        ("for x", " in", "python"),
        ("function add(a", ",", "typescript"),
        # the fence names it, whole or in part
        ("", "```", None),
        ("```", "typescript", "typescript"),
        ("```", "ts", "typescript"),
        ("```type", "script", "typescript"),
        ("```", "py", "python"),
        ("", "```python", "python"),
        ("```", "bash", None),
        # prose is no code: only telling words count
        ("Write a loop", " that", None),
        ("Write a loop with a", " const", "typescript"),
    ],
)
def test_a_token_is_judged_in_its_place(before, token, language):
    assert language_of(before, token, LANGUAGES) == language
    assert language_of(before, token, LANGUAGES[::-1]) == language


def test_typescript_is_distinguished_from_javascript_by_its_types():
    both = ("typescript", "javascript")
    assert language_of("const x", ": number", both) == language_of("", "interface", both) == "typescript"
    assert language_of("", "function", both) is None and language_of("```", "js", both) == "javascript"


@pytest.mark.parametrize(
    "text",
    [
        "import {", "while (", "const x = (a) =>", "if (a && ", "/**\n * A", "const x = 'a", "f(a, // note", "try {",
        "export default function", "class A { foo(x: number", "x === ", "const s = `a", "return", "async function",
        "interface A { b", "let x: Array<", "const { a", "[1, 2", "const f = async (x", "export const a:",
    ],
)  # fmt: skip
def test_a_parser_accepts_the_beginning_of_a_program(text):
    assert accepts("typescript", text)


@pytest.mark.parametrize(
    "text", ["def f(x):", "x = )", "function f( { return x } }", "import numpy as", "Write a loop", "let let x", "a b"]
)
def test_a_parser_refuses_what_no_program_begins_with(text):
    assert not accepts("typescript", text)


@pytest.mark.parametrize("text", ["def f(x):", "for", "import", "x = [i for", "if x:\n    return", "with open(", "'"])
def test_pythons_parser_accepts_the_beginning_of_a_program(text):
    assert accepts("python", text) and not accepts("python", text + "\n]")


def test_an_unknown_language_is_refused():
    with pytest.raises(ValueError, match="cobol"):
        accepts("cobol", "x")


@pytest.mark.parametrize(
    ("text", "closing"),
    [
        ("f(a, [1", "\n])"), ("f('(', \"[\", `{`, x", "\n)"), ("f(x) // (", ""), ("{ /* ( */ (", "\n)}"),
        ("x = 'a(", "'"),
        ("f(/* a (", "*/\n)"), ("f(`a ${b", "`\n)"), ("f('it\\'s', (", "\n))"), ("f)", ""), ("", ""),
    ],
)  # fmt: skip
def test_open_brackets_strings_and_comments_are_closed(text, closing):
    assert closing_brackets(text) == closing


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("const a", "const a"), ("Hi\n```ts\nconst x", "const x"), ("```\nx\n```\n", ""), ("So: ```", "```"),
        ("```typ", "```typ"), ("```a\n```\n```b\nx", "x"), ("", ""),
    ],
)  # fmt: skip
def test_the_code_that_a_text_ends_with(text, code):
    assert code_before(text) == code
