"""The training example most similar to a failure: was it trained on, or was there nothing like it?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data.search.bm25 import BM25

LINES = 30  # per piece of a file


def with_nearest(failures: Sequence[dict], examples: Sequence[dict]) -> list[dict]:
    """The failures, each with "nearest": {"id", "prompt", "answer", "score"}, the example with the most similar prompt.

    failures  rows {"prompt", "category", …}
    examples  what was trained on: {"id", "prompt", "answer"}, optionally "category". Those of the failure's own
              category are preferred, if there are any. Without examples the failures are returned as they are
    Similarity is the BM25 score.
    """
    if not examples:
        return list(failures)
    index = BM25([example["prompt"] for example in examples])
    categories = np.array([example.get("category") for example in examples])
    rows = []
    for failure in failures:
        scores = index.scores(failure["prompt"])
        same = categories == failure["category"]
        best = int(np.where(same | ~same.any(), scores, -1.0).argmax())
        shown = {key: examples[best][key] for key in ("id", "prompt", "answer")}
        rows.append({**failure, "nearest": {**shown, "score": float(scores[best])}})
    return rows


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
