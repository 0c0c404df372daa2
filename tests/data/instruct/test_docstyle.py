import pytest

from data.instruct.docstyle import Entry, docstring_in, read_docstring, write_google

NUMPY = """Sums what is there.

More words.

Parameters
----------
values : list of int
    Numbers, :math:`n` of them,
    in any order.

    A second paragraph.
a, b : int, optional (default=1)
    Both ends.
**options
    Passed on.

Returns
-------
int
    The sum.

Raises
------
ValueError
    If there is nothing.

Examples
--------
>>> f([1])
1
"""

REST = """Sums what is there.

:param values: Numbers,
    in any order.
:type values: list of int
:param int a: One end.
:returns: The sum.
:rtype: int
:raises ValueError: If there is nothing.
"""

GOOGLE = """Sums what is there.

Args:
    values (list of int): Numbers,
        in any order.
    a: One end.

Returns:
    int: The sum.

Raises:
    ValueError: If there is nothing.
"""


def test_numpy_is_written_in_googles_layout():
    assert write_google(read_docstring(NUMPY)) == (
        "Sums what is there.\n\n"
        "Args:\n"
        "    values (list of int): Numbers, n of them, in any order.\n"
        "    a (int, optional (default=1)): Both ends.\n"
        "    b (int, optional (default=1)): Both ends.\n"
        "    **options: Passed on.\n\n"
        "Returns:\n"
        "    int: The sum.\n\n"
        "Raises:\n"
        "    ValueError: If there is nothing."
    )


def test_rest_and_google_say_the_same_in_it():
    rest, google = (read_docstring(text) for text in (REST, GOOGLE))
    assert rest.entries.keys() == google.entries.keys() == {"Args", "Returns", "Raises"}
    assert rest.entries["Returns"] == google.entries["Returns"] and rest.entries["Raises"] == google.entries["Raises"]
    assert rest.entries["Args"][0] == google.entries["Args"][0]
    assert rest.entries["Args"][1].type == "int" and google.entries["Args"][1].type == ""


def test_what_is_written_is_read_again_as_the_same():
    for text in (NUMPY, REST, GOOGLE):
        documented = read_docstring(text)
        assert read_docstring(write_google(documented)) == documented


@pytest.mark.parametrize(
    ("section", "written"),
    [
        (
            "lengths : dict\n    By node.\npaths : dict\n    By node too.",
            "lengths (dict): By node.\n    paths (dict): ",
        ),
        ("lengths : dict\npaths : list", "lengths (dict):\n    paths (list):"),
        ("A dict of the\nlengths by node.", "A dict of the lengths by node."),
        ("set()", "set()"),
        ("dict\n    By node: the length.", "dict: By node: the length."),
    ],
)
def test_results_are_read_as_numpy_writers_give_them(section, written):
    text = write_google(read_docstring(f"Do.\n\nReturns\n-------\n{section}\n"))
    assert f"Returns:\n    {written}" in text


@pytest.mark.parametrize(
    "section",
    [
        "ValueError\n    If so.",
        "ValueError : exception\n    If so.",
        "ValueError: If so.",
        ":exc:`ValueError`\n    If so.",
    ],
)
def test_exceptions_are_read_as_numpy_writers_give_them(section):
    assert write_google(read_docstring(f"Do.\n\nRaises\n------\n{section}\n")).endswith(
        "Raises:\n    ValueError: If so."
    )


def test_google_entries_may_share_a_line_and_exceptions_have_dots():
    text = "Do.\n\nArgs:\n    a, b (int): Ends.\n\nRaises:\n    np.linalg.LinAlgError: If so."
    entries = read_docstring(text).entries
    assert [(one.name, one.type, one.text) for one in entries["Args"]] == [("a", "int", "Ends."), ("b", "int", "Ends.")]
    assert [(one.name, one.text) for one in entries["Raises"]] == [("np.linalg.LinAlgError", "If so.")]


def test_a_remark_among_or_after_googles_arguments_is_none_of_them():
    for rest in ("    NB: Not two.", "Returns: The sum.", "    Returns: The sum."):
        text = f"Do.\n\nArgs:\n    a: One.\n\n    b: Two.\n{rest}\n"
        assert [one.name for one in read_docstring(text).entries["Args"]] == ["a", "b"]
    assert [one.name for one in read_docstring("Do.\n\nArgs:\na: One.\nb: Two.").entries["Args"]] == ["a", "b"]


def test_long_lines_are_wrapped_with_a_hanging_indent():
    text = write_google(read_docstring(f"Do.\n\nArgs:\n    x: {'word ' * 40}\n"))
    lines = text.split("\n")[3:]
    assert len(lines) == 3 and all(len(line) <= 88 for line in lines)
    assert lines[0].startswith("    x: word") and all(line.startswith("        word") for line in lines[1:])


def test_a_docstring_without_entries_has_none():
    assert read_docstring("Do it.\n\nWith care.").entries == {}
    assert read_docstring("").summary == ""


@pytest.mark.parametrize(
    "text",
    [
        "Adds.\n\nArgs:\n    a: One.",
        '"""Adds.\n\n    Args:\n        a: One.\n    """',
        '    def f(a):\n        """Adds.\n\n        Args:\n            a: One.\n        """\n',
        'class A:\n    """Adds.\n\n    Args:\n        a: One.\n    """',
        'def f(a):\n    "Adds.\\n\\nArgs:\\n    a: One."',
        "Here you are: '''Adds.\n\n    Args:\n        a: One.''' Bye.",
        '"""Adds.\n\n    Args:\n        a: One.\n',
        "```\nAdds.\n\nArgs:\n    a: One.\n```",
        'So:\n\n~~~ python\ndef f(a):\n    """Adds.\n\n    Args:\n        a: One.\n    """\n~~~',
    ],
)
def test_a_docstring_is_found_in_what_stands_for_it(text):
    assert docstring_in(text) == "Adds.\n\nArgs:\n    a: One."


@pytest.mark.parametrize("example", ["```python\nf(1)\n```", "```\n>>> f(1)\n1\n```", "```sh\nrun x\n```"])
def test_an_example_in_a_docstring_is_not_the_docstring(example):
    text = f"Adds.\n\n{example}\n\nArgs:\n    a: One."
    assert docstring_in(text) == text
    assert read_docstring(text).entries == {"Args": [Entry("a", "", "One.")]}


def test_what_no_parser_takes_stands_for_itself():
    assert docstring_in("-" * 5000 + "1") == "-" * 5000 + "1" and docstring_in("") == ""
