"""Builds text–code pairs from a corpus alone: search queries and the function or file that answers each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.console import UserError
from common.files import read_json, read_jsonl, write_json, write_jsonl
from common.shuffle import seeded_order
from data.corpus import SPLITS, Corpus
from data.corpus.functions import held_apart
from data.instruct.teacher import Teacher
from data.likeness.rename import names_of_file, rename_identifiers
from data.pairs.mining import Scorer, consistent, scorers, with_negatives
from data.pairs.origins import Queries, queries_of_files, queries_of_functions
from data.pairs.queries import (
    CALL_VOICES,
    COMMAND_VOICES,
    DONE_VOICES,
    FILE_VOICES,
    FUNCTION_VOICES,
    NAME_VOICES,
    VERB_VOICES,
)
from data.pairs.query_teacher import QUESTION, SYSTEM, taught_queries
from data.search.units import file_unit, function_unit, functions_in, without_equal_codes

FILE_SHARE = 0.15  # largest share of a side's pairs that ask for a file
SCHEMA = 1
PARTS = ("train", "test", "candidates", "rejects")


@dataclass(frozen=True)
class TextCodePairs:
    """Training and test pairs, all candidates to search among, and rejects with their reasons."""

    train: list[dict]
    test: list[dict]
    candidates: list[dict]
    rejects: list[dict]
    about: dict = field(default_factory=dict)  # corpus, options and templates: the content of about.json
    renamed: TextCodePairs | None = None  # the same queries with the identifiers of every code renamed


def build_text_code_pairs(
    corpus: Corpus,
    *,
    count: int = 300,
    test_count: int = 300,
    min_lines: int = 3,
    max_lines: int = 120,
    seed: int = 0,
    origins: Collection[str] = ("docstring", "file"),
    queries_per_code: int = 1,
    keep_top: int = 0,
    negatives: int = 0,
    encoder=None,
    rename: bool = False,
    teacher: Teacher | None = None,
    teacher_candidates: int = 4,
) -> TextCodePairs:
    """Pairs of a query and the code that it asks for, split by file; test queries come from test files only.

    count, test_count      pairs wanted; at most 15 % of each ask for a file, the others for a function
    min_lines, max_lines   of a function's code without its docstring
    origins                what queries are made from, some of data.pairs.queries.ORIGINS; the docstring's come first
    queries_per_code       at most, for training; test queries are independent: one per code
    keep_top               drop training pairs whose code is not among this many best for its query (0: keep all)
    negatives              hard negatives of each training pair, at most
    encoder                judges both, besides BM25; used by data.pairs.mining.Dense
    rename                 also build the variant with renamed identifiers
    teacher                writes queries for `count` training functions, teacher_candidates replies each; those that
                           pass (data/pairs/query_teacher.py) precede all other origins
    Code comes without the docstring that gave the query, so that shared words alone do not find it. UserError if there
    is no training pair.
    """
    options = {
        "count": count, "test_count": test_count, "min_lines": min_lines, "max_lines": max_lines, "seed": seed,
        "origins": list(origins), "queries_per_code": queries_per_code, "keep_top": keep_top, "negatives": negatives,
        "judge": "BM25" if encoder is None else encoder.identity(), "rename": rename,
        **({"teacher": teacher.model, "teacher_candidates": teacher_candidates} if teacher else {}),
    }  # fmt: skip
    # the codes: those to search among, and those of the training files, which negatives are drawn from
    functions = [one for file in corpus.files for one in functions_in(file, min_lines=min_lines, max_lines=max_lines)]
    learnable, rejects = held_apart(functions)
    candidates, equal_codes = without_equal_codes([*map(function_unit, functions), *map(file_unit, corpus.files)])
    trained_on = {file.path for file in corpus.split("train")}
    pool = [unit for unit in candidates if unit["source"]["path"] in trained_on]
    ranked_by = scorers([one["code"] for one in pool], encoder) if pool and (keep_top or negatives or teacher) else []

    # the queries
    taught, untaught = {}, []
    if teacher and pool:
        taught, untaught = taught_queries(
            learnable, teacher, samples=teacher_candidates, most=count, pool=pool, judge=ranked_by[0], seed=seed
        )
    asked, unasked = queries_of_functions(learnable, origins, seed, taught)
    asked += queries_of_files(corpus.files, origins, seed)

    # the pairs of each side
    train, test, unusable = _sides(_pairs(asked, candidates, queries_per_code))
    test, spare = _draw(test, test_count, seed)
    train, dropped = _consistent_draw(train, pool, ranked_by, keep_top, count, seed)
    rejects += [*equal_codes, *untaught, *unasked, *unusable, *spare, *dropped]
    if not train:
        raise UserError(f"{corpus.name}: no function of the train files makes a query. Give a corpus with docstrings")
    train = with_negatives(train, pool, ranked_by, negatives) if negatives else train
    found = TextCodePairs(train, test, candidates, rejects, _about(corpus, options, teacher))
    return replace(found, renamed=_renamed(found, corpus)) if rename else found


def _about(corpus: Corpus, options: dict, teacher: Teacher | None) -> dict:
    """The content of about.json: enough to rebuild the pairs."""
    return {
        "schema": SCHEMA,
        "kind": "text-code pairs",
        "corpus": {"name": corpus.name, "source": corpus.source, "sha256": corpus.sha256(), "options": corpus.options},
        "options": options,
        "teacher": teacher and {"model": teacher.model, "system": SYSTEM, "asked": QUESTION},
        "templates": {
            "docstring": FUNCTION_VOICES + COMMAND_VOICES,
            "call": CALL_VOICES,
            "name": NAME_VOICES + VERB_VOICES[1:],
            "file": FILE_VOICES + DONE_VOICES,
        },
    }


def _pairs(asked: list[Queries], candidates: list[dict], queries_per_code: int) -> list[tuple[str, dict]]:
    """(split, pair): the first queries of each code that is a candidate."""
    by_id = {candidate["id"]: candidate for candidate in candidates}
    return [
        (split, _pair(by_id[unit], query, number))
        for split, unit, queries in asked
        if unit in by_id
        for number, query in enumerate(queries[: queries_per_code if split == "train" else 1], 1)
    ]


def _renamed(pairs: TextCodePairs, corpus: Corpus) -> TextCodePairs:
    """The pairs with the identifiers of every Python function renamed; without files, whose outline is all names."""
    names = {file.path: names_of_file(file.text) for file in corpus.files if file.path.endswith(".py")}
    units, rejects = [], []
    for one in pairs.candidates:
        if one["kind"] == "file":
            rejects.append({"id": one["id"], "reason": "a file's outline is nothing but names"})
        elif one["source"]["path"] not in names:
            rejects.append({"id": one["id"], "reason": "identifiers are renamed in Python alone"})
        else:
            defined, imported = names[one["source"]["path"]]
            units.append(one | {"code": rename_identifiers(one["code"], defined=defined, imported=imported)})
    distinct, equal_codes = without_equal_codes(units)
    rejects += equal_codes
    by_id = {one["id"]: one for one in distinct}

    def side(rows: list[dict]) -> list[dict]:
        kept = []
        for row in rows:
            ids = [one for one in row.get("negative_ids", ()) if one in by_id]
            negatives = {"negatives": [by_id[one]["code"] for one in ids], "negative_ids": ids}
            if row["code_id"] in by_id:
                kept.append(row | {"code": by_id[row["code_id"]]["code"]} | negatives)
        return kept

    return TextCodePairs(
        train=side(pairs.train), test=side(pairs.test), candidates=distinct, rejects=rejects, about=pairs.about
    )


def _pair(candidate: dict, query: dict, number: int) -> dict:
    return {
        "id": f"query/{candidate['id']}" + (f"#{number}" if number > 1 else ""),
        "kind": candidate["kind"],
        **query,
        "code": candidate["code"],
        "code_id": candidate["id"],
        "negatives": [],
        "source": candidate["source"],
    }


def _sides(pairs: list[tuple[str, dict]]) -> tuple[list[dict], list[dict], list[dict]]:
    """Training pairs, test pairs and rejects.

    Rejected are queries that occur twice (with two right answers a query is no fair test) and validation files' pairs.
    """
    counts = Counter(pair["query"].lower() for _, pair in pairs)
    sides: dict[str, list[dict]] = {split: [] for split in SPLITS}
    rejects = []
    for split, pair in pairs:
        if counts[pair["query"].lower()] > 1:
            rejects.append({"id": pair["code_id"], "reason": "query equal to another", "detail": pair["query"]})
        else:
            sides[split].append(pair)
    rejects += [{"id": pair["code_id"], "reason": "in a validation file"} for pair in sides["validation"]]
    return sides["train"], sides["test"], rejects


def _draw(pairs: list[dict], most: int, seed: int) -> tuple[list[dict], list[dict]]:
    """At most `most` pairs of a side in a seeded order, files up to their share; and the others as rejects.

    Of the functions' queries a teacher's come first, as they were paid for, and names last: their words occur in the
    code, so an untrained word search finds them.
    """
    of_code: dict[str, list[dict]] = {}
    for pair in pairs:
        of_code.setdefault(pair["code_id"], []).append(pair)
    first = {queries[0]["id"]: queries for queries in of_code.values()}
    codes = [first[one] for one in seeded_order(list(first), seed)]  # a code's queries stay together
    by_origin = sorted(codes, key=lambda queries: {"teacher": 0, "name": 2}.get(queries[0]["origin"], 1))
    functions = [pair for queries in by_origin for pair in queries if pair["kind"] == "function"]
    order = [pair for queries in codes for pair in queries]
    files = [pair for pair in order if pair["kind"] == "file"]
    share = min(len(files), int(FILE_SHARE * most), int(FILE_SHARE / (1 - FILE_SHARE) * len(functions)))
    drawn = {pair["id"] for pair in [*files[:share], *functions[: most - share]]}
    rejects = [{"id": pair["code_id"], "reason": "over the count"} for pair in order if pair["id"] not in drawn]
    return [pair for pair in order if pair["id"] in drawn], rejects


def _consistent_draw(
    pairs: list[dict], pool: list[dict], ranked_by: list[Scorer], keep_top: int, most: int, seed: int
) -> tuple[list[dict], list[dict]]:
    """At most `most` of the pairs that rank in the `keep_top` for their query (0: any rank), and rejects."""
    rejects = []
    if pairs and keep_top:
        pairs, rejects = consistent(pairs, pool, ranked_by[0], keep_top)
    drawn, spare = _draw(pairs, most, seed)
    return drawn, [*rejects, *spare]


def save_text_code_pairs(pairs: TextCodePairs, folder: Path | str) -> None:
    """Write {train,test,candidates,rejects}.jsonl and about.json; the renamed variant goes into renamed/."""
    folder = Path(folder)
    for name in PARTS:
        write_jsonl(folder / f"{name}.jsonl", getattr(pairs, name))
    write_json(folder / "about.json", pairs.about)
    if pairs.renamed:
        save_text_code_pairs(pairs.renamed, folder / "renamed")


def load_text_code_pairs(folder: Path | str) -> TextCodePairs:
    """Read a folder that save_text_code_pairs wrote; about.json and renamed/ may be missing."""
    folder = Path(folder)
    about = read_json(folder / "about.json") if (folder / "about.json").is_file() else {}
    renamed = load_text_code_pairs(folder / "renamed") if (folder / "renamed").is_dir() else None
    return TextCodePairs(**{name: read_jsonl(folder / f"{name}.jsonl") for name in PARTS}, about=about, renamed=renamed)


def text_code_summary(pairs: TextCodePairs) -> str:
    """A few lines on pairs, candidates and rejects."""
    lines = []
    for name, rows in (("train", pairs.train), ("test", pairs.test), ("candidates", pairs.candidates)):
        kinds = Counter(row["kind"] for row in rows)
        made = Counter(row["origin"] for row in rows if "origin" in row)
        told = "; from " + ", ".join(f"{count} {origin}" for origin, count in made.most_common()) if made else ""
        lines.append(f"{name:<10} {len(rows):>5}: {kinds['function']} functions, {kinds['file']} files{told}")
    if wanted := pairs.about.get("options", {}).get("negatives"):
        short = sum(len(pair["negatives"]) < wanted for pair in pairs.train)
        lines.append(
            f"negatives  {sum(len(pair['negatives']) for pair in pairs.train):>5}: {short} pairs below {wanted}"
        )
    if pairs.renamed:
        lines.append(f"renamed    {len(pairs.renamed.train):>5} train, {len(pairs.renamed.test)} test")
    for reason, count in Counter(reject["reason"] for reject in pairs.rejects).most_common():
        lines.append(f"rejected   {count:>5}: {reason}")
    return "\n".join(lines)
