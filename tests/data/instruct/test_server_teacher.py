"""The client against a server of our own that fails in every way."""

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from common.console import UserError
from data.instruct.completions import KEY_VARIABLES, parse_endpoint, retry_after
from data.instruct.replies import Reply, ReplyCache
from data.instruct.server_teacher import Limits, ServerTeacher
from tests.commands import PATIENCE, ROOT

FAST = {"first_wait": 0.01, "longest_wait": 0.02, "answer_seconds": 5.0}
KEY = "sk-very-secret"


def completion(text="an answer", **fields):
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "usage": usage} | fields).encode()


def whole(handler, status, body, **headers):
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def good(handler):
    whole(handler, 200, completion())


def says(status, body=b"no", **headers):
    return lambda handler: whole(handler, status, body, **headers)


def half(handler):
    """The connection is cut in the middle of the body."""
    body = completion()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[:40])


def half_without_length(handler):
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(completion()[:40])


def nothing(handler):
    handler.connection.close()


DRIPPED = []  # who has listened to the end


def drip(handler):
    """A byte now and then: no single read is ever late."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    drip_from_the_start(handler)


def drip_from_the_start(handler):
    for _ in range(1000):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)
    DRIPPED.append(handler)


@contextmanager
def server(*behaviours):
    """A server that behaves as told, request by request, the last way for ever. Yields (URL, what it was asked)."""
    asked, lock = [], threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.asked = body
            with lock:
                number = len(asked)
                asked.append({"path": self.path, "body": body, "key": self.headers.get("Authorization")})
            with suppress(OSError, ValueError):  # the client has gone
                behaviours[min(number, len(behaviours) - 1)](self)

        def log_message(self, *_):
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}", asked
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    for name in KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def teacher(url, folder, *, concurrency=1, prices=None, **limits):
    limits = Limits(**FAST | limits)
    return ServerTeacher(url, "m", cache=folder / "cache.sqlite", limits=limits, concurrency=concurrency, prices=prices)


def tasks(count):
    return [[{"role": "user", "content": f"task {number}"}] for number in range(count)]


def test_the_request_is_a_chat_completion_and_the_key_goes_into_one_header(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLES[1], KEY)
    with server(good) as (url, asked):
        [[reply]] = teacher(url, tmp_path).ask(tasks(1), samples=1)
    assert (reply.text, reply.stopped, reply.tokens_in, reply.tokens_out) == ("an answer", True, 10, 5)
    assert asked[0]["path"] == "/v1/chat/completions" and asked[0]["key"] == f"Bearer {KEY}"
    body = asked[0]["body"]
    assert body["model"] == "m" and body["messages"] == tasks(1)[0] and body["stream"] is False
    assert set(body) == {"model", "messages", "temperature", "max_tokens", "stream"}  # what every such server takes
    assert KEY.encode() not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


@pytest.mark.parametrize(
    "failure",
    [
        says(429),
        says(429, Retry_After="0"),
        says(500),
        says(503),
        half,
        half_without_length,
        nothing,
        says(200, b"<html>garbage"),
        says(200, b'{"choices": []}'),
        says(200, b'{"choices": [{"message": {"content": null}}]}'),
        says(200, b'{"choices": [{"text": "old api"}]}'),
        says(200, b'{"error": {"message": "overloaded"}}'),
        says(200, b"[1, 2]"),
        says(200, completion("  ")),
    ],
)
def test_what_may_pass_is_tried_again(tmp_path, failure):
    with server(failure, failure, good) as (url, asked):
        asking = teacher(url, tmp_path)
        [[reply]] = asking.ask(tasks(1), samples=1)
    assert reply.text == "an answer" and len(asked) == 3
    assert asking.spent.requests == 3 and asking.spent.failed == 0 and asking.spent.tokens_in == 10


def test_a_server_that_asks_to_wait_is_left_alone_so_long(tmp_path):
    with server(says(429, Retry_After="0.3"), good) as (url, _):
        began = time.monotonic()
        teacher(url, tmp_path, longest_wait=0.05).ask(tasks(1), samples=1)
        assert time.monotonic() - began >= 0.3


def test_a_wait_without_sense_ends_the_run_in_one_line(tmp_path):
    with server(says(429, b"quota used up", Retry_After="86400")) as (url, asked):
        with pytest.raises(UserError, match="asks to wait 86400 s"):
            teacher(url, tmp_path).ask(tasks(1), samples=1)
        assert len(asked) == 1


def test_a_wait_is_read_as_seconds_or_as_a_date():
    assert retry_after("2.5") == 2.5 and retry_after(None) is None and retry_after("soon") is None
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after("Wed, 21 Oct 2499 07:28:00 GMT") > 1e9


def test_waits_grow_and_are_drawn_anew(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("data.instruct.server_teacher.random.uniform", lambda low, high: drawn.append(high) or 0.0)
    with server(says(500)) as (url, _):
        assert teacher(url, tmp_path, tries=6, first_wait=1.0, longest_wait=4.0).ask(tasks(1), samples=1) == [[None]]
    assert drawn == [1.0, 2.0, 4.0, 4.0, 4.0]


@pytest.mark.parametrize("dripping", [drip, drip_from_the_start])
def test_a_slow_drip_is_cut_when_the_whole_answer_is_late(tmp_path, dripping):
    with server(dripping, good) as (url, asked):
        [[reply]] = teacher(url, tmp_path, answer_seconds=0.3).ask(tasks(1), samples=1)
        assert reply.text == "an answer" and len(asked) == 2 and DRIPPED == []


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_of_us_is_one_line_without_the_key_and_not_repeated(tmp_path, monkeypatch, status):
    monkeypatch.setenv(KEY_VARIABLES[0], KEY)
    # the thread that waits for replies hears of the refusal late, as it may on a busy machine
    monkeypatch.setattr("data.instruct.server_teacher.as_completed", lambda futures: wait(futures).done)
    with server(says(status, f"bad key {KEY}\nsecond line".encode())) as (url, asked):
        with pytest.raises(UserError) as raised:
            teacher(url, tmp_path).ask(tasks(5), samples=2)
        assert len(asked) == 1
    message = str(raised.value)
    assert f"status {status}" in message and KEY not in message and "\n" not in message
    assert (KEY_VARIABLES[0] in message) == (status != 404)


@pytest.mark.parametrize("before", range(150, 210, 7))
def test_a_key_is_hidden_wherever_the_server_repeats_it(tmp_path, monkeypatch, before):
    monkeypatch.setenv(KEY_VARIABLES[0], KEY)
    said = b"x" * before + KEY.encode()  # where the words are cut off, too
    with server(says(404, said)) as (url, _), pytest.raises(UserError) as raised:
        teacher(url, tmp_path).ask(tasks(1), samples=1)
    assert KEY[:4] not in str(raised.value)


def test_a_key_in_an_answer_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLES[0], KEY)
    with server(says(200, completion(f"your key is {KEY}"))) as (url, _):
        [[reply]] = teacher(url, tmp_path).ask(tasks(1), samples=1)
    assert reply.text == "your key is (key)"
    assert KEY.encode() not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


def test_what_local_servers_take_for_a_key_is_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLES[0], "x")
    with server(says(200, completion("an exact index"))) as (url, _):
        [[reply]] = teacher(url, tmp_path).ask(tasks(1), samples=1)
    assert reply.text == "an exact index"


def test_a_server_that_refuses_every_request_says_why(tmp_path):
    with server(says(400, b"max_tokens is not supported")) as (url, asked):
        with pytest.raises(UserError, match="status 400: max_tokens is not supported"):
            teacher(url, tmp_path).ask(tasks(9), samples=1)
        assert len(asked) == 3 and not list(tmp_path.iterdir())


def test_an_error_ends_the_run_though_an_earlier_request_is_still_waiting(tmp_path):
    over = threading.Event()
    with server(lambda handler: over.wait(PATIENCE), says(401)) as (url, asked):
        with pytest.raises(UserError, match="status 401"):
            teacher(url, tmp_path, concurrency=2).ask(tasks(50), samples=1)
        assert len(asked) < 6
        over.set()


def test_a_refusal_of_one_request_leaves_the_others(tmp_path):
    with server(says(400, b"context too long"), good) as (url, asked):
        asking = teacher(url, tmp_path)
        (first,), (second,) = asking.ask(tasks(2), samples=1)
    assert first is None and second.text == "an answer" and len(asked) == 2
    assert asking.spent.failed == 1 and "1 failed, the last by status 400: context too long" in asking.summary()


def test_a_lost_server_ends_the_run_and_what_it_said_is_kept(tmp_path):
    with server(good, good, says(500)) as (url, asked):
        with pytest.raises(UserError, match=r"no answer to three requests in a row \(status 500: no\)"):
            teacher(url, tmp_path, tries=2).ask(tasks(9), samples=1)
        assert len(asked) == 2 + 3 * 2
        before = len(asked)
        with pytest.raises(UserError):
            teacher(url, tmp_path, tries=2).ask(tasks(9), samples=1)
        assert len(asked) == before + 3 * 2  # not the two that were answered


def test_failures_with_answers_between_them_do_not_end_the_run(tmp_path):
    failure = says(500)
    with server(failure, failure, good, failure, failure, good) as (url, _):
        replies = teacher(url, tmp_path, tries=1).ask(tasks(6), samples=1)
    assert [reply is not None for (reply,) in replies] == [False, False, True] * 2


def test_a_server_that_is_not_there_is_said_at_once(tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr("data.instruct.server_teacher.random.uniform", lambda low, high: waits.append(high) or 0.0)
    with server(good) as (url, _):
        pass
    with pytest.raises(UserError, match="no server there"):
        teacher(url, tmp_path, first_wait=5.0).ask(tasks(1), samples=1)
    assert waits == []


def test_nothing_is_asked_twice_and_samples_are_told_apart(tmp_path):
    def numbered(handler):
        whole(handler, 200, completion(f"answer {len(asked)}"))

    with server(numbered) as (url, asked):
        first = teacher(url, tmp_path).ask(tasks(2), samples=3)
        assert len(asked) == 6 and len({reply.text for replies in first for reply in replies}) == 6
        again = teacher(url, tmp_path)
        assert again.ask(tasks(2), samples=3) == first and len(asked) == 6
        assert again.spent.cached == 6 and again.spent.requests == 0 and again.spent.tokens_in == 0
        ServerTeacher(url, "other", cache=tmp_path / "cache.sqlite").ask(tasks(1), samples=1)
        assert len(asked) == 7


def test_replies_keep_their_order_with_many_at_once(tmp_path):
    def echo(handler):
        text = handler.asked["messages"][0]["content"]
        time.sleep(0.03 if text.endswith("0") else 0)
        whole(handler, 200, completion(text))

    with server(echo) as (url, _):
        replies = teacher(url, tmp_path, concurrency=8).ask(tasks(24), samples=1)
    assert [reply.text for (reply,) in replies] == [f"task {number}" for number in range(24)]


@pytest.mark.parametrize(("limit", "sent"), [({"most_requests": 3}, 3), ({"most_tokens": 4000}, 3)])
def test_a_spent_budget_stops_cleanly_and_says_what_is_missing(tmp_path, limit, sent):
    def dear(handler):
        whole(handler, 200, completion(usage={"prompt_tokens": 500, "completion_tokens": 500}))

    with server(dear) as (url, asked):
        asking = teacher(url, tmp_path, **limit)
        replies = asking.ask(tasks(5), samples=1)
        assert len(asked) == sent == sum(reply is not None for (reply,) in replies)
        assert asking.spent.missing == 5 - sent and f"{5 - sent} not asked" in asking.summary()
        assert asking.spent.tokens_in + asking.spent.tokens_out <= 4000
        rest = teacher(url, tmp_path)
        assert all(reply for (reply,) in rest.ask(tasks(5), samples=1)) and len(asked) == 5


@pytest.mark.parametrize(("limit", "sent"), [({"most_requests": 7}, 7), ({"most_tokens": 5000}, 4)])
def test_requests_at_once_neither_pass_a_budget_nor_leave_it_unused(tmp_path, limit, sent):
    def dear(handler):
        time.sleep(0.02)
        whole(handler, 200, completion(usage={"prompt_tokens": 100, "completion_tokens": 900}))

    with server(dear) as (url, asked):
        asking = teacher(url, tmp_path, concurrency=8, **limit)
        replies = asking.ask(tasks(40), samples=1)
    assert len(asked) == sent == sum(reply is not None for (reply,) in replies)
    assert asking.spent.missing == 40 - sent


def test_the_budget_holds_even_if_every_answer_is_as_long_as_it_may_be(tmp_path):
    def dearest(handler):
        usage = {"prompt_tokens": len(json.dumps(handler.asked)), "completion_tokens": handler.asked["max_tokens"]}
        whole(handler, 200, completion(usage=usage))

    with server(dearest) as (url, asked):
        asking = teacher(url, tmp_path, concurrency=8, most_tokens=9000)
        asking.ask(tasks(40), samples=1)
    assert len(asked) > 5 and asking.spent.tokens_in + asking.spent.tokens_out <= 9000


def test_cost_is_shown_from_the_tokens_that_the_server_counted(tmp_path):
    with server(good) as (url, _):
        asking = teacher(url, tmp_path, prices=(2.5, 5.0))
        asking.ask(tasks(2), samples=1)
    assert "20 tokens in, 10 out" in asking.summary()
    assert "0.0001 at 2.5 and 5 per million" in asking.summary()


def test_an_answer_cut_at_its_length_says_so_and_tokens_are_guessed_where_none_are_counted(tmp_path):
    cut = json.dumps({"choices": [{"message": {"content": "x" * 40}, "finish_reason": "length"}]}).encode()
    with server(says(200, cut)) as (url, _):
        [[reply]] = teacher(url, tmp_path).ask(tasks(1), samples=1)
    assert reply.stopped is False and reply.tokens_out == 11 and reply.tokens_in > 10


def test_a_cache_that_is_none_is_named(tmp_path):
    (tmp_path / "cache.sqlite").write_text("not a database, but some text that stands in its place")
    with pytest.raises(UserError, match="teacher's cache"):
        teacher("http://127.0.0.1:1", tmp_path)


PUT = """
import sys
from data.instruct.replies import Reply, ReplyCache
cache = ReplyCache(sys.argv[1])
for number in range(10**6):
    cache.put({str(number): Reply("x" * 5000, True, number, 1)})
    print(number, flush=True)
"""


def test_a_kill_at_any_moment_leaves_all_that_was_kept(tmp_path):
    path = tmp_path / "cache.sqlite"
    for kills in (3, 40):
        with subprocess.Popen([sys.executable, "-c", PUT, path], cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
            last = [int(writer.stdout.readline()) for _ in range(kills)][-1]
            writer.kill()
        cache = ReplyCache(path)
        assert all(cache.get(str(number)).tokens_in == number for number in range(last + 1))
        cache.put({"more": Reply("x", True, 1, 1)})
        assert cache.get("more") and cache.get("none") is None


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not usable as the teacher's cache"):
        ReplyCache(tmp_path / "file" / "cache.sqlite").put({"a": Reply("x", True, 1, 1)})


def test_thoughts_are_no_answer_and_neither_are_halves_of_characters(tmp_path):
    answers = ["<think>\nhm, </b>\n</think>\n\nyes", "a</think>b<think>hm</think> no", "half \ud83d", "a <think> b"]
    with server(*(says(200, completion(answer)) for answer in answers)) as (url, _):
        replies = teacher(url, tmp_path).ask(tasks(4), samples=1)
    assert [reply.text for (reply,) in replies] == ["yes", "no", "half ?", "a <think> b"]
    nothing_said = json.dumps({"choices": [{"message": {"content": None}, "finish_reason": "length"}]}).encode()
    with server(says(200, nothing_said)) as (url, _), pytest.raises(UserError, match="cut off at --teacher-max-tokens"):
        teacher(url, tmp_path, tries=1).ask(tasks(3), samples=1)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://h:1", "/v1/chat/completions"),
        ("http://h:1/", "/v1/chat/completions"),
        ("https://h/v1", "/v1/chat/completions"),
        ("https://h/api/v1/", "/api/v1/chat/completions"),
        ("https://h/v1beta", "/v1beta/chat/completions"),
        ("https://h/vllm", "/vllm/v1/chat/completions"),
        ("https://h/openai/chat/completions", "/openai/chat/completions"),
    ],
)
def test_urls_are_taken_as_people_give_them(url, path):
    assert parse_endpoint(url)[1] == path


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://h",
        "http://",
        "http://h:x",
        f"http://me:{KEY}@h",
        f"http://me:{KEY}",
        f"http://h?key={KEY}",
    ],
)
def test_other_urls_are_refused_without_repeating_a_secret(url):
    with pytest.raises(UserError) as raised:
        parse_endpoint(url)
    assert KEY not in str(raised.value)


def test_a_key_that_is_no_header_is_refused_without_being_shown(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLES[0], f"{KEY}\nX-Other: 1")
    with pytest.raises(UserError) as raised:
        teacher("http://127.0.0.1:1", tmp_path)
    assert KEY_VARIABLES[0] in str(raised.value) and KEY not in str(raised.value)
