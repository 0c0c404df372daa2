import pytest

from data.checks.thoughts import split_thoughts

SPLIT = "def strip(text):\n    return text.split('</think>')[-1]\n"
FENCED = f"```python\n{SPLIT}```\n"
MARGIN = 'TEXT = """\n<think>\nhm\n</think>\n"""\n'


@pytest.mark.parametrize(
    ("thoughts", "answer"),
    [
        ("", "yes"),
        ("<think>hm</think>", "yes"),
        ("<think>\nhm\n</think>\n\n", "    return 3"),  # a body keeps its indentation
        ("<think>\r\nhm\r\n</think>\r\n\r\n", "yes"),
        ("hm</think> ", "yes"),  # the template had opened it
        ("<think>a</think>b<think>c</think>", "yes"),
        ("<think>\n\n</think>\n\n", "yes"),
        ("<think>\n```python\nx = 1\n</think>\n\n", "```python\ny = 2\n```"),  # a draft that breaks off in its fence
        ("<thinking>hm</thinking>\n", "yes"),
        ("[THINK]hm[/THINK]", "yes"),
        ("<THINK>hm</THINK>\n", "yes"),
        ("<seed:think>hm</seed:think>\n", "yes"),
        ("<think>still thinking", ""),
        ("<think>a</think>b\n<think>still thinking", ""),
        ("<think>hm</think>", ""),
        # what only mentions the tag
        ("", SPLIT),
        ("", "    return text.split('</think>')[-1]"),
        ("", f"Sure:\n\n{SPLIT}\nIt is what follows `</think>`."),
        ("", FENCED),
        ("", f'{FENCED}\nIt is what follows `</think>`, or "</think>".'),
        ("", f"```python\n{MARGIN}```"),
        ("", MARGIN),
        ("<think>\nI split at '</think>'.\n</think>\n", FENCED),
        ("<think>\n```python\nx = 1\n\nNo.\n</think>\n", f"```python\n{MARGIN}```"),
        ("<think>Don't stop</think>", "it's done"),
    ],
)
def test_the_answer_follows_the_last_tag_that_is_one(thoughts, answer):
    assert split_thoughts(thoughts + answer) == (thoughts, answer)
