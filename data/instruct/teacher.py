"""A language model on a server that answers tasks: any server with OpenAI's chat completions.

    teacher = Teacher("http://localhost:8000", "NAME", cache="teacher.sqlite")
    replies = teacher.ask([[{"role": "user", "content": "…"}]], samples=4)        # vLLM, Ollama, llama.cpp, …

What was answered once is never asked again: each reply is kept on the disk under the hash of its request, so a run
that was stopped goes on where it was. The key comes from the environment (KEY_VARIABLES) and goes into one header,
nowhere else.
"""

from __future__ import annotations

import email.utils
import hashlib
import http.client
import json
import os
import random
import re
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from socket import SHUT_RDWR, gaierror
from urllib.parse import SplitResult, urlsplit

from common.console import UserError, progress
from common.files import parse_json
from data.checks.thoughts import split_thoughts
from data.instruct.replies import Reply, ReplyCache

KEY_VARIABLES = ("TRITUNE_TEACHER_KEY", "OPENAI_API_KEY")
AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})  # statuses that another try may not meet
ONE_REQUEST = frozenset({400, 413, 422})  # refused for what this request says: the others may still be answered
LARGEST = 16 * 2**20  # bytes of an answer
SECRET = 8  # characters of a key from which on it is hidden: a local server's "x" or "EMPTY" is a word like others
CHARACTERS = 4  # of a token, where a server does not count


@dataclass(frozen=True)
class Limits:
    """How long to wait, in seconds, how often to try, and how much to spend (None: no end)."""

    tries: int = 6  # of one request
    connect_seconds: float = 10.0
    answer_seconds: float = 300.0  # from the request to its whole answer
    first_wait: float = 1.0  # before the second try; doubled from try to try
    longest_wait: float = 60.0
    most_requests: int | None = None  # sent, repeated ones included
    most_tokens: int | None = None  # in and out, of all answers, as the server counts them


@dataclass
class Spent:
    """What this run has used."""

    requests: int = 0
    cached: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    failed: int = 0  # requests given up
    missing: int = 0  # requests that the budget left unasked


class _TryAgain(Exception):
    """What went wrong this time; `wait` is what the server asked for, in seconds."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait


class _Refused(Exception):
    """The server does not take this one request."""


class Teacher:
    """A server, a model on it, and what was asked so far. Used from one thread; it asks with several."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        cache: Path | str,
        limits: Limits = Limits(),
        concurrency: int = 8,
        temperature: float = 0.8,
        max_tokens: int = 1024,
    ) -> None:
        """url: of the server, with or without /v1. UserError for one that is not http(s) or that carries a secret."""
        self.model, self.limits, self.spent = model, limits, Spent()
        self._url, self._path = _endpoint(url)
        self._key = _key()
        self._settings = {"temperature": temperature, "max_tokens": max_tokens}
        self._concurrency = concurrency
        self._cache = ReplyCache(cache)
        self._lock = threading.Condition()  # told of when a request has ended
        self._stop = threading.Event()
        self._sockets: set = set()  # of requests under way
        self._heard = False  # the server has answered something, be it an error
        self._open_until = 0.0  # a server that asked all of us to wait is left alone until then
        self._reserved = 0  # tokens that requests under way may still use
        self._lost_in_a_row = 0
        self._why = ""  # the last request was given up

    def ask(self, conversations: list[list[dict]], *, samples: int) -> list[list[Reply | None]]:
        """`samples` replies to each conversation; None for what failed or what the budget left unasked.

        Raises UserError when the server refuses us (401, 403, 404) or is lost: three requests in a row without an
        answer after all their tries, or refused before it has answered anything.
        """
        wanted = [(self._body(messages), number) for messages in conversations for number in range(samples)]
        self._stop.clear()
        with ThreadPoolExecutor(self._concurrency) as pool:
            futures = [pool.submit(self._reply, body, number) for body, number in wanted]
            try:
                done = as_completed(futures)  # an error ends the run at once, not when its turn comes
                for future in progress(done, total=len(futures), what="asking the teacher", unit="reply"):
                    future.result()
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                with self._lock:
                    for socket in self._sockets:  # nobody waits for what is no longer wanted
                        _shut(socket)
                    self._lock.notify_all()
                raise
        replies = [future.result() for future in futures]
        return [replies[first : first + samples] for first in range(0, len(replies), samples)]

    def summary(self, prices: tuple[float, float] | None = None) -> str:
        """One line: requests, tokens, and what they cost at `prices` a million tokens in and out."""
        spent = self.spent
        parts = [
            f"{spent.requests} requests to {self.model}, {spent.cached} replies kept from before",
            f"{spent.tokens_in:,} tokens in, {spent.tokens_out:,} out",
        ]
        if prices:
            cost = (spent.tokens_in * prices[0] + spent.tokens_out * prices[1]) / 1e6
            parts.append(f"{cost:.4f} at {prices[0]:g} and {prices[1]:g} a million")
        parts += [f"{spent.failed} failed, the last by {self._why}"] if spent.failed else []
        parts += [f"{spent.missing} left unasked: the budget is spent"] if spent.missing else []
        return " · ".join(parts)

    def _body(self, messages: list[dict]) -> dict:
        return {"model": self.model, "messages": messages, **self._settings, "stream": False}

    def _reply(self, body: dict, number: int) -> Reply | None:
        """From the cache or from the server. `number` tells equal requests apart; the server does not see it."""
        address = json.dumps([self._url.scheme, self._url.netloc, self._path, body, number], sort_keys=True)
        key = hashlib.sha256(address.encode()).hexdigest()
        kept = self._cache.get(key)
        if kept is not None:
            with self._lock:
                self.spent.cached += 1
            return kept
        try:
            reply = self._tried(json.dumps(body).encode())
        except UserError:
            self._stop.set()  # here: this thread may take the next request before the one that waits has heard of it
            raise
        if reply is not None:
            self._cache.put(key, reply)
        return reply

    def _tried(self, body: bytes) -> Reply | None:
        for attempt in range(self.limits.tries):
            most = len(body) + self._settings["max_tokens"]  # a token in is a byte at least
            if not self._may_spend(most):
                return None
            reply, problem = None, None
            try:
                reply = self._sent(body)
            except _TryAgain as error:
                problem = error
            except _Refused as error:
                return self._given_up(str(error), is_lost=False)
            finally:
                self._settle(most, reply)
            if reply is not None:
                return reply
            if attempt + 1 < self.limits.tries:
                self._wait(attempt, problem.wait)
        return self._given_up(str(problem), is_lost=True)

    def _may_spend(self, tokens: int) -> bool:
        """Count a request in, with what it may use at most; False when that would break the budget, or on a stop.

        Where only requests under way might break it, wait for what they really use.
        """
        limits, spent = self.limits, self.spent
        with self._lock:
            while not self._stop.is_set():
                left = float("inf") if limits.most_tokens is None else limits.most_tokens
                left -= spent.tokens_in + spent.tokens_out
                if tokens > left or (limits.most_requests is not None and spent.requests >= limits.most_requests):
                    spent.missing += 1
                    return False
                if tokens <= left - self._reserved:
                    spent.requests += 1
                    self._reserved += tokens
                    return True
                self._lock.wait()
        return False

    def _settle(self, reserved: int, reply: Reply | None) -> None:
        with self._lock:
            self._reserved -= reserved
            if reply is not None:
                self.spent.tokens_in += reply.tokens_in
                self.spent.tokens_out += reply.tokens_out
                self._lost_in_a_row = 0
            self._lock.notify_all()

    def _wait(self, attempt: int, asked: float | None) -> None:
        """Exponential back-off with full jitter; at least what the server asked for, then for all requests alike."""
        longest = min(self.limits.longest_wait, self.limits.first_wait * 2**attempt)
        seconds = random.uniform(0, longest)  # no seed: that two clients do not meet again is what it is for
        if asked is not None:
            with self._lock:
                self._open_until = max(self._open_until, time.monotonic() + asked)
            seconds += asked
        self._stop.wait(seconds)

    def _given_up(self, why: str, *, is_lost: bool) -> None:
        with self._lock:
            self.spent.failed += 1
            self._why = why
            self._lost_in_a_row += is_lost or not self.spent.tokens_out
            if self._lost_in_a_row >= 3:
                raise UserError(
                    f"--teacher {self._url.netloc}: no answer to three requests in a row ({why}). "
                    "What it answered is kept: start again to go on"
                )

    def _sent(self, body: bytes) -> Reply:
        """One request. Raises _TryAgain, _Refused or UserError."""
        left = self._open_until - time.monotonic()
        if left > 0:
            self._stop.wait(left)
        status, headers, data = self._exchange(body)
        if status == 200:
            return _read_reply(data, sent=len(body))
        said = " ".join(data.decode("utf-8", "replace").split())[:200]
        if status in AGAIN:
            asked = _retry_after(headers.get("Retry-After"))
            if asked is not None and asked > 10 * self.limits.longest_wait:
                raise UserError(f"--teacher {self._url.netloc}: asks to wait {asked:.0f} s ({said}). Start again then")
            raise _TryAgain(f"status {status}: {said}", asked)
        if status in ONE_REQUEST:
            raise _Refused(f"status {status}: {said}")
        hint = f". Set {KEY_VARIABLES[0]} to a key that it takes" if status in (401, 403) else ""
        raise UserError(f"--teacher {self._url.netloc}{self._path}: status {status}: {said}{hint}")

    def _exchange(self, body: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and whole body of an answer; _TryAgain when it does not come, or not in time."""
        host, port = self._url.hostname, self._url.port
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        connection = kind(host, port, timeout=self.limits.connect_seconds)
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        late = threading.Event()
        try:
            connection.connect()
            with self._whole_time(connection.sock, late):
                connection.request("POST", self._path, body, headers)
                response = connection.getresponse()
                self._heard = True
                data = response.read(LARGEST + 1)  # of a connection that was cut it is half, which is no JSON
        except ssl.SSLCertVerificationError as error:
            raise UserError(f"--teacher {self._url.netloc}: its certificate is not valid ({error.reason})") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not self._heard and isinstance(error, ConnectionRefusedError | gaierror):
                raise UserError(f"--teacher {self._url.netloc}: no server there ({error.strerror})") from None
            what = f"nothing whole within {self.limits.answer_seconds:g} s" if late.is_set() else type(error).__name__
            raise _TryAgain(what) from None
        finally:
            connection.close()
        if late.is_set() or len(data) > LARGEST:
            raise _TryAgain("an answer that does not end")
        if self._key and len(self._key) >= SECRET:  # should it repeat it, in an error or in an answer
            data = data.replace(self._key.encode(), b"(key)")
        return response.status, response.headers, data

    @contextmanager
    def _whole_time(self, socket, late: threading.Event) -> Iterator[None]:
        """Cut the connection, and set `late`, when what is done inside takes longer than a whole answer may.

        A time-out of each read would let a server drip a byte at a time for ever.
        """
        socket.settimeout(self.limits.answer_seconds)

        def cut() -> None:
            late.set()
            _shut(socket)

        watch = threading.Timer(self.limits.answer_seconds, cut)
        watch.daemon = True
        with self._lock:
            self._sockets.add(socket)
        if self._stop.is_set():  # between asking whether to go on and here
            _shut(socket)
        watch.start()
        try:
            yield
        finally:
            watch.cancel()
            with self._lock:
                self._sockets.discard(socket)


def _endpoint(url: str) -> tuple[SplitResult, str]:
    """The parsed URL and the path of the chat completions on it."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  raises for one that is no number
    except ValueError:  # its words would repeat what may be a key
        raise UserError("--teacher: not a URL; give one like http://localhost:8000") from None
    if parts.username or parts.password or parts.query:
        raise UserError(f"--teacher: no name, key or query belongs into the URL; set {KEY_VARIABLES[0]} instead")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"--teacher {url}: give a URL like http://localhost:8000 or https://host/v1")
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions" if re.search(r"/v\d\w*$", path) else "/v1/chat/completions"
    return parts, path


def _key() -> str | None:
    name = next((name for name in KEY_VARIABLES if os.environ.get(name, "").strip()), None)
    key = os.environ[name].strip() if name else None
    if key and not (key.isascii() and key.isprintable()):
        raise UserError(f"{name} holds something that cannot be sent in a header; set it to the key alone")
    return key


def _read_reply(data: bytes, *, sent: int) -> Reply:
    """The reply in a chat completion's JSON. _TryAgain for anything else: half, garbage, another schema, nothing."""
    try:
        answer = parse_json(data.decode("utf-8"))
        choice = answer["choices"][0]
        text, reason = choice["message"]["content"], choice.get("finish_reason")
        usage = answer.get("usage") or {}
        counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _TryAgain(f"an answer that is no chat completion ({type(error).__name__})") from None
    text = split_thoughts(text)[1].encode("utf-8", "replace").decode() if isinstance(text, str) else ""
    if not text.strip():
        raise _TryAgain("an empty answer" + (", cut at the most tokens" if reason == "length" else ""))
    guessed = sent // CHARACTERS, len(text) // CHARACTERS + 1
    counts = [one if isinstance(one, int) and one >= 0 else guess for one, guess in zip(counts, guessed, strict=True)]
    return Reply(text, reason != "length", *counts)


def _retry_after(header: str | None) -> float | None:
    """Seconds, from the header's seconds or date (RFC 9110, 10.2.3)."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None


def _shut(socket) -> None:
    with suppress(OSError):  # it may have gone already
        socket.shutdown(SHUT_RDWR)
