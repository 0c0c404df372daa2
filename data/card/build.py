"""The data card: what the data is, how it was made, and its limits. Every figure is computed from the data.

python -m data.card DIR   ->  data_card.md (with the front matter of a dataset hub), data_card.html, croissant.json
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path, PurePosixPath

from common.files import write_json, write_text
from common.html import Safe, join, markdown, page
from data.card.corpus_sections import contamination_section, files_section, filters_section, sources_section
from data.card.distributions import Bars, distributions
from data.card.material import LANGUAGES, Material, all_pairs, check_of, data_files, relative
from data.card.metadata import croissant, front_matter
from data.card.pair_sections import categories_of, instruction_pairs_section, text_code_pairs_section
from data.card.tables import excerpt, table
from data.card.text_sections import text_distributions, text_limits, text_rows_section
from data.corpus import SPLITS, Corpus
from data.instruct import InstructionPairs
from data.pairs import TextCodePairs
from data.rows import training_conversation

EXAMPLES = 10
Section = tuple[str, list[str | Bars]]  # a title, and Markdown with figures in between


def write_data_card(
    folder: Path | str, *, corpus: Corpus, instruct: InstructionPairs | None = None, pairs: TextCodePairs | None = None
) -> str:
    """Write data_card.md into `folder` and return its Markdown. The front matter lists the files there."""
    folder = Path(folder)
    files = data_files(folder) if folder.is_dir() and (instruct or pairs) else ()
    material = Material(folder, corpus, instruct, pairs, files=files)
    text = _as_markdown(material, card_sections(material))
    write_text(folder / "data_card.md", text)
    return text


def write_card_files(material: Material) -> list[Path]:
    """Write data_card.md, data_card.html and croissant.json into the folder that was read; returns their paths."""
    sections = card_sections(material)
    summary = card_summary(material)
    text, html, metadata = (material.folder / name for name in ("data_card.md", "data_card.html", "croissant.json"))
    write_text(text, _as_markdown(material, sections))
    parts = [
        (re.sub(r"\W+", "-", title.lower()), title, join(_as_html(block) for block in blocks))
        for title, blocks in sections
    ]
    write_text(html, page(f"Data card: {material.name}", summary, parts))
    write_json(metadata, croissant(material, summary))
    return [text, html, metadata]


def _as_markdown(material: Material, sections: list[Section]) -> str:
    parts = [f"# Data card: {material.name}"]
    for title, blocks in sections:
        parts += [f"## {title}", *(one.as_markdown() if isinstance(one, Bars) else one for one in blocks)]
    return front_matter(material) + "\n" + "\n\n".join(parts) + "\n"


def _as_html(block: str | Bars) -> Safe:
    return block.as_html() if isinstance(block, Bars) else markdown(block)


def card_summary(material: Material) -> str:
    """One sentence that says what the data is."""
    parts = []
    if material.corpus:
        parts.append(f"{len(material.corpus.files):,} source files")
    if material.instruct:
        parts.append(f"{sum(len(material.instruct.split(split)) for split in SPLITS):,} instruction pairs")
    if material.pairs:
        count = len(material.pairs.train) + len(material.pairs.test)
        parts.append(f"{count:,} text–code pairs with {len(material.pairs.candidates):,} candidates")
    if material.text:
        parts.append(f"{len(material.text.all_rows()):,} text rows for {material.text.task}")
    return f"{', '.join(parts)} made from {material.name} by tritune."


def card_sections(material: Material) -> list[Section]:
    """The card's sections in order, without empty ones."""
    corpus, instruct, pairs, text = material.corpus, material.instruct, material.pairs, material.text
    sections: list[tuple[str, Sequence[str | Bars | None]]] = [("Source", sources_section(material))]
    if corpus:
        sections += [("Filters", filters_section(corpus)), ("Split by file", files_section(corpus))]
    if instruct:
        sections.append(("Instruction pairs", instruction_pairs_section(instruct, material.about)))
    if pairs:
        sections.append(("Text–code pairs", text_code_pairs_section(pairs)))
    if text:
        sections.append(("Text rows", text_rows_section(text)))
    bars = [*distributions(material), *(text_distributions(text) if text else [])]
    sections += [("Distributions", bars), ("Examples", _examples(material))]
    if corpus:
        sections.append(("Contamination", contamination_section(corpus)))
    sections += [("Edge cases and limits", _limits(material)), ("Hashes", _hashes(material))]
    return [(title, [block for block in blocks if block]) for title, blocks in sections if any(blocks)]


def _examples(material: Material) -> list[str]:
    """Ten training examples: one of each category, then text–code pairs, text rows, and the next of each category."""
    instruct, pairs, text = material.instruct, material.pairs, material.text
    train = instruct.train if instruct else []
    by_category = [[pair for pair in train if pair.get("category", "none") == name] for name in categories_of(train)]
    in_turn = [pair for turn in zip_longest(*by_category) for pair in turn if pair is not None]
    answers = [(pair["id"], f"{pair['instruction']}\n\n{pair.get('input') or ''}", pair["output"]) for pair in in_turn]
    codes = [(pair["id"], pair["query"], pair["code"]) for pair in (pairs.train if pairs else [])]
    turns = [
        (row["id"], training_conversation(row).messages) for row in (text.rows["train"] if text else [])[:EXAMPLES]
    ]
    codes += [(name, messages[0]["content"], messages[-1]["content"]) for name, messages in turns]
    first = len(by_category)
    chosen = [*answers[:first], *codes[: max(0, EXAMPLES - first)], *answers[first:]][:EXAMPLES]
    return [f"### {name}\n\n{excerpt(question)}\n\n{excerpt(answer)}" for name, question, answer in chosen]


def _limits(material: Material) -> list[str]:
    corpus, instruct, pairs, text = material.corpus, material.instruct, material.pairs, material.text
    suffixes = {PurePosixPath(source["path"]).suffix for source in material.sources()}
    languages = " and ".join(sorted({LANGUAGES.get(suffix, suffix) for suffix in suffixes}))
    lines = [f"{languages} only. One repository's style and subject: what is learnt here need not hold elsewhere."]
    if not languages:
        lines = ["The rows do not say where they are from."]
    if text:
        lines = text_limits(text)
    if corpus:
        lines += _limits_of_files(corpus)
    if instruct:
        lines += _limits_of_instruction_pairs(instruct)
    if pairs:
        lines += _limits_of_text_code_pairs(pairs)
    return ["\n".join(f"- {line}" for line in lines)]


def _limits_of_files(corpus: Corpus) -> list[str]:
    longest = max(corpus.files, key=lambda file: len(file.text))
    lines = [f"The longest file is {longest.path} with {len(longest.text):,} characters."]
    if undeclared := sum(not file.license for file in corpus.files):
        lines.append(f"{undeclared} of {len(corpus.files)} files declare no licence.")
    return lines


def _limits_of_instruction_pairs(instruct: InstructionPairs) -> list[str]:
    pairs = all_pairs(instruct)
    kinds = Counter(check_of(pair)["kind"] for pair in pairs)
    executed = len(pairs) - kinds["structure"] - kinds["none"]
    lines = [
        f"{executed} of {len(pairs)} pairs have a check that runs code, {kinds['structure']} one of their structure "
        f"alone, {kinds['none']} none."
    ]
    if survivors := sum("wrong code too" in reject["reason"] for reject in instruct.rejects):
        lines.append(
            f"{survivors} drafts were dropped because the function's examples also passed with the bug: the remaining "
            "bugs are those that examples detect."
        )
    if executed:
        lines.append("A check proves only what it tries: an answer that passes may still be wrong elsewhere.")
    without_input = sum(not pair.get("input") for pair in pairs)
    parts = ("instruction", "input", "output")
    not_ascii = sum(not all((pair.get(part) or "").isascii() for part in parts) for pair in pairs)
    longest = max(pairs, key=lambda pair: len(pair["output"]))
    lines.append(
        f"{without_input} pairs have no input; {not_ascii} contain characters outside ASCII; the longest answer is "
        f"{longest['id']} with {len(longest['output']):,} characters."
    )
    return lines


def _limits_of_text_code_pairs(pairs: TextCodePairs) -> list[str]:
    rows = [*pairs.train, *pairs.test]
    writers = "a teacher and the authors" if pairs.about.get("teacher") else "the authors"
    shared = len(rows) - len({row["code_id"] for row in rows})
    longest = max(rows, key=lambda row: len(row["query"]))
    return [
        f"Queries are written by {writers} of the code, not by people searching for it. Each has one right answer "
        "here, although others may serve as well.",
        f"{shared} queries ask for the same code as another; the longest is {longest['id']} with "
        f"{len(longest['query'])} characters.",
    ]


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
    if material.text:
        rows += [[f"text rows, {split}", _digest(material.text.rows[split])] for split in SPLITS]
    tables = [table(["data", "SHA-256 of its JSON"], rows)]
    if material.files:
        head = ["file", "rows", "SHA-256"]
        listed = [[f"`{relative(one.path, material.folder)}`", len(one.rows), one.sha256()] for one in material.files]
        tables.append(table(head, listed))
    return tables


def _digest(value) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, sort_keys=True).encode()).hexdigest()
