import pytest

from data.checks.code_blocks import code_blocks, split_answer

CODE = "def f(x):\n    return x < 1\n"
BODY = "    y = x\n    return y\n"


@pytest.mark.parametrize(
    ("answer", "found", "words"),
    [
        (CODE, [], CODE),
        ("Just words.", [], "Just words."),
        (f"A:\n```\n{CODE}```\nB.", [CODE], "A:\nB."),
        ('"""Doc.\n\n```\nx\n```\n"""', [], '"""Doc.\n\n```\nx\n```\n"""'),  # all of it is Python
        (f"```bash\npip install x\n```\n```python\n{CODE}```", [CODE], ""),
        ('```json\n{"a": 1}\n```', ['{"a": 1}\n'], ""),  # better than nothing
        (f"```\n{CODE}```\n```text\n3\n```", [CODE], ""),
        (f"{BODY}```\nIt gives x.", [BODY.rstrip()], "It gives x."),
        (f"{CODE}```\nUse:\n```python\nf(1)\n```\nSo.", [CODE.rstrip(), "f(1)\n"], "Use:\nSo."),
        (f"{CODE}```python\nf(1)\n```", [CODE.rstrip(), "f(1)\n"], ""),
        (f"Answer: x\n```\n{CODE}```", [CODE], "Answer: x"),  # parses, and does nothing
        (f"read-only\n```\n{CODE}```", [CODE], "read-only"),
        ("```python\n>>> def f(x):\n...     return x\n>>> f(1)\n1\n```", ["def f(x):\n    return x\nf(1)\n"], ""),
        ("```\n>>>f(1)\n```", [">>>f(1)\n"], ""),
        (f"<code>\n{BODY}</code>\nSo.", [BODY], "\nSo."),
        ("<pre><code class='x'>return x &lt; 1\n</code></pre>", ["return x < 1\n"], ""),
        (f"```\n{CODE}```\nSo.".replace("\n", "\r\n"), [CODE], "So."),
        (f"    ```\n    {'    '.join(CODE.splitlines(True))}    ```", [CODE], ""),  # indented as a whole
        ("```\n\n```", [], ""),
        (f"```markdown\nSo:\n```python\n{CODE}```\n```", [CODE], ""),
        (f"````md\nSo:\n```python\n{CODE}```\n````", [CODE], ""),
    ],
)
def test_code_and_words_are_told_apart(answer, found, words):
    assert split_answer(answer) == (found, words)


def test_an_answer_that_goes_round_in_circles_is_read_in_time():
    assert len(code_blocks("f()\n```\n" * 300)) < 300
