import ast
import dataclasses
import hashlib
import random

from common.python_syntax import module_name
from data.corpus import SourceFile
from data.corpus.functions import functions_of, held_apart

TEXT = '''
import functools


@functools.lru_cache(
    maxsize=2
)
def first(
    a, *rest, key=None
):  # how
    # why
    """Doc of *first*.

    >>> first(1)
    1
    >>> first("x")  # doctest: +SKIP
    Traceback (most recent call last):
    ValueError: no
    """

    # a comment of the body
    def inner():
        return a

    return inner()


class Box:
    def get(self, key):
        r"""One\\line."""
        text = """
kept
    """
        return text

    class Deep:
        async def wait(self):
            return 1

if True:
    def guarded(x): return x
    def other(é="é"):
        pass
'''


def file(text, path="pkg/mod.py", split="train"):
    return SourceFile(path, text, hashlib.sha256(text.encode()).hexdigest(), "MIT", "abc", split)


def functions(text=TEXT):
    return {one.qualname: one for one in functions_of(file(text), min_lines=1)}


def test_functions_and_methods_are_found_but_not_inner_ones_nor_one_liners():
    assert list(functions()) == ["first", "Box.get", "Box.Deep.wait", "other"]


def test_the_parts_are_the_text_of_the_file():
    first = functions()["first"]
    lines = TEXT.split("\n")
    assert first.source == "\n".join(lines[first.first_line - 1 : first.last_line])
    assert lines[first.first_line - 1] == "@functools.lru_cache("
    assert first.header.endswith("):  # how")
    assert first.signature.startswith("def first(")
    assert first.body.startswith("    # a comment of the body\n    def inner")
    assert "Doc of" not in first.code_without_docstring
    assert first.arguments == ("a", "key", "rest")


def test_code_without_docstring_is_the_same_program():
    for function in functions().values():
        whole, bare = ast.parse(function.source).body[0], ast.parse(function.code_without_docstring).body[0]
        if function.docstring is not None:
            whole.body = whole.body[1:]
        assert ast.dump(whole) == ast.dump(bare)


def test_a_method_is_dedented_but_not_its_strings():
    get = functions()["Box.get"]
    assert get.source.startswith("def get(self, key):\n")
    assert "\nkept\n" in get.source
    assert get.arguments == ("key",)
    assert get.docstring == "One\\line."


def test_examples_carry_wants_options_and_exceptions():
    plain, skipped = functions()["first"].examples
    assert plain == {"source": "first(1)\n", "want": "1\n", "options": {}, "raises": None}
    assert skipped["options"] == {"SKIP": True}
    assert skipped["raises"] == "ValueError: no\n"


def test_lines_are_counted_without_the_docstring():
    text = 'def f():\n    """' + "long\n" * 80 + '    """\n' + "    x = 1\n" * 5
    assert [one.code_lines for one in functions_of(file(text))] == [6]
    assert functions_of(file(text), min_lines=7) == []
    assert functions_of(file("def f():\n" + "    x = 1\n" * 60)) == []


def test_a_function_knows_the_source_of_its_file_and_other_languages_give_none():
    known = dataclasses.replace(file("def f(x):\n    return x\n"), source="package:networkx")
    assert [one.package for one in functions_of(known, min_lines=1)] == ["package:networkx"]
    assert functions_of(dataclasses.replace(known, language="typescript", text="let a = <b>c;"), min_lines=1) == []


def test_module_names_follow_the_path():
    assert module_name("networkx/algorithms/dag.py") == "networkx.algorithms.dag"
    assert module_name("networkx/utils/__init__.py") == "networkx.utils"


def test_a_copy_of_a_test_function_is_not_learnt_from():
    def body(seed):
        choose = random.Random(seed)
        return "def f():\n" + "".join(f"    name{choose.randrange(999)} = {i}\n" for i in range(20))

    files = [file(body(1), "a.py", "train"), file(body(2), "b.py", "train"), file(body(1), "c.py", "test")]
    kept, rejects = held_apart([one for each in files for one in functions_of(each)])
    assert [one.path for one in kept] == ["b.py", "c.py"]
    assert [(one["path"], one["reason"]) for one in rejects] == [("a.py", "nearly a test function")]
