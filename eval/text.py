"""Text tasks: classification, question answering and summarisation, with the metrics that papers report.

    python -m eval.text --task classification --model M [--adapter A] --data F.jsonl --out F.json
    python -m eval.text --task summarization --answers A.jsonl --data F.jsonl --out F.json

F.jsonl holds rows of any instruction form (data/rows.py); "references" lists further right answers. Answers are
greedy. BLEU is sacrebleu's and ROUGE is rouge-score's, so that figures can be compared with published ones.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from common.console import UserError, run_command
from common.files import read_jsonl, write_json
from data.checks.thoughts import split_thoughts
from data.masking import encode_prompt
from data.rows import conversation_of, named_line
from eval.environment import environment
from eval.model_options import LESS_MEMORY, add_model_options, asked_model, refuse_lone_adapter
from eval.text_metrics import GRADERS
from model import Stop, generate
from model.decoder import Decoder
from model.tokenizer import Tokenizer

NEW_TOKENS = {"classification": 16, "qa": 48, "summarization": 128}


def read_text_tasks(rows: list[dict], *, where: str = "data") -> list[dict]:
    """Rows as {"id", "messages" (the question), "tools" or None, "references" (right answers, one or more)}.

    UserError names a row without an answer, with an empty one, or with an id that is already used.
    """
    tasks, seen = [], set()
    for number, row in enumerate(rows, start=1):
        with named_line(f"{where}:{number}"):
            asked = conversation_of(row)
        further = row.get("references") or []
        own = [split_thoughts(asked.answer["content"])[1]] if asked.answer else []
        references = own + (further if isinstance(further, list) else [0])
        if not references or not all(isinstance(text, str) and text.strip() for text in references):
            raise UserError(f"{where}:{number}: the right answer to grade by is missing or empty")
        task = {"id": str(row.get("id", number)), "messages": asked.question.messages, "tools": asked.tools}
        if task["id"] in seen:
            raise UserError(f"{where}:{number}: the id {task['id']!r} is used twice")
        seen.add(task["id"])
        tasks.append(task | {"references": list(dict.fromkeys(references))})
    if not tasks:
        raise UserError(f"{where}: no row to grade")
    return tasks


def grade(task: str, tasks: list[dict], answers: dict[str, str], *, seed: int = 0) -> dict:
    """The eval result of answers (id -> text) to the tasks of `read_text_tasks`; `task` is a key of GRADERS.

    classification  accuracy (Wilson's interval) and macro_f1 over the labels in the data; "classes" has the precision,
                    recall, f1 and n of each label. An answer that does not name exactly one label counts as wrong, with
                    the status "extraction"
    qa              exact_match and token_f1, the best over the references, with SQuAD's normalisation
    summarization   corpus bleu (0 to 100), and the F-measure of rouge1, rouge2 and rougeL (stemmed, best reference)
    A reasoning model's thoughts are removed from each answer first (data.checks.thoughts) and kept as "thoughts" in its
    row. UserError for a task without an answer, and for an answer without a task.
    """
    if missing := [one["id"] for one in tasks if one["id"] not in answers]:
        raise UserError(f"{len(missing)} of {len(tasks)} tasks have no answer, such as {missing[0]!r}")
    if unasked := answers.keys() - {one["id"] for one in tasks}:
        raise UserError(f"{len(unasked)} answers belong to no task in the data, such as {min(unasked)!r}")
    thoughts, given = zip(*(split_thoughts(answers[one["id"]]) for one in tasks), strict=True)
    result = GRADERS[task](tasks, list(given), seed)
    for row, thought in zip(result["results"], thoughts, strict=True):
        row.update({"thoughts": thought} if thought else {})
    read = {"tasks": tasks, "answers": answers}
    return result | {"n": len(tasks), "sandbox": None, "environment": environment(**read)}


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


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m eval.text", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", required=True, choices=list(GRADERS), help="what is asked, and so the metrics")
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--model", help="folder, hub id, .gguf file or embedded default that answers")
    who.add_argument("--answers", help='grade these answers instead: JSON Lines of {"id", "output"}')
    add_model_options(parser)
    parser.add_argument("--data", required=True, help="rows with their right answers, JSON Lines")
    parser.add_argument("--out", required=True, type=Path, help="result file, JSON")
    parser.add_argument("--max-new-tokens", type=int, help=f"tokens an answer may have (default: {NEW_TOKENS})")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: %(default)s)")
    options = parser.parse_args()
    refuse_lone_adapter(options)
    return options


def main() -> None:
    """Command line: answer (or read the answers), grade, write the result, print a short table."""
    options = _options()
    tasks = read_text_tasks(read_jsonl(options.data), where=options.data)
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
    result["settings"] = {name: str(value) for name, value in vars(options).items() if name != "out"}
    write_json(options.out, result)
    for metric, value in result["metrics"].items():
        low, high = result["intervals"][metric]
        print(f"{metric:12} {value:7.3f}  [{low:.3f}, {high:.3f}]  n = {result['n']}")
    if unread := sum(row["status"] == "extraction" for row in result["results"]):
        print(f"{unread} of {result['n']} answers name no label, or several")


if __name__ == "__main__":
    sys.exit(run_command(main, needs_less_with=LESS_MEMORY))
