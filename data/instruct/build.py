"""Instruction pairs made from a corpus by parsing it, each executed gold proven in the sandbox before it is used.

    python -m data.instruct CORPUS --out DIR --count 400 [--share bugfix=0.3 fim=0.1]
    python -m data.instruct CORPUS --out DIR --teacher http://localhost:8000 --teacher-model NAME

Without a teacher no language model takes part. With one (data/instruct/teaching.py), its answers take the place of the
repository's own where they hold what the check asks for.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from common.console import UserError
from data.checks import judge, refutes, run_in_sandbox
from data.checks.prove import KINDS, UNPROVEN, Checks
from data.corpus import SPLITS, Corpus
from data.corpus.functions import Function, functions_of, held_apart, place
from data.corpus.split import seeded_order
from data.instruct.pair_filters import Distinct, lint_problems, pair_text
from data.instruct.tasks import BEHAVIOUR, INSTRUCTIONS, Draft, Repository, Unsuitable, draft
from data.instruct.teacher import Teacher
from data.instruct.teaching import SYSTEM, TAUGHT, teach
from data.instruct.unit_tests import repository_tests

CATEGORIES = tuple(INSTRUCTIONS)
EQUAL = tuple(name for name in CATEGORIES if name != "fim")  # divide among them what no share is given for
SPARE = {"bugfix": 1.3, "fim": 1.2}  # drafts proven per pair wanted: changes survive the examples; others 1
SCHEMA = 1


@dataclass(frozen=True)
class InstructionPairs:
    """Pairs by side of the split, and rejects: {"path", "qualname", "category", "split", "reason"}.

    wanted  for each side how many pairs of each category were asked for
    lost    how many of the repository's own tests and test files were of no use as checks, by reason
    """

    train: list[dict]
    validation: list[dict]
    test: list[dict]
    rejects: list[dict]
    wanted: dict[str, dict[str, int]] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)

    def split(self, name: str) -> list[dict]:
        """The pairs of "train", "validation" or "test"."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]


@dataclass
class _Quota:
    """How far one category of one side has come."""

    split: str
    category: str
    wanted: int
    functions: Iterator[Function]
    kept: list[dict] = field(default_factory=list)
    exhausted: bool = False

    def missing(self) -> int:
        """How many drafts are needed next."""
        return math.ceil((self.wanted - len(self.kept)) * SPARE.get(self.category, 1.0))


def build_instruction_pairs(
    corpus: Corpus,
    *,
    count: int = 400,
    test_count: int = 60,
    validation_count: int = 24,
    most_input: int = 2400,
    most_output: int = 700,
    seed: int = 0,
    shares: dict[str, float] | None = None,
    checks: Sequence[str] = KINDS,
    teacher: Teacher | None = None,
    candidates: int = 4,
) -> InstructionPairs:
    """Pairs of several categories, as many of each as its share says and the corpus allows, on the sides of its split.

    count, test_count, validation_count   pairs wanted on each side, over all categories
    most_input, most_output               characters of instruction + input, and of output
    shares                                of some categories, 0 to 1; the others of EQUAL divide what is left
    checks                                kinds of checks of a function, in the order in which they are tried
    teacher, candidates                   answers the categories of data.instruct.teaching.TAUGHT, so often each
    Raises UserError when the corpus has no function that gives a pair, and for shares that do not add up.
    """
    counts = {"train": count, "validation": validation_count, "test": test_count}
    wanted = {split: category_counts(counts[split], shares) for split in SPLITS}
    functions, rejects = held_apart([one for file in corpus.files for one in functions_of(file)])
    texts = {file.path: file.text for file in corpus.files}
    found = Checks(functions, checks)
    repository = Repository(texts, repository_tests(corpus), found, most_input, most_output, seed)
    if teacher:
        repository = replace(repository, taught=frozenset(TAUGHT))
    quotas = []
    for split in SPLITS:
        side = _shuffled([function for function in functions if function.split == split], seed)
        for category, number in wanted[split].items():
            quotas.append(_Quota(split, category, number, iter(side)))
    distinct = Distinct()
    while open_quotas := [one for one in quotas if len(one.kept) < one.wanted and not one.exhausted]:
        proven = _proven(_drafts(open_quotas, repository, rejects), rejects)
        if teacher:
            proven = _taught(proven, teacher, candidates, most_output, rejects)
        _keep(proven, distinct, rejects)
    pairs = {split: [pair for one in quotas if one.split == split for pair in one.kept] for split in SPLITS}
    if not pairs["train"]:
        raise UserError(f"{corpus.name}: no function of the train files gives a pair. Give a corpus with docstrings")
    return InstructionPairs(pairs["train"], pairs["validation"], pairs["test"], rejects, wanted, dict(found.lost()))


def category_counts(count: int, shares: dict[str, float] | None = None) -> dict[str, int]:
    """How many pairs of each category make `count`, by largest remainders. UserError for shares that do not add up."""
    shares = shares or {}
    unknown = [name for name in shares if name not in CATEGORIES]
    if unknown:
        raise UserError(f"--share: no category {', '.join(unknown)}; there are {', '.join(CATEGORIES)}")
    exact = {name: Fraction(str(share)) for name, share in shares.items()}
    left, others = 1 - sum(exact.values()), [name for name in EQUAL if name not in shares]
    if left < 0 or min(exact.values(), default=0) < 0 or (left and not others):
        raise UserError(
            f"--share: the shares add up to {float(1 - left):g}; none may be negative, and together they are at most "
            "1, or exactly 1 when they name every category"
        )
    exact |= {name: left / len(others) for name in others}
    counts = {name: math.floor(count * exact.get(name, 0)) for name in CATEGORIES}
    by_remainder = sorted(CATEGORIES, key=lambda name: counts[name] - count * exact.get(name, 0))
    for name in by_remainder[: count - sum(counts.values())]:
        counts[name] += 1
    return counts


def _shuffled(functions: list[Function], seed: int) -> list[Function]:
    """In a seeded order, those with examples first: in every category the same, so that their checks serve several."""
    by_name = {f"{function.path}:{function.first_line}": function for function in functions}
    order = [by_name[name] for name in seeded_order(list(by_name), seed)]
    return sorted(order, key=lambda function: not function.examples)


def _drafts(quotas: list[_Quota], repository: Repository, rejects: list[dict]) -> list[tuple[_Quota, Draft]]:
    """The next drafts of each quota. A check is looked for, which takes seconds, once all else of a function suits."""
    found = repository.checks
    unproven = Checks(found.functions, [UNPROVEN])
    unproven.find(found.functions)
    drafts = []
    for quota in quotas:
        made = ((one, _draft(quota, one, replace(repository, checks=unproven), rejects)) for one in quota.functions)
        taken = list(itertools.islice((one for one in made if one[1]), quota.missing()))
        quota.exhausted = len(taken) < quota.missing()
        drafts += [(quota, *one) for one in taken]
    found.find([function for quota, function, _ in drafts if quota.category in BEHAVIOUR])
    for number, (quota, function, _) in enumerate(drafts):
        if quota.category in BEHAVIOUR:
            drafts[number] = quota, function, _draft(quota, function, repository, rejects)
    return [(quota, made) for quota, _, made in drafts if made]


def _draft(quota: _Quota, function: Function, repository: Repository, rejects: list[dict]) -> Draft | None:
    try:
        return draft(quota.category, function, repository)
    except Unsuitable as why:
        rejects.append({**place(function), "category": quota.category, "split": function.split, "reason": str(why)})
        return None


def _proven(drafts: list[tuple[_Quota, Draft]], rejects: list[dict]) -> list[tuple[_Quota, dict]]:
    """Run what the drafts promise through the sandbox; the pairs of those that hold."""
    proofs = [proof for _, one in drafts for proof in [*one.right, *one.wrong]]
    results = iter(run_in_sandbox([job for _, jobs in proofs for job in jobs]))
    proven = []
    for quota, one in drafts:
        right = [(check, [next(results) for _ in jobs]) for check, jobs in one.right]
        wrong = [(check, [next(results) for _ in jobs]) for check, jobs in one.wrong]
        if not all(judge(check, outcome) for check, outcome in right):
            rejects.append(_reject(quota, one.pair, "what is right does not pass its check"))
        elif not all(refutes(check, outcome) for check, outcome in wrong):
            rejects.append(_reject(quota, one.pair, "what is wrong does not fail its check"))
        else:
            proven.append((quota, _with_killed_mutants(one.pair, right)))
    return proven


def _taught(proven, teacher: Teacher, candidates: int, most_output: int, rejects: list[dict]) -> list:
    """Proven pairs with the teacher's answers where they hold; without any answer, where the repository has none."""
    pairs, refused = teach([pair for _, pair in proven], teacher, candidates=candidates, most_output=most_output)
    quotas = {pair["id"]: (quota, pair) for quota, pair in proven}
    for one in refused:
        rejects.append({**_reject(*quotas[one["id"]], one["reason"]), "output": one["output"]})
    answered = []
    for (quota, _), pair in zip(proven, pairs, strict=True):
        if pair["output"]:
            answered.append((quota, pair))
        else:
            rejects.append(_reject(quota, pair, "no answer of the teacher holds"))
    return answered


def _keep(proven: list[tuple[_Quota, dict]], distinct: Distinct, rejects: list[dict]) -> None:
    """Add to each quota, up to what it wants, the pairs that ruff passes and that are unlike those kept before."""
    for (quota, pair), problem in zip(proven, lint_problems([pair for _, pair in proven]), strict=True):
        if len(quota.kept) == quota.wanted:
            continue  # a spare one
        problem = problem or distinct.problem(quota.category, pair_text(pair))
        if problem:
            rejects.append(_reject(quota, pair, problem))
        else:
            quota.kept.append(pair)


def _reject(quota: _Quota, pair: dict, reason: str) -> dict:
    found = {"path": pair["source"]["path"], "qualname": pair["source"]["qualname"]}
    return {**found, "category": quota.category, "split": quota.split, "reason": reason}


def _with_killed_mutants(pair: dict, right: list[tuple[dict, list[dict]]]) -> dict:
    """A unit-test pair keeps the mutants that its gold kills: no answer is asked to do more."""
    if pair["category"] != "unit_test" or not right:
        return pair
    check, outcome = right[0]
    first = outcome[0]
    killed = [
        mutant for mutant, result in zip(check["mutants"], outcome[1:], strict=True) if judge(check, [first, result])
    ]
    return {**pair, "check": {**check, "mutants": killed}}


def describe(pairs: InstructionPairs) -> str:
    """Pairs by category and side, what a category lacks and why, and rejects by reason, as a small table."""
    counts = {split: Counter(pair["category"] for pair in pairs.split(split)) for split in SPLITS}
    shown = [name for name in CATEGORIES if any(counts[split][name] or _wanted(pairs, split, name) for split in SPLITS)]
    lines = [f"{'category':<12}" + "".join(f"{split:>12}" for split in SPLITS)]
    for category in shown:
        lines.append(f"{category:<12}" + "".join(f"{counts[split][category]:>12}" for split in SPLITS))
    lines.append(f"{'all':<12}" + "".join(f"{len(pairs.split(split)):>12}" for split in SPLITS))
    for category in shown:
        for split in SPLITS:
            wanted, made = _wanted(pairs, split, category), counts[split][category]
            if made < wanted:
                why = _why_short(pairs, split, category)
                lines.append(f"short    {made:>5}  of {wanted} {category} ({split}): {why}")
    for reason, count in Counter(reject["reason"] for reject in pairs.rejects).most_common():
        lines.append(f"rejected {count:>5}  {reason}")
    for reason, count in pairs.lost.items():
        lines.append(f"no check {count:>5}  {reason}")
    return "\n".join(lines)


def _wanted(pairs: InstructionPairs, split: str, category: str) -> int:
    return pairs.wanted.get(split, {}).get(category, 0)


def _why_short(pairs: InstructionPairs, split: str, category: str) -> str:
    reasons = Counter(
        one["reason"] for one in pairs.rejects if one.get("category") == category and one["split"] == split
    )
    return "most often: {} ({})".format(*reasons.most_common(1)[0]) if reasons else "no more functions"


def about(corpus: Corpus, settings: dict, pairs: InstructionPairs, teacher: Teacher | None) -> dict:
    """What the pairs were made from and with which settings, to be saved beside them."""
    made_from = {"source": corpus.source, "name": corpus.name, "sha256": corpus.sha256(), "options": corpus.options}
    told = teacher and {"model": teacher.model, "system": SYSTEM, "categories": TAUGHT, "spent": vars(teacher.spent)}
    return {
        "schema": SCHEMA,
        "kind": "instruction pairs",
        "corpus": made_from,
        "options": settings,
        "templates": INSTRUCTIONS,
        "lost": pairs.lost,
        "teacher": told,
    }
