"""Track A's rows: the files of a corpus cut into pieces and packed, with its extras (FIM, import order, replay)."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

from common.shuffle import seeded_order
from data.corpus import Corpus
from data.fim import FimTokens, fim_pieces, fim_tokens
from data.import_order import repository_text
from data.masking import Example, plain_document
from data.packing import pack, pieces
from data.replay import replay_examples
from model.tokenizer import Tokenizer


def corpus_rows(
    corpus: Corpus,
    split: str,
    tokenizer: Tokenizer,
    *,
    row_tokens: int,
    seed: int,
    most_tokens: int = 0,
    fim: float = 0.0,
    repository_order: bool = False,
    replay: dict[str, dict] | None = None,
    replay_share: float = 0.0,
) -> list[list[Example]]:
    """Packed rows of a split's files, in seeded order; prints what they hold.

    row_tokens        capacity of a row; longer files are cut into pieces
    most_tokens       use pieces up to this many tokens (0: all)
    fim               share of the pieces that are rearranged to fill in the middle (data/fim.py)
    repository_order  the files as one document, imported ones first (data/import_order.py)
    replay            texts to mix in (data/replay.py), replay_share of all supervised tokens
    """
    # the documents: each file in seeded order, or all of them as one
    texts = {file.path: file.text for file in corpus.split(split)}
    documents = {path: texts[path] for path in seeded_order(list(texts), seed)}
    as_one = repository_order and bool(texts)
    if as_one:
        documents = {corpus.name: repository_text(texts)}
    tokens_of_fim = fim_tokens(tokenizer) if fim else None

    # pieces that fit a row, up to the budget
    examples: list[Example] = []
    used, room = set(), most_tokens or math.inf
    for path, piece in _pieces(documents, tokenizer, tokens_of_fim, rate=fim, row_tokens=row_tokens, seed=seed):
        room -= len(piece.input_ids)
        if room < 0:
            break
        examples.append(piece)
        used.add(path)

    # what is in them, for the line below
    what = f"{len(texts)} files as one text" if as_one else f"{len(used)} of {len(texts)} files"
    if tokens_of_fim:
        moved = sum(tokens_of_fim.middle in example.input_ids for example in examples)
        what += f" · fill-in-the-middle in {moved} of {len(examples)} pieces"

    # replayed texts on top, then packing
    if examples and replay:
        examples += _replayed(replay, examples, tokenizer, row_tokens=row_tokens, share=replay_share, seed=seed)
        what += " and replay"
    tokens = sum(len(example.input_ids) for example in examples)
    rows = pack(examples, row_tokens)
    print(f"data     {split}: {what} · {tokens:,} tokens in {len(rows)} rows")
    return rows


def _pieces(
    documents: dict[str, str], tokenizer: Tokenizer, fim: FimTokens | None, *, rate: float, row_tokens: int, seed: int
) -> Iterator[tuple[str, Example]]:
    """(path, piece) of every document {path: text}; each piece fits a row."""
    for path, text in documents.items():
        if fim is None:
            parts = pieces(plain_document(tokenizer, text), row_tokens)
        else:
            # a generator per file: its cuts do not depend on the files before it
            rng = random.Random(f"{seed}/{path}")
            parts = fim_pieces(tokenizer, fim, text, size=row_tokens, rate=rate, rng=rng)
        yield from ((path, part) for part in parts)


def _replayed(
    texts: dict[str, dict], examples: list[Example], tokenizer: Tokenizer, *, row_tokens: int, share: float, seed: int
) -> list[Example]:
    """Pieces of other texts that make up `share` of all supervised tokens; prints how many, and what was lost."""
    # as many as make up the share beside what the corpus has
    supervised = sum(example.supervised for example in examples)
    drawn, counts = replay_examples(texts, tokenizer, size=row_tokens, beside=supervised, share=share, seed=seed)
    tokens = sum(example.supervised for example in drawn)
    print(
        f"replay   {len(drawn)} of {counts['pieces']} pieces · {tokens:,} supervised tokens, "
        f"{100 * tokens / (supervised + tokens):.1f} % of all · {counts['cut']} truncated, {counts['dropped']} dropped"
    )
    return drawn
