import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from common.console import UserError
from common.html import markdown
from common.markdown import _parser, blocks, closes, fenced, without_blocks

CODE = "def f(x):\n    return x\n"
DOCUMENTED = 'def f(x):\n    """Double x.\n\n```python\nf(2)\n```\n\n```\n4\n```\n    """\n    return 2 * x\n'


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (f"```python\n{CODE}```", "python"),
        (f"Sure:\n```python\n{CODE}```\nDone.", "python"),  # no blank line is needed
        (f'``` Python title="a.py"\n{CODE}```', "python"),
        (f"```{{.python .numberLines}}\n{CODE}```", "python"),
        (f"```python:src/a.py\n{CODE}```", "python"),
        (f"````\n{CODE}````", ""),
        (f"~~~c++\n{CODE}~~~~", "c++"),
        ("   ```\n   def f(x):\n       return x\n  ```  ", ""),
        (f"```\n{CODE}", ""),  # never closed
        ("1. The code:\n\n   ```py\n   def f(x):\n       return x\n   ```\n\n2. Done.", "py"),
        ("- a\n  - b\n    ```py\n    def f(x):\n        return x\n    ```", "py"),
        ("> ```py\n> def f(x):\n>     return x\n> ```", "py"),
        (f"<answer>\n```python\n{CODE}```\n</answer>", "python"),
        (f"```python\n{CODE}```\n".replace("\n", "\r\n"), "python"),
    ],
)
def test_a_block_is_found_in_every_form_that_commonmark_allows(text, language):
    (block,) = blocks(text)
    assert (block.text, block.language) == (CODE, language)


@pytest.mark.parametrize(
    "text",
    [
        "no fence",
        "``inline`` and ```inline```",
        "``` has `ticks` in its info\nx",
        "    ```\n    x\n    ```",
        "``\nx\n``",
    ],
)
def test_what_is_no_fence_is_none(text):
    assert blocks(text) == () and without_blocks(text) == text


IN_A_LIST = "".join(f"   {line}" for line in f"```\n{DOCUMENTED}```\n\n```\nx\n```".splitlines(True))


@pytest.mark.parametrize("text", [f"```python\n{DOCUMENTED}```\n\nOr:\n\n```\nx\n```", f"1. a\n\n{IN_A_LIST}"])
def test_fences_in_an_open_string_end_no_block_and_what_follows_is_read_on(text):
    assert [block.text for block in blocks(text)] == [DOCUMENTED, "x\n"]


def test_where_no_fence_makes_it_python_commonmark_decides():
    quoted = 'say """ here\n'
    assert [block.text for block in blocks(f"```\n{quoted}```\nand\n```\ny\n```")] == [quoted, "y\n"]
    assert blocks(f"```python\n{DOCUMENTED[:-20]}\n```")[0].text.endswith("f(2)\n")


def test_a_text_of_nothing_but_fences_is_read_in_time():
    assert len(blocks('```\nx = """\n' + "```\n" * 500)) == 251


@pytest.mark.parametrize("code", ["x", CODE, DOCUMENTED, f"a\n````\n{CODE}````", "`````"])
def test_what_is_put_between_fences_is_read_back(code):
    (block,) = blocks(f"Before.\n\n{fenced(code, 'text')}\n\nAfter.")
    assert block.text == f"{code}\n" and without_blocks(fenced(code)) == ""


def test_only_the_marks_asked_for_are_taken_out():
    heading = "Notes\n~~~~~\nA note.\n\n```\nx\n```\nEnd."
    assert without_blocks(heading, marks="`") == heading  # by CommonMark all of this stands between tildes
    assert without_blocks("Notes\n-----\n```\nx\n```\nEnd.", marks="`") == "Notes\n-----\nEnd."


LINES = st.sampled_from(
    ["```", "````", "~~~", "```py", "  ```", "    ```", "> ```", "- ```", "x", "", "  y", "``` `", "~~~ ~"]
)


@given(st.lists(LINES, max_size=12))
@settings(max_examples=60, deadline=None)
def test_without_python_strings_blocks_are_those_of_the_reference(lines):
    text = "\n".join(lines)
    wanted = [(t.content, t.info.strip(), t.map) for t in MarkdownIt("commonmark").parse(text) if t.type == "fence"]
    assert [(block.text, block.info, [block.start, block.stop]) for block in blocks(text)] == wanted


@pytest.mark.parametrize(("line", "mark", "ends"), [("```", "```", True), ("````  ", "```", True), ("``", "```", False),
                                                     ("```", "````", False), ("```py", "```", False),
                                                     ("~~~", "```", False), ("    ```", "```", False)])  # fmt: skip
def test_a_block_ends_at_as_many_marks_and_nothing_else(line, mark, ends):
    assert closes(line, mark) is ends


def test_a_missing_parser_is_asked_for_by_its_name_in_the_index(monkeypatch):
    monkeypatch.setitem(sys.modules, "markdown_it", None)
    _parser.cache_clear()
    with pytest.raises(UserError, match=r"reading fenced code needs .* pip install markdown-it-py"):
        blocks("```\nnobody has read this before\n```")
    assert blocks("no fence") == ()


def test_a_page_shows_a_block_that_holds_fences_whole():
    shown = markdown(fenced("a\n```py\nb\n```\nc", "text") + "\n\nEnd.")
    assert re.sub(r"<[^>]*>", "", shown) == "a\n```py\nb\n```\nc\nEnd."
