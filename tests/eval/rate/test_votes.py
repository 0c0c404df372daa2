from __future__ import annotations

import json

import pytest

from common.console import UserError
from eval.rate.preference import summarise
from eval.rate.votes import Session, Votes, items_of


def vote_for(session, side):
    """Vote once for "A", "B" or "tie", as somebody would who knew which is which."""
    shown = session.state()["item"]
    left = session.left(session.items[shown["key"]])
    session.vote(shown["key"], shown["question"], "tie" if side == "tie" else "left" if side == left else "right")


def test_tasks_answered_alike_are_left_out_and_counted(items, result):
    assert len(items) == 8 and items_of(result("before"), result("after"), {})[1] == 1
    assert items[0].prompt == "Do 0.\n\ndef f():\n" and items_of(result("a"), result("b"), {})[0][1].prompt == "t1"
    with pytest.raises(UserError, match="nothing to rate"):
        items_of(result("before"), result("before"), {})


def test_sides_and_order_are_drawn_for_each_rater_and_the_page_is_not_told(items, votes):
    sessions = [Session(items, votes, rater=rater) for rater in ("ann", "bob")]
    sides = [[session.left(item) for item in items] for session in sessions]
    assert sides[0] != sides[1] and set(sides[0]) == {"A", "B"}
    assert [i.id for i in sessions[0].items] != [i.id for i in sessions[1].items]
    assert set(sessions[0].state()["item"]) == {"key", "question", "asked", "prompt", "left", "right"}
    texts = [[text for _, text in sessions[0].state()["item"][part]] for part in ("left", "right")]
    assert {"".join(text) for text in texts} == {sessions[0].items[0].a, sessions[0].items[0].b}
    assert Session(items, votes, rater="ann").state() == sessions[0].state()


def test_every_vote_is_on_disk_at_once_and_the_rater_resumes(items, votes, header):
    session = Session(items, votes, rater="ann")
    for side in ("A", "B", "tie", "B"):
        vote_for(session, side)
        assert json.loads(votes.path.read_text().splitlines()[-1])["choice"] == side
    again = Session(items, Votes.open(votes.path, header), rater="ann")
    assert again.state() == session.state() and again.state()["done"] == 4
    assert Session(items, votes, rater="bob").state()["done"] == 0


def test_a_vote_taken_back_is_asked_again(items, votes):
    session = Session(items, votes, rater="ann")
    first = session.state()
    vote_for(session, "A")
    vote_for(session, "A")
    session.undo()
    session.undo()
    assert session.state() == first
    session.undo()  # nothing left to take back
    vote_for(session, "B")
    assert summarise(list(votes.rows.values()))["clarity"]["votes"] == {"A": 0, "B": 1, "tie": 0}


def test_half_a_line_is_dropped_and_votes_on_other_answers_are_refused(items, votes, header):
    vote_for(Session(items, votes, rater="ann"), "A")
    with votes.path.open("a") as file:
        file.write('{"id": "t1", "ra')
    assert len(Votes.open(votes.path, header).rows) == 1
    with pytest.raises(UserError, match="other answers"):
        Votes.open(votes.path, {"votes_on": {}})
