import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.highlight import pieces, pieces_of_file


def kinds(text):
    return [(kind, piece) for kind, piece in pieces(text) if kind]


def test_each_kind_of_token_has_its_colour():
    assert kinds("@cached\nasync def f(x=0x1F):  # why\n    return 'a' f'{x}'\n") == [
        ("keyword", "async"), ("keyword", "def"), ("defined", "f"), ("number", "0x1F"), ("comment", "# why"),
        ("keyword", "return"), ("string", "'a'"), *kinds("x = f'{x}'"),
    ]  # fmt: skip
    assert ("defined", "A") in kinds("class A(B):\n    pass\n")


def test_a_prompt_in_english_stays_plain_up_to_its_code():
    asked = "Complete this, for all graphs or none.\n\nIf it is empty, return None: the rest is given.\n\n"
    assert pieces(asked)[0] == ("", asked) and len(pieces(asked)) == 1
    assert pieces(asked + "def f(x):\n")[:2] == [("", asked), ("keyword", "def")]
    fenced = "for one\n```python\nfor x in y: pass\n```\nfor two\n"
    assert [piece for _, piece in kinds(fenced)] == ["for", "in", "pass"]


def test_code_that_breaks_off_or_does_not_parse_is_coloured_as_far_as_it_goes():
    assert kinds('def f():\n    """Of one, or for\nall if')[-1] == ("string", '"""Of one, or for\nall if')
    assert kinds("def f():\n        x = 1\n    return x\nfor y in x:\n")[-1] == ("keyword", "in")
    assert kinds("x = (1,\nreturn ((((2")[-1] == ("number", "2")
    assert ("comment", "# end") in kinds("def f(:\n    x = $?! ' it\n    # end\n")


def test_code_that_was_cut_off_above_may_begin_inside_a_docstring():
    assert kinds('of all, or none.\n    """\n    return x\n') == [
        ("string", 'of all, or none.\n    """\n'), ("keyword", "return"),
    ]  # fmt: skip
    assert kinds('def f():\n    """\n    All of it.\n    """\n')[0] == ("keyword", "def")


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="def f(x):\n\r\t'\"#`=\\1é{}\x00", max_size=60))
@example("# a\r\nb = '''\r")
def test_not_a_character_is_lost(text):
    assert "".join(piece for _, piece in pieces(text)) == text
    assert "".join(piece for _, piece in pieces("x = 1\n" + text)) == "x = 1\n" + text


def test_other_languages_are_told_by_the_name_of_the_file(monkeypatch):
    code = '// up\nclass Boat { fun sail(x: Int) = "far" + 3 }\n'
    found = [(kind, piece) for kind, piece in pieces_of_file(code, "pkg/boat.kt") if kind]
    assert found[:3] == [("comment", "// up"), ("keyword", "class"), ("defined", "Boat")]
    assert ("defined", "sail") in found and ("number", "3") in found
    assert "".join(piece for kind, piece in found if kind == "string") == '"far"'
    assert "".join(piece for _, piece in pieces_of_file(code, "pkg/boat.kt")) == code
    assert pieces_of_file("for x in y: pass", "a.py") == pieces("for x in y: pass")
    assert pieces_of_file(code, "boat.unknown") == [("", code)]
    monkeypatch.setitem(sys.modules, "pygments.lexers", None)
    assert pieces_of_file(code, "boat.kt") == [("", code)]
