from __future__ import annotations

import json
import sys
import threading
import urllib.error
import urllib.request

import pytest

from common.console import UserError
from eval.rate.__main__ import main
from eval.rate.server import serve
from eval.rate.votes import QUESTIONS, Session, Votes
from tests.browser import open_browser
from tests.commands import PATIENCE


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


def test_a_rater_votes_by_keyboard_in_a_browser(page, votes, header, tmp_path):
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
    kept = Votes.open(votes.path, header).rows
    left = session.left(session.items[0])
    mine = {question: kept[session.items[0].id, "ann", question]["choice"] for question in QUESTIONS}
    assert mine == {"clarity": left, "readability": "AB".replace(left, ""), "adherence": "tie"}


def test_the_command_says_what_the_votes_say(tmp_path, result, monkeypatch, capsys):
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps(result(name)))
    arguments = ["rate", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--out", str(tmp_path / "v.jsonl")]
    monkeypatch.setattr(sys, "argv", [*arguments, "--summary"])
    main()
    assert "no vote yet" in capsys.readouterr().out
    with (tmp_path / "v.jsonl").open("a") as file:
        vote = {"id": "0", "rater": "ann", "question": "clarity", "choice": "B", "left": "A"}
        file.write(json.dumps(vote) + "\n")
    main()
    assert "B 1" in capsys.readouterr().out


def test_one_result_is_rated_against_the_reference_answers_of_the_data(tmp_path, result, monkeypatch, capsys):
    (tmp_path / "a.json").write_text(json.dumps(result("a")))
    rows = [{"id": f"t{i}", "instruction": "Do it.", "input": "", "output": f"right {i}"} for i in range(3)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen = []
    monkeypatch.setattr("eval.rate.__main__.serve", lambda session, port: seen.append(session.items) or _interrupted())
    arguments = ["rate", str(tmp_path / "a.json"), "--data", str(tmp_path / "data.jsonl")]
    monkeypatch.setattr(sys, "argv", [*arguments, "--out", str(tmp_path / "v.jsonl")])
    main()
    items = sorted(seen[0], key=lambda item: item.id)
    assert [(item.id, item.prompt, item.b) for item in items] == [(f"t{i}", "Do it.", f"right {i}") for i in range(3)]
    assert "no vote yet" in capsys.readouterr().out
    assert json.loads((tmp_path / "v.jsonl").read_text())["votes_on"].keys() == {"a_sha256", "b_sha256"}


def _interrupted():
    """A server that Ctrl-C stops at once, and its address."""

    class Server:
        def serve_forever(self):
            raise KeyboardInterrupt

        def server_close(self):
            pass

    return Server(), "http://127.0.0.1:1/"


def test_one_result_without_reference_answers_is_refused(tmp_path, result, monkeypatch):
    (tmp_path / "a.json").write_text(json.dumps(result("a")))
    monkeypatch.setattr(sys, "argv", ["rate", str(tmp_path / "a.json"), "--out", str(tmp_path / "v.jsonl")])
    with pytest.raises(UserError, match="no reference answers"):
        main()
