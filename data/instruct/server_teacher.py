"""A language model on a server that answers tasks: any server with OpenAI's chat completions.

    teacher = ServerTeacher("http://localhost:8000", "NAME", cache="teacher.sqlite")
    replies = teacher.ask([[{"role": "user", "content": "…"}]], samples=4)        # vLLM, Ollama, llama.cpp, …

Nothing is asked twice: each reply is stored on disk under the hash of its request, so an interrupted run resumes where
it stopped. One request is data/instruct/completions.py's; here are concurrency, retries, the budget and the cache.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from common.console import UserError, progress
from data.instruct.completions import ChatCompletions, Refused, TryAgain
from data.instruct.replies import Reply, ReplyCache
from data.instruct.teacher import Spent


@dataclass(frozen=True)
class Limits:
    """How long to wait, in seconds, how often to try, and how much to spend (None: no limit)."""

    tries: int = 6  # of one request
    connect_seconds: float = 10.0
    answer_seconds: float = 300.0  # from the request to the end of its answer
    first_wait: float = 1.0  # before the second try; doubled with each try
    longest_wait: float = 60.0
    most_requests: int | None = None  # sent, retries included
    most_tokens: int | None = None  # in and out, of all answers, as the server counts them


class ServerTeacher:
    """A server, a model on it, and the replies so far. Used from one thread; sends requests from several."""

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
        prices: tuple[float, float] | None = None,
    ) -> None:
        """A model on a server.

        url     of the server, with or without /v1. UserError for one that is not http(s) or that carries a secret
        prices  of a million tokens in and out, to show the cost
        """
        self.model, self.limits, self.spent, self.prices = model, limits, Spent(), prices
        self.settings: dict = {"temperature": temperature, "max_tokens": max_tokens}
        self._server = ChatCompletions(
            url, connect_seconds=limits.connect_seconds, answer_seconds=limits.answer_seconds
        )
        self._concurrency = concurrency
        self._cache = ReplyCache(cache)
        self._lock = threading.Condition()  # notified when a request has ended
        self._stop = threading.Event()
        self._open_until = 0.0  # a server that asked for a pause gets none of our requests until then
        self._reserved = 0  # tokens that requests in flight may still use
        self._lost_in_a_row = 0
        self._why = ""  # the last request was given up

    def ask(self, conversations: list[list[dict]], *, samples: int) -> list[list[Reply | None]]:
        """`samples` replies to each conversation; None for what failed or what the budget did not allow.

        Raises UserError when the server refuses us (401, 403, 404) or is lost: three requests in a row without an
        answer after all their tries, or refused before it has answered anything.
        """
        wanted = [(self._body(messages), number) for messages in conversations for number in range(samples)]
        self._stop.clear()
        self._server.open()
        with ThreadPoolExecutor(self._concurrency) as pool:
            futures = [pool.submit(self._reply, body, number) for body, number in wanted]
            try:
                done = as_completed(futures)  # an error ends the run at once, not when its turn comes
                for future in progress(done, total=len(futures), what="asking the teacher", unit="reply"):
                    future.result()
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                self._server.cut()
                with self._lock:
                    self._lock.notify_all()
                raise
        replies = [future.result() for future in futures]
        return [replies[first : first + samples] for first in range(0, len(replies), samples)]

    def summary(self) -> str:
        """One line: requests, tokens, and their cost."""
        spent, prices = self.spent, self.prices
        parts = [
            f"{spent.requests} requests to {self.model}, {spent.cached} cached replies",
            f"{spent.tokens_in:,} tokens in, {spent.tokens_out:,} out",
        ]
        if prices:
            cost = (spent.tokens_in * prices[0] + spent.tokens_out * prices[1]) / 1e6
            parts.append(f"{cost:.4f} at {prices[0]:g} and {prices[1]:g} per million")
        parts += [f"{spent.failed} failed, the last by {self._why}"] if spent.failed else []
        parts += [f"{spent.missing} not asked: the budget is spent"] if spent.missing else []
        return " · ".join(parts)

    def _body(self, messages: list[dict]) -> dict:
        return {"model": self.model, "messages": messages, **self.settings, "stream": False}

    def _reply(self, body: dict, number: int) -> Reply | None:
        """From the cache or from the server. `number` distinguishes equal requests; the server does not see it."""
        request = json.dumps([*self._server.address, body, number], sort_keys=True)
        key = hashlib.sha256(request.encode()).hexdigest()
        cached = self._cache.get(key)
        if cached is not None:
            with self._lock:
                self.spent.cached += 1
            return cached
        try:
            reply = self._tried(json.dumps(body).encode())
        except UserError:
            self._stop.set()  # here: this thread may take the next request before `ask` hears of the error
            raise
        if reply is not None:
            self._cache.put({key: reply})
        return reply

    def _tried(self, body: bytes) -> Reply | None:
        for attempt in range(self.limits.tries):
            most = len(body) + self.settings["max_tokens"]  # a token in is at least one byte
            if not self._may_spend(most):
                return None
            reply, problem = None, None
            try:
                reply = self._sent(body)
            except TryAgain as error:
                problem = error
            except Refused as error:
                return self._given_up(str(error), is_lost=False)
            finally:
                self._settle(most, reply)
            if reply is not None:
                return reply
            if attempt + 1 < self.limits.tries:
                self._wait(attempt, problem.wait)
        return self._given_up(str(problem), is_lost=True)

    def _sent(self, body: bytes) -> Reply:
        """One request, after any pause that the server asked for. Raises TryAgain, Refused or UserError."""
        left = self._open_until - time.monotonic()
        if left > 0:
            self._stop.wait(left)
        try:
            return self._server.send(body)
        except TryAgain as error:
            if error.wait is not None and error.wait > 10 * self.limits.longest_wait:
                raise UserError(
                    f"teacher {self._server.host}: asks to wait {error.wait:.0f} s ({error}). Rerun then to resume"
                ) from None
            raise

    def _may_spend(self, tokens: int) -> bool:
        """Reserve what a request may use at most; False when that would exceed the budget, or after a stop.

        Where it would exceed it only together with requests in flight, wait for what they really use.
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
        """Replace a reservation by what the request really used."""
        with self._lock:
            self._reserved -= reserved
            if reply is not None:
                self.spent.tokens_in += reply.tokens_in
                self.spent.tokens_out += reply.tokens_out
                self._lost_in_a_row = 0
            self._lock.notify_all()

    def _wait(self, attempt: int, asked: float | None) -> None:
        """Exponential back-off with full jitter; a pause that the server asked for holds for all requests."""
        longest = min(self.limits.longest_wait, self.limits.first_wait * 2**attempt)
        seconds = random.uniform(0, longest)  # unseeded: jitter keeps clients apart
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
                    f"teacher {self._server.host}: no answer to three requests in a row ({why}). "
                    "Its replies so far are cached: rerun to resume"
                )
