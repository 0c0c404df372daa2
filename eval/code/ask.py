"""Asking a model: the prompt that it gets for a task, where its answer ends, and the answers kept as they come."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from common.files import append_jsonl, resume_jsonl
from common.markdown import fenced
from data.masking import encode_prompt
from eval.code.javascript import NAMES
from eval.code.score import GREEDY
from eval.code.tasks import CodeTask
from model import Sampling, Stop, generate
from model.generate import before_stop

CHUNK = 16  # tasks asked together
# Where a base model begins something else: Chen et al. 2021 (arXiv:2107.03374) after the head of a function, and Fried
# et al. 2022 (InCoder, arXiv:2204.05999) after a description, where the function and its helpers are still to come.
STOPS_AFTER_HEAD = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\n```")
STOPS_AFTER_TEXT = ("\nassert ", '\n"""', "\nprint(", "\nif ", "\n```")


def chat_prompt(task: CodeTask) -> str:
    """What a chat model is asked, as the user's turn."""
    name = NAMES.get(task.language, "Python")
    if task.is_head:
        asked = f"Complete this function. Answer with the whole function in one {name} code block."
        return f"{asked}\n\n{fenced(task.prompt.rstrip(), name.lower())}"
    shown = "\n".join(task.shown)
    named = f"It must pass these tests:\n\n{fenced(shown, 'python')}" if shown else f"Name it `{task.entry_point}`."
    return f"{task.prompt.strip()} {named}\n\nAnswer with the code in one Python code block."


def plain_prompt(task: CodeTask) -> str:
    """What a base model goes on from: the head, or a docstring of the description and what MBPP shows."""
    if task.is_head:
        return task.prompt.rstrip()
    return '"""\n' + "\n".join([task.prompt.strip(), *task.shown]) + '\n"""\n'


def ask(
    decoder,
    tokenizer,
    tasks: list[CodeTask],
    *,
    chat: bool,
    samples: int,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    seed: int,
    identity: str = "",
    keep: Path | None = None,
) -> list[dict]:
    """One greedy answer and `samples` sampled ones a task: {"task_id", "sample", "completion", "stopped"}.

    Tasks are asked in the order of their ids, so that a file in another order gets the same answers. With `keep`, a
    file, answers are written as they come, and those that stand there by the same `identity` (what the model is), the
    same prompts and the same settings are not asked for again.
    """
    ordered = sorted(tasks, key=lambda task: task.task_id)
    known: dict[str, list[dict]] = {}
    for row in resume_jsonl(keep) if keep else []:
        known.setdefault(row["key"], []).append(row)
    rows = []
    for start in range(0, len(ordered), CHUNK):
        chunk = ordered[start : start + CHUNK]
        texts = [chat_prompt(task) if chat else plain_prompt(task) for task in chunk]
        settings = [identity, chat, samples, temperature, top_p, max_new_tokens, seed, texts]
        key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
        if key not in known:
            drawn = seed + int(hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:8], 16)
            options = {"samples": samples, "temperature": temperature, "top_p": top_p, "seed": drawn}
            answered = _answer(decoder, tokenizer, chunk, texts, chat, max_new_tokens, options)
            known[key] = [{**row, "key": key} for row in answered]
            if keep:
                append_jsonl(keep, known[key])
        rows += known[key]
    return rows


def _answer(decoder, tokenizer, tasks, texts, chat: bool, max_new_tokens: int, options: dict) -> list[dict]:
    if chat:
        prompts = [encode_prompt(tokenizer, [{"role": "user", "content": text}]) for text in texts]
    else:
        prompts = [tokenizer.prefix_ids + tokenizer.encode(text) for text in texts]
    samples = options["samples"]
    own = [() if chat else task.stops or (STOPS_AFTER_HEAD if task.is_head else STOPS_AFTER_TEXT) for task in tasks]
    found = generate(
        decoder,
        prompts,
        Stop(
            max_new_tokens=max_new_tokens,
            ids=tokenizer.stop_ids,
            strings=set(own[0]).intersection(*own),  # what only one task stops at is cut off below
            decode=tokenizer.decode,
        ),
        Sampling(
            [0.0] + [options["temperature"]] * samples,
            top_p=options["top_p"],
            samples=1 + samples,  # a prompt is read once for all of its answers
            seed=options["seed"],
        ),
        unused_ids=tokenizer.unused_ids,
        what="answering",
    )
    rows = []
    for task, stops, of_task in zip(tasks, own, found, strict=True):
        for label, ids in zip([GREEDY, *range(samples)], of_task, strict=True):
            text, stopped = tokenizer.decode(ids), len(ids) < max_new_tokens
            completion = before_stop(text, stops)
            ended = stopped or completion != text
            rows.append({"task_id": task.task_id, "sample": label, "completion": completion, "stopped": ended})
    return rows
