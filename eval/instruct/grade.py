"""Grades answers to instruction pairs: by execution where the check allows it, by structure everywhere.

    python -m eval.instruct --model M [--adapter A] --data test.jsonl --out result.json
    python -m eval.instruct --answers answers.jsonl --data test.jsonl --out result.json

Two rates are kept apart. The *strict* one (`pass@k`) counts tasks whose check runs code, and an answer passes only by
running. The *lenient* one (`lenient_pass@k`) counts all tasks and asks for the right form alone; what fails it, fails
the strict one. Beside them stand the measures of eval/instruct/merit.py, style and hallucination; what reads text is
also put to the pairs' own answers: what it finds there is its error.
"""

from __future__ import annotations

from collections import defaultdict

from common.console import UserError
from common.python_syntax import parsed
from common.shuffle import seeded_order
from data.checks import EXECUTED
from data.checks.hallucination import total_by_kind
from data.checks.script import is_script
from data.instruct.answers import CODE_CATEGORIES, READERS
from data.instruct.judging import check_style_and_names, read_answer, run_answers
from data.masking import encode_prompt
from data.rows import conversation_of, named_line
from eval.code.score import GREEDY, pass_at_k, restricted
from eval.environment import environment
from eval.instruct.merit import MEASURES, with_measures
from eval.instruct.published import published_values
from eval.stats import summarise
from model import Sampling, Stop, generate
from sandbox.run import protection


def grade_answers(
    pairs: list[dict],
    answers: list[dict],
    *,
    ks: tuple[int, ...] = (1, 3),
    processes: int | None = None,
    allow_unsafe_exec: bool = False,
) -> dict:
    """Grade answers to instruction pairs.

    answers  {"id", "output", "sample": "greedy" (default) or 0, 1, ..., "stopped": whether the model ended by itself
             (default true)}; one greedy answer a pair, and no samples or max(ks) + 1 or more, since the unbiased
             estimate from n = k samples is only a yes or no. Pairs without samples count in pass@1 alone. A reasoning
             model's thoughts are taken off the output first (data.checks.thoughts)
    Returns an eval result: "metrics", "intervals" (95 %), "n" (tasks), "n_of" (metric -> tasks that it is over),
    "values" (metric -> id -> value), "clusters" (id -> the function: tasks about one function are not independent, and
    intervals resample functions), "by_category", "hallucination" (names by kind, over the greedy answers), "gold"
    (the measures of text, of the pairs' own answers: there, a hallucination is a false positive), "results" (a row an
    answer), "sandbox", "environment".
    pass@1 is the greedy answer's; pass@k for k > 1 comes from the samples. style is the share of greedy code answers
    without an issue (no code is an issue), hallucination_rate the share of greedy answers with a name that exists
    nowhere among those that have a name to look up.
    Raises UserError for answers that do not fit the pairs.
    """
    by_id = checked_pairs(pairs)
    answers = _checked_answers(by_id, answers, ks)
    limits = {"processes": processes, "allow_unsafe_exec": allow_unsafe_exec}
    asked = [by_id[answer["id"]] for answer in answers]
    rows = [_row(pair, answer) for pair, answer in zip(asked, answers, strict=True)]
    rows = run_answers(asked, rows, **limits)
    gold_pairs = [pair for pair in pairs if isinstance(pair.get("output"), str)]
    gold = [_row(pair, {"output": pair["output"], "sample": GREEDY, "stopped": True}) for pair in gold_pairs]
    both = check_style_and_names([*asked, *gold_pairs], [*rows, *gold], **limits)
    rows, gold = both[: len(rows)], both[len(rows) :]
    rows = with_measures(by_id, rows, allow_unsafe_exec=allow_unsafe_exec)
    gold = with_measures(by_id, gold)
    values = _values(by_id, rows, ks)
    clusters = {i: _function(pair) for i, pair in by_id.items()}
    categories = {category: {i for i in by_id if by_id[i]["category"] == category} for category in READERS}
    return {
        **summarise(values, clusters=clusters),
        "n": len(by_id),
        "values": values,
        "clusters": clusters,
        "by_category": {
            category: {"n": len(ids), **summarise(restricted(values, ids), clusters=clusters)}
            for category, ids in categories.items()
            if ids
        },
        "hallucination": total_by_kind(row["names_by_kind"] for row in rows if row["sample"] == GREEDY),
        "gold": {
            **summarise(_values(by_id, gold, ())),
            "hallucination": total_by_kind(row["names_by_kind"] for row in gold),
            "invented": {row["id"]: row["hallucinated"] for row in gold if row["hallucinated"]},
        },
        "results": rows,
        "sandbox": protection(allow_unsafe_exec=allow_unsafe_exec),
        "environment": environment(pairs=pairs, answers=answers),
    }


def _function(pair: dict) -> str:
    """The function that a pair is about; a pair that names none stands for itself."""
    source = pair.get("source") or {}
    return f"{source['path']}:{source['qualname']}" if source.get("path") and source.get("qualname") else pair["id"]


def checked_pairs(pairs: list[dict]) -> dict[str, dict]:
    """The pairs by id. UserError for one that cannot be graded."""
    if not pairs:
        raise UserError("there are no instruction pairs to grade")
    by_id = {}
    for number, pair in enumerate(pairs, 1):
        missing = [field for field in ("id", "category", "input", "check") if field not in pair]
        if missing:
            raise UserError(f"pair {number} has no {', '.join(missing)}: only pairs with a check can be graded")
        if pair["category"] not in READERS:
            raise UserError(f"pair {pair['id']}: unknown category {pair['category']!r} (known: {', '.join(READERS)})")
        if pair["id"] in by_id:
            raise UserError(f"the id {pair['id']} occurs twice among the pairs")
        by_id[pair["id"]] = pair
    return by_id


def _checked_answers(by_id: dict[str, dict], answers: list[dict], ks: tuple[int, ...]) -> list[dict]:
    """The answers, each with "sample" and "stopped", in the order of the pairs."""
    kept: dict[str, dict] = {i: {} for i in by_id}
    for number, answer in enumerate(answers, 1):
        if not isinstance(answer.get("output"), str) or not isinstance(answer.get("id"), str | int):
            raise UserError(f"answer {number} needs an id and an output that is text")
        if answer["id"] not in by_id:
            raise UserError(f"answer {number}: there is no pair with the id {answer['id']}")
        sample = answer.get("sample", GREEDY)
        if not isinstance(sample, str | int):
            raise UserError(f'answer {number}: "sample" is a number from 0 on or "{GREEDY}"')
        if sample in kept[answer["id"]]:
            raise UserError(f"answer {number}: sample {sample} of {answer['id']} occurs twice")
        kept[answer["id"]][sample] = {"stopped": True, **answer, "sample": sample}
    for i, samples in kept.items():
        if GREEDY not in samples:
            raise UserError(f"{i} has no greedy answer: each pair needs one (a line without a sample number)")
        if 1 < len(samples) <= max(ks) + 1 and max(ks) > 1:
            raise UserError(f"{i} has {len(samples) - 1} samples: pass@{max(ks)} needs at least {max(ks) + 1}")
    if len({len(samples) for samples in kept.values()} - {1}) > 1:
        raise UserError("the pairs have unequal numbers of samples: give each pair none, or as many as the others")
    return [answer for samples in kept.values() for answer in samples.values()]


def _row(pair: dict, answer: dict) -> dict:
    row = read_answer(pair, answer)
    return {"id": row["id"], "category": row["category"], "sample": answer["sample"], **row}


def _values(by_id: dict[str, dict], rows: list[dict], ks: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """metric -> id -> value, without metrics that apply to no task."""
    greedy = {row["id"]: row for row in rows if row["sample"] == GREEDY}
    sampled = defaultdict(list)
    for row in rows:
        if row["sample"] != GREEDY:
            sampled[row["id"]].append(row)
    executed = [i for i in by_id if by_id[i]["check"]["kind"] in EXECUTED]
    values = {}
    for k in ks:
        source = {i: [row] for i, row in greedy.items()} if k == 1 else sampled
        values[f"pass@{k}"] = {i: _pass(source[i], k, "status") for i in executed if source.get(i)}
        values[f"lenient_pass@{k}"] = {i: _pass(source[i], k, "lenient") for i in by_id if source.get(i)}
    in_python = {i: row for i, row in greedy.items() if not is_script(by_id[i])}  # what ruff and the look-up read
    coded = {i: row for i, row in in_python.items() if row["category"] in CODE_CATEGORIES}
    values["style"] = {i: float(_has_code(row) and not row["style_issues"]) for i, row in coded.items()}
    values["hallucination_rate"] = {
        i: float(bool(row["hallucinated"])) for i, row in greedy.items() if row["names_checked"]
    }
    for measure in MEASURES:
        values[measure] = {i: row["measures"][measure] for i, row in greedy.items() if measure in row["measures"]}
    values |= published_values(in_python, sampled)
    return {metric: of_task for metric, of_task in values.items() if of_task}


def _pass(rows: list[dict], k: int, field: str) -> float:
    return pass_at_k(len(rows), sum(row[field] in ("pass", True) for row in rows), k)


def _has_code(row: dict) -> bool:
    return row["code"] is not None and parsed(row["code"]) is not None


def answer_pairs(
    decoder,
    tokenizer,
    pairs: list[dict],
    *,
    samples: int,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    seed: int,
    sampled: int | None = None,
    where: str = "pairs",
) -> list[dict]:
    """One greedy answer and `samples` sampled ones for each pair: {"id", "sample", "output", "stopped"}.

    sampled  of how many pairs answers are sampled (default: all), those with executed checks first. The draw depends
             on nothing but the ids: runs with other seeds are compared on the same tasks
    where    the file of the pairs, to name in errors
    """
    prompts = []
    for number, pair in enumerate(pairs, 1):
        with named_line(f"{where}:{number}"):
            asked = conversation_of(pair).question
            prompts.append(encode_prompt(tokenizer, asked.messages, tools=asked.tools))

    # a prompt is processed once for all of its answers: first the pairs that are sampled, then the others
    sampled_ids = _sampled_ids(pairs, sampled) if samples else set()
    answers: dict[str, list[dict]] = {}
    for count, is_sampled in ((samples, True), (0, False)):
        group = [number for number, pair in enumerate(pairs) if (pair["id"] in sampled_ids) == is_sampled]
        if not group:
            continue
        continuations = generate(
            decoder,
            [prompts[number] for number in group],
            Stop(max_new_tokens=max_new_tokens, ids=tokenizer.stop_ids),
            Sampling([0.0] + [temperature] * count, top_p=top_p, samples=1 + count, seed=seed),
            unused_ids=tokenizer.unused_ids,
            what="answering",
        )
        for number, of_pair in zip(group, continuations, strict=True):
            answers[pairs[number]["id"]] = [
                {"sample": label, "output": tokenizer.decode(ids), "stopped": len(ids) < max_new_tokens}
                for label, ids in zip([GREEDY, *range(count)], of_pair, strict=True)
            ]
    return [{"id": pair["id"], **answer} for pair in pairs for answer in answers[pair["id"]]]


def _sampled_ids(pairs: list[dict], count: int | None) -> set[str]:
    order = seeded_order([pair["id"] for pair in pairs], seed=0)
    executed = {pair["id"] for pair in pairs if pair.get("check", {}).get("kind") in EXECUTED}
    return set(sorted(order, key=lambda i: i not in executed)[:count])
