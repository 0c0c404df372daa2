import json
import sys
import threading
import urllib.error
import urllib.request

import pytest

from common.console import UserError
from eval.rate import QUESTIONS, Session, Votes, items_of, krippendorff_alpha, main, serve, summarise, table
from tests.browser import open_browser
from tests.commands import PATIENCE

HEADER = {"votes_on": {"a_sha256": "1", "b_sha256": "2"}}


def result(name, count=8):
    rows = [{"id": f"t{i}", "sample": "greedy", "output": f"<b>{name}</b> on {i}"} for i in range(count)]
    return {"results": [*rows, {"id": "same", "sample": "greedy", "output": "x"}, {**rows[0], "sample": 0}]}


@pytest.fixture
def items():
    return items_of(result("before"), result("after"), {f"t{i}": f"Do {i}.\n\ndef f():\n" for i in range(8)})[0]


@pytest.fixture
def votes(tmp_path):
    return Votes.open(tmp_path / "votes.jsonl", HEADER)


def vote_for(session, side):
    """Vote once for "A", "B" or "tie", as somebody would who knew which is which."""
    shown = session.state()["item"]
    left = session.left(session.items[shown["key"]])
    session.vote(shown["key"], shown["question"], "tie" if side == "tie" else "left" if side == left else "right")


def test_tasks_answered_alike_are_left_out_and_counted(items):
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


def test_every_vote_is_on_disk_at_once_and_the_rater_goes_on_where_it_stopped(items, votes):
    session = Session(items, votes, rater="ann")
    for side in ("A", "B", "tie", "B"):
        vote_for(session, side)
        assert json.loads(votes.path.read_text().splitlines()[-1])["choice"] == side
    again = Session(items, Votes.open(votes.path, HEADER), rater="ann")
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


def test_half_a_line_is_dropped_and_votes_on_other_answers_are_refused(items, votes):
    vote_for(Session(items, votes, rater="ann"), "A")
    with votes.path.open("a") as file:
        file.write('{"id": "t1", "ra')
    assert len(Votes.open(votes.path, HEADER).rows) == 1
    with pytest.raises(UserError, match="other answers"):
        Votes.open(votes.path, {"votes_on": {}})


def rows_of(choices, question="clarity", rater="ann"):
    return [
        {"id": str(i), "rater": rater, "question": question, "choice": choice, "left": "A"}
        for i, choice in enumerate(choices)
    ]


def test_the_preference_has_an_interval_over_tasks_and_says_when_it_tells_nothing():
    clear = summarise(rows_of(["B"] * 18 + ["A", "tie"]))["clarity"]
    assert clear["preference"] == pytest.approx(18.5 / 20) and clear["n"] == 20 and clear["distinguishable"]
    assert clear["interval"][0] > 0.5 and clear["left"] == 1 / 19 and clear["agreement"] is None
    even = summarise(rows_of(["A", "B"] * 10))["clarity"]
    assert not even["distinguishable"] and even["interval"][0] < 0.5 < even["interval"][1]
    assert "not distinguishable" in table({"clarity": even}) and "B preferred" in table({"clarity": clear})
    assert not summarise(rows_of(["B"]))["clarity"]["distinguishable"]  # one task has no spread to judge by


def test_two_raters_are_one_task_and_their_agreement_is_told():
    both = summarise(rows_of(["A", "B", "B", "A"]) + rows_of(["A", "B", "B", "B"], rater="bob"))["clarity"]
    assert both["n"] == 4 and both["raters"] == 2 and both["agreement"] == 3 / 4
    assert both["preference"] == pytest.approx((0 + 1 + 1 + 0.5) / 4)


def test_alpha_is_krippendorffs_own_example():
    raters = ["123321412...", "1233224125.3", ".3332342251.", "1233244125 1.".replace(" ", "")]
    units = [[r[i] for r in raters if r[i] != "."] for i in range(12)]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha([["A", "A"], ["B", "B"]]) == 1
    assert krippendorff_alpha([["A"], ["B"]]) is None and krippendorff_alpha([["A", "A"]]) is None


@pytest.fixture
def page(items, votes):
    session = Session(items[:2], votes, rater="ann")
    server, address = serve(session)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield session, address
    server.shutdown()
    server.server_close()


def test_only_who_knows_the_address_is_answered_and_bad_votes_store_nothing(page, votes):
    session, address = page
    root = address.rsplit("/", 2)[0]
    for url, body, status in [
        (root + "/", None, 404), (root + "/state", None, 404), (root + "/wrong/vote", b"{}", 404),
        (address + "vote", b"{}", 400), (address + "vote", b"[", 400),
        (address + "vote", b'{"key": -1, "question": "clarity", "choice": "left"}', 400),
    ]:  # fmt: skip
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url, data=body, timeout=PATIENCE)
        assert refused.value.code == status
    assert votes.rows == {} and session.state()["done"] == 0


def test_a_rater_votes_by_keyboard_in_a_browser(page, votes, tmp_path):
    session, address = page
    with open_browser(tmp_path / "profile") as browser:
        browser("Page.navigate", url=address)
        browser.wait_for("document.getElementById('count')?.textContent === '0 of 6'")
        first = session.state()["item"]
        left = "".join(text for _, text in first["left"])
        assert browser.value("document.getElementById('left').textContent") == left  # as text, not as HTML
        assert browser.value("document.querySelector('#prompt .keyword').textContent") == "def"
        assert browser.value("document.querySelectorAll('pre b').length") == 0
        source = browser.value("document.documentElement.outerHTML")
        assert "votes_on" not in source and "a_sha256" not in source
        for done, key in enumerate(["1", "ArrowRight", "0", "Backspace", "ArrowDown", "2", "1", "ArrowLeft"]):
            browser.press(key)
            expected = [1, 2, 3, 2, 3, 4, 5, 6][done]
            browser.wait_for(f"document.getElementById('count').textContent === '{expected} of 6'")
            assert session.state()["done"] == expected
        assert browser.value("document.getElementById('asked').textContent").startswith("All votes are in")
        assert browser.errors == []
    kept = Votes.open(votes.path, HEADER).rows
    left = session.left(session.items[0])
    mine = {question: kept[session.items[0].id, "ann", question]["choice"] for question in QUESTIONS}
    assert mine == {"clarity": left, "readability": "AB".replace(left, ""), "adherence": "tie"}


def test_the_command_says_what_the_votes_say(tmp_path, monkeypatch, capsys):
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps(result(name)))
    arguments = ["rate", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--out", str(tmp_path / "v.jsonl")]
    monkeypatch.setattr(sys, "argv", [*arguments, "--summary"])
    main()
    assert "no vote yet" in capsys.readouterr().out
    with (tmp_path / "v.jsonl").open("a") as file:
        file.write(json.dumps(rows_of(["B"])[0]) + "\n")
    main()
    assert "B 1" in capsys.readouterr().out
