"""What each task and each held-out file is read with: passages that search finds in the training files.

The index holds the training files alone: what a model is tuned on and what it is given to read are the same code.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data.corpus import Corpus
from data.masking import Example
from data.search.contents import Contents
from data.search.context import Passage, passages_for
from data.search.results import Search
from data.search.units import documented_units
from data.search.update import earlier_index, update_by_encoder
from eval.perplexity import Document
from eval.what_pays.leaks import leak_detector
from model.encoder import Encoder
from model.loss import IGNORE
from model.tokenizer import Tokenizer


def index_training_files(corpus: Corpus, encoder: Encoder, folder: Path) -> None:
    """Write the index of a corpus's training files, or bring it up to date."""
    units = [unit for file in corpus.split("train") for unit in documented_units(file)]
    contents = Contents(Path(corpus.source), units, files=[], left_out=Counter(), source=corpus.source, tests=False)
    update_by_encoder(folder, contents, encoder, earlier=earlier_index(folder)[0])


@dataclass
class Reader:
    """Finds passages for the tasks and files of a corpus, and keeps how long each search took."""

    search: Search
    corpus: Corpus
    tokenizer: Tokenizer
    most_tokens: int
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Files by path, and those that no passage may be from."""
        self.files = {file.path: file for file in self.corpus.files}
        self.held_out = {file.path for file in self.corpus.files if file.split != "train"}

    def passages(self, query: str, answer: str) -> list[Passage]:
        """Passages for a query, none of which is from a held-out file or holds the answer."""
        is_leak = leak_detector(self.held_out, answer)
        started = time.perf_counter()
        found = passages_for(
            self.search, query, most_tokens=self.most_tokens,
            count_tokens=lambda text: len(self.tokenizer.encode(text)), allowed=lambda unit: not is_leak(unit),
        )  # fmt: skip
        self.seconds.append(time.perf_counter() - started)
        return found

    def passages_of(self, pair: dict) -> list[Passage]:
        """Passages for an instruction pair: asked for is the code that it is about."""
        return self.passages(pair["input"] or pair["instruction"], self.answer_of(pair))

    def answer_of(self, pair: dict) -> str:
        """The code that a pair is about as it stands in its file, or what it has as its answer."""
        source = pair.get("source") or {}
        if source.get("path") not in self.files or not source.get("lines"):
            return pair["output"]
        first, last = source["lines"]
        return "\n".join(self.files[source["path"]].text.split("\n")[first - 1 : last])


def pieces(
    document: Document, tokenizer: Tokenizer, *, before: int, size: int, reader: Reader | None
) -> Iterator[Example]:
    """A file cut into pieces of `size` tokens to predict, each read after up to `before` tokens of what precedes it.

    With a reader, also after passages found for these tokens: in-context retrieval (arXiv:2302.00083). Every piece
    begins with the BOS if the model has one; without, the first token of a file is predicted from nothing and not
    counted, in either case.
    """
    bos = tokenizer.prefix_ids
    ids, labels = document.example.input_ids[len(bos) :], document.example.labels[len(bos) :]
    for start in range(0, len(ids), size):
        known, predicted = ids[max(0, start - before) : start], ids[start : start + size]
        passages: list[int] = []
        if reader is not None:
            found = reader.passages(f"{document.path}\n{tokenizer.decode(known)}", tokenizer.decode(predicted))
            passages = tokenizer.encode("".join(f"# {one.place}\n{one.code}\n\n" for one in found))
        read = bos + passages + known
        yield Example(read + predicted, [IGNORE] * len(read) + labels[start : start + size])
