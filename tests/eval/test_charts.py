import json
import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from eval.charts import (
    MOST_POINTS,
    Dot,
    Scale,
    dots,
    interval_picture,
    interval_strip,
    loss_curve,
)

CHANGE = {"value": -0.5, "interval": [-1.0, 0.25], "distinguishable": False}


def parsed(markup):
    return ET.fromstring(markup.replace(' xmlns="http://www.w3.org/2000/svg"', ""))


def points(curve):
    return json.loads(parsed(curve).find("svg").get("data-lines"))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-0.03, 0.13, [0, 0.05, 0.1]),
        (3, 1040, [200, 400, 600, 800, 1000]),
        (1.999, 2.004, [1.999, 2, 2.001, 2.002, 2.003, 2.004]),
    ],
)
def test_ticks_are_round_and_inside(low, high, expected):
    assert Scale(low, high, 0, 1).ticks() == expected


def test_a_curve_holds_every_value_and_draws_it_at_its_place():
    steps = [{"step": i, "loss": 4.0 - i} for i in (1, 2, 3)] + [
        {"step": 3, "validation_loss": 2.0},
        {"step": 4, "loss": None},
    ]
    curve = loss_curve(steps, "nats")
    train, validation = points(curve)
    assert [told[1:] for told in train] == [["1", "3"], ["2", "2"], ["3", "1"]] and validation[0][1:] == ["3", "2"]
    line = parsed(curve).find("svg/polyline").get("points").split()
    (x1, y1), (x2, y2), (x3, y3) = (map(float, place.split(",")) for place in line)
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.11) and y3 > y2 > y1  # a lower loss is further down
    assert [told[0] for told in train] == [x1, x2, x3] and train[2][0] == validation[0][0]
    assert "step 3" in "".join(parsed(curve).itertext()) and loss_curve([{"step": 1, "lr": 1.0}], "nats") is None


def test_the_mean_is_over_a_twentieth_of_the_steps():
    _, mean = points(loss_curve([{"step": i, "loss": float(i % 2)} for i in range(1, 41)], "nats"))
    assert [told[1:] for told in mean] == [[str(i), "0.5"] for i in range(2, 41)]
    assert len(points(loss_curve([{"step": 1, "loss": 1.0}], "nats"))) == 1  # a single step is a curve as well


@pytest.mark.parametrize("count", [MOST_POINTS, MOST_POINTS + 1, 10 * MOST_POINTS + 7])
def test_a_long_run_is_thinned_evenly_and_keeps_its_end(count):
    train, *_ = points(loss_curve([{"step": i, "loss": 1.0 + i} for i in range(1, count + 1)], "nats"))
    steps = [int(told[1]) for told in train]
    assert steps[-1] == count and MOST_POINTS / 2 <= len(steps) <= MOST_POINTS
    assert len({after - before for before, after in pairwise(steps)}) == 1


@pytest.mark.parametrize(("lower_is_better", "side"), [(True, 1), (False, -1)])
def test_right_of_the_line_is_better(lower_is_better, side):
    strip = parsed(interval_strip(CHANGE, lower_is_better=lower_is_better, color="better"))
    middle, interval = (float(line.get("x1")) for line in strip.iter("line"))
    x1, x2 = (float(strip.findall("line")[1].get(key)) for key in ("x1", "x2"))
    dot = float(strip.find("circle").get("cx"))
    assert interval == x1 <= dot <= x2 and (dot - middle) * side == pytest.approx(27.5, abs=0.1)
    assert sorted((abs(x1 - middle), abs(x2 - middle))) == pytest.approx([13.75, 55], abs=0.1)  # of 0.25 and 1
    assert interval_strip({"value": 0.0, "interval": [0.0, 0.0]}, lower_is_better=True, color="muted")


def test_dots_stand_at_their_values_and_tell_them():
    picture = parsed(dots("rates", {"<b>": [Dot("before", "before", 0.25, [0.0, 0.5]), Dot("after", "after", 0.5)]}))
    assert [title.text for title in picture.iter("title")] == ["<b>, before 0.25 [0, 0.5]", "<b>, after 0.5"]
    ticks = {text.text: float(text.get("x")) for text in picture.iter("text")}
    before, after = (float(dot.get("cx")) for dot in picture.iter("circle"))
    assert ticks["0"] < before < after and after == pytest.approx(2 * before - ticks["0"], abs=0.2)
    assert re.sub(r"\s+", " ", "".join(picture.find("p").itertext())) == "before after"


def test_what_is_told_apart_is_filled_in_a_picture_of_its_own():
    told_apart = {**CHANGE, "interval": [-1.0, -0.25], "distinguishable": True}
    picture = ET.fromstring(interval_picture({"lora": {"style": CHANGE}, "a<b": {"style": told_apart}}))
    hollow, filled = (dot.get("style") for dot in picture.iter("{http://www.w3.org/2000/svg}circle"))
    assert "fill: var(--paper)" in hollow and "fill: var(--after)" in filled
    assert {"lora", "a<b", "change of style, 95 % interval"} <= set(picture.itertext())
    assert "prefers-color-scheme: dark" in "".join(picture.itertext())
