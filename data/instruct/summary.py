"""What was made: a table of the pairs for the terminal, and the content of about.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from data.checks.script import is_script
from data.corpus import SPLITS, Corpus
from data.instruct.build import CATEGORIES, InstructionPairs, most_often
from data.instruct.phrasings import INSTRUCTIONS
from data.instruct.script.phrasings import SCRIPT_INSTRUCTIONS
from data.instruct.teacher import Teacher
from data.instruct.teaching import REFUSED, SYSTEM, TAUGHT

SCHEMA = 1


def instruction_summary(pairs: InstructionPairs) -> str:
    """A small table: pairs by category and side, shortfalls with reasons, and rejects by reason."""
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
    for reason, count in Counter(without_detail(reject["reason"]) for reject in pairs.rejects).most_common():
        lines.append(f"rejected {count:>5}  {reason}")
    for reason, count in pairs.lost.items():
        lines.append(f"no check {count:>5}  {reason}")
    return "\n".join(lines)


def _wanted(pairs: InstructionPairs, split: str, category: str) -> int:
    return pairs.wanted.get(split, {}).get(category, 0)


def _why_short(pairs: InstructionPairs, split: str, category: str) -> str:
    return most_often(
        one["reason"] for one in pairs.rejects if one.get("category") == category and one["split"] == split
    )


def about(
    corpus: Corpus,
    settings: dict,
    pairs: InstructionPairs,
    teacher: Teacher | None,
    taught: Collection[str] = TAUGHT,
    instructions: Mapping[str, Sequence[str]] | None = None,
) -> dict:
    """What the pairs were made from, and how: the content of about.json."""
    made = [pair for split in SPLITS for pair in pairs.split(split)]
    made_from = {"source": corpus.source, "name": corpus.name, "sha256": corpus.sha256(), "options": corpus.options}
    told = teacher and {
        "model": teacher.model,
        "system": SYSTEM,
        "categories": list(taught),
        "spent": vars(teacher.spent),
        "answers": teacher_answers(made, pairs.rejects),
    }
    return {
        "schema": SCHEMA,
        "kind": "instruction pairs",
        "corpus": made_from,
        "options": settings,
        "rows": {split: len(pairs.split(split)) for split in SPLITS},
        "templates": templates_of(made) | dict(instructions or {}),
        "lost": pairs.lost,
        "teacher": told,
    }


def teacher_answers(pairs: list[dict], rejects: list[dict]) -> dict[str, dict]:
    """A teacher's answers by category: {"pairs": it answers, "held": answers, "rejected": {why: answers}}.

    Of pairs that were dropped for another reason only the refused answers are known.
    """
    found: dict[str, dict] = {}
    for category in dict.fromkeys([*CATEGORIES, *(pair["category"] for pair in pairs if "category" in pair)]):
        held = [one["held"] for pair in pairs if pair.get("category") == category and (one := _taught_by(pair))]
        refused = Counter(
            without_detail(reject["reason"]).removeprefix(REFUSED)
            for reject in rejects
            if reject.get("category") == category and reject["reason"].startswith(REFUSED)
        )
        if held or refused:
            found[category] = {"pairs": len(held), "held": sum(held), "rejected": dict(refused.most_common())}
    return found


def without_detail(reason: str) -> str:
    """A teacher's answers fail in many ways: "teacher: names what does not exist", without the names."""
    if not reason.startswith(REFUSED):
        return reason
    return REFUSED + reason.removeprefix(REFUSED).partition(":")[0]


def _taught_by(pair: dict) -> dict | None:
    """What a pair says about its teacher; of rows from elsewhere it may be anything."""
    taught = pair.get("teacher")
    return taught if isinstance(taught, dict) and {"model", "held"} <= taught.keys() else None


def templates_of(pairs: list[dict]) -> dict[str, list[str]]:
    """The instructions that these pairs may have, by category: those for other languages if there are such pairs."""
    others = SCRIPT_INSTRUCTIONS if any(map(is_script, pairs)) else {}
    return {name: [*phrases, *others.get(name, ())] for name, phrases in INSTRUCTIONS.items()}
