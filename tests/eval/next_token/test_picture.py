from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from eval.next_token.picture import next_token_picture


def parsed(markup):
    return ET.fromstring(markup.replace(' xmlns="http://www.w3.org/2000/svg"', ""))


ROW = {"kind": "seen", "name": "x", "base": [{"id": 1, "token": "<a>", "p": 0.25}], "positions": [{"kl": 0.5}]}
ROW["tuned"] = [{"id": 2, "token": "b", "p": 0.5, "language": "typescript"}]


def test_a_token_that_one_side_alone_holds_likely_has_one_bar():
    picture = parsed(next_token_picture([ROW]).strip())
    widths = [float(bar.get("width")) for bar in picture.iter("rect")]
    assert widths[0] == widths[3] == 0 and widths[1] == pytest.approx(2 * widths[2]) and len(widths) == 5
    assert {"'<a>'", "'b'", "seen · x", "typescript"} <= set(picture.itertext())


def test_continuations_are_drawn_whole_line_by_line_with_their_indentation():
    long = "def f(x):\n    return " + "x + " * 40 + "<1>"
    of_how = {"greedy": (long, True), "sample": ("\x1f", False)}
    texts = {how: {"text": text, "tokens": 9, "stopped": stopped} for how, (text, stopped) in of_how.items()}
    picture = parsed(next_token_picture([ROW | {"continuations": {"base": texts, "tuned": texts}}]).strip())
    lines = [text.text or "" for text in picture.iter("text") if "monospace" in text.get("style")]
    shown = [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]
    assert "".join(shown) == 2 * long.replace("\n", "") + 2 * r"\x1f" and "    return x + x" in shown[1]
    assert max(map(len, shown)) <= 56
    headings = {text.text for text in picture.iter("text")}
    assert {"base, greedy: 9 tokens", "tuned, sample: 9 tokens, cut off"} <= headings
    box = float(picture.get("viewBox").split()[3])
    assert max(float(text.get("y")) for text in picture.iter("text")) < box
