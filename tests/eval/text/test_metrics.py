from __future__ import annotations

import pytest

from eval.text.metrics import find_label, normalize_answer, token_f1


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("person", "person"),
        (" Person.\n", "person"),
        ("The class is **place**.", "place"),
        ("named  entity", "named entity"),
        ("an entity it is", "entity"),
        ("I say named entity", "named entity"),  # and not the entity within
        ("\n\nplace\nbecause a person lives there", "place"),
        ("person or place", None),
        ("entity, or rather named entity", None),
        ("personal", None),
        ("", None),
    ],
)
def test_a_label_is_found_where_an_answer_gives_one(answer, label):
    assert find_label(answer, ["person", "place", "entity", "named entity"]) == label


@pytest.mark.parametrize(
    ("answer", "label"),
    [("C", "C"), ("c++", "C++"), ("It is C++.", "C++"), ("C#.", "C#"), ("C.", "C"), ("C or C++", None)],
)
def test_punctuation_can_tell_labels_apart(answer, label):
    assert find_label(answer, ["C", "C++", "C#"]) == label


def test_articles_punctuation_and_case_do_not_matter_in_an_answer():
    assert normalize_answer("The  U.S.-based, an  answer") == "usbased answer"
    assert token_f1("", "the") == 1 and token_f1("x", "the") == 0 and token_f1("b a b", "b b c") == pytest.approx(4 / 5)
