"""Decontamination: files that share a run of words with a benchmark task are rejected.

As in DeepSeek-Coder (arXiv:2401.14196), but with RUN = 13 words, GPT-3's number (arXiv:2005.14165), instead of 10: in
code, ten words can be a plain double loop.
"""

from __future__ import annotations

from pathlib import Path

from common.console import UserError
from common.files import read_objects
from data.corpus.known_texts import KnownTexts

RUN = 13  # words
FIELDS = ("text", "prompt", "code", "canonical_solution", "test_list")  # of MBPP, its sanitized form, and HumanEval


def read_tasks(paths: list[str] | tuple[str, ...]) -> KnownTexts:
    """The tasks of MBPP's and HumanEval's own files: .jsonl, .jsonl.gz, or a .json list.

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
    return KnownTexts.of(texts, RUN)
