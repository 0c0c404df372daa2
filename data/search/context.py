"""What a model is given to read with a question: code that search finds for it, within a budget of tokens.

    question ──► Search.results ──► passages that fit ──► the passages, then the question, in one message

Retrieval-augmented generation (arXiv:2005.11401) by the index of data/search/index.py. A question that is asked without
passages is unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.markdown import fenced
from data.corpus.languages import GRAMMARS, grammar_of
from data.search.results import Search

CANDIDATES = 20  # results that are looked at for passages that fit
HEADING = "Code of the repository that may help:"


@dataclass(frozen=True)
class Passage:
    """A unit of the repository: where it is, and its code."""

    path: str
    line: int
    code: str

    @property
    def place(self) -> str:
        """As a terminal links it: path:line."""
        return f"{self.path}:{self.line}"

    def __str__(self) -> str:
        """The passage as the model reads it."""
        return f"{self.place}\n{fenced(self.code, grammar_of(self.path, tuple(GRAMMARS)) or '')}"


def passages_for(
    search: Search,
    question: str,
    *,
    most_tokens: int,
    count_tokens: Callable[[str], int],
    allowed: Callable[[dict], bool] = lambda result: True,
) -> list[Passage]:
    """The best results of a question that fit in `most_tokens` together, best first; longer ones are skipped.

    count_tokens  number of tokens of a text for the model that will read it
    allowed       whether a result may be shown: an evaluation must not show the answer
    Files as wholes are left out: their outlines name code without showing it.
    """
    passages, left = [], most_tokens
    for result in search.results(question, CANDIDATES):
        if result["path"] is None or result.get("kind") == "file" or not allowed(result):
            continue
        passage = Passage(result["path"], result["line"], result["code"])
        if (length := count_tokens(f"{passage}\n\n")) <= left:
            passages.append(passage)
            left -= length
    return passages


def with_passages(question: str, passages: Sequence[Passage]) -> str:
    """The message of a question, after the passages if there are any."""
    return "\n\n".join([HEADING, *map(str, passages), question]) if passages else question
