from __future__ import annotations

import json
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from common.console import UserError
from training import similarity
from training.similarity import picture

SVG = "{http://www.w3.org/2000/svg}"


def shapes(text, name):
    return list(ElementTree.fromstring(text).iter(SVG + name))


def test_every_pair_is_a_square_and_equal_values_have_equal_shades():
    drawn = picture(np.array([[0.9, 0.1], [0.5, 0.5]]), np.array([[0.9, 0.1], [0.1, 0.9]]))
    assert sum(path.get("d").count("M") for path in shapes(drawn, "path")) == 8
    assert [path.get("d").count("M") for path in shapes(drawn, "path") if path.get("fill") == "#0b4f8a"] == [1, 2]


def test_a_ring_says_which_code_is_first_and_the_title_how_many_are_right():
    drawn = picture(np.array([[0.9, 0.1, 0], [0.8, 0.2, 0.1], [0, 0.3, 0.2]]), np.eye(3))
    assert [ring.get("stroke") == "#0a7d33" for ring in shapes(drawn, "circle")] == [
        True,
        False,
        False,
        True,
        True,
        True,
    ]
    said = [text.text for text in shapes(drawn, "text")]
    assert "before: 1 of 3 find their code first" in said and "after: 3 of 3 find their code first" in said
    assert "own code 0.43, others 0.22 on average" in said and "own code 1.00, others 0.00 on average" in said
    width = float(ElementTree.fromstring(drawn).get("width"))
    assert all(float(ring.get("cx")) < width for ring in shapes(drawn, "circle"))


def test_the_command_draws_the_first_pairs_and_refuses_what_is_none(reference_encoder, tmp_path, monkeypatch):
    data, out = tmp_path / "test.jsonl", tmp_path / "f.svg"
    rows = [{"query": f"find {name}", "code": f"def {name}"} for name in "abcd"]
    model = str(reference_encoder[1])
    given = ["--before", model, "--after", model, "--data", str(data), "--out", str(out), "--count", "3"]
    monkeypatch.setattr(sys, "argv", ["similarity", *given])
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    similarity.main()
    assert len(shapes(out.read_text(), "circle")) == 6
    data.write_text(json.dumps(rows[0]) + "\n" + json.dumps({"query": "x"}) + "\n")
    with pytest.raises(UserError, match=r"test.jsonl:2: "):
        similarity.main()
    data.write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(UserError, match="at least two"):
        similarity.main()
