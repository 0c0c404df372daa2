"""Text–code pairs: what a searcher types and the function or file that answers it, from a corpus's own docstrings."""

from __future__ import annotations

import argparse
import ast
import random
import re
import sys
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from data.corpus import Corpus, SourceFile, open_corpus
from data.functions import Function, functions_of, held_apart, source_of
from data.prose import summary
from data.split import seeded_order
from model.console import UserError, run_command
from model.files import write_jsonl

FILE_SHARE = 0.15  # of the pairs of a side ask for a file, at most
MOST_WORDS = 40  # of a query: nobody types more
THIRD_PERSON = re.compile(
    r"^(return|comput|find|generat|check|calculat|creat|yield|determin|decid|iterat|add|remov|get|set|read|writ|convert"
    r"|construct|draw|test|count|estimat|draw|compar|us|assign|build|updat|pars|mak|giv|appl|sort|select|produc)(e?s)$",
    re.IGNORECASE,
)
ENDS_IN_E = frozenset(
    [
        "comput",
        "generat",
        "calculat",
        "creat",
        "determin",
        "decid",
        "iterat",
        "remov",
        "writ",
        "estimat",
        "compar",
        "us",
        "updat",
        "pars",
        "mak",
        "giv",
        "produc",
    ]
)
FUNCTION_VOICES = ("{sentence}", "{topic}", "how to {base}", "function that {third}", "how do I {base}?")
FILE_VOICES = (
    "where is {topic} implemented?",
    "which file has {topic}?",
    "in which module do I find {topic}?",
    "how do I open {file}?",
    "where is {file}?",
)


@dataclass(frozen=True)
class TextCodePairs:
    """Pairs to train and to test on, all candidates that a query is searched among, and rejects with their reason."""

    train: list[dict]
    test: list[dict]
    candidates: list[dict]
    rejects: list[dict]


def build_text_code_pairs(
    corpus: Corpus, *, count: int = 300, test_count: int = 300, min_lines: int = 3, max_lines: int = 120, seed: int = 0
) -> TextCodePairs:
    """Pairs of a query and the code that it asks for, split by file; test queries come from test files only.

    count, test_count      pairs wanted; at most 15 % of each ask for a file, the others for a function
    min_lines, max_lines   of a function's code without its docstring
    Code is without the docstring that gave the query: shared words alone must not find it. Raises UserError when the
    corpus has no documented function to train on.
    """
    functions = [one for file in corpus.files for one in functions_of(file, min_lines=min_lines, max_lines=max_lines)]
    learnable, rejects = held_apart(functions)
    candidates = _without_equal_codes([*map(_function_unit, functions), *map(_file_unit, corpus.files)], rejects)
    by_id = {candidate["id"]: candidate for candidate in candidates}
    asked = [
        (function.split, _function_unit(function)["id"], _function_query(function, seed)) for function in learnable
    ]
    asked += [(file.split, _file_unit(file)["id"], _file_query(file, seed)) for file in corpus.files]
    pairs = [(split, _pair(by_id[one], query)) for split, one, query in asked if query and one in by_id]
    rejects += [{"id": one, "reason": "no docstring that makes a query"} for _, one, query in asked if not query]
    pairs = _without_equal_queries(pairs, rejects)
    train, test = (_draw(pairs, split, most, seed) for split, most in (("train", count), ("test", test_count)))
    if not train:
        raise UserError(f"{corpus.name}: no documented function in the train files. Give a corpus with docstrings")
    return TextCodePairs(train, test, candidates, rejects)


def _function_unit(function: Function) -> dict:
    return {
        "id": f"{function.path}:{function.first_line}",
        "kind": "function",
        "code": function.code_without_docstring,
        "source": source_of(function),
    }


def _file_unit(file: SourceFile) -> dict:
    """A file as its outline: path, classes and signatures. Its docstring is left out, as it gives the query."""
    lines = [f"# {file.path}"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(file.text)
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            methods = [one.name for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
            lines.append(f"class {node.name}: {', '.join(methods)}")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines.append(f"def {node.name}({ast.unparse(node.args)})")
    source = {"path": file.path, "qualname": None, "commit": file.commit, "license": file.license}
    lines_of_file = [1, file.text.rstrip("\n").count("\n") + 1]
    return {"id": file.path, "kind": "file", "code": "\n".join(lines), "source": {**source, "lines": lines_of_file}}


def _function_query(function: Function, seed: int) -> str | None:
    """The docstring's first sentence as someone would type it, in one of several voices; None if it says too little."""
    choose = random.Random(f"{seed}\0{function.path}\0{function.first_line}")
    sentence = summary(function.docstring or "").rstrip(".:; ")
    words = re.findall(r"[A-Za-z]+", sentence.lower())
    own = set(re.findall(r"[a-z]+", function.name.lower()))
    if not 3 <= len(sentence.split()) <= MOST_WORDS or set(words) <= own:
        return None
    first, _, rest = sentence.partition(" ")
    verb = THIRD_PERSON.match(first)
    if not verb:  # already in the imperative, or not a verb at all: typed as it stands
        return choose.choice((sentence, sentence[0].lower() + sentence[1:]))
    stem = verb.group(1).lower()
    base = stem + "e" if stem in ENDS_IN_E else stem
    topic = re.sub(r"^(the|an?|all the) ", "", rest)
    voice = choose.choice(FUNCTION_VOICES)
    return voice.format(sentence=sentence, topic=topic, base=f"{base} {rest}", third=f"{first.lower()} {rest}")


def _file_query(file: SourceFile, seed: int) -> str:
    """A question that a file answers: by what its docstring says, or by its name."""
    choose = random.Random(f"{seed}\0{file.path}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        docstring = ast.get_docstring(ast.parse(file.text)) or ""
    heading = re.sub(r"^[*=~-]{3,}\n|\n[*=~-]{3,}$", "", docstring.split("\n\n")[0].strip())  # reST titles
    topic = summary(heading).rstrip(".:; ")
    said = 3 <= len(topic.split()) <= MOST_WORDS
    voices = [voice for voice in FILE_VOICES if said or "{topic}" not in voice]
    topic = topic[:1].lower() + topic[1:] if topic[1:2].islower() else topic
    short = "/".join(file.path.split("/")[-2:])
    return choose.choice(voices).format(topic=topic, file=short)


def _pair(candidate: dict, query: str) -> dict:
    return {
        "id": f"query/{candidate['id']}",
        "kind": candidate["kind"],
        "query": query,
        "code": candidate["code"],
        "code_id": candidate["id"],
        "negatives": [],
        "source": candidate["source"],
    }


def _without_equal_codes(units: list[dict], rejects: list[dict]) -> list[dict]:
    """The first unit of each text: of two that read the same, neither could be told to be the right one."""
    first: dict[str, dict] = {}
    for unit in units:
        if first.setdefault(unit["code"], unit) is not unit:
            rejects.append({"id": unit["id"], "reason": "code equal to another", "detail": first[unit["code"]]["id"]})
    return list(first.values())


def _without_equal_queries(pairs: list[tuple[str, dict]], rejects: list[dict]) -> list[tuple[str, dict]]:
    """Pairs whose query is asked once: what two places answer is no fair question."""
    counts = Counter(pair["query"].lower() for _, pair in pairs)
    rejects += [
        {"id": pair["code_id"], "reason": "query equal to another", "detail": pair["query"]}
        for _, pair in pairs
        if counts[pair["query"].lower()] > 1
    ]
    return [(split, pair) for split, pair in pairs if counts[pair["query"].lower()] == 1]


def _draw(pairs: list[tuple[str, dict]], split: str, most: int, seed: int) -> list[dict]:
    """At most `most` pairs of a side in a seeded order, files among them at most in their share."""
    side = {pair["id"]: pair for where, pair in pairs if where == split}
    order = [side[one] for one in seeded_order(list(side), seed)]
    functions = [pair for pair in order if pair["kind"] == "function"]
    files = [pair for pair in order if pair["kind"] == "file"]
    share = min(len(files), int(FILE_SHARE * most), int(FILE_SHARE / (1 - FILE_SHARE) * len(functions)))
    drawn = {pair["id"] for pair in [*files[:share], *functions[: most - share]]}
    return [pair for pair in order if pair["id"] in drawn]


def describe(pairs: TextCodePairs) -> str:
    """Pairs, candidates and rejects in a few lines."""
    lines = []
    for name, rows in (("train", pairs.train), ("test", pairs.test), ("candidates", pairs.candidates)):
        kinds = Counter(row["kind"] for row in rows)
        lines.append(f"{name:<10} {len(rows):>5}: {kinds['function']} functions, {kinds['file']} files")
    for reason, count in Counter(reject["reason"] for reject in pairs.rejects).most_common():
        lines.append(f"rejected   {count:>5}: {reason}")
    return "\n".join(lines)


def main() -> None:
    """Make text-code pairs from a corpus: train.jsonl, test.jsonl, candidates.jsonl, rejects.jsonl."""
    parser = argparse.ArgumentParser(prog="python -m data.pairs", description=main.__doc__)
    parser.add_argument("corpus", help="a folder written by data.corpus, or any SOURCE that it takes")
    parser.add_argument("--out", required=True, type=Path, help="folder to write into")
    parser.add_argument("--count", type=int, default=300, help="training pairs wanted (default 300)")
    parser.add_argument("--test-count", type=int, default=300, help="test pairs wanted (default 300)")
    parser.add_argument("--min-lines", type=int, default=3, help="lines of a function's code at least (default 3)")
    parser.add_argument("--max-lines", type=int, default=120, help="lines of a function's code at most (default 120)")
    parser.add_argument("--seed", type=int, default=0, help="seed of every draw (default 0)")
    options = parser.parse_args()
    pairs = build_text_code_pairs(
        open_corpus(options.corpus, seed=options.seed), count=options.count, test_count=options.test_count,
        min_lines=options.min_lines, max_lines=options.max_lines, seed=options.seed,
    )  # fmt: skip
    for name in ("train", "test", "candidates", "rejects"):
        write_jsonl(options.out / f"{name}.jsonl", getattr(pairs, name))
    print(describe(pairs))


if __name__ == "__main__":
    sys.exit(run_command(main))
