"""Rules that put what meaning and words have found into the order that a reader of code expects.

    candidates      the nearest by meaning, the best by words, and what defines a name of the query
    cosine          from 0 for the farthest candidate to 1 for the nearest
    + words         BM25 of the query's telling words, from 0 to 1 as well
    + path          the share of these words in the names of the file and its folders
    + file name     the share of the file's own name that the query has, squared
    + name          the share of the unit's name that the query has
    × definition    of a unit that defines a name of code that the query asks for
    × aside         of tests, examples and benchmarks, unless the query asks for them
    + file          what else its file has to offer
    × again         for each better unit of the same file

Each rule is a function below. docs/retrieval.md has what each is worth, and how the weights were chosen.
"""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from data.search.bm25 import stems, words

STOP_WORDS = frozenset(
    {"a", "an", "and", "are", "as", "at", "be", "by", "can", "do", "does", "for", "from", "get", "how", "i", "in"}
    | {"into", "is", "it", "its", "of", "on", "or", "that", "the", "this", "to", "used", "using", "via", "what", "when"}
    | {"where", "which", "who", "why", "with"}
)
PART = r"(?:\.|::|#|->)"  # between the parts of a name: a.b, A::b, A#b
NAME = re.compile(rf"[^\W\d][\w$]*(?:{PART}[^\W\d][\w$]*)*[!?]?")
INNER_CAPITAL = re.compile(r"[a-z0-9][A-Z]")
ASIDE = frozenset(
    {"test", "tests", "testing", "__tests__", "spec", "specs", "fixtures", "example", "examples", "demo", "demos"}
    | {"benchmark", "benchmarks", "bench"}
)
ASIDE_NAME = re.compile(r"(?:^|[._-])(?:tests?|spec|bench|examples?)(?:[._-]|$)|[a-z]Tests?(?=\.)")


@dataclass(frozen=True)
class Weights:
    """How much each rule counts; `NONE` is cosine and words alone."""

    words: float = 0.7
    path: float = 0.5
    file_name: float = 0.1
    name: float = 0.2
    definition: float = 4.0
    aside: float = 0.3
    file: float = 0.5
    again: float = 0.8


CHOSEN = Weights()
NONE = Weights(path=0, file_name=0, name=0, definition=1, aside=1, file=0, again=1)


class Places:
    """What the rules need to know of an index's units: files and names."""

    def __init__(self, units: Sequence[Mapping]) -> None:
        sources = [unit.get("source") or {} for unit in units]
        paths = [source.get("path") or "" for source in sources]
        files = {path: number for number, path in enumerate(dict.fromkeys(paths))}
        self.file = np.array([files[path] for path in paths], dtype=np.int64)  # [N], the number of its file
        self.names = [str(source.get("qualname") or "").rpartition(".")[2] for source in sources]
        self.defined: dict[str, list[int]] = defaultdict(list)  # a name in lower case -> the units that define it
        for row, name in enumerate(self.names):
            if name:
                self.defined[name.lower()].append(row)

        # by the number of the file
        self.is_aside = np.array([stands_aside(path) for path in files])
        self.file_stems = [frozenset(stems(PurePosixPath(path).stem)) for path in files]
        self.path_stems = [
            own.union(stems(str(PurePosixPath(path).parent))) for path, own in zip(files, self.file_stems, strict=True)
        ]


# ------------------------------------------------------------------------------------------------------- the query


def telling_words(query: str) -> str:
    """The query without the words that every question has; itself, if it has no other."""
    return " ".join(word for word in words(query) if word not in STOP_WORDS) or query


def names_in(query: str) -> list[str]:
    """The names of code that a query asks for: a single word, snake_case, inCaps, the last part of a.dotted.name."""
    found = NAME.findall(query)
    if len(query.split()) > 1:
        found = [
            name for name in found if "_" in name.strip("_") or INNER_CAPITAL.search(name) or re.search(PART, name)
        ]
    return [re.split(PART, name)[-1] for name in found]


@functools.lru_cache(maxsize=100_000)  # names are asked about again and again
def name_stems(name: str) -> frozenset[str]:
    """The stems of the words of a name."""
    return frozenset(stems(name))


def asks_for_aside(query: str) -> bool:
    """Whether a query is about tests, examples or benchmarks."""
    return not ASIDE.isdisjoint(words(query))


# ------------------------------------------------------------------------------------------------------- the rules


def scaled(values: np.ndarray, least: float) -> np.ndarray:
    """From 0 (`least`) to 1 (the largest)."""
    spread = values.max() - least
    return (values - least) / spread if spread > 0 else np.zeros(len(values))


def share_of(part: frozenset[str], whole: frozenset[str]) -> float:
    """How much of `whole` is in `part`; 0 of nothing."""
    return len(part & whole) / len(whole) if whole else 0.0


def definers(query: str, places: Places) -> dict[int, float]:
    """The units that define a name of the query: 1 in the same case, else 0.5."""
    return {
        row: 1.0 if places.names[row] == name else 0.5
        for name in names_in(query)
        for row in places.defined.get(name.lower(), ())
    }


def stands_aside(path: str) -> bool:
    """Whether a file only uses what people look for: a test, an example, a benchmark."""
    *folders, name = PurePosixPath(path).parts or ("",)
    return not ASIDE.isdisjoint(map(str.lower, folders)) or bool(ASIDE_NAME.search(name))


def offered_by_files(files: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """What each candidate's file offers [C]: the sum of its candidates' scores, each halved once more; at most 1."""
    sums: Counter[int] = Counter()
    seen: Counter[int] = Counter()
    for at in np.argsort(-scores, kind="stable").tolist():
        file = int(files[at])
        sums[file] += float(scores[at]) / 2 ** seen[file]
        seen[file] += 1
    return np.array([sums[file] for file in files.tolist()]) / max(sums.values())


# ------------------------------------------------------------------------------------------------------- the order


def order(
    query: str,
    places: Places,
    rows: np.ndarray,
    cosines: np.ndarray,
    bm25: np.ndarray,
    k: int,
    weights: Weights = CHOSEN,
) -> tuple[np.ndarray, np.ndarray]:
    """The best of some candidates: their rows [n] and scores [n], best first, n <= k.

    rows     [C]  of the candidates, each once
    cosines  [C]  with the query
    bm25     [C]  of the query's telling words, 0 where none occurs
    """
    scores = (scaled(cosines, cosines.min()) + weights.words * scaled(bm25, 0.0)) / (1 + weights.words)
    asked, files, defining = frozenset(stems(telling_words(query))), places.file[rows], definers(query, places)

    # words of the query in the names around it
    of_file = {
        file: weights.path * share_of(places.path_stems[file], asked)
        + weights.file_name * share_of(asked, places.file_stems[file]) ** 2
        for file in set(files.tolist())
    }
    names = [name_stems(places.names[row]) for row in rows.tolist()]
    scores += [of_file[file] for file in files.tolist()]
    scores += [weights.name * share_of(asked, name) for name in names]

    # what is asked for by name, what is looked for last, what stands among its like
    scores *= [1 + (weights.definition - 1) * defining.get(row, 0.0) for row in rows.tolist()]
    if not asks_for_aside(query):
        scores[places.is_aside[files]] *= weights.aside
    if weights.file and scores.max() > 0:
        scores += weights.file * offered_by_files(files, scores)
    return selected(places, rows, scores, k, weights)


def selected(
    places: Places, rows: np.ndarray, scores: np.ndarray, k: int, weights: Weights
) -> tuple[np.ndarray, np.ndarray]:
    """The k best, one after the other: each further one of a file at a discount."""
    left, files = scores.copy(), places.file[rows]
    taken: list[int] = []
    found: list[float] = []
    for _ in range(min(k, len(rows))):
        at = int(left.argmax())
        taken.append(int(rows[at]))
        found.append(float(left[at]))
        left[files == files[at]] *= weights.again
        left[at] = -np.inf
    return np.array(taken, dtype=np.int64), np.array(found)
