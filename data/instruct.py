"""Instruction pairs made from a corpus by parsing it, each executed gold proven in the sandbox before it is used."""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data.checks import judge, run_in_sandbox
from data.corpus import SPLITS, Corpus, open_corpus
from data.functions import Function, functions_of, held_apart, place
from data.split import seeded_order
from data.tasks import INSTRUCTIONS, Draft, Repository, Unsuitable, draft
from data.unit_tests import repository_tests
from model.console import UserError, run_command
from model.files import write_jsonl

CATEGORIES = tuple(INSTRUCTIONS)
SPARE = {"bugfix": 1.3}  # drafts proven per pair wanted: many mutants survive the examples; others 1


@dataclass(frozen=True)
class InstructionPairs:
    """Pairs by side of the split, and rejects: {"path", "qualname", "category", "split", "reason"}."""

    train: list[dict]
    validation: list[dict]
    test: list[dict]
    rejects: list[dict]

    def split(self, name: str) -> list[dict]:
        """The pairs of "train", "validation" or "test"."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]


@dataclass
class _Quota:
    """How far one category of one side has come."""

    split: str
    category: str
    wanted: int
    drafts: Iterator[Draft]
    kept: list[dict] = field(default_factory=list)
    exhausted: bool = False

    def next_drafts(self) -> list[Draft]:
        count = math.ceil((self.wanted - len(self.kept)) * SPARE.get(self.category, 1.0))
        taken = [one for _, one in zip(range(count), self.drafts, strict=False)]
        self.exhausted = len(taken) < count
        return taken


def build_instruction_pairs(
    corpus: Corpus,
    *,
    count: int = 400,
    test_count: int = 60,
    validation_count: int = 24,
    most_input: int = 2400,
    most_output: int = 700,
    seed: int = 0,
) -> InstructionPairs:
    """Pairs of six categories, equally many of each as far as the corpus allows, on the sides of its split.

    count, test_count, validation_count   pairs wanted on each side, over all categories
    most_input, most_output               characters of instruction + input, and of output
    Raises UserError when the corpus has no function that gives a pair.
    """
    functions, rejects = held_apart([one for file in corpus.files for one in functions_of(file)])
    texts = {file.path: file.text for file in corpus.files}
    repository = Repository(corpus.source, texts, repository_tests(corpus), most_input, most_output, seed)
    wanted = {"train": count, "validation": validation_count, "test": test_count}
    quotas = []
    for split in SPLITS:
        side = _shuffled([function for function in functions if function.split == split], seed)
        for position, category in enumerate(CATEGORIES):
            share = wanted[split] // len(CATEGORIES) + (position < wanted[split] % len(CATEGORIES))
            quotas.append(_Quota(split, category, share, _drafts(side, category, repository, rejects)))
    while open_quotas := [one for one in quotas if len(one.kept) < one.wanted and not one.exhausted]:
        _prove(open_quotas, rejects)
    pairs = {split: [pair for one in quotas if one.split == split for pair in one.kept] for split in SPLITS}
    if not pairs["train"]:
        raise UserError(f"{corpus.name}: no function of the train files gives a pair. Give a corpus with docstrings")
    return InstructionPairs(pairs["train"], pairs["validation"], pairs["test"], rejects)


def _shuffled(functions: list[Function], seed: int) -> list[Function]:
    by_name = {f"{function.path}:{function.first_line}": function for function in functions}
    return [by_name[name] for name in seeded_order(list(by_name), seed)]


def _drafts(functions: list[Function], category: str, repository: Repository, rejects: list[dict]) -> Iterator[Draft]:
    """Drafts one by one, as many as are asked for. The same functions come first in every category: what proves the
    original is then one job for several pairs."""
    for function in sorted(functions, key=lambda function: not function.examples):
        try:
            yield draft(category, function, repository)
        except Unsuitable as why:
            rejects.append({**place(function), "category": category, "split": function.split, "reason": str(why)})


def _prove(quotas: list[_Quota], rejects: list[dict]) -> None:
    """Run one batch of drafts through the sandbox and keep those that hold, up to what each quota wants."""
    drafts = [(quota, one) for quota in quotas for one in quota.next_drafts()]
    proofs = [proof for _, one in drafts for proof in [*one.right, *one.wrong]]
    results = iter(run_in_sandbox([job for _, jobs in proofs for job in jobs]))
    for quota, one in drafts:
        right = [(check, [next(results) for _ in jobs]) for check, jobs in one.right]
        wrong = [(check, [next(results) for _ in jobs]) for check, jobs in one.wrong]
        reason = None
        if not all(judge(check, outcome) for check, outcome in right):
            reason = "its test does not hold" if quota.category == "unit_test" else "its examples do not pass"
        elif any(judge(check, outcome) for check, outcome in wrong):
            reason = "its examples pass on the wrong code too"
        if reason:
            source = one.pair["source"]
            found = {"path": source["path"], "qualname": source["qualname"]}
            rejects.append({**found, "category": quota.category, "split": quota.split, "reason": reason})
        elif len(quota.kept) < quota.wanted:
            quota.kept.append(_with_killed_mutants(one.pair, right))


def _with_killed_mutants(pair: dict, right: list[tuple[dict, list[dict]]]) -> dict:
    """A unit-test pair keeps the mutants that its gold kills: no answer is asked to do more."""
    if pair["category"] != "unit_test":
        return pair
    check, outcome = right[0]
    first = outcome[0]
    killed = [
        mutant for mutant, result in zip(check["mutants"], outcome[1:], strict=True) if judge(check, [first, result])
    ]
    return {**pair, "check": {**check, "mutants": killed}}


def describe(pairs: InstructionPairs) -> str:
    """Pairs by category and side, and rejects by reason, as a small table."""
    counts = {split: Counter(pair["category"] for pair in pairs.split(split)) for split in SPLITS}
    lines = [f"{'category':<12}" + "".join(f"{split:>12}" for split in SPLITS)]
    for category in CATEGORIES:
        lines.append(f"{category:<12}" + "".join(f"{counts[split][category]:>12}" for split in SPLITS))
    lines.append(f"{'all':<12}" + "".join(f"{len(pairs.split(split)):>12}" for split in SPLITS))
    for reason, count in Counter(reject["reason"] for reject in pairs.rejects).most_common():
        lines.append(f"rejected {count:>5}  {reason}")
    return "\n".join(lines)


def main() -> None:
    """Make instruction pairs from a corpus: train.jsonl, validation.jsonl, test.jsonl, rejects.jsonl."""
    parser = argparse.ArgumentParser(prog="python -m data.instruct", description=main.__doc__)
    parser.add_argument("corpus", help="a folder written by data.corpus, or any SOURCE that it takes")
    parser.add_argument("--out", required=True, type=Path, help="folder to write into")
    parser.add_argument("--count", type=int, default=400, help="training pairs wanted (default 400)")
    parser.add_argument("--test-count", type=int, default=60, help="test pairs wanted (default 60)")
    parser.add_argument("--validation-count", type=int, default=24, help="validation pairs wanted (default 24)")
    parser.add_argument(
        "--most-input", type=int, default=2400, help="characters of instruction and input (default 2400)"
    )
    parser.add_argument("--most-output", type=int, default=700, help="characters of output (default 700)")
    parser.add_argument("--seed", type=int, default=0, help="seed of every draw (default 0)")
    options = parser.parse_args()
    pairs = build_instruction_pairs(
        open_corpus(options.corpus, seed=options.seed), count=options.count, test_count=options.test_count,
        validation_count=options.validation_count, most_input=options.most_input, most_output=options.most_output,
        seed=options.seed,
    )  # fmt: skip
    for split in SPLITS:
        write_jsonl(options.out / f"{split}.jsonl", pairs.split(split))
    write_jsonl(options.out / "rejects.jsonl", pairs.rejects)
    print(describe(pairs))


if __name__ == "__main__":
    sys.exit(run_command(main))
