"""Tasks that the training rows already hold, found by runs of words, likeness and embeddings; and scores without them.

    python -m eval.contamination --train train.jsonl --tasks test.jsonl --result after.json [--embedder M] --out F.json

| flagged by | when | as |
|---|---|---|
| run | a row holds a run of 13 words of the task | GPT-3, arXiv:2005.14165 |
| jaccard | the 5-grams of tokens of a row and the task have a Jaccard index of 0.7 | StarCoder, arXiv:2305.06161 |
| embedding | the cosine of a row and the task is 0.95, for rewordings that share no run (arXiv:2311.04850) | ours |

Compared is every text that a row or task holds (FIELDS), but for an instruction in data.instruct's own words: many
tasks are put in the same. A row with none of these fields is refused; longer texts in other fields are counted.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.console import UserError, progress, run_command
from common.files import read_json, read_json_list, read_jsonl, read_text, write_json
from common.options import as_settings, option, parse
from data.corpus import load_corpus
from data.corpus.decontaminate import RUN
from data.corpus.known_texts import WORD, KnownTexts
from data.instruct.phrasings import INSTRUCTIONS
from data.likeness.near_duplicates import jaccard, shingles
from eval.stats import mean_and_interval
from model import load_encoder

JACCARD = 0.7  # StarCoder's, arXiv:2305.06161
COSINE = 0.95
FIELDS = (
    *("instruction", "input", "output", "system", "history", "messages", "conversations"),
    *("prompt", "completion", "response", "chosen", "rejected"),
    *("query", "code", "negatives", "docstring", "content", "text", "document", "summary"),
    *("question", "context", "answer", "answers", "problem", "description", "explanation"),
    *("canonical_solution", "solution", "solutions", "test_setup_code", "setup", "test_list", "tests", "test"),
    *("challenge_test_list", "reasoning", "reasoning_content"),
)
NOT_LEARNT = ("check", "source")  # of instruction pairs: what proves the answer, and where it comes from
NO_TEXT = ("role", "type", "id", "name", "from")  # of a message
OWN_WORDS = re.compile(
    "|".join(
        re.sub(r"\\\{\w+\\\}", ".{1,200}?", re.escape(phrase))
        for phrases in INSTRUCTIONS.values()
        for phrase in phrases
    ),
    re.DOTALL,
)


def find_contamination(
    train: Sequence[tuple[str, str]],
    tasks: Sequence[tuple[str, str]],
    *,
    encoder=None,
    jaccard_from: float = JACCARD,
    cosine_from: float = COSINE,
) -> list[dict]:
    """What each task shares with the training rows. train, tasks: (id, text).

    encoder  of `load_encoder`: adds cosines
    Returns a row a task: {"id", "flagged_by": list of "run", "jaccard", "embedding", "run": id of the training row that
    holds a run of it or None, "jaccard", "jaccard_row", "cosine", "cosine_row"}; the last two are None without encoder.
    Raises UserError where there is nothing to compare.
    """
    if not train or not tasks:
        raise UserError("contamination needs training rows and tasks; one of the two files is empty")
    known = KnownTexts.of(list(train), RUN)
    sets = [shingles(text) for _, text in train]
    hashes = np.concatenate(sets)
    order = np.argsort(hashes, kind="stable")
    owners = np.repeat(np.arange(len(sets)), [len(one) for one in sets])[order]
    cosines = _nearest(train, tasks, encoder) if encoder else [(None, None)] * len(tasks)
    rows = []
    for (i, text), (cosine, cosine_row) in progress(list(zip(tasks, cosines, strict=True)), what="comparing tasks"):
        run = known.found_in(text)
        likeness, like_row = _most_like(shingles(text), sets, hashes[order], owners)
        reasons = {
            "run": run is not None,
            "jaccard": likeness >= jaccard_from,
            "embedding": cosine is not None and cosine >= cosine_from,
        }
        row = {"id": i, "flagged_by": [reason for reason, holds in reasons.items() if holds], "run": run}
        row |= {"jaccard": likeness, "jaccard_row": None if like_row is None else train[like_row][0]}
        rows.append({**row, "cosine": cosine, "cosine_row": cosine_row})
    return rows


def _most_like(
    own: np.ndarray, sets: list[np.ndarray], hashes: np.ndarray, owners: np.ndarray
) -> tuple[float, int | None]:
    """The highest Jaccard index of a task's 5-grams with a row's, and that row. hashes is sorted, owners beside it."""
    low, high = np.searchsorted(hashes, own, "left"), np.searchsorted(hashes, own, "right")
    found = [owners[start:end] for start, end in zip(low, high, strict=True) if start < end]
    candidates = np.unique(np.concatenate(found)) if found else []
    return max(((jaccard(own, sets[i]), int(i)) for i in candidates), default=(0.0, None), key=lambda one: one[0])


def _nearest(train: Sequence[tuple[str, str]], tasks: Sequence[tuple[str, str]], encoder) -> list[tuple[float, str]]:
    """(cosine, id of the training row) for each task; both sides are embedded as passages, for likeness."""
    rows = encoder.encode([text for _, text in train], "passage")  # [R, D] of unit length
    best = (encoder.encode([text for _, text in tasks], "passage") @ rows.T).max(dim=1)
    return [(value, train[i][0]) for value, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]


def scores_without(result: dict, flagged: set[str]) -> dict[str, dict]:
    """Each metric of an eval result over all its tasks and over those that are not flagged.

    Returns metric -> {"all", "clean": {"value", "interval" (95 %), "n"}}; "clean" is None where no task is left.
    Raises UserError for a file that is no such result.
    """
    if "values" not in result:
        raise UserError("a result has no 'values'; give files that the eval commands wrote")
    scores = {}
    for metric, of_task in result["values"].items():
        clean = [value for i, value in of_task.items() if i not in flagged]
        scores[metric] = {"all": _mean(list(of_task.values())), "clean": _mean(clean) if clean else None}
    return scores


def _mean(values: list[float]) -> dict:
    value, *interval = mean_and_interval(values)
    return {"value": value, "interval": interval, "n": len(values)}


def texts_of(rows: Sequence[dict], where: str = "data") -> list[tuple[str, str]]:
    """(id, text) of rows of any form: all that FIELDS hold. UserError names the row that has no text in any of them."""
    texts = []
    for number, row in enumerate(rows, 1):
        parts = [text for field in FIELDS for text in _strings(row.get(field)) if text.strip()]
        if not parts:
            raise UserError(
                f"{where}:{number}: nothing to compare: none of the fields that are read holds a text (this line has: "
                f"{', '.join(map(str, row)) or 'nothing'}). Name them as docs/formats.md does, such as instruction, "
                "input and output"
            )
        parts = [text for text in parts if not (text == row.get("instruction") and OWN_WORDS.fullmatch(text))]
        texts.append((str(row.get("id", row.get("task_id", f"row {number}"))), "\n".join(parts)))
    return texts


def fields_not_compared(rows: Sequence[dict]) -> dict[str, int]:
    """Fields that hold a text of RUN words or more and are not read, each with the number of such rows."""
    return dict(
        Counter(
            field
            for row in rows
            for field, value in row.items()
            if field not in FIELDS + NOT_LEARNT and any(len(WORD.findall(text)) >= RUN for text in _strings(value))
        )
    )


def _strings(value) -> Iterator[str]:
    """The texts in a field: itself, those of a list, or of a message without its role."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        inner = value if isinstance(value, list) else [one for key, one in value.items() if key not in NO_TEXT]
        for one in inner:
            yield from _strings(one)


def _read(path: str) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """Rows of a JSON Lines file with what is not compared of them; the training files of a corpus; or a folder's files.

    UserError for a folder that holds rows: which of its files is meant?
    """
    folder = Path(path)
    if (folder / "manifest.jsonl").is_file():
        return [(file.path, file.text) for file in load_corpus(folder).split("train")], {}
    if not folder.is_dir():
        rows = read_json_list(path) if folder.suffix == ".json" else read_jsonl(path)
        return texts_of(rows, path), fields_not_compared(rows)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    if rows := [file for file in files if ".jsonl" in file.suffixes]:
        raise UserError(f"{path}: a folder with rows in it ({rows[0].relative_to(folder)}); give the file itself")
    return [(str(file.relative_to(folder)), read_text(file)) for file in files], {}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this command."""

    train: str = option(help="training data: JSON Lines, a corpus, or a folder of files")
    tasks: str = option(help="evaluation tasks: JSON Lines, or a .json list", metavar="FILE")
    out: str = option(help="result, JSON", metavar="FILE")
    result: tuple[str, ...] = option(
        (), "eval results on the tasks, to be scored again without the flagged ones", nargs="*", metavar="FILE"
    )
    embedder: str | None = option(
        None, "encoder for the comparison by meaning, such as all-minilm-l6-v2 (default: no such comparison)",
        metavar="MODEL",
    )  # fmt: skip
    jaccard: float = option(JACCARD, "least Jaccard index of a flagged task")
    cosine: float = option(COSINE, "least cosine similarity of a flagged task")


def main() -> None:
    """Command line: compare, write, print what was flagged and what the scores are without it."""
    options = parse(Options, description="\n\n".join(__doc__.split("\n\n")[:2]))
    (train, not_of_train), (tasks, not_of_tasks) = _read(options.train), _read(options.tasks)
    encoder = load_encoder(options.embedder) if options.embedder else None
    limits = {"jaccard_from": options.jaccard, "cosine_from": options.cosine}
    rows = find_contamination(train, tasks, encoder=encoder, **limits)
    flagged = {row["id"] for row in rows if row["flagged_by"]}
    counts = {reason: sum(reason in row["flagged_by"] for row in rows) for reason in ("run", "jaccard", "embedding")}
    scores = {path: scores_without(read_json(path), flagged) for path in options.result}
    settings = as_settings(options, without=("out",))
    write_json(options.out, {"n": len(rows), "flagged": sorted(flagged), "counts": counts, "scores": scores,
                             "tasks": rows, "not_compared": {"train": not_of_train, "tasks": not_of_tasks},
                             "settings": settings})  # fmt: skip
    told = ", ".join(f"{count} by {reason}" for reason, count in counts.items() if encoder or reason != "embedding")
    print(f"{len(flagged)} of {len(rows)} tasks flagged ({told}) -> {options.out}")
    for path, fields in ((options.train, not_of_train), (options.tasks, not_of_tasks)):
        for field, count in fields.items():
            print(f"not compared: {field!r} of {path}, a text in {count} rows; rename it if it is learnt or asked")
    for path, metrics in scores.items():
        print(path)
        for metric, of in metrics.items():
            print(f"  {metric:22} all {_shown(of['all'])} · without the flagged {_shown(of['clean'])}")


def _shown(mean: dict | None) -> str:
    if mean is None:
        return "no task left"
    low, high = mean["interval"]
    return f"{mean['value']:.3f} [{low:.3f}, {high:.3f}] n = {mean['n']}"


if __name__ == "__main__":
    sys.exit(run_command(main, needs_less_with="a smaller --embedder"))
