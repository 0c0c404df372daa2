"""Text tasks: classification, question answering and summarisation, with the metrics that papers report.

    python -m eval.text --model M [--adapter A] --data test.jsonl [--train train.jsonl] --out F.json
    python -m eval.text --task summarization --answers A.jsonl --data F.jsonl --out F.json

F.jsonl holds text rows (data/text_rows.py), which say what the task is, or rows of any instruction form with --task;
"references" lists further right answers. Answers are greedy; labels are also ranked by their likelihood. BLEU is
sacrebleu's and ROUGE is rouge-score's, so that figures can be compared with published ones.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from common.console import UserError, run_command
from common.files import read_objects, write_json
from common.options import as_settings, option, parse
from data.rows import read_rows
from eval.model_options import LESS_MEMORY, MEASURE, SAMPLING, AskOptions, asked_model
from eval.text.ask import ask, text_tasks
from eval.text.baselines import baselines, changes_over
from eval.text.grade import GRADERS, grade
from eval.text.shots import choose_shots
from eval.text.table import text_table
from eval.text.tasks import NEW_TOKENS, read_text_tasks, read_training_tasks, task_in


@dataclass(frozen=True, kw_only=True)
class Options(AskOptions):
    """Options of this command."""

    task: str | None = option(
        None, "kind of the task, which decides the metrics (default: what text rows say)", MEASURE,
        choices=tuple(GRADERS),
    )  # fmt: skip
    data: str = option(help="rows with their reference answers", metavar="FILE")
    out: Path = option(help="result, JSON", metavar="FILE")
    train: str | None = option(
        None, "the training rows: which labels there are, and what the baselines learn from", MEASURE, metavar="FILE"
    )
    answers: str | None = option(
        None, 'grade these answers instead of a model\'s: JSON Lines of {"id", "output"}', MEASURE, metavar="FILE"
    )
    calibrate: bool = option(False, "divide the likelihood of a label by its likelihood without a text", MEASURE)
    shots: int = option(0, "solved rows of --train before each question (few-shot), drawn by --seed", MEASURE, least=0)
    max_length: int = option(
        2048, "tokens of a question at most, and of each of the --shots; a longer text is cut at its end", SAMPLING,
        least=1,
    )  # fmt: skip
    max_new_tokens: int | None = option(
        None, f"tokens of an answer at most (default: {', '.join(f'{task} {n}' for task, n in NEW_TOKENS.items())})",
        SAMPLING, least=1,
    )  # fmt: skip
    seed: int = option(0, "seed of the bootstrap and of the shots")

    def __post_init__(self) -> None:
        """UserError for options that contradict each other."""
        self.refuse_unless_one(model=self.model, answers=self.answers)
        if self.calibrate and not self.model:
            raise UserError("--calibrate goes with --model, not with --answers")
        if self.shots and not (self.model and self.train):
            raise UserError("--shots goes with --model, and takes its rows from --train")


def main() -> None:
    """Command line: answer (or read the answers), grade, write the result, print a short table."""
    # the rows, and their task
    options = parse(Options, description=__doc__)
    train = read_rows(options.train) if options.train else []
    rows = read_rows(options.data, trained=train)
    task = task_in(rows, options.task, where=options.data)
    learnt_from = read_training_tasks(train, where=str(options.train))
    shots = choose_shots(train, options.shots, where=str(options.train), seed=options.seed)

    # answers of the model, or given ones
    if options.answers:
        tasks = read_text_tasks(rows, where=options.data)
        result = grade(task, tasks, read_answers(options.answers), seed=options.seed) | {"task": task, "shortened": 0}
    else:
        with asked_model(options) as (decoder, tokenizer):
            asked = text_tasks(
                decoder, tokenizer, task, rows, where=options.data, max_length=options.max_length,
                max_new_tokens=options.max_new_tokens, calibrate=options.calibrate, shots=shots,
            )  # fmt: skip
            tasks, result = asked.tasks, ask(decoder, tokenizer, asked, seed=options.seed)

    # what needs no model, on the same tasks
    result["baselines"], missing = baselines(task, learnt_from, tasks, seed=options.seed)
    result["changes"] = {name: changes_over(one, result) for name, one in result["baselines"].items()}
    result["settings"] = {name: str(value) for name, value in as_settings(options, without=("out",)).items()}
    write_json(options.out, result)
    print("\n".join([text_table(result), *(f"no baseline of {line}" for line in missing)]))


def read_answers(path: str) -> dict[str, str]:
    """Given answers by id. UserError for one that is no answer, and for a second answer to a task."""
    rows = read_objects(path)
    for number, row in enumerate(rows, start=1):
        if "id" not in row or not isinstance(row.get("output"), str):
            raise UserError(f'{path}:{number}: an answer needs "id" and "output"')
    answers = {str(row["id"]): row["output"] for row in rows}
    if len(answers) < len(rows):
        raise UserError(f"{path}: {len(rows) - len(answers)} answers are to a task that has one already")
    return answers


if __name__ == "__main__":
    sys.exit(run_command(main, needs_less_with=LESS_MEMORY))
