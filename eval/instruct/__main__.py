"""Grade a model's answers to instruction pairs, or given answers, by execution, style and invented names.

    python -m eval.instruct --model M [--adapter A] --data test.jsonl --out result.json
    python -m eval.instruct --answers answers.jsonl --data test.jsonl --out result.json

Code runs in the sandbox; the pairs' own answers are graded too, as a reference.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from common.console import UserError, run_command
from common.files import read_objects, write_json
from common.options import as_settings, option, parse
from eval.environment import environment
from eval.instruct.grade import answer_pairs, checked_pairs, grade_answers
from eval.model_options import LESS_MEMORY, MEASURE, SAMPLING, AskOptions, SampleOptions, asked_model
from sandbox.run import protection


@dataclass(frozen=True, kw_only=True)
class Options(AskOptions, SampleOptions):
    """Options of this command."""

    data: str = option(help="instruction pairs with checks, JSON Lines", metavar="FILE")
    out: str = option(help="result, JSON", metavar="FILE")
    answers: str | None = option(
        None, 'grade these answers instead of a model\'s: JSON Lines of {"id", "output", "sample"}', MEASURE,
        metavar="FILE",
    )  # fmt: skip
    sampled_tasks: int | None = option(
        None, "tasks that are also sampled, executed ones first (default: all)", SAMPLING, least=1
    )
    k: tuple[int, ...] = option((1, 3), "ks of pass@k; 1 is measured on the greedy answer", MEASURE, least=1)

    def __post_init__(self) -> None:
        """UserError for options that contradict each other."""
        self.refuse_unless_one(model=self.model, answers=self.answers)
        if self.model and max(self.k) > 1 and self.samples <= max(self.k):
            raise UserError(f"--samples {self.samples} is too few for pass@{max(self.k)}: give more than that")


def _ask_model(options: Options, pairs: list[dict]) -> tuple[list[dict], dict]:
    """The answers, and the environment that they come from: device and dtype."""
    with asked_model(options) as (decoder, tokenizer):
        answers = answer_pairs(
            decoder,
            tokenizer,
            pairs,
            samples=options.samples if max(options.k) > 1 else 0,
            sampled=options.sampled_tasks,
            temperature=options.temperature,
            top_p=options.top_p,
            max_new_tokens=options.max_new_tokens,
            seed=options.seed,
            where=options.data,
        )
        return answers, environment(decoder.device, decoder.model.norm.weight.dtype)


def main() -> None:
    """Command line: answer (or read the answers), grade, write the result, print a short table."""
    options = parse(Options, description=__doc__)
    pairs = read_objects(options.data)
    checked_pairs(pairs)
    protection(allow_unsafe_exec=options.allow_unsafe_exec)  # refuse before minutes of sampling, not after
    answers, asked_in = (read_objects(options.answers), {}) if options.answers else _ask_model(options, pairs)
    limits = {"processes": options.processes, "allow_unsafe_exec": options.allow_unsafe_exec}
    result = grade_answers(pairs, answers, ks=options.k, **limits)
    result["environment"] |= asked_in
    result["settings"] = as_settings(options, without=("out",))
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
