"""A model's answers to code tasks: the prompt, where an answer ends, and a file from which a run resumes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from common.files import append_jsonl, resume_jsonl
from common.markdown import fenced
from data.checks.node import NAMES
from data.masking import encode_prompt
from eval.code.score import GREEDY
from eval.code.tasks import CodeTask, drawn
from model import Sampling, Stop, generate
from model.generate import before_stop

CHUNK = 16  # tasks per batch of prompts
# Strings at which a base model has finished and starts something new: after the head of a function those of Chen et
# al. 2021 (arXiv:2107.03374); after a description, which the function and its helpers follow, those of Fried et al.
# 2022 (InCoder, arXiv:2204.05999).
STOPS_AFTER_HEAD = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\n```")
STOPS_AFTER_TEXT = ("\nassert ", '\n"""', "\nprint(", "\nif ", "\n```")


def chat_prompt(task: CodeTask) -> str:
    """The user turn for a chat model."""
    name = NAMES.get(task.language, "Python")
    if task.is_head:
        asked = f"Complete this function. Answer with the whole function in one {name} code block."
        return f"{asked}\n\n{fenced(task.prompt.rstrip(), name.lower())}"
    shown = "\n".join(task.shown)
    named = f"It must pass these tests:\n\n{fenced(shown, 'python')}" if shown else f"Name it `{task.entry_point}`."
    return f"{task.prompt.strip()} {named}\n\nAnswer with the code in one Python code block."


def plain_prompt(task: CodeTask) -> str:
    """The text that a base model continues: the head, or a docstring with the description and MBPP's assertions."""
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
    sampled: int | None = None,
    identity: str = "",
    keep: Path | None = None,
) -> list[dict]:
    """One greedy answer and `samples` sampled ones per task: {"task_id", "sample", "completion", "stopped"}.

    sampled   of how many tasks answers are sampled (default: all), by the draw of `tasks.drawn`
    identity  what identifies the model, for `keep`
    keep      file that answers are appended to as they are generated; answers in it by the same identity, prompts and
              settings are reused
    Tasks are processed in the order of their ids, so that the order of the file does not change the answers.
    """
    known: dict[str, list[dict]] = {}
    for row in resume_jsonl(keep) if keep else []:
        known.setdefault(row["key"], []).append(row)
    rows = []
    for count, chunk in _chunks(tasks, samples, sampled):
        texts = [chat_prompt(task) if chat else plain_prompt(task) for task in chunk]
        settings = [identity, chat, count, temperature, top_p, max_new_tokens, seed, texts]
        key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
        if key not in known:
            sampling = Sampling(
                [0.0] + [temperature] * count,
                top_p=top_p,
                samples=1 + count,  # one prefill per prompt for all of its answers
                seed=seed + int(hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:8], 16),
            )
            answered = _answer(
                decoder, tokenizer, chunk, texts, chat=chat, max_new_tokens=max_new_tokens, sampling=sampling
            )
            known[key] = [{**row, "key": key} for row in answered]
            if keep:
                append_jsonl(keep, known[key])
        rows += known[key]
    return rows


def _chunks(tasks: list[CodeTask], samples: int, sampled: int | None) -> Iterator[tuple[int, list[CodeTask]]]:
    """(samples per task, tasks) of each batch: first the tasks that are sampled, then the others."""
    ordered = sorted(tasks, key=lambda task: task.task_id)
    with_samples = {task.task_id for task in drawn(tasks, sampled)} if samples else set()
    for count, is_sampled in ((samples, True), (0, False)):
        group = [task for task in ordered if (task.task_id in with_samples) == is_sampled]
        for start in range(0, len(group), CHUNK):
            yield count, group[start : start + CHUNK]


def _answer(
    decoder,
    tokenizer,
    tasks: list[CodeTask],
    texts: list[str],
    *,
    chat: bool,
    max_new_tokens: int,
    sampling: Sampling,
) -> list[dict]:
    """The answers to the prompts `texts` of some tasks; of each task the first, which is greedy, and the samples."""
    if chat:
        prompts = [encode_prompt(tokenizer, [{"role": "user", "content": text}]) for text in texts]
    else:
        prompts = [tokenizer.prefix_ids + tokenizer.encode(text) for text in texts]
    own = [() if chat else task.stops or (STOPS_AFTER_HEAD if task.is_head else STOPS_AFTER_TEXT) for task in tasks]
    found = generate(
        decoder,
        prompts,
        Stop(
            max_new_tokens=max_new_tokens,
            ids=tokenizer.stop_ids,
            strings=set(own[0]).intersection(*own),  # those of single tasks are cut off below
            decode=tokenizer.decode,
        ),
        sampling,
        unused_ids=tokenizer.unused_ids,
        what="answering",
    )
    rows = []
    for task, stops, of_task in zip(tasks, own, found, strict=True):
        for label, ids in zip([GREEDY, *range(sampling.samples - 1)], of_task, strict=True):
            text, stopped = tokenizer.decode(ids), len(ids) < max_new_tokens
            completion = before_stop(text, stops)
            ended = stopped or completion != text
            rows.append({"task_id": task.task_id, "sample": label, "completion": completion, "stopped": ended})
    return rows
