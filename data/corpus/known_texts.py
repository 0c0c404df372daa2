"""Texts that contain a run of words of known ones, such as benchmark tasks."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from data.likeness.near_duplicates import ngram_hashes

WORD = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True)
class KnownTexts:
    """Runs of `size` words of named texts, to find them in other texts.

    Words begin with a letter or an underscore and are lower-cased. Layout, punctuation and numbers do not count: 1, 2,
    3, 4 … is common property.
    """

    names: list[str]
    size: int
    ngrams: np.ndarray  # [G] uint64, sorted
    owners: np.ndarray  # [G] int64: index into `names`

    @classmethod
    def of(cls, texts: list[tuple[str, str]], size: int) -> KnownTexts:
        """From (name, text) pairs; a name may have several texts."""
        names = list(dict.fromkeys(name for name, _ in texts))
        number = {name: i for i, name in enumerate(names)}
        hashes = [ngram_hashes(_words(text), size) for _, text in texts]
        owners = [np.full(len(one), number[name]) for one, (name, _) in zip(hashes, texts, strict=True)]
        joined = np.concatenate([*hashes, np.zeros(0, np.uint64)])
        ngrams, first = np.unique(joined, return_index=True)
        return cls(names, size, ngrams, np.concatenate([*owners, np.zeros(0, np.int64)])[first])

    def found_in(self, text: str) -> str | None:
        """The name of the first known text that shares a run with this one, else None."""
        if not len(self.ngrams):
            return None
        runs = ngram_hashes(_words(text), self.size)
        place = np.searchsorted(self.ngrams, runs).clip(max=len(self.ngrams) - 1)
        hits = np.flatnonzero(self.ngrams[place] == runs)
        return self.names[self.owners[place[hits[0]]]] if len(hits) else None


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())
