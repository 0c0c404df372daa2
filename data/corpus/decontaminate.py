"""Decontamination: files that share a run of words with a benchmark task are rejected.

As in DeepSeek-Coder (arXiv:2401.14196), but with RUN = 13 words, GPT-3's number (arXiv:2005.14165), instead of 10: in
code, ten words can be a plain double loop.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.console import UserError
from common.files import read_objects
from data.likeness.near_duplicates import ngram_hashes

RUN = 13  # words
WORD = re.compile(r"[^\W\d]\w*")
FIELDS = ("text", "prompt", "code", "canonical_solution", "test_list")  # of MBPP, its sanitized form, and HumanEval


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
    def of(cls, texts: Sequence[tuple[str, str]], size: int) -> KnownTexts:
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


def read_task_texts(paths: Sequence[str]) -> list[tuple[str, str]]:
    """(task, text) of MBPP's and HumanEval's own files: .jsonl, .jsonl.gz, or a .json list.

    Raises UserError naming the file, and the task or line, that cannot be read.
    """
    texts = []
    for path in map(Path, paths):
        for number, row in enumerate(read_objects(path), 1):
            if "task_id" not in row:
                raise UserError(f"{path}: task {number} has no task_id. Give MBPP's or HumanEval's own file")
            name = str(row["task_id"])
            name = name if "/" in name else f"MBPP/{name}"
            parts = [row[field] for field in FIELDS if field in row]
            texts += [(name, "\n".join(part) if isinstance(part, list) else str(part)) for part in parts]
    return texts
