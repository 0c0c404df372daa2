"""Puts text tasks to a model: its answers, and how likely it finds each label; graded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.console import UserError
from eval.text.grade import LIKELIHOOD, PER_TOKEN, grade
from eval.text.likelihood import Scores, calibrated, label_log_probs, per_token, whole, without_content
from eval.text.metrics import need_summary_measures
from eval.text.shots import with_shots
from eval.text.tasks import NEW_TOKENS, answer_tasks, fit_rows, labels_in, read_text_tasks, read_training_tasks
from model.decoder import Decoder
from model.tokenizer import Tokenizer


@dataclass(frozen=True)
class TextTasks:
    """Rows of a task, short enough for a model.

    task            classification, qa or summarization
    tasks           as they are asked: texts may have been cut
    labels          the answers to choose from; None: answers are free
    empty           tasks without content, to calibrate the labels by; [] for none
    shortened       how many texts were cut
    max_new_tokens  of an answer
    where           their file, for errors
    """

    task: str
    tasks: list[dict]
    labels: list[str] | None
    empty: list[dict]
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
    calibrate: bool = False,
    shots: Sequence[dict] = (),
) -> TextTasks:
    """The rows as tasks for this model. A text is cut at its end where its prompt exceeds `max_length` tokens, or
    leaves no room for the answer in the model's positions.

    max_new_tokens  default: NEW_TOKENS of the task
    calibrate       divide the likelihoods by those of texts that say nothing (eval/text/likelihood.py)
    shots           training rows that precede each question, solved (eval/text/shots.py); each is cut as a question is
    UserError names a row that cannot be asked; or says that there are no labels to calibrate.
    """
    if task == "summarization":
        need_summary_measures()
    new_tokens = max_new_tokens or NEW_TOKENS[task]
    most = min(max_length, decoder.max_tokens // (1 + len(shots)) - new_tokens)
    fitting, shortened = fit_rows(rows, tokenizer, most=most, where=where)
    solved, _ = fit_rows(list(shots), tokenizer, most=most, where="a shot")
    tasks = with_shots(read_text_tasks(fitting, where=where), read_training_tasks(solved))

    # classes, or questions that are answered by one of a few words
    is_closed = task == "classification" or (task == "qa" and tasks[0]["labels"] is not None)
    labels = labels_in(tasks) if is_closed else None
    if calibrate and labels is None:
        raise UserError(f"{where}: --calibrate is for rows with labels, and these have none")
    empty = without_content(fitting[0], tasks[0]) if calibrate else []
    return TextTasks(task, tasks, labels, empty, shortened, new_tokens, where)


def ask(decoder: Decoder, tokenizer: Tokenizer, asked: TextTasks, *, seed: int = 0) -> dict:
    """The eval result of a model: of its greedy answers and, where there are labels, of the most likely one."""
    answers, unfinished = answer_tasks(
        decoder, tokenizer, asked.tasks, max_new_tokens=asked.max_new_tokens, where=asked.where
    )
    scores = label_scores(decoder, tokenizer, asked) if asked.labels else {}
    result = grade(asked.task, asked.tasks, answers, scores=scores, unfinished=unfinished, seed=seed)
    return result | {"task": asked.task, "shortened": asked.shortened}


def label_scores(decoder: Decoder, tokenizer: Tokenizer, asked: TextTasks) -> dict[str, Scores]:
    """The scores of the labels, as `grade` takes them: of the whole label and per token, calibrated if asked for."""
    assert asked.labels is not None
    found = label_log_probs(decoder, tokenizer, asked.tasks, asked.labels, where=asked.where)
    scores = {LIKELIHOOD: whole(found), PER_TOKEN: per_token(found)}
    if not asked.empty:
        return scores
    found = label_log_probs(decoder, tokenizer, asked.empty, asked.labels)
    nothing = {LIKELIHOOD: whole(found), PER_TOKEN: per_token(found)}
    return {kind: calibrated(of_kind, nothing[kind]) for kind, of_kind in scores.items()}
