"""The sections of a card about the pairs: counts, lengths, checks, who wrote them, what was rejected."""

from __future__ import annotations

from collections import Counter

from data.card.material import all_pairs, check_of
from data.card.tables import counted, median, table
from data.corpus import SPLITS
from data.hard_negatives import MARGIN
from data.instruct import InstructionPairs
from data.instruct.phrasings import INSTRUCTIONS
from data.instruct.summary import teacher_answers, without_detail
from data.pairs import FILE_SHARE, TextCodePairs
from data.pairs.mining import TOP

IMPORTED = "imported instruction rows"  # the kind that data.importing records


def categories_of(pairs: list[dict]) -> list[str]:
    """The categories that occur, known ones first."""
    found = {pair.get("category", "none") for pair in pairs}
    return [*(name for name in INSTRUCTIONS if name in found), *sorted(found - INSTRUCTIONS.keys())]


def instruction_pairs_section(instruct: InstructionPairs, about: dict) -> list[str]:
    """Counts, lengths and checks by category, phrasings, and rejected drafts."""
    made = all_pairs(instruct)
    counts = {split: Counter(pair.get("category", "none") for pair in instruct.split(split)) for split in SPLITS}
    rows = []
    for category in categories_of(made):
        of_category = [pair for pair in made if pair.get("category", "none") == category]
        lengths = [median([len(pair.get(part) or "") for pair in of_category]) for part in ("input", "output")]
        kinds = counted(Counter(check_of(pair)["kind"] for pair in of_category))
        rows.append([category, *(counts[split][category] for split in SPLITS), *lengths, kinds])
    bugs = Counter(check_of(pair).get("bug") for pair in made if pair.get("category") == "bugfix")
    worse = Counter(kind for pair in made for kind in check_of(pair).get("degraded", []))
    reasons = Counter((reject.get("category", "all"), without_detail(reject["reason"])) for reject in instruct.rejects)
    templates = about.get("templates", {} if about.get("kind") == IMPORTED else INSTRUCTIONS)
    phrasings = [f"- {name}: {' / '.join(templates[name])}" for name in categories_of(made) if name in templates]
    return [
        _authors(made, about),
        teacher_table(teacher_answers(made, instruct.rejects)),
        table(["category", *SPLITS, "input, median characters", "output", "checks"], rows),
        f"Tests of the repository that cannot serve as checks: {counted(Counter(instruct.lost))}."
        if instruct.lost
        else "",
        f"Injected bugs: {counted(bugs)}." if bugs else "",
        f"Ways in which code was degraded: {counted(worse)}." if worse else "",
        "Phrasings, one drawn for each pair:" if phrasings else "",
        "\n".join(phrasings),
        "Rejected drafts:" if reasons else "",
        table(["category", "reason", "drafts"], [[*why, count] for why, count in reasons.most_common()])
        if reasons
        else "",
    ]


def _authors(made: list[dict], about: dict) -> str:
    """Who wrote the answers."""
    teachers = (pair.get("teacher") for pair in made)  # of rows from elsewhere it may be anything
    taught = [one["model"] for one in teachers if isinstance(one, dict) and "model" in one]
    asked = (about.get("teacher") or {}).get("model")
    if taught or asked:
        models = ", ".join(sorted({*taught, *([asked] if asked else [])}))
        return (
            f"A teacher took part: {models}. {len(taught)} of {len(made)} answers are its own, each of which passed "
            "its checks; the others are the repository's."
        )
    if all(pair.get("category") in INSTRUCTIONS for pair in made) and about.get("kind") != IMPORTED:
        return "No language model took part: every answer is the repository's own docstring, body, line or test."
    explained = Counter(pair["explained_by"] for pair in made if isinstance(pair.get("explained_by"), str))
    return "Imported rows: their source says who wrote the code." + "".join(
        f" A model, {model}, wrote the explanation in {count} of {len(made)} answers; no one has checked them."
        for model, count in explained.items()
    )


def teacher_table(answers: dict[str, dict]) -> str:
    """What `teacher_answers` counted: a teacher's answers that held and that did not, and why not most often."""
    rows = []
    for category, of_category in answers.items():
        held, refused = of_category["held"], Counter(of_category["rejected"])
        most = ", ".join(f"{reason} {count}" for reason, count in refused.most_common(3))
        rows.append([category, held + refused.total(), held, refused.total(), of_category["pairs"], most or "-"])
    head = ["category", "teacher's answers", "held", "rejected", "pairs", "rejected most often for"]
    return table(head, rows) if rows else ""


def text_code_pairs_section(pairs: TextCodePairs) -> list[str]:
    """Counts and lengths by side, where queries come from, negatives, rejects."""
    rows = []
    for name in ("train", "test", "candidates"):
        side = getattr(pairs, name)
        kinds = Counter(row["kind"] for row in side)
        words = median([len(row["query"].split()) for row in side]) if name != "candidates" else ""
        rows.append([name, kinds["function"], kinds["file"], words, median([len(row["code"]) for row in side])])
    reasons = Counter(reject["reason"] for reject in pairs.rejects)
    used = {row.get("origin", "docstring") for row in [*pairs.train, *pairs.test]}
    templates = {name: one for name, one in pairs.about.get("templates", {}).items() if name in used}
    teacher = pairs.about.get("teacher")
    question = teacher["asked"].partition("\n")[0] if teacher else ""
    taught = sum(row.get("origin") == "teacher" for row in pairs.train)
    negatives = sum(len(pair["negatives"]) for pair in pairs.train)
    return [
        table(["", "functions", "files", "query, median words", "code, median characters"], rows),
        "Queries are made from docstrings (their first sentence), from calls, from names, and of files, at most "
        f"{FILE_SHARE:.0%} of a side, in one of these voices:",
        "\n".join(f"- {name}: {' / '.join(one)}" for name, one in templates.items()),
        f"A teacher took part: {teacher['model']} wrote {taught} of the {len(pairs.train)} training queries and none "
        f"of the test queries. Each ranks its code in the top {TOP}. It was asked: “{question}”"
        if teacher
        else "",
        "The code is searched without its docstring.",
        f"{negatives:,} hard negatives, from training files; none scores above {MARGIN:.0%} of its pair's own code."
        if negatives
        else "",
        f"With identifiers renamed: {len(pairs.renamed.train)} train, {len(pairs.renamed.test)} test."
        if pairs.renamed
        else "",
        table(["reason", "rejected"], [[reason, count] for reason, count in reasons.most_common()]),
    ]
