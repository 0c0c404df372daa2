"""Run a model's answers to code tasks, or given answers, in the sandbox and measure pass@k, valid syntax and length.

    python -m eval.code --tasks mbpp --model M [--adapter A] --samples 10 --k 1 3 --out result.json
    python -m eval.code --tasks F.jsonl --answers answers.jsonl --out result.json
    python -m eval.code --tasks humaneval --gold --out gold.json       # do the tasks' own solutions pass?

Each figure also by type of task, and every failure with its cause. Rerun an interrupted run with the same --out to
resume it.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from common.console import UserError, run_command
from common.files import read_objects, read_text, write_json
from common.markdown import fenced
from common.options import as_settings, option, parse
from data.checks.node import node_command
from eval.code.ask import ask
from eval.code.grade import choose_ks, grade
from eval.code.task_files import NAMED, SPLITS, read_code_tasks
from eval.code.tasks import DRAW, CodeTask, drawn
from eval.model_options import LESS_MEMORY, MEASURE, MODEL, SAMPLING, AskOptions, SampleOptions, asked_model
from sandbox.run import protection


@dataclass(frozen=True, kw_only=True)
class Options(AskOptions, SampleOptions):
    """Options of this command."""

    tasks: str = option(help=f"{', '.join(NAMED)}, or a file of tasks (docs/formats.md)")
    out: Path = option(help="result, JSON", metavar="FILE")
    answers: str | None = option(
        None, 'grade these answers instead of a model\'s: JSON Lines of {"task_id", "completion"}', MEASURE,
        metavar="FILE",
    )  # fmt: skip
    gold: bool = option(False, "grade the tasks' own solutions instead", MEASURE)
    split: str | None = option(
        None, "split of MBPP, by task number (default: test for MBPP's own files)", MEASURE, choices=(*SPLITS, "all")
    )
    limit: int | None = option(
        None, "measure this many tasks, by a draw that is the same for every model (default: all)", MEASURE, least=1
    )
    k: tuple[int, ...] | None = option(None, "ks of pass@k (default: 1, and 3 from 10 samples on)", MEASURE)
    prompt: str = option(
        "auto", "form of the prompt; auto: chat if the model has a template", MODEL, choices=("auto", "chat", "plain")
    )
    sampled_tasks: int | None = option(
        None, "tasks that are also sampled, by the same draw; the others are answered greedily alone (default: all)",
        SAMPLING, least=1,
    )  # fmt: skip
    max_new_tokens: int = option(512, "tokens of an answer at most", SAMPLING)

    def __post_init__(self) -> None:
        """UserError for options that contradict each other."""
        self.refuse_unless_one(model=self.model, answers=self.answers, gold=self.gold)
        if self.k and self.gold:
            raise UserError("--gold has one answer per task: omit --k")
        if self.model:
            choose_ks(self.samples, self.k)


def _ask_model(options: Options, tasks: list[CodeTask]) -> list[dict]:
    identity = [str(options.model), options.quantize]
    if options.chat_template:
        identity += [read_text(options.chat_template)]
    if options.adapter:
        identity += [f"{path.name} {path.stat().st_mtime_ns}" for path in sorted(Path(options.adapter).iterdir())]
    with asked_model(options) as (decoder, tokenizer):
        return ask(
            decoder,
            tokenizer,
            tasks,
            chat=options.prompt == "chat" or (options.prompt == "auto" and tokenizer.chat_template is not None),
            samples=options.samples,
            temperature=options.temperature,
            top_p=options.top_p,
            max_new_tokens=options.max_new_tokens,
            seed=options.seed,
            sampled=options.sampled_tasks,
            identity=" ".join(identity),
            keep=options.out.with_suffix(".answers.jsonl"),
        )


def _gold_answers(tasks: list[CodeTask]) -> list[dict]:
    return [
        {"task_id": task.task_id, "completion": fenced(task.gold or "", "python"), "sample": "greedy"} for task in tasks
    ]


def _of_tasks(answers: list[dict], tasks: list[CodeTask], drawn_ids: set[str]) -> list[dict]:
    """The given answers to the tasks that were drawn; prints how many belong to others."""
    others = {task.task_id for task in tasks} - drawn_ids
    kept = [answer for answer in answers if str(answer.get("task_id")) not in others]
    if len(kept) < len(answers):
        print(
            f"{len(answers) - len(kept)} of {len(answers)} answers are to tasks that --limit did not draw: not graded"
        )
    return kept


def _print(result: dict, out: Path) -> None:
    for metric, value in result["metrics"].items():
        low, high = result["intervals"][metric]
        print(f"{metric:18} {value:7.3f}  [{low:.3f}, {high:.3f}]  n = {result['n_of'][metric]}")
    metric = next(iter(result["metrics"]))
    for kind, of_type in result["by_type"].items():
        if metric in of_type["metrics"]:
            low, high = of_type["intervals"][metric]
            rate = f"{of_type['metrics'][metric]:7.3f}  [{low:.3f}, {high:.3f}]  n = {of_type['n_of'][metric]}"
            print(f"  {metric} of {kind:22} {rate}")
    counts = Counter(row["status"] for row in result["results"])
    print("answers            " + ", ".join(f"{count} {status}" for status, count in counts.most_common()))
    if result["causes"]:
        print("failures           " + ", ".join(f"{count} {cause}" for cause, count in result["causes"].items()))
    gold = result["gold"]
    if gold["n"]:
        failed = f"; not {', '.join(gold['failed'])}" if gold["failed"] else ""
        print(f"gold               {gold['passed']} of {gold['n']} pass{failed}")
    print(f"{result['n']} tasks, {len(result['results'])} answers -> {out}")


def main() -> None:
    """Command line: answer (or read the answers), grade, write the result, print a short table."""
    options = parse(Options, description=__doc__)
    every_task = read_code_tasks(options.tasks, options.split)
    tasks = drawn(every_task, options.limit)
    protection(allow_unsafe_exec=options.allow_unsafe_exec)  # refuse before minutes of sampling, not after
    for language in {task.language for task in tasks} - {"python"}:
        node_command(language)
    if options.answers:
        answers = _of_tasks(read_objects(options.answers), every_task, {task.task_id for task in tasks})
    else:
        answers = _gold_answers(tasks) if options.gold else _ask_model(options, tasks)
    keep = options.out.with_suffix(".kept.jsonl")
    limits = {"processes": options.processes, "allow_unsafe_exec": options.allow_unsafe_exec}
    result = grade(tasks, answers, ks=options.k, keep=keep, where=options.answers or "answers", **limits)
    result["settings"] = as_settings(options)
    result["drawn"] = {"n": len(tasks), "of": len(every_task), "seed": DRAW}
    write_json(options.out, result)
    keep.unlink(missing_ok=True)
    _print(result, options.out)


if __name__ == "__main__":
    sys.exit(run_command(main, needs_less_with=LESS_MEMORY))
