"""Text tasks: classification, question answering and summarisation, by the metrics that papers report.

    python -m eval.text --task classification --model M [--adapter A] --data F.jsonl --out F.json
    python -m eval.text --task summarization --answers A.jsonl --data F.jsonl --out F.json

F.jsonl holds rows of any instruction form (data/rows.py); "references" lists further right answers. Answers are
greedy. BLEU is sacrebleu's and ROUGE is rouge-score's, so that a figure can be set beside a published one.
"""

from __future__ import annotations

import re
import string
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.console import UserError, need, run_command
from common.files import read_jsonl, write_json
from common.options import as_settings, option, parse
from data.checks.thoughts import split_thoughts
from data.masking import encode_prompt
from data.rows import conversation_of, named_line
from eval.environment import environment
from eval.model_options import LESS_MEMORY, MEASURE, SAMPLING, AskOptions, asked_model
from eval.stats import summarise, wilson
from model import Stop, generate
from model.decoder import Decoder
from model.tokenizer import Tokenizer

ROUGES = ("rouge1", "rouge2", "rougeL")
RESAMPLES = 1000
NEW_TOKENS = {"classification": 16, "qa": 48, "summarization": 128}


def read_tasks(rows: list[dict], *, where: str = "data") -> list[dict]:
    """Rows as {"id", "messages" (the question), "tools" or None, "references" (right answers, one or more)}.

    UserError names the row that has no answer, an empty one, or an id that another has.
    """
    tasks, seen = [], set()
    for number, row in enumerate(rows, start=1):
        with named_line(f"{where}:{number}"):
            asked = conversation_of(row)
        further = row.get("references") or []
        own = [split_thoughts(asked.answer["content"])[1]] if asked.answer else []
        references = own + (further if isinstance(further, list) else [0])
        if not references or not all(isinstance(text, str) and text.strip() for text in references):
            raise UserError(f"{where}:{number}: no right answer, or an empty one, to grade by")
        task = {"id": str(row.get("id", number)), "messages": asked.question.messages, "tools": asked.tools}
        if task["id"] in seen:
            raise UserError(f"{where}:{number}: the id {task['id']!r} is there twice")
        seen.add(task["id"])
        tasks.append(task | {"references": list(dict.fromkeys(references))})
    if not tasks:
        raise UserError(f"{where}: no row to grade")
    return tasks


def grade(task: str, tasks: list[dict], answers: dict[str, str], *, seed: int = 0) -> dict:
    """The eval result of answers (id -> text) to the tasks of `read_tasks`; `task` is one of GRADERS.

    classification  accuracy (Wilson's interval) and macro_f1 over the labels of the data; "classes" has each label's
                    precision, recall, f1 and n. An answer in which no one label is found counts as wrong, and its
                    status is "extraction"
    qa              exact_match and token_f1, the best over the references, texts normalised as SQuAD's script does
    summarization   bleu (of the corpus, 0 to 100), and the F of rouge1, rouge2 and rougeL (stemmed, best reference)
    A reasoning model's thoughts are taken off each answer first (data.checks.thoughts); a row that had some keeps them
    as "thoughts". UserError for a task without an answer, and for an answer without a task.
    """
    if missing := [one["id"] for one in tasks if one["id"] not in answers]:
        raise UserError(f"{len(missing)} of {len(tasks)} tasks have no answer, such as {missing[0]!r}")
    if unasked := answers.keys() - {one["id"] for one in tasks}:
        raise UserError(f"{len(unasked)} answers are to no task of the data, such as {min(unasked)!r}")
    thoughts, given = zip(*(split_thoughts(answers[one["id"]]) for one in tasks), strict=True)
    result = GRADERS[task](tasks, list(given), seed)
    for row, thought in zip(result["results"], thoughts, strict=True):
        row.update({"thoughts": thought} if thought else {})
    read = {"tasks": tasks, "answers": answers}
    return result | {"n": len(tasks), "sandbox": None, "environment": environment(**read)}


def find_label(answer: str, labels: list[str]) -> str | None:
    """The label that an answer gives: the whole of it, else the only one in its first line that has any.

    Case, white space and punctuation at the ends do not matter; a label inside a longer one that is there ("entity" in
    "named entity") is not counted. None where there is none, or more than one.
    """
    plain = {_plain(label): label for label in labels}
    if _plain(answer) in plain:
        return plain[_plain(answer)]
    for line in answer.splitlines():
        found = {
            label for label in plain if re.search(rf"(?<!\w){re.escape(label)}(?!\w)", " ".join(line.lower().split()))
        }
        longest = {one for one in found if not any(one != other and one in other for other in found)}
        if longest:
            return plain[longest.pop()] if len(longest) == 1 else None
    return None


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).strip(string.punctuation + " ")


def _classification(tasks: list[dict], answers: list[str], seed: int) -> dict:
    labels = sorted({one["references"][0] for one in tasks})
    if several := next((one["id"] for one in tasks if len(one["references"]) > 1), None):
        raise UserError(f"task {several}: a class has one right answer, this has several references")
    predicted = [find_label(answer, labels) for answer in answers]
    number = {label: i for i, label in enumerate(labels)}
    gold = np.array([number[one["references"][0]] for one in tasks])
    guess = np.array([number.get(label, len(labels)) for label in predicted])
    right = {one["id"]: float(g == p) for one, g, p in zip(tasks, gold, guess, strict=True)}
    drawn = np.random.default_rng(seed).integers(len(gold), size=(RESAMPLES, len(gold)))
    precision, recall, f1 = _class_scores(gold, guess, len(labels))
    counts = np.bincount(gold, minlength=len(labels))
    macro = [_macro_f1(gold[rows], guess[rows], len(labels)) for rows in drawn]
    return {
        "metrics": {"accuracy": float(np.mean(gold == guess)), "macro_f1": _macro_f1(gold, guess, len(labels))},
        "intervals": {
            "accuracy": list(wilson(sum(right.values()), len(right))),
            "macro_f1": [float(end) for end in np.quantile(macro, [0.025, 0.975])],
        },
        "values": {"accuracy": right},
        "classes": {
            label: {"precision": precision[i], "recall": recall[i], "f1": f1[i], "n": int(counts[i])}
            for i, label in enumerate(labels)
        },
        "results": [
            {
                "id": one["id"],
                "status": "extraction" if label is None else "pass" if right[one["id"]] else "wrong",
                "answer": answer,
                "label": label,
                "gold": one["references"][0],
            }
            for one, answer, label in zip(tasks, answers, predicted, strict=True)
        ],
    }


def _class_scores(gold: np.ndarray, guess: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 of each of `count` classes; 0 where there is nothing to divide by, as sklearn's."""
    hits = np.bincount(gold[gold == guess], minlength=count).astype(float)
    of_gold, of_guess = np.bincount(gold, minlength=count), np.bincount(guess, minlength=count + 1)[:count]
    return hits / np.maximum(of_guess, 1), hits / np.maximum(of_gold, 1), 2 * hits / np.maximum(of_gold + of_guess, 1)


def _macro_f1(gold: np.ndarray, guess: np.ndarray, count: int) -> float:
    """Mean F1 of the classes that are in gold: a draw of the bootstrap may miss a rare one."""
    return float(_class_scores(gold, guess, count)[2][np.unique(gold)].mean())


def normalize_answer(text: str) -> str:
    """Lower case, without punctuation, English articles and extra space (Rajpurkar et al., arXiv:1606.05250)."""
    bare = "".join(sign for sign in text.lower() if sign not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def token_f1(answer: str, reference: str) -> float:
    """F1 of the normalised words that two texts share (SQuAD)."""
    one, other = normalize_answer(answer).split(), normalize_answer(reference).split()
    if not one or not other:
        return float(one == other)
    return 2 * (Counter(one) & Counter(other)).total() / (len(one) + len(other))


def _qa(tasks: list[dict], answers: list[str], seed: int) -> dict:
    values: dict[str, dict[str, float]] = {"exact_match": {}, "token_f1": {}}
    for one, answer in zip(tasks, answers, strict=True):
        references = one["references"]
        values["exact_match"][one["id"]] = float(normalize_answer(answer) in map(normalize_answer, references))
        values["token_f1"][one["id"]] = max(token_f1(answer, reference) for reference in references)
    return _means(tasks, answers, values, passed=values["exact_match"], seed=seed)


def _summarization(tasks: list[dict], answers: list[str], seed: int) -> dict:
    need("rouge_score", why="ROUGE")
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(ROUGES), use_stemmer=True)
    values: dict[str, dict[str, float]] = {metric: {} for metric in ROUGES}
    for one, answer in zip(tasks, answers, strict=True):
        scores = [scorer.score(reference, answer) for reference in one["references"]]
        for metric in ROUGES:
            values[metric][one["id"]] = max(score[metric].fmeasure for score in scores)
    result = _means(tasks, answers, values, passed={}, seed=seed)
    value, low, high = _bleu(tasks, answers, seed)
    result["metrics"]["bleu"], result["intervals"]["bleu"] = value, [low, high]
    return result


def _bleu(tasks: list[dict], answers: list[str], seed: int) -> tuple[float, float, float]:
    """BLEU of the corpus with its interval: the counts of n-grams are sums over tasks, and tasks are resampled."""
    bleu = need("sacrebleu", why="BLEU").BLEU
    scorer = bleu(effective_order=True)  # of single texts the counts alone are used
    scores = [scorer.sentence_score(answer, one["references"]) for one, answer in zip(tasks, answers, strict=True)]
    counts = np.array([[*score.counts, *score.totals, score.sys_len, score.ref_len] for score in scores])  # [N, 10]

    def of_sums(sums: np.ndarray) -> float:
        whole = [int(count) for count in sums]
        return bleu.compute_bleu(whole[:4], whole[4:8], *whole[8:], smooth_method="exp").score

    drawn = np.random.default_rng(seed).integers(len(counts), size=(RESAMPLES, len(counts)))
    low, high = np.quantile([of_sums(counts[rows].sum(0)) for rows in drawn], [0.025, 0.975])
    return of_sums(counts.sum(0)), float(low), float(high)


def _means(tasks: list[dict], answers: list[str], values: dict, *, passed: dict, seed: int) -> dict:
    """An eval result of metrics that are means over tasks; a status is "graded" where there is no yes or no."""
    results = [
        {
            "id": one["id"],
            "status": "graded" if not passed else "pass" if passed[one["id"]] else "wrong",
            "answer": answer,
            "references": one["references"],
        }
        for one, answer in zip(tasks, answers, strict=True)
    ]
    return summarise(values, seed=seed) | {"values": values, "results": results}


GRADERS: dict[str, Callable[[list[dict], list[str], int], dict]] = {
    "classification": _classification,
    "qa": _qa,
    "summarization": _summarization,
}


def answer_tasks(
    decoder: Decoder, tokenizer: Tokenizer, tasks: list[dict], *, max_new_tokens: int, where: str = "data"
) -> dict[str, str]:
    """The greedy answer to each task, by id."""
    prompts = []
    for number, one in enumerate(tasks, 1):
        with named_line(f"{where}:{number}"):
            prompts.append(encode_prompt(tokenizer, one["messages"], tools=one["tools"]))
    stop = Stop(max_new_tokens=max_new_tokens, ids=tokenizer.stop_ids)
    new = generate(decoder, prompts, stop, unused_ids=tokenizer.unused_ids, what="answering")
    return {one["id"]: tokenizer.decode(ids).strip() for one, (ids,) in zip(tasks, new, strict=True)}


@dataclass(frozen=True, kw_only=True)
class Options(AskOptions):
    """Options of this command."""

    task: str = option(help="kind of the task, which decides the metrics", choices=tuple(GRADERS))
    data: str = option(help="rows with their reference answers, JSON Lines", metavar="FILE")
    out: Path = option(help="result, JSON", metavar="FILE")
    answers: str | None = option(
        None, 'grade these answers instead of a model\'s: JSON Lines of {"id", "output"}', MEASURE, metavar="FILE"
    )
    max_new_tokens: int | None = option(
        None, f"tokens of an answer at most (default: {', '.join(f'{task} {n}' for task, n in NEW_TOKENS.items())})",
        SAMPLING,
    )  # fmt: skip
    seed: int = option(0, "seed of the bootstrap")

    def __post_init__(self) -> None:
        """UserError for options that contradict each other."""
        self.refuse_unless_one(model=self.model, answers=self.answers)


def main() -> None:
    """Command line: answer (or read the answers), grade, write the result, print a short table."""
    options = parse(Options, description=__doc__)
    tasks = read_tasks(read_jsonl(options.data), where=options.data)
    if options.answers:
        rows = read_jsonl(options.answers)
        for number, row in enumerate(rows, start=1):
            if "id" not in row or not isinstance(row.get("output"), str):
                raise UserError(f'{options.answers}:{number}: an answer needs "id" and "output"')
        answers = {str(row["id"]): row["output"] for row in rows}
        if len(answers) < len(rows):
            raise UserError(f"{options.answers}: {len(rows) - len(answers)} answers are to a task that has one already")
    else:
        new_tokens = options.max_new_tokens or NEW_TOKENS[options.task]
        with asked_model(options) as (decoder, tokenizer):
            answers = answer_tasks(decoder, tokenizer, tasks, max_new_tokens=new_tokens, where=options.data)
    result = grade(options.task, tasks, answers, seed=options.seed)
    result["settings"] = {name: str(value) for name, value in as_settings(options, without=("out",)).items()}
    write_json(options.out, result)
    for metric, value in result["metrics"].items():
        low, high = result["intervals"][metric]
        print(f"{metric:12} {value:7.3f}  [{low:.3f}, {high:.3f}]  n = {result['n']}")
    if unread := sum(row["status"] == "extraction" for row in result["results"]):
        print(f"{unread} of {result['n']} answers name no label, or several")


if __name__ == "__main__":
    sys.exit(run_command(main, needs_less_with=LESS_MEMORY))
