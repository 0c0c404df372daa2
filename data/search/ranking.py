"""Rules that put what meaning and words have found into the order that a reader of code expects.

    candidates      the best by meaning, the best by words, what defines a name of the query
    + words         their BM25 beside their cosine, each from 0 for the worst candidate to 1 for the best
    + path          the share of the query's words in the names of file and folders
    × definition    of a unit that defines a name that the query asks for
    × aside         of tests, examples and benchmarks, unless the query asks for them
    + file          what else its file has to offer
    × again         for each better unit of the same file; one that overlaps a better one is left out

The constants were chosen by cross-validation over repositories (docs/retrieval.md).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from data.search.bm25 import stems, words

STOP_WORDS = frozenset(
    "a an and are as at be by can do does for from get how i in into is it its of on or that the this to used using via "
    "what when where which who why with".split()
)
NAME = re.compile(r"[^\W\d][\w$]*(?:(?:\.|::|#|->)[^\W\d][\w$]*)*[!?]?")
PARTS = re.compile(r"\.|::|#|->")
INNER_CAPITAL = re.compile(r"[a-z0-9][A-Z]")
ASIDE = frozenset(
    {
        "test",
        "tests",
        "testing",
        "__tests__",
        "spec",
        "specs",
        "example",
        "examples",
        "benchmark",
        "benchmarks",
        "bench",
    }
    | {"fixtures", "demo", "demos"}
)
ASIDE_NAME = re.compile(r"(?:^|[._-])(?:tests?|spec|bench|examples?)(?:[._-]|$)|[a-z]Tests?(?=\.)")


@dataclass(frozen=True)
class Weights:
    """How much each rule counts."""

    words: float = 0.5
    path: float = 0.3
    definition: float = 3.0
    aside: float = 0.3
    file: float = 0.3
    again: float = 0.87
    overlap: bool = True


CHOSEN = Weights()


class Places:
    """What the rules need to know of an index's units: names, files and lines."""

    def __init__(self, units: Sequence[Mapping]) -> None:
        sources = [unit.get("source") or {} for unit in units]
        paths = [source.get("path") or "" for source in sources]
        numbers = {path: number for number, path in enumerate(dict.fromkeys(paths))}
        self.file = np.array([numbers[path] for path in paths], dtype=np.int64)  # [N], its number
        self.path_stems = [frozenset(stems(str(PurePosixPath(path).with_suffix("")))) for path in numbers]  # by file
        self.is_aside = np.array([stands_aside(path) for path in numbers])  # by file
        self.lines = [tuple(source.get("lines") or (0, 0)) for source in sources]
        self.is_file = np.array([unit.get("kind") == "file" for unit in units])
        self.defined: dict[str, list[int]] = defaultdict(list)  # a name in lower case -> the units that define it
        self.names = [str(source.get("qualname") or "").rpartition(".")[2] for source in sources]
        for row, name in enumerate(self.names):
            if name:
                self.defined[name.lower()].append(row)


def stands_aside(path: str) -> bool:
    """Whether a file only uses the code that people look for: a test, an example, a benchmark."""
    *folders, name = PurePosixPath(path).parts or ("",)
    return any(folder.lower() in ASIDE for folder in folders) or bool(ASIDE_NAME.search(name))


def asks_for_aside(query: str) -> bool:
    """Whether a query is about tests or examples."""
    return not set(words(query)).isdisjoint(ASIDE)


def telling_words(query: str) -> str:
    """The query without the words that every question has; itself, if it has no other."""
    return " ".join(word for word in words(query) if word not in STOP_WORDS) or query


def names_in(query: str) -> list[str]:
    """The names of code that a query asks for: a single word, snake_case, inCaps, the last part of a.dotted.name."""
    found = NAME.findall(query)
    if len(query.split()) > 1:
        found = [name for name in found if "_" in name.strip("_") or INNER_CAPITAL.search(name) or PARTS.search(name)]
    return [PARTS.split(name)[-1] for name in found]


def definers(query: str, places: Places) -> dict[int, float]:
    """The units that define a name of the query: 1 in the same case, else 0.5."""
    return {
        row: 1.0 if places.names[row] == name else 0.5
        for name in names_in(query)
        for row in places.defined.get(name.lower(), ())
    }


def order(
    query: str,
    places: Places,
    rows: np.ndarray,
    cosines: np.ndarray,
    bm25: np.ndarray,
    k: int,
    weights: Weights = CHOSEN,
) -> tuple[np.ndarray, np.ndarray]:
    """The best of these candidates: rows [n] and scores [n], n <= k.

    rows     [C]  candidates, each once
    cosines  [C]  with the query
    bm25     [C]  of the query's telling words
    """
    scores = (scaled(cosines) + weights.words * scaled(bm25, least=0.0)) / (1 + weights.words)
    asked = set(stems(telling_words(query)))
    files = places.file[rows]
    shares = {file: len(asked & places.path_stems[file]) / max(1, len(asked)) for file in set(files.tolist())}
    scores += weights.path * np.array([shares[file] for file in files.tolist()])
    defining = definers(query, places)
    scores *= np.array([1 + (weights.definition - 1) * defining.get(row, 0.0) for row in rows.tolist()])
    if not asks_for_aside(query):
        scores[places.is_aside[files]] *= weights.aside
    scores += weights.file * of_files(files, scores)
    return selected(places, rows, scores, k, weights)


def scaled(values: np.ndarray, least: float | None = None) -> np.ndarray:
    """From 0 (the smallest, or `least`) to 1 (the largest)."""
    low = values.min() if least is None else least
    spread = values.max() - low
    return (values - low) / spread if spread > 0 else np.zeros_like(values)


def of_files(files: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """For each candidate what its file has to offer: the sum of 1, 1/2, 1/4 … of its candidates' scores, over the largest."""
    sums: Counter[int] = Counter()
    seen: Counter[int] = Counter()
    for at in np.argsort(-scores, kind="stable").tolist():
        file = int(files[at])
        sums[file] += float(scores[at]) / 2 ** seen[file]
        seen[file] += 1
    return np.array([sums[file] for file in files.tolist()]) / max(sums.values())


def selected(
    places: Places, rows: np.ndarray, scores: np.ndarray, k: int, weights: Weights
) -> tuple[np.ndarray, np.ndarray]:
    """The k best, one after the other: each further one of a file counts less, and one that overlaps a better is left out."""
    taken: list[int] = []
    found: list[float] = []
    seen: Counter[int] = Counter()
    left = scores.astype(float).copy()
    files = places.file[rows]
    while len(taken) < k:
        at = int(left.argmax())
        if left[at] <= 0:
            break
        row, file = int(rows[at]), int(files[at])
        score, left[at] = left[at], 0.0
        if weights.overlap and any(overlap(places, row, other) for other in taken):
            continue
        taken.append(row)
        found.append(float(score))
        left[files == file] *= weights.again
        seen[file] += 1
    return np.array(taken, dtype=np.int64), np.array(found)


def overlap(places: Places, one: int, other: int) -> bool:
    """Whether two units share lines. A whole file is its outline: it shares none."""
    if places.file[one] != places.file[other] or places.is_file[one] or places.is_file[other]:
        return False
    (first, last), (start, end) = places.lines[one], places.lines[other]
    return first <= end and start <= last
