"""The training example most similar to a failure: was it trained on, or was there nothing like it?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data.search.bm25 import BM25

LINES = 30  # per piece of a file


def add_nearest(failures: list[dict], examples: Sequence[dict]) -> None:
    """Give each failure "nearest": {"id", "prompt", "answer", "score"}, the example whose prompt is likest to its own.

    failures  rows {"prompt", "category", …}
    examples  what was learnt from: {"id", "prompt", "answer"}, perhaps "category": then of the failure's own category,
              where there are such. None: nothing is set
    Likeness is BM25's.
    """
    if not examples:
        return
    index = BM25([example["prompt"] for example in examples])
    categories = np.array([example.get("category") for example in examples])
    for failure in failures:
        scores = index.scores(failure["prompt"])
        same = categories == failure["category"]
        best = int(np.where(same | ~same.any(), scores, -1.0).argmax())
        shown = {key: examples[best][key] for key in ("id", "prompt", "answer")}
        failure["nearest"] = {**shown, "score": float(scores[best])}


def pieces_of_files(files: Sequence[tuple[str, str]]) -> list[dict]:
    """(path, text) as examples of LINES lines each, answered by the LINES that follow."""
    examples = []
    for path, text in files:
        lines = text.split("\n")
        for start in range(0, len(lines), LINES):
            piece, after = ("\n".join(lines[begin : begin + LINES]) for begin in (start, start + LINES))
            if piece.strip():
                examples.append({"id": f"{path}:{start + 1}", "prompt": piece, "answer": after})
    return examples
