"""The data card: what was learnt from, how it was made, and where its edges are. Counted from the data, never typed in.

python -m data.card DIR   ->  data_card.md (with the front matter of a dataset hub), data_card.html, croissant.json
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path, PurePosixPath

from common.files import write_json, write_text
from common.html import join, markdown, page
from common.markdown import fenced
from data.card.bars import Bars
from data.card.distributions import distributions
from data.card.material import Material, all_pairs, check_of, data_files, relative
from data.card.metadata import croissant, front_matter
from data.corpus import SPLITS, Corpus, filters
from data.corpus import build as corpus_rules
from data.corpus.functions import functions_of
from data.hard_negatives import MARGIN
from data.instruct import InstructionPairs
from data.instruct.tasks import INSTRUCTIONS
from data.likeness.near_duplicates import NEAR
from data.pairs import FILE_SHARE, TextCodePairs
from data.pairs.mining import TOP

EXAMPLES = 10
IMPORTED = "imported instruction rows"  # how data.importing calls its own
SHOWN = 600  # characters of a text shown in an example
LANGUAGES = {".py": "Python", **dict.fromkeys((".js", ".mjs", ".cjs", ".jsx"), "JavaScript")}
LANGUAGES |= dict.fromkeys((".ts", ".mts", ".cts", ".tsx"), "TypeScript")
Section = tuple[str, list[str | Bars]]  # a title, and Markdown with pictures between


def write_data_card(
    folder: Path | str, *, corpus: Corpus, instruct: InstructionPairs | None = None, pairs: TextCodePairs | None = None
) -> str:
    """Write data_card.md into `folder` and return its Markdown. The front matter names the files that lie there."""
    folder = Path(folder)
    files = data_files(folder) if folder.is_dir() and (instruct or pairs) else ()
    material = Material(folder, corpus, instruct, pairs, files=files)
    text = _as_markdown(material, card_sections(material))
    write_text(folder / "data_card.md", text)
    return text


def write_card_files(material: Material) -> list[Path]:
    """Write data_card.md, data_card.html and croissant.json into the folder of what was read; returns their paths."""
    sections = card_sections(material)
    told = describe(material)
    paths = [material.folder / name for name in ("data_card.md", "data_card.html", "croissant.json")]
    write_text(paths[0], _as_markdown(material, sections))
    parts = [
        (re.sub(r"\W+", "-", title.lower()), title, join(_block(one) for one in blocks)) for title, blocks in sections
    ]
    write_text(paths[1], page(f"Data card: {material.name}", told, parts))
    write_json(paths[2], croissant(material, told))
    return paths


def _as_markdown(material: Material, sections: list[Section]) -> str:
    parts = [f"# Data card: {material.name}"]
    for title, blocks in sections:
        parts += [f"## {title}", *(one.as_markdown() if isinstance(one, Bars) else one for one in blocks)]
    return front_matter(material) + "\n" + "\n\n".join(parts) + "\n"


def _block(block: str | Bars):
    return block.as_picture() if isinstance(block, Bars) else markdown(block)


def describe(material: Material) -> str:
    """One sentence on what the data is."""
    parts = []
    if material.corpus:
        parts.append(f"{len(material.corpus.files):,} source files")
    if material.instruct:
        parts.append(f"{sum(len(material.instruct.split(split)) for split in SPLITS):,} instruction pairs")
    if material.pairs:
        count = len(material.pairs.train) + len(material.pairs.test)
        parts.append(f"{count:,} text–code pairs with {len(material.pairs.candidates):,} candidates")
    return f"{', '.join(parts)} made from {material.name} by tritune."


def card_sections(material: Material) -> list[Section]:
    """The card's sections in order; those that have nothing to tell are left out."""
    corpus, instruct, pairs = material.corpus, material.instruct, material.pairs
    sections: list[Section] = [("Source", _sources(material))]
    if corpus:
        sections += [("Filters", _filters(corpus)), ("Split by file", _files(corpus))]
    if instruct:
        sections.append(("Instruction pairs", _instruction_pairs(instruct, material.about)))
    if pairs:
        sections.append(("Text–code pairs", _text_code_pairs(pairs)))
    sections += [("Distributions", distributions(material)), ("Examples", _examples(instruct, pairs))]
    if corpus:
        sections.append(("Contamination", _contamination(corpus)))
    sections += [("Edge cases and limits", _limits(material)), ("Hashes", _hashes(material))]
    return [(title, [block for block in blocks if block]) for title, blocks in sections if any(blocks)]


def _sources(material: Material) -> list[str]:
    corpus, sources = material.corpus, material.sources()
    declared = Counter(source.get("license") or "not declared" for source in sources)
    revisions = sorted({source.get("commit") or "not under version control" for source in sources})
    known = [material.about, material.pairs.about if material.pairs else {}]
    told = (
        corpus.source if corpus else next((one["corpus"]["source"] for one in known if "corpus" in one), material.name)
    )
    parts = [
        f"`{corpus.source if corpus else told}`, revision {', '.join(revisions)}.",
        "Licences by file (its SPDX header, else REUSE or the nearest licence file, else the package's metadata): "
        + _counted(declared)
        + ".",
    ]
    if corpus:
        parts.append("Curated with " + _options(corpus.options) + ".")
    for what, about in zip(("Instruction pairs", "Text–code pairs"), known, strict=True):
        if about.get("options"):
            parts.append(f"{what} made with {_options(about['options'])}.")
    return parts


def _options(options: dict) -> str:
    """Settings as "name value"; those that are not set are left out, and a teacher's where there was none."""
    told = {name: one for name, one in options.items() if one is not None and one not in ("", [], (), {})}
    told = {name: one for name, one in told.items() if "teacher" in told or not name.startswith("teacher_")}
    values = {name: ", ".join(map(str, one)) if isinstance(one, list | tuple) else one for name, one in told.items()}
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _filters(corpus: Corpus) -> list[str]:
    reasons = Counter(reject["reason"] for reject in corpus.rejects)
    languages = Counter(LANGUAGES.get(PurePosixPath(file.path).suffix, "other") for file in corpus.files)
    limits = {name: value for name, value in vars(filters).items() if name.isupper() and isinstance(value, int | float)}
    redacted = sum((Counter(getattr(file, "redacted", None) or {}) for file in corpus.files), Counter())
    return [
        f"Kept {len(corpus.files)} {' and '.join(name for name, _ in languages.most_common())} files, rejected "
        f"{len(corpus.rejects)}.",
        _table(["reason", "files"], [[reason, count] for reason, count in reasons.most_common()] or [["none", 0]]),
        "Rules: UTF-8 that parses; no vendored folder, generator's marker or test file; the limits of "
        "data/corpus/filters.py: "
        + ", ".join(f"{name.lower().replace('_', ' ')} {value}" for name, value in limits.items())
        + f"; no near-duplicate (Jaccard index of token 5-grams {corpus_rules.DUPLICATE} or more). Files that are "
        f"{corpus_rules.ALIKE} or more alike stay on one side of the split; a function {NEAR} or more alike to one of "
        "the test files is not learnt from.",
        f"Replaced by placeholders: {_counted(redacted)}." if redacted else "",
    ]


def _files(corpus: Corpus) -> list[str]:
    rows = []
    for split in SPLITS:
        files = corpus.split(split)
        functions = [one for file in files if file.path.endswith(".py") for one in functions_of(file)]
        documented = sum(bool(function.docstring) for function in functions)
        runnable = sum(bool(function.examples) for function in functions)
        lines = sum(file.text.count("\n") for file in files)
        rows.append([split, len(files), f"{lines:,}", len(functions), documented, runnable])
    head = ["split", "files", "lines", "Python functions of 5–60 lines", "documented", "with examples"]
    return [_table(head, rows)]


def _categories(pairs: list[dict]) -> list[str]:
    found = {pair.get("category", "none") for pair in pairs}
    return [*(name for name in INSTRUCTIONS if name in found), *sorted(found - INSTRUCTIONS.keys())]


def _instruction_pairs(instruct: InstructionPairs, about: dict) -> list[str]:
    made = all_pairs(instruct)
    counts = {split: Counter(pair.get("category", "none") for pair in instruct.split(split)) for split in SPLITS}
    rows = []
    for category in _categories(made):
        of_category = [pair for pair in made if pair.get("category", "none") == category]
        lengths = [_median([len(pair.get(part) or "") for pair in of_category]) for part in ("input", "output")]
        kinds = _counted(Counter(check_of(pair)["kind"] for pair in of_category))
        rows.append([category, *(counts[split][category] for split in SPLITS), *lengths, kinds])
    bugs = Counter(check_of(pair).get("bug") for pair in made if pair.get("category") == "bugfix")
    worse = Counter(kind for pair in made for kind in check_of(pair).get("degraded", []))
    reasons = Counter((reject.get("category", "all"), reject["reason"]) for reject in instruct.rejects)
    templates = about.get("templates", {} if about.get("kind") == IMPORTED else INSTRUCTIONS)
    phrasings = [f"- {name}: {' / '.join(templates[name])}" for name in _categories(made) if name in templates]
    return [
        _authors(made, about),
        _table(["category", *SPLITS, "input, median characters", "output", "checks"], rows),
        f"The repository's own tests, of no use as checks: {_counted(Counter(instruct.lost))}."
        if instruct.lost
        else "",
        f"Injected bugs: {_counted(bugs)}." if bugs else "",
        f"Ways in which code was made worse: {_counted(worse)}." if worse else "",
        "Phrasings, one drawn for each pair:" if phrasings else "",
        "\n".join(phrasings),
        "Rejected drafts:" if reasons else "",
        _table(["category", "reason", "drafts"], [[*why, count] for why, count in reasons.most_common()])
        if reasons
        else "",
    ]


def _authors(made: list[dict], about: dict) -> str:
    """Who wrote the answers."""
    told = (pair.get("teacher") for pair in made)  # of rows from elsewhere it may be anything
    taught = [one["model"] for one in told if isinstance(one, dict) and "model" in one]
    asked = (about.get("teacher") or {}).get("model")
    if taught or asked:
        models = ", ".join(sorted({*taught, *([asked] if asked else [])}))
        return (
            f"A teacher took part: {models}. {len(taught)} of {len(made)} answers are its own, each of which passed "
            "its checks; the others are the repository's."
        )
    if all(pair.get("category") in INSTRUCTIONS for pair in made) and about.get("kind") != IMPORTED:
        return "No language model took part: every answer is the repository's own docstring, body, line or test."
    explained = about.get("options", {}).get("teacher_model")
    return "Imported rows: who wrote their answers is for their own source to say." + (
        f" A teacher, {explained}, was asked for explanations that they lack." if explained else ""
    )


def _text_code_pairs(pairs: TextCodePairs) -> list[str]:
    rows = []
    for name in ("train", "test", "candidates"):
        side = getattr(pairs, name)
        kinds = Counter(row["kind"] for row in side)
        words = _median([len(row["query"].split()) for row in side]) if name != "candidates" else ""
        rows.append([name, kinds["function"], kinds["file"], words, _median([len(row["code"]) for row in side])])
    reasons = Counter(reject["reason"] for reject in pairs.rejects)
    used = {row.get("origin", "docstring") for row in [*pairs.train, *pairs.test]}
    templates = {name: one for name, one in pairs.about.get("templates", {}).items() if name in used}
    teacher = pairs.about.get("teacher")
    taught = sum(row.get("origin") == "teacher" for row in pairs.train)
    negatives = sum(len(pair["negatives"]) for pair in pairs.train)
    return [
        _table(["", "functions", "files", "query, median words", "code, median characters"], rows),
        "Queries are made from docstrings (their first sentence), from calls, from names, and of files, at most "
        f"{FILE_SHARE:.0%} of a side, in one of these voices:",
        "\n".join(f"- {name}: {' / '.join(one)}" for name, one in templates.items()),
        f"A teacher took part: {teacher['model']} wrote {taught} of the {len(pairs.train)} training queries, none to "
        f"test on. Each finds its code among the {TOP} best. It was asked: “{teacher['asked'].partition(chr(10))[0]}”"
        if teacher
        else "",
        "The code that is searched is without its docstring.",
        f"{negatives:,} hard negatives, from training files; none scores over {MARGIN:.0%} of its pair's own code."
        if negatives
        else "",
        f"With identifiers renamed: {len(pairs.renamed.train)} train, {len(pairs.renamed.test)} test."
        if pairs.renamed
        else "",
        _table(["reason", "rejected"], [[reason, count] for reason, count in reasons.most_common()]),
    ]


def _examples(instruct: InstructionPairs | None, pairs: TextCodePairs | None) -> list[str]:
    """Ten training examples: the categories in turn, then text–code pairs."""
    train = instruct.train if instruct else []
    by_category = [[pair for pair in train if pair.get("category", "none") == name] for name in _categories(train)]

    def shown(turn: int) -> list[tuple[str, str, str]]:
        rows = [pair for rows in by_category for pair in rows[turn : turn + 1]]
        return [(pair["id"], f"{pair['instruction']}\n\n{pair.get('input') or ''}", pair["output"]) for pair in rows]

    first = shown(0)
    codes = [(pair["id"], pair["query"], pair["code"]) for pair in (pairs.train if pairs else [])]
    chosen = [*first, *codes[: EXAMPLES - len(first)], *(one for turn in range(1, EXAMPLES) for one in shown(turn))]
    return [f"### {name}\n\n{_fenced(asked)}\n\n{_fenced(answer)}" for name, asked, answer in chosen[:EXAMPLES]]


def _contamination(corpus: Corpus) -> list[str]:
    """What the corpus says of benchmarks: the files it was held against, and what was left out for them."""
    benchmarks = corpus.options.get("decontaminate") or ()
    if not benchmarks:
        return ["Not checked: the corpus was curated without a benchmark's file to hold it against."]
    found = [reject for reject in corpus.rejects if reject["reason"] == "benchmark task"]
    names = ", ".join(PurePosixPath(str(path)).name for path in benchmarks)
    told = [f"Held against the tasks of {names}: {len(found)} files left out."]
    if found:
        told.append(_table(["file", "why"], [[reject["path"], reject.get("detail", "")] for reject in found]))
    return told


def _limits(material: Material) -> list[str]:
    corpus, instruct, pairs = material.corpus, material.instruct, material.pairs
    paths = [PurePosixPath(source["path"]).suffix for source in material.sources()]
    languages = " and ".join(sorted({LANGUAGES.get(suffix, suffix) for suffix in paths}))
    lines = [f"{languages} only. One repository's style and subject: what is learnt here need not hold elsewhere."]
    lines = lines if languages else ["The rows do not say where they are from."]
    if corpus:
        longest = max(corpus.files, key=lambda file: len(file.text))
        lines.append(f"The longest file is {longest.path} with {len(longest.text):,} characters.")
        if undeclared := sum(not file.license for file in corpus.files):
            lines.append(f"{undeclared} of {len(corpus.files)} files declare no licence.")
    if instruct:
        made = all_pairs(instruct)
        kinds = Counter(check_of(pair)["kind"] for pair in made)
        executed = len(made) - kinds["structure"] - kinds["none"]
        survivors = sum("wrong code too" in reject["reason"] for reject in instruct.rejects)
        longest = max(made, key=lambda pair: len(pair["output"]))
        lines += [
            f"{executed} of {len(made)} pairs have a check that runs code, {kinds['structure']} one of their structure "
            f"alone, {kinds['none']} none.",
            f"{survivors} drafts were dropped as the function's examples did not notice the change: the bugs that "
            "are left are those that examples find."
            if survivors
            else "",
            "A check proves what it tries and no more: what passes may still be wrong elsewhere." if executed else "",
            f"{sum(not pair.get('input') for pair in made)} pairs have no input; "
            f"{sum(not _is_ascii(pair) for pair in made)} hold signs outside ASCII; the longest answer is "
            f"{longest['id']} with {len(longest['output']):,} characters.",
        ]
    if pairs:
        asked = [*pairs.train, *pairs.test]
        writers = "a teacher and the authors" if pairs.about.get("teacher") else "the authors"
        shared = len(asked) - len({row["code_id"] for row in asked})
        longest = max(asked, key=lambda row: len(row["query"]))
        lines += [
            f"Queries are written by {writers} of the code, not by its searchers. Each has one right answer here, "
            "although others may serve as well.",
            f"{shared} queries ask for a code that another one asks for too; the longest is {longest['id']} with "
            f"{len(longest['query'])} characters.",
        ]
    return ["\n".join(f"- {line}" for line in lines if line)]


def _is_ascii(pair: dict) -> bool:
    return all((pair.get(part) or "").isascii() for part in ("instruction", "input", "output"))


def _hashes(material: Material) -> list[str]:
    rows = []
    if material.corpus:
        files = [(file.path, file.sha256, file.split) for file in material.corpus.files]
        rows.append(["files", _digest(files)])
    if material.instruct:
        rows += [[f"instruction pairs, {split}", _digest(material.instruct.split(split))] for split in SPLITS]
    if material.pairs:
        names = ("train", "test", "candidates")
        rows += [[f"text–code, {name}", _digest(getattr(material.pairs, name))] for name in names]
    tables = [_table(["data", "SHA-256 of its JSON"], rows)]
    if material.files:
        head = ["file", "rows", "SHA-256"]
        listed = [[f"`{relative(one.path, material.folder)}`", len(one.rows), one.sha256()] for one in material.files]
        tables.append(_table(head, listed))
    return tables


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
    return fenced(text)
