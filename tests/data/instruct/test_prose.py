import pytest

from data.instruct.prose import clean, sections, sentences, summary, without_examples

NUMPY = """Return the best node.

It is the best by weight.

Parameters
----------
G : graph

    With a paragraph.

Returns
-------
node

Examples
--------
>>> best(G)
1
"""


def test_sections_of_the_usual_layouts():
    assert list(sections(NUMPY)) == ["", "Parameters", "Returns", "Examples"]
    assert sections(NUMPY)["Parameters"] == "G : graph\n\n    With a paragraph."
    google = sections("Do it.\n\nArgs:\n    x: a thing\n\nReturns:\n    another\n")
    assert google == {"": "Do it.", "Args": "    x: a thing", "Returns": "    another"}
    rest = sections("Do it.\n\n:param x: a thing\n:returns: another")
    assert rest == {"": "Do it.", "Fields": ":param x: a thing\n:returns: another"}


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ("Uses :func:`~networkx.dag.ancestors` of ``G``.", "Uses ancestors of G."),
        ("See :class:`the graph <Graph>` and `a link <http://x.y>`_.", "See the graph and a link."),
        ("As shown [1]_, *not* so **bold**.", "As shown, not so bold."),
        ("Two\nlines.\n\n>>> gone()\n\n.. note:: gone\n\n    gone\n\n- gone\n\nKept::", "Two lines.\n\nKept:"),
    ],
)
def test_markup_is_taken_off(marked, plain):
    assert clean(marked) == plain


def test_sentences_do_not_end_at_abbreviations():
    assert sentences("See e.g. The book. It helps.") == ["See e.g. The book.", "It helps."]
    assert summary(NUMPY) == "Return the best node."
    assert summary("") == ""


def test_examples_are_cut_off():
    assert without_examples(NUMPY).endswith("node")
    assert without_examples("Do.\n\n>>> x\n1") == "Do."


def test_fenced_code_is_no_prose_and_an_underline_of_tildes_is_none():
    text = "Adds.\n\n```python\nReturns:\n    x\n```\n\nMore.\n\nNotes\n~~~~~\nA note.\n\nReturns:\n    The sum."
    assert sections(text)["Returns"] == "    The sum." and sections(text)["Notes"] == "A note."
    assert clean(sections(text)[""]) == "Adds.\n\nMore." and "```" not in without_examples(text)
