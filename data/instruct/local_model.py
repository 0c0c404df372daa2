"""A teacher on this machine: our own `generate` answers, without a server or a key.

    teacher = LocalModel.load("Qwen/Qwen2.5-Coder-1.5B-Instruct", cache="teacher.sqlite")
    replies = teacher.ask([[{"role": "user", "content": "…"}]], samples=4)

Each reply is cached under the hash of the model's files, the conversation and the settings. Those of a batch are
stored together, so an interrupted run repeats one batch at most.
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

BATCH = 64  # answers generated together


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
        allowed = self._allowed(conversations, replies)
        size = max(1, BATCH // samples)
        batches = [allowed[first : first + size] for first in range(0, len(allowed), size)]
        for number, batch in enumerate(batches, 1):
            what = f"asking the teacher, batch {number} of {len(batches)}"
            made = self._generated(
                [prompt for _, prompt in batch], [keys[index][0] for index, _ in batch], samples, what
            )
            new = {}
            for (index, _), of_prompt in zip(batch, made, strict=True):
                for sample, reply in enumerate(of_prompt):
                    if replies[index][sample] is None:
                        new[keys[index][sample]] = replies[index][sample] = reply
                        self.spent.requests += 1
                        self.spent.tokens_in += reply.tokens_in
                        self.spent.tokens_out += reply.tokens_out
            self._cache.put(new)
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

    def _generated(self, prompts: list[list[int]], keys: list[str], samples: int, what: str) -> list[list[Reply]]:
        """[prompt][sample]. The seed follows from the requests: the same batch gives the same replies."""
        started = time.monotonic()
        seed = int(hashlib.sha256("".join(keys).encode()).hexdigest()[:8], 16)
        stop = Stop(max_new_tokens=self.settings["max_tokens"], ids=self._tokenizer.stop_ids)
        sampling = Sampling(self.settings["temperature"], samples=samples, seed=seed)
        answers = generate(self._decoder, prompts, stop, sampling, unused_ids=self._tokenizer.unused_ids, what=what)
        self._seconds += time.monotonic() - started
        return [
            [
                Reply(
                    text=split_thoughts(self._tokenizer.decode(ids))[1],
                    stopped=len(ids) < stop.max_new_tokens,
                    tokens_in=len(prompt),
                    tokens_out=len(ids),
                )
                for ids in of_prompt
            ]
            for prompt, of_prompt in zip(prompts, answers, strict=True)
        ]
