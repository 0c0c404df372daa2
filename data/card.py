"""The data card: what was learnt from, how it was made, and where its edges are. Written from the data itself."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

from data import corpus as corpus_rules
from data import filters
from data.corpus import SPLITS, Corpus
from data.functions import LEAK, functions_of
from data.instruct import InstructionPairs
from data.pairs import FILE_SHARE, FILE_VOICES, FUNCTION_VOICES, TextCodePairs
from data.tasks import INSTRUCTIONS
from model.files import write_text

EXAMPLES = 10
SHOWN = 600  # characters of a text shown in an example


def write_data_card(
    folder: Path | str, *, corpus: Corpus, instruct: InstructionPairs | None = None, pairs: TextCodePairs | None = None
) -> str:
    """Write data_card.md into `folder` and return its Markdown. Nothing in it is filled in by hand: all is counted."""
    parts = [f"# Data card: {corpus.name}", *_sources(corpus), *_filters(corpus), *_files(corpus)]
    if instruct:
        parts += _instruction_pairs(instruct)
    if pairs:
        parts += _text_code_pairs(pairs)
    parts += _examples(instruct, pairs)
    parts += _limits(instruct, pairs)
    parts += _hashes(corpus, instruct, pairs)
    text = "\n\n".join(parts) + "\n"
    write_text(Path(folder) / "data_card.md", text)
    return text


def _sources(corpus: Corpus) -> list[str]:
    licenses = Counter(file.license or "not declared" for file in corpus.files)
    revisions = sorted({file.commit or "not under version control" for file in corpus.files})
    options = ", ".join(f"{name} {value}" for name, value in corpus.options.items())
    return [
        "## Source",
        f"`{corpus.source}`, revision {', '.join(revisions)}.",
        "Licences by file (SPDX header, else the package's metadata): " + _counted(licenses) + ".",
        f"Curated with {options}.",
    ]


def _filters(corpus: Corpus) -> list[str]:
    reasons = Counter(reject["reason"] for reject in corpus.rejects)
    return [
        "## Filters",
        f"Kept {len(corpus.files)} Python files, rejected {len(corpus.rejects)}.",
        _table(["reason", "files"], [[reason, count] for reason, count in reasons.most_common()] or [["none", 0]]),
        f"Rules: UTF-8 that parses; at least {filters.LEAST_CODE_LINES} lines of code and at most {filters.MOST_LINES} "
        f"lines; no line over {filters.LONGEST_LINE} characters and at most {filters.MEAN_LINE} on average; no "
        f"vendored folder, generator's marker or test file; no near-duplicate (Jaccard index of token 5-grams "
        f"{corpus_rules.DUPLICATE} or more). Files that are {corpus_rules.ALIKE} or more alike stay on one side of the "
        f"split; a function {LEAK} or more alike to one of the test files is not learnt from.",
    ]


def _files(corpus: Corpus) -> list[str]:
    rows = []
    for split in SPLITS:
        files = corpus.split(split)
        functions = [function for file in files for function in functions_of(file)]
        documented = sum(bool(function.docstring) for function in functions)
        runnable = sum(bool(function.examples) for function in functions)
        lines = sum(file.text.count("\n") for file in files)
        rows.append([split, len(files), f"{lines:,}", len(functions), documented, runnable])
    head = ["split", "files", "lines", "functions of 5–60 lines", "documented", "with examples"]
    return ["## Split by file", _table(head, rows)]


def _instruction_pairs(instruct: InstructionPairs) -> list[str]:
    counts = {split: Counter(pair["category"] for pair in instruct.split(split)) for split in SPLITS}
    rows = []
    for category in INSTRUCTIONS:
        made = [pair for split in SPLITS for pair in instruct.split(split) if pair["category"] == category]
        lengths = [_median([len(pair[part]) for pair in made]) for part in ("input", "output")]
        kinds = _counted(Counter(pair["check"]["kind"] for pair in made))
        rows.append([category, *(counts[split][category] for split in SPLITS), *lengths, kinds])
    bugs = Counter(
        pair["check"]["bug"] for split in SPLITS for pair in instruct.split(split) if pair["category"] == "bugfix"
    )
    worse = Counter(
        kind for split in SPLITS for pair in instruct.split(split) for kind in pair["check"].get("degraded", [])
    )
    reasons = Counter((reject.get("category", "all"), reject["reason"]) for reject in instruct.rejects)
    phrases = "\n".join(f"- {category}: {' / '.join(INSTRUCTIONS[category])}" for category in INSTRUCTIONS)
    return [
        "## Instruction pairs",
        "No language model took part: every answer is the repository's own docstring, body, line or test.",
        _table(["category", *SPLITS, "input, median characters", "output", "checks"], rows),
        f"Injected bugs: {_counted(bugs)}.",
        f"Ways in which code was made worse: {_counted(worse)}.",
        "Phrasings, one drawn for each pair:",
        phrases,
        "Rejected drafts:",
        _table(["category", "reason", "drafts"], [[*why, count] for why, count in reasons.most_common()]),
    ]


def _text_code_pairs(pairs: TextCodePairs) -> list[str]:
    rows = []
    for name in ("train", "test", "candidates"):
        kinds = Counter(row["kind"] for row in getattr(pairs, name))
        words = _median([len(row["query"].split()) for row in getattr(pairs, name) if "query" in row])
        lengths = _median([len(row["code"]) for row in getattr(pairs, name)])
        rows.append([name, kinds["function"], kinds["file"], words, lengths])
    reasons = Counter(reject["reason"] for reject in pairs.rejects)
    return [
        "## Text–code pairs",
        _table(["", "functions", "files", "query, median words", "code, median characters"], rows),
        f"Queries are first sentences of docstrings in one of these voices: {' / '.join(FUNCTION_VOICES)}; or, for at "
        f"most {FILE_SHARE:.0%} of a side, questions for a file: {' / '.join(FILE_VOICES)}. The code that is searched "
        "is without its docstring.",
        _table(["reason", "rejected"], [[reason, count] for reason, count in reasons.most_common()]),
    ]


def _examples(instruct: InstructionPairs | None, pairs: TextCodePairs | None) -> list[str]:
    """Ten training examples: the categories in turn, then text–code pairs."""
    shown = []
    by_category = (
        {name: [pair for pair in instruct.train if pair["category"] == name] for name in INSTRUCTIONS}
        if (instruct)
        else {}
    )
    for rows in by_category.values():
        shown += [(pair["id"], f"{pair['instruction']}\n\n{pair['input']}", pair["output"]) for pair in rows[:1]]
    for pair in pairs.train[: EXAMPLES - len(shown)] if pairs else []:
        shown.append((pair["id"], pair["query"], pair["code"]))
    for rows in by_category.values():
        shown += [(pair["id"], f"{pair['instruction']}\n\n{pair['input']}", pair["output"]) for pair in rows[1:2]]
    parts = [f"### {name}\n\n{_fenced(asked)}\n\n{_fenced(answer)}" for name, asked, answer in shown[:EXAMPLES]]
    return ["## Examples", *parts] if parts else []


def _limits(instruct: InstructionPairs | None, pairs: TextCodePairs | None) -> list[str]:
    lines = ["Python only. One repository's style and subject: what is learnt here need not hold elsewhere."]
    if instruct:
        made = [pair for split in SPLITS for pair in instruct.split(split)]
        executed = sum(pair["check"]["kind"] != "structure" for pair in made)
        survivors = sum("wrong code too" in reject["reason"] for reject in instruct.rejects)
        lines += [
            f"{executed} of {len(made)} pairs are proven by execution, the others by structure only.",
            f"{survivors} drafts were dropped as the function's examples did not notice the change: the bugs that "
            "are left are those that examples find.",
            "Examples prove what they show and no more: a body that passes may still be wrong elsewhere.",
        ]
    if pairs:
        lines.append(
            "Queries are written by the authors of the code, not by its searchers. Each has one right answer here, "
            "although others may serve as well."
        )
    return ["## Edge cases and limits", "\n".join(f"- {line}" for line in lines)]


def _hashes(corpus: Corpus, instruct: InstructionPairs | None, pairs: TextCodePairs | None) -> list[str]:
    rows = [["files", _digest([(file.path, file.sha256, file.split) for file in corpus.files])]]
    if instruct:
        rows += [[f"instruction pairs, {split}", _digest(instruct.split(split))] for split in SPLITS]
    if pairs:
        rows += [[f"text–code, {name}", _digest(getattr(pairs, name))] for name in ("train", "test", "candidates")]
    return ["## Hashes", _table(["data", "SHA-256 of its JSON"], rows)]


def _digest(value) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def _table(head: list[str], rows: list[list]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _counted(counts: Counter) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"


def _median(values: list[int]) -> int:
    return sorted(values)[len(values) // 2] if values else 0


def _fenced(text: str) -> str:
    text = text if len(text) <= SHOWN else text[:SHOWN].rstrip() + "\n… (cut here)"
    return f"~~~~\n{text}\n~~~~"
