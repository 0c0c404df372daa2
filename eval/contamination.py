"""Benchmark contamination: tasks that the training rows already contain, and the scores without them.

    python -m eval.contamination --train train.jsonl --tasks test.jsonl --result after.json [--embedder M] --out F.json

| flagged by | when | as |
|---|---|---|
| run | a row shares a run of 13 words with the task | GPT-3, arXiv:2005.14165 |
| jaccard | the token 5-grams of a row and the task have a Jaccard index of 0.7 | StarCoder, arXiv:2305.06161 |
| embedding | the cosine of a row and the task is 0.95, for rewordings without a common run (arXiv:2311.04850) | ours |

Compared is every text of a row or task (FIELDS in eval/row_texts.py) except instructions phrased by data.instruct,
which many tasks share. A row with none of these fields is refused; longer texts in other fields are counted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.console import UserError, progress, run_command
from common.files import read_json, read_objects, read_text, write_json
from common.options import as_settings, option, parse
from data.corpus import load_corpus
from data.corpus.decontaminate import RUN, KnownTexts
from data.likeness.near_duplicates import jaccard, shingles
from eval.code.task_files import task_file
from eval.row_texts import fields_not_compared, texts_of
from eval.stats import mean_and_interval
from model import load_encoder

JACCARD = 0.7  # StarCoder's, arXiv:2305.06161
COSINE = 0.95


def find_contamination(
    train: Sequence[tuple[str, str]],
    tasks: Sequence[tuple[str, str]],
    *,
    encoder=None,
    jaccard_from: float = JACCARD,
    cosine_from: float = COSINE,
) -> list[dict]:
    """What each task shares with the training rows. train, tasks: (id, text).

    encoder  from `load_encoder`, to compare embeddings as well
    Returns one row per task: {"id", "flagged_by": list of "run", "jaccard", "embedding", "run": id of a training row
    that shares a run, or None, "jaccard", "jaccard_row", "cosine", "cosine_row"}; the last two are None without an
    encoder. Raises UserError if there is nothing to compare.
    """
    if not train or not tasks:
        raise UserError("contamination needs training rows and tasks; one of the two is empty")
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
    """The highest Jaccard index of a task's 5-grams with a row's, and the number of that row.

    own     hashes of the task's 5-grams
    sets    those of each row
    hashes  those of all rows, sorted; owners [i] is the row that hashes [i] comes from
    """
    low, high = np.searchsorted(hashes, own, "left"), np.searchsorted(hashes, own, "right")
    found = [owners[start:end] for start, end in zip(low, high, strict=True) if start < end]
    candidates = np.unique(np.concatenate(found)) if found else []
    return max(((jaccard(own, sets[i]), int(i)) for i in candidates), default=(0.0, None), key=lambda one: one[0])


def _nearest(train: Sequence[tuple[str, str]], tasks: Sequence[tuple[str, str]], encoder) -> list[tuple[float, str]]:
    """(cosine, id of the nearest training row) per task. Both sides are embedded as passages, not as queries."""
    rows = encoder.encode([text for _, text in train], "passage")  # [R, D] of unit length
    best = (encoder.encode([text for _, text in tasks], "passage") @ rows.T).max(dim=1)
    return [(value, train[i][0]) for value, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]


def scores_without(result: dict, flagged: set[str]) -> dict[str, dict]:
    """Each metric of an eval result over all tasks and over those that are not flagged.

    Returns metric -> {"all", "clean": {"value", "interval" (95 %), "n"}}; "clean" is None if no task is left.
    Raises UserError for a file that is not an eval result.
    """
    if "values" not in result:
        raise UserError("a result has no 'values'; give result files written by the eval commands")
    scores = {}
    for metric, of_task in result["values"].items():
        clean = [value for i, value in of_task.items() if i not in flagged]
        scores[metric] = {"all": _mean(list(of_task.values())), "clean": _mean(clean) if clean else None}
    return scores


def _mean(values: list[float]) -> dict:
    value, *interval = mean_and_interval(values)
    return {"value": value, "interval": interval, "n": len(values)}


def _read(path: str) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """(id, text) of a file of rows, a corpus's training files or a folder's files; and `fields_not_compared`.

    UserError for a folder that contains JSON Lines, since it is unclear which of its files is meant.
    """
    folder = Path(path)
    if (folder / "manifest.jsonl").is_file():
        return [(file.path, file.text) for file in load_corpus(folder).split("train")], {}
    if not folder.is_dir():
        rows = read_objects(path)
        return texts_of(rows, path), fields_not_compared(rows)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    if rows := [file for file in files if ".jsonl" in file.suffixes]:
        raise UserError(
            f"{path}: a folder that contains JSON Lines ({rows[0].relative_to(folder)}); give the file itself"
        )
    return [(str(file.relative_to(folder)), read_text(file)) for file in files], {}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this command."""

    train: str = option(help="training data: JSON Lines, a corpus, or a folder of files")
    tasks: str = option(help="evaluation tasks: JSON Lines, a .json list, humaneval or mbpp", metavar="TASKS")
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
    (train, not_of_train), (tasks, not_of_tasks) = _read(options.train), _read(str(task_file(options.tasks)))
    encoder = load_encoder(options.embedder) if options.embedder else None
    rows = find_contamination(train, tasks, encoder=encoder, jaccard_from=options.jaccard, cosine_from=options.cosine)
    flagged = {row["id"] for row in rows if row["flagged_by"]}
    counts = {reason: sum(reason in row["flagged_by"] for row in rows) for reason in ("run", "jaccard", "embedding")}
    scores = {path: scores_without(read_json(path), flagged) for path in options.result}
    settings = as_settings(options, without=("out",))
    write_json(options.out, {"n": len(rows), "flagged": sorted(flagged), "counts": counts, "scores": scores,
                             "tasks": rows, "not_compared": {"train": not_of_train, "tasks": not_of_tasks},
                             "settings": settings})  # fmt: skip
    compared = [reason for reason in counts if encoder or reason != "embedding"]
    reasons = ", ".join(f"{counts[reason]} by {reason}" for reason in compared)
    print(f"{len(flagged)} of {len(rows)} tasks flagged ({reasons}) -> {options.out}")
    for path, fields in ((options.train, not_of_train), (options.tasks, not_of_tasks)):
        for field, count in fields.items():
            print(f"not compared: {field!r} of {path}, a text in {count} rows; rename it if a model sees it")
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
