"""Tasks that the training rows already hold, found by runs of words, likeness and embeddings; and scores without them.

    python -m eval.contamination --train train.jsonl --tasks test.jsonl --result after.json [--embedder M] --out F.json

| flagged by | when | as |
|---|---|---|
| run | a row holds a run of 13 words of the task | GPT-3, arXiv:2005.14165 |
| jaccard | the 5-grams of tokens of a row and the task have a Jaccard index of 0.7 | StarCoder, arXiv:2305.06161 |
| embedding | the cosine of a row and the task is 0.95, for rewordings that share no run (arXiv:2311.04850) | ours |

Compared is what a task shows and wants. Its instruction is left out: many tasks are put in the same words.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.dedup import KnownTexts, jaccard, shingles
from data.sources.decontaminate import RUN
from eval.stats import mean_and_interval
from model import load_encoder
from model.console import UserError, progress, run_command
from model.files import read_json, read_jsonl, read_text, write_json

JACCARD = 0.7  # StarCoder's, arXiv:2305.06161
COSINE = 0.95
FIELDS = (
    "input",
    "output",
    "query",
    "code",
    "text",
    "prompt",
    "completion",
    "canonical_solution",
    "test_list",
    "tests",
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


def texts_of(rows: Sequence[dict]) -> list[tuple[str, str]]:
    """(id, text) of rows of any of the project's formats: FIELDS that they have, or the words of their messages."""
    texts = []
    for number, row in enumerate(rows, 1):
        parts = [row[field] for field in FIELDS if row.get(field)]
        parts += [message.get("content") or "" for message in row.get("messages", [])]
        text = "\n".join("\n".join(map(str, part)) if isinstance(part, list) else str(part) for part in parts)
        texts.append((str(row.get("id", row.get("task_id", f"row {number}"))), text))
    return texts


def _read(path: str) -> list[tuple[str, str]]:
    """Rows of a JSON Lines file, or the files of a folder: a corpus."""
    if Path(path).is_dir():
        files = sorted(file for file in Path(path).rglob("*") if file.is_file() and file.suffix != ".jsonl")
        return [(str(file.relative_to(path)), read_text(file)) for file in files]
    return texts_of(read_jsonl(path))


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m eval.contamination", description=__doc__.split("\n\n")[0])
    parser.add_argument("--train", required=True, help="what was learnt from: JSON Lines, or a folder of files")
    parser.add_argument("--tasks", required=True, help="what is evaluated on: JSON Lines")
    parser.add_argument("--result", nargs="*", default=[], help="eval results on the tasks: scored without the flagged")
    parser.add_argument("--embedder", help="encoder for the third way (default: none; all-minilm-l6-v2 is embedded)")
    parser.add_argument(
        "--jaccard", type=float, default=JACCARD, help="flagged from this index on (default: %(default)s)"
    )
    parser.add_argument(
        "--cosine", type=float, default=COSINE, help="flagged from this cosine on (default: %(default)s)"
    )
    parser.add_argument("--out", required=True, help="result file, JSON")
    return parser.parse_args()


def main() -> None:
    """Command line: compare, write, print what was flagged and what the scores are without it."""
    options = _parse_options()
    encoder = load_encoder(options.embedder) if options.embedder else None
    limits = {"jaccard_from": options.jaccard, "cosine_from": options.cosine}
    rows = find_contamination(_read(options.train), _read(options.tasks), encoder=encoder, **limits)
    flagged = {row["id"] for row in rows if row["flagged_by"]}
    counts = {reason: sum(reason in row["flagged_by"] for row in rows) for reason in ("run", "jaccard", "embedding")}
    scores = {path: scores_without(read_json(path), flagged) for path in options.result}
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    write_json(options.out, {"n": len(rows), "flagged": sorted(flagged), "counts": counts, "scores": scores,
                             "tasks": rows, "settings": settings})  # fmt: skip
    told = ", ".join(f"{count} by {reason}" for reason, count in counts.items() if encoder or reason != "embedding")
    print(f"{len(flagged)} of {len(rows)} tasks flagged ({told}) -> {options.out}")
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
