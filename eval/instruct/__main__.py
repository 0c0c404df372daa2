"""The command `python -m eval.instruct`."""

from __future__ import annotations

import argparse
import sys

from common.console import UserError, run_command
from common.files import read_jsonl, write_json
from eval.instruct.grade import answer_pairs, checked_pairs, grade_answers
from eval.model_options import LESS_MEMORY, add_model_options, add_sampling_options, asked_model, refuse_lone_adapter
from sandbox.run import protection


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m eval.instruct", description=__doc__.split("\n\n")[0])
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--model", help="folder, hub id, .gguf file or embedded default whose answers are graded")
    who.add_argument("--answers", help='grade these answers instead: JSON Lines of {"id", "output", "sample"}')
    add_model_options(parser)
    parser.add_argument("--data", required=True, help="instruction pairs with checks, JSON Lines")
    parser.add_argument("--out", required=True, help="result file, JSON")
    parser.add_argument("--samples", type=int, default=10, help="sampled answers a task, for k > 1 (default: 10)")
    parser.add_argument("--k", type=int, nargs="+", default=[1, 3], help="the ks of pass@k; 1 is greedy (default: 1 3)")
    add_sampling_options(parser, max_new_tokens=256)
    options = parser.parse_args()
    if min(options.k) < 1:
        raise UserError("--k takes whole numbers from 1 on")
    if options.model and max(options.k) > 1 and options.samples <= max(options.k):
        raise UserError(f"--samples {options.samples} is too few for pass@{max(options.k)}: give more than that")
    refuse_lone_adapter(options)
    return options


def _ask_model(options: argparse.Namespace, pairs: list[dict]) -> list[dict]:
    with asked_model(options) as (decoder, tokenizer):
        return answer_pairs(
            decoder,
            tokenizer,
            pairs,
            samples=options.samples if max(options.k) > 1 else 0,
            temperature=options.temperature,
            top_p=options.top_p,
            max_new_tokens=options.max_new_tokens,
            seed=options.seed,
            where=options.data,
        )


def main() -> None:
    """Command line: answer (or read the answers), grade, write the result, print a short table."""
    options = _parse_options()
    pairs = read_jsonl(options.data)
    checked_pairs(pairs)
    protection(allow_unsafe_exec=options.allow_unsafe_exec)  # refuse before minutes of sampling, not after
    answers = read_jsonl(options.answers) if options.answers else _ask_model(options, pairs)
    limits = {"processes": options.processes, "allow_unsafe_exec": options.allow_unsafe_exec}
    result = grade_answers(pairs, answers, ks=tuple(options.k), **limits)
    result["settings"] = {name: value for name, value in vars(options).items() if name != "out"}
    write_json(options.out, result)
    for metric, value in result["metrics"].items():
        low, high = result["intervals"][metric]
        gold = result["gold"]["metrics"].get(metric)  # of hallucination, that is the rate of false positives
        beside = "" if gold is None else f"  (the pairs' own answers: {gold:.3f})"
        print(f"{metric:20} {value:6.3f}  [{low:.3f}, {high:.3f}]  n = {result['n_of'][metric]}{beside}")
    for kind, count in result["hallucination"].items():
        print(f"  invented {kind:11} {count['invented']:4} of {count['checked']:,} names looked up")
    print(f"{result['n']} tasks, {len(answers)} answers -> {options.out}")


if __name__ == "__main__":
    sys.exit(run_command(main, needs_less_with=LESS_MEMORY))
