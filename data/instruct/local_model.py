"""A teacher on this machine: our own `generate` answers, without a server or a key.

    teacher = LocalModel.load("Qwen/Qwen2.5-Coder-1.5B-Instruct", cache="teacher.sqlite")
    replies = teacher.ask([[{"role": "user", "content": "…"}]], samples=4)

Each reply is cached under the hash of the model's files, the conversation and the settings, as soon as it is finished:
an interrupted run repeats only what was growing. A reply's random numbers follow from its request alone, whatever else
is asked with it.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from pathlib import Path

from common.console import UserError
from data.checks.thoughts import split_thoughts
from data.instruct.replies import Reply, ReplyCache
from data.instruct.teacher import Spent
from data.masking import encode_prompt
from model import Sampling, Stop, generate, load_decoder, load_tokenizer
from model.decoder import Decoder
from model.device import choose_device, choose_dtype
from model.tokenizer import Tokenizer
from model.weights import model_sha256

ROWS = 64  # answers that grow at the same time: their keys and values are in memory


class LocalModel:
    """A causal LM that is loaded here, and its replies so far."""

    def __init__(
        self,
        model: str,
        decoder: Decoder,
        tokenizer: Tokenizer,
        *,
        sha256: str,
        cache: Path | str,
        temperature: float = 0.8,
        max_tokens: int = 1024,
        most_requests: int | None = None,
        most_tokens: int | None = None,
    ) -> None:
        """A loaded model.

        model                       its name, for messages and in the rows
        sha256                      of its files, adapter included: replies of other weights are other replies
        most_requests, most_tokens  budget, in answers and in tokens
        """
        self.model, self.spent = model, Spent()
        self.settings: dict = {"temperature": temperature, "max_tokens": max_tokens}
        self.most_requests, self.most_tokens = most_requests, most_tokens
        self._decoder, self._tokenizer, self._sha256 = decoder, tokenizer, sha256
        self._cache = ReplyCache(cache)
        self._seconds = 0.0

    @classmethod
    def load(cls, model: str, *, device: str = "auto", chat_template: str | None = None, **settings) -> LocalModel:
        """model: a folder, .gguf file, hub id or embedded default; settings: those of the constructor.

        chat_template  a Jinja file that replaces the model's own template
        UserError if there is no such model, it has no chat template, or it exceeds the free memory.
        """
        tokenizer = load_tokenizer(model, chat_template=chat_template)
        where = choose_device(device)
        decoder = load_decoder(model, dtype=choose_dtype(where), device=where)
        # another template makes other replies: it belongs to what identifies the model
        sha256 = model_sha256(model)
        if chat_template is not None:
            sha256 = hashlib.sha256(f"{sha256}\0{tokenizer.chat_template}".encode()).hexdigest()
        return cls(model, decoder, tokenizer, sha256=sha256, **settings)

    def ask(self, conversations: list[list[dict]], *, samples: int) -> list[list[Reply | None]]:
        """`samples` replies to each conversation; None where the budget is spent or the prompt is too long."""
        keys = [[self._key(messages, number) for number in range(samples)] for messages in conversations]
        replies = [[self._cache.get(key) for key in of_prompt] for of_prompt in keys]
        self.spent.cached += sum(reply is not None for of_prompt in replies for reply in of_prompt)
        if allowed := self._allowed(conversations, replies):
            self._generate(allowed, keys, replies)
        return replies

    def summary(self) -> str:
        """One line: answers, tokens, and the time they took."""
        spent = self.spent
        parts = [
            f"{spent.requests} answers of {self.model}, {spent.cached} cached replies",
            f"{spent.tokens_in:,} tokens in, {spent.tokens_out:,} out",
        ]
        if self._seconds:
            parts.append(f"{self._seconds / 60:.1f} min, {spent.tokens_out / self._seconds:.0f} tokens/s")
        parts += [f"{spent.failed} not asked: too long for the model"] if spent.failed else []
        parts += [f"{spent.missing} not asked: the budget is spent"] if spent.missing else []
        return " · ".join(parts)

    def _key(self, messages: list[dict], number: int) -> str:
        request = [self._sha256, messages, self.settings, number]
        return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()

    def _allowed(
        self, conversations: list[list[dict]], replies: list[list[Reply | None]]
    ) -> list[tuple[int, list[int]]]:
        """(conversation, prompt ids) of those to answer: not cached, within the model's positions and the budget."""
        room = self._decoder.max_tokens - self.settings["max_tokens"]
        spent = self.spent
        requests = math.inf if self.most_requests is None else self.most_requests - spent.requests  # left to spend
        tokens = math.inf if self.most_tokens is None else self.most_tokens - spent.tokens_in - spent.tokens_out
        allowed = []
        for index, of_prompt in enumerate(replies):
            if not (missing := of_prompt.count(None)):
                continue
            prompt = self._prompt(conversations[index])
            most = missing * (len(prompt) + self.settings["max_tokens"])
            if len(prompt) > room:
                self.spent.failed += missing
            elif missing > requests or most > tokens:
                self.spent.missing += missing
            else:
                requests, tokens = requests - missing, tokens - most
                allowed.append((index, prompt))
        return allowed

    def _prompt(self, messages: list[dict]) -> list[int]:
        """Token ids. Where the template has no system role, the system message opens the user's."""
        try:
            return encode_prompt(self._tokenizer, messages)
        except UserError:
            if messages[0]["role"] != "system":
                raise
            system, user, *rest = messages
            merged = {**user, "content": f"{system['content']}\n\n{user['content']}"}
            return encode_prompt(self._tokenizer, [merged, *rest])

    def _generate(
        self, allowed: list[tuple[int, list[int]]], keys: list[list[str]], replies: list[list[Reply | None]]
    ) -> None:
        """Answer these prompts; each reply enters `replies` and the cache as it is finished."""
        started = time.monotonic()
        indices, prompts = [index for index, _ in allowed], [prompt for _, prompt in allowed]

        def store(number: int, sample: int, ids: list[int]) -> None:
            of_prompt = replies[indices[number]]
            if of_prompt[sample] is not None:
                return  # cached: only other samples of this prompt were missing
            reply = of_prompt[sample] = Reply(
                text=split_thoughts(self._tokenizer.decode(ids))[1],
                stopped=len(ids) < self.settings["max_tokens"],
                tokens_in=len(prompts[number]),
                tokens_out=len(ids),
            )
            self._cache.put({keys[indices[number]][sample]: reply})
            self.spent.requests += 1
            self.spent.tokens_in += reply.tokens_in
            self.spent.tokens_out += reply.tokens_out

        stop = Stop(max_new_tokens=self.settings["max_tokens"], ids=self._tokenizer.stop_ids)
        seeds = [int(keys[index][0][:8], 16) for index in indices]
        sampling = Sampling(self.settings["temperature"], samples=len(keys[0]), seed=seeds)
        generate(
            self._decoder, prompts, stop, sampling,
            unused_ids=self._tokenizer.unused_ids, rows=ROWS, what="asking the teacher", on_answer=store,
        )  # fmt: skip
        self._seconds += time.monotonic() - started
