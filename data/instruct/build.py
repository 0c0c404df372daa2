"""Builds instruction pairs by parsing a corpus; every executable gold answer is proven in the sandbox.

    python -m data.instruct CORPUS --out DIR --count 400 [--share bugfix=0.3 fim=0.1]
    python -m data.instruct CORPUS --out DIR --teacher http://localhost:8000 --teacher-model NAME

Without a teacher no language model takes part. With one (data/instruct/teaching.py), its answers replace the
repository's own where they pass the checks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from common.console import UserError
from common.shuffle import seeded_order
from data.checks import proves, refutes, run_groups
from data.checks.prove import KINDS, UNPROVEN, Checks
from data.checks.verdict import killed_mutants
from data.corpus import SPLITS, Corpus
from data.corpus.functions import Function, functions_of, held_apart, place
from data.corpus.script_functions import ScriptFunction, script_functions_of
from data.instruct.pair_filters import Distinct, lint_problems, pair_text
from data.instruct.phrasings import INSTRUCTIONS
from data.instruct.script.module_texts import asserted_calls, module_reader
from data.instruct.script.phrasings import SCRIPT_INSTRUCTIONS
from data.instruct.script.tasks import SCRIPT_MAKERS
from data.instruct.tasks import BEHAVIOUR, Draft, DraftContext, Unsuitable, draft
from data.instruct.teacher import Teacher
from data.instruct.teaching import TAUGHT, teach
from data.instruct.unit_tests import repository_tests
from sandbox.run import Outcome

CATEGORIES = tuple(INSTRUCTIONS)
EQUAL = tuple(name for name in CATEGORIES if name != "fim")  # divide the remaining share equally
MOST_IN_VAIN = 24  # questions in a row without an answer that holds: then a teacher is asked no more of a category
SPARE = {"bugfix": 1.3, "fim": 1.2}  # drafts made per pair wanted, as some bugs survive the examples; others 1


@dataclass(frozen=True)
class InstructionPairs:
    """Pairs by side of the split, and rejects: {"path", "qualname", "category", "split", "reason"}.

    wanted  pairs wanted by side and category
    lost    how many of the repository's tests and test files could not serve as checks, by reason
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
    """The progress of one category on one side."""

    split: str
    category: str
    wanted: int
    functions: list[Function | ScriptFunction]  # of the side, in the order in which they are tried
    tried: int = 0
    in_vain: int = 0  # drafts without a gold in a row that the teacher could not answer
    kept: list[dict] = field(default_factory=list)

    def is_open(self) -> bool:
        """Whether pairs are missing, there are functions left to try, and a teacher is not asked in vain."""
        return len(self.kept) < self.wanted and self.tried < len(self.functions) and self.in_vain < MOST_IN_VAIN

    def missing(self) -> int:
        """How many drafts are needed next."""
        return math.ceil((self.wanted - len(self.kept)) * SPARE.get(self.category, 1.0))


@dataclass(frozen=True)
class _Drafted:
    """A draft of a pair, and its quota."""

    quota: _Quota
    function: Function | ScriptFunction
    draft: Draft


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
    taught: Collection[str] = TAUGHT,
    whole_line_bugs: bool = False,
    instructions: Mapping[str, Sequence[str]] | None = None,
) -> InstructionPairs:
    """Pairs of several categories on the sides of the corpus's split, by share, as far as the corpus allows.

    count, test_count, validation_count   pairs wanted on each side, over all categories
    most_input, most_output               characters of instruction + input, and of output
    shares                                of some categories, 0 to 1; the others of EQUAL divide what is left
    checks                                kinds of checks of a function, in the order in which they are tried
    teacher, candidates, taught           answers the categories in `taught`, `candidates` times each
    whole_line_bugs                       also bugs that remove, unwrap or reorder whole lines
    instructions                          by category, in place of those of data/instruct/phrasings.py
    Raises UserError when no function of the corpus gives a pair, and for shares that do not add up.
    """
    counts = {"train": count, "validation": validation_count, "test": test_count}
    wanted = {split: category_counts(counts[split], shares) for split in SPLITS}
    every: list[Function | ScriptFunction] = []
    for file in corpus.files:
        every += [*functions_of(file), *script_functions_of(file)]
    functions, rejects = held_apart(every)
    texts = {file.path: file.text for file in corpus.files}
    found = Checks([function for function in functions if isinstance(function, Function)], checks)
    context = DraftContext(
        texts=texts,
        tests=repository_tests(corpus),
        checks=found,
        most_input=most_input,
        most_output=most_output,
        seed=seed,
        taught=frozenset(taught if teacher else ()),
        whole_line_bugs=whole_line_bugs,
        instructions=instructions or {},
        kinds=tuple(checks),
        read_module=module_reader(corpus),
        asserted=asserted_calls(corpus),
    )

    quotas = []
    for split in SPLITS:
        side = _shuffled([function for function in functions if function.split == split], seed)
        quotas += [_Quota(split, category, number, side) for category, number in wanted[split].items()]

    distinct = Distinct()
    while open_quotas := [quota for quota in quotas if quota.is_open()]:
        suitable, unsuitable = _suitable_drafts(open_quotas, context)
        drafts, unchecked = _with_checks(suitable, context)
        proven, unproven = _proven(drafts)
        rejects += [*unsuitable, *unchecked, *unproven]
        if teacher:
            proven, untaught = _taught(
                proven, teacher, candidates=candidates, most_output=most_output, categories=taught
            )
            rejects += untaught
        rejects += _keep(proven, distinct)

    pairs = {split: [pair for one in quotas if one.split == split for pair in one.kept] for split in SPLITS}
    if count and not pairs["train"]:
        why = most_often(reject["reason"] for reject in rejects if reject.get("split", "train") == "train")
        raise UserError(f"{corpus.name}: no function of the train files gives a pair of these categories; {why}")
    return InstructionPairs(pairs["train"], pairs["validation"], pairs["test"], rejects, wanted, dict(found.lost()))


def category_counts(count: int, shares: dict[str, float] | None = None) -> dict[str, int]:
    """The number of pairs per category, by largest remainders. UserError for shares that do not add up."""
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


def _shuffled(functions: list, seed: int) -> list:
    """In a seeded order, those with examples first; the same in every category, so that checks are shared."""
    by_name = {f"{function.path}:{function.first_line}": function for function in functions}
    order = [by_name[name] for name in seeded_order(list(by_name), seed)]
    return sorted(order, key=lambda function: not function.examples)


def _suitable_drafts(quotas: list[_Quota], context: DraftContext) -> tuple[list[_Drafted], list[dict]]:
    """First pass: as many drafts as each quota is missing, as if every function had a check; and the rejects."""
    found = context.checks
    unproven = Checks(found.functions, [UNPROVEN])
    unproven.find(found.functions)
    unchecked = replace(context, checks=unproven)
    suitable, rejects = [], []
    for quota in quotas:
        missing = quota.missing()
        while missing and quota.tried < len(quota.functions):
            function = quota.functions[quota.tried]
            quota.tried += 1
            try:
                suitable.append(_Drafted(quota, function, _draft(quota.category, function, unchecked)))
                missing -= 1
            except Unsuitable as why:
                rejects.append(_reject_function(quota, function, str(why)))
    return suitable, rejects


def _with_checks(suitable: list[_Drafted], context: DraftContext) -> tuple[list[_Drafted], list[dict]]:
    """Second pass: drafts of behaviour categories redone with real checks; and rejects where there is none.

    Finding a check takes seconds, so it is done only for otherwise suitable functions, and for all of them at once.
    """
    wanted = [one.function for one in suitable if one.quota.category in BEHAVIOUR]
    context.checks.find([function for function in wanted if isinstance(function, Function)])
    drafts, rejects = [], []
    for one in suitable:
        try:
            is_final = one.quota.category not in BEHAVIOUR or isinstance(one.function, ScriptFunction)
            made = one.draft if is_final else draft(one.quota.category, one.function, context)
            drafts.append(replace(one, draft=made))
        except Unsuitable as why:
            rejects.append(_reject_function(one.quota, one.function, str(why)))
    return drafts, rejects


def _draft(category: str, function: Function | ScriptFunction, context: DraftContext) -> Draft:
    """A draft by the makers of the function's language."""
    if isinstance(function, ScriptFunction):
        return draft(category, function, context, makers=SCRIPT_MAKERS, phrases=SCRIPT_INSTRUCTIONS)
    return draft(category, function, context)


def _proven(drafts: list[_Drafted]) -> tuple[list[tuple[_Quota, dict]], list[dict]]:
    """Run the drafts' proofs in the sandbox; the pairs of those that hold, and rejects for the others."""
    proofs = [proof for one in drafts for proof in [*one.draft.right, *one.draft.wrong]]
    results = run_groups([jobs for _, jobs in proofs])
    proven, rejects = [], []
    for one in drafts:
        pair = one.draft.pair
        right = [(check, next(results)) for check, _ in one.draft.right]
        wrong = [(check, next(results)) for check, _ in one.draft.wrong]
        if not all(proves(check, outcomes) for check, outcomes in right):
            rejects.append(_reject(one.quota, pair, "what is right does not pass its check"))
        elif not all(refutes(check, outcomes) for check, outcomes in wrong):
            rejects.append(_reject(one.quota, pair, "what is wrong does not fail its check"))
        else:
            proven.append((one.quota, _with_killed_mutants(pair, right)))
    return proven, rejects


def _taught(
    proven: list[tuple[_Quota, dict]],
    teacher: Teacher,
    *,
    candidates: int,
    most_output: int,
    categories: Collection[str],
) -> tuple[list[tuple[_Quota, dict]], list[dict]]:
    """The proven pairs with the teacher's answers where one holds; rejects: its other answers, and unanswered pairs."""
    pairs, refused = teach(
        [pair for _, pair in proven], teacher, candidates=candidates, most_output=most_output, categories=categories
    )
    quotas = {pair["id"]: (quota, pair) for quota, pair in proven}
    rejects = [{**_reject(*quotas[one["id"]], one["reason"]), "output": one["output"]} for one in refused]
    answered = []
    for (quota, _), pair in zip(proven, pairs, strict=True):
        if pair["output"]:
            quota.in_vain = 0
            answered.append((quota, pair))
        else:
            quota.in_vain += 1
            rejects.append(_reject(quota, pair, "no answer of the teacher holds"))
    return answered, rejects


def _keep(proven: list[tuple[_Quota, dict]], distinct: Distinct) -> list[dict]:
    """Add to each quota, up to what it wants, the pairs that ruff passes and that differ from those kept before.

    Returns the rejects.
    """
    rejects = []
    for (quota, pair), problem in zip(proven, lint_problems([pair for _, pair in proven]), strict=True):
        if len(quota.kept) == quota.wanted:
            continue  # a spare draft
        problem = problem or distinct.problem(quota.category, pair_text(pair))
        if problem:
            rejects.append(_reject(quota, pair, problem))
        else:
            quota.kept.append(pair)
    return rejects


def _reject_function(quota: _Quota, function: Function | ScriptFunction, reason: str) -> dict:
    return {**place(function), "category": quota.category, "split": function.split, "reason": reason}


def _reject(quota: _Quota, pair: dict, reason: str) -> dict:
    found = {"path": pair["source"]["path"], "qualname": pair["source"]["qualname"]}
    return {**found, "category": quota.category, "split": quota.split, "reason": reason}


def _with_killed_mutants(pair: dict, right: list[tuple[dict, list[Outcome]]]) -> dict:
    """A unit-test pair keeps only the mutants that its gold answer kills: no answer has to do better."""
    if pair["category"] != "unit_test" or not right:
        return pair
    check, outcomes = right[0]
    return {**pair, "check": {**check, "mutants": killed_mutants(check, outcomes)}}


def most_often(reasons: Iterable[str]) -> str:
    """The most frequent reason, for a message."""
    counts = Counter(reasons)
    return "most often: {} ({})".format(*counts.most_common(1)[0]) if counts else "no more functions"
