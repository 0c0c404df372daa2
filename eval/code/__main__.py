"""Code tasks: a model's answers, or given ones, run in the sandbox and counted as pass@k.

    python -m eval.code --tasks mbpp --model M [--adapter A] --samples 10 --k 1 3 --out result.json
    python -m eval.code --tasks F.jsonl --answers answers.jsonl --out result.json
    python -m eval.code --tasks humaneval --gold --out gold.json       # do the tasks' own solutions pass?

A run that was stopped goes on when it is started again with the same --out.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from common.console import UserError, run_command
from common.files import read_jsonl, read_text, write_json
from common.markdown import fenced
from eval.code.ask import ask
from eval.code.grade import choose_ks, grade
from eval.code.javascript import node_command
from eval.code.task_files import NAMED, SPLITS, read_code_tasks
from eval.code.tasks import CodeTask
from eval.model_options import LESS_MEMORY, add_model_options, add_sampling_options, asked_model, refuse_lone_adapter
from sandbox.run import protection


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m eval.code", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--model", help="folder, hub id, .gguf file or embedded default whose answers are graded")
    who.add_argument("--answers", help='grade these answers: JSON Lines of {"task_id", "completion"}')
    who.add_argument("--gold", action="store_true", help="grade the tasks' own solutions")
    parser.add_argument("--tasks", required=True, help=f"{', '.join(NAMED)} or a file (see docs/formats.md)")
    parser.add_argument("--split", choices=[*SPLITS, "all"], help="of MBPP's numbers (default: test for its own files)")
    add_model_options(parser)
    parser.add_argument("--out", required=True, type=Path, help="result file, JSON")
    parser.add_argument("--samples", type=int, default=10, help="sampled answers a task (default: %(default)s)")
    parser.add_argument("--k", type=int, nargs="+", help="the ks of pass@k (default: 1, and 3 from 10 samples on)")
    parser.add_argument(
        "--prompt", choices=["auto", "chat", "plain"], default="auto", help="auto: chat if the model has a template"
    )
    add_sampling_options(parser, max_new_tokens=512)
    options = parser.parse_args()
    refuse_lone_adapter(options)
    if options.k and options.gold:
        raise UserError("--gold has one answer a task: leave out --k")
    if options.model:
        choose_ks(options.samples, options.k)
    return options


def _ask_model(options: argparse.Namespace, tasks: list[CodeTask]) -> list[dict]:
    identity = [options.model, options.quantize]
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
            identity=" ".join(identity),
            keep=options.out.with_suffix(".answers.jsonl"),
        )


def _gold_answers(tasks: list[CodeTask]) -> list[dict]:
    return [
        {"task_id": task.task_id, "completion": fenced(task.gold or "", "python"), "sample": "greedy"} for task in tasks
    ]


def _print(result: dict, out: Path) -> None:
    for metric, value in result["metrics"].items():
        low, high = result["intervals"][metric]
        print(f"{metric:15} {value:6.3f}  [{low:.3f}, {high:.3f}]  n = {result['n']}")
    counts = Counter(row["status"] for row in result["results"])
    print("answers         " + ", ".join(f"{count} {status}" for status, count in counts.most_common()))
    gold = result["gold"]
    if gold["n"]:
        failed = f"; not {', '.join(gold['failed'])}" if gold["failed"] else ""
        print(f"gold            {gold['passed']} of {gold['n']} pass{failed}")
    print(f"{result['n']} tasks, {len(result['results'])} answers -> {out}")


def main() -> None:
    """Command line: answer (or read the answers), grade, write the result, print a short table."""
    options = _parse_options()
    tasks = read_code_tasks(options.tasks, options.split)
    protection(allow_unsafe_exec=options.allow_unsafe_exec)  # refuse before minutes of sampling, not after
    for language in {task.language for task in tasks} - {"python"}:
        node_command(language)
    if options.answers:
        answers = read_jsonl(options.answers)
    else:
        answers = _gold_answers(tasks) if options.gold else _ask_model(options, tasks)
    keep = options.out.with_suffix(".kept.jsonl")
    limits = {"processes": options.processes, "allow_unsafe_exec": options.allow_unsafe_exec}
    result = grade(tasks, answers, ks=options.k, keep=keep, where=options.answers or "answers", **limits)
    result["settings"] = {name: str(v) if isinstance(v, Path) else v for name, v in vars(options).items()}
    write_json(options.out, result)
    keep.unlink(missing_ok=True)
    _print(result, options.out)


if __name__ == "__main__":
    sys.exit(run_command(main, needs_less_with=LESS_MEMORY))
