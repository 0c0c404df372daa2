"""Rejection-sampling fine-tuning, one round: a model's own answers that pass their checks become training pairs.

    python -m data.rejection_sampling --model MODEL --data pairs/train.jsonl --out DIR

    tasks ──► n answers each ──► run by the task's check ──► at most m different ones that pass ──► + gold ──► DIR

Only answers whose check executes code are trusted; the repository's own answers (gold) are mixed in, those of unsolved
tasks first. Yuan et al., "Scaling relationship on learning mathematical reasoning" (arXiv:2308.01825), names the method
and keeps distinct answers; STaR (Zelikman et al., arXiv:2203.14465) repeats it in rounds, as self_improve.py does.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common.console import UserError, run_command
from common.files import write_json, write_jsonl
from common.options import as_settings, option, parse
from common.python_syntax import parsed
from common.shuffle import seeded_order
from data.checks import EXECUTED
from data.instruct.judging import judge_answers
from data.instruct.local_model import LocalModel
from data.instruct.pair_filters import normalized
from data.instruct.replies import Reply
from data.rows import conversation_of, read_rows

SCHEMA = 1
SAMPLING = "sampling"
KEEPING = "what to keep"


@dataclass
class Round:
    """What one round found.

    pairs   rows to train on: kept answers, each with "self": {"model", "sample", "passed", "samples"}, and gold
    answers rows of the judged answers, as data.instruct.judging gives them, with "sample"
    """

    pairs: list[dict]
    answers: list[dict]
    summary: dict = field(default_factory=dict)


def build_round(
    pairs: Sequence[dict], replies: Sequence[Sequence[Reply | None]], *, model: str, most: int, gold_share: float,
    seed: int,
) -> Round:  # fmt: skip
    """The training pairs of a round.

    pairs       instruction pairs with checks and gold outputs
    replies     [pairs][samples] sampled answers; those of a pair whose check executes nothing are ignored
    most        different passing answers to keep of a task
    gold_share  share of the round's pairs that are the repository's own, as far as there are enough
    Raises UserError if no answer passes.
    """
    asked = [
        (pair, number, reply)
        for pair, of_pair in zip(pairs, replies, strict=True)
        if pair["check"]["kind"] in EXECUTED
        for number, reply in enumerate(of_pair)
        if reply is not None
    ]
    judged = judge_answers(
        [pair for pair, _, _ in asked], [{"output": reply.text, "stopped": reply.stopped} for _, _, reply in asked]
    )
    answers = [{**row, "sample": number} for row, (_, number, _) in zip(judged, asked, strict=True)]
    by_id: dict[str, list[dict]] = defaultdict(list)
    for row in answers:
        by_id[row["id"]].append(row)
    passing = {i: [row for row in rows if row["status"] == "pass" and row["stopped"]] for i, rows in by_id.items()}
    kept: list[dict] = []
    for pair in pairs:
        for row in farthest_apart(passing.get(pair["id"], []), most):
            told = {"model": model, "sample": row["sample"]}
            told |= {"passed": len(passing[pair["id"]]), "samples": len(by_id[pair["id"]])}
            kept.append(
                {**pair, "id": f"{pair['id']}#{row['sample']}", "output": row["output"].strip("\n"), "self": told}
            )
    if not kept:
        raise UserError(f"{model}: none of {len(answers)} sampled answers passes its check; nothing to train on")
    solved = {i for i, rows in passing.items() if rows}
    gold = gold_pairs(pairs, solved, count=round(len(kept) * gold_share / (1 - gold_share)), seed=seed)
    return Round([*kept, *gold], answers, _summary(pairs, by_id, passing, kept=len(kept), gold=len(gold)))


def farthest_apart(rows: list[dict], most: int) -> list[dict]:
    """At most `most` different answers: the most frequent one, then whichever is farthest from those chosen.

    Answers are equal if they are the same program apart from layout and comments. The distance of an answer is its
    shortest token edit distance to one that is chosen.
    """
    groups: dict[str, list[dict]] = defaultdict(list)
    for row in rows:
        groups[program(row)].append(row)
    different = [group[0] for group in sorted(groups.values(), key=len, reverse=True)]  # stable: first among equals
    chosen = different[: min(most, 1)]
    texts = {id(row): _tokens(row["code"] or row["output"]) for row in different}
    while len(chosen) < min(most, len(different)):
        rest = [row for row in different if not any(row is one for one in chosen)]
        chosen.append(max(rest, key=lambda row: min(edit_distance(texts[id(row)], texts[id(one)]) for one in chosen)))
    return chosen


def edit_distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Levenshtein distance of two sequences: the least number of insertions, deletions and substitutions."""
    numbers = {token: number for number, token in enumerate({*first, *second})}
    codes = np.array([numbers[token] for token in second], dtype=np.int64)
    steps = np.arange(len(second) + 1)
    row = steps.copy()  # distances of the empty prefix to each prefix of `second`
    for done, token in enumerate(first, 1):
        changed = np.minimum(row[1:] + 1, row[:-1] + (codes != numbers[token]))
        best = np.concatenate([[done], changed])
        row = np.minimum.accumulate(best - steps) + steps  # insertions run along the row
    return int(row[-1])


def gold_pairs(pairs: Sequence[dict], solved: set[str], *, count: int, seed: int) -> list[dict]:
    """`count` of the pairs as they are, those of unsolved tasks first, in a seeded order."""
    by_id = {pair["id"]: pair for pair in pairs}
    order = sorted(seeded_order(list(by_id), seed), key=lambda i: i in solved)
    return [by_id[i] for i in order[:count]]


def _summary(pairs: Sequence[dict], answered: dict, passing: dict, *, kept: int, gold: int) -> dict:
    """Counts and shares of a round, also by category."""

    def of(ids: Iterable[str]) -> dict:
        ids = [i for i in ids if answered.get(i)]
        rows = [row for i in ids for row in answered[i]]
        right = [row for i in ids for row in passing[i]]
        solved = [i for i in ids if passing[i]]
        return {
            "tasks": len(ids),
            "answers": len(rows),
            "passed": _share(len(right), len(rows)),  # of the answers
            "solved": _share(len(solved), len(ids)),  # of the tasks, by at least one answer
            "distinct": _share(sum(len({program(row) for row in passing[i]}) for i in solved), len(solved)),
            "characters": _share(sum(len(row["output"]) for row in right), len(right)),
            "hallucinated": _share(sum(bool(row["hallucinated"]) for row in rows), len(rows)),
        }

    categories = dict.fromkeys(pair["category"] for pair in pairs)
    ids = {category: [pair["id"] for pair in pairs if pair["category"] == category] for category in categories}
    by_category = {category: of(ids[category]) for category in categories}
    by_category = {category: found for category, found in by_category.items() if found["tasks"]}
    return {**of(pair["id"] for pair in pairs), "kept": kept, "gold": gold, "by_category": by_category}


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def program(row: dict) -> str:
    """What makes two answers the same: the tree of their code, else the text without layout."""
    tree = parsed(row["code"]) if row["code"] else None
    return ast.dump(tree) if tree else normalized(row["output"])


def _tokens(text: str) -> list[str]:
    try:
        return [token.string for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.string.strip()]
    except (tokenize.TokenError, SyntaxError):
        return text.split()


def write_round(
    model: LocalModel, pairs: list[dict], folder: Path, *, samples: int, most: int, gold_share: float, seed: int,
    settings: dict,
) -> dict:  # fmt: skip
    """Answer the executed pairs, keep what passes, write train.jsonl, answers.jsonl and about.json; the summary.

    samples   answers per pair; the others are as for `build_round`
    settings  what about.json records of how the round was made
    Raises UserError, and writes nothing, if no answer passes.
    """
    executed = [pair for pair in pairs if pair["check"]["kind"] in EXECUTED]
    asked = model.ask([conversation_of(pair).question.messages for pair in executed], samples=samples)
    replies = {pair["id"]: of_pair for pair, of_pair in zip(executed, asked, strict=True)}
    made = build_round(
        pairs, [replies.get(pair["id"], []) for pair in pairs], model=model.model, most=most, gold_share=gold_share,
        seed=seed,
    )  # fmt: skip
    write_jsonl(folder / "answers.jsonl", made.answers)
    write_jsonl(folder / "train.jsonl", made.pairs)
    about = {"schema": SCHEMA, "kind": "rejection sampling", "options": settings, "summary": made.summary}
    write_json(folder / "about.json", about)
    return made.summary


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this command."""

    GROUPS = (SAMPLING, KEEPING)

    model: str = option(help="folder, .gguf file, hub id or embedded default that answers")
    data: str = option(help="instruction pairs with checks, JSON Lines (python -m data.instruct)", metavar="FILE")
    out: Path = option(help="folder to write: train.jsonl, answers.jsonl, about.json", metavar="DIR")
    samples: int = option(8, "answers per task", SAMPLING, least=1)
    temperature: float = option(0.8, "temperature of the answers", SAMPLING, least=0)
    max_new_tokens: int = option(256, "tokens of an answer at most", SAMPLING, least=1)
    chat_template: str | None = option(None, "Jinja file (default: the model's own template)", SAMPLING, metavar="FILE")
    device: str = option("auto", "auto, cpu, cuda or cuda:N", SAMPLING)
    keep: int = option(2, "different passing answers of a task to keep", KEEPING, least=1)
    gold_share: float = option(
        0.5, "share of the pairs that are the repository's own, 0 to 1 (excluded)", KEEPING, least=0
    )
    seed: int = option(0, "seed of the choice of the repository's own answers", KEEPING)

    def __post_init__(self) -> None:
        """UserError for a share that leaves no room for the model's answers."""
        if not self.gold_share < 1:
            raise UserError(f"--gold-share {self.gold_share:g}: give less than 1")


def executed_pairs(path: str) -> list[dict]:
    """The pairs of a file. UserError if one lacks what a check needs, or none is executed."""
    pairs = read_rows(path)
    for number, pair in enumerate(pairs, 1):
        if missing := [name for name in ("id", "category", "input", "output", "check") if name not in pair]:
            raise UserError(f"{path}:{number}: no {', '.join(missing)}; only pairs of data.instruct can be checked")
    if not any(pair["check"]["kind"] in EXECUTED for pair in pairs):
        raise UserError(f"{path}: no pair has a check that runs code; make pairs with --checks doctest values tests")
    return pairs


def main() -> None:
    """Sample answers, keep those that pass, mix in the repository's own, write the pairs."""
    options = parse(Options, description=__doc__)
    pairs = executed_pairs(options.data)
    model = LocalModel.load(
        options.model,
        cache=options.out / "answers.sqlite",
        device=options.device,
        chat_template=options.chat_template,
        temperature=options.temperature,
        max_tokens=options.max_new_tokens,
    )
    summary = write_round(
        model, pairs, options.out, samples=options.samples, most=options.keep, gold_share=options.gold_share,
        seed=options.seed, settings=as_settings(options, without=("out",)),
    )  # fmt: skip
    print(round_summary(summary))
    print(f"model    {model.summary()}")


def round_summary(summary: dict) -> str:
    """A line per category, and one for all."""
    lines = [f"{'category':<12}{'tasks':>8}{'answers':>9}{'passed':>8}{'solved':>8}{'distinct':>10}"]
    for name, found in [*summary["by_category"].items(), ("all", summary)]:
        distinct = "-" if found["distinct"] is None else f"{found['distinct']:.2f}"
        lines.append(
            f"{name:<12}{found['tasks']:>8}{found['answers']:>9}{found['passed']:>8.3f}{found['solved']:>8.3f}{distinct:>10}"
        )
    return "\n".join([*lines, f"kept     {summary['kept']} answers and {summary['gold']} of the repository's own"])


if __name__ == "__main__":
    sys.exit(run_command(main, needs_less_with="a smaller --model or --max-new-tokens"))
