"""Puts text tasks to a model: its answers, and how likely it finds each label; graded."""

from __future__ import annotations

from dataclasses import dataclass

from eval.text.grade import LIKELIHOOD, PER_TOKEN, grade
from eval.text.likelihood import calibrated, label_log_probs, per_token, whole, without_content
from eval.text.tasks import NEW_TOKENS, answer_tasks, fit_rows, labels_in, read_text_tasks
from model.decoder import Decoder
from model.tokenizer import Tokenizer


@dataclass(frozen=True)
class TextTasks:
    """Rows of a task, short enough for a model.

    task            classification, qa or summarization
    rows, tasks     as they are asked: texts may have been cut
    shortened       how many were
    max_new_tokens  of an answer
    where           their file, for errors
    """

    task: str
    rows: list[dict]
    tasks: list[dict]
    shortened: int
    max_new_tokens: int
    where: str


def text_tasks(
    decoder: Decoder,
    tokenizer: Tokenizer,
    task: str,
    rows: list[dict],
    *,
    where: str,
    max_length: int,
    max_new_tokens: int | None = None,
) -> TextTasks:
    """The rows as tasks for this model. A text is cut at its end where its prompt exceeds `max_length` tokens, or
    leaves no room for the answer in the model's positions. UserError names a row that cannot be asked.

    max_new_tokens  default: NEW_TOKENS of the task
    """
    new_tokens = max_new_tokens or NEW_TOKENS[task]
    most = min(max_length, decoder.config.max_tokens - new_tokens)
    fitting, shortened = fit_rows(rows, tokenizer, most=most, where=where)
    return TextTasks(task, fitting, read_text_tasks(fitting, where=where), shortened, new_tokens, where)


def ask(decoder: Decoder, tokenizer: Tokenizer, asked: TextTasks, *, calibrate: bool = False, seed: int = 0) -> dict:
    """The eval result of a model: of its greedy answers and, where there are labels, of the most likely one.

    calibrate  divide the likelihoods by those of texts that say nothing (eval/text/likelihood.py)
    """
    answers, unfinished = answer_tasks(
        decoder, tokenizer, asked.tasks, max_new_tokens=asked.max_new_tokens, where=asked.where
    )
    scores = {}
    if asked.task == "classification" or (asked.task == "qa" and asked.tasks[0]["labels"]):
        labels = labels_in(asked.tasks)
        found = label_log_probs(decoder, tokenizer, asked.tasks, labels, where=asked.where)
        scores = {LIKELIHOOD: whole(found), PER_TOKEN: per_token(found)}
        if calibrate:
            empty = without_content(asked.rows[0], asked.tasks[0])
            found = label_log_probs(decoder, tokenizer, empty, labels)
            nothing = {LIKELIHOOD: whole(found), PER_TOKEN: per_token(found)}
            scores = {kind: calibrated(of_kind, nothing[kind]) for kind, of_kind in scores.items()}
    result = grade(asked.task, asked.tasks, answers, scores=scores, unfinished=unfinished, seed=seed)
    return result | {"task": asked.task, "shortened": asked.shortened}
