"""One request to a server with OpenAI's chat completions: its address, its key, its answer, and what may go wrong.

A request has a deadline for its whole answer, and an answer that is no chat completion (half, garbage, empty) counts as
a failure to retry. The key comes from the environment (KEY_VARIABLES), goes into one header and nowhere else.
"""

from __future__ import annotations

import email.utils
import http.client
import os
import re
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socket import SHUT_RDWR, gaierror
from urllib.parse import SplitResult, urlsplit

from common.console import UserError
from common.files import parse_json
from data.checks.thoughts import split_thoughts
from data.instruct.replies import Reply

KEY_VARIABLES = ("TRITUNE_TEACHER_KEY", "OPENAI_API_KEY")
TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})  # statuses that may not recur
ONE_REQUEST = frozenset({400, 413, 422})  # refused for what this request says: others may still be answered
LARGEST = 16 * 2**20  # bytes of an answer
SECRET = 8  # characters from which a key is masked: a local server's "x" or "EMPTY" is an ordinary word
CHARACTERS = 4  # per token, where a server does not count


class TryAgain(Exception):
    """A failure that may not recur; `wait` is how long the server asks to wait, in seconds."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait


class Refused(Exception):
    """The server rejects this one request."""


class ChatCompletions:
    """The chat completions of a server. Used from several threads."""

    def __init__(self, url: str, *, connect_seconds: float, answer_seconds: float) -> None:
        """url: of the server, with or without /v1. UserError for one that is not http(s) or that carries a secret."""
        self._url, self._path = parse_endpoint(url)
        self._key = _key()
        self._connect_seconds, self._answer_seconds = connect_seconds, answer_seconds
        self._lock = threading.Lock()
        self._sockets: set = set()  # of requests in flight
        self._is_cut = False
        self._has_answered = False  # anything at all, even an error

    @property
    def host(self) -> str:
        """Host and port, for messages."""
        return self._url.netloc

    @property
    def address(self) -> list[str]:
        """What identifies the server, to cache its replies by."""
        return [self._url.scheme, self._url.netloc, self._path]

    def cut(self) -> None:
        """End the requests in flight, and any begun before `open`."""
        with self._lock:
            self._is_cut = True
            for socket in self._sockets:
                _shut(socket)

    def open(self) -> None:
        """Take requests again after `cut`."""
        self._is_cut = False

    def send(self, body: bytes) -> Reply:
        """One request. Raises TryAgain, Refused, or UserError when the server refuses us or is not there."""
        status, headers, data = self._exchange(body)
        if status == 200:
            return read_reply(data, sent=len(body))
        said = " ".join(data.decode("utf-8", "replace").split())[:200]
        if status in TRANSIENT:
            raise TryAgain(f"status {status}: {said}", retry_after(headers.get("Retry-After")))
        if status in ONE_REQUEST:
            raise Refused(f"status {status}: {said}")
        hint = f". Set {KEY_VARIABLES[0]} to a key that the server accepts" if status in (401, 403) else ""
        raise UserError(f"teacher {self.host}{self._path}: status {status}: {said}{hint}")

    def _exchange(self, body: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and whole body of an answer; TryAgain when it does not come, or not in time."""
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._url.hostname, self._url.port, timeout=self._connect_seconds)
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        late = threading.Event()
        try:
            connection.connect()
            with self._deadline(connection.sock, late):
                connection.request("POST", self._path, body, headers)
                response = connection.getresponse()
                self._has_answered = True
                data = response.read(LARGEST + 1)  # of a broken connection it is half, which is no JSON
        except ssl.SSLCertVerificationError as error:
            raise UserError(f"teacher {self.host}: its certificate is not valid ({error.reason})") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not self._has_answered and isinstance(error, ConnectionRefusedError | gaierror):
                raise UserError(f"teacher {self.host}: no server there ({error.strerror})") from None
            what = f"no complete answer within {self._answer_seconds:g} s" if late.is_set() else type(error).__name__
            raise TryAgain(what) from None
        finally:
            connection.close()
        if late.is_set() or len(data) > LARGEST:
            raise TryAgain("an answer that does not end")
        if self._key and len(self._key) >= SECRET:  # the server may repeat it, in an error or in an answer
            data = data.replace(self._key.encode(), b"(key)")
        return response.status, response.headers, data

    @contextmanager
    def _deadline(self, socket, late: threading.Event) -> Iterator[None]:
        """Shut the connection, and set `late`, when the block takes longer than a whole answer may.

        A timeout per read would let a server drip one byte at a time for ever.
        """
        socket.settimeout(self._answer_seconds)

        def expire() -> None:
            late.set()
            _shut(socket)

        timer = threading.Timer(self._answer_seconds, expire)
        timer.daemon = True
        with self._lock:
            self._sockets.add(socket)
            if self._is_cut:
                _shut(socket)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            with self._lock:
                self._sockets.discard(socket)


def parse_endpoint(url: str) -> tuple[SplitResult, str]:
    """The parsed URL, and the path of the chat completions on its server."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  raises if it is not a number
    except ValueError:  # its message would repeat what may be a key
        raise UserError("teacher: not a URL; give one like http://localhost:8000") from None
    if parts.username or parts.password or parts.query:
        raise UserError(f"teacher: no name, key or query belongs in the URL; set {KEY_VARIABLES[0]} instead")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"teacher {url}: give a URL like http://localhost:8000 or https://host/v1")
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions" if re.search(r"/v\d\w*$", path) else "/v1/chat/completions"
    return parts, path


def _key() -> str | None:
    name = next((name for name in KEY_VARIABLES if os.environ.get(name, "").strip()), None)
    key = os.environ[name].strip() if name else None
    if key and not (key.isascii() and key.isprintable()):
        raise UserError(f"{name} holds characters that an HTTP header cannot; set it to the key alone")
    return key


def read_reply(data: bytes, *, sent: int) -> Reply:
    """The reply in a chat completion's JSON. TryAgain for anything else: half, garbage, another schema, nothing.

    sent  bytes of the request, to estimate its tokens where the server does not count them
    """
    try:
        answer = parse_json(data.decode("utf-8"))
        choice = answer["choices"][0]
        text, reason = choice["message"]["content"], choice.get("finish_reason")
        usage = answer.get("usage") or {}
        counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise TryAgain(f"an answer that is no chat completion ({type(error).__name__})") from None
    text = split_thoughts(text)[1].encode("utf-8", "replace").decode() if isinstance(text, str) else ""
    if not text.strip():
        raise TryAgain("an empty answer" + (", cut off at --teacher-max-tokens" if reason == "length" else ""))
    guessed = sent // CHARACTERS, len(text) // CHARACTERS + 1
    counts = [one if isinstance(one, int) and one >= 0 else guess for one, guess in zip(counts, guessed, strict=True)]
    return Reply(text, reason != "length", *counts)


def retry_after(header: str | None) -> float | None:
    """Seconds to wait, from the header's seconds or date (RFC 9110, 10.2.3)."""
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
    with suppress(OSError):  # it may have closed already
        socket.shutdown(SHUT_RDWR)
